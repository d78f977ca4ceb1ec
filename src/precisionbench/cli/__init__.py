"""The command line; each command is a module."""

from precisionbench.cli.main import main as main
