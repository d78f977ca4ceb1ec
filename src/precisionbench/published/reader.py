"""Reads files of published numbers; errors name the line."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import attrs

from precisionbench._internal.bounded_reading import read_text, why_unreadable
from precisionbench._internal.paths import usable_path
from precisionbench.errors import PublishedDataError, did_you_mean
from precisionbench.published.record import (
    CHOICES,
    CONDITIONS,
    Record,
    Source,
    SourceReference,
)
from precisionbench.published.toml_lines import WHOLE_FILE, TomlLines
from precisionbench.results.json_values import check_depth, described

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Table = dict[str, Any]
# Thirty times the file of this package.
_MOST_BYTES = 4 * 2**20
_MOST_SHOWN = 300  # characters of the parser's error, which repeats long names
_SOURCE_FIELDS = attrs.fields_dict(Source)
_DERIVED = ("source_title", "source_url", "origin", "imported_from")
_RECORD_FIELDS = {
    **{name: f for name, f in attrs.fields_dict(Record).items() if name not in _DERIVED},
    **attrs.fields_dict(SourceReference),
}
_REQUIRED = ("id", "source", "device", "model", "value", "unit", "metric", "status", "confidence")


def read(path: str | Path) -> tuple[Record, ...]:
    """The published numbers in a TOML file.

    Args:
        path: path of the file; docs/published.md describes the format.

    Returns:
        The records, in the file's order.

    Raises:
        PublishedDataError: it cannot be read, or it has an error; names the line.
    """
    file = usable_path(path, PublishedDataError)
    try:
        text = read_text(file, _MOST_BYTES)
    except (OSError, ValueError) as exc:
        raise PublishedDataError(
            f"{path} cannot be read ({why_unreadable(exc)})",
            "give a TOML file of published numbers",
        ) from exc
    return parse(text, str(path))


def parse(text: str, name: str) -> tuple[Record, ...]:
    """The published numbers in TOML text.

    Args:
        text: the TOML text.
        name: name of the file, for errors.

    Raises:
        PublishedDataError: the text has an error; names the line.
    """
    try:
        document = tomllib.loads(text)
        check_depth(document)
    except (ValueError, RecursionError) as exc:  # of numbers with thousands of digits, too
        raise PublishedDataError(
            f"{name} is not valid TOML ({str(exc)[:_MOST_SHOWN]})", "correct that line"
        ) from exc
    return _Reader(name, text, document).records()


@attrs.frozen
class _Location:
    """A table of the file, as errors name it.

    Attributes:
        line: line of its header; `WHOLE_FILE` for the file itself, `NOT_FOUND` if it is unknown.
        what: name of the table.
    """

    line: int
    what: str


class _Reader:
    """Checks one file and makes its records.

    Args:
        name: name of the file, for errors.
        text: its text.
        document: the same text, parsed.
    """

    def __init__(self, name: str, text: str, document: Table) -> None:
        self._name = name
        self._lines = TomlLines(text)
        self._document = document

    def records(self) -> tuple[Record, ...]:
        """The records of the file, in its order."""
        self._check_top()
        sources = self._document.get("source", {})
        for key in sources:
            self._check_source(key, sources[key])
        tables = self._document.get("record", [])
        found: dict[str, Record] = {}
        for table, location in zip(tables, self._locations(tables), strict=True):
            record = self._record(table, location, sources)
            if record.id in found:
                reason = f"the id {record.id!r} is used twice"
                self._raise(location, "id", reason, "give it another")
            found[record.id] = record
        return tuple(found.values())

    def _locations(self, tables: list[Table]) -> list[_Location]:
        lines = self._lines.of_array("record", len(tables))
        names = [
            described(t["id"]) if "id" in t else f"number {i}" for i, t in enumerate(tables, 1)
        ]
        return [_Location(line, f"record {name}") for line, name in zip(lines, names, strict=True)]

    def _check_top(self) -> None:
        top = _Location(WHOLE_FILE, "the file")
        self._check_names(self._document, ("source", "record"), top)
        if not isinstance(self._document.get("source", {}), dict):
            self._raise(top, "source", "source is not a table", "write [source.name]")
        tables = self._document.get("record", [])
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            self._raise(top, "record", "record is not an array of tables", "write [[record]]")

    def _check_source(self, key: str, source: object) -> None:
        location = _Location(self._lines.of_table(f"source.{key}"), f"source {key!r}")
        if not isinstance(source, dict):
            self._raise(location, key, "it is not a table", f"write [source.{key}]")
            return
        self._check_names(source, _SOURCE_FIELDS, location)
        for field in ("title", "url"):
            if field not in source:
                self._raise(
                    location,
                    field,
                    f"{field} is missing",
                    "give the title and the address of the source",
                )
        for field in ("title", "url", "date"):
            self._check_value(_SOURCE_FIELDS[field], source.get(field, ""), location)
        self._check_shared(key, source.get("shared", {}))

    def _check_shared(self, key: str, shared: object) -> None:
        line = self._lines.of_table(f"source.{key}.shared")
        location = _Location(line, f"shared fields of source {key!r}")
        if not isinstance(shared, dict):
            self._raise(location, "shared", "shared is not a table", f"write [source.{key}.shared]")
            return
        self._check_names(shared, _RECORD_FIELDS.keys() - {"id", "source", "value"}, location)
        self._check_values(shared, location)

    def _record(self, own: Table, location: _Location, sources: Mapping[str, Table]) -> Record:
        self._check_names(own, _RECORD_FIELDS, location)
        self._check_values(own, location)
        self._check_given(("id", "source"), own, location)
        if own["source"] not in sources:
            remedy = did_you_mean(own["source"], sources)
            name = described(own["source"])[1:-1]
            self._raise(location, "source", f"there is no [source.{name}]", remedy)
        source = sources[own["source"]]
        table = _merged(source.get("shared", {}), own)
        self._check_given(_REQUIRED, table, location)
        self._check_conditions(table, own, location)
        return self._built(table, source)

    def _built(self, table: Table, source: Table) -> Record:
        """The record of a complete table."""
        path = table.pop("path", "")
        table["source_title"] = source["title"]
        table["source_url"] = source["url"] + ("/" if path else "") + path
        table.setdefault("date", source.get("date", ""))
        table["unknown"] = tuple(table.get("unknown", ()))
        table["value"] = float(table["value"])
        del table["source"]
        return Record(**table, origin=self._name)

    def _check_given(self, fields: tuple[str, ...], table: Table, location: _Location) -> None:
        for field in fields:
            if field not in table:
                self._raise(location, field, f"{field} is missing", "every record needs one")

    def _check_conditions(self, table: Table, own: Table, location: _Location) -> None:
        """Each condition is either given or unknown."""
        for field in CONDITIONS:
            if field not in table and field not in table.get("unknown", ()):
                reason = f"the condition {field} is missing"
                remedy = f'give it, or write unknown = ["{field}"] if the source does not state it'
                self._raise(location, field, reason, remedy)
            if field in own and field in own.get("unknown", ()):
                reason = f"{field} is given and also listed as unknown"
                self._raise(location, field, reason, "leave one of them out")

    def _check_names(
        self, table: Mapping[str, object], allowed: Collection[str], location: _Location
    ) -> None:
        for field in table:
            if field not in allowed:
                reason = f"there is no field {described(field)}"
                self._raise(location, field, reason, did_you_mean(field, allowed))

    def _check_values(self, table: Table, location: _Location) -> None:
        for name, value in table.items():
            self._check_value(_RECORD_FIELDS[name], value, location)

    def _check_value(self, field: Any, value: object, location: _Location) -> None:
        """Run the validator of a field's attrs attribute."""
        try:
            field.validator(None, field, value)
        except ValueError as exc:
            choices = CHOICES.get(field.name)
            remedy = did_you_mean(value, choices) if choices and isinstance(value, str) else ""
            self._raise(location, field.name, str(exc), remedy)

    def _raise(self, location: _Location, field: str, reason: str, remedy: str) -> None:
        line = self._lines.of_field(location.line, field)
        where = f"{self._name}, line {line}" if line > 0 else self._name
        raise PublishedDataError(f"{where}: {reason} ({location.what})", remedy)


def _merged(shared: Table, own: Table) -> Table:
    """The fields that a source's records share, overridden by those of one record."""
    unknown = [name for name in shared.get("unknown", ()) if name not in own]
    unknown += [name for name in own.get("unknown", ()) if name not in unknown]
    given = {name: value for name, value in shared.items() if name not in own.get("unknown", ())}
    return {**given, **own, "unknown": unknown}
