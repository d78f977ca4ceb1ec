"""The lines of JSON in which a worker answers its parent, and their checks.

Each request has a random ID, which is in each line that answers it. Code in a worker that writes to
the channel by mistake does not know it.
"""

from __future__ import annotations

import json
from typing import Any

import attrs

from precisionbench import errors
from precisionbench.errors import (
    FOREIGN_ERRORS,
    PrecisionBenchError,
    WorkerError,
    one_line,
    traceback_of,
)
from precisionbench.results import json_format

MAX_LINE_BYTES = 1 << 26
_MAX_SENTENCE = 10_000


class BrokenAnswerError(Exception):
    """A line is not an answer; the text gives the reason."""


class RemoteError(Exception):
    """An error that was raised in a worker process; its text is the traceback there."""


@attrs.frozen
class ErrorText:
    """An error as text: foreign ones may not survive pickling, and their classes may be unknown.

    Attributes:
        kind: name of a class in `errors`.
        reason: as in `PrecisionBenchError`.
        remedy: as in `PrecisionBenchError`.
        cause: the traceback of the error that it follows from.
    """

    kind: str
    reason: str
    remedy: str = ""
    cause: str = ""

    @classmethod
    def of(cls, error: PrecisionBenchError) -> ErrorText:
        """An error as text of bounded length."""
        cause = error.__cause__
        reason = getattr(error, "requirement", error.reason)
        return cls(
            type(error).__name__,
            str(reason)[:_MAX_SENTENCE],
            str(error.remedy)[:_MAX_SENTENCE],
            traceback_of(cause) if cause else "",
        )

    def rebuilt(self) -> PrecisionBenchError:
        """The error that the worker described."""
        kind = getattr(errors, self.kind, None)
        known = isinstance(kind, type) and issubclass(kind, PrecisionBenchError)
        error: PrecisionBenchError = (kind if known else PrecisionBenchError)(  # type: ignore[misc]
            self.reason, self.remedy
        )
        error.__cause__ = RemoteError(self.cause) if self.cause else None
        return error


@attrs.frozen
class Message:
    """A line that a worker writes: a step of its work, or the end of it.

    Attributes:
        id: of the request.
        step: what it does next; None in an answer.
        error: why it failed; None where it did not.
        value: the result as a JSON value.
    """

    id: str
    step: str | None = None
    error: ErrorText | None = None
    value: Any = None


def encoded(message: Message) -> bytes:
    """The line of a message.

    Args:
        message: to be sent.

    Raises:
        WorkerError: it cannot be sent: it is too large, or its value is not JSON.
    """
    try:
        line = json.dumps(attrs.asdict(message), allow_nan=False).encode() + b"\n"
    except FOREIGN_ERRORS as exc:
        raise WorkerError(f"its answer cannot be sent ({one_line(exc)})") from exc
    if len(line) > MAX_LINE_BYTES:
        raise WorkerError(
            f"its answer of {len(line) >> 20} MiB exceeds the limit of {MAX_LINE_BYTES >> 20} MiB"
        )
    return line


def decoded(line: bytes) -> Message:
    """The message of a line.

    Args:
        line: what the parent has read.

    Raises:
        BrokenAnswerError: it is none.
    """
    if len(line) > MAX_LINE_BYTES:
        raise BrokenAnswerError(f"a line of more than {MAX_LINE_BYTES >> 20} MiB")
    try:
        return json_format.structured(json.loads(line, parse_constant=_refused), Message)
    except Exception as exc:  # of json, and groups of cattrs
        text = line[:40].decode("utf-8", "replace").strip()
        raise BrokenAnswerError(f"{text!r} is not an answer ({one_line(exc, 80)})") from exc


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
