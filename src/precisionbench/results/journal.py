"""Rounds on disk as they finish, so that a run that dies takes nothing with it.

A journal is a file of JSON lines: a header, then one line for each row, block and failure. It is
data only; reading it evaluates nothing. `precisionbench.load` reads one as it reads a result.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import attrs

from precisionbench.errors import OutputError, ResultFormatError, one_line
from precisionbench.results import json_format
from precisionbench.results.records import (
    BackendFailure,
    BackendResult,
    Block,
    ComparisonData,
    Json,
)

FORMAT = "precisionbench.journal"
_UNFINISHED = "the run ended before a round of this row was finished"


class Journal:
    """Appends lines to a file, and gives up without harm where the disk does not take them.

    Args:
        file: to be created.
        header: fields of `ComparisonData` that are known before anything is measured.
        rows: identities of the planned rows.

    Attributes:
        file: where it is.
        trouble: why it could not be written any further; empty where it could.

    Raises:
        OutputError: the file cannot be created.
    """

    def __init__(
        self, file: str | os.PathLike[str], header: Mapping[str, Any], rows: list[dict[str, Any]]
    ) -> None:
        self.file, self.trouble = Path(file), ""
        self._seen: set[tuple[str, int]] = set()
        try:
            self._out: TextIO = self.file.open("x", encoding="utf-8")
        except OSError as exc:
            raise OutputError(
                f"the journal {str(file)!r} could not be created ({one_line(exc)})",
                "choose another name or place",
            ) from exc
        self._write({"format": FORMAT, "version": json_format.VERSION, "rows": rows, **header})

    def has(self, name: str, session: int) -> bool:
        """Whether a row is in it already."""
        return (name, session) in self._seen

    def row(self, row: BackendResult, session: int) -> None:
        """Add a row.

        Args:
            row: with everything known of it so far; of its measurement all but the blocks counts.
            session: which repetition of the whole.
        """
        self._seen.add((row.backend, session))
        self._write({"row": _without_blocks(row)})

    def block(self, name: str, block: Block) -> None:
        """Add a block of a row."""
        self._write({"block": json_format.unstructured(block), "of": name})

    def schedule(self, schedule: str) -> None:
        """Say that from here on rows are measured in another way, all of them anew."""
        self._seen.clear()
        self._write({"schedule": schedule})

    def conditions(self, **fields: Json) -> None:
        """Add what of the header was decided only after the workers were ready."""
        self._write({"header": fields})

    def failure(self, failure: BackendFailure) -> None:
        """Add a row that failed."""
        self._write({"failure": json_format.unstructured(failure)})

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.trouble:
            return
        try:
            self._out.write(json.dumps(line, allow_nan=False) + "\n")
            self._out.flush()
        except OSError as exc:
            self.trouble = (
                f"the journal {str(self.file)!r} could not be written any further "
                f"({one_line(exc)}); this result itself is complete"
            )

    def close(self) -> None:
        """Close the file, which stays where it is."""
        with contextlib.suppress(OSError):  # what the disk did not take is tried again here
            self._out.close()


def _without_blocks(row: BackendResult) -> dict[str, Any]:
    found: dict[str, Any] = json_format.unstructured(row)
    found["measurement"]["blocks"] = []
    return found


def free_name(output: Path) -> Path:
    """A journal's name beside a result's that no earlier run has left there.

    Args:
        output: the result's file.
    """
    names = (f"{output.name}.journal{'' if n == 1 else f'.{n}'}" for n in range(1, 1000))
    return next(file for name in names if not (file := output.with_name(name)).exists())


def is_journal(text: str) -> bool:
    """Whether a file's text is a journal's."""
    return f'"{FORMAT}"' in text.partition("\n")[0]


def from_text(text: str, source: str) -> ComparisonData:
    """What a journal holds; a last line that was cut off is passed over.

    Args:
        text: of the file.
        source: where it is from, for the error.

    Raises:
        ResultFormatError: it is damaged, or holds no finished block.
    """
    lines = list(_lines(text, source))
    header, rest = lines[0], lines[1:]
    planned = header.pop("rows", [])
    rows: dict[str, Any] = {}
    failures: dict[str, Any] = {}
    try:
        for line in rest:
            if "schedule" in line:  # what was measured before in another way does not count
                header["schedule"] = line["schedule"]
                rows.clear()
            header.update(line.get("header", {}))
            _add(line, rows, failures)
        for identity in planned:
            if identity["backend"] not in {*rows, *failures}:
                failures[identity["backend"]] = _unfinished(identity)
    except (AttributeError, KeyError, TypeError) as exc:
        raise ResultFormatError(
            f"{source} is a damaged journal ({one_line(exc)})", "measure again"
        ) from exc
    measured = {name: row for name, row in rows.items() if row["measurement"]["blocks"]}
    for name in measured.keys() & failures.keys():  # it broke after blocks that are worth keeping
        reason = failures.pop(name)["reason"]
        measured[name]["measurement"]["ended_by"] = "failed"
        measured[name].setdefault("warnings", []).append(f"it failed later: {reason}")
    if not measured:
        raise ResultFormatError(
            f"{source} is a journal without a single finished block", "measure again"
        )
    order = [identity["backend"] for identity in planned]
    document = {
        **header,
        "format": json_format.FORMAT,
        "results": [measured[name] for name in order if name in measured],
        "failures": [failures[name] for name in order if name in failures],
    }
    return json_format.from_json(json.dumps(document), source)


def _lines(text: str, source: str) -> Iterator[dict[str, Any]]:
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except ValueError as exc:
            if number == len(lines) > 1:  # the run ended while it was written
                return
            raise ResultFormatError(
                f"{source} is a damaged journal (line {number}: {exc})", "measure again"
            ) from exc


def _add(line: dict[str, Any], rows: dict[str, Any], failures: dict[str, Any]) -> None:
    if "row" in line:
        row = line["row"]
        known = rows.setdefault(row["backend"], row)
        if known is not row:  # of a later session
            known["measurement"]["preparations"] += row["measurement"]["preparations"]
    elif "block" in line:
        rows[line["of"]]["measurement"]["blocks"].append(line["block"])
    elif "failure" in line:
        failures[line["failure"]["backend"]] = line["failure"]


def _unfinished(identity: dict[str, Any]) -> dict[str, Any]:
    failure = BackendFailure(
        **identity, error="MeasurementError", reason=_UNFINISHED, remedy="measure again"
    )
    return attrs.asdict(failure)
