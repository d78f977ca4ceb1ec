"""Notes on a row's intervals: why they are wide, and why figures disagree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from precisionbench._internal.identity_cache import cached_by_identity
from precisionbench.analysis.data_quality import Observation, gap_text, observations
from precisionbench.analysis.reasons import NO_VERDICTS, ONE_PROCESS_REMEDY, why
from precisionbench.analysis.speedups import speedups
from precisionbench.analysis.variation import replicas
from precisionbench.results.comparison_data import BackendResult, ComparisonData, Speedup
from precisionbench.results.grouping import by_round
from precisionbench.results.latency import processes, replica_levels
from precisionbench.statistics.ratios import mean_level_interval, spread_of_levels
from precisionbench.statistics.verdicts import MARGIN

# From this half-width on, a note gives the reason for the wide interval of the latency.
_WIDE = 0.1
_CONFIDENCE = 0.95
_DRIFTS = ("warmup", "slowdown", "no_steady_state")


@cached_by_identity
def interval_notes(data: ComparisonData) -> Mapping[str, tuple[Observation, ...]]:
    """The notes on each row's intervals.

    Args:
        data: the comparison.

    Returns:
        Observations by row; empty where there are none. Their codes are `one_process`,
        `wide_interval`, `differs_from_latencies`, and the reasons of inconclusive verdicts.
    """
    found = speedups(data)
    return {
        row.backend: (
            *_one_process(data, row),
            *_wide(row),
            *_no_verdict(data, row, found.get(row.backend)),
            *_disagreement(data, row, found.get(row.backend)),
        )
        for row in data.results
    }


def _one_process(data: ComparisonData, row: BackendResult) -> Iterator[Observation]:
    """Whether a row has one process only, so that it shows no run-to-run variance."""
    if data.schedule != "rounds" or row.measurement.is_reported or _process_count(row) > 1:
        return
    yield Observation(
        "one_process",
        None,
        "run-to-run variance was not measured (one process): " + _covered(data, row),
    )


def _covered(data: ComparisonData, row: BackendResult) -> str:
    """What the interval of a row with one process covers."""
    if data.noise_floor:
        return f"the CI uses the noise floor of {data.noise_floor:.2%}"
    if row.process_spread and row.process_spread.degrees:
        return "the CI uses that of the other rows"
    return f"the CI covers this run only, and speed-ups are inconclusive; {ONE_PROCESS_REMEDY}"


def _wide(row: BackendResult) -> Iterator[Observation]:
    width = row.latency.relative_half_width
    if width <= _WIDE or row.measurement.is_reported:
        return
    yield Observation("wide_interval", width, f"wide CI: {_why_wide(row)}")


def _why_wide(row: BackendResult) -> str:
    """The larger part of the half-width as text."""
    levels = [*replica_levels(processes(row.measurement.blocks, row.schedule)).values()]
    between = mean_level_interval(levels, _CONFIDENCE, row.process_spread, row.noise_floor)
    if between.exp().relative_half_width < row.latency.relative_half_width / math.sqrt(2):
        return "its latency varies within each process"
    if len(levels) > 1 and spread_of_levels(levels, row.process_spread) is not row.process_spread:
        difference = math.expm1(max(levels) - min(levels))
        return f"its {len(levels)} processes differ by {gap_text(difference)} (run-to-run variance)"
    sd = row.process_spread.sd if row.process_spread else row.noise_floor
    return f"run-to-run variance of {gap_text(math.expm1(sd))} (standard deviation over all rows)"


def _no_verdict(
    data: ComparisonData, row: BackendResult, found: Speedup | None
) -> Iterator[Observation]:
    """Why a row's verdict is inconclusive, and what would decide it."""
    if found is None or found.reason not in NO_VERDICTS or data.schedule == "sequential":
        return
    if found.reason == "one_process" and _process_count(row) == 1:  # `_one_process` reports it
        return
    text = why(data, row.backend, found)
    yield Observation(found.reason, None, f"speed-up inconclusive: {text}")


def _process_count(row: BackendResult) -> int:
    return len(replicas(processes(row.measurement.blocks, row.schedule)))


# --- the speed-up and the ratio of the latencies shown --------------------------------------------


def _disagreement(
    data: ComparisonData, row: BackendResult, found: Speedup | None
) -> Iterator[Observation]:
    """Whether the ratio of the two latencies shown is outside the speed-up's interval.

    Both come from the same samples, so run-to-run variance does not explain it.
    """
    if found is None or data.is_reference(row.backend):
        return
    reference = data.reference_of(row.backend)
    base = next(one for one in data.results if one.backend == reference)
    ratio = _shown_ratio(base, row)
    is_small = abs(math.log(ratio / found.value)) < math.log1p(MARGIN)
    if is_small or found.low <= ratio <= found.high:
        return
    yield Observation(
        "differs_from_latencies",
        ratio / found.value,
        f"the latencies shown give {ratio:.3g}x, the speed-up is {found.value:.3g}x: "
        f"{_why_they_differ(data, base, row)}; use the speed-up, which compares rows in each round",
    )


def _shown_ratio(base: BackendResult, row: BackendResult) -> float:
    ratio = base.latency.value / row.latency.value
    batches = base.batch_size, row.batch_size
    return ratio * batches[1] / batches[0] if batches[0] and batches[1] else ratio


def _why_they_differ(data: ComparisonData, base: BackendResult, row: BackendResult) -> str:
    codes = {one.backend: _codes(data, one.backend) for one in (base, row)}
    bimodal = [name for name, found in codes.items() if "bimodal" in found]
    if bimodal:
        names = " and ".join(bimodal)
        return f"the samples of {names} are bimodal"
    rounds = [by_round(one.measurement.blocks).keys() for one in (base, row)]
    if rounds[0] != rounds[1]:
        return "the rows were not measured in the same rounds"
    drifting = [name for name, found in codes.items() if found & {*_DRIFTS}]
    if drifting:
        return f"the throughput of {' and '.join(drifting)} changed during the run"
    return "a latency is the median of all rounds, and rounds vary"


def _codes(data: ComparisonData, name: str) -> set[str]:
    return {found.code for found in observations(data)[name]}
