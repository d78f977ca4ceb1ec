"""The result of a comparison in one sentence: the first line of every text and report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs

from precisionbench.analysis.groups import by_reference
from precisionbench.analysis.reasons import FEW_ROUNDS, why
from precisionbench.analysis.speedups import speedup_over, speedups
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.findings import (
    UNSOUND_OUTPUTS,
    DiagnosisData,
    Finding,
    FindingStatus,
)
from precisionbench.diagnosis.row_labels import by_label, data_by_label, row_labels_of
from precisionbench.report import formatting
from precisionbench.report.disturbances import causes_text
from precisionbench.report.rows import ratio_texts, speedup_value
from precisionbench.results import BackendResult, ComparisonData, Speedup
from precisionbench.spec_syntax import without_batch
from precisionbench.statistics import Verdict

_Speedups = Mapping[str, Speedup]
_REPORTED = "the figures were reported by others, without intervals"
_MAX_PARTS = 4  # of a comparison with several references; the table has all of them


def headline(
    data: ComparisonData,
    found: Mapping[str, Speedup] | None = None,
    diagnosis: DiagnosisData | None = None,
) -> str:
    """The result in one sentence: the fastest sound row, or why there is no answer.

    With several references there is a sentence for each model, and one on how they compare. Of
    several batch sizes it is about the one with the highest throughput.

    A row is sound if its label and its output hold. Where nothing is faster than the reference
    because rows are launch-bound, the sentence says what a CUDA graph would give. A row with a
    label is called by it.

    Args:
        data: the comparison.
        found: speed-ups over the reference, by row; None computes them.
        diagnosis: of the comparison; None computes it.
    """
    found = speedups(data) if found is None else found
    diagnosis = diagnosis_of(data) if diagnosis is None else diagnosis
    names = row_labels_of(data)
    found = {names.get(name, name): one for name, one in found.items()}
    shown, labelled = data_by_label(data), by_label(diagnosis)
    if not shown.references:
        return f"{_sentence(shown, found, labelled)}."
    return " ".join(f"{text}." for text in _sentences(shown, found, labelled))


def _sentences(data: ComparisonData, found: _Speedups, diagnosis: DiagnosisData) -> Iterator[str]:
    """A sentence for each reference, without its batch size; then one on the models."""
    parts: dict[str, ComparisonData] = {}
    for reference, part in by_reference(data).items():
        known = parts.get(without_batch(reference))
        if known is None or _most_items(part) > _most_items(known):
            parts[without_batch(reference)] = part
    for part in [*parts.values()][:_MAX_PARTS]:
        own = {row.backend: found[row.backend] for row in part.results if row.backend in found}
        yield _sentence(part, own, diagnosis)
    if len(parts) > _MAX_PARTS:
        yield f"{len(parts) - _MAX_PARTS} more references are in the table"
    yield from _between_models(data, list(parts.values()), diagnosis)


def _most_items(data: ComparisonData) -> float:
    """The highest throughput of any row, or calls per second."""
    return max((_rate(row) for row in data.results), default=0.0)


def _rate(row: BackendResult) -> float:
    return (row.batch_size or 1) / row.latency.value


def _between_models(
    data: ComparisonData, parts: Sequence[ComparisonData], diagnosis: DiagnosisData
) -> Iterator[str]:
    """How the fastest sound rows of two models compare, where no row is compared with another's."""
    models = [{row.model for row in part.results} for part in parts]
    if len(data.models) < 2 or any(len(names) != 1 for names in models):
        return
    unsound, fastest = _unsound(diagnosis), dict[str, BackendResult]()
    for row in (row for part in parts for row in part.results if row.backend not in unsound):
        best = fastest.setdefault(row.model, row)
        fastest[row.model] = row if _rate(row) > _rate(best) else best
    first, *others = fastest.values()
    for other in others[:_MAX_PARTS]:
        over = speedup_over(data, first.backend, other.backend)
        ratio = _ratio(attrs.evolve(data, reference=first.backend, references={}), over)
        yield f"The fastest rows of {first.model} and {other.model}: {other.backend} is {ratio}"


def _sentence(data: ComparisonData, found: _Speedups, diagnosis: DiagnosisData) -> str:
    if not data.results:
        return "No row could be measured"
    if not found:
        return _without_reference(data)
    others = {name: one for name, one in found.items() if name != data.reference}
    if not others:
        return _alone(data)
    unsound = _unsound(diagnosis)
    sound = {name: one for name, one in others.items() if name not in unsound}
    faster = {name: one for name, one in sound.items() if one.verdict is Verdict.FASTER}
    if faster:
        best = _largest(faster)
        return _winner(data, sound, best, diagnosis) + _left_out(others, unsound, faster[best])
    no_winner = _launch_bound(data, sound, diagnosis) or _no_winner(data, sound)
    return (no_winner + _left_out(others, unsound, None)).removeprefix("; ")


def _without_reference(data: ComparisonData) -> str:
    best = min(data.results, key=lambda row: row.latency.value / (row.batch_size or 1))
    return (
        f"No speed-ups: the reference {data.reference} could not be measured; "
        f"{best.backend} took {formatting.duration(best.latency)}"
    )


def _alone(data: ComparisonData) -> str:
    row = next(row for row in data.results if row.backend == data.reference)
    rest = "no other row could run" if data.failures else "add a backend to compare it with"
    return f"Only {row.backend} was measured ({formatting.duration(row.latency)}); {rest}"


def _unsound(diagnosis: DiagnosisData) -> dict[str, str]:
    """Why rows do not count, by row: a false label, or an output out of tolerance."""
    labels = {label.row: label.sentence for label in diagnosis.labels if label.is_wrong}
    outputs = {p.row: p.reason for p in diagnosis.precisions if p.verdict in UNSOUND_OUTPUTS}
    return {**labels, **outputs}


def _largest(rows: _Speedups) -> str:
    return max(rows, key=lambda name: rows[name].value)


def _ratio(data: ComparisonData, found: Speedup) -> str:
    """Such as `4.27x eager (95 % CI 4.22 to 4.32)`."""
    _, low, high = ratio_texts(found)
    if found.reason in FEW_ROUNDS and low == high:
        return f"{speedup_value(found)} {data.reference} (in one round)"
    what = "range" if found.reason in FEW_ROUNDS else "95 % CI"
    return f"{speedup_value(found)} {data.reference} ({what} {low} to {high})"


def _winner(data: ComparisonData, sound: _Speedups, best: str, diagnosis: DiagnosisData) -> str:
    text = f"{best} is fastest: {_ratio(data, sound[best])}"
    fine = any(one.row == best and one.verdict == "fine" for one in diagnosis.precisions)
    bound = next((one for one in _bound(diagnosis) if one.row == best), None)
    return (
        text
        + (", output within tolerance" if fine else "")
        + _level(data, sound, best)
        + (f"; launch-bound: a CUDA graph would give {_gain(bound)}" if bound else "")
    )


def _level(data: ComparisonData, sound: _Speedups, best: str) -> str:
    """The row that comes next, where the fastest one is not clearly faster than it."""
    rest = {name: one for name, one in sound.items() if name != best}
    measured = {row.backend for row in data.results}
    if not rest or not {best, *rest} <= measured:
        return ""
    following = _largest(rest)
    is_faster = speedup_over(data, following, best).verdict is Verdict.FASTER
    return "" if is_faster or data.schedule == "sequential" else f"; {following} is close"


def _left_out(others: _Speedups, unsound: Mapping[str, str], best: Speedup | None) -> str:
    """The fastest of the rows that do not count, if it seemed faster than the one that does."""
    rows = {
        name: one for name, one in others.items()
        if name in unsound and (best is None or one.value > best.value)
    }  # fmt: skip
    if not rows:
        return ""
    name = _largest(rows)
    return f"; {name} ({speedup_value(rows[name])}) does not count: {unsound[name]}"


def _bound(diagnosis: DiagnosisData) -> list[Finding]:
    """Launch-bound rows whose replay as a CUDA graph was measured."""
    return [
        one for one in diagnosis.findings
        if one.cause == "launch-bound" and one.status is FindingStatus.CONFIRMED and one.factor
    ]  # fmt: skip


def _gain(finding: Finding) -> str:
    assert finding.factor is not None
    return f"{finding.factor.value:.2g}x"


def _launch_bound(data: ComparisonData, sound: _Speedups, diagnosis: DiagnosisData) -> str:
    """What a CUDA graph would give the row that would be fastest with it; may be empty."""
    bound = {one.row: one for one in _bound(diagnosis) if one.row in (*sound, data.reference)}
    replays = {row.backend: row.graph_s for row in data.results if row.backend in bound}
    replays = {name: replay_s for name, replay_s in replays.items() if replay_s is not None}
    if not replays:
        return ""
    best = min(replays, key=lambda name: replays[name] or 0.0)
    now = f"; without it, {best} measured {_ratio(data, sound[best])}" if best in sound else ""
    return f"{best} is launch-bound: a CUDA graph would give {_gain(bound[best])}{now}"


def _no_winner(data: ComparisonData, sound: _Speedups) -> str:
    inconclusive = {n: one for n, one in sound.items() if one.verdict is Verdict.INCONCLUSIVE}
    if inconclusive:
        return _inconclusive(data, inconclusive)
    if not sound:
        return ""
    best = _largest(sound)
    if sound[best].verdict is Verdict.SLOWER:
        return f"{data.reference} is fastest: the next, {best}, is {_ratio(data, sound[best])}"
    return f"No row is faster than {data.reference}: {best} is {_ratio(data, sound[best])}"


def _inconclusive(data: ComparisonData, rows: _Speedups) -> str:
    best = _largest(rows)
    disturbed = causes_text(data)
    if any(row.measurement.is_reported for row in data.results):
        ratio = f"{speedup_value(rows[best])} {data.reference}"
        return f"Inconclusive: {best} measured {ratio}; {_REPORTED}"
    reason = f"the machine was busy ({disturbed})" if disturbed else why(data, best, rows[best])
    return f"Inconclusive: {best} measured {_ratio(data, rows[best])}; {reason}"
