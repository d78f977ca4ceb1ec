"""Exit codes: what each command's means, in one place."""

from __future__ import annotations

import click

THRESHOLD_MISSED = 1  # or interrupted, or a gate is broken
BAD_USAGE = 2
NOTHING_MEASURED = 3


def exit_codes(one: str = "it was interrupted", three: str = "nothing could be measured") -> str:
    """The last line of a command's help.

    Args:
        one: when it ends with 1.
        three: when it ends with 3.
    """
    return f"Exit codes: 0 fine, 1 {one}, 2 bad usage, 3 {three}."


# Of commands that measure nothing.
OWN_FAILURE = "precisionbench itself failed"


class BadUsage(click.ClickException):
    """What was asked for cannot be done."""

    exit_code = BAD_USAGE


class NothingMeasured(click.ClickException):
    """What was asked for was tried, and could not be measured."""

    exit_code = NOTHING_MEASURED


class Interrupted(click.ClickException):
    """A Ctrl-C ended it; the message says what is kept."""

    exit_code = THRESHOLD_MISSED

    def show(self, file: object = None) -> None:
        """Say so on standard error."""
        click.echo(f"Interrupted: {self.message}", err=True)
