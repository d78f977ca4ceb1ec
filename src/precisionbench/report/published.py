"""Published numbers, as text for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from precisionbench.diagnosis.claims_check import KINDS, Contradiction, contradictions
from precisionbench.diagnosis.plausibility import judgements_of
from precisionbench.published import Record
from precisionbench.published.record import METRICS, MS, STATUSES
from precisionbench.report.plain import WIDTH, plain_text, styled, widen
from precisionbench.safe_text import line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text
_LEGEND = (
    "Rates are per accelerator; none was measured here.",
    "One of them in detail: precisionbench published --id ID",
    "Fewer: precisionbench published --device xavier --model resnet50",
)
_UNKNOWN = "not stated"
_STYLES = {"reported": "yellow", "unverified": "red"}
_WHOLE_FROM = 100.0  # rates from here on are shown without decimals


def to_text(records: Sequence[Record], width: int = WIDTH) -> str:
    """A list of records as plain text.

    Args:
        records: to be shown.
        width: maximum number of columns.
    """
    return plain_text(lambda console: show(records, console), width)


def show(records: Sequence[Record], console: Console) -> None:
    """Write a list of records to a rich console, two lines for each, by device.

    An id has a line of its own, so that it can be copied.

    Args:
        records: to be shown.
        console: to write to.
    """
    widen(console)
    for device in dict.fromkeys(record.device for record in records):
        console.print(styled(device, style="bold"))
        for record in records:
            if record.device == device:
                console.print(_heading(record), soft_wrap=True)
                console.print(styled(_line(record)), soft_wrap=True)
        console.print()
    for hint in _LEGEND:
        console.print(styled(hint, style="dim"))


def _heading(record: Record) -> Text:
    """The id, and whether the number is to be relied on; in a second line if the first is full."""
    text = styled(f"  {record.id}")
    labels = [(record.status, _STYLES[record.status])] if record.status != "cited" else []
    labels += [("doubtful", "red")] if record.doubt else []
    if record.imported_from:
        labels.append((line(f"imported from {Path(record.imported_from).name}"), "cyan"))
    width = text.cell_len + sum(len(label) + 2 for label, _ in labels)
    text.append("\n    " if labels and width > WIDTH else "")
    for label, style in labels:
        text.append(f"  {label}", style)
    return text


def _line(record: Record) -> str:
    batch = "batch ?" if record.batch is None else f"batch {record.batch}"
    if record.dla_batch is not None:
        batch += f"+{record.dla_batch}"
    cells = (
        f"{_figure(record):>10} {record.unit:<11}",
        f"{record.precision or '?':<5}",
        f"{batch:<12}",
        f"{record.engines if record.n_accelerators == 1 else 'GPU':<12}",
        record.metric,
    )
    return f"  {'  '.join(cells)}".rstrip()


def _figure(record: Record) -> str:
    value = record.value_per_accelerator
    if record.unit == MS or value < _WHOLE_FROM:
        return f"{value:.4g}"
    return f"{value:,.0f}"


def card_text(record: Record, width: int = WIDTH, among: Iterable[Record] = ()) -> str:
    """One record in full as plain text.

    Args:
        record: to be shown.
        width: maximum number of columns.
        among: all records, with which it is compared.
    """
    return plain_text(lambda console: show_card(record, console, among), width)


def show_card(record: Record, console: Console, among: Iterable[Record] = ()) -> None:
    """Write one record in full to a rich console.

    Args:
        record: to be shown.
        console: to write to.
        among: all records, with which it is compared.
    """
    widen(console)
    console.print(styled(record.id, style="bold"), soft_wrap=True)
    console.print(styled(f"  {record.source_url}"), soft_wrap=True)
    console.print(_grid(_fields(record)))
    console.print()
    console.print(styled("Check against the device's peaks", style="bold"))
    console.print(_grid((j.verdict, j.sentence) for j in judgements_of(record)))
    reasons = [r for r in _contradictions(record, among) if r.kind != "peak"]
    if reasons:
        console.print()
        console.print(styled("Check against its device and its source", style="bold"))
        console.print(_grid((reason.verdict, reason.sentence) for reason in reasons))


def _contradictions(record: Record, among: Iterable[Record]) -> tuple[Contradiction, ...]:
    return contradictions([record], tuple(among) or None).get(record.id, ())


def _grid(fields: Iterable[tuple[str, str]]) -> RenderableType:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(styled(f"  {name}", style="dim"), styled(value))
    return table


def _fields(record: Record) -> Iterable[tuple[str, str]]:
    yield "value", f"{record.value:,.10g} {record.unit}"
    if record.n_accelerators > 1:
        each = f"{_figure(record)} {record.unit} of each of {record.n_accelerators}"
        yield "per accelerator", each
    yield "device", record.device
    yield "model", f"{record.model} {record.variant}".strip()
    yield "input", _or_unknown(record.input)
    yield "precision", _with_note(_or_unknown(record.precision), record.precision_note)
    batch = _or_unknown(record.batch)
    yield "batch", batch if record.dla_batch is None else f"{batch}, {record.dla_batch} on each DLA"
    yield "engines", record.engines
    yield "sparsity", _or_unknown(record.sparsity)
    if record.latency_limit_s is not None:
        yield "latency limit", f"{record.latency_limit_s * 1e3:g} ms"
    yield "power mode", _or_unknown(record.power_mode)
    yield "framework", record.framework or _UNKNOWN
    yield "software", _or_unknown(record.software)
    yield "timed", f"{record.metric} ({_with_note(METRICS[record.metric], record.metric_note)})"
    yield "date", record.date or _UNKNOWN
    yield "source", record.source_title
    if record.accuracy:
        yield "accuracy", record.accuracy
    if record.quote:
        yield "quote", record.quote
    yield "status", f"{record.status} ({STATUSES[record.status]})"
    yield "confidence", record.confidence
    if record.doubt:
        yield "doubt", record.doubt
    if record.notes:
        yield "notes", record.notes
    yield "file", record.origin
    if record.imported_from:
        yield "imported from", record.imported_from


def _or_unknown(value: object) -> str:
    return _UNKNOWN if value is None else str(value)


def _with_note(text: str, note: str) -> str:
    return f"{text}; {note}" if note else text


def checks_text(records: Sequence[Record], among: Sequence[Record], width: int = WIDTH) -> str:
    """The records that are doubtful or contradicted, with the reasons, as plain text.

    Args:
        records: to be checked.
        among: all records, with which they are compared.
        width: maximum number of columns.
    """
    return plain_text(lambda console: show_checks(records, among, console), width)


def show_checks(records: Sequence[Record], among: Sequence[Record], console: Console) -> None:
    """Write the records that are doubtful or contradicted, with the reasons, to a rich console.

    Args:
        records: to be checked.
        among: all records, with which they are compared.
        console: to write to.
    """
    widen(console)
    found = contradictions(records, among)
    shown = [record for record in records if record.doubt or record.id in found]
    for record in shown:
        console.print(_heading(record), soft_wrap=True)
        console.print(_grid(_reasons(record, found)))
        console.print()
    console.print(styled(f"{len(shown)} of {len(records)} numbers are contradicted or doubtful."))


def _reasons(
    record: Record, found: Mapping[str, tuple[Contradiction, ...]]
) -> Iterator[tuple[str, str]]:
    if record.doubt:
        yield "doubtful", record.doubt
    for reason in found.get(record.id, ()):
        yield reason.verdict, f"{KINDS[reason.kind]}: {reason.sentence}"


def to_json(records: Sequence[Record], among: Sequence[Record] = ()) -> str:
    """Records as JSON text, with the figures derived from them.

    Args:
        records: to be written.
        among: all records, with which they are compared; empty for `records`.
    """
    found = contradictions(records, among or None)
    document = {
        "format": "precisionbench.published",
        "version": 1,
        "records": [
            {
                **attrs.asdict(record),
                "n_accelerators": record.n_accelerators,
                "value_per_accelerator": record.value_per_accelerator,
                "judgements": [
                    {"verdict": judgement.verdict, "sentence": judgement.sentence}
                    for judgement in judgements_of(record)
                ],
                "contradictions": [attrs.asdict(one) for one in found.get(record.id, ())],
            }
            for record in records
        ],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"
