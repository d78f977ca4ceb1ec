"""The diagnosis of a comparison, with the results of experiments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from precisionbench._internal.interval_text import span
from precisionbench.analysis.interval_notes import interval_notes
from precisionbench.analysis.speedups import speedups
from precisionbench.diagnosis.accuracy import accuracy_of
from precisionbench.diagnosis.answers import answers_of
from precisionbench.diagnosis.causes import CAUSES, CauseContext
from precisionbench.diagnosis.ceiling import ceiling_of
from precisionbench.diagnosis.facts import Facts, facts_of_rows
from precisionbench.diagnosis.findings import (
    DiagnosisData,
    ExperimentResult,
    Finding,
    FindingStatus,
    Label,
    LayerPair,
)
from precisionbench.diagnosis.labels import label_of
from precisionbench.diagnosis.layers import layer_pairs
from precisionbench.diagnosis.roofline import roofline_points
from precisionbench.errors import some
from precisionbench.results import ComparisonData, Speedup
from precisionbench.statistics import Interval

# If removing a cause gains less than this factor, the cause has no practical effect.
_MIN_GAIN = 1.01
# Experiments that also help for other reasons must gain more to confirm a cause: a larger batch
# also fills the device better.
_MIN_GAIN_OF = {"larger-batch": 1.5}
_FLATTERING = {cause.name for cause in CAUSES if cause.flatters}


def diagnosis_of(
    data: ComparisonData, experiments: Sequence[ExperimentResult] = (), notes: Sequence[str] = ()
) -> DiagnosisData:
    """The diagnosis of a comparison: why its rows are as fast as they are.

    Args:
        data: the comparison, with its rows' evidence.
        experiments: results of experiments.
        notes: warnings that qualify the experiments.

    Returns:
        The diagnosis. Findings are suspected until an experiment, or another measurement of the
        same rows, confirms them or rules them out.
    """
    rows = facts_of_rows(data)
    base = rows.get(data.reference)
    found = speedups(data)
    labels = {name: label_of(facts) for name, facts in rows.items()}
    findings = tuple(
        with_experiments(f, experiments) for f in _findings(data, rows, labels, base, found)
    )
    ceiling = ceiling_of(list(rows.values()), found)
    precisions = tuple(accuracy_of(facts, base) for facts in rows.values())
    return DiagnosisData(
        labels=tuple(labels.values()),
        ceiling=ceiling,
        findings=tuple(sorted(findings, key=_importance)),
        layers=_all_layer_pairs(rows, base),
        precisions=precisions,
        roofs={name: roofline_points(facts) for name, facts in rows.items()},
        answers=answers_of(rows, found, tuple(labels.values()), findings, ceiling, precisions),
        notes=(*_notes(list(rows.values()), experiments), *_interval_notes(data), *notes),
    )


def _findings(
    data: ComparisonData,
    rows: Mapping[str, Facts],
    labels: Mapping[str, Label],
    base: Facts | None,
    found: Mapping[str, Speedup],
) -> Iterable[Finding]:
    for name, facts in rows.items():
        speedup = None if name == data.reference else found.get(name)
        scene = CauseContext(data, facts, labels[name], base, speedup)
        for cause in CAUSES:
            finding = cause.finding(scene)
            if finding is not None:
                yield finding


def with_experiments(finding: Finding, experiments: Sequence[ExperimentResult]) -> Finding:
    """A finding with the result of the experiment for it, if there is one.

    Args:
        finding: the finding as its cause gives it.
        experiments: results of all experiments.
    """
    own = (e for e in experiments if (e.cause, e.row) == (finding.cause, finding.row))
    result = next(own, None)
    if result is None or finding.status is FindingStatus.CONFIRMED:
        return finding
    if result.speedup is None:
        return attrs.evolve(finding, reason=_joined(finding.reason, f"not tried: {result.failure}"))
    status, reason = _status_after(finding, result.experiment, result.speedup)
    return attrs.evolve(
        finding,
        factor=result.speedup,
        experiment=result.experiment,
        status=status,
        reason=_joined(finding.reason, reason),
    )


def _status_after(
    finding: Finding, experiment: str, speedup: Interval
) -> tuple[FindingStatus, str]:
    """The status of a finding after an experiment, and what to add to its reason.

    Args:
        finding: the finding before the experiment.
        experiment: name of the experiment.
        speedup: speed-up of the row without the cause.
    """
    least = _MIN_GAIN_OF.get(experiment, _MIN_GAIN)
    low, high = speedup.low, speedup.high
    if finding.cause in _FLATTERING:  # the cause makes the row faster, so removing it costs time
        low, high = 1 / high, 1 / low
    if low > least:
        return FindingStatus.CONFIRMED, ""
    if high < _MIN_GAIN:
        return FindingStatus.RULED_OUT, "the change that would cure it made no such difference"
    return finding.status, _inconclusive(speedup, least)


def _inconclusive(speedup: Interval, least: float) -> str:
    if least == _MIN_GAIN:
        return "the experiment was inconclusive"
    return (
        f"the experiment won {speedup.value:.3g}x ({span(speedup)}), which "
        f"may have other causes; more than {least:g}x would prove it"
    )


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _importance(finding: Finding) -> tuple[int, float]:
    """Confirmed before suspected before ruled out, and the largest factor first."""
    order = (FindingStatus.CONFIRMED, FindingStatus.SUSPECTED, FindingStatus.RULED_OUT)
    return order.index(finding.status), -(finding.factor.value if finding.factor else 1.0)


def _all_layer_pairs(rows: Mapping[str, Facts], base: Facts | None) -> tuple[LayerPair, ...]:
    if base is None:
        return ()
    others = [facts for facts in rows.values() if facts is not base]
    return tuple(pair for facts in others for pair in layer_pairs(base, facts))


def _interval_notes(data: ComparisonData) -> Iterable[str]:
    """What rows say of their intervals, each sentence once, with the rows that say it."""
    found = interval_notes(data)
    texts = dict.fromkeys(one.text for notes in found.values() for one in notes)
    for text in texts:
        names = [name for name, notes in found.items() if text in [one.text for one in notes]]
        yield f"{', '.join(names)}: {text}"


def _notes(rows: Sequence[Facts], experiments: Sequence[ExperimentResult]) -> Iterable[str]:
    unprofiled = [facts.row.backend for facts in rows if facts.row.evidence is None]
    if unprofiled:
        yield (
            f"what ran in the calls of {some(unprofiled)} is not in this result (evidence=False, "
            "an older version, or it failed: see the row's notes); most questions need it"
        )
    for facts in rows:
        for what, why in facts.evidence.unknown.items():
            yield f"{facts.row.backend}: its {what} could not be seen ({why})"
        if facts.busy_s > _MAX_PROFILER_SLOWDOWN * facts.row.latency.value:
            ratio = facts.busy_s / facts.row.latency.value
            yield (
                f"{facts.row.backend}: under the profiler a call took {ratio:.1f} times its "
                "latency, so the times of its layers are rough"
            )
    covered = [facts.counted_share for facts in rows if facts.counted_share is not None]
    if covered and min(covered) < _MIN_COUNTED_SHARE:
        yield (
            f"FLOPs were counted for {min(covered):.0%} of the matrix time at least: torch's "
            "counter passes over some operations, such as fused attention and recurrent layers"
        )
    for result in experiments:
        if result.speedup is None:
            name, why = result.experiment, result.failure
            yield f"{result.row}: the experiment {name} was not made ({why})"


# Above this ratio the overhead of the profiler distorts the times of layers.
_MAX_PROFILER_SLOWDOWN = 1.5
_MIN_COUNTED_SHARE = 0.9
