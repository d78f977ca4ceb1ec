"""Files of published numbers, read strictly: what is wrong is told with its line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from precisionbench.errors import PublishedDataError, did_you_mean
from precisionbench.published.record import (
    CONDITIONS,
    CONFIDENCES,
    METRICS,
    PRECISIONS,
    SPARSITIES,
    STATUSES,
    UNITS,
    Record,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Table = dict[str, Any]
_SOURCE_FIELDS = {"title", "url", "date", "shared"}
_DERIVED = {"source_title", "source_url", "origin"}
_FIELDS = {field.name for field in attrs.fields(Record)} - _DERIVED | {"source", "path"}
_REQUIRED = ("id", "source", "device", "model", "value", "unit", "metric", "status", "confidence")
_CHOICES = {
    "unit": UNITS,
    "metric": tuple(METRICS),
    "status": tuple(STATUSES),
    "confidence": CONFIDENCES,
    "precision": PRECISIONS,
    "sparsity": SPARSITIES,
}
_POSITIVE = ("value", "latency_limit_s")
_MOST = 1e15  # of any number
_NOWHERE = -1
_COUNTS = {"batch": 1, "dla_batch": 1, "gpus": 0, "dlas": 0}  # the least that each can be
_DATE = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")
_HEADER = re.compile(r"\s*(\[.*\])\s*(#.*)?$")


def read(path: str | Path) -> tuple[Record, ...]:
    """The published numbers that a TOML file holds.

    Args:
        path: of the file; docs/published.md describes it.

    Returns:
        The records, in the file's order.

    Raises:
        PublishedDataError: it cannot be read, or something in it is wrong; with the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise PublishedDataError(
            f"{path} cannot be read ({exc})", "give a TOML file of published numbers"
        ) from exc
    return parse(text, str(path))


def parse(text: str, name: str) -> tuple[Record, ...]:
    """The published numbers that TOML text holds.

    Args:
        text: of the file.
        name: of the file, for errors.

    Raises:
        PublishedDataError: something in it is wrong; with the line.
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise PublishedDataError(f"{name} is no TOML ({exc})", "correct that line") from exc
    return _Reader(name, text, document).records()


@attrs.frozen
class _Place:
    """A table of the file, as errors name it.

    Attributes:
        line: of its header, from 1; 0 for the file itself, -1 where it is not found.
        what: the table in words.
    """

    line: int
    what: str


class _Reader:
    """One file, with what is needed to say where something stands."""

    def __init__(self, name: str, text: str, document: Table) -> None:
        self._name = name
        self._lines = text.splitlines()
        self._document = document

    def records(self) -> tuple[Record, ...]:
        self._check_top()
        sources = self._document.get("source", {})
        for key in sources:
            self._check_source(key, sources[key])
        tables = self._document.get("record", [])
        places = self._places(tables)
        found: dict[str, Record] = {}
        for table, place in zip(tables, places, strict=True):
            record = self._record(table, place, sources)
            if record.id in found:
                self._refuse(place, "id", f"the id {record.id!r} stands twice", "give it another")
            found[record.id] = record
        return tuple(found.values())

    def _check_top(self) -> None:
        top = _Place(0, "the file")
        self._check_names(self._document, {"source", "record"}, top)
        if not isinstance(self._document.get("source", {}), dict):
            self._refuse(top, "source", "source is no table", "write [source.name]")
        tables = self._document.get("record", [])
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            self._refuse(top, "record", "record is no array of tables", "write [[record]]")

    def _check_source(self, key: str, source: object) -> None:
        place = _Place(self._line_of(f"[source.{key}]"), f"source {key!r}")
        if not isinstance(source, dict):
            self._refuse(place, key, "it is no table", f"write [source.{key}]")
            return
        self._check_names(source, _SOURCE_FIELDS, place)
        for field in ("title", "url"):
            if field not in source:
                self._refuse(place, field, f"{field} is missing", "say where its numbers stand")
        for field in ("title", "url", "date"):
            self._check(field, source.get(field, ""), place)
        shared = source.get("shared", {})
        place = _Place(self._line_of(f"[source.{key}.shared]"), f"what source {key!r} shares")
        if not isinstance(shared, dict):
            self._refuse(place, "shared", "shared is no table", f"write [source.{key}.shared]")
        self._check_names(shared, _FIELDS - {"id", "source", "value"}, place)
        self._check_all(shared, place)

    def _record(self, own: Table, place: _Place, sources: Mapping[str, Table]) -> Record:
        self._check_names(own, _FIELDS, place)
        self._check_all(own, place)
        for field in ("id", "source"):
            if field not in own:
                self._refuse(place, field, f"{field} is missing", "every record needs one")
        if own["source"] not in sources:
            remedy = did_you_mean(own["source"], sources)
            self._refuse(place, "source", f"there is no [source.{own['source']}]", remedy)
        source = sources[own["source"]]
        table = _merged(source.get("shared", {}), own)
        self._check_complete(table, own, place)
        path = table.pop("path", "")
        table["source_title"] = source["title"]
        table["source_url"] = source["url"] + ("/" if path else "") + path
        table.setdefault("date", source.get("date", ""))
        table["unknown"] = tuple(table.get("unknown", ()))
        table["value"] = float(table["value"])
        del table["source"]
        return Record(**table, origin=self._name)

    def _check_complete(self, table: Table, own: Table, place: _Place) -> None:
        for field in _REQUIRED:
            if field not in table:
                self._refuse(place, field, f"{field} is missing", "every record needs one")
        unknown = table.get("unknown", ())
        for field in CONDITIONS:
            if field not in table and field not in unknown:
                self._refuse(
                    place,
                    field,
                    f"the condition {field} is missing",
                    f'give it, or write unknown = ["{field}"] where the source does not tell it',
                )
            if field in own and field in own.get("unknown", ()):
                self._refuse(
                    place, field, f"{field} is given and unknown at once", "leave one of them out"
                )

    def _check_names(self, table: Mapping[str, object], allowed: set[str], place: _Place) -> None:
        for field in table:
            if field not in allowed:
                reason = f"there is no field {field!r}"
                self._refuse(place, field, reason, did_you_mean(field, allowed))

    def _check_all(self, table: Table, place: _Place) -> None:
        for field, value in table.items():
            self._check(field, value, place)

    def _check(self, field: str, value: object, place: _Place) -> None:
        for reason in _faults(field, value):
            remedy = did_you_mean(str(value), _CHOICES[field]) if field in _CHOICES else ""
            self._refuse(place, field, reason, remedy)

    def _refuse(self, place: _Place, field: str, reason: str, remedy: str) -> None:
        line = self._line_of_field(place.line, field)
        where = f"{self._name}, line {line}" if line > 0 else self._name
        raise PublishedDataError(f"{where}: {reason} ({place.what})", remedy)

    def _places(self, tables: list[Table]) -> list[_Place]:
        lines = [i for i, line in self._headers() if re.fullmatch(r"\[\[\s*record\s*\]\]", line)]
        if len(lines) != len(tables):  # written in another way than ours
            lines = [_NOWHERE] * len(tables)
        named = [repr(t["id"]) if "id" in t else f"number {i + 1}" for i, t in enumerate(tables)]
        return [_Place(line, f"record {name}") for line, name in zip(lines, named, strict=True)]

    def _headers(self) -> Iterator[tuple[int, str]]:
        for i, line in enumerate(self._lines, 1):
            if match := _HEADER.match(line):
                yield i, match[1]

    def _line_of(self, header: str) -> int:
        plain = header.replace('"', "")
        return next((i for i, line in self._headers() if line.replace('"', "") == plain), _NOWHERE)

    def _line_of_field(self, start: int, field: str) -> int:
        """The line of a field of the table that begins at `start`; else where that begins."""
        if start == _NOWHERE:
            return start
        name = rf'"?{re.escape(field)}"?'
        written = re.compile(rf"\s*({name}\s*[=.]|\[+\s*{name}\s*[\].])")
        for i, line in enumerate(self._lines[start:], start + 1):
            if written.match(line):
                return i
            if _HEADER.match(line) and start:
                break
        return start


def _merged(shared: Table, own: Table) -> Table:
    """What a source's records share, with what one of them says itself."""
    unknown = [name for name in shared.get("unknown", ()) if name not in own]
    unknown += [name for name in own.get("unknown", ()) if name not in unknown]
    given = {name: value for name, value in shared.items() if name not in own.get("unknown", ())}
    return {**given, **own, "unknown": unknown}


def _faults(field: str, value: object) -> Iterator[str]:
    """What is wrong with a field's value."""
    if field == "shared":
        return
    if field == "unknown":
        yield from _unknown_faults(value)
    elif field in _COUNTS:
        least = _COUNTS[field]
        if type(value) is not int or not least <= value < 2**31:
            yield f"{field} is {value!r}, and must be a whole number from {least} on"
    elif field in _POSITIVE:
        if type(value) not in (int, float) or not _is_positive(value):
            yield f"{field} is {value!r}, and must be a number above 0"
    elif not isinstance(value, str):
        yield f"{field} is {value!r}, and must be text"
    else:
        yield from _text_faults(field, value)


def _is_positive(value: Any) -> bool:
    """Whether it is a size that something can have; NaN is not."""
    return bool(0 < value < _MOST)


def _unknown_faults(value: object) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"unknown is {value!r}, and must be a list of conditions"
        return
    for name in value:
        if name not in CONDITIONS:
            yield f"unknown names {name!r}, which is none of {', '.join(CONDITIONS)}"


def _text_faults(field: str, value: str) -> Iterator[str]:
    if field in _CHOICES and value not in _CHOICES[field]:
        yield f"{field} is {value!r}, which is none of ours"
    elif (rule := _RULES.get(field)) is not None and not rule[0](value):
        yield f"{field} is {value!r}, and must be {rule[1]}"


_RULES: Mapping[str, tuple[Callable[[str], object], str]] = {
    "id": (re.compile(r"[a-z0-9][a-z0-9._-]*").fullmatch, "small letters, digits, '.', '_', '-'"),
    "url": (re.compile(r"https?://[^\s/]+(/\S*)?").fullmatch, "a web address"),
    "date": (lambda text: not text or _DATE.fullmatch(text), "a date such as 2024-07-08 or 2024"),
    "device": (str.strip, "a name"),
    "model": (str.strip, "a name"),
    "title": (str.strip, "a title"),
}
