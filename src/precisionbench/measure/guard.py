"""Keeps what is measured: an exception of any kind becomes a warning, a note, or a row's error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

import attrs

from precisionbench.errors import FOREIGN_ERRORS, PrecisionBenchError, one_line
from precisionbench.results import DeviceState
from precisionbench.system.telemetry import NoTelemetry, Telemetry

R = TypeVar("R")
_REPORT = "please report it"


def explained(exc: BaseException) -> PrecisionBenchError:
    """An error of this library as it is; any other one becomes an internal error.

    Code of plugins and models runs within guards that give errors of this library.

    Args:
        exc: what was caught.
    """
    if isinstance(exc, PrecisionBenchError):
        return exc
    error = PrecisionBenchError(f"precisionbench itself failed ({one_line(exc)})", _REPORT)
    error.__cause__ = exc
    return error


@contextlib.contextmanager
def warned(warn: Callable[[str], object], before: str) -> Iterator[None]:
    """Turn an exception of any kind within into a warning; a Ctrl-C passes.

    Args:
        warn: takes the warning.
        before: what the warning begins with.
    """
    try:
        yield
    except FOREIGN_ERRORS as exc:
        warn(f"{before}: {explained(exc)}")


@attrs.define
class Dispensable:
    """Something that the measurement does not depend on: its first error disables it.

    Attributes:
        name: what it is, for the note.
        note: takes the note that it failed.
        is_ours: whether it is code of this library, whose errors are to be reported.
        failed: whether it has failed.
    """

    name: str
    note: Callable[[str], object]
    is_ours: bool = True
    failed: bool = attrs.field(default=False, init=False)

    def do(self, action: Callable[[], R]) -> R | None:
        """The result of an action; None where it fails, or has failed before.

        Args:
            action: what to do.
        """
        if self.failed:
            return None
        try:
            return action()
        except FOREIGN_ERRORS as exc:
            self.failed = True
            request = f"; {_REPORT}" if self.is_ours else ""
            self.note(f"{self.name} failed ({one_line(exc)}) and was disabled{request}")
        return None


class GuardedTelemetry:
    """Telemetry that its first error disables; use it as a context manager.

    Args:
        opened: opens it.
        note: takes the note that it failed.
    """

    def __init__(
        self,
        opened: Callable[[], AbstractContextManager[Telemetry]],
        note: Callable[[str], object],
    ) -> None:
        self._open, self._reading = opened, Dispensable("reading the device's state", note)
        self._telemetry: Telemetry = NoTelemetry()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> GuardedTelemetry:
        opened = self._reading.do(lambda: self._stack.enter_context(self._open()))
        self._telemetry = opened or self._telemetry
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(*FOREIGN_ERRORS):  # all has been read
            self._stack.close()

    def before(self) -> None:
        """Called right before a block."""
        self._reading.do(self._telemetry.before)

    def after(self) -> DeviceState | None:
        """Called right after the block; None if the state is unknown."""
        return self._reading.do(self._telemetry.after)
