"""The definition of a study: what is to be measured, from Python, TOML or the study's folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from precisionbench._internal import bounded_reading
from precisionbench._internal.numbers import whole_number
from precisionbench._internal.paths import quoted, usable_path
from precisionbench.display import Shown
from precisionbench.errors import SpecError, did_you_mean
from precisionbench.results.checked import WrongValueError, checked
from precisionbench.results.json_values import Json, as_json, check_depth, described, parse_json
from precisionbench.spec_syntax import split_label, split_spec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = "precisionbench.study"
VERSION = 1
# Options of `compare` that a study passes on.
OPTIONS = (
    "reference",
    "launcher",
    "effort",
    "seed",
    "budget_s",
    "replicas",
    "sessions",
    "noise_floor",
    "shared_cores",
    "evidence",
    "build_together",
    "passes",
)
_KEYS = ("models", "batch_sizes", "shapes", "threads", "backends", "devices", "device")
_MOST_BYTES = 4 * 2**20
_MOST_SHOWN = 300  # characters of the TOML parser's error, which repeats long names


def _check_not_empty(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not value:
        raise SpecError(f"the study has no {attribute.name}", "give at least one")


def _check_unique(_: object, attribute: attrs.Attribute[Any], values: tuple[Any, ...]) -> None:
    twice = [value for i, value in enumerate(values) if value in values[:i]]
    if twice:
        raise SpecError(f"{attribute.name} has {twice[0]!r} twice", "give it once")


@attrs.frozen(kw_only=True, repr=False)
class Definition(Shown):
    """What a study measures: each model with each shape, batch size and number of threads.

    Attributes:
        models: names of the models as for `compare`, by label; empty for an object in memory.
        shapes: of one item of a random input; None where the model brings its inputs.
        batch_sizes: items per call; None is the model's own default.
        threads: numbers of CPU threads; None is torch's default.
        backends: specs of the rows, with labels; empty for the default rows of the device.
        devices: names of the devices to measure on, such as `agx orin`; empty for the device of
            each machine on which the study runs.
        device: kind of device on each machine, as for `compare`; None is the GPU if there is one.
        options: further options of `compare`.
    """

    models: Mapping[str, str] = attrs.field(validator=_check_not_empty)
    shapes: tuple[tuple[int, ...] | None, ...] = attrs.field(
        default=(None,), validator=[_check_not_empty, _check_unique]
    )
    batch_sizes: tuple[int | None, ...] = attrs.field(
        default=(None,), validator=[_check_not_empty, _check_unique]
    )
    threads: tuple[int | None, ...] = attrs.field(
        default=(None,), validator=[_check_not_empty, _check_unique]
    )
    backends: tuple[str, ...] = ()
    devices: tuple[str, ...] = attrs.field(default=(), validator=_check_unique)
    device: str | None = None
    options: Mapping[str, Json] = attrs.field(factory=dict)


def define(
    *,
    models: Any,
    shapes: Any = None,
    batch_sizes: Any = None,
    threads: Any = None,
    backends: Iterable[str] | None = None,
    devices: Any = None,
    device: str | None = None,
    **options: Json,
) -> Definition:
    """The definition of a study, checked.

    Args:
        models: names by label, or a list of names.
        shapes: shapes of one item; one shape alone is accepted, too.
        batch_sizes: whole numbers; one alone is accepted, too.
        threads: as `batch_sizes`.
        backends: specs.
        devices: names of devices; one alone is accepted, too.
        device: as for `compare`.
        options: further options of `compare`; None stands for the default.

    Raises:
        SpecError: something is missing, given twice, or not what it must be.
    """
    for name in options:
        if name not in OPTIONS:
            known = [*_KEYS, *OPTIONS]
            raise SpecError(f"a study has no option {name!r}", did_you_mean(name, known))
    specs = _texts("backends", backends)
    for spec in specs:
        split_spec(split_label(spec)[1])
    return Definition(
        models=_models(models),
        shapes=_shapes(shapes),
        batch_sizes=_numbers("batch_sizes", batch_sizes),
        threads=_numbers("threads", threads),
        backends=specs,
        devices=_texts("devices", devices),
        device=None if device is None else _text("device", device),
        options={name: as_json(options[name]) for name in OPTIONS if options.get(name) is not None},
    )


def _models(models: Any) -> Mapping[str, str]:
    found = models if isinstance(models, Mapping) else {name: name for name in _list(models)}
    if not all(isinstance(text, str) for pair in found.items() for text in pair):
        raise SpecError(
            f"models is {models!r}", "give names such as 'torchvision:resnet50', or {label: name}"
        )
    if "" in found:
        raise SpecError("the label of a model is empty", "give it one")
    return dict(found)


def _list(value: Any) -> tuple[Any, ...]:
    """A list's items; anything else stands for itself."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _numbers(name: str, value: Any) -> tuple[int | None, ...]:
    if value is None:
        return (None,)
    return tuple(None if item is None else _whole(name, item) for item in _list(value))


def _whole(name: str, value: Any) -> int:
    if not _is_size(value):
        raise SpecError(f"{name} has {value!r}", "give whole numbers above 0, such as [1, 8, 64]")
    return int(value)


def _is_size(value: Any) -> bool:
    return (whole_number(value, 1) or 2**31) < 2**31


def _shapes(value: Any) -> tuple[tuple[int, ...] | None, ...]:
    if value is None:
        return (None,)
    is_one = isinstance(value, (list, tuple)) and all(isinstance(item, int) for item in value)
    return tuple(map(_shape, [value] if is_one else _list(value)))


def _shape(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    sizes: Any = value
    if isinstance(value, str):  # as on the command line
        parts = [part.strip() for part in value.replace("x", ",").split(",")]
        sizes = [int(part) if part.isdecimal() else part for part in parts]
    if not isinstance(sizes, (list, tuple)) or not sizes or not all(map(_is_size, sizes)):
        raise SpecError(f"shapes has {value!r}", "give shapes of one item, such as [3, 224, 224]")
    return tuple(sizes)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    return () if value is None else tuple(_text(name, item) for item in _list(value))


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise SpecError(f"{name} has {value!r}", "give text")
    return value


# Files


@attrs.frozen
class StudyFile:
    """A TOML file that defines a study.

    Attributes:
        definition: what is measured.
        folder: of the results.
        submitit: parameters of submitit's executor.
    """

    definition: Definition
    folder: Path
    submitit: Mapping[str, Json]


def read_toml(path: str | Path) -> StudyFile:
    """The study that a TOML file defines.

    Args:
        path: of the file; docs/studies.md describes the format.

    Returns:
        The definition, and the folder of its results: the key `folder`, relative to the file, or
        else the file's name without `.toml`.

    Raises:
        SpecError: it cannot be read, or something in it is wrong; names the file.
    """
    file = usable_path(path, SpecError)
    document = _parsed(file)
    folder, submitit = document.pop("folder", file.stem), document.pop("submitit", {})
    try:
        if "models" not in document:
            raise SpecError("the key 'models' is missing", "add it")
        if not isinstance(submitit, dict):
            raise SpecError(f"submitit is {submitit!r}", "write a table [submitit]")
        return StudyFile(define(**document), file.parent / _text("folder", folder), submitit)
    except SpecError as exc:
        raise SpecError(f"{quoted(file)}: {exc.reason}", exc.remedy) from exc


def _parsed(file: Path) -> dict[str, Any]:
    try:
        text = bounded_reading.read_text(file, _MOST_BYTES)
    except (OSError, ValueError) as exc:
        why = bounded_reading.why_unreadable(exc)
        raise SpecError(f"{quoted(file)} cannot be read ({why})", "give a TOML file") from exc
    try:
        document = tomllib.loads(text)
        check_depth(document)
    except (ValueError, RecursionError) as exc:
        raise SpecError(
            f"{quoted(file)} is not valid TOML ({str(exc)[:_MOST_SHOWN]})", "correct that line"
        ) from exc
    return document


def to_json(definition: Definition) -> str:
    """The definition as it is kept in the study's folder."""
    known = {"format": FORMAT, "version": VERSION, **as_json(attrs.asdict(definition))}
    return json.dumps(known, indent=1, allow_nan=False) + "\n"


def from_json(text: str, source: str) -> Definition:
    """The definition in a study's folder.

    Args:
        text: the result of `to_json`.
        source: name of the file, for the error.

    Raises:
        SpecError: it is damaged, or of another version.
    """
    try:
        document = parse_json(text)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"its 'format' is not {FORMAT!r}")
        if document.get("version") != VERSION:
            raise ValueError(f"its version is {described(document.get('version'))}")
        return checked(document, Definition)
    except (ValueError, WrongValueError) as exc:
        raise SpecError(
            f"{source} is not the definition of a study ({exc})",
            "run the study again, which writes it",
        ) from exc
