"""The command line: one module for each command."""

from precisionbench.cli.main import main as main
