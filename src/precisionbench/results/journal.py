"""A journal: writes each round to disk as it finishes, so that a crash loses no finished round.

A journal is a file of JSON lines: a header, then one line for each row, block and failure, and for
other load on the machine. Reading it evaluates nothing. `precisionbench.load` reads a journal as it
reads a result.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import attrs

from precisionbench._internal import files
from precisionbench._internal.paths import quoted, usable_path
from precisionbench.errors import OutputError, OutputExistsError, ResultFormatError, one_line
from precisionbench.results import json_format
from precisionbench.results.checked import checked
from precisionbench.results.comparison_data import BackendFailure, BackendResult, ComparisonData
from precisionbench.results.conditions import RoundConditions
from precisionbench.results.json_values import Json, check_count, described, parse_json
from precisionbench.results.measurement import Block

FORMAT = "precisionbench.journal"
_MAX_NAME_BYTES = 255
# What an operation on JSON values raises where they are not of the expected form.
_SHAPE_ERRORS = (AttributeError, KeyError, TypeError, ValueError)
_UNFINISHED = "the run ended before a round of this row was finished"


class Journal:
    """Appends lines to a file; if writing fails, it stops and the run continues.

    Args:
        file: file to create; an empty one of the user's own is taken as well.
        header: fields of `ComparisonData` that are known before the measurement.
        rows: identities of the planned rows.

    Attributes:
        file: path of the file.
        write_error: why writing failed; empty if it did not.

    Raises:
        OutputError: the file cannot be created.
    """

    def __init__(
        self, file: str | os.PathLike[str], header: Mapping[str, Any], rows: list[dict[str, Any]]
    ) -> None:
        self.file, self.write_error = usable_path(file, OutputError), ""
        self._seen: set[tuple[str, int]] = set()
        self._out = _opened(file)
        try:
            self._append({"format": FORMAT, "version": json_format.VERSION, "rows": rows, **header})
        except OSError as exc:  # better now than after the measurement
            self.close()
            Path(self._out.name).unlink()
            raise _not_written(file, exc) from exc

    def has_row(self, name: str, session: int) -> bool:
        """Whether a row of a session has been added."""
        return (name, session) in self._seen

    def add_row(self, row: BackendResult, session: int) -> None:
        """Add a row.

        Args:
            row: the row as known so far; the blocks of its measurement are ignored.
            session: number of the repetition of the whole comparison.
        """
        self._seen.add((row.backend, session))
        self._write({"row": _without_blocks(row)})

    def add_block(self, name: str, block: Block) -> None:
        """Add a block of a row."""
        self._write({"block": json_format.unstructured(block), "of": name})

    def add_conditions(self, conditions: RoundConditions) -> None:
        """Add other load on the machine during some rounds."""
        self._write({"conditions": json_format.unstructured(conditions)})

    def change_schedule(self, schedule: str) -> None:
        """Record a change of the schedule, after which all rows are measured anew."""
        self._seen.clear()
        self._write({"schedule": schedule})

    def add_header_fields(self, **fields: Json) -> None:
        """Add fields of the header that were decided only after the workers had started."""
        self._write({"header": fields})

    def add_failure(self, failure: BackendFailure) -> None:
        """Add a row that failed."""
        self._write({"failure": json_format.unstructured(failure)})

    def leave_out(self, name: str) -> None:
        """Record that a planned row is not measured."""
        self._write({"left_out": name})

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.write_error:
            return
        try:
            self._append(line)
        except OSError as exc:
            self.write_error = (
                f"the journal {quoted(self.file)} could not be written any further "
                f"({files.reason_of(exc)}); this result itself is complete"
            )

    def _append(self, line: Mapping[str, Any]) -> None:
        self._out.write(json.dumps(line, allow_nan=False) + "\n")
        self._out.flush()

    def close(self) -> None:
        """Close the file; it is not deleted."""
        with contextlib.suppress(OSError):  # closing flushes, which fails again on a full disk
            self._out.close()


def _without_blocks(row: BackendResult) -> dict[str, Any]:
    found: dict[str, Any] = json_format.unstructured(row)
    found["measurement"]["blocks"] = []
    return found


def _opened(path: str | os.PathLike[str]) -> TextIO:
    """The file of a journal, which is new, or is there, empty and ours."""
    with contextlib.suppress(OutputExistsError):
        files.create(path)
    file = files.output_file(path, overwrite=True)
    if not _is_own_and_empty(file):
        raise OutputExistsError(f"the journal {quoted(path)} exists", "choose another name")
    try:
        return open(file, "a", encoding="utf-8", opener=_without_following)
    except OSError as exc:
        raise _not_written(path, exc) from exc


def _is_own_and_empty(file: Path) -> bool:
    try:
        found = file.lstat()
    except OSError:
        return False
    own = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    return own and stat.S_ISREG(found.st_mode) and not found.st_size


def _without_following(file: str, flags: int) -> int:
    return os.open(file, flags | getattr(os, "O_NOFOLLOW", 0))


def _not_written(path: str | os.PathLike[str], error: OSError) -> OutputError:
    return OutputError(
        f"the journal {quoted(path)} could not be written ({files.reason_of(error)})",
        files.remedy_for(error, "choose another place"),
    )


def claim_file(output: Path) -> Path:
    """Create an empty file for a journal under an unused name, in the folder of a result.

    No other process that writes the same result gets the same file.

    Args:
        output: file of the result.

    Raises:
        OutputError: it cannot be created.
    """
    number = 1
    while True:
        file = _name_beside(output, ".journal" if number == 1 else f".{number}.journal")
        with contextlib.suppress(OutputExistsError):
            files.create(file)
            return file
        number += 1


def _name_beside(output: Path, ending: str) -> Path:
    """A name in the same folder, of which the system allows 255 bytes."""
    stem = os.fsencode(output.name)
    if len(stem) + len(ending) > _MAX_NAME_BYTES:
        stem = stem[: _MAX_NAME_BYTES - len(ending)].decode(errors="ignore").encode()
    return output.with_name(os.fsdecode(stem) + ending)


def has_blocks(file: Path) -> bool:
    """Whether a journal holds a finished block of the schedule that it ends with.

    Args:
        file: of the journal, which may be damaged.
    """
    found = False
    with contextlib.suppress(FileNotFoundError), file.open("rb") as lines:
        for line in lines:
            found = line.startswith(b'{"block"') or (found and not line.startswith(b'{"schedule"'))
    return found


def is_journal(text: str) -> bool:
    """Whether the text of a file is a journal."""
    end = text.find("\n")  # the text may be long, and is not copied
    return f'"{FORMAT}"' in (text if end < 0 else text[:end])


def from_text(text: str, source: str) -> ComparisonData:
    """The comparison that a journal holds; an incomplete last line is ignored.

    Args:
        text: text of the journal.
        source: name of its file, for the error.

    Raises:
        ResultFormatError: it is damaged, or holds no finished block.
    """
    try:
        check_count(text)
        contents = _contents(text.removesuffix("\n").split("\n"))
        contents.fail_unfinished_rows()
        measured = contents.measured_rows()
    except _SHAPE_ERRORS as exc:
        raise ResultFormatError(
            f"{source} is a damaged journal ({_said(exc)})", "measure again"
        ) from exc
    if not measured:
        raise ResultFormatError(f"{source} is a journal without a finished block", "measure again")
    return json_format.from_document(contents.document(measured), source)


def _contents(lines: list[str]) -> _Contents:
    """What the lines hold.

    Raises:
        ValueError: a line is damaged.
    """
    contents: _Contents | None = None
    for number, line in enumerate(lines, start=1):
        try:
            values = parse_json(line)
        except ValueError as exc:
            if number == len(lines) > 1:  # the run ended while it was written
                break
            raise ValueError(f"line {number}: {exc}") from exc
        try:
            if not isinstance(values, dict):
                raise ValueError(f"it must be an object, and is {described(values)}")
            if contents is None:
                contents = _Contents.of(values)
            else:
                contents.add(values)
        except _SHAPE_ERRORS as exc:
            raise ValueError(f"line {number}: {_said(exc)}") from exc
    assert contents is not None  # `is_journal` has seen the first line
    return contents


def _said(error: Exception) -> str:
    """What is wrong, for the error."""
    return str(error) if isinstance(error, ValueError) else one_line(error)


@attrs.frozen
class _PlannedRow:
    """The identity of a row, as the first line names it; see `BackendFailure`."""

    backend: str
    name: str
    options: Mapping[str, Json]
    label: str = ""
    model: str = ""


@attrs.define
class _Contents:
    """What the lines of a journal add up to, as JSON values.

    Attributes:
        header: fields of `ComparisonData` other than rows and failures.
        planned: identities of the planned rows by name, in order.
        rows: rows by name.
        failures: failed rows by name.
    """

    header: dict[str, Any]
    planned: dict[str, _PlannedRow]
    rows: dict[str, Any] = attrs.field(factory=dict)
    failures: dict[str, Any] = attrs.field(factory=dict)

    @classmethod
    def of(cls, first_line: Json) -> _Contents:
        """The contents of a journal that has only its first line."""
        header = dict(first_line)
        planned = [checked(row, _PlannedRow) for row in header.pop("rows", [])]
        return cls(header, {row.backend: row for row in planned})

    def add(self, line: Json) -> None:
        """Add a line.

        Args:
            line: any line but the first.
        """
        if "schedule" in line:  # earlier blocks were measured by another schedule
            self.header["schedule"] = line["schedule"]
            self.rows.clear()
            self.header.pop("conditions", None)
        self.header.update(line.get("header", {}))
        if "row" in line:
            self._add_row(line["row"])
        elif "block" in line:
            self._add_block(line["of"], line["block"])
        elif "conditions" in line:
            self.header.setdefault("conditions", []).append(line["conditions"])
        elif "failure" in line:
            failure = checked(line["failure"], BackendFailure)
            self.failures[failure.backend] = line["failure"]
        elif "left_out" in line:
            self.planned.pop(line["left_out"], None)

    def _add_row(self, row: dict[str, Any]) -> None:
        known = self.rows.setdefault(row["backend"], row)
        if known is not row:  # the same row in a later session
            known["measurement"]["preparations"] += row["measurement"]["preparations"]

    def _add_block(self, row: str, block: dict[str, Any]) -> None:
        if row not in self.rows:
            raise ValueError(f"a block of the row {described(row)}, which no line before it adds")
        checked(block, Block)
        self.rows[row]["measurement"]["blocks"].append(block)

    def fail_unfinished_rows(self) -> None:
        """Add a failure for each planned row that has neither a line nor a failure."""
        for name, planned in self.planned.items():
            if name not in self.rows and name not in self.failures:
                self.failures[name] = _unfinished(planned)

    def measured_rows(self) -> dict[str, Any]:
        """Rows that have blocks; one that failed later keeps them, with a warning."""
        measured = {name: row for name, row in self.rows.items() if row["measurement"]["blocks"]}
        for name in measured.keys() & self.failures.keys():
            reason = self.failures.pop(name)["reason"]
            measured[name]["measurement"]["ended_by"] = "failed"
            measured[name].setdefault("warnings", []).append(f"it failed later: {reason}")
        return measured

    def document(self, measured: dict[str, Any]) -> dict[str, Any]:
        """The comparison as a JSON document.

        Args:
            measured: the rows with blocks, by name.
        """
        return {
            **self.header,
            "format": json_format.FORMAT,
            "results": [measured[name] for name in self.planned if name in measured],
            "failures": [self.failures[name] for name in self.planned if name in self.failures],
        }


def _unfinished(row: _PlannedRow) -> dict[str, Any]:
    failure = BackendFailure(
        row.backend,
        row.name,
        row.options,
        error="MeasurementError",
        reason=_UNFINISHED,
        label=row.label,
        model=row.model,
        remedy="measure again",
    )
    return attrs.asdict(failure)
