"""Observations on the quality of a run's samples. They are flags: no sample is removed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from statistics import median

import attrs

from precisionbench._internal.identity_cache import cached_by_identity
from precisionbench._internal.interval_text import span
from precisionbench.analysis.disturbances import without_blocks
from precisionbench.analysis.speedups import speedups
from precisionbench.analysis.variation import (
    BlocksByRow,
    beyond_replica,
    round_medians,
    round_shifts,
)
from precisionbench.display import Shown
from precisionbench.results.comparison_data import (
    GROWS,
    BackendResult,
    ComparisonData,
    Speedup,
)
from precisionbench.results.grouping import by_replica, samples_of
from precisionbench.results.measurement import Block
from precisionbench.statistics import bimodality, carryover, outliers, steadiness
from precisionbench.statistics.series import Outliers, Steadiness

# Outliers are reported if they are at least this share of the samples, or move the mean this found.
_OUTLIER_SHARE = 0.01
_OUTLIER_PULL = 0.02
# Probability of any false carry-over flag in a run.
_CARRYOVER_ALPHA = 0.01
_Position = tuple[int, int, int]  # session, round, position

_STEADINESS_TEXT = {
    Steadiness.WARMUP: "became faster during the run ({}): warm-up was probably too short",
    Steadiness.SLOWDOWN: "became slower during the run ({}): probably heat or other load",
    Steadiness.NO_STEADY_STATE: "throughput fluctuated during the run ({})",
}
_LABEL_TEXT = {
    "sync_inside": "the model synchronises with the GPU, so the latency is host time around "
    "synchronised calls",
    "stream_escape": "the work runs on another CUDA stream, so the latency is host time around "
    "synchronised calls",
}


@attrs.frozen(repr=False)
class Observation(Shown):
    """A property of a row's measurement that qualifies its figures.

    Attributes:
        code: `warmup`, `slowdown`, `no_steady_state`, `carryover`, `outliers`, `bimodal`,
            `throttled`, `host_bound`, `host_risk`, `sync_inside` or `stream_escape`.
        value: its size as a share or a ratio; None where it has none.
        text: the observation as a sentence.
    """

    code: str
    value: float | None
    text: str


@cached_by_identity
def observations(data: ComparisonData) -> Mapping[str, tuple[Observation, ...]]:
    """The observations on each row.

    Args:
        data: the comparison.

    Returns:
        Observations by row; empty where there are none.
    """
    rows = {row.backend: row.measurement.blocks for row in data.results}
    after = _carried_over(rows) if data.schedule == "rounds" else set[str]()
    unaffected = cache(lambda: _unthrottled_speedups(data))  # only computed after throttling
    return {
        row.backend: (
            *_labels(row),
            *_launching(row),
            *_throttled(row, data.is_reference(row.backend), unaffected),
            *(_steadiness(row) or _bimodality(row)),
            *([_CARRYOVER] if row.backend in after else []),
            *_outliers(row),
        )
        for row in data.results
    }


_CARRYOVER = Observation(
    "carryover",
    None,
    "times depend on which row ran just before, so its figures include some carry-over",
)


def _labels(row: BackendResult) -> Iterator[Observation]:
    for label in row.passes.labels:
        if label in _LABEL_TEXT:
            yield Observation(label, None, _LABEL_TEXT[label])


def _launching(row: BackendResult) -> Iterator[Observation]:
    """Whether the row is launch-bound, or nearly."""
    bound, device_s = row.launch_bound, row.device_s or row.graph_s
    if bound is None or device_s is None or row.enqueue_s is None:
        return
    share = row.enqueue_s / device_s
    graph = f", CUDA graph {row.graph_s * 1e3:.3g} ms" if row.graph_s else ""
    times = f"launch {row.enqueue_s * 1e3:.3g} ms, GPU {device_s * 1e3:.3g} ms{graph}"
    text = {
        "host_bound": f"launch-bound ({times}): a lower precision gives almost nothing; use a "
        "larger batch or a CUDA graph",
        "host_risk": f"nearly launch-bound ({times}): launch-bound on a slower host",
    }
    yield Observation(bound, share, text[bound])


# --- throttling ---------------------------------------------------------------------------------


def _throttled(
    row: BackendResult, is_reference: bool, unaffected: Callable[[], Mapping[str, Speedup]]
) -> Iterator[Observation]:
    blocks = row.measurement.blocks
    throttled = [block.state.throttled for block in blocks if block.state and block.state.throttled]
    if not throttled:
        return
    share = len(throttled) / len(blocks)
    reasons = ", ".join(sorted({reason for reasons in throttled for reason in reasons}))
    text = f"GPU clocks were throttled in {share:.0%} of its blocks ({reasons})"
    without = "" if is_reference else _without(unaffected().get(row.backend))
    yield Observation("throttled", share, text + without)


def _unthrottled_speedups(data: ComparisonData) -> Mapping[str, Speedup]:
    """Speed-ups from the rounds without throttling; empty if too few are left."""
    rest = unthrottled(data)
    return speedups(rest) if rest else {}


def _without(found: Speedup | None) -> str:
    """The speed-up without throttled rounds, as the end of the sentence."""
    if found is None:
        return "; too few rounds without throttling for a speed-up"
    interval = f"{found.value:.3g}x ({span(found.interval)})"
    return f"; speed-up without these rounds {interval}"


def unthrottled(data: ComparisonData) -> ComparisonData | None:
    """The same run without the rounds with throttling; None if too few rounds are left.

    Args:
        data: the comparison.
    """
    throttled = {
        block.round_key
        for row in data.results
        for block in row.measurement.blocks
        if block.state and block.state.throttled
    }
    return without_blocks(data, lambda _, block: block.round_key in throttled)


# --- over time ----------------------------------------------------------------------------------


def _steadiness(row: BackendResult) -> list[Observation]:
    values = [value for _, value in sorted(round_medians(row.measurement.blocks).items())]
    kind = steadiness(values)
    if kind is Steadiness.FLAT:
        return []
    size = max(values) / min(values) - 1
    if kind is not Steadiness.NO_STEADY_STATE:
        part = max(1, len(values) // 4)
        size = abs(median(values[-part:]) / median(values[:part]) - 1)
    text = _STEADINESS_TEXT[kind].format(gap_text(size))
    grows = any(GROWS in warning for warning in row.warnings)
    if kind is Steadiness.SLOWDOWN and grows:
        text = f"became slower during the run ({gap_text(size)}), because its state grows"
    return [Observation(kind.value, size, text)]


def _carried_over(rows: BlocksByRow) -> set[str]:
    """Rows whose blocks depend on the row that ran before them."""
    if len(rows) < 2:
        return set()
    values = _beyond_round_and_replica(rows)
    order = sorted((b.session, b.round, b.position, name) for name in rows for b in rows[name])
    before = {place[:3]: previous[3] for previous, place in itertools.pairwise(order)}
    found = set()
    for name in rows:
        own = [place for place in before if place in values[name]]
        series = [values[name][place] for place in own]
        if carryover(series, [before[p] for p in own], _CARRYOVER_ALPHA / len(rows)):
            found.add(name)
    return found


def _beyond_round_and_replica(rows: BlocksByRow) -> Mapping[str, Mapping[_Position, float]]:
    """Each block's log median by its place, with the round and replica effects subtracted."""
    shifts = round_shifts(list(rows.values()))
    return {
        name: {_position(b): value - shifts[b.round_key] for b, value in beyond_replica(blocks)}
        for name, blocks in rows.items()
    }


def _position(block: Block) -> _Position:
    return (block.session, block.round, block.position)


# --- samples ------------------------------------------------------------------------------------


def _outliers(row: BackendResult) -> Iterator[Observation]:
    found = outliers(samples_of(row.measurement.blocks))
    pull = abs(found.mean / found.median - 1)
    if found.count and (found.count / found.total >= _OUTLIER_SHARE or pull >= _OUTLIER_PULL):
        yield Observation(
            "outliers",
            found.count / found.total,
            _outliers_text(found),
        )


def _outliers_text(found: Outliers) -> str:
    are = "is an outlier" if found.count == 1 else "are outliers"
    pull = found.mean / found.median
    moved = f"; mean {pull:.3g}x the median" if abs(pull - 1) >= _OUTLIER_PULL else ""
    return f"{found.count} of {found.total} samples {are}{moved}"


def gap_text(gap: float) -> str:
    """A relative difference as text: in percent, or as a factor if it is large.

    Args:
        gap: difference of two values as a share of the smaller one.
    """
    return f"{gap:.1%}" if gap < 1 else f"{1 + gap:.3g}x"


def _bimodality(row: BackendResult) -> list[Observation]:
    """Whether the samples of a steady row are bimodal; changes of speed also make two modes.

    Where no single process is bimodal, the modes are processes, which the interval covers.
    """
    blocks = row.measurement.blocks
    modes = bimodality(samples_of(blocks))
    if modes is None or not any(bimodality(samples_of(own)) for own in by_replica(blocks).values()):
        return []
    text = (
        f"bimodal: modes {1 + modes.gap:.3g}x apart, {modes.slow_share:.0%} of the samples in the "
        "slower one; the median can be in either"
    )
    return [Observation("bimodal", modes.gap, text)]
