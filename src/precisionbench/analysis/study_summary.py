"""All that the results of studies show, as small data: groups, sweeps, scaling, histories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from precisionbench.analysis.cells import newest
from precisionbench.analysis.comparable import Mismatch
from precisionbench.analysis.history import History, history
from precisionbench.analysis.interval_notes import interval_notes
from precisionbench.analysis.merged import Group, Merged
from precisionbench.analysis.speedups import speedups
from precisionbench.analysis.sweep import Sweep, ThreadScaling, sweeps, thread_scaling
from precisionbench.display import Shown
from precisionbench.results import ComparisonData, Speedup
from precisionbench.results.study import Cell, CellResult
from precisionbench.statistics import Interval

_SHOWN = ("one_process", "wide_interval")  # codes of notes that qualify a whole study


@attrs.frozen(repr=False)
class RowSummary(Shown):
    """A measured row of a cell.

    Attributes:
        backend: the row.
        latency: of a call in seconds, with its 95 % CI.
        throughput: items per second; None where the batch size is not known.
        speedup: over the reference; None where that failed.
    """

    backend: str
    latency: Interval
    throughput: Interval | None
    speedup: Speedup | None


@attrs.frozen(repr=False)
class CellSummary(Shown):
    """A cell of a study.

    Attributes:
        cell: what was measured.
        created: time of the measurement; empty where it failed.
        reference: row that the others are compared with.
        rows: measured rows.
        failures: rows that could not be measured, with the reason.
        failure: why the whole cell failed; empty where it did not.
        notes: what qualifies its intervals, each sentence with the number of its rows.
    """

    cell: Cell
    created: str
    reference: str
    rows: tuple[RowSummary, ...]
    failures: tuple[tuple[str, str], ...]
    failure: str
    notes: tuple[tuple[str, int], ...] = ()


@attrs.frozen(repr=False)
class GroupSummary(Shown):
    """Cells that are comparable with each other.

    Attributes:
        device: name of the device.
        apart: how the group differs from the first one.
        notes: what qualifies the group.
        cells: the newest result of each cell.
        sweeps: over batch sizes.
        scaling: over numbers of threads.
    """

    device: str
    apart: tuple[Mismatch, ...]
    notes: tuple[str, ...]
    cells: tuple[CellSummary, ...]
    sweeps: tuple[Sweep, ...]
    scaling: tuple[ThreadScaling, ...]


@attrs.frozen(repr=False)
class StudySummary(Shown):
    """What the results of one study or of several show.

    Attributes:
        groups: of comparable cells.
        histories: of cells that were measured at several dates.
    """

    groups: tuple[GroupSummary, ...]
    histories: tuple[History, ...]


def summarise(merged: Merged) -> StudySummary:
    """Evaluate merged results.

    Args:
        merged: as `merge` returns them.
    """
    groups = tuple(_group(group) for group in merged.groups)
    return StudySummary(groups, history(merged.results))


def _group(group: Group) -> GroupSummary:
    return GroupSummary(
        group.device,
        group.apart,
        group.notes,
        _cells(group.results),
        sweeps(group.results),
        thread_scaling(group.results),
    )


def _cells(results: Iterable[CellResult]) -> tuple[CellSummary, ...]:
    return tuple(_cell(one.cell, one.data, one.failure) for one in newest(results))


def _cell(cell: Cell, data: ComparisonData | None, failure: str) -> CellSummary:
    if data is None:
        return CellSummary(cell, "", "", (), (), failure or "not measured")
    failures = tuple((one.backend, one.reason) for one in data.failures)
    rows, notes = _rows(data), _notes(data)
    return CellSummary(cell, data.created, data.reference, rows, failures, "", notes)


def _notes(data: ComparisonData) -> tuple[tuple[str, int], ...]:
    """Notes of the run, and those on rows with one process or with a wide interval."""
    found = Counter({note: len(data.results) for note in data.notes})
    for row in interval_notes(data).values():
        found.update(note.text for note in row if note.code in _SHOWN)
    return tuple(found.items())


def _rows(data: ComparisonData) -> tuple[RowSummary, ...]:
    found = speedups(data)
    return tuple(
        RowSummary(row.backend, row.latency, row.throughput, found.get(row.backend))
        for row in data.results
    )


def lone_cells(group: GroupSummary) -> Sequence[CellSummary]:
    """The measured cells of a group that are part of no sweep and of no scaling.

    Args:
        group: of a summary.
    """
    without_batch = [sweep.cell for sweep in group.sweeps]
    without_threads = [scaling.cell for scaling in group.scaling]
    return [
        one
        for one in group.cells
        if one.rows
        and attrs.evolve(one.cell, batch_size=None) not in without_batch
        and attrs.evolve(one.cell, threads=None) not in without_threads
    ]
