"""Imported numbers: one file for each import, in a folder of the user's data."""

from __future__ import annotations

import hashlib
import os
import re
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import attrs

from precisionbench._internal.bounded_reading import read_bytes, why_unreadable
from precisionbench._internal.files import make_folder, write_text
from precisionbench._internal.paths import usable_path
from precisionbench.display import Shown
from precisionbench.errors import PublishedDataError, did_you_mean
from precisionbench.published.imports import mlperf, timm
from precisionbench.published.imports.parsed import Parsed
from precisionbench.published.reader import parse as parse_toml
from precisionbench.published.record import Record
from precisionbench.results.json_values import parse_json

VARIABLE = "PRECISIONBENCH_DATA_DIR"
FORMAT, VERSION = "precisionbench.imported", 1
# Twice the largest summary of a round that is public.
_MOST_BYTES = 32 * 2**20
_SUFFIX = ".json"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_STEM = 60  # characters of the imported file's name in that of the stored one
_DIGITS = 8  # of the content's hash


@attrs.frozen(repr=False)
class Import(Shown):
    """Numbers that were imported from one file.

    Attributes:
        name: name of the import, by which it is removed.
        file: the file that it was imported from.
        date: day of the import, ISO 8601.
        sha256: hash of the file's content.
        records: its numbers.
    """

    _shown: ClassVar[tuple[str, ...]] = ("name", "file", "date")

    name: str
    file: str
    date: str
    sha256: str
    records: tuple[Record, ...]


@attrs.frozen(repr=False)
class ImportResult(Shown):
    """What importing a file did.

    Attributes:
        done: the import; None where the file has no number that is not known already.
        known: how many of its numbers are among the others already.
        left_out: number of its rows without a record, by reason.
    """

    done: Import | None
    known: int
    left_out: dict[str, int]


def folder() -> Path:
    """The folder of imported numbers.

    Raises:
        PublishedDataError: the environment variable that names it is empty.
    """
    from platformdirs import user_data_path

    named = os.environ.get(VARIABLE)
    if named == "":
        raise PublishedDataError(
            f"imported numbers are not kept, because {VARIABLE} is empty", "set it to a folder"
        )
    return (Path(named) if named else user_data_path("precisionbench", False)) / "published"


def read_file(path: str | Path, device: str | None, precision: str | None) -> tuple[Parsed, str]:
    """The numbers of a file of MLPerf, of timm or of this library, by its content.

    Args:
        path: path of the file.
        device: device of a table of timm whose name does not state it.
        precision: its precision.

    Returns:
        The numbers, and the hash of the content.

    Raises:
        PublishedDataError: it cannot be read, is none of these, or has an error.
    """
    file = usable_path(path, PublishedDataError)
    try:
        content = read_bytes(file, _MOST_BYTES)
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as exc:
        raise PublishedDataError(
            f"{path} cannot be read ({why_unreadable(exc)})",
            "give MLPerf's summary_results.json or a table of timm's inference benchmark",
        ) from exc
    return _parsed(text, file.name, device, precision), hashlib.sha256(content).hexdigest()


def _parsed(text: str, name: str, device: str | None, precision: str | None) -> Parsed:
    start, first_line = text.lstrip()[:1], text.partition("\n")[0]
    if timm.RATE in first_line:
        return timm.parse(text, name, device, precision)
    if device or precision:
        raise PublishedDataError(
            f"{name} states devices and precisions itself",
            "omit the options device and precision",
        )
    if start == "[" and not re.match(r"\s*\[+\s*\"?[A-Za-z]", text):
        return mlperf.parse(_json(text, name), name)
    if re.search(r"^\s*\[\[record\]\]", text, re.MULTILINE):
        return Parsed(parse_toml(text, name))
    what = "a training benchmark" if "train_samples_per_sec" in first_line else "of no known format"
    raise PublishedDataError(
        f"{name} is {what}",
        "give MLPerf's summary_results.json, a table of timm's inference benchmark "
        "(infer_samples_per_sec), or a TOML file of published numbers",
    )


def _json(text: str, name: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as exc:
        raise PublishedDataError(
            f"{name} is not valid JSON ({exc})", "download the file again"
        ) from exc


def add(
    path: str | Path, known: tuple[Record, ...], device: str | None, precision: str | None
) -> ImportResult:
    """Import a file: keep the numbers of it that are not among the known ones.

    Args:
        path: path of the file.
        known: all other numbers, imported ones too.
        device: as in `read_file`.
        precision: as in `read_file`.

    Raises:
        PublishedDataError: as in `read_file`, or they cannot be kept.
    """
    place = folder()
    parsed, sha256 = read_file(path, device, precision)
    file = str(Path(path).absolute())
    new = _new(parsed.records, known)
    left_out = dict(parsed.left_out)
    if not new:
        return ImportResult(None, len(parsed.records), left_out)
    stem = _NOT_IN_NAMES.sub("-", Path(file).stem)[:_MAX_STEM].strip("-.") or "numbers"
    name = f"{stem}-{sha256[:_DIGITS]}"
    records = tuple(attrs.evolve(record, origin=name, imported_from=file) for record in new)
    done = Import(name, file, date.today().isoformat(), sha256, records)
    _write(done, place)
    return ImportResult(done, len(parsed.records) - len(new), left_out)


def _new(records: tuple[Record, ...], known: tuple[Record, ...]) -> list[Record]:
    """The records that are not known, each with an id of its own."""
    ids, numbers = {record.id for record in known}, set(map(_identity, known))
    found = []
    for record in records:
        if _identity(record) in numbers:
            continue
        id, number = record.id, 1
        while id in ids:
            number += 1
            id = f"{record.id}-{number}"
        ids.add(id)
        found.append(attrs.evolve(record, id=id))
    return found


def _identity(record: Record) -> tuple[object, ...]:
    """What two records of the same published number have in common, in any file."""
    return (
        record.device,
        record.model,
        record.value,
        record.unit,
        record.metric,
        record.gpus,
        record.precision,
        record.input,
    )


def _write(done: Import, place: Path) -> None:
    import json

    document = {"format": FORMAT, "version": VERSION, **attrs.asdict(done)}
    del document["name"]
    make_folder(place)
    place.chmod(0o700)
    text = json.dumps(document, indent=0, allow_nan=False)
    write_text(place / f"{done.name}{_SUFFIX}", text, overwrite=True)


def imports() -> tuple[Import, ...]:
    """All imports, in the order of their names; none where nothing is kept.

    Raises:
        PublishedDataError: one of the stored files has an error; names it.
    """
    if os.environ.get(VARIABLE) == "":
        return ()
    files = sorted(folder().glob(f"*{_SUFFIX}"))
    return tuple(_read(file, file.stat().st_mtime_ns) for file in files)


@lru_cache(maxsize=64)
def _read(file: Path, _modified_ns: int) -> Import:
    try:
        document = parse_json(read_bytes(file, 2 * _MOST_BYTES).decode())
        if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
            raise ValueError("it is not a file of imported numbers")
        if document.pop("version", None) != VERSION:
            raise ValueError("another version of precisionbench wrote it")
        records = tuple(_record(fields) for fields in document.pop("records"))
        return Import(file.stem, records=records, **document)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        raise PublishedDataError(
            f"the imported numbers in {file} cannot be read ({exc})",
            f"remove them (precisionbench published --remove {file.stem}) and import them again",
        ) from exc


def _record(fields: dict[str, Any]) -> Record:
    return Record(**{**fields, "unknown": tuple(fields.get("unknown", ()))})


def remove(name: str) -> Path:
    """Remove an import.

    Args:
        name: of the import.

    Returns:
        The file that held it.

    Raises:
        PublishedDataError: there is none of this name, or it cannot be removed.
    """
    stored = {file.stem: file for file in folder().glob(f"*{_SUFFIX}")}
    if name not in stored:
        remedy = did_you_mean(name, stored) if stored else "nothing is imported"
        raise PublishedDataError(f"there is no import {name!r}", remedy)
    try:
        stored[name].unlink()
    except OSError as exc:
        raise PublishedDataError(
            f"{stored[name]} cannot be removed ({exc.strerror})", "remove it yourself"
        ) from exc
    return stored[name]
