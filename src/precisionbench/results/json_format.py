"""Results as versioned JSON.

Reading a file evaluates and unpickles nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from precisionbench._internal import bounded_reading
from precisionbench._internal.bounded_reading import why_unreadable
from precisionbench._internal.paths import quoted, usable_path
from precisionbench.display import Records
from precisionbench.errors import ResultFormatError, did_you_mean, one_line
from precisionbench.results.checked import WrongValueError, checked
from precisionbench.results.claims import Claims
from precisionbench.results.comparison_data import BackendFailure, BackendResult, ComparisonData
from precisionbench.results.environment import Environment
from precisionbench.results.evidence import Evidence, LayerError, Operation
from precisionbench.results.json_values import Json, described, parse_json
from precisionbench.results.latency import known_noise_floor

if TYPE_CHECKING:
    from cattrs.preconf.json import JsonConverter

T = TypeVar("T")
FORMAT = "precisionbench.comparison"
# 1: one process, rows one after another. 2: replicas, rounds, passes. 3: evidence.
VERSION = 3
_OURS = "give a file that comparison.save() or --output wrote"
# Other files that this library writes, and how to read them.
_OTHERS = {
    "precisionbench.tuning": "this is a tuning result: pb.load_tuned reads it, and "
    "`precisionbench show` shows it",
}
# A file of 8 rows of a model of a thousand layers, profiled, has 15 MB.
_MOST_BYTES = 128 * 2**20
# Fields that are not written where they have their default: files from before these were recorded
# are written again as they were.
_OMITTED: Mapping[type, tuple[str, ...]] = {
    Operation: ("place",),
    BackendResult: ("claims", "label", "engine_operations", "model"),
    Claims: ("weights",),
    Environment: ("cpu_flags",),
    Evidence: ("compiled_share", "profiled_s", "outside_s"),
    LayerError: ("input_relative_l2",),
    BackendFailure: ("label", "model"),
    ComparisonData: ("options", "conditions", "study", "models", "references"),
}


@cache
def _converter() -> JsonConverter:
    from cattrs.gen import make_dict_unstructure_fn, override
    from cattrs.preconf.json import make_converter

    converter = make_converter()
    # Options, flags and details are JSON already, whatever the file holds there.
    # By predicate, because Any is not a class before Python 3.11.
    converter.register_structure_hook_func(lambda kind: kind is Any, lambda value, _: value)
    converter.register_unstructure_hook(
        Records, lambda records: [converter.unstructure(one) for one in records]
    )
    omitted = override(omit_if_default=True)
    for kind, fields in _OMITTED.items():
        overrides: dict[str, Any] = dict.fromkeys(fields, omitted)
        function: Callable[[Any], Any] = make_dict_unstructure_fn(kind, converter, **overrides)
        converter.register_unstructure_hook(kind, function)
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

    The cell of a study is next, so that it is found without the rest of the file.

    Args:
        data: the comparison.
    """
    fields = unstructured(data)
    study = {"study": fields.pop("study")} if "study" in fields else {}
    return {"format": FORMAT, "version": VERSION, **study, **fields}


def from_json(text: str, source: str = "this text") -> ComparisonData:
    """The comparison in a JSON text.

    Args:
        text: the result of `to_json`.
        source: name of the file, for the error.

    Raises:
        ResultFormatError: the text is incomplete, another format, or of an unknown version.
    """
    return from_document(parsed(text, source), source)


def parsed(text: str, source: str, remedy: str = _OURS) -> Json:
    """The JSON values of a text.

    Args:
        text: of a result file.
        source: name of the file, for the error.
        remedy: what to do where it is another file.

    Raises:
        ResultFormatError: the text is incomplete, or is not such JSON.
    """
    try:
        return parse_json(text)
    except json.JSONDecodeError as exc:
        if not text.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
            what = "not JSON" if text.strip() else "empty"
            raise ResultFormatError(f"{source} is {what}", remedy) from exc
        raise ResultFormatError(
            f"{source} is not complete JSON ({exc})",
            "it was cut off or is not a precisionbench result; measure again or copy it again",
        ) from exc
    except ValueError as exc:
        raise ResultFormatError(f"{source} is not a precisionbench result ({exc})", remedy) from exc


def from_document(document: Json, source: str) -> ComparisonData:
    """The comparison in a JSON document.

    Args:
        document: the JSON text of `to_json`, parsed; it is changed.
        source: name of the file, for the error.

    Raises:
        ResultFormatError: as for `from_json`.
    """
    bring_up_to_date(document, source)
    return as_declared(document, ComparisonData, source)


def as_declared(document: Json, kind: type[T], source: str) -> T:
    """An instance of a class in `results`, of which each value has been checked.

    Args:
        document: of the current version.
        kind: the class.
        source: name of the file, for the error.

    Raises:
        ResultFormatError: a value is missing, of another type or out of range.
    """
    try:
        return checked(document, kind)
    except WrongValueError as exc:
        raise damaged(source, str(exc)) from exc


def damaged(source: str, why: str) -> ResultFormatError:
    """The error of a file that holds a wrong value.

    Args:
        source: name of the file.
        why: which value, and what is wrong with it.
    """
    return ResultFormatError(
        f"{source} is a damaged precisionbench result ({why})",
        "measure again, or restore the file from where it was copied",
    )


def bring_up_to_date(document: Json, source: str) -> None:
    """Check the format and the version of a comparison, and change it into the current version.

    Args:
        document: the JSON values of a comparison of any version.
        source: name of the file, for the error.

    Raises:
        ResultFormatError: it is not a comparison, or of an unknown version.
    """
    if not isinstance(document, dict):
        raise ResultFormatError(f"{source} holds JSON but no precisionbench result", _OURS)
    name = document.pop("format", None)
    if name != FORMAT:
        raise ResultFormatError(
            f"{source} is not a precisionbench comparison (its 'format' is not {FORMAT!r})",
            _OTHERS.get(str(name), _OURS),
        )
    version = document.pop("version", None)
    if type(version) is not int or version not in (*_UPGRADES, VERSION):
        raise ResultFormatError(
            f"{source} has format version {described(version)}, and this precisionbench reads up "
            f"to {VERSION}",
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


def read_text(path: str | os.PathLike[str], remedy: str = _OURS) -> tuple[str, str]:
    """The text of a result file.

    Args:
        path: a file that `save` wrote, or a journal.
        remedy: what to do where it is another file.

    Returns:
        The text, and the file's name for errors.

    Raises:
        ResultFormatError: the file is missing, not a text file, or larger than any result.
    """
    file = usable_path(path, ResultFormatError)
    try:
        text = bounded_reading.read_text(file, _MOST_BYTES)
    except FileNotFoundError as exc:
        near = [entry.name for entry in file.parent.glob("*.json")]
        similar = did_you_mean(file.name, near) if near else "check the path"
        raise ResultFormatError(f"there is no file {quoted(file)}", similar) from exc
    except (OSError, ValueError) as exc:
        raise ResultFormatError(
            f"{quoted(file)} cannot be read as text ({why_unreadable(exc)})", remedy
        ) from exc
    return text, quoted(file)
