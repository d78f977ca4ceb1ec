"""Some calls take longer than others, e.g. every tenth call rebuilds a cache."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.analysis.disturbances import shares_its_cores
from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Number
from precisionbench.errors import some
from precisionbench.results import Measurement
from precisionbench.results.comparison_data import GROWS
from precisionbench.results.evidence import Operation
from precisionbench.results.grouping import by_replica
from precisionbench.statistics.periodic import Periodic, periodic

_LEAST_SHARE = 0.03
_MOST_SETTLING_CALLS = 8


def detect(context: CauseContext) -> CauseMatch | None:
    """By slow calls at regular distances, and by operations that only some calls run.

    Where other processes share the cores, the scheduler makes calls slow at regular distances.
    """
    facts = context.facts
    if any(GROWS in warning for warning in facts.row.warnings):
        return None  # each call differs from the one before
    is_shared = not facts.on_gpu and shares_its_cores(context.data, facts.row)
    found = None if is_shared else _slow_calls(facts)
    numbers = list(_numbers(found)) if found else []
    share = _profiled_share(facts)
    if share > _LEAST_SHARE:
        numbers.append(Number("profiled time in operations of only some calls", share, "share"))
    if not numbers:
        return None
    longest = sorted(facts.evidence.some_calls, key=lambda one: -one.time_s)
    reason = f"only some calls run {some([_name(one) for one in longest])}" if longest else ""
    return CauseMatch(tuple(numbers), reason=reason)


def _slow_calls(facts: Facts) -> Periodic | None:
    """From the samples, where each is one call; else from the calls beside the profile."""
    measured = [found for s in _all_series(facts.row.measurement) if (found := periodic(s))]
    most = max(measured, key=lambda found: found.regularity, default=None)
    found = most or facts.evidence.slow_calls
    return found if found and found.share > _LEAST_SHARE else None


def _all_series(measurement: Measurement) -> Iterator[list[list[float | None]]]:
    """The samples of each block, and of each replica with its untimed calls between blocks.

    How many settling calls a block begins with is not recorded; it is the same number in each.
    """
    if measurement.is_reported or measurement.calls_per_sample > 1:
        return
    yield [list(block.samples) for block in measurement.blocks]
    replicas = by_replica(measurement.blocks)
    for settling in range(1, _MOST_SETTLING_CALLS + 1):
        yield [
            [time for block in blocks for time in (*[None] * settling, *block.samples)]
            for blocks in replicas.values()
        ]


def _numbers(found: Periodic) -> Iterator[Number]:
    yield Number("calls from one slow call to the next", found.period, "count")
    yield Number("time of a slow call over that of others", found.ratio, "ratio")
    yield Number("share of the time that slow calls add", found.share, "share")


def _profiled_share(facts: Facts) -> float:
    spent_s = sum(operation.time_s for operation in facts.evidence.some_calls)
    return spent_s / (facts.busy_s + spent_s) if spent_s else 0.0


def _name(operation: Operation) -> str:
    where = f" in {operation.layer}" if operation.layer else ""
    return f"{operation.name or 'kernels'}{where}"


CAUSE = Cause(
    "uneven-calls",
    "some calls cost more than others",
    "report the mean over many calls beside the median, or move the work that only some calls do "
    "out of forward (build caches once, before the calls)",
    detect,
    costs_time=False,
)
