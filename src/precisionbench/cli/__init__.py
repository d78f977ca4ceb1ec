"""The command line: a thin face over the library; each command is a module."""

from precisionbench.cli.main import main as main
