"""Notes of a check: what it could not observe, and how much it slowed the script."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise

from precisionbench.scriptcheck.events import ChildProcesses, Model, Place
from precisionbench.scriptcheck.rules.base import RuleContext, shown_time
from precisionbench.scriptcheck.rules.other_work import other_work_notes
from precisionbench.scriptcheck.rules.precision import tf32_notes
from precisionbench.scriptcheck.timed_regions import TimedRegion, by_place

_REPORTED_OVERHEAD_SHARE = 0.01
_TAKING_TURNS = 1.2  # of a region, the most that calls of threads take together that take turns
_REPORTED_CHILDREN_S = 0.2  # CPU time: a process that only reads a version takes less


def notes(context: RuleContext) -> tuple[str, ...]:
    """All notes, the most important first.

    Args:
        context: what was observed and read.
    """
    sources = (
        *(_processes, _cores, _without_gpu, _incomplete),
        *(other_work_notes, tf32_notes, _shapes, _thread_counts, _order, _overhead),
    )
    return tuple(note for source in sources for note in source(context))


def _processes(context: RuleContext) -> Iterator[str]:
    """Child processes that did work."""
    observations = context.observations
    if observations.processes and observations.children_cpu_s >= _REPORTED_CHILDREN_S:
        parts = [f"{p.count} by {p.kind} at {p.place}" for p in observations.processes]
        count = sum(p.count for p in observations.processes)
        yield (
            f"child processes of the script ({', '.join(parts)}) used "
            f"{observations.children_cpu_s:.1f} s of CPU time; what {_it(count)} did was not "
            "observed: check the script with the work in one process"
        )


def _it(count: int) -> str:
    return "it" if count == 1 else "they"


def _cores(context: RuleContext) -> Iterator[str]:
    """More threads than CPU cores, in this process or in its children."""
    cores, working = context.observations.cores, context.observations.children_cpu_s
    for processes in context.observations.processes if working >= _REPORTED_CHILDREN_S else ():
        threads = _threads_each(processes, context.static.thread_counts)
        if threads and cores and processes.at_once * threads > cores:
            yield (
                f"{processes.at_once} child processes ({processes.kind}) ran at the same time with "
                f"{threads} CPU thread{'s' * (threads != 1)} each: "
                f"{_too_many(processes.at_once * threads, cores)}"
            )
    callers = max((_cpu_callers(region, context) for region in context.regions), default=0)
    threads = context.observations.torch_threads
    if callers and cores and callers * threads > cores:
        yield (
            f"{callers} thread{'s' * (callers != 1)} of the script called models in one timing, "
            f"and torch used {threads} CPU thread{'s' * (threads != 1)} for each: "
            f"{_too_many(callers * threads, cores)}"
        )


def _too_many(threads: int, cores: int) -> str:
    return (
        f"{threads} threads on {cores} CPU core{'s' * (cores != 1)} wait for one another; lower "
        "torch.set_num_threads or OMP_NUM_THREADS"
    )


def _threads_each(processes: ChildProcesses, set_counts: tuple[int | None, ...]) -> int | None:
    """CPU threads in each child; None if the script computes their number."""
    if processes.fixed_threads or processes.threads_each is None or not set_counts:
        return processes.threads_each
    known = [count for count in set_counts if count is not None]
    return max(known) if len(known) == len(set_counts) else None


def _cpu_callers(region: TimedRegion, context: RuleContext) -> int:
    """How many threads called models on the CPU in a region; one where they took turns.

    The calls of threads that take turns take no longer together than the region.
    """
    calls = [call for call in region.calls if context.model(call).device in ("", "cpu")]
    called_s, threads = sum(call.total_s for call in calls), len({call.thread for call in calls})
    return threads if called_s > _TAKING_TURNS * region.read_s else min(threads, 1)


def _without_gpu(context: RuleContext) -> Iterator[str]:
    if context.observations.models and not context.gpu_observed:
        yield (
            "no GPU was used while a clock was read; missing synchronization, TF32 and copies are "
            "checked only on a GPU"
        )


def _incomplete(context: RuleContext) -> Iterator[str]:
    observations = context.observations
    if observations.models and not context.regions:
        yield (
            "no timing of a model by the clocks of Python's module time or by CUDA events was "
            "observed; only rules that need no timing were checked"
        )
    yield from _empty_timings(context)
    if observations.dropped_readings:
        yield f"{observations.dropped_readings:,} more readings of clocks were not recorded"
    if observations.observer_error:
        yield f"some calls were not observed ({observations.observer_error}); please report it"


def _empty_timings(context: RuleContext) -> Iterator[str]:
    """Timings without work of torch, where no others are, or on lines that time models, too."""
    lines = {(region.start, region.end) for region in context.regions}
    for group in by_place(context.empty_regions):
        start, end = group[0].start, group[0].end
        if not lines or (start, end) in lines:
            read = shown_time(sum(region.read_s for region in group))
            yield (
                f"{end}: no call of a model or operation of torch was observed in {len(group)} "
                f"timing{'s' * (len(group) > 1)} from line {start.line} on ({read} read): cached "
                "results, other engines and other code are not checked"
            )


def _shapes(context: RuleContext) -> Iterator[str]:
    """Rows of one network in several precisions that were timed with inputs of other shapes."""
    for group in by_place(context.regions):
        models = list({c.model: context.model(c) for r in group for c in r.calls}.values())
        for first, second in pairwise(models):
            shapes = {*first.input_shapes}, {*second.input_shapes}
            differ = all(shapes) and shapes[0].isdisjoint(shapes[1])
            if differ and _is_in_other_precision(first, second):
                yield _different_shapes(group[0].end, first, second)


def _thread_counts(context: RuleContext) -> Iterator[str]:
    """Rows of one network in several precisions, each timed with a number of threads of its own."""
    counts: dict[int, set[int]] = {}
    for region in context.regions:
        for calls in region.calls:
            if context.model(calls).device in ("", "cpu"):
                counts.setdefault(calls.model, set()).add(region.torch_threads)
    for first, second in pairwise(counts):
        models = [context.observations.models[number] for number in (first, second)]
        differ = len(counts[first]) == len(counts[second]) == 1 and counts[first] != counts[second]
        if differ and _is_in_other_precision(*models):
            rows = [
                f"{'+'.join(model.parameters)} with {count}"
                for model, number in zip(models, (first, second), strict=True)
                for count in counts[number]
            ]
            yield (
                f"{models[0].class_name} was timed in {' and in '.join(rows)} CPU threads: their "
                "ratio is not that of the precisions"
            )


def _is_in_other_precision(first: Model, second: Model) -> bool:
    sizes = [sum(model.parameters.values()) for model in (first, second)]
    is_same = first.class_name == second.class_name and 0 < sizes[0] == sizes[1]
    return is_same and first.parameters != second.parameters


def _different_shapes(place: Place, *models: Model) -> str:
    rows = [f"{'+'.join(m.parameters)} with inputs {m.input_shapes[0]}" for m in models]
    return (
        f"{place}: {models[0].class_name} was timed in {' and in '.join(rows)}: compare items per "
        "second, not times"
    )


def _order(context: RuleContext) -> Iterator[str]:
    """Models that were each timed without interruption: drift affects their ratio."""
    timed = [frozenset(region.models) for region in context.regions if region.models]
    runs = [models for models, _ in groupby(timed)]
    if len(runs) > 1 and sum(map(len, runs)) == len(frozenset().union(*runs)):
        yield (
            f"{len(runs)} models were timed one after another, each once: drift (clocks, "
            "temperature, other processes) is part of their ratios"
        )


def _overhead(context: RuleContext) -> Iterator[str]:
    read_s = sum(region.read_s for region in context.regions)
    overhead_s = sum(span.overhead_s for region in context.regions for span in region.spans)
    if read_s and overhead_s / read_s > _REPORTED_OVERHEAD_SHARE:
        yield f"observation took {overhead_s / read_s:.1%} of the time that the script measured"
