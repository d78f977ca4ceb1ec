"""The report of a study as one HTML file that makes no requests."""

from __future__ import annotations

from typing import Any

import attrs

from precisionbench.analysis.history import History
from precisionbench.analysis.study_summary import StudySummary
from precisionbench.analysis.sweep import Sweep
from precisionbench.report.html import history_plot
from precisionbench.report.html.history_plot import HistoryPanel, history_panels
from precisionbench.report.html.numbered_points import FRAME
from precisionbench.report.html.page import rendered
from precisionbench.report.html.sweep_plot import SweepPlot, rate_text, size_text, sweep_plot
from precisionbench.report.study_sections import LEGEND, Section, sections
from precisionbench.report.study_words import headline
from precisionbench.report.study_words import size_text as study_size
from precisionbench.results import json_format

FORMAT, VERSION = "precisionbench.study_results", 1


@attrs.frozen
class Part:
    """A section with its plots.

    Attributes:
        section: its text and table.
        sweep: throughput by batch size; None where there is none.
        panels: of a history.
    """

    section: Section
    sweep: SweepPlot | None
    panels: tuple[HistoryPanel, ...]


def to_html(summary: StudySummary) -> str:
    """The whole report of a study.

    Args:
        summary: of the study.
    """
    document = {"format": FORMAT, "version": VERSION, **json_format.unstructured(summary)}
    return rendered("study.html", _context(summary), document)


def _context(summary: StudySummary) -> dict[str, Any]:
    return {
        "title": _title(summary),
        "size": study_size(summary),
        "headline": headline(summary),
        "parts": [_part(section) for section in sections(summary)],
        "legend": LEGEND,
        "frame": FRAME,
        "history_plot": history_plot,
        "rate_text": rate_text,
        "size_text": size_text,
    }


def _part(section: Section) -> Part:
    subject = section.subject
    return Part(
        section,
        sweep_plot(subject) if isinstance(subject, Sweep) else None,
        history_panels(subject) if isinstance(subject, History) else (),
    )


def _title(summary: StudySummary) -> str:
    """The models of a study."""
    models = dict.fromkeys(one.cell.model for group in summary.groups for one in group.cells)
    return f"Study of {', '.join(models)}" if models else "Study without results"
