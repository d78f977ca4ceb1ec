"""Notes of a check: what it could not observe, and how much it slowed the script."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from precisionbench.scriptcheck.rules.base import RuleContext
from precisionbench.scriptcheck.rules.other_work import other_work_notes
from precisionbench.scriptcheck.rules.precision import tf32_notes

_REPORTED_OVERHEAD_SHARE = 0.01


def notes(context: RuleContext) -> tuple[str, ...]:
    """All notes, the most important first.

    Args:
        context: what was observed and read.
    """
    sources = (_without_gpu, _incomplete, other_work_notes, tf32_notes, _order, _overhead)
    return tuple(note for source in sources for note in source(context))


def _without_gpu(context: RuleContext) -> Iterator[str]:
    if context.observations.models and not context.gpu_observed:
        yield (
            "no GPU was used while a clock was read: a missing synchronize, TF32 and copies cannot "
            "be seen without one"
        )


def _incomplete(context: RuleContext) -> Iterator[str]:
    observations = context.observations
    if observations.models and not context.regions:
        yield (
            "no timing of a model by Python's clocks or CUDA events was seen; only what needs none "
            "was checked"
        )
    if observations.dropped_readings:
        yield f"{observations.dropped_readings:,} readings of clocks were too many to be noted down"
    if observations.observer_error:
        yield f"some calls could not be looked at ({observations.observer_error}); please report it"


def _order(context: RuleContext) -> Iterator[str]:
    """Models that were each timed without interruption: drift affects their ratio."""
    numbers = [calls.model for _, calls, _ in context.timed_calls]
    runs = [number for number, _ in groupby(numbers)]
    if len(runs) > 1 and len(runs) == len(set(runs)):
        yield (
            f"{len(runs)} models were timed one after another, each once: what drifts meanwhile "
            "(clocks, heat, other processes) is in their ratios"
        )


def _overhead(context: RuleContext) -> Iterator[str]:
    read_s = sum(region.read_s for region in context.regions)
    overhead_s = sum(span.overhead_s for region in context.regions for span in region.spans)
    if read_s and overhead_s / read_s > _REPORTED_OVERHEAD_SHARE:
        yield f"watching took {overhead_s / read_s:.1%} of the time that the script read"
