"""Answers to ten common questions about a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from precisionbench.analysis.reasons import reason_text
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import (
    Accuracy,
    Answer,
    Ceiling,
    Finding,
    FindingStatus,
    Label,
)
from precisionbench.diagnosis.labels import HALF
from precisionbench.diagnosis.short_answers import (
    accuracy_short,
    causes_short,
    ceiling_short,
    labels_short,
    launch_bound_short,
    nothing_found,
    slower_short,
    tensor_cores_short,
    timing_short,
)
from precisionbench.errors import some
from precisionbench.results import Speedup
from precisionbench.results.claims import TENSORRT
from precisionbench.results.dtypes import FLOAT32
from precisionbench.results.earlier_claims import claims_of
from precisionbench.statistics import Interval, Verdict

_LIVE = (FindingStatus.CONFIRMED, FindingStatus.SUSPECTED)


def answers_of(
    rows: Mapping[str, Facts],
    speedups: Mapping[str, Speedup],
    labels: Sequence[Label],
    findings: Sequence[Finding],
    ceilings: Sequence[Ceiling],
    precisions: Sequence[Accuracy],
) -> tuple[Answer, ...]:
    """The answers, each with its figures.

    Args:
        rows: facts by row.
        speedups: over the reference.
        labels: of all rows' precisions.
        findings: of all rows.
        ceilings: of half precision and of 8 bits.
        precisions: of all rows' outputs.

    Returns:
        One answer for each question, in their order.
    """
    live = [finding for finding in findings if finding.status in _LIVE]
    half = [label for label in labels if label.claim in HALF]
    single = [label for label in labels if label.claim == FLOAT32]
    engines = [label for label in labels if claims_of(rows[label.row].row).engine == TENSORRT]
    compared = [label.row for label in half if label.row in speedups]
    half_rows = [rows[label.row] for label in half]
    bound = [finding for finding in live if finding.cause == "launch-bound"]
    answers = {
        "FP16/BF16": (_half(half, labels), labels_short(half)),
        "float32": (_float32(single), labels_short(single)),
        "slower than float32": (
            _slower_than_float32(compared, speedups, live),
            slower_short(compared, speedups),
        ),
        "half-precision ceiling": (_ceilings(*ceilings), ceiling_short(*ceilings)),
        "tensor cores": (_tensor_cores(half_rows), tensor_cores_short(half_rows)),
        "launch-bound": (
            _launch_bound(rows, bound),
            launch_bound_short(bound, _lowered(_not_launch_bound(rows))),
        ),
        "timing": (_timings(rows), timing_short(rows)),
        "TensorRT precision": (_tensorrt(engines), labels_short(engines)),
        "slowed by": (_causes(live, rows), causes_short(live, rows)),
        "output": (_accuracy(precisions), accuracy_short(precisions)),
    }
    return tuple(
        Answer(_QUESTIONS[topic], long, topic, short) for topic, (long, short) in answers.items()
    )


_QUESTIONS = {
    "FP16/BF16": "Do the FP16/BF16 rows run in FP16/BF16?",
    "float32": "Is the float32 row really float32?",
    "slower than float32": "Is FP16/BF16 slower than float32 here, and is that expected?",
    "half-precision ceiling": "How much faster can half precision be at most?",
    "tensor cores": "Are tensor cores used, and which layers do not use them well?",
    "launch-bound": "Is it launch-bound (no gain at small batches)?",
    "timing": "Are the timings right?",
    "TensorRT precision": "Did TensorRT use the precision that was allowed?",
    "slowed by": "What slows each row down?",
    "output": "Is the output within tolerance, or does the model overflow?",
}


def _lowered(sentences: str) -> str:
    """Sentences as a cell of a table."""
    return (sentences[:1].lower() + sentences[1:]).removesuffix(".")


def _half(half: Sequence[Label], labels: Sequence[Label]) -> str:
    silent = [
        f"{label.row} claims no precision; it ran {label.ran}."
        for label in labels
        if not label.claim and label.ran
    ]
    return " ".join([*map(_label_text, half), *silent]) or "No row claims half precision."


def _float32(single: Sequence[Label]) -> str:
    return " ".join(_label_text(label) for label in single) or "No row claims float32."


def _label_text(label: Label) -> str:
    if label.verdict == "true":
        says = label.witnesses[0].says if label.witnesses else ""
        return f"{label.row}: yes, {says}."
    return f"{label.sentence}."


def _slower_than_float32(
    rows: Sequence[str], speedups: Mapping[str, Speedup], live: Sequence[Finding]
) -> str:
    slow = [row for row in rows if speedups[row].verdict is Verdict.SLOWER]
    fast = [row for row in rows if speedups[row].verdict in _NOT_SLOWER]
    inconclusive = [row for row in rows if row not in (*slow, *fast)]
    if not rows:
        return "No FP16/BF16 row was compared."
    texts = [f"{row}: yes, {speedups[row].value:.3g}x ({_why(row, live)})" for row in slow]
    texts += [f"{row}: no, {speedups[row].value:.3g}x" for row in fast]
    texts += [
        f"{row}: inconclusive ({reason_text(speedups[row].reason)}), measured "
        f"{speedups[row].value:.3g}x"
        for row in inconclusive
    ]
    return ". ".join(texts) + "."


_NOT_SLOWER = (Verdict.FASTER, Verdict.EQUIVALENT, Verdict.DIFFERENT_BUT_SMALL)


def _why(row: str, live: Sequence[Finding]) -> str:
    causes = [f.title for f in live if f.row == row and f.costs_time]
    return some(causes) if causes else "no cause found"


def _ceilings(ceiling: Ceiling, of_8_bits: Ceiling) -> str:
    """That of half precision, and beside it that of 8 bits, where it is known or was tried."""
    text = _ceiling(ceiling)
    if of_8_bits.best is not None:
        text += f" In INT8/FP8: {_range(of_8_bits, of_8_bits.best)}."
    elif of_8_bits.row:
        text += f" In INT8/FP8: not known ({of_8_bits.reason})."
    return text


def _ceiling(ceiling: Ceiling) -> str:
    if ceiling.best is None:
        return f"Not known: {ceiling.reason}."
    shares = ", ".join(f"{n.value:.0%} {n.name}" for n in ceiling.shares if n.value > 0.005)
    text = _range(ceiling, ceiling.best)
    return f"{text[:1].upper()}{text[1:]}. Of the float32 row's time: {shares}."


def _range(ceiling: Ceiling, best: Interval) -> str:
    text = f"typical {best.low:.2g}x, at most {best.high:.2g}x"
    if ceiling.brought is not None:
        text += f"; {ceiling.row} measured {ceiling.brought.value:.3g}x"
        text += f" over {ceiling.over}" if ceiling.over else ""
    return text


def _tensor_cores(half_rows: Sequence[Facts]) -> str:
    texts = []
    for facts in half_rows:
        if not facts.matrix_s or not facts.on_gpu:
            continue
        unknown = max(0.0, 1 - facts.tensor_core_share - facts.cuda_core_share)
        text = f"{facts.row.backend}: {facts.tensor_core_share:.0%} of its GEMM/conv time"
        text += f", {unknown:.0%} in unknown kernels" if unknown > 0.005 else ""
        missing = [work.obstacle_text for work in facts.work if work.obstacles]
        texts.append(f"{text}; {some(missing)}" if missing else text)
    return ". ".join(texts) + "." if texts else "No FP16/BF16 row was profiled on a GPU."


def _launch_bound(rows: Mapping[str, Facts], bound: Sequence[Finding]) -> str:
    if not bound:
        return _not_launch_bound(rows)
    texts = (
        f"{one.row}: yes, a CUDA graph would give {one.factor.value:.2g}x"
        if one.experiment and one.factor
        else f"{one.row}: yes"
        for one in bound
    )
    return "; ".join(texts) + "."


def _not_launch_bound(rows: Mapping[str, Facts]) -> str:
    """The answer without a launch-bound row; rows of unknown launch time are named."""
    unknown = [name for name, facts in rows.items() if facts.row.enqueue_s is None]
    if not any(facts.on_gpu for facts in rows.values()):
        return "Not known: requires a CUDA GPU."
    if len(unknown) == len(rows):
        return "Not known: the launch time was not measured."
    rest = f" Not known for {some(unknown)}: the launch time was not measured." if unknown else ""
    return f"No.{rest}"


def _timings(rows: Mapping[str, Facts]) -> str:
    if any(facts.row.measurement.is_reported for facts in rows.values()):
        return "Not measured here; the source of each row describes its timing."
    naive = [
        f"{facts.row.backend} {facts.row.enqueue_s * 1e3:.3g} ms instead of "
        f"{facts.row.latency.value * 1e3:.3g} ms"
        for facts in rows.values()
        if facts.row.enqueue_s is not None
        and facts.row.enqueue_s < 0.8 * facts.row.latency.value
        and facts.row.launch_bound is None
    ]
    text = "Each row is timed with CUDA events, or with the host clock around synchronised calls."
    return f"{text} A loop without synchronize could report {some(naive)}." if naive else text


def _tensorrt(engines: Sequence[Label]) -> str:
    return " ".join(_label_text(label) for label in engines) or "No TensorRT row was measured."


def _causes(live: Sequence[Finding], rows: Mapping[str, Facts]) -> str:
    texts = []
    for finding in (one for one in live if one.costs_time):
        gain = f" ({finding.factor.value:.3g}x)" if finding.factor else ""
        texts.append(f"{finding.row}: {finding.title}{gain}, {finding.status.value}")
    return f"{'; '.join(texts)}." if texts else f"{nothing_found(rows).capitalize()}."


def _accuracy(precisions: Sequence[Accuracy]) -> str:
    return " ".join(map(_accuracy_text, precisions)) or "No output was compared."


def _accuracy_text(precision: Accuracy) -> str:
    text = f"{precision.row}: {precision.reason}"
    if precision.remedy:
        text += f"; {precision.remedy}"
    if precision.keep_s:
        layers = ", ".join(precision.keep)
        text += f"; {layers} in float32 would add about {precision.keep_s * 1e3:.2g} ms"
    if precision.top1 is not None:
        text += f"; same top-1 class as the reference for {precision.top1:.1%} of the items"
    return f"{text}."
