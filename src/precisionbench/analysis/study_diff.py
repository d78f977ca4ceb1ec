"""Changes from one study to a later one, cell by cell, with verdicts that hold over all cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from precisionbench.analysis.cells import named, newest
from precisionbench.analysis.comparable import Mismatch, mismatches
from precisionbench.analysis.run_diff import Difference, RowChange, differences
from precisionbench.display import Shown
from precisionbench.errors import IncomparableError
from precisionbench.results.grouping import grouped
from precisionbench.results.study import Cell, CellResult

_MOST_SHOWN = 8


@attrs.frozen(repr=False)
class CellDifference(Shown):
    """The changes of one cell.

    Attributes:
        cell: in the newer study.
        found: the changes of its rows.
    """

    cell: Cell
    found: Difference


@attrs.frozen(repr=False)
class StudyDifference(Shown):
    """Changes from one study to a later one.

    Attributes:
        cells: measured in both, in the newer study's order. Intervals and verdicts are simultaneous
            over the rows of all cells (95 %, Holm).
        broken: cells that were measured before and fail now, with the reason.
        only_old: cells of the older study that the newer one lacks.
        only_new: cells that only the newer study has, or that failed before.
    """

    cells: tuple[CellDifference, ...]
    broken: tuple[tuple[Cell, str], ...] = ()
    only_old: tuple[Cell, ...] = ()
    only_new: tuple[Cell, ...] = ()

    @property
    def rows(self) -> tuple[tuple[Cell, RowChange], ...]:
        """The rows of all cells."""
        return tuple((one.cell, row) for one in self.cells for row in one.found.rows)

    @property
    def slower(self) -> tuple[tuple[Cell, RowChange], ...]:
        """Rows with a verdict of slower, in latency or in the speed-up over the reference."""
        return tuple((one.cell, row) for one in self.cells for row in one.found.slower)

    @property
    def failing(self) -> tuple[str, ...]:
        """Cells, and rows of cells, that were measured before and fail now, in words."""
        rows = [f"{name} of {one.cell.title}" for one in self.cells for name in one.found.broken]
        return (*(cell.title for cell, _ in self.broken), *rows)


def study_difference(
    old: Iterable[CellResult], new: Iterable[CellResult], force: bool = False
) -> StudyDifference:
    """Compare a study with an older one.

    Args:
        old: results of the older study; of a cell that was measured several times, the newest.
        new: results of the newer study; likewise.
        force: compare cells although their conditions differ; the result names the differences.

    Raises:
        IncomparableError: cells differ in conditions that change times; the reason names them.
    """
    older = list(old)
    every = named([*older, *new])
    before, now = _by_key(every[: len(older)]), _by_key(every[len(older) :])
    pairs = {key: (before[key], now[key]) for key in now if key in before}
    measured = {key: (a.data, b.data) for key, (a, b) in pairs.items() if a.data and b.data}
    found = {key: mismatches(*pair) for key, pair in measured.items()}
    if not force:
        _refuse({now[key].cell: one for key, one in found.items() if one})
    changes = differences([(*measured[key], found[key]) for key in measured])
    return StudyDifference(
        tuple(
            CellDifference(now[key].cell, one) for key, one in zip(measured, changes, strict=True)
        ),
        tuple((b.cell, b.failure) for a, b in pairs.values() if a.data and not b.data),
        tuple(one.cell for key, one in before.items() if one.data and key not in now),
        tuple(
            one.cell
            for key, one in now.items()
            if one.data and (key not in before or before[key].data is None)
        ),
    )


def _by_key(results: Iterable[CellResult]) -> dict[Cell, CellResult]:
    """Cells by what they measure; by their backends only where several cells differ in these.

    So a study with one backend more can be compared with the older one.
    """
    found: dict[Cell, CellResult] = {}
    groups = grouped(newest(results), lambda one: attrs.evolve(one.cell, backends=()))
    for key, group in groups.items():
        several = len(group) > 1
        found.update({one.cell if several else key: one for one in group})
    return found


def _refuse(found: Mapping[Cell, tuple[Mismatch, ...]]) -> None:
    """Raise an error that names what differs and in how many cells, if anything does."""
    if not found:
        return
    cells: dict[Mismatch, list[Cell]] = {}
    for cell, several in found.items():
        for one in several:
            cells.setdefault(one, []).append(cell)
    shown = [f"{one} in {_which(where)}" for one, where in list(cells.items())[:_MOST_SHOWN]]
    more = f" and {len(cells) - _MOST_SHOWN} more" if len(cells) > _MOST_SHOWN else ""
    raise IncomparableError(
        f"the two studies differ in {', '.join(shown)}{more}",
        "run both under the same conditions, or compare them anyway with force (--force)",
    )


def _which(cells: list[Cell]) -> str:
    return cells[0].title if len(cells) == 1 else f"{len(cells)} cells"
