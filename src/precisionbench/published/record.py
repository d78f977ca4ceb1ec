"""A published number with its conditions, and the values that its fields can have."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import ClassVar

import attrs
from attrs.validators import optional

from precisionbench.display import Shown
from precisionbench.published.validators import (
    count_from,
    names_of,
    one_of,
    positive,
    text,
    text_that_is,
)

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "fp8", "fp4", "int8", "int4", "mixed")
MS = "ms"
UNITS = ("images/s", "samples/s", "sequences/s", "tokens/s", MS)
# Ways of measuring, with the timed region.
METRICS = {
    "offline": "MLPerf Offline: all samples in one query, samples over total time",
    "single-stream": "MLPerf SingleStream: 90th percentile of the time of one query, host included",
    "multi-stream": "MLPerf MultiStream: 99th percentile of the time of a query of 8 samples",
    "server": "MLPerf Server: maximum queries per second within a latency limit",
    "interactive": "MLPerf Interactive: as Server, with shorter latency limits",
    "generation": "tokens generated per second; the prompt's own processing is not included",
    "gpu-compute": "GPU and DLA compute time without transfers; rates of engines added",
    "end-to-end": "includes host copies or the input pipeline",
    "wall-synchronised": "host clock around synchronised calls",
    "wall-unsynchronised": "host clock around calls without synchronisation",
    "tuning-target": "an expected rate in a submission's configuration, not an official result",
    "not-stated": "the source does not state the timed region",
}
SPARSITIES = ("dense", "2:4")
STATUSES = {
    "cited": "published by the named source as its own result",
    "reported": "a user's measurement, not measured here",
    "unverified": "the source could not be read",
}
CONFIDENCES = ("high", "medium", "low")
# Conditions that a comparison depends on: a record states each, or lists it in `unknown`.
CONDITIONS = (
    "input",
    "precision",
    "batch",
    "gpus",
    "dlas",
    "sparsity",
    "power_mode",
    "software",
)
CHOICES: Mapping[str, Collection[str]] = {
    "unit": UNITS,
    "metric": METRICS,
    "status": STATUSES,
    "confidence": CONFIDENCES,
    "precision": PRECISIONS,
    "sparsity": SPARSITIES,
}
_DATE = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")

_id = text_that_is(
    "lower-case letters, digits, '.', '_', '-'", re.compile(r"[a-z0-9][a-z0-9._-]*").fullmatch
)
_name = text_that_is("a name", str.strip)
_date = text_that_is(
    "a date such as 2024-07-08 or 2024", lambda value: not value or _DATE.fullmatch(value)
)


@attrs.frozen
class Source:
    """A source of published numbers, as a file of published numbers states it.

    Attributes:
        title: title of the source.
        url: its web address.
        date: ISO 8601, as exact as it is known; empty where it is not.
        shared: fields that all of its records have in common.
    """

    title: str = attrs.field(validator=text_that_is("a title", str.strip))
    url: str = attrs.field(
        validator=text_that_is("a web address", re.compile(r"https?://[^\s/]+(/\S*)?").fullmatch)
    )
    date: str = attrs.field(default="", validator=_date)
    shared: dict[str, object] = attrs.field(factory=dict)


@attrs.frozen
class SourceReference:
    """The source of a record of a file.

    Attributes:
        source: name of a source of the same file.
        path: path below the source's address; may be empty.
    """

    source: str = attrs.field(validator=text)
    path: str = attrs.field(default="", validator=text)


@attrs.frozen(repr=False)
class Record(Shown):
    """A published number with its conditions; None where its source does not state one.

    Attributes:
        id: short, readable and stable.
        device: id of a device in `data/devices.toml`, or a name of several or none of them.
        model: such as `resnet50`.
        value: as published, of all accelerators together.
        unit: one of `UNITS`.
        metric: the way of measuring, one of `METRICS`.
        status: one of `STATUSES`.
        confidence: `high`, `medium` or `low`.
        source_title: title of the source.
        source_url: address of the source; this library does not open it.
        date: ISO 8601, as exact as it is known; empty where it is not.
        variant: such as `v1.5` of a ResNet; empty where the source states none.
        input: of one item, such as `3x224x224`.
        precision: one of `PRECISIONS`.
        precision_note: remarks on the precision.
        batch: batch size of each GPU (or of the only engine).
        dla_batch: batch size of each DLA.
        gpus: total number of GPUs that were used.
        dlas: number of DLAs that were used in addition.
        sparsity: `dense` or `2:4`.
        latency_limit_s: limit on the latency of a call under which batches were chosen.
        power_mode: clocks and power, in the source's words.
        software: versions of the software.
        framework: what ran the model.
        metric_note: remarks on the way of measuring.
        quote: quotation from the source, where it is short.
        notes: other remarks.
        accuracy: as stated together with the number, such as `mAP50-95 0.6176`.
        latency_s: time of a call that the same source states beside a rate.
        gmacs: multiply-adds of one item in 1e9, as the source states them.
        doubt: why the number is not reliable; empty where nothing speaks against it.
        unknown: conditions that the source does not state.
        origin: the file that the record was read from.
        imported_from: the file that a user imported it from; empty for all others.
    """

    _shown: ClassVar[tuple[str, ...]] = (
        "id",
        "value",
        "unit",
        "device",
        "precision",
        "batch",
        "metric",
    )

    id: str = attrs.field(validator=_id)
    device: str = attrs.field(validator=_name)
    model: str = attrs.field(validator=_name)
    value: float = attrs.field(validator=positive)
    unit: str = attrs.field(validator=one_of(UNITS))
    metric: str = attrs.field(validator=one_of(METRICS))
    status: str = attrs.field(validator=one_of(STATUSES))
    confidence: str = attrs.field(validator=one_of(CONFIDENCES))
    source_title: str = attrs.field(validator=text)
    source_url: str = attrs.field(validator=text)
    date: str = attrs.field(default="", validator=_date)
    variant: str = attrs.field(default="", validator=text)
    input: str | None = attrs.field(default=None, validator=optional(text))
    precision: str | None = attrs.field(default=None, validator=optional(one_of(PRECISIONS)))
    precision_note: str = attrs.field(default="", validator=text)
    batch: int | None = attrs.field(default=None, validator=optional(count_from(1)))
    dla_batch: int | None = attrs.field(default=None, validator=optional(count_from(1)))
    gpus: int | None = attrs.field(default=None, validator=optional(count_from(0)))
    dlas: int | None = attrs.field(default=None, validator=optional(count_from(0)))
    sparsity: str | None = attrs.field(default=None, validator=optional(one_of(SPARSITIES)))
    latency_limit_s: float | None = attrs.field(default=None, validator=optional(positive))
    power_mode: str | None = attrs.field(default=None, validator=optional(text))
    software: str | None = attrs.field(default=None, validator=optional(text))
    framework: str = attrs.field(default="", validator=text)
    metric_note: str = attrs.field(default="", validator=text)
    quote: str = attrs.field(default="", validator=text)
    notes: str = attrs.field(default="", validator=text)
    accuracy: str = attrs.field(default="", validator=text)
    latency_s: float | None = attrs.field(default=None, validator=optional(positive))
    gmacs: float | None = attrs.field(default=None, validator=optional(positive))
    doubt: str = attrs.field(default="", validator=text)
    unknown: tuple[str, ...] = attrs.field(default=(), validator=names_of(CONDITIONS, "conditions"))
    origin: str = attrs.field(default="published.toml", validator=text)
    imported_from: str = attrs.field(default="", validator=text)

    @property
    def n_accelerators(self) -> int:
        """Number of boards or modules; a Jetson counts as one with any of its engines."""
        return max(1, self.gpus or 1)

    @property
    def value_per_accelerator(self) -> float:
        """The value divided by the number of accelerators; a latency is not divided."""
        return self.value if self.unit == MS else self.value / self.n_accelerators

    @property
    def items_per_s(self) -> float | None:
        """Items per second of one accelerator; None for a latency whose batch is not known."""
        if self.unit != MS:
            return self.value_per_accelerator
        return None if self.batch is None else 1000.0 * self.batch / self.value

    @property
    def engines(self) -> str:
        """The engines that were used, as text, such as `GPU + 2 DLAs`."""
        if self.gpus is None and self.dlas is None:
            return "not known"
        parts = [_count(self.gpus, "GPU"), _count(self.dlas, "DLA")]
        return " + ".join(part for part in parts if part) or "CPU"


def _count(n: int | None, engine: str) -> str:
    if n is None:
        return f"{engine}s not known"
    return "" if n == 0 else engine if n == 1 else f"{n} {engine}s"
