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
     ├── MissingPackageError          an optional package, such as pandas, is not installed
     └── OutputError                  a file cannot be written
          └── OutputExistsError       it exists and may not be replaced

Each says what is wrong (`reason`) and what to do next (`remedy`); `str()` gives both in one
sentence, in which all that a name could hide is visible.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from precisionbench import safe_text


class PrecisionBenchError(Exception):
    """Base class of all exceptions: what is wrong and how to fix it.

    Args:
        reason: what is wrong, and where; made text by `text_of`, because plugins raise these, too.
        remedy: what to do next; empty where the reason says it.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason, remedy)
        self.reason = text_of(reason)
        self.remedy = text_of(remedy)

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
        self.requirement = self.reason
        self.reason = f"requires {self.requirement}"


def requirement_of(reason: str) -> str:
    """What a backend lacks here, from the reason of its `BackendUnavailableError`.

    Args:
        reason: of this version (`requires an NVIDIA GPU`) or of an old result file (`needs ...`).
    """
    return reason.removeprefix("requires ").removeprefix("needs ")


class PreparationError(PrecisionBenchError):
    """The backend could not prepare the model; its own error is the `__cause__`."""


class ExecutionError(PrecisionBenchError):
    """The prepared model failed when it was called; its own error is the `__cause__`."""


class OutOfMemoryError(ExecutionError):
    """The model and this batch do not fit in the device's memory."""


class SlowCallError(PrecisionBenchError):
    """A call takes so much longer than those of another row that it is not measured."""


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


class MissingPackageError(PrecisionBenchError, ImportError):
    """A package that only some methods need, such as pandas or matplotlib, is not installed."""


class OutputError(PrecisionBenchError):
    """A file cannot be written."""


class OutputExistsError(OutputError, FileExistsError):
    """The file exists and may not be replaced."""


_NOTHING_KEPT = "nothing is kept"


class Terminated(BaseException):
    """SIGTERM or SIGHUP was received; see `_internal.termination`.

    Attributes:
        kept: what of the run is kept, as a sentence.
    """

    kept = _NOTHING_KEPT


def kept_at(end: BaseException) -> str:
    """What of a run is kept that a signal has ended, as a sentence.

    Args:
        end: with an attribute `kept`; or raised by a second signal, while one that has it was
            handled.
    """
    found: BaseException | None = end
    while found is not None:
        if "kept" in vars(found):
            return str(vars(found)["kept"])
        found = found.__context__
    return _NOTHING_KEPT


# Exceptions to catch from third-party code, some of which calls sys.exit() instead of raising.
FOREIGN_ERRORS = (Exception, SystemExit)
# Exceptions that end the whole run, whatever code they interrupt: never an error of that code.
ENDS_OF_RUN = (KeyboardInterrupt, Terminated)


class PrecisionBenchWarning(UserWarning):
    """A warning that a backend adds to its row: the cause and what to do."""


_NAMES_LISTED = 20
_NAME_COMPARED = 100  # characters of a name that is like one of ours
_NAMES_IN_SENTENCE = 3
# Characters that are kept of a text of others, and of a traceback.
_TEXT_LIMIT, _TRACEBACK_LIMIT = 20_000, 100_000


def some(names: list[str]) -> str:
    """The first names of a list, and the number of the others."""
    more = len(names) - _NAMES_IN_SENTENCE
    return ", ".join(names[:_NAMES_IN_SENTENCE]) + (f" and {more} more" if more > 0 else "")


def kind_of(value: object) -> str:
    """The type of an object, with its article.

    Args:
        value: what a user has given instead of something else.

    Returns:
        Such as "a Tensor" or "an int".
    """
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeioAEIO" else f"a {name}"


def text_of(value: object, limit: int = _TEXT_LIMIT) -> str:
    """`str(value)` of an object that others made, as text that can be shown and written to a file.

    An exception's text may be of any length, have lone surrogates, or be impossible to make.

    Args:
        value: such as an exception.
        limit: characters of its text that are kept, half of them of its end; a line says how much
            was left out between.
    """
    try:
        text = str.__str__(str(value))  # of a plain string: a subclass may slice in its own way
    except ENDS_OF_RUN:
        raise
    except BaseException as exc:
        return f"its text cannot be made, because of {type(exc).__name__}"
    return _shortened(text, limit).encode("utf-8", "backslashreplace").decode("utf-8")


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n{left_out(len(text) - 2 * half)}\n{text[-half:]}"


def left_out(characters: int) -> str:
    """The line in place of a part of a text that is not kept.

    Args:
        characters: how many that part has.
    """
    units = ((1e6, "MB"), (1e3, "kB"))
    amount = next((f"{characters / x:.1f} {unit}" for x, unit in units if characters >= x), None)
    return f"... {amount or f'{characters} characters'} left out ..."


def traceback_of(error: BaseException) -> str:
    """The traceback of an exception of others as text, see `text_of`."""
    import traceback  # only a failure needs it

    try:
        return text_of("".join(traceback.format_exception(error)), _TRACEBACK_LIMIT)
    except Exception:  # such as notes that are not text
        return one_line(error)


def one_line(error: BaseException, limit: int = 300) -> str:
    """The error's type and its most informative line, for use within a sentence.

    Args:
        error: of any class; its text may be of any kind, see `text_of`.
        limit: characters of the result at most.
    """
    lines = [line.strip() for line in text_of(error).splitlines() if line.strip()]
    name = " ".join(text_of(type(error).__name__).split())
    text = f"{name}: {_main_line(lines)}" if lines else name
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _main_line(lines: list[str]) -> str:
    """The first line, or the next one where that is a heading as in torch.compile's errors."""
    if lines[0].endswith("interpreter."):
        return lines[-1]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def raise_plain(error: PrecisionBenchError) -> NoReturn:
    """Raise an error of a plugin's own class as one of the class of ours that it is derived from.

    The plugin's class may have no reason, or a `str` that raises, and no other process knows it.

    Args:
        error: raised by the code of a plugin or a model; one of our own classes is raised as it is.
    """
    if str(type(error).__module__).partition(".")[0] == __package__:
        raise error
    kind = next(base for base in type(error).__mro__ if base.__module__ == __name__)
    is_requirement = issubclass(kind, BackendUnavailableError)
    try:
        reason = error.requirement if is_requirement else error.reason  # type: ignore[attr-defined]
        made = kind(reason, error.remedy)
    except Exception:  # it has none
        made = kind(one_line(error))
    raise made from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy that suggests the most similar known name and lists the known names."""
    import difflib  # only a mistake needs it

    names = sorted(known)
    by_lower = {one.lower(): one for one in names}
    near = difflib.get_close_matches(name[:_NAME_COMPARED].lower(), by_lower, n=1)
    guess = f"did you mean {by_lower[near[0]]!r}? " if near else ""
    more = f" and {len(names) - _NAMES_LISTED} more" if len(names) > _NAMES_LISTED else ""
    listed = ", ".join(map(safe_text.line, names[:_NAMES_LISTED]))
    return f"{guess}known: {listed or 'none'}{more}"
