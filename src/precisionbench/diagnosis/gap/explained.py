"""From a measured row and a published number to the ledger of the gap between them."""

from __future__ import annotations

from collections.abc import Sequence

from precisionbench.devices import Device, named
from precisionbench.diagnosis.claims import (
    IMPOSSIBLE,
    Claim,
    Judgement,
    item_flops,
    judge,
    judgements_of,
    measured_flops,
)
from precisionbench.diagnosis.facts import facts_of
from precisionbench.diagnosis.gap.derived import derived_factors
from precisionbench.diagnosis.gap.ledger import Factor, GapData, Kind, Rate, ledger
from precisionbench.diagnosis.gap.measured import measured_factors
from precisionbench.diagnosis.labels import label_of
from precisionbench.diagnosis.unlike import Conditions, conditions_of, differences
from precisionbench.errors import IncomparableError
from precisionbench.published.record import Record
from precisionbench.results import BackendResult, ComparisonData
from precisionbench.statistics import Interval

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
        goal: name of the row at which measuring ends, the fastest as a rule.
        record: the published number.
        records: published numbers to take pairs from.
        extra: factors that the caller knows, each with its source.

    Raises:
        IncomparableError: one of the two is no rate.
    """
    rows = {row.backend: row for row in data.results}
    mine, last = rows[start], conditions_of(data, rows[goal])
    first = conditions_of(data, mine)
    judged = _judged(data, mine, first)
    derived, unknown = derived_factors(
        last, record, records, (_device(last.device), _device(record.device))
    )
    taken = {factor.name for factor in extra}
    factors = [
        *_label(data, mine, judged),
        *measured_factors(data, start, goal),
        *extra,
        *(factor for factor in derived if factor.name not in taken),
    ]
    return ledger(
        _measured(mine, data),
        _published(record),
        factors,
        differences=[one.sentence for one in differences(record, first)],
        claims=[one.sentence for one in (*judged, *judgements_of(record))],
        notes=[f"part of what is unexplained: {text}" for text in unknown if text not in taken],
    )


def _device(name: str | None) -> Device | None:
    found = named(name) if name else ()
    return found[0] if len(found) == 1 else None


def _measured(row: BackendResult, data: ComparisonData) -> Rate:
    if row.throughput is None:
        raise IncomparableError(
            f"{row.backend} has no rate, because it is not known how many items a call serves",
            "measure it with batch_size=",
        )
    return Rate(
        f"{row.backend}, batch {row.batch_size}", row.throughput, f"measured {data.created[:10]}"
    )


def _published(record: Record) -> Rate:
    rate = record.items_per_s
    if rate is None:
        raise IncomparableError(
            f"{record.id} is a latency whose batch is not known, and so no rate",
            "choose another published number",
        )
    where = f"{record.source_title}, {record.source_url} [{record.status}]"
    return Rate(record.id, Interval(rate, rate, rate), where)


def _judged(data: ComparisonData, row: BackendResult, measured: Conditions) -> list[Judgement]:
    """What arithmetic says of the measured row's own claim."""
    device = _device(measured.device)
    costs = measured_flops(facts_of(data, row))
    flops = [costs] if costs else list(item_flops(data.workload.model, measured.variant or ""))
    if device is None or not flops or row.throughput is None or measured.precision is None:
        return []
    rate = row.throughput.value
    precision = "fp16" if measured.precision == "mixed" else measured.precision
    return [judge(Claim(rate, precision, device, flops[0], unit="img/s"))]


def _label(data: ComparisonData, row: BackendResult, judged: Sequence[Judgement]) -> list[Factor]:
    """The first step where a row is not what its name says: its rate stays, its name changes."""
    label = label_of(facts_of(data, row))
    impossible = [one.sentence for one in judged if one.verdict == IMPOSSIBLE]
    if not label.is_wrong and not impossible:
        return []
    ran = f"it ran {label.ran}; " if label.is_wrong else ""
    return [
        Factor(
            f"the baseline is not {label.claim or 'what its name says'}",
            Kind.MEASURED,
            _EXACT,
            "; ".join(impossible) or "what was seen of the row",
            f"{ran}the rate stays, its name changes: half precision is in it already",
            is_confirmed=True,
        )
    ]
