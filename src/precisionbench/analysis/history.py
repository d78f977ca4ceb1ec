"""Results of the same cell over time: when a row's level changed.

A run's level is the mean level of its processes. The variance of that level is known from the
spread between processes of all runs, and from the least spread between sessions. The test also
uses the spread that the runs themselves show, whichever is larger (`statistics.level_changes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean, variance

import attrs

from precisionbench.analysis.cells import by_date, named
from precisionbench.analysis.comparable import Mismatch, hardware_mismatches, mismatches
from precisionbench.analysis.run_diff import session_spread
from precisionbench.analysis.speedups import speedups
from precisionbench.analysis.variation import (
    log_ratios_by_round,
    session_levels,
    session_tables,
)
from precisionbench.display import Shown
from precisionbench.results import BackendResult, ComparisonData, Speedup
from precisionbench.results.grouping import grouped
from precisionbench.results.latency import processes, replica_levels
from precisionbench.results.study import Cell, CellResult
from precisionbench.statistics import Interval, verdict_of
from precisionbench.statistics.interaction import changing_ratios
from precisionbench.statistics.level_changes import MIN_VALUES, level_changes
from precisionbench.statistics.verdicts import ALPHA

LATENCY, SPEEDUP = "latency", "speed-up"


@attrs.frozen(repr=False)
class HistoryPoint(Shown):
    """A row in one run.

    Attributes:
        created: time of the run.
        value: its latency in seconds or its speed-up, with its 95 % CI.
    """

    created: str
    value: Interval


@attrs.frozen(repr=False)
class HistoryChange(Shown):
    """A change of a row's level between two runs.

    Attributes:
        last_before: time of the last run before the change.
        first_after: time of the first run after it.
        ratio: the level before / after for a latency, after / before for a speed-up; above 1 is
            faster now.
        runs_after: number of runs with the new level.
        mismatches: conditions that changed between the two runs.
    """

    last_before: str
    first_after: str
    ratio: Speedup
    runs_after: int
    mismatches: tuple[Mismatch, ...]


@attrs.frozen(repr=False)
class Series(Shown):
    """One figure of a row over time.

    Attributes:
        backend: the row.
        of: `latency`, or `speed-up` over the reference, in which drift of the machine cancels.
        points: in the order of time.
        changes: in the order of time.
    """

    backend: str
    of: str
    points: tuple[HistoryPoint, ...]
    changes: tuple[HistoryChange, ...]


@attrs.frozen(repr=False)
class History(Shown):
    """All results of a cell on one device.

    Attributes:
        cell: of the study, with the name of the device.
        series: latencies, then speed-ups, in the order of the rows.
    """

    cell: Cell
    series: tuple[Series, ...]

    @property
    def changes(self) -> tuple[tuple[Series, HistoryChange], ...]:
        """All changes, the earliest first."""
        found = [(one, change) for one in self.series for change in one.changes]
        return tuple(sorted(found, key=lambda pair: pair[1].first_after))


@attrs.frozen
class RunLevel:
    """The level of a row in one run, as a log, and how much its processes vary.

    Attributes:
        level: the mean over the processes.
        squares: sum of squares of the processes' differences from it.
        degrees: degrees of freedom of these.
        share: variance of the level / variance of one process.
        extra: variance of the level that processes of one run do not show.
    """

    level: float
    squares: float
    degrees: int
    share: float
    extra: float


def history(results: Iterable[CellResult], alpha: float = ALPHA) -> tuple[History, ...]:
    """The history of every cell that was measured at two dates or more.

    Runs of a cell on devices that differ are histories of their own. Versions may change within a
    history; they are named beside a change that came with them.

    Args:
        results: of one study or of several, merged.
        alpha: probability that any change is reported where nothing changed, over all series.
    """
    cells: list[tuple[Cell, list[ComparisonData]]] = []
    for cell, group in grouped(named(results), lambda one: one.cell).items():
        cells += [(cell, runs) for runs in _by_hardware(by_date(group)) if len(runs) > 1]
    made = [(cell, _all_series(runs)) for cell, runs in cells]
    count = sum(len(series) for _, series in made)
    return tuple(
        History(cell, tuple(one.found(alpha / count) for one in series)) for cell, series in made
    )


def _by_hardware(runs: Sequence[ComparisonData]) -> list[list[ComparisonData]]:
    groups: list[list[ComparisonData]] = []
    for run in runs:
        for group in groups:
            if not hardware_mismatches(group[0], run):
                if run.created != group[-1].created:
                    group.append(run)
                break
        else:
            groups.append([run])
    return groups


def run_variances(levels: Sequence[RunLevel], noise_floor: float = 0.0) -> list[float]:
    """The known variance of each run's level, from the spread between processes of all runs.

    Args:
        levels: of the runs.
        noise_floor: least standard deviation between processes, known for this device.
    """
    degrees = sum(one.degrees for one in levels)
    seen = sum(one.squares for one in levels) / degrees if degrees else 0.0
    between = max(seen, noise_floor**2)
    return [between * one.share + one.extra for one in levels]


@attrs.frozen
class _Line:
    """A series before its changes are searched.

    Attributes:
        backend: the row.
        of: what is in it.
        runs: the runs that have the row.
        points: the row in each run.
        levels: likewise, for the test.
        sign: 1 where a larger value is faster, -1 where it is slower.
    """

    backend: str
    of: str
    runs: list[ComparisonData]
    points: list[Interval]
    levels: list[RunLevel]
    sign: int

    def found(self, alpha: float) -> Series:
        """The series with its changes.

        Args:
            alpha: probability of a false alarm in this series.
        """
        noise_floor = max(run.noise_floor for run in self.runs)
        variances = run_variances(self.levels, noise_floor)
        found = level_changes([one.level for one in self.levels], variances, alpha)
        ends = [*(one.position for one in found), len(self.runs)][1:]
        changes = [
            self._change(one.position, one.difference, end - one.position)
            for one, end in zip(found, ends, strict=False)
        ]
        points = zip(self.runs, self.points, strict=True)
        shown = tuple(HistoryPoint(run.created, point) for run, point in points)
        return Series(self.backend, self.of, shown, tuple(changes))

    def _change(self, place: int, difference: Interval, runs_after: int) -> HistoryChange:
        before, after = self.runs[place - 1], self.runs[place]
        ratio = _faster(difference, self.sign).exp()
        return HistoryChange(
            before.created,
            after.created,
            Speedup.of(ratio, *verdict_of(ratio)),
            runs_after,
            mismatches(before, after),
        )


def _faster(difference: Interval, sign: int) -> Interval:
    """A difference of logs, turned so that above 0 is faster."""
    if sign > 0:
        return difference
    return Interval(-difference.value, -difference.high, -difference.low)


def _all_series(runs: Sequence[ComparisonData]) -> list[_Line]:
    names = list(dict.fromkeys(row.backend for run in runs for row in run.results))
    lines = [
        *(_latencies(runs, name) for name in names),
        *(_speedups(runs, name) for name in names),
    ]
    return [line for line in lines if len(line.runs) > 1]


def _latencies(runs: Sequence[ComparisonData], name: str) -> _Line:
    found = [(run, row) for run in runs for row in run.results if row.backend == name]
    return _Line(
        name,
        LATENCY,
        [run for run, _ in found],
        [row.latency for _, row in found],
        [_latency_level(run, row) for run, row in found],
        sign=-1,
    )


def _speedups(runs: Sequence[ComparisonData], name: str) -> _Line:
    """The speed-ups of a row over the reference that it has in the newest run."""
    reference = runs[-1].reference_of(name)
    found = [
        (run, speedups(run)[name], level)
        for run in runs
        if run.reference_of(name) == reference != name and name in speedups(run)
        for level in [_ratio_level(run, reference, name)]
        if level is not None
    ]
    return _Line(
        name,
        SPEEDUP,
        [run for run, _, _ in found],
        [one.interval for _, one, _ in found],
        [level for _, _, level in found],
        sign=1,
    )


def _latency_level(run: ComparisonData, row: BackendResult) -> RunLevel:
    blocks = processes(row.measurement.blocks, run.schedule)
    levels = [*replica_levels(blocks).values()]
    sessions = len({block.session for block in blocks})
    extra = session_spread(run.results) ** 2 / sessions
    return _run_level([levels], mean(levels), 1 / len(levels), extra)


def _ratio_level(run: ComparisonData, reference: str, name: str) -> RunLevel | None:
    """The log of a speed-up, with the variance of both rows; None if they share no round."""
    rows = {row.backend: row.measurement.blocks for row in run.results}
    if run.schedule == "restarts":
        logs = log_ratios_by_round(rows[reference], rows[name])
        return _run_level([logs], mean(logs), 1 / len(logs), 0.0) if logs else None
    tables = session_tables([rows[reference], rows[name]])
    pairs = session_levels(tables)
    if run.schedule == "sequential" or not pairs:
        return None
    share = sum(1 / len(b) + 1 / len(o) for b, o in pairs) / len(pairs) ** 2
    level = mean(mean(b) - mean(o) for b, o in pairs)
    changing = changing_ratios(tables)
    extra = variance(changing) / len(changing) if len(changing) > 1 else 0.0
    return _run_level([row for pair in pairs for row in pair], level, share, extra)


def _run_level(
    groups: Sequence[Sequence[float]], level: float, share: float, extra: float
) -> RunLevel:
    squares = sum((x - mean(group)) ** 2 for group in groups for x in group)
    degrees = sum(len(group) - 1 for group in groups)
    return RunLevel(level, squares, degrees, share, extra)


def has_enough_runs(series: Series) -> bool:
    """Whether a series is long enough to find a change in it.

    Args:
        series: of a history.
    """
    return len(series.points) >= MIN_VALUES
