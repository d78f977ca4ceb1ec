"""The texts of each row in every report: words and rounding in one place."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import attrs

from precisionbench._internal.interval_text import ends
from precisionbench.analysis.data_quality import Observation, observations
from precisionbench.analysis.disturbances import disturbances
from precisionbench.analysis.interval_notes import interval_notes
from precisionbench.analysis.reasons import FEW_ROUNDS, short_reason
from precisionbench.diagnosis.facts import facts_of_rows
from precisionbench.diagnosis.labels import label_of
from precisionbench.errors import requirement_of
from precisionbench.report import formatting
from precisionbench.report.references import compared_with
from precisionbench.results import (
    BackendFailure,
    BackendResult,
    ComparisonData,
    Speedup,
)
from precisionbench.results.comparison_data import CALL
from precisionbench.statistics import Verdict

INTERVALS_NOTE = "Speed-ups: 95 % simultaneous CI; ±: 95 % CI with run-to-run variance."
SEQUENTIAL_NOTE = (
    "Rows were measured one after another in one process: speed-ups are inconclusive; ±: 95 % CI, "
    "with the run-to-run variance that is known of the device."
)
_UNIT = {True: "items/s", False: "calls/s"}


@attrs.frozen
class RowText:
    """One measured row as text.

    Attributes:
        backend: the row's name, after its label where it has one.
        latency: with unit.
        width: the interval's half-width.
        throughput: items per second, or calls per second if the batch size is unknown.
        speedup: against the reference.
        agreement: the largest relative L2 error, or why there is none.
    """

    backend: str
    latency: str
    width: str
    throughput: str
    speedup: str
    agreement: str


def title(data: ComparisonData) -> str:
    """The model and the batch."""
    models = ", ".join(f"{name} ({info.model})" for name, info in data.models.items())
    return f"{models or data.workload.model}{_batch(data)} on {device(data)}"


def _batch(data: ComparisonData) -> str:
    sizes = sorted({row.batch_size for row in data.results if row.batch_size})
    if data.references and len(sizes) > 1:
        return f", batches {', '.join(map(str, sizes))}"
    size = data.workload.batch_size
    return "" if size is None else f", batch {size}"


def device(data: ComparisonData) -> str:
    """The name of the GPU or the CPU."""
    environment = data.environment
    return environment.gpu.name if environment.gpu else environment.cpu


def versions(data: ComparisonData) -> str:
    """The main versions, the seed and the date."""
    environment = data.environment
    parts = [f"torch {environment.torch}"]
    if environment.gpu:
        parts += [f"cuDNN {environment.cudnn}", f"driver {environment.gpu.driver or 'unknown'}"]
    else:
        parts.append(f"{environment.threads} thread{'s' * (environment.threads != 1)}")
    return ", ".join([*parts, f"seed {data.seed}", data.created])


def throughput_unit(data: ComparisonData) -> str:
    """`items/s`, or `calls/s` if the batch size is unknown."""
    known = [row.batch_size for row in data.results] if data.models else []
    return _UNIT[data.workload.batch_size is not None or bool(known and all(known))]


def row_text(data: ComparisonData, row: BackendResult, speedup: Speedup | None) -> RowText:
    """A measured row as text.

    Args:
        data: the comparison.
        row: one of its results.
        speedup: of the row over the reference; None if there is none.
    """
    return RowText(
        backend=f"{row.label} ({row.backend})" if row.label else row.backend,
        latency=formatting.duration(row.latency),
        width=formatting.half_width(row.latency),
        throughput=formatting.number(row.throughput or row.latency.inverse_of(1)),
        speedup=_speedup_text(data, row, speedup),
        agreement=_agreement_text(data, row),
    )


def _speedup_text(data: ComparisonData, row: BackendResult, found: Speedup | None) -> str:
    if found is None:
        return "-"
    if data.is_reference(row.backend):
        return "1 (ref.)"
    return speedup_value(found)


def speedup_value(found: Speedup) -> str:
    """A speed-up without its interval, such as `4.27x`.

    Args:
        found: of a row.
    """
    digits = min(3, formatting.supported_digits(found.interval))
    return f"{formatting.significant(found.value, digits)}x"


def interval_text(data: ComparisonData, row: BackendResult, found: Speedup | None) -> str:
    """The 95 % confidence interval of a row's speed-up; `-` without one, or with too few rounds.

    Args:
        data: the comparison.
        row: one of its results.
        found: its speed-up; None if there is none.
    """
    if found is None or data.is_reference(row.backend) or found.reason in FEW_ROUNDS:
        return "-"
    _, low, high = ratio_texts(found)
    return f"{low} to {high}"


def verdict_text(data: ComparisonData, row: BackendResult, found: Speedup | None) -> str:
    """The verdict of a row in words; empty for the reference and without a speed-up.

    Args:
        data: the comparison.
        row: one of its results.
        found: its speed-up; None if there is none.
    """
    return "" if found is None or data.is_reference(row.backend) else verdict_words(found)


def reservation(data: ComparisonData, row: BackendResult, found: Speedup | None) -> str:
    """The verdict of a row that is neither faster nor slower; empty for all others.

    Rows that were measured one after another are all inconclusive, as the legend states once.

    Args:
        data: the comparison.
        row: one of its results.
        found: its speed-up; None if there is none.
    """
    if found is None or data.schedule == "sequential":
        return ""
    if found.verdict in (Verdict.FASTER, Verdict.SLOWER):
        return ""
    return verdict_text(data, row, found)


def ratio_texts(found: Speedup) -> tuple[str, str, str]:
    """A speed-up and the ends of its interval, without a sign.

    Args:
        found: of a row.
    """
    digits = max(3, formatting.supported_digits(found.interval))
    text = partial(formatting.significant, digits=digits)
    return text(found.value), *ends(found.interval, text)


_WORDS = {
    Verdict.FASTER: "faster",
    Verdict.SLOWER: "slower",
    Verdict.EQUIVALENT: "the same within 1 %",
    Verdict.DIFFERENT_BUT_SMALL: "different, by less than 1 %",
}


def verdict_words(found: Speedup) -> str:
    """The verdict of a speed-up in words, such as `inconclusive (too few rounds)`.

    Args:
        found: of a row.
    """
    if found.verdict is Verdict.INCONCLUSIVE:
        return f"inconclusive ({short_reason(found.reason)})"
    return _WORDS[found.verdict]


def legend(data: ComparisonData) -> str:
    """The legend of the table's speed-ups and intervals."""
    intervals = SEQUENTIAL_NOTE if data.schedule == "sequential" else INTERVALS_NOTE
    return " ".join([intervals, *_compared(data), *_per_item(data)])


def _compared(data: ComparisonData) -> list[str]:
    """A note on what rows are compared with, where there are several references."""
    base = compared_with(data)
    return [f"Each row is compared with {base}."] if base else []


def _per_item(data: ComparisonData) -> list[str]:
    """A note on rows with another batch size, which are compared by items per second."""
    batches = {row.backend: row.batch_size for row in data.results}
    if all(size == batches.get(data.reference_of(name), size) for name, size in batches.items()):
        return []
    return ["Rows of another batch are compared by items per second."]


def has_calls(data: ComparisonData) -> bool:
    """Whether the rows are calls of functions, and not backends of a model."""
    names = [row.name for row in data.results] + [row.name for row in data.failures]
    return set(names) == {CALL}


def _agreement_text(data: ComparisonData, row: BackendResult) -> str:
    if data.is_reference(row.backend):
        compared = any(other.agreement for other in data.results if other is not row)
        return "(ref.)" if compared or not has_calls(data) else "-"
    if row.agreement is None:
        return "-"
    if row.agreement.nonfinite_count:
        return f"{row.agreement.nonfinite_count:,} non-finite"
    if row.agreement.caveats:
        return "see notes"
    error = row.agreement.relative_l2
    return "-" if error is None else formatting.scientific(error)


def memory_text(row: BackendResult) -> str:
    """Peak memory of torch's allocator, or of the driver for engines that bypass it; may be empty.

    Args:
        row: of the comparison.
    """
    size = row.peak_memory_bytes
    return formatting.scaled(size, "B") if size else ""


def energy_text(row: BackendResult) -> str:
    """Energy per item, or per call if the batch size is unknown; empty if not measured.

    Args:
        row: of the comparison.
    """
    per_item_j, per_call_j = row.energy_per_item_j, row.passes.energy_j
    if per_item_j is not None:
        return f"{_joules(per_item_j)}/item"
    return f"{_joules(per_call_j)}/call" if per_call_j is not None else ""


def _joules(value: float) -> str:
    if value >= 1:
        return f"{formatting.significant(value, 3)} J"
    return f"{formatting.significant(value * 1e3, 3)} mJ"


def wrong_labels(data: ComparisonData) -> list[str]:
    """Sentences on rows that did not run in the precision they claim."""
    rows = facts_of_rows(data).values()
    labels = (label_of(facts) for facts in rows if facts.row.is_profiled)
    return [label.sentence for label in labels if label.is_wrong]


def notes(
    data: ComparisonData,
    observed: Mapping[str, Sequence[Observation]] | None = None,
    without: Collection[str] = (),
) -> list[tuple[list[str], str]]:
    """Warnings and notes as (names of rows, sentence), each sentence once.

    Notes on the whole run come first, without rows. Those on outliers and on wide intervals come
    last: they qualify a row's figures least, as its interval covers both.

    Args:
        data: the comparison.
        observed: observations on the samples, if they are computed already.
        without: codes of observations that are left out.
    """
    about_all = (*_interruption(data), *data.notes)
    shown = _shows_clocks(data)
    rows_by_sentence: dict[str, list[str]] = {sentence: [] for sentence in about_all}
    minor: set[str] = set()
    observed = observations(data) if observed is None else observed
    for row in data.results:
        caveats = row.agreement.caveats if row.agreement else ()
        seen = [o for o in observed[row.backend] if not (shown and o.code == "throttled")]
        seen += [o for o in interval_notes(data)[row.backend] if o.code not in without]
        minor |= {found.text for found in seen if found.code in _MINOR}
        for sentence in (*row.warnings, *(found.text for found in seen), *caveats):
            rows_by_sentence.setdefault(sentence, []).append(row.label or row.backend)
    order = sorted(rows_by_sentence, key=lambda sentence: sentence in minor)
    return [(rows_by_sentence[sentence], sentence) for sentence in order]


_MINOR = ("outliers", "wide_interval")


def _shows_clocks(data: ComparisonData) -> bool:
    """Whether the sentence above the table already reports throttling."""
    found = disturbances(data)
    return found is not None and any(one.kind == "clocks" for one in found.causes)


def _interruption(data: ComparisonData) -> tuple[str, ...]:
    """A note on a run that was interrupted."""
    ended = [row.measurement for row in data.results if row.measurement.ended_by == "interrupted"]
    if not ended:
        return ()
    rounds = max(len(measurement.rounds) for measurement in ended)
    profiled = any(row.evidence is not None for row in data.results)
    unchecked = "" if profiled else "; labels are not verified"
    rounds_were = "rounds were" if rounds != 1 else "round was"
    return (f"the run was interrupted: {rounds} {rounds_were} finished{unchecked}",)


def failure_text(failure: BackendFailure) -> str:
    """Why a row could not be measured, and the remedy."""
    return f"{failure.reason}; {failure.remedy}" if failure.remedy else failure.reason


def failed(data: ComparisonData) -> list[tuple[str, str]]:
    """Rows that failed as (name, reason with remedy); without those that are not available.

    Args:
        data: the comparison.
    """
    rows = [one for one in data.failures if one.error != _UNAVAILABLE]
    return [(one.label or one.backend, failure_text(one)) for one in rows]


def unavailable(data: ComparisonData) -> str:
    """All rows that are not available, in one sentence; may be empty.

    Args:
        data: the comparison.
    """
    rows = [one for one in data.failures if one.error == _UNAVAILABLE]
    texts = [f"{one.label or one.backend} (requires {requirement_of(one.reason)})" for one in rows]
    remedy = rows[0].remedy if len(rows) == 1 else "`precisionbench backends` lists remedies"
    return f"Not available: {', '.join(texts)}; {remedy}".rstrip("; ") if rows else ""


_UNAVAILABLE = "BackendUnavailableError"
