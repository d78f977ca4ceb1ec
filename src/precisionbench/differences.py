"""What has changed from one run to a later one: per row a ratio, its interval and a verdict.

Two runs are two sessions. Drift between them does not cancel as it does within one, so beside the
spread between processes the interval holds what sessions are known to differ by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from statistics import mean, median

import attrs

from precisionbench.comparability import Mismatch
from precisionbench.results import BackendResult, ComparisonData, Speedup
from precisionbench.speedups import process_levels
from precisionbench.statistics import (
    Interval,
    Spread,
    Verdict,
    pooled_spread,
    unpaired_ratio_interval,
    verdicts,
)
from precisionbench.statistics.ratios import level_interval, widened
from precisionbench.statistics.verdicts import MARGIN

# What the mean level of a session differs by beside its processes, as a log
# (docs/between-processes.md).
SESSION_SPREAD = 0.001
_ERROR_GREW = 3.0
_MEMORY_GREW = 1.05


@attrs.frozen
class RowChange:
    """How one row has changed.

    Attributes:
        backend: the row.
        old: its latency in the older run, in seconds.
        new: its latency in the newer one.
        speedup: old / new; above 1 is faster now.
        notes: what else has changed.
    """

    backend: str
    old: Interval
    new: Interval
    speedup: Speedup
    notes: tuple[str, ...] = ()


@attrs.frozen
class Difference:
    """What has changed from one run to a later one.

    Attributes:
        old_created: when the older run was made.
        new_created: when the newer one was.
        rows: those measured in both, in the newer run's order.
        mismatches: what else differs; then nothing here is like with like.
        notes: what is not about one row.
    """

    old_created: str
    new_created: str
    rows: tuple[RowChange, ...]
    mismatches: tuple[Mismatch, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def slower(self) -> tuple[RowChange, ...]:
        """Rows that are slower now, by their verdicts."""
        return tuple(row for row in self.rows if row.speedup.verdict is Verdict.SLOWER)


def difference(
    old: ComparisonData, new: ComparisonData, found: tuple[Mismatch, ...] = ()
) -> Difference:
    """Hold a run against an older one.

    Args:
        old: the run to compare with.
        new: the run to judge.
        found: what else differs, where they are compared all the same.
    """
    before = {row.backend: row for row in old.results}
    now = {row.backend: row for row in new.results if row.backend in before}
    spread = _spread([*before.values(), *now.values()])
    floor = max(old.noise_floor, new.noise_floor)
    ratios = {name: partial(_ratio, before[name], now[name], spread, floor) for name in now}
    known = spread.degrees > 0 or floor > 0
    changes = tuple(
        _change(before[name], now[name], known, *judged)
        for name, judged in verdicts(ratios).items()
    )
    notes = (*_alike(changes), *_missing(old, new))
    return Difference(old.created, new.created, changes, found, notes)


def _spread(rows: list[BackendResult]) -> Spread:
    return pooled_spread([_units(row) for row in rows])


def _units(row: BackendResult) -> list[float]:
    """The log levels that vary independently: of sessions where there are several, else of
    processes."""
    levels = process_levels(row.measurement.blocks)
    sessions: dict[int, list[float]] = {}
    for (session, _), level in levels.items():
        sessions.setdefault(session, []).append(level)
    if len(sessions) > 1:
        return [mean(values) for values in sessions.values()]
    return list(levels.values())


def _sessions(row: BackendResult) -> int:
    return len({block.session for block in row.measurement.blocks})


def _ratio(
    old: BackendResult, new: BackendResult, spread: Spread, floor: float, confidence: float
) -> Interval:
    """Old / new; each side's sessions stand for themselves where both have several."""
    if not spread.degrees:  # a single process each, everywhere
        ratio = unpaired_ratio_interval(old.latency, new.latency)
        logs = Interval(*(math.log(x) for x in (ratio.value, ratio.low, ratio.high)))
        logs = widened(logs, math.hypot(floor, SESSION_SPREAD), confidence)
    else:
        logs = level_interval(_units(old), _units(new), confidence, spread, floor)
        if min(_sessions(old), _sessions(new)) < 2:
            logs = widened(logs, SESSION_SPREAD, confidence)
    return Interval(*(math.exp(x) for x in (logs.value, logs.low, logs.high)))


def _change(
    old: BackendResult,
    new: BackendResult,
    known: bool,
    ratio: Interval,
    verdict: Verdict,
    reason: str,
) -> RowChange:
    if not known:  # what processes differ by
        verdict, reason = Verdict.INCONCLUSIVE, "one_process"
    speedup = Speedup(ratio.value, ratio.low, ratio.high, verdict, reason)
    return RowChange(
        new.backend, old.latency, new.latency, speedup, tuple(_other_changes(old, new))
    )


def _other_changes(old: BackendResult, new: BackendResult) -> Iterator[str]:
    errors = [row.agreement.relative_l2 if row.agreement else None for row in (old, new)]
    if errors[0] and errors[1] and errors[1] > _ERROR_GREW * errors[0]:
        yield f"its error against the reference grew from {errors[0]:.1e} to {errors[1]:.1e}"
    broken = [row.agreement.nonfinite_count if row.agreement else 0 for row in (old, new)]
    if broken[1] > broken[0]:
        yield f"its output has {broken[1]:,} non-finite elements, {broken[0]:,} before"
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
