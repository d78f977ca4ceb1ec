"""A tuning result as one HTML file that makes no requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from precisionbench.analysis.tuning import loss_of, ratio_text
from precisionbench.report import formatting, rows
from precisionbench.report import tuning_texts as texts
from precisionbench.report.disturbances import disturbance_text
from precisionbench.report.html import tables
from precisionbench.report.html.page import rendered
from precisionbench.report.html.scatter_plot import scatter_plot
from precisionbench.results import tuning_format
from precisionbench.results.tuning import BEST, FAILED, FINALIST, INACCURATE, Trial, TuningData

_TONES = {BEST: "good", FAILED: "bad", INACCURATE: "bad"}


@attrs.frozen
class TrialRow:
    """A configuration in the table of all; what is not known is empty.

    Attributes:
        number: as in the plot.
        spec: its spec.
        outcome: what became of it.
        tone: `good`, `bad` or `even`.
        speedup: over the reference, with its interval.
        loss: its error, or the drop of its metric, with its interval.
        build: seconds that preparing it took, with unit.
        reason: of the outcome.
    """

    number: int
    spec: str
    outcome: str
    tone: str
    speedup: str
    loss: str
    build: str
    reason: str


def to_html(data: TuningData) -> str:
    """The whole report.

    Args:
        data: the result.
    """
    return rendered("tuning.html", _context(data), tuning_format.as_document(data))


def _context(data: TuningData) -> dict[str, Any]:
    found = texts.front_texts(data)
    specs = [one.point.spec for one in found] + [one.spec for one in data.trials]
    numbers = {spec: place for place, spec in enumerate(dict.fromkeys(specs), start=1)}
    return {
        "data": data,
        "title": f"Tuning of {rows.title(data.final)}",
        "versions": rows.versions(data.final),
        "headline": texts.headline(data),
        "choice": texts.choice(data),
        "course": texts.course(data),
        "disturbed": disturbance_text(data.final),
        "front": found,
        "numbers": numbers,
        "unit": rows.throughput_unit(data.final),
        "loss_heading": texts.loss_heading(data),
        "legend": texts.legend(data),
        "scatter": scatter_plot(data, numbers),
        "scientific": formatting.scientific,
        "trials": [_trial_row(data, one, numbers) for one in data.trials],
        "left_out": texts.left_out(data),
        "notes": texts.notes(data),
        "target": _target(data),
        "environment": tables.environment_table(data.final),
    }


def _trial_row(data: TuningData, trial: Trial, numbers: Mapping[str, int]) -> TrialRow:
    loss = loss_of(data, trial.spec)
    speedup = None if trial.spec == data.reference else trial.speedup
    return TrialRow(
        number=numbers[trial.spec],
        spec=trial.spec,
        outcome=trial.outcome,
        tone=_TONES.get(trial.outcome, "even"),
        speedup="" if speedup is None else ratio_text(speedup),
        loss="" if loss is None else texts.interval_of_loss(data, loss),
        build=formatting.time_text(trial.build_s) if trial.build_s else "",
        reason="" if trial.outcome in (BEST, FINALIST) else trial.reason,
    )


def _target(data: TuningData) -> list[tuple[str, str]]:
    """What the result holds for."""
    target = data.target
    capability = f", compute capability {target.compute_capability}"
    return [
        ("device", target.device + (capability if target.compute_capability else "")),
        ("versions", ", ".join(f"{name} {text}" for name, text in target.versions.items())),
        ("accuracy", f"{texts.loss_name(data)} {texts.bound_text(data)}, {_batches(data)}"),
    ]


def _batches(data: TuningData) -> str:
    bound = data.bound
    return f"on {bound.batches} batch{'es' * (bound.batches != 1)}, against {bound.reference}"
