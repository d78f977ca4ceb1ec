"""Speed-ups of a comparison's rows, by the statistics that its schedule allows.

`rounds`: all replicas run at once, and each round measures one block of each in a random order.
Drift cancels within a round, and replicas show the run-to-run variance.
`restarts`: the device cannot hold all rows at once, so each round restarts every row. Run-to-run
variance is part of the rounds, and drift cancels only if rounds are short.
`sequential`: one row after another; drift does not cancel, so the verdict is inconclusive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from precisionbench._internal.identity_cache import cached_by_identity
from precisionbench.analysis.needed import rounds_needed
from precisionbench.analysis.variation import (
    MIN_INTERVAL_ROUNDS,
    BlocksByRow,
    log_ratios_by_round,
    replicas,
    run_spread,
    session_levels,
    session_tables,
    shared_rounds,
)
from precisionbench.results.comparison_data import BackendResult, ComparisonData, Speedup
from precisionbench.results.measurement import Block
from precisionbench.statistics import (
    Interval,
    Spread,
    Verdict,
    unpaired_ratio_interval,
    verdicts,
)
from precisionbench.statistics.interaction import changing_ratios, interact
from precisionbench.statistics.ratios import (
    in_quadrature,
    including_rounds,
    sessions_interval,
    signed_rank_interval,
)

_CONFIDENCE = 0.95
_WIDE = 0.1  # half-width of a speed-up that is hardly useful
RatioAt = Callable[[float], Interval]  # by the confidence
# An interval whose ends are further apart than this factor shows only run-to-run variance.
TOO_WIDE = 100.0


@cached_by_identity
def speedups(data: ComparisonData) -> Mapping[str, Speedup]:
    """How many times as fast as its reference each row is; without rows whose reference failed.

    Rows whose calls serve different numbers of items are compared by items per second. The result
    is computed once per comparison.

    Args:
        data: the comparison.
    """
    measured = [row.backend for row in data.results]
    known = {name: data.reference_of(name) for name in measured}
    reference = Speedup(1.0, 1.0, 1.0, Verdict.INCONCLUSIVE, "reference")
    references = {name: reference for name, base in known.items() if base == name}
    pairs = {
        name: _Pair.of(data, base, name)
        for name, base in known.items()
        if base != name and base in known
    }
    paired = {name: pair for name, pair in pairs.items() if pair.is_paired}
    unpaired = {name: pair for name, pair in pairs.items() if name not in paired}
    return {**references, **_unpaired_speedups(unpaired), **_paired_speedups(paired)}


def _unpaired_speedups(pairs: Mapping[str, _Pair]) -> dict[str, Speedup]:
    return {
        name: Speedup.of(
            pair.unpaired_ratio(),
            Verdict.INCONCLUSIVE,
            "not_interleaved" if pair.data.schedule == "sequential" else "no_shared_rounds",
        )
        for name, pair in pairs.items()
    }


def _paired_speedups(pairs: Mapping[str, _Pair]) -> dict[str, Speedup]:
    found = verdicts({name: pair.paired_ratio_at() for name, pair in pairs.items()})
    return {
        name: Speedup.of(interval, *_supported(pairs[name], interval, verdict, reason))
        for name, (interval, verdict, reason) in found.items()
    }


def _supported(
    pair: _Pair, interval: Interval, verdict: Verdict, reason: str
) -> tuple[Verdict, str]:
    """The verdict, or the reason why such data do not support one.

    Several processes of each row give an interval that is valid after any number of rounds. With
    one process each, the interval needs some rounds, and includes run-to-run variance only where
    that is known.
    """
    has_few_rounds = pair.rounds < MIN_INTERVAL_ROUNDS
    if has_few_rounds and not pair.has_replicas:
        return Verdict.INCONCLUSIVE, "too_few_rounds"
    if not pair.covers_processes:
        return Verdict.INCONCLUSIVE, "one_process"
    if verdict is not Verdict.INCONCLUSIVE:
        return verdict, reason
    if pair.ratio_changes:
        return verdict, "ratio_changes"
    if has_few_rounds:
        more_would_do = rounds_needed(pair.own_blocks, interval)
        if more_would_do and pair.was_cut_short:
            return verdict, "too_few_rounds"
        if not more_would_do and interval.relative_half_width > _WIDE:
            return verdict, "processes_differ"
    if interval.high > TOO_WIDE * interval.low:
        return verdict, "processes_differ"
    return verdict, reason


def is_valid(data: ComparisonData, name: str) -> bool:
    """Whether the 95 % CI of a row's speed-up includes run-to-run variance.

    Args:
        data: the comparison.
        name: of the row.
    """
    pair = _Pair.of(data, data.reference_of(name), name)
    if not pair.is_paired or not pair.covers_processes:
        return False
    return pair.has_replicas or pair.rounds >= MIN_INTERVAL_ROUNDS


def per_item_ratio(
    data: ComparisonData, base: str, other: str, confidence: float = _CONFIDENCE
) -> Interval:
    """The ratio of two rows' items per second, other / base, with its interval.

    Args:
        data: the comparison.
        base: name of the row to divide by.
        other: name of the other row; the ratio of a row to itself is exactly 1.
        confidence: of the interval; rows without common rounds have one of 95 % only.
    """
    if base == other:
        return Interval(1.0, 1.0, 1.0)
    pair = _Pair.of(data, base, other)
    return pair.paired_ratio_at()(confidence) if pair.is_paired else pair.unpaired_ratio()


def speedup_over(data: ComparisonData, base: str, other: str) -> Speedup:
    """How many times as fast as another row of the same comparison a row is, with its verdict.

    Over the reference it is the speed-up of `speedups`, whose intervals are simultaneous.

    Args:
        data: the comparison.
        base: name of the row to divide by.
        other: name of the other row.
    """
    if base == data.reference_of(other):
        return speedups(data)[other]
    pair = _Pair.of(data, base, other)
    found = _paired_speedups if pair.is_paired else _unpaired_speedups
    return found({other: pair})[other]


@cached_by_identity
def _spread_of(data: ComparisonData) -> Spread:
    """The spread between processes, over all rows: each pair of rows needs it."""
    return run_spread({row.backend: row.measurement.blocks for row in data.results})


@cached_by_identity
def _rows_of(data: ComparisonData) -> Mapping[str, BackendResult]:
    return {row.backend: row for row in data.results}


@attrs.frozen
class _Pair:
    """Two rows of a comparison.

    Attributes:
        base: the row to divide by.
        other: the other row.
        data: the comparison.
    """

    base: BackendResult
    other: BackendResult
    data: ComparisonData

    @classmethod
    def of(cls, data: ComparisonData, base: str, other: str) -> _Pair:
        rows = _rows_of(data)
        return cls(rows[base], rows[other], data)

    @property
    def own_blocks(self) -> tuple[Sequence[Block], Sequence[Block]]:
        """The blocks of the two rows."""
        return self.base.measurement.blocks, self.other.measurement.blocks

    @property
    def rounds(self) -> int:
        """Number of rounds in which both rows were measured."""
        return shared_rounds(*self.own_blocks)

    @property
    def was_cut_short(self) -> bool:
        """Whether the rounds of either row ended before the stop rule ended them."""
        rows = self.base.measurement, self.other.measurement
        return any(one.ended_by in ("budget", "interrupted", "failed") for one in rows)

    @property
    def has_replicas(self) -> bool:
        """Whether each of the two rows has several processes in the rounds that they share."""
        if self.data.schedule == "restarts":
            return False
        return min(len(replicas(blocks)) for blocks in self.own_blocks) > 1

    @property
    def covers_processes(self) -> bool:
        """Whether the variance between processes was measured, or is known of the device."""
        if self.data.schedule == "restarts" or self.data.noise_floor > 0:
            return True
        return self.has_replicas or _spread_of(self.data).degrees > 0

    @property
    def ratio_changes(self) -> bool:
        """Whether something delayed all processes of one of the two rows in some rounds."""
        return self.has_replicas and interact(session_tables(self.own_blocks))

    @property
    def is_paired(self) -> bool:
        """Whether there is a round in which all replicas of both rows were measured."""
        if self.data.schedule == "restarts":
            return self.rounds > 0
        return self.data.schedule != "sequential" and bool(session_tables(self.own_blocks))

    def unpaired_ratio(self) -> Interval:
        """The ratio by the intervals of the two rows' latencies."""
        return self._per_item(unpaired_ratio_interval(self.base.latency, self.other.latency))

    def paired_ratio_at(self) -> RatioAt:
        """The ratio by the rounds that the two rows share, as a function of the confidence."""
        if self.data.schedule == "restarts":
            logs = log_ratios_by_round(*self.own_blocks)
            return lambda level: self._per_item(signed_rank_interval(logs, level).exp())
        ratio_at = _ratio_at(self.own_blocks, _spread_of(self.data), self.data.noise_floor)
        return lambda level: self._per_item(ratio_at(level))

    def _per_item(self, ratio: Interval) -> Interval:
        """A ratio of calls as a ratio of items."""
        ours, theirs = self.base.batch_size, self.other.batch_size
        return ratio.scaled(theirs / ours) if ours and theirs else ratio


def ratio_of(
    rows: BlocksByRow, reference: str, name: str, confidence: float, noise_floor: float = 0.0
) -> Interval:
    """The latency ratio reference / row of rows measured in the same rounds.

    Args:
        rows: the blocks of every row of the run.
        reference: name of the row to divide.
        name: name of the row to divide by.
        confidence: probability that the interval holds the ratio.
        noise_floor: standard deviation of the log between processes, known for this device.
    """
    return _ratio_at((rows[reference], rows[name]), run_spread(rows), noise_floor)(confidence)


def ratios_over(
    rows: BlocksByRow, reference_of: Callable[[str], str], noise_floor: float = 0.0
) -> dict[str, RatioAt]:
    """For each row with a reference, the latency ratio reference / row by the confidence.

    Args:
        rows: the blocks of every row of the run.
        reference_of: the row that a row is compared with, by its name; a reference gives itself.
        noise_floor: standard deviation of the log between processes, known for this device.
    """
    spread = run_spread(rows)
    return {
        name: _ratio_at((rows[base], blocks), spread, noise_floor)
        for name, blocks in rows.items()
        if (base := reference_of(name)) != name and base in rows
    }


def _ratio_at(
    pair: tuple[Sequence[Block], Sequence[Block]], spread: Spread, noise_floor: float
) -> RatioAt:
    """The latency ratio of two rows as a function of the confidence; levels are computed once."""
    tables = session_tables(pair)
    sessions, changing = session_levels(tables), changing_ratios(tables)

    def ratio_at(confidence: float) -> Interval:
        between = sessions_interval(sessions, confidence, spread, noise_floor)
        if len(sessions) > 1 or min(map(len, sessions[0])) > 1:
            return including_rounds(between, changing, confidence).exp()
        # The level of a single process does not show its own noise, but its rounds do.
        within = signed_rank_interval(log_ratios_by_round(*pair), confidence)
        return in_quadrature(within, between.high - between.value).exp()

    return ratio_at
