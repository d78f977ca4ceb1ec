"""From a measured row and a published number to the ledger of the gap between them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import attrs

from precisionbench.diagnosis.facts import facts_of
from precisionbench.diagnosis.gap.derived import derived_factors
from precisionbench.diagnosis.gap.ledger import Factor, GapData, Kind, Rate, ledger
from precisionbench.diagnosis.gap.measured import measured_factors
from precisionbench.diagnosis.gap.states import PRECISION
from precisionbench.diagnosis.labels import BEYOND, RATE, precision_label_of
from precisionbench.diagnosis.models import input_of, item_flops
from precisionbench.diagnosis.plausibility import (
    IMPOSSIBLE,
    Claim,
    Judgement,
    judge,
    judgements_of,
    measured_flops,
)
from precisionbench.diagnosis.published_conditions import (
    Conditions,
    conditions_of,
    differences,
    model_difference,
)
from precisionbench.errors import IncomparableError, SpecError
from precisionbench.published.record import STATUSES, Record
from precisionbench.reference_data.peaks import DeviceSpec, devices_named
from precisionbench.results import BackendResult, ComparisonData, WorkloadInfo
from precisionbench.results.measurement import REPORTED
from precisionbench.statistics import Interval

_AS_LABELLED = "as labelled: "
_EXACT = Interval(1.0, 1.0, 1.0)


def gap_of(
    data: ComparisonData,
    start: str,
    goal: str,
    record: Record,
    records: Sequence[Record],
    extra: Sequence[Factor] = (),
) -> GapData:
    """The ledger from one row, through the comparison's other rows, to a published number.

    Args:
        data: the comparison.
        start: name of the row whose rate is at the bottom.
        goal: name of the last measured row, usually the fastest.
        record: the published number.
        records: published numbers to take pairs from.
        extra: factors that the caller knows, each with its source.

    Raises:
        IncomparableError: one of the two is not a rate, or they are of different models or inputs.
        SpecError: one of the caller's factors is among the measured ones, or is given twice.
    """
    check_comparable(data.workload, record)
    rows = {row.backend: row for row in data.results}
    first, last = (conditions_of(data, rows[name]) for name in (start, goal))
    judged = _judged(data, rows[start], first)
    derived, unknown = derived_factors(
        last, record, records, (_device(last.device), _device(record.device))
    )
    here = _named_as_labelled(
        _label(data, rows[start], judged), measured_factors(data, start, goal)
    )
    taken = {factor.name for factor in extra}
    _check_new(extra, here)
    factors = [*here, *extra, *(factor for factor in derived if factor.name not in taken)]
    return ledger(
        _measured(rows[start], data),
        _published(record),
        factors,
        differences=[one.sentence for one in differences(record, first)],
        claims=[one.sentence for one in (*judged, *judgements_of(record))],
        notes=[*_doubts(data, record), *_unknown(unknown, taken)],
    )


def check_comparable(workload: WorkloadInfo, record: Record) -> None:
    """Raise where a published number cannot be compared with a rate of a model.

    Args:
        workload: the measured model and its inputs.
        record: the published number.

    Raises:
        IncomparableError: it is of another model or input shape, or is not a rate.
    """
    model, ours = workload.model, input_of(workload)
    difference = model_difference(record, model)
    if difference is not None and difference.is_known:
        raise IncomparableError(
            f"{record.id} is of {record.model}, and {model} was measured",
            f"measure {record.model}, or choose a number from `precisionbench published`",
        )
    if ours and record.input and _dimensions(ours) != _dimensions(record.input):
        raise IncomparableError(
            f"{record.id} is of {record.model} with inputs of {record.input}, and {model} was "
            f"measured with inputs of {ours}",
            f"measure {record.model} with inputs of {record.input}, or choose a number from "
            "`precisionbench published`",
        )
    _published(record)


def _dimensions(shape: str) -> list[str]:
    """The dimensions of an input, in any memory order."""
    return sorted(shape.split("x"))


def _doubts(data: ComparisonData, record: Record) -> Iterator[str]:
    """Assumptions that the whole ledger depends on."""
    model = data.workload.model
    if model_difference(record, model) is not None:
        yield f"not known whether {model} is {record.model}; the ledger is valid only if it is"
    if record.status == "unverified":
        yield f"the published number is unverified: {STATUSES['unverified']}"
    if record.doubt:
        yield f"the published number is doubtful: {record.doubt}"
    if record.imported_from:
        yield f"the published number was imported from {record.imported_from}"


def _unknown(unknown: Sequence[tuple[str, str]], taken: Collection[str]) -> Iterator[str]:
    """Differences that neither a derived factor nor one of the caller's explains."""
    for name, why in unknown:
        if not any(one == name or one.startswith(f"{name}:") for one in taken):
            yield f"no factor for {name}: {why}"
    yield "differing conditions without a factor are part of the unexplained rest"


def _device(name: str | None) -> DeviceSpec | None:
    found = devices_named(name) if name else ()
    return found[0] if len(found) == 1 else None


def _measured(row: BackendResult, data: ComparisonData) -> Rate:
    if row.throughput is None:
        raise IncomparableError(
            f"{row.backend} has no rate, because its batch size is not known",
            "measure it with a batch size (batch_size, --batch-size)",
        )
    how = "reported" if data.launcher == REPORTED else "measured"
    where = f"{how} {data.created[:10]}"
    return Rate(f"{row.backend}, batch {row.batch_size}", row.throughput, where)


def _published(record: Record) -> Rate:
    rate = record.items_per_s
    if rate is None:
        raise IncomparableError(
            f"{record.id} is a latency of unknown batch size, so it has no rate",
            "choose another published number",
        )
    labels = [record.status] + ["doubtful"] * bool(record.doubt)
    labels += ["imported"] * bool(record.imported_from)
    where = f"{record.source_title}, {record.source_url} [{', '.join(labels)}]"
    return Rate(record.id, Interval(rate, rate, rate), where)


def _judged(data: ComparisonData, row: BackendResult, measured: Conditions) -> list[Judgement]:
    """Whether the measured rate is possible in the claimed precision, for each model variant."""
    device = _device(measured.device)
    costs = measured_flops(facts_of(data, row))
    known = item_flops(data.workload.model, measured.variant or "", measured.input)
    if device is None or row.throughput is None or measured.precision is None:
        return []
    rate = row.throughput.value
    flops = [costs] if costs else list(known)
    return [judge(Claim(rate, measured.precision, device, one)) for one in flops]


def _label(data: ComparisonData, row: BackendResult, judged: Sequence[Judgement]) -> list[Factor]:
    """A factor of exactly 1 that corrects the name of a baseline whose label is false."""
    label = precision_label_of(facts_of(data, row))
    is_impossible = bool(judged) and all(map(_is_beyond_doubt, judged))
    if not label.is_wrong and not is_impossible:
        return []
    extent = "only partly" if label.verdict == "partly" and not is_impossible else "not"
    is_seen = any(w.against and w.name != RATE for w in label.witnesses)
    ran = f"it ran {label.ran}" if is_seen else "the precision that it ran in is not known"
    seen = [label.sentence] if is_seen or not is_impossible else []
    return [
        Factor(
            f"the baseline is {extent} {label.claim or 'in the precision of its label'}",
            Kind.MEASURED if is_seen else Kind.DERIVED,
            _EXACT,
            "; ".join([*seen, *(one.sentence for one in judged if is_impossible)]),
            f"{ran}; the rate is unchanged, but it already includes the gain of that precision",
            is_confirmed=is_seen or all(_peak_is_verified(one) for one in judged),
        )
    ]


def _named_as_labelled(label: Sequence[Factor], measured: Sequence[Factor]) -> list[Factor]:
    """After a false label, mark the first change of precision as a change of labels only."""
    steps = [place for place, one in enumerate(measured) if f"{PRECISION}: " in one.name]
    found = list(measured)
    if label and steps:
        first = steps[0]
        found[first] = attrs.evolve(found[first], name=f"{_AS_LABELLED}{found[first].name}")
    return [*label, *found]


def _check_new(extra: Sequence[Factor], here: Sequence[Factor]) -> None:
    """Raise where a factor would be counted twice."""
    seen = {one.name.removeprefix(_AS_LABELLED) for one in here}
    for factor in extra:
        if factor.name.removeprefix(_AS_LABELLED) in seen:
            raise SpecError(
                f"the factor {factor.name!r} is already in the ledger and would count twice",
                "leave it out, choose an earlier last measured row (through), or rename it",
            )
        seen.add(factor.name)


def _is_beyond_doubt(judged: Judgement) -> bool:
    """Whether the rate exceeds the peak by more than boards differ in their clocks."""
    claim = judged.claim
    if judged.verdict != IMPOSSIBLE or claim is None or claim.peak is None:
        return False
    return claim.least_flop_rate > BEYOND * claim.peak.value


def _peak_is_verified(judged: Judgement) -> bool:
    peak = judged.claim.peak if judged.claim else None
    return peak is not None and peak.status != "unverified"
