"""Checks a user's benchmark script: runs it under observation and evaluates the validity rules."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from importlib.util import decode_source
from typing import TYPE_CHECKING

import attrs

from precisionbench._internal.bounded_reading import read_bytes, why_unreadable
from precisionbench._internal.numbers import is_number
from precisionbench._internal.paths import quoted, usable_path
from precisionbench._internal.termination import terminated_in_order
from precisionbench.display import TableResult
from precisionbench.errors import SpecError
from precisionbench.scriptcheck.events import Observations, Place, Span
from precisionbench.scriptcheck.frames import place_of, source_of
from precisionbench.scriptcheck.notes import notes
from precisionbench.scriptcheck.rules import RuleContext, violations
from precisionbench.scriptcheck.script_process import BOOT, observe
from precisionbench.scriptcheck.shares import shares
from precisionbench.scriptcheck.static_analysis import StaticFindings, analyze
from precisionbench.scriptcheck.text import summary, to_text
from precisionbench.scriptcheck.timed_regions import (
    SourceLines,
    TimedRegion,
    by_place,
    find_empty_regions,
    find_regions,
)
from precisionbench.scriptcheck.violations import CheckData, TimedModel

if TYPE_CHECKING:
    pass

_MOST_BYTES = 16 * 2**20  # of a script


@attrs.frozen(repr=False)
class Check(TableResult, CheckData):
    """The validity rules that a script violates; `str()` of it is a report."""

    def _records(self) -> tuple[object, ...]:
        return self.breaches

    def _summary(self) -> Iterator[str]:
        return summary(self)

    def __str__(self) -> str:
        return to_text(self)


def check(
    script: str | os.PathLike[str], args: Sequence[str] = (), *, timeout_s: float | None = None
) -> Check:
    """Run a benchmark script as it is, and report which validity rules it violates.

    The script runs in a process of its own, in the working directory, and its output goes to
    stderr. Ctrl-C ends it; what was observed until then is reported.

    Args:
        script: a Python file.
        args: its command-line arguments, `sys.argv[1:]`.
        timeout_s: seconds after which it is ended; None lets it run.

    Returns:
        The violations, with evidence, lines and remedies; `str()` of it is a report.

    Raises:
        SpecError: there is no such script, it cannot be read, or another argument is invalid.
        OutputError: the folder for temporary files (TMPDIR) cannot hold what was observed.
    """
    if isinstance(args, str):
        raise SpecError(f"args is the text {args!r}", "give a list: args=['--batch', '8']")
    if timeout_s is not None and (not is_number(timeout_s, 0, math.inf) or timeout_s == 0):
        raise SpecError(f"timeout_s is {timeout_s!r}", "give a number of seconds above 0, or None")
    usable_path(script, SpecError)
    name = os.fsdecode(script)  # as it was given, as `sys.argv[0]` of the script
    source = _source(name)
    with terminated_in_order():
        observations = observe(name, list(args), timeout_s, boot=BOOT)
    return evaluate(name, source, observations)


def evaluate(script: str, source: str, observations: Observations) -> Check:
    """Evaluate the rules on what was observed of a script.

    Args:
        script: its path.
        source: its source.
        observations: of a run of it.
    """
    file = place_of((script, 0)).file
    static = analyze(source, file)
    lines = _source_lines(file, static, observations)
    regions = find_regions(observations, lines)
    empty = find_empty_regions(observations, lines)
    context = RuleContext(observations, regions, static, empty)
    return Check(
        script=script,
        breaches=violations(context),
        timed=tuple(_timed_model(context, group) for group in by_place(regions)),
        models=len(observations.models),
        ending=observations.ending,
        gpu=observations.gpu,
        torch=observations.torch,
        notes=notes(context),
    )


def _source_lines(file: str, static: StaticFindings, observations: Observations) -> SourceLines:
    """What lines do with readings, in the script and in its author's modules."""
    found = {file: static}
    for other in {reading.place.file for reading in observations.readings} - {file}:
        found[other] = analyze(source_of(other), other)
    return SourceLines(
        frozenset(Place(name, line) for name in found for line in found[name].compared_lines),
        frozenset(
            (Place(name, start), Place(name, end))
            for name in found
            for start, end in found[name].subtracted_lines
        ),
    )


def _source(name: str) -> str:
    try:
        return decode_source(read_bytes(name, _MOST_BYTES))
    except (SyntaxError, UnicodeDecodeError):  # Python reports it when it runs the script
        return ""
    except (OSError, ValueError) as exc:
        raise SpecError(
            f"there is no script {quoted(name)} to read ({why_unreadable(exc)})",
            "give the path of a .py file",
        ) from exc


def _distinct_spans(group: list[TimedRegion]) -> list[Span]:
    """What happened in timings, once where they overlap, as those of requests served at once do."""
    return list({id(span): span for region in group for span in region.spans}.values())


def _timed_model(context: RuleContext, group: list[TimedRegion]) -> TimedModel:
    """What was timed between two lines."""
    calls = [calls for region in group for calls in (*region.calls, *region.failures)]
    models = list({c.model: context.model(c) for c in calls}.values())
    parts = shares(group)
    device_s = [region.device_s for region in group if region.device_s is not None]
    return TimedModel(
        place=group[0].end,
        model=", ".join(dict.fromkeys(model.class_name for model in models)),
        parameters=tuple(dict.fromkeys(dtype for model in models for dtype in model.parameters)),
        outputs=tuple(dict.fromkeys(dtype for call in calls for dtype in call.outputs)),
        timings=len(group),
        calls=sum(calls.count for span in _distinct_spans(group) for calls in span.calls),
        read_s=sum(region.read_s for region in group),
        device_s=sum(device_s) if len(device_s) == len(group) else None,
        model_share=parts.model if parts else None,
        other_work=tuple(part.number for part in parts.parts) if parts else (),
    )
