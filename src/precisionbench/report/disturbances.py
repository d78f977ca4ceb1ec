"""What else the machine did while rows were measured, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.analysis.disturbances import Disturbance, Disturbances, disturbances
from precisionbench.errors import some
from precisionbench.report.formatting import half_width
from precisionbench.results import ComparisonData, CpuUse

# Smaller differences between blocks are reported as none.
_LEAST_SLOWDOWN = 0.01
# The interval without the disturbed rounds is shown where it is narrower by more than this.
_NARROWER = 0.9
_REMEDIES = {
    "cpu": "end other programs, or measure when they are idle",
    "gpu": "end other programs, or measure when they are idle",
    "clocks": "cool the device, or lock its clocks lower",
}


def disturbance_text(data: ComparisonData) -> str:
    """What else the machine did, how that changed the times, and a remedy; may be empty.

    Args:
        data: the comparison.
    """
    found = disturbances(data)
    if found is None:
        return ""
    remedies = dict.fromkeys(_REMEDIES[one.kind] for one in found.causes)
    return "; ".join([causes_text(data), *_effect(found), *remedies])


def causes_text(data: ComparisonData) -> str:
    """What else the machine did; may be empty.

    Args:
        data: the comparison.
    """
    found = disturbances(data)
    return " and ".join(_cause(one, found.rounds) for one in found.causes) if found else ""


def cores_text(cpu: CpuUse) -> str:
    """How many CPU cores other processes used, of how many.

    Args:
        cpu: the use of the cores.
    """
    return f"{cpu.others_cores:.1f} of {cpu.cores} CPU core{'s' * (cpu.cores != 1)}"


def _cause(one: Disturbance, rounds: int) -> str:
    when = f"in {_count(one.rounds, rounds)}"
    if one.cpu is not None:
        return f"other processes used {cores_text(one.cpu)} {when}"
    if one.kind == "gpu":
        return f"other processes used this GPU ({some(list(one.names))}) {when}"
    return f"the GPU was throttled ({', '.join(one.names)}) {when}"


def _count(some_rounds: int, rounds: int) -> str:
    if some_rounds >= rounds:
        return f"all {rounds} rounds" if rounds > 1 else "the only round"
    return f"{some_rounds} of {rounds} rounds"


def _effect(found: Disturbances) -> Iterator[str]:
    """The effect on blocks and intervals."""
    if found.slowdown is None:
        yield "there is no undisturbed round to compare with, so every figure includes it"
        return
    if abs(found.slowdown) < _LEAST_SLOWDOWN:
        yield "blocks in those rounds took as long as in the others, within 1 %"
        return
    longer = "longer" if found.slowdown > 0 else "less time"
    text = f"blocks in those rounds took {abs(found.slowdown):.0%} {longer} than in the others"
    yield text.replace("%", " %") + _widths(found)


def _widths(found: Disturbances) -> str:
    widest, without = found.widest, found.widest_without
    if without is None:
        return ", and the intervals include that"
    if without.relative_half_width >= _NARROWER * widest.relative_half_width:
        return ", but without them the intervals would be no narrower"
    return (
        f", and without them the widest interval of a latency would be {half_width(without)} "
        f"instead of {half_width(widest)}"
    )
