"""Searches published numbers by device, model and conditions."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path

from precisionbench._internal.data_files import read_text
from precisionbench._internal.importing import entry_points
from precisionbench._internal.paths import usable_path
from precisionbench.display import Records
from precisionbench.errors import (
    FOREIGN_ERRORS,
    PublishedDataError,
    RecordNotFoundError,
    SpecError,
    did_you_mean,
    one_line,
)
from precisionbench.published.imports import store
from precisionbench.published.imports.store import Import, ImportResult
from precisionbench.published.reader import parse, read
from precisionbench.published.record import METRICS, PRECISIONS, Record
from precisionbench.reference_data import peaks
from precisionbench.results.dtypes import LONG_NAMES

GROUP = "precisionbench.published"
VARIABLE = "PRECISIONBENCH_PUBLISHED"
_BUNDLED = ("published.toml", "published_2026.toml")
# Other names of precisions, with those that records use.
_PRECISION_NAMES = {
    **{long: short for short, long in LONG_NAMES.items() if long != short},
    "single": "fp32",
    "half": "fp16",
    "amp": "mixed",
}
_VARIANT = re.compile(r"(resnet\D?\d+)[\s_-]*(v\d(?:\.\d)?)$")
_SUGGESTIONS = 3


def everything(file: str | Path | None = None) -> tuple[Record, ...]:
    """All published numbers: those of this library, of other packages, of the user, and imported.

    Args:
        file: a TOML file with more records; the one that the environment variable
            `PRECISIONBENCH_PUBLISHED` names is read as well.

    Returns:
        The records of this library first, in the order of the files.

    Raises:
        PublishedDataError: a file has an error, or two files have the same id.
    """
    found = {record.id: record for record in bundled()}
    for name, records in _other_files(file):
        for record in records:
            if record.id in found:
                where = found[record.id].origin
                raise PublishedDataError(
                    f"the id {record.id!r} of {name} is already used in {where}", "give it another"
                )
            found[record.id] = record
    for one in store.imports():
        for record in one.records:  # a newer version of this library may have the same number
            found.setdefault(record.id, record)
    return Records(found.values())


def import_file(
    path: str | Path, *, device: str | None = None, precision: str | None = None
) -> ImportResult:
    """Import the numbers of a file of MLPerf or timm, so that `find` and `get` have them.

    They are kept in a folder of the user's data (the environment variable
    `PRECISIONBENCH_DATA_DIR` names another one). Numbers that are known already are left out.

    Args:
        path: MLPerf's `summary_results.json`, a table of timm's inference benchmark
            (`benchmark-infer-*.csv`), or a TOML file of published numbers.
        device: device of a table of timm whose name does not state it.
        precision: precision of such a table.

    Returns:
        What was imported, and what was left out.

    Raises:
        PublishedDataError: the file cannot be read, is none of these or has an error, or the
            numbers cannot be kept.
    """
    return store.add(path, everything(), device, precision)


def imports() -> tuple[Import, ...]:
    """All imports.

    Raises:
        PublishedDataError: one of the stored files has an error; names it.
    """
    return store.imports()


def remove_import(name: str) -> None:
    """Remove an import.

    Args:
        name: of the import; `imports` has all.

    Raises:
        PublishedDataError: there is none of this name, or it cannot be removed.
    """
    store.remove(name)


def _other_files(file: str | Path | None) -> Iterator[tuple[str, tuple[Record, ...]]]:
    # A package with two copies of its metadata, such as one in its source tree, is listed twice.
    for entry in {entry.value: entry for entry in entry_points(group=GROUP)}.values():
        path = _path_of(entry)
        yield str(path), read(path)
    given = [path for path in (os.environ.get(VARIABLE) or None, file) if path is not None]
    for path in dict.fromkeys(usable_path(path, PublishedDataError).absolute() for path in given):
        yield str(path), read(path)


def _path_of(entry: EntryPoint) -> Path:
    """The file that a package provides: a path, or a function that returns one."""
    home = entry.dist.name if entry.dist else "a package"
    try:
        found = entry.load()
        return Path(found() if callable(found) else found)
    except FOREIGN_ERRORS as exc:
        raise PublishedDataError(
            f"the published numbers {entry.name!r} of {home} cannot be loaded ({one_line(exc)})",
            f"uninstall or repair {home}",
        ) from exc


@cache
def bundled() -> tuple[Record, ...]:
    """The published numbers of this library."""
    return tuple(record for name in _BUNDLED for record in parse(read_text(name), name))


def get(id: str, *, file: str | Path | None = None) -> Record:
    """The published number with an id.

    Args:
        id: such as `mlperf-v5.0-h200-resnet50-offline`.
        file: as in `everything`.

    Returns:
        The record.

    Raises:
        RecordNotFoundError: there is none; the error names similar ids.
        PublishedDataError: as in `everything`.
    """
    records = {record.id: record for record in everything(file)}
    if id not in records:
        raise RecordNotFoundError(
            f"no published number has the id {id!r}",
            f"{_suggestions(id, records)}`precisionbench published` lists all {len(records)}",
        )
    return records[id]


def _suggestions(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=_SUGGESTIONS)
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""


def find(
    device: str | None = None,
    model: str | None = None,
    precision: str | None = None,
    batch: int | None = None,
    *,
    metric: str | None = None,
    file: str | Path | None = None,
) -> tuple[Record, ...]:
    """The published numbers that match all of the given conditions, in the order of the files.

    A record of several devices that its source does not distinguish ("A100") is found by their
    common name only.

    Args:
        device: such as `agx xavier`, `jetson-agx-xavier`, `H200`, or the driver's name of it.
        model: such as `resnet50`, `torchvision:resnet50` or `ResNet-50 v1.5`.
        precision: such as `int8` or `float16`.
        batch: batch size.
        metric: one of `METRICS`.
        file: as in `everything`.

    Returns:
        The records; empty where all names are known and nothing matches.

    Raises:
        SpecError: a device, model, precision or metric of this name is not known.
        PublishedDataError: as in `everything`.
    """
    known = everything(file)
    records = known if device is None else _of_device(known, device)
    if model is not None:
        records = _of_model(records, model, known)
    wanted = {
        "precision": None if precision is None else _precision(precision),
        "batch": batch,
        "metric": None if metric is None else _metric(metric),
    }
    return Records(
        record
        for record in records
        if all(value in (None, getattr(record, name)) for name, value in wanted.items())
    )


def what_exists(
    device: str | None, model: str | None, precision: str | None, file: str | Path | None = None
) -> str:
    """A sentence on the records that exist, for a search without a match.

    Args:
        device: the device searched for.
        model: the model searched for.
        precision: the precision searched for.
        file: as in `everything`.
    """
    words = (model or "any model", precision and f"in {precision}", device and f"on {device}")
    asked = " ".join(filter(None, words))
    return f"no published number for {asked}; there are numbers {_nearest(device, model, file)}"


def _nearest(device: str | None, model: str | None, file: str | Path | None) -> str:
    """The precisions, models or devices of the records that match some of the conditions."""
    if precisions := {record.precision for record in find(device, model, file=file)}:
        return f"in {_list(precisions)}"
    if models := {record.model for record in find(device, file=file)}:
        return f"for other models: {_list(models)}"
    return f"on other devices: {_list({record.device for record in find(None, model, file=file)})}"


def _list(names: Iterable[str | None]) -> str:
    return ", ".join(sorted(filter(None, names)))


def _of_device(records: tuple[Record, ...], name: str) -> tuple[Record, ...]:
    wanted = _identities(name)
    found = tuple(record for record in records if _identities(record.device) <= wanted)
    if not found and not peaks.devices_named(name):
        known = {record.device for record in records} | {d.id for d in peaks.all_devices()}
        aliases = {alias for device in peaks.all_devices() for alias in device.aliases}
        near = _suggestions(name.lower(), sorted(known | aliases))
        raise SpecError(f"unknown device {name!r}", f"{near}known: {_list(known)}")
    return found


def _identities(name: str) -> frozenset[str]:
    """The ids of the devices that a name matches, or the name itself where it matches none."""
    return frozenset(device.id for device in peaks.devices_named(name)) or frozenset(
        [peaks.name_key(name)]
    )


def _of_model(
    records: tuple[Record, ...], name: str, known: tuple[Record, ...]
) -> tuple[Record, ...]:
    wanted, variant = model_key(name)
    if wanted not in {model_key(record.model)[0] for record in known}:
        models = {record.model for record in known}
        raise SpecError(f"no published number for a model {name!r}", did_you_mean(name, models))
    return tuple(
        record
        for record in records
        if model_key(record.model)[0] == wanted and variant in ("", _variant(record))
    )


def _variant(record: Record) -> str:
    return record.variant or model_key(record.model)[1]


@cache
def model_key(name: str) -> tuple[str, str]:
    """A model's name without differences of spelling, and its variant.

    Args:
        name: such as `torchvision:resnet50` or `ResNet-50 v1.5`.

    Returns:
        The key and the variant, such as `("resnet50", "v1.5")`; empty where the name has none.
    """
    plain = name.strip().lower().removeprefix("torchvision:").removeprefix("torchvision.models.")
    match = _VARIANT.match(plain)
    plain, variant = match.groups() if match else (plain, "")
    return re.sub(r"[^a-z0-9]", "", plain), variant


def _precision(name: str) -> str:
    found = _PRECISION_NAMES.get(name.lower(), name.lower())
    if found not in PRECISIONS:
        known = (*PRECISIONS, *_PRECISION_NAMES)
        raise SpecError(f"{name!r} is not a precision", did_you_mean(name, known))
    return found


def _metric(name: str) -> str:
    if name not in METRICS:
        raise SpecError(f"{name!r} is not a metric", did_you_mean(name, METRICS))
    return name
