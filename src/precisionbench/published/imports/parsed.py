"""What a file of others holds: records, and how many of its rows were left out, by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import attrs

from precisionbench.errors import PublishedDataError
from precisionbench.published.record import CONDITIONS, Record


@attrs.frozen
class Parsed:
    """The content of an imported file.

    Attributes:
        records: the published numbers, in the file's order.
        left_out: number of rows without a record, by reason.
    """

    records: tuple[Record, ...]
    left_out: Mapping[str, int] = attrs.field(factory=dict)


class Rows:
    """Collects the records of a file; the same row twice gives one record.

    Args:
        name: name of the file, for errors.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._records: dict[str, Record] = {}
        self._left_out: Counter[str] = Counter()

    def leave_out(self, reason: str) -> None:
        """Count a row without a record.

        Args:
            reason: why it has none.
        """
        self._left_out[reason] += 1

    def add(self, where: str, id: str, fields: Mapping[str, Any]) -> None:
        """Make the record of a row; conditions without a value are listed as unknown.

        Args:
            where: the row, for errors.
            id: id of the record; a number is added where another record has it.
            fields: the other fields.

        Raises:
            PublishedDataError: a field has a value that records cannot have.
        """
        unknown = tuple(name for name in CONDITIONS if fields.get(name) is None)
        try:
            record = Record(id=id, unknown=unknown, **fields)
        except ValueError as exc:
            raise PublishedDataError(f"{self._name}, {where}: {exc}", "correct that row") from exc
        number = 1
        while (other := self._records.get(record.id)) not in (None, record):
            number += 1
            record = attrs.evolve(record, id=f"{id}-{number}")
        if other is not None:
            self.leave_out("the same row twice")
        self._records[record.id] = record

    def parsed(self) -> Parsed:
        """The content of the file.

        Raises:
            PublishedDataError: no row of it is a number that can be imported.
        """
        if not self._records:
            reasons = ", ".join(f"{count} x {why}" for why, count in self._left_out.items())
            raise PublishedDataError(
                f"{self._name} has no number to import ({reasons or 'it has no rows'})",
                "give MLPerf's summary_results.json or a table of timm's inference benchmark",
            )
        return Parsed(tuple(self._records.values()), dict(self._left_out))
