"""The rule on calls that raise in a timing."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.events import Calls
from precisionbench.scriptcheck.rules.base import Rule, RuleContext, RuleMatch
from precisionbench.scriptcheck.timed_regions import TimedRegion, by_place
from precisionbench.scriptcheck.violations import Location

_LEAST = 3  # a search for the largest batch ends with one
_SHARE = 0.5  # of the timed calls


def failed_calls(context: RuleContext) -> RuleMatch | None:
    """Detect timings of calls that raised, again and again with the same error."""
    found = [(group, *one) for group in by_place(context.regions) for one in _failures(group)]
    if not found:
        return None
    locations = tuple(
        Location(
            group[0].end,
            f"{count} of {total} timed calls of {context.model(calls).class_name} raised "
            f"{calls.error}",
        )
        for group, calls, count, total in found
    )
    count = sum(count for _, _, count, _ in found)
    return RuleMatch((Number("timed calls that raised", count, "count"),), locations)


def _failures(group: list[TimedRegion]) -> Iterator[tuple[Calls, int, int]]:
    """For each model and error: its calls, their number, and that of all calls of the model."""
    failures = [calls for region in group for calls in region.failures]
    done = [calls for region in group for calls in region.calls]
    for first in {(calls.model, calls.error): calls for calls in failures}.values():
        count = sum(c.count for c in failures if (c.model, c.error) == (first.model, first.error))
        total = sum(c.count for c in (*failures, *done) if c.model == first.model)
        if count >= max(_LEAST, _SHARE * total):
            yield first, count, total


FAILED_CALLS = Rule(
    "failed-calls",
    "",
    "timed calls raised an exception, and the script caught it",
    "let the exception end the script while it is timed, and correct its cause",
    failed_calls,
)
