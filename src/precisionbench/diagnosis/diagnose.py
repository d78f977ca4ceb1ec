"""The diagnosis of a comparison, with the results of experiments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from precisionbench.analysis.interval_notes import interval_notes
from precisionbench.analysis.speedups import speedups
from precisionbench.diagnosis.accuracy import accuracy_of
from precisionbench.diagnosis.answers import answers_of
from precisionbench.diagnosis.causes import CAUSES, CauseContext
from precisionbench.diagnosis.ceiling import IN_8_BITS, IN_16_BITS, ceiling_of
from precisionbench.diagnosis.engine_label import DETAIL
from precisionbench.diagnosis.experiments import measured_beside, with_experiments
from precisionbench.diagnosis.facts import Facts, facts_of_rows
from precisionbench.diagnosis.findings import (
    Ceiling,
    DiagnosisData,
    ExperimentResult,
    Finding,
    FindingStatus,
    Label,
    LayerPair,
)
from precisionbench.diagnosis.labels import label_of, precision_label_of
from precisionbench.diagnosis.layers import layer_pairs
from precisionbench.diagnosis.roofline import roofline_points
from precisionbench.diagnosis.row_labels import renamed, renamed_facts, row_labels_of
from precisionbench.errors import some
from precisionbench.results import ComparisonData


def diagnosis_of(
    data: ComparisonData, experiments: Sequence[ExperimentResult] = (), notes: Sequence[str] = ()
) -> DiagnosisData:
    """The diagnosis of a comparison: why its rows are as fast as they are.

    Args:
        data: the comparison, with its rows' evidence.
        experiments: results of experiments.
        notes: warnings that qualify the experiments.

    Returns:
        The diagnosis. Findings are suspected until an experiment, another row of the same
        comparison that shows what the experiment would, or another measurement of the same row
        confirms them or rules them out.
    """
    rows = facts_of_rows(data)
    base = rows.get(data.reference)
    found = speedups(data)
    labels = {name: label_of(facts) for name, facts in rows.items()}
    findings = tuple(_findings(_contexts(data, rows, labels), experiments))
    ceilings = [ceiling_of(data, rows, labels, lower) for lower in (IN_16_BITS, IN_8_BITS)]
    precisions = tuple(accuracy_of(facts, base) for facts in rows.values())
    ran = tuple(precision_label_of(facts) for facts in rows.values())
    names = row_labels_of(data)
    shown = renamed_facts(rows, names)
    return DiagnosisData(
        labels=tuple(labels.values()),
        ceiling=ceilings[0],
        findings=tuple(sorted(findings, key=_importance)),
        layers=_all_layer_pairs(rows, base),
        precisions=precisions,
        roofs={name: roofline_points(facts) for name, facts in rows.items()},
        answers=answers_of(
            shown,
            {names.get(name, name): one for name, one in found.items()},
            renamed(ran, names),
            renamed(findings, names),
            [_relabelled(one, names) for one in ceilings],
            renamed(precisions, names),
        ),
        notes=(
            *_notes(list(shown.values()), renamed(experiments, names)),
            *_interval_notes(data, names),
            *notes,
        ),
        row_labels=names,
        ceiling_of_8_bits=ceilings[1],
    )


def _relabelled(ceiling: Ceiling, names: Mapping[str, str]) -> Ceiling:
    row, over = (names.get(name, name) for name in (ceiling.row, ceiling.over))
    return attrs.evolve(ceiling, row=row, over=over)


def _contexts(
    data: ComparisonData, rows: Mapping[str, Facts], labels: Mapping[str, Label]
) -> Iterable[CauseContext]:
    base, found = rows.get(data.reference), speedups(data)
    for name, facts in rows.items():
        speedup = None if name == data.reference else found.get(name)
        yield CauseContext(data, facts, labels[name], base, speedup, rows)


def _findings(
    contexts: Iterable[CauseContext], experiments: Sequence[ExperimentResult]
) -> Iterable[Finding]:
    """Findings with what experiments, and other rows of the comparison, show of them."""
    for context in contexts:
        for cause in CAUSES:
            finding = cause.finding(context)
            if finding is None:
                continue
            beside = _beside(context.data, finding)
            tested = with_experiments(finding, [*experiments, *beside])
            if not (_explains_slowness(tested) and context.is_inconclusive):
                yield tested


def _explains_slowness(finding: Finding) -> bool:
    """Whether it explains why a row is slow, and nothing has confirmed it or ruled it out."""
    return finding.costs_time and finding.status is FindingStatus.SUSPECTED


def _beside(data: ComparisonData, finding: Finding) -> Iterable[ExperimentResult]:
    """The result that another row of the same comparison gives, where there is one."""
    result = measured_beside(data, finding)
    return () if result is None else (result,)


def _importance(finding: Finding) -> tuple[int, float]:
    """Confirmed before suspected before ruled out, and the largest factor first."""
    order = (FindingStatus.CONFIRMED, FindingStatus.SUSPECTED, FindingStatus.RULED_OUT)
    return order.index(finding.status), -(finding.factor.value if finding.factor else 1.0)


def _all_layer_pairs(rows: Mapping[str, Facts], base: Facts | None) -> tuple[LayerPair, ...]:
    if base is None:
        return ()
    others = [facts for facts in rows.values() if facts is not base]
    return tuple(pair for facts in others for pair in layer_pairs(base, facts))


def _interval_notes(data: ComparisonData, row_labels: Mapping[str, str]) -> Iterable[str]:
    """The notes on intervals, each sentence once, with its rows."""
    found = interval_notes(data)
    texts = dict.fromkeys(one.text for notes in found.values() for one in notes)
    for text in texts:
        rows = (name for name, notes in found.items() if text in [one.text for one in notes])
        names = [row_labels.get(name, name) for name in rows]
        yield f"{', '.join(names)}: {text}"


def _notes(rows: Sequence[Facts], experiments: Sequence[ExperimentResult]) -> Iterable[str]:
    unprofiled = [facts.row.backend for facts in rows if not facts.row.is_profiled]
    if unprofiled:
        yield (
            f"not profiled: {some(unprofiled)}; most answers need profiling, so measure with "
            "profiling, the effort 'normal' and a larger time budget"
        )
    for facts in rows:
        for what, why in facts.evidence.unknown.items():
            yield f"{facts.row.backend}: {what} not recorded ({why})"
        if facts.busy_s > _MAX_PROFILER_SLOWDOWN * facts.row.latency.value:
            ratio = facts.busy_s / facts.row.latency.value
            yield (
                f"{facts.row.backend}: a call took {ratio:.1f}x its latency under the profiler, so "
                "the times of its layers are approximate"
            )
        yield from _compiled_by_itself(facts)
    covered = [facts.counted_share for facts in rows if facts.counted_share is not None]
    if covered and min(covered) < _MIN_COUNTED_SHARE:
        yield (
            f"FLOPs cover only {min(covered):.0%} of GEMM/conv time: torch's counter skips some "
            "operations, such as fused attention and recurrent layers"
        )
    for result in experiments:
        if result.speedup is None:
            name, why = result.experiment, result.failure
            yield f"{result.row}: experiment {name} not run ({why})"


def _compiled_by_itself(facts: Facts) -> Iterable[str]:
    """The note on a model that calls `torch.compile`, in a row of a backend that does not."""
    share = facts.evidence.compiled_share or 0.0
    if "graphs" not in facts.row.details and share > DETAIL:
        yield (
            f"{facts.row.backend}: {share:.0%} of the profiled time is in graphs that the model "
            "compiles by itself (torch.compile)"
        )


# Above this ratio the overhead of the profiler distorts the times of layers.
_MAX_PROFILER_SLOWDOWN = 1.5
_MIN_COUNTED_SHARE = 0.9
