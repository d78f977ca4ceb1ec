"""The rule on the clock: a clock of CPU time does not measure how long something takes."""

from __future__ import annotations

from precisionbench.diagnosis.findings import Number
from precisionbench.scriptcheck.rules.base import Rule, RuleContext, RuleMatch
from precisionbench.scriptcheck.timed_regions import TimedRegion, by_place, is_cpu_time
from precisionbench.scriptcheck.violations import Location


def wrong_clock(context: RuleContext) -> RuleMatch | None:
    """Detect timings by a clock of CPU time only.

    Where the same calls were timed by another clock as well, CPU time may be what is wanted.
    """
    wrong = [region for region in context.regions if is_cpu_time(region.clock)]
    elapsed = {id(s) for r in context.regions if not is_cpu_time(r.clock) for s in r.spans}
    wrong = [region for region in wrong if not any(id(span) in elapsed for span in region.spans)]
    if not wrong:
        return None
    numbers = [Number("timings by this clock", len(wrong), "count")]
    return RuleMatch(tuple(numbers), tuple(_location(group) for group in by_place(wrong)))


def _location(group: list[TimedRegion]) -> Location:
    clock = group[0].clock
    threads = "this thread" if "thread" in clock else "all threads of the process"
    return Location(
        group[0].end,
        f"{clock} counts the CPU time of {threads}, without the time they wait for the device",
    )


WRONG_CLOCK = Rule(
    "wrong-clock",
    "",
    "CPU time was read instead of elapsed time",
    "use time.perf_counter()",
    wrong_clock,
)
