"""The diagnosis of a comparison, with the results of experiments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from precisionbench.analysis.groups import by_model, by_reference
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
from precisionbench.results import ComparisonData, Speedup


def diagnosis_of(
    data: ComparisonData, experiments: Sequence[ExperimentResult] = (), notes: Sequence[str] = ()
) -> DiagnosisData:
    """The diagnosis of a comparison: why its rows are as fast as they are.

    Args:
        data: the comparison, with its rows' evidence; each of several models is diagnosed by
            itself.
        experiments: results of experiments.
        notes: warnings that qualify the experiments.

    Returns:
        The diagnosis. Findings are suspected until an experiment, another row of the same
        comparison that shows what the experiment would, or another measurement of the same row
        confirms them or rules them out.
    """
    parts = by_model(data).items()
    found = {model: _diagnosis_of_model(part, data, experiments, notes) for model, part in parts}
    return _joined(found) if data.models else found[""]


def _diagnosis_of_model(
    data: ComparisonData,
    whole: ComparisonData,
    experiments: Sequence[ExperimentResult],
    notes: Sequence[str],
) -> DiagnosisData:
    """The diagnosis of the part of a model; intervals are those of the whole comparison."""
    rows = facts_of_rows(data)
    bases = {name: rows.get(data.reference_of(name)) for name in rows}
    found = _speedups_of(data, whole)
    labels = {name: label_of(facts) for name, facts in rows.items()}
    contexts = _contexts(data, rows, labels, found)
    findings = tuple(sorted(_findings(contexts, experiments), key=_importance))
    ceilings = _ceilings(data, rows, labels)
    precisions = tuple(accuracy_of(facts, bases[name]) for name, facts in rows.items())
    ran = tuple(precision_label_of(facts) for facts in rows.values())
    names = row_labels_of(data)
    shown = renamed_facts(rows, names)
    return DiagnosisData(
        labels=tuple(labels.values()),
        ceiling=ceilings[0],
        findings=findings,
        layers=_all_layer_pairs(rows, bases),
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
        notes=(*_all_notes(data, whole, experiments, names), *notes),
        row_labels=names,
        ceiling_of_8_bits=ceilings[1],
    )


def _speedups_of(data: ComparisonData, whole: ComparisonData) -> dict[str, Speedup]:
    """The speed-ups of a part, from the whole where that compares a row with the same reference."""
    same = {
        name: one
        for name, one in speedups(whole).items()
        if whole.reference_of(name) == data.reference_of(name)
    }
    return {name: same.get(name, one) for name, one in speedups(data).items()}


def _all_notes(
    data: ComparisonData,
    whole: ComparisonData,
    experiments: Sequence[ExperimentResult],
    names: Mapping[str, str],
) -> Iterable[str]:
    shown = renamed_facts(facts_of_rows(data), names)
    yield from _notes(list(shown.values()), renamed(experiments, names))
    yield from _interval_notes(data, whole, names)


def _relabelled(ceiling: Ceiling, names: Mapping[str, str]) -> Ceiling:
    row, over = (names.get(name, name) for name in (ceiling.row, ceiling.over))
    return attrs.evolve(ceiling, row=row, over=over)


def _contexts(
    data: ComparisonData,
    rows: Mapping[str, Facts],
    labels: Mapping[str, Label],
    found: Mapping[str, Speedup],
) -> Iterable[CauseContext]:
    for name, facts in rows.items():
        base = rows.get(data.reference_of(name))
        speedup = None if data.is_reference(name) else found.get(name)
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


def _all_layer_pairs(
    rows: Mapping[str, Facts], bases: Mapping[str, Facts | None]
) -> tuple[LayerPair, ...]:
    return tuple(
        pair
        for name, facts in rows.items()
        if (base := bases[name]) is not None and base is not facts
        for pair in layer_pairs(base, facts)
    )


def _ceilings(
    data: ComparisonData, rows: Mapping[str, Facts], labels: Mapping[str, Label]
) -> list[Ceiling]:
    """The ceilings of 16 and 8 bits.

    They are of calls of one batch size: where there are several references, of rows that are
    compared with the last one, which in a sweep has the largest batch.
    """
    *_, last = by_reference(data).values()
    names = [row.backend for row in last.results]
    facts = {name: rows[name] for name in names}
    claimed = {name: labels[name] for name in names}
    return [ceiling_of(last, facts, claimed, lower) for lower in (IN_16_BITS, IN_8_BITS)]


def _joined(parts: Mapping[str, DiagnosisData]) -> DiagnosisData:
    """The diagnosis of several models; the ceiling is that of the first one."""
    found = list(parts.values())
    findings = (finding for part in found for finding in part.findings)
    return DiagnosisData(
        labels=tuple(label for part in found for label in part.labels),
        ceiling=found[0].ceiling,
        findings=tuple(sorted(findings, key=_importance)),
        layers=tuple(pair for part in found for pair in part.layers),
        precisions=tuple(one for part in found for one in part.precisions),
        roofs={name: points for part in found for name, points in part.roofs.items()},
        answers=tuple(
            attrs.evolve(
                answer,
                question=f"{model}: {answer.question}",
                topic=f"{model}: {answer.topic}",
            )
            for model, part in parts.items()
            for answer in part.answers
        ),
        notes=tuple(dict.fromkeys(note for part in found for note in part.notes)),
        row_labels={row: label for part in found for row, label in part.row_labels.items()},
        ceiling_of_8_bits=found[0].ceiling_of_8_bits,
    )


def _interval_notes(
    data: ComparisonData, whole: ComparisonData, row_labels: Mapping[str, str]
) -> Iterable[str]:
    """The notes on intervals of the rows of a part, each sentence once, with its rows."""
    found = {row.backend: interval_notes(whole)[row.backend] for row in data.results}
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
