"""A figure of a measured row under a reporting convention."""

from __future__ import annotations

from statistics import mean
from typing import ClassVar

import attrs

from precisionbench.display import Shown
from precisionbench.results import BackendResult
from precisionbench.results.measurement import REPORTED


@attrs.frozen(repr=False)
class Source(Shown):
    """The source of a reporting convention.

    Attributes:
        title: title of the source.
        url: its web address or path.
    """

    title: str
    url: str


def _check_missing(statement: Statement, _: object, missing: str) -> None:
    if (statement.value is None) != bool(missing):
        raise ValueError("a statement needs either a value or the reason why it has none")


@attrs.frozen(repr=False)
class Statement(Shown):
    """One figure under a reporting convention.

    Attributes:
        rule: the convention, e.g. `trtexec`.
        figure: name of the figure, e.g. `GPU compute time, median`.
        unit: `s`, `items/s`, or `calls/s` where the batch is not known.
        inside: what the timed region includes, in a sentence.
        source: source of the convention.
        value: value in the unit; None where it cannot be stated.
        low: lower end of its interval or range; None where there is none.
        high: upper end of its interval or range; None where there is none.
        kind: `measured` (computed from samples as the convention does), `derived` (from samples
            taken in another way, or with a model) or `reported` (not measured here).
        missing: why there is no value; empty where there is one.
        unmet: requirements of the convention that this run does not meet.
    """

    _shown: ClassVar[tuple[str, ...]] = ("rule", "figure", "value", "unit", "kind", "missing")

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
    """Items per call for throughputs: the batch size, or 1 where it is not known."""
    return row.batch_size or 1


def unit_of(row: BackendResult) -> str:
    """The unit of throughputs: `items/s`, or `calls/s` where the batch size is not known."""
    return "items/s" if row.batch_size else "calls/s"


def samples_of(row: BackendResult) -> list[float]:
    """All samples of a row, in seconds per call."""
    return [sample for block in row.measurement.blocks for sample in block.samples]


def mean_s(row: BackendResult) -> float:
    """The mean time of a call, in seconds."""
    return mean(samples_of(row))


def by_events(row: BackendResult) -> bool:
    """Whether the row was timed with CUDA events."""
    return row.measurement.clock == "cuda_events"
