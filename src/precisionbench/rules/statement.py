"""What somebody's rules would say of a measured row."""

from __future__ import annotations

from statistics import mean

import attrs

from precisionbench.results.records import REPORTED, BackendResult


@attrs.frozen
class Source:
    """Where a rule stands.

    Attributes:
        title: what it is.
        url: where it is.
    """

    title: str
    url: str


def _check_missing(statement: Statement, _: object, missing: str) -> None:
    if (statement.value is None) != bool(missing):
        raise ValueError("a statement has a value, or says why it has none")


@attrs.frozen
class Statement:
    """One figure as somebody's rules would state it.

    Attributes:
        rule: whose, e.g. `trtexec`.
        figure: which of theirs, e.g. `GPU compute time, median`.
        unit: `s`, `items/s`, or `calls/s` where the batch is not known.
        inside: what is inside the timed region, in a sentence.
        source: where the rule stands.
        value: in the unit; None where it cannot be stated.
        low: lower end of its interval or range; None where there is none.
        high: upper end; likewise.
        kind: `measured` (computed from samples as the rule does), `derived` (from samples that
            were not taken in the way of the rule, or with a model) or `reported` (not measured
            here).
        missing: why it cannot be stated; empty where it is.
        unmet: what the rule asks for and this run does not meet.
    """

    rule: str
    figure: str
    unit: str
    inside: str
    source: Source
    value: float | None = None
    low: float | None = None
    high: float | None = None
    kind: str = attrs.field(
        default="measured", validator=attrs.validators.in_(("measured", "derived", REPORTED))
    )
    missing: str = attrs.field(default="", validator=_check_missing)
    unmet: tuple[str, ...] = ()


def items_of(row: BackendResult) -> int:
    """What a call is worth in the unit of throughputs: its batch, or 1 where that is not known."""
    return row.batch_size or 1


def unit_of(row: BackendResult) -> str:
    """`items/s`, or `calls/s` where the batch is not known."""
    return "items/s" if row.batch_size else "calls/s"


def samples_of(row: BackendResult) -> list[float]:
    """All samples of the rounds, in seconds per call."""
    return [sample for block in row.measurement.blocks for sample in block.samples]


def mean_s(row: BackendResult) -> float:
    """The mean time of a call in the rounds, in seconds."""
    return mean(samples_of(row))


def by_events(row: BackendResult) -> bool:
    """Whether the rounds were timed by CUDA events."""
    return row.measurement.clock == "cuda_events"
