"""Other load and throttling while rows were measured, and their effect on the times.

Pure functions of the blocks and of what was sampled between the rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from statistics import median

import attrs

from precisionbench._internal.identity_cache import cached_by_identity
from precisionbench.analysis.variation import count_rounds, least_interval_rounds
from precisionbench.display import Shown
from precisionbench.results.comparison_data import BackendResult, ComparisonData
from precisionbench.results.conditions import CpuUse, RoundConditions
from precisionbench.results.grouping import grouped
from precisionbench.results.measurement import Block
from precisionbench.statistics import Interval

# A call on several cores waits for the slowest of them, so a quarter of a core counts. On a machine
# of many cores the scheduler finds free ones, unless other processes keep more than a few busy.
_BUSY_CORES = 0.25
_BUSY_SHARE = 0.05
# CPU times step in ticks of 10 ms for each process; less than this can be rounding.
_LEAST_OTHERS_S = 0.05
# The medians of rounds hardly change where fewer of them are disturbed.
_LEAST_ROUNDS_SHARE = 0.1
# Modern devices reach their power cap under full load by design.
BY_DESIGN = frozenset({"sw_power_cap", "gpu_idle", "applications_clocks_setting"})

RowRound = tuple[str | None, int, int]  # row (None: of all rows), session, round


@attrs.frozen(repr=False)
class Disturbance(Shown):
    """Other load or throttling in some rounds.

    Attributes:
        kind: `cpu` (other processes used the cores), `gpu` (other processes used the GPU) or
            `clocks` (the GPU's clocks were throttled).
        rounds: number of these rounds.
        cpu: for `cpu`, CPU use in the round of median load.
        names: for `gpu` the other processes, for `clocks` the reasons.
    """

    kind: str
    rounds: int
    cpu: CpuUse | None = None
    names: tuple[str, ...] = ()


@attrs.frozen(repr=False)
class Disturbances(Shown):
    """All disturbances of a run, and their effect on the times.

    Attributes:
        rounds: number of all rounds.
        causes: the disturbances, one of each kind at most.
        slowdown: relative slowdown of blocks in disturbed rounds over other blocks of the same
            replica; None where there is nothing to compare.
        widest: the latency that has the widest interval of all rows.
        widest_without: the same without these rounds; None where too few are left.
    """

    rounds: int
    causes: tuple[Disturbance, ...]
    slowdown: float | None
    widest: Interval
    widest_without: Interval | None


def is_busy(cpu: CpuUse) -> bool:
    """Whether other processes use enough of the CPU to disturb the measurement.

    Args:
        cpu: the use of the cores on which rows are measured.
    """
    enough = cpu.others_cores >= max(_BUSY_CORES, _BUSY_SHARE * cpu.cores)
    return enough and cpu.others_s >= _LEAST_OTHERS_S


def shares_its_cores(data: ComparisonData, row: BackendResult) -> bool:
    """Whether a row's threads shared their cores with other processes in most of its rounds.

    The scheduler then interrupts calls at regular times.

    Args:
        data: the comparison.
        row: one of its rows.
    """
    threads = row.flags.get("num_threads")
    own = threads if isinstance(threads, int) else 1
    seen = [one.cpu for one in data.conditions if one.cpu and one.row in (None, row.backend)]
    crowded = [cpu for cpu in seen if cpu.others_cores + own > cpu.cores + _BUSY_CORES]
    return len(crowded) * 2 > len(seen)


@cached_by_identity
def disturbances(data: ComparisonData) -> Disturbances | None:
    """Other load and throttling while rows were measured; None where there was none.

    Args:
        data: the comparison.
    """
    if not data.conditions:
        return None
    rounds = {_round_of(data, row, block) for row, block in _blocks(data)}
    least = _LEAST_ROUNDS_SHARE * len(rounds)
    found = [(one, places) for one, places in _found(data, rounds) if one.rounds >= least]
    disturbed = {place for _, places in found for place in places}
    if not found:
        return None
    rest = without_blocks(data, lambda row, block: _round_of(data, row, block) in disturbed)
    return Disturbances(
        rounds=len(rounds),
        causes=tuple(one for one, _ in found),
        slowdown=_slowdown(data, disturbed),
        widest=_widest(data),
        widest_without=_widest(rest) if rest else None,
    )


def without_blocks(
    data: ComparisonData, is_dropped: Callable[[BackendResult, Block], bool]
) -> ComparisonData | None:
    """The same run without some blocks; None if a row has too few rounds left for an interval.

    Args:
        data: the comparison.
        is_dropped: whether to leave out a block of a row.
    """
    kept = [
        tuple(block for block in row.measurement.blocks if not is_dropped(row, block))
        for row in data.results
    ]
    if any(count_rounds(blocks) < least_interval_rounds(blocks) for blocks in kept):
        return None
    results = tuple(
        attrs.evolve(row, measurement=attrs.evolve(row.measurement, blocks=blocks))
        for row, blocks in zip(data.results, kept, strict=True)
    )
    return attrs.evolve(data, results=results)


def _blocks(data: ComparisonData) -> Iterator[tuple[BackendResult, Block]]:
    return ((row, block) for row in data.results for block in row.measurement.blocks)


def _round_of(data: ComparisonData, row: BackendResult, block: Block) -> RowRound:
    """The round of a block; rows measured one after another have rounds of their own."""
    return (row.backend if data.schedule == "sequential" else None, *block.round_key)


def _found(
    data: ComparisonData, rounds: Collection[RowRound]
) -> Iterator[tuple[Disturbance, set[RowRound]]]:
    """Each kind of disturbance that happened, with its rounds."""
    sampled = ((place, one) for one in data.conditions for place in _rounds_of(one))
    known = {place: one for place, one in sampled if place in rounds}
    busy = {place: one.cpu for place, one in known.items() if one.cpu and is_busy(one.cpu)}
    if busy:
        by_load = sorted(busy.values(), key=lambda cpu: cpu.others_cores)
        yield Disturbance("cpu", len(busy), cpu=by_load[len(busy) // 2]), {*busy}
    shared = {place: one.gpu_processes for place, one in known.items() if one.gpu_processes}
    if shared:
        yield Disturbance("gpu", len(shared), names=_names(shared.values())), {*shared}
    slow: dict[RowRound, tuple[str, ...]] = {}
    for row, block in _blocks(data):
        if block.state and set(block.state.throttled) - BY_DESIGN:
            place = _round_of(data, row, block)
            slow[place] = (*slow.get(place, ()), *block.state.throttled)
    if slow:
        yield Disturbance("clocks", len(slow), names=_names(slow.values())), {*slow}


def _rounds_of(conditions: RoundConditions) -> Iterator[RowRound]:
    for number in range(conditions.first_round, conditions.last_round + 1):
        yield conditions.row, conditions.session, number


def _names(groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in groups for name in names))


def _slowdown(data: ComparisonData, disturbed: Collection[RowRound]) -> float | None:
    """How much longer disturbed blocks took than others of the same replica; the median replica.

    Where rows are restarted in every round, no replica has both, so a row's replicas are taken
    together.
    """
    ratios = []
    for blocks in grouped(_blocks(data), lambda pair: _process_of(data, *pair)).values():
        levels: dict[bool, list[float]] = {True: [], False: []}
        for row, block in blocks:
            levels[_round_of(data, row, block) in disturbed].append(block.median_s)
        if all(levels.values()):
            ratios.append(median(levels[True]) / median(levels[False]))
    return median(ratios) - 1 if ratios else None


def _process_of(data: ComparisonData, row: BackendResult, block: Block) -> tuple[object, ...]:
    return (row.backend, *(() if data.schedule == "restarts" else block.replica_key))


def _widest(data: ComparisonData) -> Interval:
    return max((row.latency for row in data.results), key=lambda one: one.relative_half_width)
