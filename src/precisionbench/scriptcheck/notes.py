"""What a reader must know of a check: what it could not see, and what it changed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from precisionbench.scriptcheck.rule import RuleContext

_OWN_SHARE_TOLD = 0.01


def notes(scene: RuleContext) -> tuple[str, ...]:
    """All notes, in the order of their weight.

    Args:
        scene: what was observed and read.
    """
    return tuple(note for look in (_unseen, _untimed, _order, _own_time) for note in look(scene))


def _unseen(scene: RuleContext) -> Iterator[str]:
    if scene.seen.models and not scene.saw_a_gpu:
        yield (
            "no GPU was used while a clock was read: a missing synchronize, TF32 and copies cannot "
            "be seen without one"
        )


def _untimed(scene: RuleContext) -> Iterator[str]:
    if scene.seen.models and not scene.regions:
        yield (
            "no timing of a model by Python's clocks or CUDA events was seen; only what needs none "
            "was checked"
        )
    if scene.seen.left_out:
        yield f"{scene.seen.left_out:,} readings of clocks were too many to be noted down"
    if scene.seen.fault:
        yield f"some calls could not be looked at ({scene.seen.fault}); please report it"


def _order(scene: RuleContext) -> Iterator[str]:
    """Models that were each timed in one go: what drifts is in their ratio."""
    numbers = [calls.model for _, calls, _ in scene.timed]
    runs = [number for number, _ in groupby(numbers)]
    if len(runs) > 1 and len(runs) == len(set(runs)):
        yield (
            f"{len(runs)} models were timed one after another, each once: what drifts meanwhile "
            "(clocks, heat, other processes) is in their ratios"
        )


def _own_time(scene: RuleContext) -> Iterator[str]:
    read_s = sum(region.read_s for region in scene.regions)
    own_s = sum(segment.own_s for region in scene.regions for segment in region.segments)
    if read_s and own_s / read_s > _OWN_SHARE_TOLD:
        yield f"watching took {own_s / read_s:.1%} of the time that the script read"
