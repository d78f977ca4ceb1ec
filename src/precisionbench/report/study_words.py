"""Sentences on studies: crossover, saturation, groups, changes in a history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from precisionbench.analysis.comparable import Mismatch
from precisionbench.analysis.history import (
    LATENCY,
    History,
    HistoryChange,
    Series,
    has_enough_runs,
)
from precisionbench.analysis.study_summary import GroupSummary, StudySummary
from precisionbench.analysis.sweep import RowSweep, Sweep
from precisionbench.report.rows import ratio_texts, verdict_words
from precisionbench.report.sweeps import crossover_sentence, saturation_sentence
from precisionbench.statistics import Verdict
from precisionbench.statistics.level_changes import MIN_VALUES
from precisionbench.statistics.verdicts import ALPHA

_MOST_SHOWN = 4


def headline(summary: StudySummary) -> str:
    """The study in one sentence: changes first, then crossovers, then its size.

    Args:
        summary: of the study.
    """
    changes = [(one, *pair) for one in summary.histories for pair in one.changes]
    if changes:
        first, more = changes[0], len(changes) - 1
        others = f"; {more} more change{'s' * (more != 1)}" if more else ""
        return f"{first[0].cell.title}: {change_text(*first[1:])}{others}."
    found = [
        (sweep, row)
        for group in summary.groups
        for sweep in group.sweeps
        for row in sweep.rows
        if row.crossover is not None and row.crossover.batch_size is not None
    ]
    if found:
        sweep, row = max(found, key=lambda pair: _largest_speedup(pair[1]))
        return f"{sweep_title(sweep)}: {crossover_text(row, sweep.reference)}."
    return f"{size_text(summary)}."


def _largest_speedup(row: RowSweep) -> float:
    return max(point.speedup.value for point in row.points if point.speedup)


def size_text(summary: StudySummary) -> str:
    """How many cells were measured, on which devices, and how many failed.

    Args:
        summary: of the study.
    """
    cells = [cell for group in summary.groups for cell in group.cells]
    measured = sum(not cell.failure for cell in cells)
    devices = list(dict.fromkeys(group.device for group in summary.groups))
    failed = len(cells) - measured
    rest = f", {failed} failed" if failed else ""
    where = f" on {', '.join(devices)}" if devices else ""
    return f"{measured} cell{'s' * (measured != 1)} measured{where}{rest}"


def group_title(number: int, group: GroupSummary, count: int) -> str:
    """The name of a group: its device, with its number where there are several.

    Args:
        number: of the group, from 1.
        group: of a summary.
        count: number of groups.
    """
    return group.device if count == 1 else f"{number}: {group.device}"


def apart_text(mismatches: Sequence[Mismatch]) -> str:
    """What sets a group apart from the first one.

    Args:
        mismatches: of the group.
    """
    shown = [f"{one.field} ({one.new} here, {one.old} in group 1)" for one in mismatches]
    more = len(shown) - _MOST_SHOWN * 2
    rest = [f"{more} more"] if more > 0 else []
    return f"not comparable with group 1: {', '.join([*shown[: _MOST_SHOWN * 2], *rest])}"


# --- sweeps ---------------------------------------------------------------------------------------


def sweep_title(sweep: Sweep) -> str:
    """What all batch sizes of a sweep have in common.

    Args:
        sweep: over batch sizes.
    """
    return f"{sweep.cell.title} on {sweep.cell.device}"


def crossover_text(row: RowSweep, reference: str) -> str:
    """From which batch size on a row is faster than the reference, in a sentence.

    Args:
        row: of a sweep; one without a crossover has no text.
        reference: the row that it is compared with.
    """
    speedups = [(point.batch_size, point.speedup) for point in row.points if point.speedup]
    if row.crossover is None or not speedups:
        return ""
    return f"{row.backend} is {crossover_sentence(row.crossover, reference, *speedups[-1])}"


def saturation_text(row: RowSweep) -> str:
    """Where throughput stops growing, in a sentence; empty for a single batch size.

    Args:
        row: of a sweep.
    """
    found = row.saturation
    if found is None:
        return ""
    throughput = next(p.throughput for p in row.points if p.batch_size == found.batch_size)
    return f"{row.backend}: {saturation_sentence(found, throughput)}"


# --- histories ------------------------------------------------------------------------------------


def date_text(created: str) -> str:
    """A date in minutes, such as `2026-11-24 12:00`.

    Args:
        created: ISO 8601.
    """
    return created[:16].replace("T", " ")


def change_text(series: Series, change: HistoryChange) -> str:
    """A change in a history, in a sentence.

    Args:
        series: that has it.
        change: of the series.
    """
    value, low, high = ratio_texts(change.ratio)
    what = "" if series.of == LATENCY else " over the reference"
    direction = verdict_words(change.ratio)
    if change.ratio.verdict is Verdict.INCONCLUSIVE:
        direction = "faster" if change.ratio.value > 1 else "slower"
    runs = "1 run" if change.runs_after == 1 else f"{change.runs_after} runs"
    since, before = date_text(change.first_after), date_text(change.last_before)
    text = (
        f"{series.backend} is {direction}{what} since {since}: {value}x "
        f"(95 % CI {low} to {high}, {runs} since then, last run before {before})"
    )
    if change.mismatches:
        shown = ", ".join(map(str, change.mismatches[:_MOST_SHOWN]))
        text += f"; changed at the same time: {shown}"
    return text if change.runs_after > 1 else f"{text}; run it again to confirm"


def history_sentences(history: History) -> Iterator[str]:
    """The changes of a cell, or that there are none.

    Args:
        history: of the cell.
    """
    latencies = {
        (one.backend, change.first_after) for one, change in history.changes if one.of == LATENCY
    }
    for series, change in history.changes:
        if series.of == LATENCY or (series.backend, change.first_after) not in latencies:
            yield change_text(series, change)
    long = [one for one in history.series if has_enough_runs(one)]
    if not long:
        yield f"too few runs to find a change: {MIN_VALUES} are needed"
    elif not history.changes:
        runs = max(len(one.points) for one in long)
        yield f"no change in {runs} runs"


FALSE_ALARMS = (
    f"False alarms: at most {ALPHA * 100:g} % of studies in which nothing changed have a change "
    "reported, over all rows and cells together."
)
