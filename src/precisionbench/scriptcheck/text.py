"""A check as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from precisionbench.diagnosis.findings import Status
from precisionbench.report.diagnosis import figure
from precisionbench.report.formatting import time_text
from precisionbench.report.plain import WIDTH
from precisionbench.scriptcheck.violations import CheckData, TimedModel, Violation

_SIGHTS_SHOWN = 4
_INNER = "   "
_ENDINGS = {
    "finished": "ran to its end",
    "exited": "ended itself",
    "raised": "failed",
    "timeout": "was ended by the time limit",
    "interrupted": "was interrupted",
    "killed": "was killed from outside, and what had been seen is lost",
}


def to_text(check: CheckData, width: int = WIDTH) -> str:
    """What is broken first, then what was timed, then what could not be seen.

    Args:
        check: what came of it.
        width: columns to fill at most.
    """
    wrapped = (_wrapped(line, indent, width) for indent, line in _lines(check))
    return "\n".join(line for lines in wrapped for line in lines)


def _lines(check: CheckData) -> Iterator[tuple[str, str]]:
    """Each with its indent, not yet wrapped."""
    yield "", _headline(check)
    yield "", ""
    for position, breach in enumerate(check.breaches, 1):
        yield from _breach(position, breach)
        yield "", ""
    if check.timed:
        yield "", "What it timed"
        yield from (("  ", _timed(timed)) for timed in check.timed)
        yield "", ""
    yield from (("", f"Note: {note}.") for note in check.notes)


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


def _breach(position: int, breach: Violation) -> Iterator[tuple[str, str]]:
    sure = "broken" if breach.status is Status.CONFIRMED else f"suspected ({breach.reason})"
    number = f"{breach.number} " if breach.number else ""
    yield "", f"{position}. {number}{breach.gate}, {sure}: {breach.title}"
    yield from ((_INNER, f"{one.place}  {one.says}") for one in breach.sights[:_SIGHTS_SHOWN])
    if len(breach.sights) > _SIGHTS_SHOWN:
        yield _INNER, f"and at {len(breach.sights) - _SIGHTS_SHOWN} more places"
    figures = ", ".join(f"{number.name} {figure(number)}" for number in breach.evidence)
    yield _INNER, f"Evidence: {figures}."
    yield _INNER, f"Remedy: {breach.remedy}. See {breach.link}"


def _timed(timed: TimedModel) -> str:
    device = "" if timed.device_s is None else f", the device took {time_text(timed.device_s, 3)}"
    said = f"{timed.calls} calls in {timed.timings} timing{'s' if timed.timings != 1 else ''}"
    dtypes = f"{'+'.join(timed.parameters) or 'no parameters'} -> {'+'.join(timed.outputs) or '?'}"
    read = time_text(timed.read_s, 3) if timed.read_s > 0 else "0 s"
    return f"{timed.place}  {timed.model} ({dtypes}): {said}, read {read}{device}"


def _wrapped(text: str, indent: str, width: int) -> list[str]:
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines or [""]
