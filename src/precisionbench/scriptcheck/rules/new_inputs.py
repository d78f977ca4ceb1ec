"""The rules on calls that are all new: each with another input shape, or compiled again."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.events import Model, Place
from precisionbench.scriptcheck.rules.base import Rule, RuleContext, RuleMatch
from precisionbench.scriptcheck.timed_regions import by_place
from precisionbench.scriptcheck.violations import Location

_LEAST_CALLS = 5
_MOST_SHARE = 0.8  # of the timed calls; from here on, few calls repeat a shape
_LEAST_COMPILED = 3
_COMPILE_SHARE = 0.5  # of the time of the calls


@attrs.frozen
class NewInputs:
    """The calls of one model in the timings between two lines.

    Attributes:
        start: the line of the first reading.
        end: the line of the second.
        number: the model's number.
        model: the model.
        count: number of calls.
        new_count: number of those with a new input shape.
        total_s: host time of all calls.
        compile_count: number of calls in which a graph was compiled.
        compile_s: host time of those.
    """

    start: Place
    end: Place
    number: int
    model: Model
    count: int
    new_count: int
    total_s: float
    compile_count: int
    compile_s: float

    @property
    def is_compiled_again(self) -> bool:
        """Whether compiling is most of the time, and happens again and again."""
        most = self.compile_s >= _COMPILE_SHARE * self.total_s
        return self.compile_count >= _LEAST_COMPILED and most

    @property
    def is_new_each_time(self) -> bool:
        """Whether few calls repeat a shape, and new shapes may cost something."""
        new = self.new_count >= max(_LEAST_CALLS, _MOST_SHARE * self.count)
        return new and bool(self.model.shape_dependent or self.is_compiled_again)


def inputs_by_place(context: RuleContext) -> Iterator[NewInputs]:
    """The timed calls of each model between each pair of lines.

    Args:
        context: what was observed and read.
    """
    for group in by_place(context.regions):
        calls = [calls for region in group for calls in region.calls]
        for number in dict.fromkeys(one.model for one in calls):
            own = [one for one in calls if one.model == number]
            yield NewInputs(
                group[0].start,
                group[0].end,
                number,
                context.observations.models[number],
                sum(one.count for one in own),
                sum(one.new_shape_count for one in own),
                sum(one.total_s for one in own),
                sum(one.compile_count for one in own),
                sum(one.compile_s for one in own),
            )


def new_shapes(context: RuleContext) -> RuleMatch | None:
    """Detect timings in which almost every call has an input shape of its own."""
    new = [inputs for inputs in inputs_by_place(context) if inputs.is_new_each_time]
    if not new:
        return None
    compiled = sum(one.compile_count for one in new if one.is_compiled_again)
    numbers = [
        Number("timed calls", sum(one.count for one in new), "count"),
        Number("with a new input shape", sum(one.new_count for one in new), "count"),
    ]
    if compiled:
        numbers.append(Number("in which torch.compile compiled", compiled, "count"))
    reason = "no call repeats a shape, so the cost of a new one is unknown"
    locations = tuple(Location(one.end, _says(one)) for one in new)
    return RuleMatch(tuple(numbers), locations, "" if compiled else reason)


def _says(inputs: NewInputs) -> str:
    name = inputs.model.class_name
    what = f"{inputs.new_count} of {inputs.count} timed calls of {name} had a new input shape"
    if inputs.is_compiled_again:
        return f"{what}, and {inputs.compile_count} calls compiled a graph"
    return f"{what}; each may include {' and '.join(inputs.model.shape_dependent)}"


def recompilation(context: RuleContext) -> RuleMatch | None:
    """Detect timings in which `torch.compile` compiles again and again for other reasons."""
    again = [
        inputs
        for inputs in inputs_by_place(context)
        if inputs.is_compiled_again and not inputs.is_new_each_time
    ]
    if not again:
        return None
    locations = tuple(
        Location(
            one.end,
            f"{one.compile_count} of {one.count} timed calls of {one.model.class_name} compiled a "
            "graph",
        )
        for one in again
    )
    compile_s, total_s = (sum(getattr(one, n) for one in again) for n in ("compile_s", "total_s"))
    numbers = (
        Number("calls that compiled", sum(one.compile_count for one in again), "count"),
        Number("of the time of the calls", compile_s / total_s, "share"),
    )
    return RuleMatch(numbers, locations)


NEW_SHAPES = Rule(
    "new-shapes",
    "C6",
    "every timed call had a new input shape: each may include kernel choice, tuning or compilation",
    "pad the inputs to a few sizes (buckets), and call each size before the clock starts",
    new_shapes,
)
RECOMPILATION = Rule(
    "recompilation",
    "C6",
    "torch.compile compiled the model again in the timed calls",
    "find what changes between calls with TORCH_LOGS=recompiles, and keep it constant or mark it "
    "dynamic",
    recompilation,
)
