"""The exit codes of all commands."""

from __future__ import annotations

import click

from precisionbench import safe_text

THRESHOLD_MISSED = 1  # or `check` found a problem
BAD_USAGE = 2
NOTHING_MEASURED = 3
INTERRUPTED = 130  # what shells give where SIGINT has ended a program
CLOSED_PIPE = 141  # likewise for SIGPIPE; 1 would read as a missed threshold

# The meaning of 3 for commands that measure nothing.
INTERNAL_ERROR = "precisionbench itself failed"
# The meaning of 1 for commands with --fail-under.
A_THRESHOLD = "a threshold was missed"


def exit_codes_text(one: str = "", three: str = "nothing could be measured") -> str:
    """The last line of a command's help.

    Args:
        one: what 1 means; empty for a command that never exits with it.
        three: what 3 means.
    """
    if_one = f"{THRESHOLD_MISSED} {one}, " if one else ""
    return (
        f"Exit codes: 0 success, {if_one}{BAD_USAGE} bad usage, {NOTHING_MEASURED} {three}, "
        f"{INTERRUPTED} interrupted."
    )


class _Failure(click.ClickException):
    """An error whose message may contain text of others."""

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

    exit_code = INTERRUPTED

    def __init__(self, kept: str) -> None:
        """What is saved, which also holds where a second Ctrl-C comes before this is shown."""
        super().__init__(kept)
        self.kept = kept

    def show(self, file: object = None) -> None:
        """Print the message to stderr."""
        click.echo(f"Interrupted: {self.format_message()}", err=True)
