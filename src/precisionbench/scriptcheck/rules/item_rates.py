"""The rule on items per second: the batch counts once."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.events import Model, ShownRate
from precisionbench.scriptcheck.frames import source_of
from precisionbench.scriptcheck.rate_labels import counts_items, shows_items
from precisionbench.scriptcheck.rules.base import Rule, RuleContext, RuleMatch
from precisionbench.scriptcheck.violations import Location

_TOLERANCE = 0.005  # a rate may be rounded


def wrong_item_rate(context: RuleContext) -> RuleMatch | None:
    """Detect rates called items per second in which the batch counts not at all, or twice.

    The batch size is a number that the script itself calls so, and that the inputs have.
    """
    found = [(rate, batch) for rate in _alone(context) for batch in _wrong_batch(context, rate)]
    if not found:
        return None
    locations = tuple(Location(rate.place, _says(context, rate, batch)) for rate, batch in found)
    rate, batch = found[0]
    return RuleMatch(
        (
            Number("items for each call in the figure", rate.per_call, "count"),
            Number("batch size", batch, "count"),
        ),
        locations,
    )


def _alone(context: RuleContext) -> Iterator[ShownRate]:
    """Rates that are the only one on their line, so that the words there are theirs."""
    rates = context.observations.shown_rates
    for rate in rates:
        others = (o for o in rates if o.place == rate.place and o.model == rate.model)
        is_alone = all(_is_near(other.per_call, rate.per_call) for other in others)
        if is_alone and shows_items(source_of(rate.place.file), rate.place.line):
            yield rate


def _wrong_batch(context: RuleContext, rate: ShownRate) -> Iterator[int]:
    """The batch size that a rate does not count, or counts twice."""
    sizes = set(rate.batches) & set(_first_dimensions(context.observations.models[rate.model]))
    if len(set(rate.batches)) != 1 or not sizes or (batch := sizes.pop()) < 2:
        return
    if _is_near(rate.per_call, batch**2) or (
        # as many calls for one batch as it has items, such as steps of a diffusion, would fit, too
        _is_near(rate.per_call, 1)
        and (rate.calls % batch or not counts_items(source_of(rate.formed.file), rate.formed.line))
    ):
        yield batch


def _first_dimensions(model: Model) -> Iterator[int]:
    for shapes in model.input_shapes:
        first = shapes.partition("x")[0]
        if first.isdigit():
            yield int(first)


def _is_near(value: float, target: float) -> bool:
    return abs(value - target) <= _TOLERANCE * target


def _says(context: RuleContext, rate: ShownRate, batch: int) -> str:
    name = context.observations.models[rate.model].class_name
    counted = "twice" if rate.per_call > batch else "not at all"
    return (
        f"{rate.calls:,} timed calls of {name} with a batch of {batch} are "
        f"{rate.calls * batch:,} items; the figure counts {round(rate.per_call * rate.calls):,}: "
        f"the batch counts {counted}"
    )


WRONG_ITEM_RATE = Rule(
    "wrong-item-rate",
    "",
    "a figure in items per second does not count the batch once",
    "multiply the number of timed calls by the batch size, once, and divide by the time",
    wrong_item_rate,
)
