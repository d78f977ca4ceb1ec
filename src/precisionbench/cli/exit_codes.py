"""The exit codes of all commands."""

from __future__ import annotations

import click

THRESHOLD_MISSED = 1  # or interrupted, or `check` found a problem
BAD_USAGE = 2
NOTHING_MEASURED = 3

# The meaning of 3 for commands that measure nothing.
INTERNAL_ERROR = "precisionbench itself failed"


def exit_codes_text(
    one: str = "it was interrupted", three: str = "nothing could be measured"
) -> str:
    """The last line of a command's help.

    Args:
        one: what 1 means.
        three: what 3 means.
    """
    return f"Exit codes: 0 fine, 1 {one}, 2 bad usage, 3 {three}."


class BadUsage(click.ClickException):
    """The command line, the workload or a file cannot be used."""

    exit_code = BAD_USAGE


class NothingMeasured(click.ClickException):
    """No backend could be measured."""

    exit_code = NOTHING_MEASURED


class Interrupted(click.ClickException):
    """Ctrl-C was pressed; the message says what is saved."""

    exit_code = THRESHOLD_MISSED

    def show(self, file: object = None) -> None:
        """Print the message to standard error."""
        click.echo(f"Interrupted: {self.message}", err=True)
