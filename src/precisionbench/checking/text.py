"""A check as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from precisionbench.checking.breaches import Breach, CheckData, TimedModel
from precisionbench.diagnosis.findings import Status
from precisionbench.report.diagnosis import figure
from precisionbench.report.formatting import time_text
from precisionbench.report.plain import WIDTH

_SIGHTS_SHOWN = 4
_ENDINGS = {
    "finished": "ran to its end",
    "exited": "ended itself",
    "raised": "failed",
    "timeout": "was ended by the time limit",
    "interrupted": "was interrupted",
    "killed": "was killed from outside, and what had been seen is lost",
}


def to_text(check: CheckData) -> str:
    """What is broken first, then what was timed, then what could not be seen.

    Args:
        check: what came of it.
    """
    return "\n".join(_lines(check))


def _lines(check: CheckData) -> Iterator[str]:
    yield from _wrapped(_headline(check), "")
    yield ""
    for position, breach in enumerate(check.breaches, 1):
        yield from _breach(position, breach)
        yield ""
    if check.timed:
        yield "What it timed"
        for timed in check.timed:
            yield from _wrapped(_timed(timed), "  ")
        yield ""
    for note in check.notes:
        yield from _wrapped(f"Note: {note}.", "")


def _headline(check: CheckData) -> str:
    ending = check.ending
    code = f" with exit status {ending.code}" if ending.code else ""
    where = f" at {ending.place}" if ending.place else ""
    says = f" ({ending.says})" if ending.says else ""
    return f"{check.script} {_ENDINGS[ending.kind]}{code}{where}{says}: {_count(check)}."


def _count(check: CheckData) -> str:
    if not check.breaches:
        return "nothing is broken" if check.models else "no model was called, so nothing was seen"
    broken, suspected = len(check.broken), len(check.breaches) - len(check.broken)
    counts = ((broken, "broken"), (suspected, "suspected of being broken"))
    told = [f"{n} validity gate{'s' * (n > 1)} {what}" for n, what in counts if n]
    return ", ".join(told)


def _breach(position: int, breach: Breach) -> Iterator[str]:
    sure = "broken" if breach.status is Status.CONFIRMED else f"suspected ({breach.reason})"
    number = f"{breach.number} " if breach.number else ""
    yield from _wrapped(f"{position}. {number}{breach.gate}, {sure}: {breach.title}", "")
    for sight in breach.sights[:_SIGHTS_SHOWN]:
        yield from _wrapped(f"{sight.place}  {sight.says}", "   ")
    if len(breach.sights) > _SIGHTS_SHOWN:
        yield f"   and at {len(breach.sights) - _SIGHTS_SHOWN} more places"
    figures = ", ".join(f"{number.name} {figure(number)}" for number in breach.evidence)
    yield from _wrapped(f"Evidence: {figures}.", "   ")
    yield from _wrapped(f"Remedy: {breach.remedy}. See {breach.link}", "   ")


def _timed(timed: TimedModel) -> str:
    device = "" if timed.device_s is None else f", the device took {time_text(timed.device_s, 3)}"
    said = f"{timed.calls} calls in {timed.timings} timing{'s' if timed.timings != 1 else ''}"
    dtypes = f"{'+'.join(timed.parameters) or 'no parameters'} -> {'+'.join(timed.outputs) or '?'}"
    read = time_text(timed.read_s, 3) if timed.read_s > 0 else "0 s"
    return f"{timed.place}  {timed.model} ({dtypes}): {said}, read {read}{device}"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
