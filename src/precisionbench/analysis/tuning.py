"""The front of a tuning result, and the choice among the finalists."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import attrs

from precisionbench._internal.interval_text import span
from precisionbench.analysis.reasons import short_reason
from precisionbench.analysis.speedups import speedup_over, speedups
from precisionbench.display import Shown
from precisionbench.errors import some
from precisionbench.results.comparison_data import BackendResult, ComparisonData, Speedup
from precisionbench.results.tuning import FAILED, INACCURATE, TuningData
from precisionbench.spec_syntax import split_spec
from precisionbench.statistics import Interval, Verdict, verdict_of
from precisionbench.statistics.verdicts import MARGIN

# The simplest first; all other engines come after these.
_ENGINES = ("eager", "half", "autocast", "compile")
_OUT = (INACCURATE, FAILED)
_CLEAR = (Verdict.FASTER, Verdict.SLOWER)
_DIFFERENT = (*_CLEAR, Verdict.DIFFERENT_BUT_SMALL)
_ZERO = Interval(0.0, 0.0, 0.0)
# Of configurations that may be equally fast, the simpler one may give up 1 % of the speed by its
# estimate, as elsewhere; more where noise can be the reason, which is within this share of the
# distance to an end of the 95 % interval in more than two of three cases; and never more than 5 %:
# wide intervals would hide a difference worth having.
_NOISE_SHARE, _MOST_GIVEN_UP = 0.5, 0.05


@attrs.frozen(repr=False)
class FrontPoint(Shown):
    """A configuration that was measured in the final rounds.

    Attributes:
        spec: its canonical spec.
        speedup: over the reference; None where the reference failed.
        latency: of a call, in seconds.
        throughput: items per second; None where the batch size is not known.
        loss: its error, or the drop of its metric; None where it is not known.
        memory_bytes: peak memory; None where it was not measured.
        energy_j: per item, or per call where the batch size is not known; None likewise.
        is_on_front: whether no other configuration is at least as good in speed, loss, memory and
            energy, and better in one of them.
    """

    spec: str
    speedup: Interval | None
    latency: Interval
    throughput: Interval | None
    loss: Interval | None
    memory_bytes: int | None
    energy_j: float | None
    is_on_front: bool = True


def front(data: TuningData) -> tuple[FrontPoint, ...]:
    """The configurations of the final rounds with their figures, the fastest first.

    Two speeds differ where the interval of their ratio excludes 1 and is not within 1 % of it;
    other figures where they do with the digits that are shown. A configuration is not better where
    its figure is missing, and not on the front where it was inaccurate or failed in the end.

    Args:
        data: the result.
    """
    final = data.final
    rows = sorted(final.results, key=_item_s)
    points = [_point(data, row) for row in rows]
    faster = {(a.spec, b.spec) for a in points for b in points if _is_faster(final, a, b)}
    out = {trial.spec for trial in data.trials if trial.outcome in _OUT} - {data.reference}
    able = [one for one in points if one.spec not in out]
    return tuple(
        attrs.evolve(
            one,
            is_on_front=one in able and not any(_dominates(other, one, faster) for other in able),
        )
        for one in points
    )


def _point(data: TuningData, row: BackendResult) -> FrontPoint:
    found = speedups(data.final).get(row.backend)
    energy_j = row.passes.energy_j if row.batch_size is None else row.energy_per_item_j
    return FrontPoint(
        spec=row.backend,
        speedup=None if found is None else found.interval,
        latency=row.latency,
        throughput=row.throughput,
        loss=loss_of(data, row.backend),
        memory_bytes=row.peak_memory_bytes,
        energy_j=energy_j,
    )


def loss_of(data: TuningData, spec: str) -> Interval | None:
    """The error of a configuration, or the drop of its metric; None where it is not known.

    Args:
        data: the result.
        spec: of a trial, or of the reference.
    """
    losses = (one.loss for one in data.trials if one.spec == spec and one.accuracy)
    if (known := next(losses, None)) is not None:
        return known
    is_base = data.bound.is_metric or data.bound.reference == spec
    return _ZERO if spec == data.reference and is_base else None


def _is_faster(data: ComparisonData, one: FrontPoint, other: FrontPoint) -> bool:
    if one.spec == other.spec:
        return False
    found = speedup_over(data, other.spec, one.spec)
    return found.value > 1 and is_different(found)


def _dominates(one: FrontPoint, other: FrontPoint, faster: Collection[tuple[str, str]]) -> bool:
    """Whether a point is at least as good as another one in everything, and better in something."""
    if (other.spec, one.spec) in faster:
        return False
    ours, theirs = _costs(one), _costs(other)
    if any(a > b for a, b in zip(ours, theirs, strict=True)):
        return False
    return ours != theirs or (one.spec, other.spec) in faster


def _costs(point: FrontPoint) -> tuple[float, ...]:
    """Loss, memory and energy with the digits that are shown; infinite where they are missing."""
    loss = None if point.loss is None else point.loss.value
    figures = ((loss, 2), (point.memory_bytes, 3), (point.energy_j, 3))
    return tuple(
        math.inf if value is None else float(f"{value:.{digits - 1}e}") for value, digits in figures
    )


def is_different(found: Speedup, verdicts: Collection[Verdict] = _DIFFERENT) -> bool:
    """Whether one of two configurations is faster by more than their noise.

    Where the verdict is inconclusive because of too few rounds or processes, the interval of what
    was measured decides.

    Args:
        found: the speed-up of one over the other.
        verdicts: those of different configurations.
    """
    return found.verdict in verdicts or verdict_of(found.interval)[0] in verdicts


def simplicity(spec: str) -> tuple[int, int, str]:
    """A key that sorts configurations, the simplest first: by engine, then by number of options.

    Args:
        spec: canonical, so that it has no default options.
    """
    name, options = split_spec(spec)
    engine = _ENGINES.index(name) if name in _ENGINES else len(_ENGINES)
    return engine, len(options), spec


def choose(data: ComparisonData, accurate: Collection[str]) -> tuple[str, str]:
    """The fastest accurate configuration, or the simplest of those that are equally fast.

    One of these is not chosen for being simpler where it is slower by its estimate: by more than
    1 % and more than half of the distance to an end of the interval, or by more than 5 %. The
    reference is left only for what is faster by its verdict, and by at least 1 %.

    Args:
        data: the final rounds.
        accurate: specs of the configurations that are accurate enough, among them the reference
            where it is.

    Returns:
        The spec, and why it was chosen, in one sentence. It is the reference where no accurate
        configuration is faster.
    """
    names = [row.backend for row in sorted(data.results, key=_item_s) if row.backend in accurate]
    others = [name for name in names if name != data.reference]
    if not others:
        return data.reference, _alone(data)
    has_reference = data.reference in names
    able = [name for name in others if not has_reference or _is_worthwhile(data, name)]
    if not able:
        return data.reference, _stays(data, others[0])
    fastest, *slower = able
    equal = (name for name in slower if not is_different(speedup_over(data, fastest, name)))
    tied = [fastest, *equal]
    if len(tied) > 1:
        best, why = _simplest(data, tied)
    else:
        best = fastest
        why = _winner(data, best, [*slower, data.reference] if has_reference else slower)
    return best, why + _passed_over(data, best, [name for name in others if name not in able])


def _is_worthwhile(data: ComparisonData, name: str) -> bool:
    """Whether a configuration is faster than the reference by as much as matters."""
    found = speedup_over(data, data.reference, name)
    return found.value > 1 and is_different(found, _CLEAR)


def _item_s(row: BackendResult) -> float:
    """Seconds for an item, or for a call where the batch size is not known."""
    return row.latency.value / (row.batch_size or 1)


def _alone(data: ComparisonData) -> str:
    others = [row for row in data.results if row.backend != data.reference]
    why = "is accurate enough" if others else "reached the final rounds"
    return f"{data.reference} is kept, because no other configuration {why}"


def _stays(data: ComparisonData, other: str) -> str:
    found = speedup_over(data, data.reference, other)
    return (
        f"{data.reference} is kept, because no accurate configuration is clearly faster; the "
        f"fastest other one, {other}, is {ratio_text(found.interval)} as fast"
        f"{per_item(data, other, data.reference)}{_doubt(found)}"
    )


def _simplest(data: ComparisonData, tied: Sequence[str]) -> tuple[str, str]:
    ranks: Mapping[str, tuple[int, int, int]] = {
        name: (*simplicity(name)[:2], place) for place, name in enumerate(tied)
    }
    close = [name for name in tied if _is_about_as_fast(data, tied, name)] or tied[:1]
    best, simplest = (min(names, key=ranks.__getitem__) for names in (close, tied))
    is_simplest = ranks[best][:2] == ranks[simplest][:2]
    others = [name for name in (tied if is_simplest else close) if name != best]
    if not others:
        return best, _faster_by_estimate(data, best, simplest, tied)
    found = speedup_over(data, best, others[0])
    listed = some(others) if len(others) > 1 else others[0]
    return best, (
        f"{best} and {listed} are equally fast{per_item(data, best, *others)} "
        f"within the intervals "
        f"({others[0]}: {_number(found.value)}x, {span(found.interval, _number)}); "
        f"{best} {_why_simpler(ranks[best], [ranks[name] for name in others])}"
        f"{'' if is_simplest else _too_slow(data, simplest, tied)}"
    )


def _is_about_as_fast(data: ComparisonData, tied: Sequence[str], name: str) -> bool:
    """Whether a configuration gives up little of the speed of any other one, by the estimate."""
    _, found = _slowest_over(data, tied, name)
    noise = _NOISE_SHARE * (found.high - found.low) / 2
    return 1 - found.value <= min(max(MARGIN, noise), _MOST_GIVEN_UP)


def _slowest_over(data: ComparisonData, tied: Sequence[str], name: str) -> tuple[str, Interval]:
    """The configuration that one is slowest over, by the estimate of their ratio, and the ratio."""
    ratios = [(other, speedup_over(data, other, name).interval) for other in tied if other != name]
    return min(ratios, key=lambda pair: pair[1].value)


def _faster_by_estimate(data: ComparisonData, best: str, simplest: str, tied: Sequence[str]) -> str:
    found = speedup_over(data, simplest, best)
    doubt = "" if is_different(found) else ", which is inconclusive"
    return (
        f"{best} is {ratio_text(found.interval)} as fast{per_item(data, best, simplest)} as "
        f"{simplest}{doubt}{_too_slow(data, simplest, tied)}"
    )


def _too_slow(data: ComparisonData, simplest: str, tied: Sequence[str]) -> str:
    """Why the simplest of several that may be equally fast is not chosen."""
    fastest, ratio = _slowest_over(data, tied, simplest)
    slower = f"{1 - ratio.value:.1%} slower than {fastest}"
    return f"; {simplest} is simpler, but by the estimate {slower}"


def _passed_over(data: ComparisonData, best: str, uncertain: Sequence[str]) -> str:
    """Why a configuration with a better estimate is not chosen; empty where there is none."""
    faster = [name for name in uncertain if speedup_over(data, best, name).value > 1]
    if not faster:
        return ""
    return (
        f"; {faster[0]} is faster by its estimate, but not certainly faster than {data.reference}"
    )


def _why_simpler(best: tuple[int, int, int], others: Sequence[tuple[int, int, int]]) -> str:
    if all(best[0] < other[0] for other in others):
        return "has the simpler engine"
    if all(best[1] < other[1] for other in others):
        return "has fewer options"
    if all(best[:2] < other[:2] for other in others):
        return "is simpler"
    return "is the fastest of the simplest"


def _winner(data: ComparisonData, best: str, others: Sequence[str]) -> str:
    if not others:
        return f"{best} is the only configuration that is accurate enough"
    found, runner_up = speedup_over(data, others[0], best), others[0]
    what = "the reference" if runner_up == data.reference else "the runner-up"
    as_fast = f"as fast{per_item(data, best, runner_up)} as {what} {runner_up}"
    return f"{best} is {ratio_text(found.interval)} {as_fast}{_doubt(found)}"


def per_item(data: ComparisonData, *names: str) -> str:
    """` per item` for configurations of different batch sizes; else empty.

    Args:
        data: the final rounds.
        names: specs of the configurations.
    """
    sizes = {row.batch_size for row in data.results if row.backend in names}
    return " per item" * (len(sizes) > 1)


def _doubt(found: Speedup) -> str:
    if found.verdict is not Verdict.INCONCLUSIVE:
        return ""
    return f"; inconclusive ({short_reason(found.reason)})"


def ratio_text(ratio: Interval) -> str:
    """A ratio of speeds with its interval, such as `1.12x (1.10 to 1.14)`.

    Args:
        ratio: positive.
    """
    number = _number
    if ratio.excludes_1 and "1.00" in (_number(ratio.low), _number(ratio.high)):
        number = _longer_number  # else it would look as if it included 1
    return f"{number(ratio.value)}x ({span(ratio, number)})"


def _longer_number(value: float) -> str:
    return f"{value:.4f}"


def _number(value: float) -> str:
    return f"{value:.2f}" if 0.1 <= value < 100 else f"{float(f'{value:.3g}'):,.10g}"
