"""From a comparison, and experiments if any were made, to a diagnosis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

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
from precisionbench.results.records import ComparisonData, Speedup
from precisionbench.statistics import Interval

# A counterfactual that wins less than this has shown that the cause costs nothing to speak of.
_MATTERS = 1.01
# A change that helps for other reasons, too, must win more to prove the cause: a larger batch also
# fills the device better.
_PROVES = {"larger-batch": 1.5}
_FLATTERING = {cause.name for cause in CAUSES if cause.flatters}


def diagnosis_of(
    data: ComparisonData, trials: Sequence[ExperimentResult] = (), notes: Sequence[str] = ()
) -> DiagnosisData:
    """Why the rows of a comparison are as fast as they are.

    Args:
        data: the comparison, with its rows' evidence.
        trials: experiments that were made.
        notes: what a reader must know of them.

    Returns:
        Findings are suspected until a trial, or a counterfactual that the rows were measured
        with, has confirmed them or ruled them out.
    """
    rows = facts_of_rows(data)
    base = rows.get(data.reference)
    found = speedups(data)
    labels = {name: label_of(facts) for name, facts in rows.items()}
    findings = tuple(judged(f, trials) for f in _findings(data, rows, labels, base, found))
    ceiling = ceiling_of(list(rows.values()), found)
    precisions = tuple(accuracy_of(facts, base) for facts in rows.values())
    return DiagnosisData(
        labels=tuple(labels.values()),
        ceiling=ceiling,
        findings=tuple(sorted(findings, key=_weight)),
        layers=_pairs(rows, base),
        precisions=precisions,
        roofs={name: roofline_points(facts) for name, facts in rows.items()},
        answers=answers_of(rows, found, tuple(labels.values()), findings, ceiling, precisions),
        notes=(*_notes(list(rows.values()), trials), *notes),
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


def judged(finding: Finding, trials: Sequence[ExperimentResult]) -> Finding:
    """A finding after the experiment that was made for it, if one was.

    Args:
        finding: as its rule gave it.
        trials: all experiments.
    """
    mine = [t for t in trials if (t.cause, t.row) == (finding.cause, finding.row)]
    if not mine or finding.status is FindingStatus.CONFIRMED:
        return finding
    trial = mine[0]
    if trial.speedup is None:
        return attrs.evolve(finding, reason=_joined(finding.reason, f"not tried: {trial.failure}"))
    change = attrs.evolve(finding, factor=trial.speedup, experiment=trial.experiment)
    low, high = trial.speedup.low, trial.speedup.high
    if finding.cause in _FLATTERING:  # it makes the row look faster, so the cure costs time
        low, high = 1 / high, 1 / low
    least = _PROVES.get(trial.experiment, _MATTERS)
    if low > least:
        return attrs.evolve(change, status=FindingStatus.CONFIRMED)
    if high < _MATTERS:
        reason = _joined(finding.reason, "the change that would cure it made no such difference")
        return attrs.evolve(change, status=FindingStatus.RULED_OUT, reason=reason)
    return attrs.evolve(change, reason=_joined(finding.reason, _inconclusive(trial.speedup, least)))


def _inconclusive(speedup: Interval, least: float) -> str:
    if least == _MATTERS:
        return "the experiment was inconclusive"
    return (
        f"the experiment won {speedup.value:.3g}x ({speedup.low:.3g} to {speedup.high:.3g}), which "
        f"may have other causes; more than {least:g}x would prove it"
    )


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _weight(finding: Finding) -> tuple[int, float]:
    """Confirmed before suspected before ruled out, and the largest factor first."""
    order = (FindingStatus.CONFIRMED, FindingStatus.SUSPECTED, FindingStatus.RULED_OUT)
    return order.index(finding.status), -(finding.factor.value if finding.factor else 1.0)


def _pairs(rows: Mapping[str, Facts], base: Facts | None) -> tuple[LayerPair, ...]:
    if base is None:
        return ()
    others = [facts for facts in rows.values() if facts is not base]
    return tuple(pair for facts in others for pair in layer_pairs(base, facts))


def _notes(rows: Sequence[Facts], trials: Sequence[ExperimentResult]) -> Iterable[str]:
    blind = [facts.row.backend for facts in rows if facts.row.evidence is None]
    if blind:
        yield (
            f"what ran in the calls of {some(blind)} is not in this result (evidence=False, an "
            "older version, or it failed: see the row's notes); most questions need it"
        )
    for facts in rows:
        for what, why in facts.evidence.unknown.items():
            yield f"{facts.row.backend}: its {what} could not be seen ({why})"
        if facts.busy_s > _ROUGH * facts.row.latency.value:
            ratio = facts.busy_s / facts.row.latency.value
            yield (
                f"{facts.row.backend}: under the profiler a call took {ratio:.1f} times its "
                "latency, so the times of its layers are rough"
            )
    covered = [facts.counted_share for facts in rows if facts.counted_share is not None]
    if covered and min(covered) < _COUNTED:
        yield (
            f"FLOPs were counted for {min(covered):.0%} of the matrix time at least: torch's "
            "counter passes over some operations, such as fused attention and recurrent layers"
        )
    for trial in trials:
        if trial.speedup is None:
            yield f"{trial.row}: the experiment {trial.experiment} was not made ({trial.failure})"


# Beyond this the profiler itself, or a disturbance, is most of what it saw.
_ROUGH = 1.5
_COUNTED = 0.9
