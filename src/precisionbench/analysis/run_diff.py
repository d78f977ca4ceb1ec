"""What has changed from one run to a later one: per row a ratio, its interval and a verdict.

Two runs are two sessions. Drift between them does not cancel as it does within one, so beside the
spread between processes the interval holds what a session may have shifted. Of the speed-up over
the reference, which was measured in the same rounds, drift cancels in either run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from statistics import mean, median, stdev

import attrs

from precisionbench.analysis.comparable import Mismatch
from precisionbench.analysis.speedups import (
    FLOOR_ROUNDS,
    process_levels,
    replicas,
    round_shifts,
    session_levels,
    shared_rounds,
)
from precisionbench.results.records import BackendResult, ComparisonData, Speedup
from precisionbench.statistics import Interval, Spread, Verdict, pooled_spread, verdicts
from precisionbench.statistics.ratios import level_interval, sessions_interval, widened
from precisionbench.statistics.verdicts import MARGIN

# What the level of a session differs by at least, beside its processes, as a log; where rounds of a
# run differ by more from each other, sessions are taken to, too (docs/between-processes.md).
SESSION_SPREAD = 0.001
# What a pair of CUDA events reads too much (docs/hardware.md): runs with other numbers of calls in
# a sample have it in other parts.
_EVENT_PAIR_S = 2.7e-6
_ERROR_GREW = 3.0
_LEAST_ERROR = 1e-6
_MEMORY_GREW = 1.05


_Sessions = list[tuple[list[float], list[float]]]


@attrs.frozen
class RowChange:
    """How one row has changed.

    Attributes:
        backend: the row.
        old: its latency in the older run, in seconds.
        new: its latency in the newer one.
        speedup: old / new; above 1 is faster now.
        relative: its speed-up over the reference, new / old: without what changed for all rows.
            None for the reference, and where that was not measured in both runs.
        notes: what else has changed.
    """

    backend: str
    old: Interval
    new: Interval
    speedup: Speedup
    relative: Speedup | None = None
    notes: tuple[str, ...] = ()


@attrs.frozen
class Difference:
    """What has changed from one run to a later one.

    Attributes:
        old_created: when the older run was made.
        new_created: when the newer one was.
        rows: those measured in both, in the newer run's order.
        broken: rows that were measured before and fail now.
        mismatches: what else differs; then nothing here is like with like.
        notes: what is not about one row.
    """

    old_created: str
    new_created: str
    rows: tuple[RowChange, ...]
    broken: tuple[str, ...] = ()
    mismatches: tuple[Mismatch, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def slower(self) -> tuple[RowChange, ...]:
        """Rows that are slower now, by themselves or over the reference, by their verdicts."""
        return tuple(
            row
            for row in self.rows
            if row.speedup.verdict is Verdict.SLOWER
            or (row.relative is not None and row.relative.verdict is Verdict.SLOWER)
        )


def difference(
    old: ComparisonData, new: ComparisonData, found: tuple[Mismatch, ...] = ()
) -> Difference:
    """Hold a run against an older one.

    Args:
        old: the run to compare with.
        new: the run to judge.
        found: what else differs, where they are compared all the same.

    Returns:
        What has changed, for each row measured in both.
    """
    pair = _Pair(old, new)
    changes, relatives = (
        pair.judged(pair.change, pair.names),
        pair.judged(pair.relative, pair.others),
    )
    rows = tuple(
        RowChange(
            name,
            pair.old[name].latency,
            pair.new[name].latency,
            changes[name],
            relatives.get(name),
            tuple(_other_changes(pair.old[name], pair.new[name], old.reference == new.reference)),
        )
        for name in pair.names
    )
    failing = {failure.backend for failure in new.failures}
    broken = tuple(row.backend for row in old.results if row.backend in failing)
    notes = (*_alike(rows), *_missing(old, new), *_about_runs(old, new))
    return Difference(old.created, new.created, rows, broken, found, notes)


class _Pair:
    """The rows that two runs have in common, and what both say about spread.

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
        self.floor = max(old.noise_floor, new.noise_floor)

    @property
    def others(self) -> list[str]:
        """Rows that can be held against the reference in both runs."""
        first, second = self.runs
        if not first.schedule == second.schedule == "rounds":
            return []
        if first.reference != second.reference or first.reference not in self.names:
            return []
        return [
            name
            for name in self.names
            if name != first.reference
            and all(self._over_reference(rows, name) for rows in (self.old, self.new))
        ]

    @cached_property
    def sessions(self) -> bool:
        """Whether both runs have several sessions, which then stand for themselves."""
        return all(
            len({b.session for b in row.measurement.blocks}) > 1
            for row in (*self.old.values(), *self.new.values())
        )

    @cached_property
    def session_spread(self) -> float:
        """What a session may have shifted: at least as much as rounds of these runs did."""
        if self.sessions:
            return 0.0
        shifts = [
            stdev(found)
            for rows in (self.old, self.new)
            if len(found := round_shifts([row.measurement.blocks for row in rows.values()])) > 1
        ]
        return max([SESSION_SPREAD, *shifts])

    def judged(
        self, ratio: Callable[[str, float], Interval], names: Sequence[str]
    ) -> dict[str, Speedup]:
        """Intervals and verdicts of rows by one kind of ratio.

        Args:
            ratio: of a row, at a confidence.
            names: of the rows.
        """
        found = verdicts({name: partial(ratio, name) for name in names})
        return {
            name: _speedup(interval, *(self._unjudged(name) or (verdict, reason)))
            for name, (interval, verdict, reason) in found.items()
        }

    def _unjudged(self, name: str) -> tuple[Verdict, str] | None:
        """Why there can be no verdict on a row."""
        rows = self.old[name].measurement.blocks, self.new[name].measurement.blocks
        schedules = {run.schedule for run in self.runs}
        if "sequential" in schedules:
            return Verdict.INCONCLUSIVE, "not_interleaved"
        if min(shared_rounds(blocks, blocks) for blocks in rows) < FLOOR_ROUNDS:
            return Verdict.INCONCLUSIVE, "too_few_rounds"
        if min(len(replicas(blocks)) for blocks in rows) < 2:
            return Verdict.INCONCLUSIVE, "one_process"
        return None

    # --- a row by itself ----------------------------------------------------------------------

    def _units(self, row: BackendResult) -> list[float]:
        """The log levels that vary independently: of sessions, or of processes."""
        levels = process_levels(row.measurement.blocks)
        if not self.sessions:
            return list(levels.values())
        found: dict[int, list[float]] = {}
        for (session, _), level in levels.items():
            found.setdefault(session, []).append(level)
        return [mean(values) for values in found.values()]

    @cached_property
    def _spread(self) -> Spread:
        """Of processes over all rows; of sessions, whose shifts rows have in common, by run."""
        runs = [[self._units(row) for row in rows.values()] for rows in (self.old, self.new)]
        pooled = pooled_spread([units for run in runs for units in run])
        if not self.sessions:
            return pooled
        return Spread(pooled.sd, sum(max(map(len, run)) - 1 for run in runs))

    def change(self, name: str, confidence: float) -> Interval:
        """The ratio old / new of a row's latency."""
        old, new = self.old[name], self.new[name]
        floor = self.floor
        if self.sessions:  # it is of processes, of which each session has some
            per_session = min(
                len(replicas(row.measurement.blocks)) / len(self._units(row)) for row in (old, new)
            )
            floor /= math.sqrt(per_session)
        logs = level_interval(self._units(old), self._units(new), confidence, self._spread, floor)
        beside = math.hypot(self.session_spread, _event_bias(old, new))
        return widened(logs, beside, confidence).exp()

    # --- a row over the reference ----------------------------------------------------------------

    def _over_reference(self, rows: Mapping[str, BackendResult], name: str) -> _Sessions:
        """Log levels of the reference's processes and the row's in each session of a run."""
        blocks = [rows[key].measurement.blocks for key in (self.runs[0].reference, name)]
        return [(base, other) for base, other in session_levels(blocks)]

    def relative(self, name: str, confidence: float) -> Interval:
        """The ratio new / old of a row's speed-up over the reference."""
        runs = [self._over_reference(rows, name) for rows in (self.old, self.new)]
        spread = pooled_spread([levels for run in runs for pair in run for levels in pair])
        before, now = (sessions_interval(run, confidence, spread, self.floor) for run in runs)
        value = now.value - before.value
        width = math.hypot(now.high - now.value, before.high - before.value)
        return Interval(value, value - width, value + width).exp()


def _speedup(interval: Interval, verdict: Verdict, reason: str) -> Speedup:
    return Speedup(interval.value, interval.low, interval.high, verdict, reason)


def _event_bias(old: BackendResult, new: BackendResult) -> float:
    """How much of a difference comes from other numbers of calls in a sample, as a log."""
    if old.measurement.clock != "cuda_events":
        return 0.0
    parts = [_EVENT_PAIR_S / row.measurement.calls_per_sample for row in (old, new)]
    return abs(parts[0] - parts[1]) / new.latency.value


def _other_changes(old: BackendResult, new: BackendResult, comparable: bool) -> Iterator[str]:
    """What else became worse; errors count where both runs have the same reference."""
    if comparable and old.agreement and new.agreement:
        errors = [row.agreement.relative_l2 or 0.0 for row in (old, new) if row.agreement]
        if errors[1] > max(_ERROR_GREW * errors[0], _LEAST_ERROR):
            yield f"its error against the reference grew from {errors[0]:.1e} to {errors[1]:.1e}"
        broken = [row.agreement.nonfinite_count for row in (old, new) if row.agreement]
        if broken[1] > broken[0]:
            yield f"its output has {broken[1]:,} non-finite elements, {broken[0]:,} before"
        yield from (text for text in new.agreement.problems if text not in old.agreement.problems)
    memory = [row.passes.peak_allocated_bytes for row in (old, new)]
    if memory[0] and memory[1] and memory[1] > _MEMORY_GREW * memory[0]:
        mib = [f"{size / 2**20:,.0f} MiB" for size in memory if size]
        yield f"its peak memory grew from {mib[0]} to {mib[1]}"


def _alike(changes: tuple[RowChange, ...]) -> Iterator[str]:
    """Where everything changed by the same factor, the machine is the likelier reason."""
    logs = [math.log(change.speedup.value) for change in changes]
    told = {change.speedup.verdict for change in changes}
    if len(logs) < 2 or not told <= {Verdict.FASTER, Verdict.SLOWER}:
        return
    common = median(logs)
    if abs(common) >= MARGIN and all(abs(log - common) < MARGIN for log in logs):
        direction = "faster" if common > 0 else "slower"
        yield (
            f"all rows became {direction} by the same {abs(math.expm1(common)):.1%}, so rather the "
            "machine changed (clocks, temperature, load) than any backend; measure both runs again"
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
        yield "the runs were made on two boards of the same model, which may differ by some percent"
    if old.reference != new.reference:
        yield f"the reference was {old.reference} and is {new.reference} now"
