"""The comparison as one HTML file that makes no requests.

Jinja escapes everything the template shows; a content security policy blocks all loading and all
scripts except our own, which it names by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from precisionbench._version import DOCS_URL
from precisionbench.analysis.data_quality import Observation, observations
from precisionbench.analysis.speedups import speedups
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.facts import facts_of_rows
from precisionbench.diagnosis.findings import DiagnosisData, FindingStatus, LayerPair
from precisionbench.diagnosis.gap.measured import has_finite_output
from precisionbench.diagnosis.row_labels import by_label
from precisionbench.report import formatting, rows
from precisionbench.report.disturbances import disturbance_text
from precisionbench.report.findings import MAX_BRIEF, STATUS_WORDS, by_cause, figure, gain_text
from precisionbench.report.headline import headline
from precisionbench.report.html import (
    distribution_plot,
    escaping,
    latency_plot,
    numbered_points,
    roofline_plot,
    tables,
)
from precisionbench.report.html.speedup_plot import speedup_plot
from precisionbench.report.html.time_plot import time_plot
from precisionbench.report.html.waterfall import Ledger, waterfall
from precisionbench.report.references import compared_with
from precisionbench.report.sweeps import sweep_sentences
from precisionbench.results import ComparisonData, json_format

if TYPE_CHECKING:
    import jinja2

# Longer JSON is packed.
MAX_PLAIN_CHARACTERS = 1_000_000


def to_html(
    data: ComparisonData,
    ledger: Ledger | None = None,
    diagnosis: DiagnosisData | None = None,
) -> str:
    """The whole report.

    Args:
        data: the comparison.
        ledger: a gap, to be drawn as a waterfall: as `explain_gap` returns it, or as rows of
            (label, kind, factor, low, high).
        diagnosis: with the results of experiments; None makes one without.

    Raises:
        SpecError: a row of the ledger is not of this form.
    """
    context = _context(data, diagnosis or diagnosis_of(data))
    gap = None if ledger is None else waterfall(ledger)
    return rendered("page.html", {**context, "gap": gap}, json_format.as_document(data))


def rendered(template: str, context: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """A whole page of our look, which holds its data.

    Args:
        template: its name; it extends `frame.html`.
        context: what it shows.
        document: all data, as JSON values.
    """
    style, script = _asset("style.css"), _asset("report.js")
    return (
        _environment()
        .get_template(template)
        .render(
            context,
            style=style,
            style_hash=_hash(style),
            script=script,
            script_hash=_hash(script),
            **_embedded(document),
        )
    )


def _embedded(document: Mapping[str, Any]) -> dict[str, Any]:
    """All data as JSON, packed if it is large."""
    text = escaping.script_json(document)
    is_packed = len(text) > MAX_PLAIN_CHARACTERS
    return {"document": escaping.packed(text) if is_packed else text, "packed": is_packed}


def table_html(data: ComparisonData) -> str:
    """The table alone, for a notebook: without scripts and styles.

    Args:
        data: the comparison.
    """
    context = _summary_context(data, rows.wrong_labels(data), observations(data))
    return _environment().get_template("notebook.html").render(context)


def _summary_context(
    data: ComparisonData,
    wrong_labels: Sequence[str],
    observed: Mapping[str, Sequence[Observation]],
    diagnosis: DiagnosisData | None = None,
) -> dict[str, Any]:
    found = speedups(data)
    return {
        "headline": headline(data, found, diagnosis),
        "data": data,
        "title": rows.title(data),
        "versions": rows.versions(data),
        "unit": rows.throughput_unit(data),
        "legend": rows.legend(data),
        "disturbed": disturbance_text(data),
        "wrong_labels": wrong_labels,
        "summary": tables.summary(data, found),
        "notes": rows.notes(data, observed),
        "failures": [
            (failure.label or failure.backend, rows.failure_text(failure))
            for failure in data.failures
        ],
        "speedups": found,
        "compared_with": compared_with(data),
        "sweeps": sweep_sentences(data),
    }


def _context(data: ComparisonData, diagnosis: DiagnosisData) -> dict[str, Any]:
    observed = observations(data)
    named = by_label(diagnosis)
    wrong_labels = [label.sentence for label in named.labels if label.is_wrong]
    live = [one for one in named.findings if one.status is not FindingStatus.RULED_OUT]
    summary = _summary_context(data, wrong_labels, observed, diagnosis)
    return {
        **summary,
        "speedup_plot": speedup_plot(data, summary["speedups"]),
        "causes": by_cause(named.findings),
        "top_causes": by_cause(live)[:MAX_BRIEF],
        "was_profiled": any(row.evidence is not None for row in data.results),
        "distributions": distribution_plot.distributions(data.results, observed),
        "latencies": latency_plot.latency_plot(data.results),
        "roofline": roofline_plot.roofline_plot(facts_of_rows(data)),
        "time_plot": time_plot(data, diagnosis.roofs),
        "roofs": diagnosis.roofs,
        "layers": tables.layer_table(diagnosis.layers, _opening(data, diagnosis.layers)),
        "agreement": tables.agreement_table(data, diagnosis.precisions),
        "diagnosis": diagnosis,
        "environment": tables.environment_table(data),
    }


def _opening(data: ComparisonData, layers: Sequence[LayerPair]) -> str:
    """The fastest row of the layer table; empty if it has none."""
    names = {pair.row for pair in layers}
    found = [row for row in data.results if row.backend in names]
    found.sort(key=lambda row: (not has_finite_output(row), row.latency.value))
    return found[0].backend if found else ""


def _si(value: float) -> str:
    """A tick's label, such as `100 T`."""
    if value >= 1e15:
        return f"{value / 1e15:g} P"
    return f"{value:g}" if value < 1e3 else formatting.scaled(value, "", 1)


@cache
def _asset(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The hash by which a content security policy allows an inline script or style."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


_GLOBALS = {
    "docs_url": DOCS_URL,
    "distribution_plot": distribution_plot,
    "latency_plot": latency_plot,
    "numbered_points": numbered_points,
    "number": lambda value: f"{value:.3g}",
    "ratio": lambda value: f"{value:g}x",
    "duration": lambda seconds: f"{formatting.time_text(seconds)}" if seconds else "0",
    "si": _si,
}
_FILTERS = {
    "short": escaping.shortened,
    "breakable": escaping.breakable,
    "tooltip": escaping.tooltip,
    "sentence": escaping.sentence,
    "figure": figure,
    "gain": gain_text,
    "status": STATUS_WORDS.__getitem__,
    "duration": lambda seconds: formatting.time_text(seconds, 3),
    "flop_rate": lambda rate: formatting.scaled(rate, "FLOP/s"),
    "byte_rate": lambda rate: formatting.scaled(rate, "B/s"),
    "brief": lambda number: f"{number:.3g}",
}


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        finalize=escaping.finished,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= _GLOBALS
    environment.filters |= _FILTERS
    return environment
