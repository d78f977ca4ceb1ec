"""What a measurement leaves behind: frozen data, readable without torch.

Raw samples are kept; whatever can be derived from them is a property.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from functools import cached_property
from typing import Any

import attrs

from precisionbench.statistics import Interval, median_interval, unpaired_ratio_interval

__all__ = [
    "Agreement",
    "BackendFailure",
    "BackendResult",
    "ComparisonData",
    "Environment",
    "Gpu",
    "Interval",
    "Measurement",
    "Speedup",
    "TensorAgreement",
    "TensorInfo",
    "Verdict",
    "WorkloadInfo",
]

Json = Any  # what json.loads gives: dict, list, str, int, float, bool, None


def as_json(value: object) -> Json:
    """A value as JSON holds it: keys become text, and so does whatever JSON does not have.

    Args:
        value: anything; infinities and NaN are among what JSON does not have.
    """
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return as_json(value.value)
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def _check_blocks(_: object, __: object, blocks: tuple[tuple[float, ...], ...]) -> None:
    if not blocks or not all(blocks):
        raise ValueError("a measurement needs blocks with samples")
    if not all(1e-12 < sample < 1e12 for block in blocks for sample in block):
        raise ValueError("a sample must be a time above 0, in seconds")


def _check_batch_size(_: object, __: object, batch_size: int | None) -> None:
    if batch_size is not None and not 0 < batch_size < 2**63:
        raise ValueError(f"a batch size cannot be {batch_size:.3g}")


class Verdict(str, Enum):
    """What a speed-up's interval allows to be said."""

    FASTER = "faster"
    SLOWER = "slower"
    EQUIVALENT = "equivalent"
    DIFFERENT_BUT_SMALL = "different_but_small"
    INCONCLUSIVE = "inconclusive"


@attrs.frozen
class Speedup:
    """How many times as fast as the reference a row is.

    Attributes:
        value: reference latency / this row's latency; above 1 is faster.
        low: lower end of the interval.
        high: upper end of the interval.
        verdict: what may be said of it.
        reason: a short code that says why the verdict is what it is.
    """

    value: float
    low: float
    high: float
    verdict: Verdict
    reason: str


@attrs.frozen
class Measurement:
    """The times of one backend, raw.

    Attributes:
        clock: `cuda_events` or `host`.
        resolution_s: the smallest step of that clock, in seconds.
        build_s: time that `prepare` took.
        first_call_s: time of the first call alone (it may load, tune or compile).
        warmup_calls: unscored calls before the first block, the first call not counted.
        calls_per_sample: how many calls one sample spans (more than one for very short calls).
        blocks: for each block, its samples in seconds per call, in the order taken.
        ended_by: `target` (interval narrow enough), `rounds` (maximum reached) or `budget`.
    """

    clock: str
    resolution_s: float
    build_s: float
    first_call_s: float
    warmup_calls: int
    calls_per_sample: int
    blocks: tuple[tuple[float, ...], ...] = attrs.field(validator=_check_blocks)
    ended_by: str


@attrs.frozen
class TensorAgreement:
    """How near one output tensor is to the reference's, in float64.

    Attributes:
        path: where the tensor stands in the output, e.g. `['logits']`; empty for a bare tensor.
        shape: its shape.
        dtype: its dtype in this row.
        relative_l2: ||out - ref|| / ||ref||.
        cosine: <out, ref> / (||out|| ||ref||).
        batch_centred_relative_l2: the same as relative_l2 after each side's mean over the batch
            (first dimension) is subtracted; None where there is one item only.
        max_abs_error: max |out - ref|.
        nonfinite_count: elements that are infinite or NaN here and finite in the reference,
            or the other way round. They are left out of the figures above.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    relative_l2: float | None
    cosine: float | None
    batch_centred_relative_l2: float | None
    max_abs_error: float | None
    nonfinite_count: int


@attrs.frozen
class Agreement:
    """How near a row's output is to the reference row's on the same inputs.

    Attributes:
        tensors: one record for each pair of tensors of equal shape.
        problems: what could not be compared, e.g. a tensor that is missing or of another shape.
    """

    tensors: tuple[TensorAgreement, ...] = ()
    problems: tuple[str, ...] = ()

    def _all(self, field: str) -> list[float]:
        values = [getattr(tensor, field) for tensor in self.tensors]
        return [value for value in values if value is not None]

    @property
    def relative_l2(self) -> float | None:
        """The largest over all output tensors."""
        return max(self._all("relative_l2"), default=None)

    @property
    def cosine(self) -> float | None:
        """The smallest over all output tensors."""
        return min(self._all("cosine"), default=None)

    @property
    def batch_centred_relative_l2(self) -> float | None:
        """The largest over all output tensors."""
        return max(self._all("batch_centred_relative_l2"), default=None)

    @property
    def max_abs_error(self) -> float | None:
        """The largest over all output tensors."""
        return max(self._all("max_abs_error"), default=None)

    @property
    def nonfinite_count(self) -> int:
        """The sum over all output tensors."""
        return sum(tensor.nonfinite_count for tensor in self.tensors)

    @property
    def zero_references(self) -> tuple[TensorAgreement, ...]:
        """Tensors that are zero everywhere in the reference only, so that no ratio exists."""
        return tuple(t for t in self.tensors if t.relative_l2 is None and t.max_abs_error)

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader must know before believing the figures."""
        found = [
            f"output{tensor.path} is zero everywhere in the reference and differs by up to "
            f"{tensor.max_abs_error:.1e} here"
            for tensor in self.zero_references
        ]
        if not self.tensors and not self.problems:
            found.append("the output holds no tensor, so there is nothing to compare")
        elif self.tensors and all(t.max_abs_error is None for t in self.tensors):
            found.append("the output has no finite element to compare")
        elif self.tensors and all(t.relative_l2 == 0 and t.cosine is None for t in self.tensors):
            found.append(
                "the output is zero everywhere, here and in the reference, so agreement says "
                "nothing; use trained weights"
            )
        return (*self.problems, *found)


@attrs.frozen(slots=False)
class BackendResult:
    """One measured row.

    Attributes:
        backend: the row's name: its canonical spec, with `#2` for a second equal one.
        name: the backend's name.
        options: every option, defaults included.
        batch_size: items that one call serves; None where it is not known.
        measurement: the raw times.
        agreement: the output against the reference row's; None where there is no reference.
        flags: torch's global settings while this row ran.
        details: what the engine said of itself.
        warnings: what a reader of the row must know.
        log: what the backend and its libraries printed or warned while preparing.
    """

    backend: str
    name: str
    options: Mapping[str, Json]
    batch_size: int | None = attrs.field(validator=_check_batch_size)
    measurement: Measurement
    agreement: Agreement | None = None
    flags: Mapping[str, Json] = attrs.field(factory=dict)
    details: Mapping[str, Json] = attrs.field(factory=dict)
    warnings: tuple[str, ...] = ()
    log: tuple[str, ...] = ()

    @cached_property
    def latency(self) -> Interval:
        """Median time of one call in seconds, with its interval within this session."""
        return median_interval(self.measurement.blocks)

    @property
    def throughput(self) -> Interval | None:
        """Items per second, batch_size / latency; None where the batch size is not known."""
        return self.latency.inverse_of(self.batch_size) if self.batch_size else None


@attrs.frozen
class BackendFailure:
    """One row that could not be measured.

    Attributes:
        backend: the row's name, as in BackendResult.
        name: the backend's name.
        options: every option, defaults included.
        error: name of the class in `precisionbench.errors`.
        reason: what is wrong.
        remedy: what to do about it; may be empty.
    """

    backend: str
    name: str
    options: Mapping[str, Json]
    error: str
    reason: str
    remedy: str


@attrs.frozen
class TensorInfo:
    """An input tensor's place, shape and dtype."""

    path: str
    shape: tuple[int, ...]
    dtype: str


@attrs.frozen
class WorkloadInfo:
    """What was measured.

    Attributes:
        model: the model's name or class.
        parameters: number of parameters; None where that is not known.
        inputs: the input tensors.
        batch_size: items that one call serves; None where that is not known.
    """

    model: str
    parameters: int | None
    inputs: tuple[TensorInfo, ...]
    batch_size: int | None = attrs.field(validator=_check_batch_size)


@attrs.frozen
class Gpu:
    """The GPU that was used; what the machine does not tell is None."""

    name: str
    compute_capability: str
    memory_bytes: int
    multiprocessors: int
    driver: str | None = None
    power_limit_w: float | None = None
    max_sm_clock_hz: float | None = None


@attrs.frozen
class Environment:
    """The machine, the versions and torch's settings before anything was measured."""

    device: str
    gpu: Gpu | None
    platform: str
    python: str
    torch: str
    cuda: str | None
    cudnn: str | None
    packages: Mapping[str, str]
    cpu: str
    cpu_cores: int
    threads: int
    jetson: str | None
    flags: Mapping[str, Json]


@attrs.frozen
class ComparisonData:
    """Everything that a comparison leaves behind; what `save` writes and `load` reads.

    Attributes:
        created: when it was measured, UTC, ISO 8601.
        precisionbench: version that measured it.
        workload: what was measured.
        environment: where.
        seed: of weights and inputs made by factories.
        launcher: where the backends lived (`inline`: one process, one after another).
        reference: row that the others are compared with.
        results: measured rows, in the order asked for.
        failures: rows that could not be measured, in the order asked for.
    """

    created: str
    precisionbench: str
    workload: WorkloadInfo
    environment: Environment
    seed: int
    launcher: str
    reference: str
    results: tuple[BackendResult, ...]
    failures: tuple[BackendFailure, ...]

    def __attrs_post_init__(self) -> None:
        names = [row.backend for row in self.results] + [row.backend for row in self.failures]
        if self.reference not in names:
            raise ValueError(f"the reference {self.reference!r} is none of the rows")
        if len(set(names)) < len(names):
            raise ValueError("two rows have the same name")

    def speedup(self, row: BackendResult) -> Speedup | None:
        """How many times as fast as the reference a row is; None where that was not measured.

        Rows measured one after another cannot tell a small difference from drift, so there is no
        verdict yet; the interval is the widest that the rows' own intervals allow.

        Args:
            row: one of the results.
        """
        reference = next((other for other in self.results if other.backend == self.reference), None)
        if reference is None:
            return None
        if row is reference:
            return Speedup(1.0, 1.0, 1.0, Verdict.INCONCLUSIVE, "reference")
        ratio = unpaired_ratio_interval(reference.latency, row.latency)
        return Speedup(ratio.value, ratio.low, ratio.high, Verdict.INCONCLUSIVE, "not_interleaved")
