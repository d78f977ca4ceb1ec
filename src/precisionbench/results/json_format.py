"""Results as versioned JSON files, which are written atomically.

Reading a file evaluates and unpickles nothing.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from precisionbench._internal.files import temporary_beside
from precisionbench.errors import (
    OutputError,
    OutputExistsError,
    ResultFormatError,
    did_you_mean,
    one_line,
)
from precisionbench.results.comparison_data import BackendResult, ComparisonData
from precisionbench.results.latency import known_noise_floor

if TYPE_CHECKING:
    from cattrs.preconf.json import JsonConverter

T = TypeVar("T")
FORMAT = "precisionbench.comparison"
# 1: one process, rows one after another. 2: replicas, rounds, passes. 3: evidence.
VERSION = 3


@cache
def _converter() -> JsonConverter:
    from cattrs.gen import make_dict_unstructure_fn, override
    from cattrs.preconf.json import make_converter

    converter = make_converter()
    # Options, flags and details are JSON already, whatever the file holds there.
    # By predicate, because Any is no class before Python 3.11.
    converter.register_structure_hook_func(lambda kind: kind is Any, lambda value, _: value)
    # Files from before these were recorded are written again as they were.
    omitted = override(omit_if_default=True)
    converter.register_unstructure_hook(
        BackendResult, make_dict_unstructure_fn(BackendResult, converter, claims=omitted)
    )
    converter.register_unstructure_hook(
        ComparisonData,
        make_dict_unstructure_fn(ComparisonData, converter, options=omitted, conditions=omitted),
    )
    return converter


def unstructured(value: Any) -> Any:
    """Convert an instance of the classes in `results` to JSON values."""
    return _converter().unstructure(value)


def structured(document: Any, kind: type[T]) -> T:
    """Convert JSON values to an instance of a class in `results`; the inverse of `unstructured`.

    Args:
        document: the result of `unstructured`.
        kind: the class.
    """
    return _converter().structure(document, kind)


def to_json(data: ComparisonData) -> str:
    """The comparison as JSON text.

    Args:
        data: the comparison.

    Returns:
        Indented JSON with its format name and version first.
    """
    return json.dumps(as_document(data), indent=1, allow_nan=False) + "\n"


def as_document(data: ComparisonData) -> dict[str, Any]:
    """The comparison as JSON values, with its format name and version first.

    Args:
        data: the comparison.
    """
    return {"format": FORMAT, "version": VERSION, **unstructured(data)}


def from_json(text: str, source: str = "this text") -> ComparisonData:
    """The comparison in a JSON text.

    Args:
        text: the result of `to_json`.
        source: name of the file, for the error.

    Raises:
        ResultFormatError: the text is incomplete, another format, or of an unknown version.
    """
    document = _parse(text, source)
    _check_header(document, source)
    try:
        return structured(document, ComparisonData)
    except Exception as exc:  # cattrs raises groups and the constructors' own errors
        raise ResultFormatError(
            f"{source} is a damaged precisionbench result ({_fault(exc)})",
            "measure again, or restore the file from where it was copied",
        ) from exc


def _fault(error: Exception) -> str:
    """The first error, with its path in the document."""
    from cattrs import transform_error
    from cattrs.v import format_exception

    def said(exc: BaseException, kind: type | None) -> str:
        return str(exc) if type(exc) is ValueError else format_exception(exc, kind)

    return next(iter(transform_error(error, format_exception=said)), one_line(error))


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        document = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as exc:
        raise ResultFormatError(
            f"{source} is not complete JSON ({exc})",
            "it was cut off or is no precisionbench result; measure again or copy it anew",
        ) from exc
    if not isinstance(document, dict):
        raise ResultFormatError(
            f"{source} holds JSON but no precisionbench result",
            "give a file that comparison.save() or --output wrote",
        )
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is no number of ours")
    return number


def _check_header(document: dict[str, Any], source: str) -> None:
    if document.pop("format", None) != FORMAT:
        raise ResultFormatError(
            f"{source} is no precisionbench result (its 'format' is not {FORMAT!r})",
            "give a file that comparison.save() or --output wrote",
        )
    version = document.pop("version", None)
    if type(version) is not int or version not in (*_UPGRADES, VERSION):
        raise ResultFormatError(
            f"{source} has format version {version!r}, and this precisionbench reads up to "
            f"{VERSION}",
            "upgrade precisionbench, or measure again with this one",
        )
    try:
        for older in range(version, VERSION):
            _UPGRADES[older](document)
    except (AttributeError, KeyError, TypeError) as exc:
        raise ResultFormatError(
            f"{source} is a damaged precisionbench result of format version {version} "
            f"({one_line(exc)})",
            "measure again, or restore the file from where it was copied",
        ) from exc


def _from_version_1(document: dict[str, Any]) -> None:
    """Rows were measured one after another, each in one process; no noise floor was recorded."""
    document["noise_floor"] = known_noise_floor(document["environment"]["device"])
    for row in document["results"]:
        measured = row["measurement"]
        prepared = {key: measured.pop(key) for key in ("build_s", "first_call_s", "warmup_calls")}
        measured["preparations"] = [prepared]
        measured["blocks"] = [
            {"round": number, "position": 0, "replica": 0, "samples": samples}
            for number, samples in enumerate(measured["blocks"])
        ]


# For each older version, a function that upgrades a document to the next version.
_UPGRADES: dict[int, Callable[[dict[str, Any]], None]] = {
    1: _from_version_1,
    2: lambda _: None,  # evidence may be missing
}


def read_text(path: str | os.PathLike[str]) -> tuple[str, str]:
    """The text of a result file.

    Args:
        path: a file that `write` wrote, or a journal.

    Returns:
        The text, and the file's name for errors.

    Raises:
        ResultFormatError: the file is missing or not a text file.
    """
    file = _path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        near = [entry.name for entry in file.parent.glob("*.json")]
        remedy = did_you_mean(file.name, near) if near else "check the path"
        raise ResultFormatError(f"there is no file {str(file)!r}", remedy) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ResultFormatError(
            f"{str(file)!r} cannot be read as text ({one_line(exc)})",
            "give a file that comparison.save() or --output wrote",
        ) from exc
    return text, repr(str(file))


def _path(path: str | os.PathLike[str]) -> Path:
    name = os.fsdecode(path)
    if "\0" in name:
        raise OutputError(f"{name!r} is no name of a file", "leave the null character out")
    return Path(name)


def _target(path: str | os.PathLike[str]) -> Path:
    """The file to write: the target of a symbolic link, which stays."""
    try:
        return Path(os.path.realpath(_path(path)))
    except OSError as exc:  # the working directory is gone, or links go in a circle
        raise OutputError(
            f"{str(path)!r} leads nowhere ({one_line(exc)})", "choose another place"
        ) from exc


def check_writable(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise before the measurement what `write` would raise after it.

    Args:
        path: file to write later.
        overwrite: whether an existing file may be replaced.

    Raises:
        OutputExistsError: the file exists and may not be replaced.
        OutputError: its folder does not exist or is not writable.
    """
    file = _path(path)
    if file.is_dir():
        raise OutputError(f"{str(file)!r} is a folder", "give the name of a file in it")
    if file.exists() and not file.is_file():
        raise OutputError(f"{str(file)!r} is a device or a pipe", "give the name of a file")
    if file.exists() and not overwrite:
        raise _exists(file)
    if not file.parent.is_dir():
        raise OutputError(
            f"there is no folder {str(file.parent)!r}", "create it, or choose another"
        )
    if not os.access(file.parent, os.W_OK):
        raise OutputError(f"{str(file.parent)!r} may not be written to", "choose another folder")


def write(path: str | os.PathLike[str], text: str, *, overwrite: bool = False) -> None:
    """Write a file atomically.

    The text is written to a temporary file in the same folder, which is then renamed.

    Args:
        path: file to write.
        text: its whole content.
        overwrite: replace a file that exists.

    Raises:
        OutputExistsError: the file exists and `overwrite` is false.
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    check_writable(path, overwrite)
    file = _target(path)
    try:
        with temporary_beside(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
            (os.replace if overwrite else _link)(temporary, file)
    except FileExistsError as exc:  # it was created in the meantime
        raise _exists(file) from exc
    except OSError as exc:
        raise OutputError(
            f"{str(file)!r} could not be written ({one_line(exc)})", "choose another place"
        ) from exc


def _exists(file: Path) -> OutputExistsError:
    return OutputExistsError(
        f"{str(file)!r} exists", "choose another name, or pass overwrite (--overwrite)"
    )


def _link(temporary: Path, file: Path) -> None:
    """Rename a file unless the name is taken; a hard link, unlike a rename, fails in that case."""
    try:
        os.link(temporary, file)
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        with file.open("xb") as new:  # a file system without hard links
            new.write(temporary.read_bytes())
