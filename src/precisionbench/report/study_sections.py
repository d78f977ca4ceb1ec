"""Studies as sections of sentences and tables, which every kind of output shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import attrs

from precisionbench.analysis.history import LATENCY, History, Series
from precisionbench.analysis.study_summary import (
    CellSummary,
    GroupSummary,
    StudySummary,
    lone_cells,
)
from precisionbench.analysis.sweep import Sweep, ThreadScaling
from precisionbench.report import formatting
from precisionbench.report.rows import ratio_texts, speedup_value, verdict_words
from precisionbench.report.study_words import (
    FALSE_ALARMS,
    apart_text,
    crossover_text,
    date_text,
    group_title,
    history_sentences,
    saturation_text,
)
from precisionbench.results import Speedup
from precisionbench.results.study import Cell
from precisionbench.statistics import Interval

_MOST_NOTES = 6
LEGEND = (
    "Speed-ups: over the reference of the same cell, 95 % simultaneous CI; ±: 95 % CI with "
    "run-to-run variance."
)


@attrs.frozen
class Line:
    """A line of a table.

    Attributes:
        name: in the first column.
        cells: in the other columns; empty for a heading within the table.
    """

    name: str
    cells: tuple[str, ...] = ()


@attrs.frozen
class Section:
    """A part of a report.

    Attributes:
        title: its heading.
        sentences: below the heading.
        headings: of the table's columns; empty without a table.
        lines: of the table.
        notes: below the table.
        subject: the sweep or history that a plot can show; None where there is none.
    """

    title: str
    sentences: tuple[str, ...] = ()
    headings: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()
    subject: Sweep | History | None = None


def sections(summary: StudySummary) -> tuple[Section, ...]:
    """All parts of the report of a study.

    Args:
        summary: of the study.
    """
    count = len(summary.groups)
    found: list[Section] = []
    for number, group in enumerate(summary.groups, 1):
        found += _of_group(group, group_title(number, group, count) if count > 1 else "")
    if count > 1 and (devices := _devices(summary)):
        found.append(devices)
    found += map(_history, summary.histories)
    return tuple(found)


def _of_group(group: GroupSummary, title: str) -> Iterator[Section]:
    """The sections of a group; those after its title begin with it."""
    sentences = (*([apart_text(group.apart)] if group.apart else []), *group.notes)
    if title or sentences:
        yield Section(title or group.device, tuple(sentences))
    yield from map(_sweep, group.sweeps)
    yield from map(_scaling, group.scaling)
    if lone := lone_cells(group):
        yield _cells(lone)
    if failed := _failed(group):
        yield failed
    if notes := _notes(group):
        yield Section("Notes", notes)


def _notes(group: GroupSummary) -> tuple[str, ...]:
    """What qualifies the intervals of the cells, each sentence once, the most common one first."""
    rows = sum(len(cell.rows) for cell in group.cells)
    found: Counter[str] = Counter()
    for cell in group.cells:
        found.update(dict(cell.notes))
    shown = [
        f"{'every row' if count == rows else f'{count} of {rows} rows'}: {note}"
        for note, count in found.most_common(_MOST_NOTES)
    ]
    more = len(found) - len(shown)
    rest = f"{more} more note{'s' * (more != 1)}: `precisionbench show` on the file of a cell"
    return (*shown, rest) if more else tuple(shown)


# --- sweeps ---------------------------------------------------------------------------------------

_FIGURES = ("latency", "±", "items/s", "speed-up", "95 % CI", "verdict")


def _sweep(sweep: Sweep) -> Section:
    crossovers = [crossover_text(row, sweep.reference) for row in sweep.rows if row.crossover]
    saturations = [saturation_text(row) for row in sweep.rows]
    lines: list[Line] = []
    for row in sweep.rows:
        lines.append(Line(row.backend))
        lines += [
            Line(f"  {one.batch_size}", _figures(one.latency, one.throughput, one.speedup))
            for one in row.points
        ]
    return Section(
        f"{sweep.cell.title}, by batch size",
        tuple(text for text in (*crossovers, *saturations) if text),
        ("batch", *_FIGURES),
        tuple(lines),
        tuple(f"batch {size}: {reason}" for size, reason in sweep.failures),
        sweep,
    )


def _figures(
    latency: Interval, throughput: Interval | None, speedup: Speedup | None
) -> tuple[str, ...]:
    return (
        formatting.duration(latency),
        formatting.half_width(latency).lstrip("±"),
        formatting.number(throughput) if throughput else "-",
        *_speedup(speedup),
    )


def _speedup(found: Speedup | None) -> tuple[str, str, str]:
    if found is None:
        return "-", "", ""
    if found.reason == "reference":
        return "1 (ref.)", "", ""
    _, low, high = ratio_texts(found)
    return speedup_value(found), f"{low} to {high}", verdict_words(found)


# --- threads, other cells, failures ---------------------------------------------------------------


def _scaling(scaling: ThreadScaling) -> Section:
    lines: list[Line] = []
    for name, points in scaling.rows:
        lines.append(Line(name))
        for point in points:
            ratio, low, high = (
                formatting.significant(x, 3)
                for x in (point.speedup.value, point.speedup.low, point.speedup.high)
            )
            share = f"{point.efficiency.value:.0%}"
            cells = (formatting.duration(point.latency), f"{ratio}x", f"{low} to {high}", share)
            lines.append(Line(f"  {point.threads}", cells))
    return Section(
        f"{scaling.cell.title}, by threads",
        ("speed-up: over the fewest threads; efficiency: speed-up / factor of threads",),
        ("threads", "latency", "speed-up", "95 % CI", "efficiency"),
        tuple(lines),
    )


def _cells(cells: Sequence[CellSummary]) -> Section:
    lines: list[Line] = []
    for cell in cells:
        lines.append(Line(cell.cell.title))
        lines += [
            Line(f"  {row.backend}", _figures(row.latency, row.throughput, row.speedup))
            for row in cell.rows
        ]
    return Section("Cells", (), ("cell", *_FIGURES), tuple(lines))


def _failed(group: GroupSummary) -> Section | None:
    """Failed cells and rows; those of sweeps are notes of the sweep."""
    swept = [sweep.cell for sweep in group.sweeps]
    found = [
        f"{cell.cell.title}: {reason}"
        for cell in group.cells
        if attrs.evolve(cell.cell, batch_size=None) not in swept
        for reason in _reasons(cell)
    ]
    return Section("Could not run", tuple(found)) if found else None


def _reasons(cell: CellSummary) -> Iterator[str]:
    if cell.failure:
        yield cell.failure
    yield from (f"{name}: {reason}" for name, reason in cell.failures)


# --- devices --------------------------------------------------------------------------------------


def _devices(summary: StudySummary) -> Section | None:
    """Latencies of cells that several groups have, side by side; None where there are none."""
    found: dict[Cell, dict[str, dict[int, str]]] = {}
    for number, group in enumerate(summary.groups):
        for cell in group.cells:
            rows = found.setdefault(attrs.evolve(cell.cell, device="", backends=()), {})
            for row in cell.rows:
                rows.setdefault(row.backend, {})[number] = formatting.duration(row.latency)
    lines: list[Line] = []
    for key, rows in found.items():
        shared = {name: texts for name, texts in rows.items() if len(texts) > 1}
        lines += [Line(key.title)] if shared else []
        lines += [
            Line(f"  {name}", tuple(texts.get(n, "-") for n in range(len(summary.groups))))
            for name, texts in shared.items()
        ]
    if not lines:
        return None
    count = len(summary.groups)
    titles = (group_title(n, group, count) for n, group in enumerate(summary.groups, 1))
    note = "latencies of different devices or versions; their ratios are not speed-ups of a backend"
    return Section("Devices side by side", (note,), ("cell", *titles), tuple(lines))


# --- histories ------------------------------------------------------------------------------------


def _history(history: History) -> Section:
    lines = tuple(_series_line(one) for one in history.series)
    return Section(
        f"History of {history.cell.title} on {history.cell.device}",
        tuple(history_sentences(history)),
        ("row", "runs", "first", "last", "changes"),
        lines,
        (FALSE_ALARMS,),
        history,
    )


def _series_line(series: Series) -> Line:
    first, last = series.points[0].value, series.points[-1].value
    text = formatting.duration if series.of == LATENCY else _times
    dates = ", ".join(date_text(change.first_after) for change in series.changes) or "none"
    name = series.backend if series.of == LATENCY else f"{series.backend}, {series.of}"
    return Line(name, (str(len(series.points)), text(first), text(last), dates))


def _times(interval: Interval) -> str:
    return f"{formatting.significant(interval.value, 3)}x"
