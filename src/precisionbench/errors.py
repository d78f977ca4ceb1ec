"""The exceptions of this library.

::

    PrecisionBenchError
     ├── SpecError                    a backend spec or option that cannot be understood
     │    ├── BackendNotFoundError    no backend of that name is installed
     │    └── UntrustedSpecError      a file names a plugin, code or a folder, and is not trusted
     ├── WorkloadError                the model, its inputs or the device cannot be used
     ├── BackendUnavailableError      this machine lacks what the backend needs
     ├── PreparationError             the backend could not prepare the model
     ├── ExecutionError               the prepared model failed when it was called
     │    └── OutOfMemoryError        it does not fit in the device's memory
     ├── WorkerError                  a worker process died or stopped answering
     ├── MeasurementError             the clock gave something that is not a time
     ├── StateLeakError               a backend changed torch for the whole process
     ├── DeviceError                  the device stopped answering; nothing more can be measured
     ├── ResultFormatError            a result file is missing, damaged, too new, or not ours
     ├── RowNotFoundError             a comparison has no such row
     ├── PublishedDataError           a file of published numbers is wrong
     ├── RecordNotFoundError          no published number has this id
     ├── IncomparableError            two results must not be compared
     └── OutputError                  a file cannot be written
          └── OutputExistsError       it exists and may not be replaced

Each says what is wrong (`reason`) and what to do next (`remedy`); `str()` gives both in one
sentence, in which all that a name could hide is visible.
"""

from __future__ import annotations

from collections.abc import Iterable

from precisionbench import safe_text


class PrecisionBenchError(Exception):
    """Base class of all exceptions: what is wrong and how to fix it.

    Args:
        reason: what is wrong, and where.
        remedy: what to do next; empty where the reason says it.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason, remedy)
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        whole = f"{self.reason}; {self.remedy}" if self.remedy else self.reason
        return safe_text.lines(whole)


class SpecError(PrecisionBenchError, ValueError):
    """A backend spec, option or argument that cannot be understood."""


class BackendNotFoundError(SpecError):
    """No backend of that name is installed."""


class UntrustedSpecError(SpecError):
    """A file names a plugin, code or a folder, which is not used without the user's trust."""


class WorkloadError(PrecisionBenchError, ValueError):
    """The model, its inputs or the device cannot be used as given."""


class BackendUnavailableError(PrecisionBenchError):
    """This machine lacks what the backend needs.

    Args:
        requirement: what is needed, as a noun phrase ("an NVIDIA GPU").
        remedy: how to get it.
    """

    def __init__(self, requirement: str, remedy: str = "") -> None:
        super().__init__(requirement, remedy)
        self.requirement = requirement
        self.reason = f"needs {requirement}"


class PreparationError(PrecisionBenchError):
    """The backend could not prepare the model; its own error is the `__cause__`."""


class ExecutionError(PrecisionBenchError):
    """The prepared model failed when it was called; its own error is the `__cause__`."""


class OutOfMemoryError(ExecutionError):
    """The model and this batch do not fit in the device's memory."""


class MeasurementError(PrecisionBenchError):
    """The clock gave something that cannot be a time."""


class WorkerError(PrecisionBenchError):
    """A backend's worker process died, or did not answer and was ended."""


class StateLeakError(PrecisionBenchError):
    """A backend left torch changed for the whole process; the reason names what."""


class DeviceError(PrecisionBenchError):
    """The device stopped answering, so nothing more can be measured in this process."""


class ResultFormatError(PrecisionBenchError):
    """A result file is missing, damaged, of an unknown version, or not ours."""


class RowNotFoundError(PrecisionBenchError, KeyError):
    """The comparison has no row of that name."""


class PublishedDataError(PrecisionBenchError):
    """A file of published numbers cannot be read, or something in it is wrong."""


class RecordNotFoundError(PrecisionBenchError, KeyError):
    """No published number has this id."""


class IncomparableError(PrecisionBenchError):
    """Two results differ in something that makes comparing them wrong."""


class OutputError(PrecisionBenchError):
    """A file cannot be written."""


class OutputExistsError(OutputError, FileExistsError):
    """The file exists and may not be replaced."""


# Exceptions to catch from third-party code, some of which calls sys.exit() instead of raising.
FOREIGN_ERRORS = (Exception, SystemExit)


class PrecisionBenchWarning(UserWarning):
    """A warning that a backend adds to its row: the cause and what to do."""


_NAMES_LISTED = 20
_NAMES_IN_SENTENCE = 3


def some(names: list[str]) -> str:
    """The first names of a list, and the number of the others."""
    more = len(names) - _NAMES_IN_SENTENCE
    return ", ".join(names[:_NAMES_IN_SENTENCE]) + (f" and {more} more" if more > 0 else "")


def one_line(error: BaseException, limit: int = 300) -> str:
    """The error's type and its most informative line, for use within a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {_main_line(lines)}" if lines else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _main_line(lines: list[str]) -> str:
    """The first line, or the next one where that is a heading as in torch.compile's errors."""
    if lines[0].endswith("interpreter."):
        return lines[-1]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy that suggests the most similar known name and lists the known names."""
    import difflib  # only a mistake needs it

    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    more = f" and {len(names) - _NAMES_LISTED} more" if len(names) > _NAMES_LISTED else ""
    return f"{guess}known: {', '.join(names[:_NAMES_LISTED]) or 'none'}{more}"
