"""A comparison: its workload, rows, failures and environment."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from statistics import median
from typing import ClassVar, TypeVar

import attrs

from precisionbench.display import Shown
from precisionbench.results.agreement import Agreement
from precisionbench.results.claims import Claims
from precisionbench.results.conditions import RoundConditions
from precisionbench.results.environment import Environment
from precisionbench.results.evidence import Evidence, Operation
from precisionbench.results.json_values import Json, described
from precisionbench.results.latency import above_0, latency_interval, process_spread, processes
from precisionbench.results.measurement import Measurement
from precisionbench.results.passes import Passes
from precisionbench.results.study import StudyRun
from precisionbench.results.validators import check_batch_size, check_shape
from precisionbench.statistics import Interval, Spread, Verdict, quantile_interval

# From this share of the device's time on, the host's time is close to being the bottleneck.
_HOST_RISK = 0.8
_IDLE = 1.1  # of the device's time; with a longer latency, the device is idle between its kernels
# `BackendResult.name` of rows that are calls of a function, without a backend.
CALL = "call"
_IMAGE_DIMENSIONS = (4, 5)  # of images and videos, with a batch


@attrs.frozen(repr=False)
class Speedup(Shown):
    """The speed-up of a row over the reference.

    Attributes:
        value: reference latency / this row's latency; above 1 is faster.
        low: lower end of the interval.
        high: upper end of the interval.
        verdict: what the interval supports, e.g. `faster` or `inconclusive`.
        reason: a short code for the reason of the verdict.
    """

    value: float
    low: float
    high: float
    verdict: Verdict
    reason: str

    @classmethod
    def of(cls, interval: Interval, verdict: Verdict, reason: str) -> Speedup:
        """A speed-up of this interval, with its verdict and the verdict's reason."""
        return cls(interval.value, interval.low, interval.high, verdict, reason)

    def __str__(self) -> str:
        return f"{self.value:.3g}x ({self.low:.3g} to {self.high:.3g}), {self.verdict.value}"

    @property
    def interval(self) -> Interval:
        """The value with its interval, without the verdict."""
        return Interval(self.value, self.low, self.high)


@attrs.frozen(slots=False, repr=False)
class BackendResult(Shown):
    """One measured row.

    Attributes:
        backend: the row's name: its canonical spec, with `#2` for a second equal one.
        name: the backend's name.
        options: every option, defaults included.
        batch_size: items per call; None where it is not known.
        measurement: the raw times.
        agreement: the output against the reference row's; None where there is no reference.
        flags: torch's global settings while this row ran.
        details: properties that the engine reports.
        warnings: warnings that qualify the row.
        log: output and warnings of the backend and its libraries during preparation.
        passes: measurements in addition to the latency.
        evidence: what ran in a call; None where it was not profiled.
        claims: what the backend claims of the row; None in files from before claims were recorded
            (see `earlier_claims.claims_of`).
        label: the user's name for the row; may be empty.
        model: the name of its model, where several were compared; else empty.
        engine_operations: the layers of a call as an engine reports them, also where it was not
            profiled; empty for PyTorch.
        process_spread: the spread between processes, pooled over the rows of its comparison; None
            for a row outside of a comparison.
        noise_floor: the comparison's `noise_floor`.
        schedule: the comparison's `schedule`.
    """

    _shown: ClassVar[tuple[str, ...]] = (
        "backend",
        "latency",
        "throughput",
        "batch_size",
        "agreement",
        "warnings",
    )

    backend: str
    name: str
    options: Mapping[str, Json]
    batch_size: int | None = attrs.field(validator=check_batch_size)
    measurement: Measurement
    agreement: Agreement | None = None
    flags: Mapping[str, Json] = attrs.field(factory=dict)
    details: Mapping[str, Json] = attrs.field(factory=dict)
    warnings: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    passes: Passes = attrs.field(factory=Passes)
    evidence: Evidence | None = None
    claims: Claims | None = None
    label: str = ""
    engine_operations: tuple[Operation, ...] = ()
    model: str = ""
    # Derived from the comparison that the row is part of, so never written to a file.
    process_spread: Spread | None = attrs.field(default=None, init=False, eq=False, repr=False)
    noise_floor: float = attrs.field(default=0.0, init=False, eq=False, repr=False)
    schedule: str = attrs.field(default="rounds", init=False, eq=False, repr=False)

    def in_run(self, spread: Spread, noise_floor: float, schedule: str) -> BackendResult:
        """The same row as part of a run, so that its intervals cover run-to-run variance.

        Args:
            spread: between processes, pooled over the rows of the run.
            noise_floor: standard deviation of the log between processes on this device.
            schedule: how the run was measured.

        Returns:
            A copy of the row.
        """
        row = attrs.evolve(self)
        object.__setattr__(row, "process_spread", spread)
        object.__setattr__(row, "noise_floor", noise_floor)
        object.__setattr__(row, "schedule", schedule)
        return row

    @property
    def is_profiled(self) -> bool:
        """Whether what ran in a call was recorded, by the profiler or by its engine."""
        return self.evidence is not None or bool(self.engine_operations)

    @cached_property
    def latency(self) -> Interval:
        """Time of one call in seconds, with its 95 % confidence interval.

        The interval includes run-to-run variance: the spread between replicas, pooled over the
        rows of the run.
        """
        measurement = self.measurement
        step_s = measurement.resolution_s / measurement.calls_per_sample
        if measurement.is_reported:
            return above_0(quantile_interval(measurement.rounds, resolution=step_s))
        blocks = processes(measurement.blocks, self.schedule)
        return latency_interval(blocks, self.process_spread, self.noise_floor, step_s)

    @property
    def device_s(self) -> float | None:
        """GPU time of one call with the host's time hidden, the median; None where not known."""
        return _median(self.passes.device_s)

    @property
    def enqueue_s(self) -> float | None:
        """Host time to enqueue one call into an empty queue, the median; None without a GPU."""
        return _median(self.passes.enqueue_s)

    @property
    def wall_s(self) -> float | None:
        """Time of a call with the device idle before and after it; None without a GPU."""
        return _median(self.passes.wall_s)

    @property
    def graph_s(self) -> float | None:
        """One replay of the call as a CUDA graph, the median; None where it cannot be captured."""
        return _median(self.passes.graph_s)

    @property
    def energy_per_item_j(self) -> float | None:
        """Energy per item in joules; None where the energy or the batch size is not known."""
        energy_j = self.passes.energy_j
        return None if energy_j is None or not self.batch_size else energy_j / self.batch_size

    @property
    def peak_memory_bytes(self) -> int | None:
        """Peak memory of torch's allocator, or of the driver for engines that bypass it.

        None where it was not measured.
        """
        return self.passes.peak_allocated_bytes or self.passes.driver_bytes or None

    @property
    def launch_bound(self) -> str | None:
        """`host_bound` (the host takes as long as the device), `host_risk` (nearly), or None.

        Where the device's own time is not known, the time of the CUDA graph is used instead. A
        latency as short as that shows a busy device, however long the host took in its own pass.
        """
        device_s = self.device_s or self.graph_s
        if device_s is None or self.enqueue_s is None:
            return None
        if self.enqueue_s >= device_s and self.latency.value > _IDLE * device_s:
            return "host_bound"
        return "host_risk" if self.enqueue_s > _HOST_RISK * device_s else None

    @property
    def throughput(self) -> Interval | None:
        """Items per second, batch_size / latency; None where the batch size is not known."""
        return self.latency.inverse_of(self.batch_size) if self.batch_size else None


def _median(samples: tuple[float, ...]) -> float | None:
    return median(samples) if samples else None


# In the warning of a row whose inputs or model have more in them after each call.
GROWS = "grows with each call"
# Begins the remedy of a row whose model fails because of a dtype.
WRONG_DTYPE = "an operation of the model does not take this dtype"


@attrs.frozen(repr=False)
class BackendFailure(Shown):
    """One row that could not be measured.

    Attributes:
        backend: the row's name, as in BackendResult.
        name: the backend's name.
        options: every option, defaults included.
        error: name of the class in `precisionbench.errors`.
        reason: why it failed.
        remedy: how to fix it; may be empty.
        label: the user's name for the row; may be empty.
        model: the name of its model, where several were compared; else empty.
    """

    backend: str
    name: str
    options: Mapping[str, Json]
    error: str
    reason: str
    remedy: str
    label: str = ""
    model: str = ""


@attrs.frozen(repr=False)
class TensorInfo(Shown):
    """An input tensor.

    Attributes:
        path: path of the tensor in the inputs, e.g. `[0]` or `['input_ids']`.
        shape: its shape.
        dtype: its dtype, e.g. `float32`.
    """

    path: str
    shape: tuple[int, ...] = attrs.field(validator=check_shape)
    dtype: str


@attrs.frozen(repr=False)
class WorkloadInfo(Shown):
    """The model and inputs that were measured.

    Attributes:
        model: the model's name or class.
        parameters: number of parameters; None where that is not known.
        inputs: the input tensors.
        batch_size: items per call; None where that is not known.
    """

    model: str
    parameters: int | None
    inputs: tuple[TensorInfo, ...]
    batch_size: int | None = attrs.field(validator=check_batch_size)

    @property
    def has_images(self) -> bool:
        """Whether an input has four or five dimensions, so that layouts matter."""
        return any(len(tensor.shape) in _IMAGE_DIMENSIONS for tensor in self.inputs)

    @classmethod
    def common(cls, models: Mapping[str, WorkloadInfo]) -> WorkloadInfo:
        """What several models have in common; what differs is not known, or left out.

        Args:
            models: by name; at least one.
        """
        infos = list(models.values())
        return cls(
            ", ".join(models),
            _same([info.parameters for info in infos], None),
            _same([info.inputs for info in infos], ()),
            _same([info.batch_size for info in infos], None),
        )


_T = TypeVar("_T")


def _same(values: Sequence[_T], unknown: _T) -> _T:
    """The value that all are, or else what stands for one that is not known."""
    return values[0] if all(value == values[0] for value in values) else unknown


@attrs.frozen(repr=False)
class ComparisonData(Shown):
    """All data of a comparison; what `save` writes and `load` reads.

    Attributes:
        created: time of the measurement, UTC, ISO 8601.
        precisionbench: version of this library that measured it.
        workload: the model and inputs that were measured; of several models, what they have in
            common.
        environment: the machine and its software.
        seed: seed of weights and inputs made by factories.
        launcher: where the backends ran: `process` (each in its own workers) or `inline`.
        schedule: `rounds`, `restarts` or `sequential`; see `precisionbench.analysis.speedups`.
        noise_floor: assumed run-to-run standard deviation of the log latency on this device.
        shared_cores: number of cores that all workers shared while they were measured; None if
            they were not restricted.
        notes: warnings that qualify the whole run.
        reference: row that the others are compared with.
        results: measured rows, in the order asked for.
        failures: rows that could not be measured, in the order asked for.
        options: the options that `compare` was called with; None where they were not recorded.
        conditions: other load on the machine, by round; empty where that was not recorded.
        study: the cell of a study that it is; None outside of studies.
        models: several models and their inputs by name; empty where one was measured.
        references: rows that are compared with another row than `reference`, by name, and that
            row; a row that is compared with itself is a reference as well.
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
    conditions: tuple[RoundConditions, ...] = ()
    study: StudyRun | None = None
    models: Mapping[str, WorkloadInfo] = attrs.field(factory=dict)
    references: Mapping[str, str] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        names = [row.backend for row in self.rows]
        if self.reference not in names:
            raise ValueError(f"the reference {described(self.reference)} is none of the rows")
        if len(set(names)) < len(names):
            raise ValueError("two rows have the same name")
        _check_references(self.references, names)
        _check_models(self.models, {row.model for row in self.rows})
        spread = process_spread(
            processes(row.measurement.blocks, self.schedule)
            for row in self.results
            if not row.measurement.is_reported
        )
        rows = tuple(row.in_run(spread, self.noise_floor, self.schedule) for row in self.results)
        object.__setattr__(self, "results", rows)

    @property
    def rows(self) -> tuple[BackendResult | BackendFailure, ...]:
        """Measured rows, and then those that could not be measured."""
        return (*self.results, *self.failures)

    def reference_of(self, row: str) -> str:
        """The row that a row is compared with.

        Args:
            row: name of the row.

        Returns:
            The name of its reference; of a reference, its own.
        """
        return self.references.get(row, self.reference)

    def is_reference(self, row: str) -> bool:
        """Whether a row is one that others are compared with.

        Args:
            row: name of the row.

        Returns:
            True for a reference.
        """
        return self.reference_of(row) == row

    def workload_of(self, row: BackendResult) -> WorkloadInfo:
        """The model and inputs of a row.

        Args:
            row: one of the results.

        Returns:
            Those of its model; with one model, those of all rows.
        """
        return self.models.get(row.model, self.workload)


def _check_models(models: Mapping[str, WorkloadInfo], names: Collection[str]) -> None:
    for name in names:
        if models and name not in models:  # without models, the names mean nothing
            raise ValueError(f"the model {described(name)} of a row is none of the models")


def _check_references(references: Mapping[str, str], names: Sequence[str]) -> None:
    for row, reference in references.items():
        if row in names and reference not in names:
            raise ValueError(f"the reference {described(reference)} is none of the rows")
