"""The records of a comparison: its rows, blocks, passes, environment and failures.

Raw samples are kept; whatever can be derived from them is a property.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from functools import cached_property
from statistics import median
from typing import Any

import attrs

from precisionbench.results.claims import Claims
from precisionbench.results.evidence import Evidence
from precisionbench.results.grouping import samples_by_round
from precisionbench.statistics import Interval, Verdict, quantile_interval

__all__ = [
    "Agreement",
    "BackendFailure",
    "BackendResult",
    "Block",
    "ComparisonData",
    "DeviceState",
    "Environment",
    "Gpu",
    "Interval",
    "Measurement",
    "Passes",
    "Preparation",
    "Speedup",
    "TensorAgreement",
    "TensorInfo",
    "Verdict",
    "WorkloadInfo",
]

# What `Measurement.clock` and `ComparisonData.launcher` say where figures were read, not measured.
REPORTED = "reported"
# A host that needs more than this share of the device's time can soon become the bottleneck.
_HOST_RISK = 0.8

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


def _check_samples(_: object, __: object, samples: tuple[float, ...]) -> None:
    if not all(1e-12 < sample < 1e12 for sample in samples):
        raise ValueError("a sample must be a time above 0, in seconds")


def _check_blocks(_: object, __: object, blocks: tuple[Block, ...]) -> None:
    if not blocks or not all(block.samples for block in blocks):
        raise ValueError("a measurement needs blocks with samples")
    places = {(block.session, block.round, block.replica) for block in blocks}
    if len(places) < len(blocks):
        raise ValueError("two blocks have the same session, round and replica")


def _check_batch_size(_: object, __: object, batch_size: int | None) -> None:
    if batch_size is not None and not 0 < batch_size < 2**63:
        raise ValueError(f"a batch size cannot be {batch_size:.3g}")


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
class DeviceState:
    """The GPU around one block; what it does not tell is None.

    Attributes:
        sm_clock_hz: clock of the multiprocessors, right after the block.
        power_w: power drawn, right after the block.
        temperature_c: temperature, right after the block.
        throttled: what held the clocks down during the block, e.g. `sw_power_cap`.
    """

    sm_clock_hz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] = ()


@attrs.frozen
class Block:
    """Calls of one replica, back to back.

    Attributes:
        round: its round, from 0; in each round every replica of every row is measured once.
        position: its place in the round's order, from 0.
        replica: which fresh preparation of the backend, from 0.
        samples: seconds per call, in the order taken.
        session: which repetition of the whole, from 0.
        state: the GPU around it; None where nothing tells.
    """

    round: int
    position: int
    replica: int
    samples: tuple[float, ...] = attrs.field(validator=_check_samples)
    session: int = 0
    state: DeviceState | None = None

    @property
    def median_s(self) -> float:
        """The median of the samples, in seconds per call."""
        return median(self.samples)


@attrs.frozen
class Preparation:
    """How one replica came to be.

    Attributes:
        build_s: time that `prepare` took.
        first_call_s: time of the first call alone (it may load, tune or compile).
        warmup_calls: unscored calls before the first block, the first call not counted.
        replica: which replica it is.
        session: which repetition of the whole.
    """

    build_s: float
    first_call_s: float
    warmup_calls: int
    replica: int = 0
    session: int = 0


@attrs.frozen
class Measurement:
    """The times of one backend, raw.

    Attributes:
        clock: `cuda_events`, `host`, or `reported` where nothing was timed here.
        resolution_s: the smallest step of that clock, in seconds.
        calls_per_sample: how many calls one sample spans (more than one for very short calls).
        preparations: one for each replica.
        blocks: all blocks, in the order taken.
        ended_by: `target` (intervals narrow enough), `process_level` (more rounds would not
            narrow them), `rounds` (maximum reached), `budget`, `interrupted`, or `failed` (it
            broke later; the finished rounds are kept).
    """

    clock: str
    resolution_s: float
    calls_per_sample: int
    preparations: tuple[Preparation, ...] = attrs.field(validator=attrs.validators.min_len(1))
    blocks: tuple[Block, ...] = attrs.field(validator=_check_blocks)
    ended_by: str

    @property
    def is_reported(self) -> bool:
        """Whether its times are somebody's figures and were not measured here."""
        return self.clock == REPORTED

    @property
    def build_s(self) -> float:
        """Time that `prepare` took, in seconds: the median of the replicas."""
        return median(preparation.build_s for preparation in self.preparations)

    @property
    def first_call_s(self) -> float:
        """Time of the first call, in seconds: the median of the replicas."""
        return median(preparation.first_call_s for preparation in self.preparations)

    @property
    def warmup_calls(self) -> int:
        """Unscored calls of all replicas before their first blocks."""
        return sum(preparation.warmup_calls for preparation in self.preparations)

    @property
    def rounds(self) -> tuple[tuple[float, ...], ...]:
        """The samples of each round, of all replicas together."""
        return samples_by_round(self.blocks)

    @property
    def medians(self) -> dict[tuple[int, int, int], float]:
        """The median of each block by (session, replica, round), in seconds per call."""
        return {
            (block.session, block.replica, block.round): block.median_s for block in self.blocks
        }


@attrs.frozen
class Passes:
    """What is measured of one replica beside the headline, each in a pass of its own.

    Attributes:
        device_s: GPU time of a call with the host's time hidden; empty where it is not known.
        enqueue_s: the host's time of a call, from a drained queue.
        wall_s: from a drained device to a drained device.
        graph_s: replays of the call captured as a CUDA graph.
        unknown: for each of these that is missing, why.
        labels: `sync_inside` (the call waits for the device; then `latency` is the host's
            clock), `stream_escape` (its work runs on another stream than ours; likewise).
        peak_allocated_bytes: most that torch's allocator had given out during a call.
        peak_reserved_bytes: most that it had taken from the device.
        driver_bytes: device memory that the driver gave for preparing and the first calls,
            engines that bypass torch's allocator included, the CUDA context not.
        energy_j: energy of one call in joules, of the whole board, over a second of calls back
            to back.
        to_device_s: copying the inputs, as they were given, from pinned host memory to the device.
        to_host_s: copying the outputs from the device to pinned host memory.
    """

    device_s: tuple[float, ...] = attrs.field(default=(), validator=_check_samples)
    enqueue_s: tuple[float, ...] = attrs.field(default=(), validator=_check_samples)
    wall_s: tuple[float, ...] = attrs.field(default=(), validator=_check_samples)
    graph_s: tuple[float, ...] = attrs.field(default=(), validator=_check_samples)
    unknown: Mapping[str, str] = attrs.field(factory=dict)
    labels: tuple[str, ...] = ()
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    driver_bytes: int | None = None
    energy_j: float | None = None
    to_device_s: tuple[float, ...] = attrs.field(default=(), validator=_check_samples)
    to_host_s: tuple[float, ...] = attrs.field(default=(), validator=_check_samples)


@attrs.frozen
class TensorAgreement:
    """How near one output tensor is to the reference's, in float64.

    Attributes:
        path: where the tensor stands in the output, e.g. `['logits']`; empty for a bare tensor.
        shape: its shape.
        dtype: its dtype in this row.
        relative_l2: `‖out - ref‖ / ‖ref‖`.
        cosine: `⟨out, ref⟩ / (‖out‖ ‖ref‖)`.
        batch_centred_relative_l2: the same as relative_l2 after each side's mean over the batch
            (first dimension) is subtracted; None where there is one item only.
        max_abs_error: `max |out - ref|`.
        nonfinite_count: elements that are infinite or NaN here and finite in the reference,
            or the other way round. They are left out of the figures above.
        top1: share of items whose largest class is the reference's; None where the output is no
            table of classes, or the reference has the same one for all items, so that it would
            say nothing.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    relative_l2: float | None
    cosine: float | None
    batch_centred_relative_l2: float | None
    max_abs_error: float | None
    nonfinite_count: int
    top1: float | None = None


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
    def top1(self) -> float | None:
        """The smallest over all output tensors that tell classes."""
        return min(self._all("top1"), default=None)

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
        passes: what was measured beside the latency.
        evidence: what ran in a call; None where that was not looked at.
        claims: what the backend said of the row; None in files of before that was recorded (see
            `earlier_claims.claims_of`).
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
    passes: Passes = attrs.field(factory=Passes)
    evidence: Evidence | None = None
    claims: Claims | None = None

    @cached_property
    def latency(self) -> Interval:
        """Median time of one call in seconds, with its interval within this session."""
        measurement = self.measurement
        step_s = measurement.resolution_s / measurement.calls_per_sample
        return quantile_interval(measurement.rounds, resolution=step_s)

    @property
    def device_s(self) -> float | None:
        """GPU time of one call with the host's time hidden, the median; None where not known."""
        return _median(self.passes.device_s)

    @property
    def enqueue_s(self) -> float | None:
        """The host's time of one call from a drained queue, the median; None without a GPU."""
        return _median(self.passes.enqueue_s)

    @property
    def wall_s(self) -> float | None:
        """From a drained device to a drained device, the median; None without a GPU."""
        return _median(self.passes.wall_s)

    @property
    def graph_s(self) -> float | None:
        """One replay of the call as a CUDA graph, the median; None where not capturable."""
        return _median(self.passes.graph_s)

    @property
    def energy_per_item_j(self) -> float | None:
        """Energy of one item of a batch in joules; None where it or the batch is not known."""
        energy_j = self.passes.energy_j
        return None if energy_j is None or not self.batch_size else energy_j / self.batch_size

    @property
    def launch_bound(self) -> str | None:
        """`host_bound` (the host needs as long as the device), `host_risk` (nearly), or None.

        Where the device's own time is not known, the replay of the CUDA graph stands for it.
        """
        device_s = self.device_s or self.graph_s
        if device_s is None or self.enqueue_s is None:
            return None
        if self.enqueue_s >= device_s:
            return "host_bound"
        return "host_risk" if self.enqueue_s > _HOST_RISK * device_s else None

    @property
    def throughput(self) -> Interval | None:
        """Items per second, batch_size / latency; None where the batch size is not known."""
        return self.latency.inverse_of(self.batch_size) if self.batch_size else None


def _median(samples: tuple[float, ...]) -> float | None:
    return median(samples) if samples else None


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
    """An input tensor.

    Attributes:
        path: where it stands in the inputs, e.g. `[0]` or `['input_ids']`.
        shape: its shape.
        dtype: its dtype, e.g. `float32`.
    """

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
    """The GPU that was used; what the machine does not tell is None.

    Attributes:
        name: as the driver tells it.
        compute_capability: such as `9.0`.
        memory_bytes: of the device, in all.
        multiprocessors: how many.
        driver: its version.
        power_limit_w: most power that it may draw, in watts.
        max_sm_clock_hz: highest clock of its multiprocessors.
        uuid: of this very board.
    """

    name: str
    compute_capability: str
    memory_bytes: int
    multiprocessors: int
    driver: str | None = None
    power_limit_w: float | None = None
    max_sm_clock_hz: float | None = None
    uuid: str | None = None


@attrs.frozen
class Environment:
    """The machine, the versions and torch's settings before anything was measured.

    Attributes:
        device: as for `compare`, such as `cuda:0`.
        gpu: the GPU; None on a CPU.
        platform: the operating system.
        python: version of Python.
        torch: version of torch.
        cuda: version of CUDA that torch was built for; None without.
        cudnn: version of cuDNN; None without.
        packages: versions of packages that can matter, by name.
        cpu: its name.
        cpu_cores: how many this process may use.
        threads: with which torch computes.
        jetson: the release of a Jetson's software; None elsewhere.
        flags: torch's global settings.
        power_mode: a Jetson's, such as `MAXN`; None elsewhere.
    """

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
    power_mode: str | None = None


@attrs.frozen
class ComparisonData:
    """Everything that a comparison leaves behind; what `save` writes and `load` reads.

    Attributes:
        created: when it was measured, UTC, ISO 8601.
        precisionbench: version that measured it.
        workload: what was measured.
        environment: where.
        seed: of weights and inputs made by factories.
        launcher: where the backends lived: `process` (each in workers of its own) or `inline`.
        schedule: `rounds`, `restarts` or `sequential`; see `precisionbench.analysis.speedups`.
        noise_floor: spread between processes that was taken to be known of this device, as a log.
        shared_cores: how many cores all workers shared while they were measured; None: all.
        notes: what a reader must know of the whole run.
        reference: row that the others are compared with.
        results: measured rows, in the order asked for.
        failures: rows that could not be measured, in the order asked for.
        options: how it was to be measured, as `compare` was asked; None where that was not
            recorded.
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
    schedule: str = "sequential"
    noise_floor: float = 0.0
    shared_cores: int | None = None
    notes: tuple[str, ...] = ()
    options: Mapping[str, Json] | None = None

    def __attrs_post_init__(self) -> None:
        names = [row.backend for row in self.results] + [row.backend for row in self.failures]
        if self.reference not in names:
            raise ValueError(f"the reference {self.reference!r} is none of the rows")
        if len(set(names)) < len(names):
            raise ValueError("two rows have the same name")
