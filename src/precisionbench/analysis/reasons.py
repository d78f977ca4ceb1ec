"""The reasons of verdicts as text, with the remedy for inconclusive ones."""

from __future__ import annotations

import math

from precisionbench.analysis.needed import budget_needed_s, replicas_needed
from precisionbench.results.comparison_data import ComparisonData, Speedup

_TEXTS = {
    "excludes_1": "the CI excludes 1",
    "includes_1": "the CI includes 1",
    "within_margin": "the CI is within the margin",
    "small_effect": "the difference is within the margin",
    "not_interleaved": "rows were not interleaved",
    "no_shared_rounds": "the two rows share no rounds",
    "too_few_rounds": "too few rounds",
    "one_process": "run-to-run variance was not measured",
    "processes_differ": "run-to-run variance is too large",
    "ratio_changes": "the speed-up changed during the run",
}
# For a cell of a table; other reasons are short already.
_SHORT = {
    "includes_1": "CI includes 1",
    "not_interleaved": "not interleaved",
    "no_shared_rounds": "no shared rounds",
    "one_process": "one process",
    "processes_differ": "run-to-run variance",
    "ratio_changes": "it changed during the run",
}
# With these reasons an interval is the range of the rounds, not a confidence interval.
FEW_ROUNDS = ("no_shared_rounds", "too_few_rounds")
ONE_PROCESS_REMEDY = "use 2 or more replicas, or the noise floor from precisionbench examine"
# Reasons for which the verdict is inconclusive, whatever the interval.
NO_VERDICTS = (
    "not_interleaved",
    "no_shared_rounds",
    "too_few_rounds",
    "one_process",
    "processes_differ",
)


def reason_text(reason: str) -> str:
    """A reason as text.

    Args:
        reason: the code in `Speedup.reason`.
    """
    return _TEXTS.get(reason, reason.replace("_", " "))


def short_reason(reason: str) -> str:
    """A reason in a few words, for a table.

    Args:
        reason: the code in `Speedup.reason`.
    """
    return _SHORT.get(reason) or reason_text(reason)


def why(data: ComparisonData, name: str, found: Speedup) -> str:
    """The reason of a row's verdict, with the remedy if it is inconclusive.

    Args:
        data: the comparison.
        name: of the row.
        found: its speed-up.

    Returns:
        Such as `too few rounds: use a time budget of about 150 s`.
    """
    text, remedy = reason_text(found.reason), _remedy(data, name, found)
    return f"{text}: {remedy}" if remedy else text


def _remedy(data: ComparisonData, name: str, found: Speedup) -> str:
    if found.reason == "not_interleaved":
        return "use the launcher 'process'"
    if found.reason in FEW_ROUNDS and (failed := _failed(data, name)):
        return f"{failed} failed during the run; see its warning"
    if found.reason == "no_shared_rounds":
        return "use a larger time budget"
    if found.reason == "one_process":
        return ONE_PROCESS_REMEDY
    if found.reason == "ratio_changes":
        return "use an idle machine, as all processes of a row were delayed in the same rounds"
    if found.reason in ("too_few_rounds", "includes_1"):
        needed_s = budget_needed_s(data, name, found.interval)
        if needed_s:
            return f"use a time budget of about {_rounded(needed_s)} s"
    if found.reason == "too_few_rounds":
        return "use a larger time budget"
    if found.reason in ("processes_differ", "includes_1"):
        count = replicas_needed(data, name, found.interval)
        return f"use {count} replicas" if count else "use an idle machine"
    return ""


def _failed(data: ComparisonData, name: str) -> str:
    """The row, or else the reference, where its rounds ended with an error; empty where neither."""
    ended = {row.backend: row.measurement.ended_by for row in data.results}
    rows = name, data.reference_of(name)
    return next((row for row in rows if ended.get(row) == "failed"), "")


def _rounded(seconds: float) -> str:
    """Seconds, rounded up to two digits."""
    step = 10.0 ** max(-1, math.floor(math.log10(seconds)) - 1)
    return f"{math.ceil(seconds / step) * step:,.10g}"
