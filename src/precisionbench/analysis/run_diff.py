"""Changes from one run to a later one: a ratio per row, with its interval and verdict.

Two runs are two sessions. Drift between them does not cancel as it does within one, so the interval
covers run-to-run variance and a possible shift between sessions. Drift does cancel in the
speed-up over the reference, which each run measured in the same rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from statistics import mean, median, stdev

import attrs

from precisionbench.analysis.comparable import Mismatch
from precisionbench.analysis.speedups import TOO_WIDE, RatioAt
from precisionbench.analysis.variation import (
    SessionTables,
    count_rounds,
    least_interval_rounds,
    replicas,
    round_shifts,
    session_levels,
    session_tables,
)
from precisionbench.display import Shown
from precisionbench.results.agreement import Agreement
from precisionbench.results.comparison_data import BackendResult, ComparisonData, Speedup
from precisionbench.results.grouping import grouped
from precisionbench.results.latency import replica_levels
from precisionbench.statistics import Interval, Spread, Verdict, pooled_spread, verdicts
from precisionbench.statistics.interaction import changing_ratios
from precisionbench.statistics.ratios import (
    including_rounds,
    level_interval,
    sessions_interval,
    widened,
)
from precisionbench.statistics.verdicts import MARGIN

# Minimum standard deviation of the log between sessions, in addition to that between processes. If
# the rounds of a run vary more, sessions are assumed to vary as much (docs/between-processes.md).
SESSION_SPREAD = 0.001
# Overhead of a pair of CUDA events (docs/hardware.md). Runs with different numbers of calls per
# sample contain different shares of it.
_EVENT_PAIR_S = 2.7e-6
# Changes by more than these factors are reported; errors below the last are not.
_ERROR_GREW = 3.0
_MEMORY_GREW = 1.05
_MIN_ERROR = 1e-6


@attrs.frozen(repr=False)
class RowChange(Shown):
    """The change of one row.

    Attributes:
        backend: the row.
        old: its latency in the older run, in seconds.
        new: its latency in the newer run, in seconds.
        speedup: old / new latency; above 1 is faster now.
        relative: new / old speed-up over the reference, which excludes changes that affect all
            rows. None for the reference, and where the speed-up was not measured in both runs.
        notes: other changes, such as a larger error.
    """

    backend: str
    old: Interval
    new: Interval
    speedup: Speedup
    relative: Speedup | None = None
    notes: tuple[str, ...] = ()


@attrs.frozen(repr=False)
class Difference(Shown):
    """Changes from one run to a later one.

    Attributes:
        old_created: time of the older run.
        new_created: time of the newer run.
        rows: rows measured in both, in the newer run's order.
        broken: rows that were measured before and fail now.
        mismatches: other differences of the two runs; if there are any, they are not comparable.
        notes: notes on the runs as a whole.
    """

    old_created: str
    new_created: str
    rows: tuple[RowChange, ...]
    broken: tuple[str, ...] = ()
    mismatches: tuple[Mismatch, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def slower(self) -> tuple[RowChange, ...]:
        """Rows with a verdict of slower, in latency or in the speed-up over the reference."""
        return tuple(
            row
            for row in self.rows
            if row.speedup.verdict is Verdict.SLOWER
            or (row.relative is not None and row.relative.verdict is Verdict.SLOWER)
        )


def difference(
    old: ComparisonData, new: ComparisonData, found: tuple[Mismatch, ...] = ()
) -> Difference:
    """Compare a run with an older one.

    Args:
        old: the run to compare with.
        new: the run to judge.
        found: other differences of the two runs, if they are compared anyway.

    Returns:
        The change of each row measured in both.
    """
    return differences([(old, new, found)])[0]


def differences(
    runs: Sequence[tuple[ComparisonData, ComparisonData, tuple[Mismatch, ...]]],
) -> tuple[Difference, ...]:
    """Compare several runs with older ones; intervals and verdicts are simultaneous over all.

    Args:
        runs: for each, the arguments of `difference`.
    """
    changes = _row_changes([_Pair(old, new) for old, new, _ in runs])
    return tuple(_difference(*run, rows) for run, rows in zip(runs, changes, strict=True))


def _difference(
    old: ComparisonData,
    new: ComparisonData,
    found: tuple[Mismatch, ...],
    rows: tuple[RowChange, ...],
) -> Difference:
    failing = {failure.backend for failure in new.failures}
    broken = tuple(row.backend for row in old.results if row.backend in failing)
    notes = (*_common_change(rows), *_missing(old, new), *_about_runs(old, new))
    return Difference(old.created, new.created, rows, broken, found, notes)


def _row_changes(pairs: Sequence[_Pair]) -> list[tuple[RowChange, ...]]:
    changes = _verdicts(pairs, lambda pair: {name: pair.change(name) for name in pair.names})
    relative = _verdicts(pairs, lambda pair: {name: pair.relative(name) for name in pair.others})
    return [
        tuple(pair.row_change(name, changes[i][name], relative[i].get(name)) for name in pair.names)
        for i, pair in enumerate(pairs)
    ]


def _verdicts(
    pairs: Sequence[_Pair], ratios: Callable[[_Pair], Mapping[str, RatioAt]]
) -> list[dict[str, Speedup]]:
    """Intervals and verdicts of all rows of all pairs by one kind of ratio.

    Args:
        pairs: of runs.
        ratios: function from a pair to the ratio of each row, by the confidence.
    """
    found = verdicts({(i, n): at for i, pair in enumerate(pairs) for n, at in ratios(pair).items()})
    result: list[dict[str, Speedup]] = [{} for _ in pairs]
    for (i, name), one in found.items():
        result[i][name] = pairs[i].speedup(name, *one)
    return result


class _Pair:
    """The rows that two runs have in common, with the spread estimated from both runs.

    Args:
        old: the older run.
        new: the newer one.
    """

    def __init__(self, old: ComparisonData, new: ComparisonData) -> None:
        self.runs = old, new
        before = {row.backend: row for row in old.results}
        self.names = [row.backend for row in new.results if row.backend in before]
        self.old = {name: before[name] for name in self.names}
        self.new = {row.backend: row for row in new.results if row.backend in before}
        self.noise_floor = max(old.noise_floor, new.noise_floor)

    @property
    def others(self) -> list[str]:
        """Rows whose speed-up over the same reference was measured in both runs."""
        first, second = self.runs
        if not first.schedule == second.schedule == "rounds":
            return []
        return [
            name
            for name in self.names
            if self.have_same_reference(name)
            and first.reference_of(name) in self.names
            and not first.is_reference(name)
            and all(self._over_reference(rows, name) for rows in (self.old, self.new))
        ]

    def have_same_reference(self, name: str) -> bool:
        """Whether both runs compare a row with the same row.

        Args:
            name: of the row.
        """
        first, second = self.runs
        return first.reference_of(name) == second.reference_of(name)

    @cached_property
    def has_sessions(self) -> bool:
        """Whether both runs have several sessions, so that sessions are the independent units."""
        return all(
            len({b.session for b in row.measurement.blocks}) > 1
            for row in (*self.old.values(), *self.new.values())
        )

    @cached_property
    def session_spread(self) -> float:
        """Standard deviation of the log between sessions: at least that between rounds."""
        if self.has_sessions:
            return 0.0
        return max(session_spread(rows.values()) for rows in (self.old, self.new))

    def row_change(self, name: str, speedup: Speedup, relative: Speedup | None) -> RowChange:
        """The change of a row, with its other changes."""
        old, new = self.old[name], self.new[name]
        notes = tuple(_other_changes(old, new, self.have_same_reference(name)))
        return RowChange(name, old.latency, new.latency, speedup, relative, notes)

    def speedup(self, name: str, interval: Interval, verdict: Verdict, reason: str) -> Speedup:
        """The verdict, or the reason why such data do not support one."""
        if why := self._why_inconclusive(name):
            return Speedup.of(interval, Verdict.INCONCLUSIVE, why)
        if verdict is Verdict.INCONCLUSIVE and interval.high > TOO_WIDE * interval.low:
            reason = "processes_differ"
        return Speedup.of(interval, verdict, reason)

    def _why_inconclusive(self, name: str) -> str:
        """The reason why a row's verdict is inconclusive; empty where it is not."""
        rows = self.old[name].measurement.blocks, self.new[name].measurement.blocks
        if "sequential" in {run.schedule for run in self.runs}:
            return "not_interleaved"
        if any(count_rounds(blocks) < least_interval_rounds(blocks) for blocks in rows):
            return "too_few_rounds"
        return "one_process" if min(len(replicas(blocks)) for blocks in rows) < 2 else ""

    # --- latency of a row ---------------------------------------------------------------------

    def _units(self, row: BackendResult) -> list[float]:
        """The log levels that vary independently: of sessions, or of processes."""
        levels = replica_levels(row.measurement.blocks)
        if not self.has_sessions:
            return list(levels.values())
        sessions = grouped(levels, lambda replica: replica[0])
        return [mean(levels[key] for key in keys) for keys in sessions.values()]

    @cached_property
    def _spread(self) -> Spread:
        """The spread of the independent units, pooled over all rows.

        All rows of a run share the shifts of its sessions, so each run adds the degrees of freedom
        of one row only.
        """
        runs = [[self._units(row) for row in rows.values()] for rows in (self.old, self.new)]
        pooled = pooled_spread([units for run in runs for units in run])
        if not self.has_sessions:
            return pooled
        return Spread(pooled.sd, sum(max(map(len, run)) - 1 for run in runs))

    def change(self, name: str) -> RatioAt:
        """The ratio old / new of a row's latency, by the confidence."""
        old, new = self.old[name], self.new[name]
        units = self._units(old), self._units(new)
        noise_floor = self._noise_floor_of_units(old, new)
        between_runs = math.hypot(self.session_spread, _event_bias(old, new))

        def ratio_at(confidence: float) -> Interval:
            logs = level_interval(*units, confidence, self._spread, noise_floor)
            return widened(logs, between_runs, confidence).exp()

        return ratio_at

    def _noise_floor_of_units(self, old: BackendResult, new: BackendResult) -> float:
        """The noise floor of one unit; a session averages over its processes."""
        if not self.has_sessions:
            return self.noise_floor
        per_session = min(
            len(replicas(row.measurement.blocks)) / len(self._units(row)) for row in (old, new)
        )
        return self.noise_floor / math.sqrt(per_session)

    # --- speed-up of a row over the reference -----------------------------------------------------

    def _over_reference(self, rows: Mapping[str, BackendResult], name: str) -> SessionTables:
        """The log values of the reference and the row in each session of a run."""
        pair = self.runs[0].reference_of(name), name
        return session_tables([rows[key].measurement.blocks for key in pair])

    def relative(self, name: str) -> RatioAt:
        """The ratio new / old of a row's speed-up over the reference, by the confidence."""
        runs = [self._over_reference(rows, name) for rows in (self.old, self.new)]
        levels = [session_levels(tables) for tables in runs]
        spread = pooled_spread([row for run in levels for pair in run for row in pair])
        changing = [changing_ratios(tables) for tables in runs]

        def ratio_at(confidence: float) -> Interval:
            before, now = (
                including_rounds(
                    sessions_interval(run, confidence, spread, self.noise_floor), ratios, confidence
                )
                for run, ratios in zip(levels, changing, strict=True)
            )
            value = now.value - before.value
            down = math.hypot(now.value - now.low, before.high - before.value)
            up = math.hypot(now.high - now.value, before.value - before.low)
            return Interval(value, value - down, value + up).exp()

        return ratio_at


def session_spread(rows: Iterable[BackendResult]) -> float:
    """Standard deviation of the log between sessions: at least that between the rounds of a run.

    Args:
        rows: of one run.
    """
    shifts = round_shifts([row.measurement.blocks for row in rows])
    return max(SESSION_SPREAD, stdev(shifts.values()) if len(shifts) > 1 else 0.0)


def _event_bias(old: BackendResult, new: BackendResult) -> float:
    """The log ratio that different numbers of calls per sample alone can cause."""
    if old.measurement.clock != "cuda_events":
        return 0.0
    parts = [_EVENT_PAIR_S / row.measurement.calls_per_sample for row in (old, new)]
    return abs(parts[0] - parts[1]) / new.latency.value


def _other_changes(old: BackendResult, new: BackendResult, same_reference: bool) -> Iterator[str]:
    """Properties other than the latency that became worse.

    Args:
        old: the row in the older run.
        new: the same row in the newer run.
        same_reference: whether both runs have the same reference, so that errors are comparable.
    """
    if same_reference and old.agreement and new.agreement:
        yield from _larger_errors(old.agreement, new.agreement)
    yield from _larger_memory(old.passes.peak_allocated_bytes, new.passes.peak_allocated_bytes)


def _larger_errors(old: Agreement, new: Agreement) -> Iterator[str]:
    before, now = old.relative_l2 or 0.0, new.relative_l2 or 0.0
    if now > max(_ERROR_GREW * before, _MIN_ERROR):
        yield f"its error against the reference grew from {before:.1e} to {now:.1e}"
    if new.nonfinite_count > old.nonfinite_count:
        yield (
            f"its output has {new.nonfinite_count:,} non-finite elements now, "
            f"{old.nonfinite_count:,} before"
        )
    yield from (text for text in new.problems if text not in old.problems)


def _larger_memory(old_bytes: int | None, new_bytes: int | None) -> Iterator[str]:
    if old_bytes and new_bytes and new_bytes > _MEMORY_GREW * old_bytes:
        yield (
            f"its peak memory grew from {old_bytes / 2**20:,.0f} MiB to {new_bytes / 2**20:,.0f} "
            "MiB"
        )


def _common_change(changes: tuple[RowChange, ...]) -> Iterator[str]:
    """A note if all rows changed by the same factor, which indicates a change of the machine."""
    logs = [math.log(change.speedup.value) for change in changes]
    found = {change.speedup.verdict for change in changes}
    if len(logs) < 2 or not found <= {Verdict.FASTER, Verdict.SLOWER}:
        return
    common = median(logs)
    if abs(common) >= MARGIN and all(abs(log - common) < MARGIN for log in logs):
        direction = "faster" if common > 0 else "slower"
        yield (
            f"all rows became {direction} by the same {abs(math.expm1(common)):.1%}: probably the "
            "machine changed (clocks, temperature, load), not a backend; measure both runs again"
        )


def _missing(old: ComparisonData, new: ComparisonData) -> Iterator[str]:
    before, now = {row.backend for row in old.results}, {row.backend for row in new.results}
    reasons: Mapping[str, str] = {failure.backend: failure.reason for failure in new.failures}
    for row in old.results:
        if row.backend in reasons:
            yield f"{row.backend} was measured before and fails now: {reasons[row.backend]}"
        elif row.backend not in now:
            yield f"{row.backend} was measured before and is not in the newer run"
    if added := [row.backend for row in new.results if row.backend not in before]:
        yield f"only in the newer run: {', '.join(added)}"


def _about_runs(old: ComparisonData, new: ComparisonData) -> Iterator[str]:
    boards = [run.environment.gpu.uuid if run.environment.gpu else None for run in (old, new)]
    if all(boards) and boards[0] != boards[1]:
        yield "the runs used two boards of the same model, which may differ by a few percent"
    if old.reference != new.reference:
        yield f"the reference was {old.reference} and is now {new.reference}"
