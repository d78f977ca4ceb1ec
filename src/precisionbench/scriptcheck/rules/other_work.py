"""The rule on timings that are mostly conversions, copies and pauses, and a note on all others."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.rules.base import Rule, RuleContext, RuleMatch, shown_time
from precisionbench.scriptcheck.shares import OTHER, Shares, shares
from precisionbench.scriptcheck.timed_regions import TimedRegion, by_models, by_place
from precisionbench.scriptcheck.violations import Location

_PROBLEM_SHARE = 0.5
_NOTED_SHARE = 0.2  # of what has a name
_NOTED_IN_ALL = 0.4  # other code is also what a busy machine does in between
_SHOWN_SHARE = 0.02
_LEAST_CALL_S = 1e-4  # of other work for each call; less is as long as a loop and a clock take


def mostly_other_work(context: RuleContext) -> RuleMatch | None:
    """Detect timings of which conversions, copies and pauses are the larger part."""
    found = [(g, s) for g, s in _large(context) if s.named >= _PROBLEM_SHARE]
    if not found:
        return None
    locations = tuple(Location(group[0].end, _says(group, one)) for group, one in found)
    _, worst = max(found, key=lambda pair: pair[1].named)
    named = (part for part in worst.parts if part.place and part.share >= _SHOWN_SHARE)
    numbers = [part.number for part in named]
    if worst.model is not None:
        numbers.insert(0, Number("model calls", worst.model, "share"))
    return RuleMatch(tuple(numbers), locations)


def other_work_notes(context: RuleContext) -> Iterator[str]:
    """Notes on timings of which a good part is not the model, without being a problem.

    Args:
        context: what was observed and read.
    """
    for group, one in _large(context):
        if one.named < _PROBLEM_SHARE:
            yield f"{group[0].end}: {_says(group, one)}; the time of the model alone is shorter"


def _large(context: RuleContext) -> Iterator[tuple[list[TimedRegion], Shares]]:
    """Timings with much work outside of models: all between two lines, or the worst model's there.

    A helper may time a row that casts its weights in each call beside rows that do not.
    """
    for group in by_place(context.regions):
        found = list(_if_large(group))
        if not any(one.named >= _PROBLEM_SHARE for _, one in found):
            rows = [row for part in by_models(group) for row in _if_large(part)]
            worst = max(rows, key=lambda row: row[1].named, default=None)
            if worst is not None and worst[1].named >= _PROBLEM_SHARE:
                found = [worst]
        yield from found


def _if_large(group: list[TimedRegion]) -> Iterator[tuple[list[TimedRegion], Shares]]:
    """The timings with their shares, if there is much work outside of models."""
    found = shares(group)
    if found is None:
        return
    named = sum(part.share for part in found.parts if part.place)
    read_s = sum(region.script_s for region in group)
    count = sum(region.count for region in group)
    is_large = named >= _NOTED_SHARE or found.rest >= _NOTED_IN_ALL
    if is_large and found.rest * read_s >= count * _LEAST_CALL_S:
        yield group, found


def _says(group: list[TimedRegion], found: Shares) -> str:
    parts = ", ".join(str(part) for part in found.parts if part.share >= _SHOWN_SHARE)
    read = shown_time(sum(region.read_s for region in group))
    model = "" if found.model is None else f"model calls {found.model:.0%}, "
    return f"of {read} read, {model}{parts}".replace(OTHER, f"{OTHER} between calls")


MOSTLY_OTHER_WORK = Rule(
    "mostly-other-work",
    "C16",
    "most of the timing is not the model",
    "prepare inputs and cast models before the clock starts, and convert results after it has "
    "stopped; or report the time of the whole pipeline as such",
    mostly_other_work,
)
