"""The exit codes of all commands."""

from __future__ import annotations

import click

from precisionbench import safe_text

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


class _Failure(click.ClickException):
    """An error whose message may hold text of others."""

    def format_message(self) -> str:
        """The message, of which everything is visible."""
        return safe_text.lines(self.message)


class BadUsage(_Failure):
    """The command line, the workload or a file cannot be used."""

    exit_code = BAD_USAGE


class NothingMeasured(_Failure):
    """No backend could be measured."""

    exit_code = NOTHING_MEASURED


class Interrupted(_Failure):
    """Ctrl-C was pressed; the message says what is saved."""

    exit_code = THRESHOLD_MISSED

    def show(self, file: object = None) -> None:
        """Print the message to standard error."""
        click.echo(f"Interrupted: {self.format_message()}", err=True)
