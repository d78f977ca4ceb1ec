"""The result of a comparison in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from precisionbench.analysis.reasons import NO_VERDICTS, why
from precisionbench.diagnosis.findings import Accuracy
from precisionbench.report.rows import ratio_texts
from precisionbench.results import ComparisonData, Speedup
from precisionbench.statistics import Verdict

_INACCURATE = ("inaccurate", "non_finite", "unstable")


def headline(
    data: ComparisonData, speedups: Mapping[str, Speedup], accuracies: Sequence[Accuracy] = ()
) -> str:
    """The result in one sentence.

    Args:
        data: the comparison.
        speedups: over the reference, by row.
        accuracies: whether each row's output is accurate enough, if that was checked.
    """
    if not data.results:
        return "No backend could be measured."
    if not speedups:
        return f"The reference {data.reference} could not be measured, so there are no speed-ups."
    others = {name: found for name, found in speedups.items() if name != data.reference}
    if not others:
        return f"Only the reference {data.reference} was measured."
    best = max(others, key=lambda n: (others[n].verdict is Verdict.FASTER, others[n].value))
    accuracy = {one.row: one for one in accuracies}.get(best)
    return _speed(data, best, others[best]) + _accuracy(accuracy) + "."


def _speed(data: ComparisonData, name: str, found: Speedup) -> str:
    value, low, high = ratio_texts(found)
    against = f"{value} times as fast as {data.reference}"
    if found.verdict is Verdict.FASTER:
        return f"{name} is the fastest: {against} ({low} to {high})"
    if found.verdict is Verdict.INCONCLUSIVE:
        return f"{name} reads {against} ({low} to {high}), {_doubt(data, name, found)}"
    if found.verdict is Verdict.SLOWER:
        return f"Nothing is as fast as {data.reference}: the next, {name}, is {against}"
    return f"Nothing is faster than {data.reference} to speak of: {name} is {against}"


def _doubt(data: ComparisonData, name: str, found: Speedup) -> str:
    if found.reason not in NO_VERDICTS:
        return "which is not told apart from 1"
    return f"which is no verdict; {why(data, name, found)}"


def _accuracy(accuracy: Accuracy | None) -> str:
    if accuracy is None or accuracy.verdict not in ("fine", *_INACCURATE):
        return ""
    if accuracy.verdict == "fine":
        return ", and its output is close enough to float64's"
    return f", but its output is not to be used as it is: {accuracy.reason}"
