"""The report of a check as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from precisionbench import safe_text
from precisionbench.diagnosis.findings import FindingStatus
from precisionbench.report.findings import figure
from precisionbench.report.formatting import time_text
from precisionbench.report.plain import WIDTH
from precisionbench.scriptcheck.violations import CheckData, TimedModel, Violation

_LOCATIONS_SHOWN = 4
_INNER = "   "
_ENDINGS = {
    "finished": "ran to its end",
    "exited": "ended itself",
    "raised": "failed",
    "timeout": "was ended by the time limit",
    "interrupted": "was interrupted",
    "killed": "was killed (its observations are lost)",
}


def to_text(check: CheckData, width: int = WIDTH) -> str:
    """Violations first, then what was timed, then notes.

    Args:
        check: to report.
        width: maximum number of columns.
    """
    wrapped = (_wrapped(line, indent, width) for indent, line in _lines(check))
    return "\n".join(line for lines in wrapped for line in lines)


def summary(check: CheckData) -> Iterator[str]:
    """How the script ended, and a line for each problem.

    Args:
        check: to report.
    """
    yield _headline(check)
    for violation in check.breaches:
        where = f"{violation.sights[0].place}: " if violation.sights else ""
        yield f"  {where}{violation.title} ({violation.status.value})"


def _lines(check: CheckData) -> Iterator[tuple[str, str]]:
    """Pairs of indent and text, not yet wrapped."""
    yield "", _headline(check)
    if not check.models and not check.breaches:
        yield "", "Check the script that runs the model: precisionbench check SCRIPT [ARGS]."
    yield "", ""
    for position, violation in enumerate(check.breaches, 1):
        yield from _violation(position, violation)
        yield "", ""
    if check.timed:
        yield "", "Timed by the script"
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
        return "no problems found" if check.models else "no call of a model was observed"
    confirmed, suspected = len(check.broken), len(check.breaches) - len(check.broken)
    counts = ((confirmed, "found"), (suspected, "suspected"))
    return ", ".join(f"{n} problem{'s' * (n > 1)} {what}" for n, what in counts if n)


def _violation(position: int, violation: Violation) -> Iterator[tuple[str, str]]:
    is_confirmed = violation.status is FindingStatus.CONFIRMED
    status = "" if is_confirmed else f" (suspected: {violation.reason})"
    yield "", f"{position}. {violation.gate}{status}: {violation.title}"
    yield from ((_INNER, f"{one.place}  {one.says}") for one in violation.sights[:_LOCATIONS_SHOWN])
    if len(violation.sights) > _LOCATIONS_SHOWN:
        yield _INNER, f"and at {len(violation.sights) - _LOCATIONS_SHOWN} more places"
    figures = ", ".join(f"{number.name} {figure(number)}" for number in violation.evidence)
    yield _INNER, f"Evidence: {figures}."
    yield _INNER, f"Remedy: {violation.remedy}. See {violation.link}"


def _timed(timed: TimedModel) -> str:
    device = "" if timed.device_s is None else f", the device took {time_text(timed.device_s, 3)}"
    calls = f"{timed.calls} call{'s' if timed.calls != 1 else ''} in " if timed.calls else ""
    counts = f"{calls}{timed.timings} timing{'s' if timed.timings != 1 else ''}"
    parameters, outputs = "+".join(timed.parameters), "+".join(timed.outputs)
    dtypes = f"{parameters or 'no parameters'}{outputs and f' -> {outputs}'}"
    model = f"{timed.model} ({dtypes})" if timed.model else "work on the device"
    read = time_text(timed.read_s, 3) if timed.read_s > 0 else "0 s"
    share = "" if timed.model_share is None else f", {timed.model_share:.0%} of it in calls"
    return f"{timed.place}  {model}: {counts}, read {read}{share}{device}"


def _wrapped(text: str, indent: str, width: int) -> list[str]:
    lines = textwrap.wrap(
        safe_text.line(text),
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines or [""]
