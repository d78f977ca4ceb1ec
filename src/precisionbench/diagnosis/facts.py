"""Figures of a row from which labels, ceilings and causes are derived."""

from __future__ import annotations

from functools import cached_property

import attrs

from precisionbench.analysis.groups import by_model
from precisionbench.diagnosis.kernels import CUDA_CORE, TENSOR_CORE
from precisionbench.diagnosis.models import least_flops
from precisionbench.diagnosis.parts import (
    MATRIX,
    Part,
    is_cast,
    parts_of,
    time_by_category,
)
from precisionbench.diagnosis.quantised import Quantisation, quantisation_of
from precisionbench.diagnosis.unseen import unseen_part
from precisionbench.diagnosis.weight_casts import WeightCasts, weight_casts
from precisionbench.diagnosis.work import MatrixWork, matrix_work
from precisionbench.reference_data.model_flops import WINOGRAD
from precisionbench.reference_data.peaks import DeviceSpec, device_of
from precisionbench.results import BackendResult, ComparisonData
from precisionbench.results.earlier_claims import claims_of
from precisionbench.results.evidence import Evidence

_WINOGRAD_KERNEL_SIZE = 3
# How a worker's warning begins; the second one is in older files.
_UNSTEADY = (
    "the last call's output differs from the first's",
    "the last call's output is not the first's",
)


@attrs.frozen(slots=False)
class Facts:
    """A measured row with the figures that follow from its evidence.

    Attributes:
        row: the measured row.
        evidence: what ran in a call; empty where the row was not profiled.
        device: peak rates of its GPU; None where they are not known.
        on_gpu: whether it ran on a CUDA GPU.
        model_flops: minimum FLOPs of a call for rows whose own were not counted, such as engines:
            those of the reference, or of a known model by its name; None where they are not known.
    """

    row: BackendResult
    evidence: Evidence
    device: DeviceSpec | None
    on_gpu: bool
    model_flops: float | None = None

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The parts of a call's time."""
        return parts_of(self.evidence)

    @cached_property
    def work(self) -> tuple[MatrixWork, ...]:
        """The matrix operations of a call."""
        work = matrix_work(self.evidence)
        if not claims_of(self.row).weights:
            return work
        return tuple(attrs.evolve(one, has_stored_weights=True) for one in work)

    @cached_property
    def engine_work(self) -> tuple[MatrixWork, ...]:
        """The matrix operations of a call among the layers that an engine reports."""
        return matrix_work(Evidence(operations=self.row.engine_operations))

    @cached_property
    def unseen_part(self) -> str:
        """What could be most matrix work of a call on a CPU but is not in its profile, in words."""
        return "" if self.on_gpu else unseen_part(self.row, self.evidence, self.matrix_s)

    @property
    def is_unsteady(self) -> bool:
        """Whether the output changes from call to call, so that calls cannot be compared."""
        return any(text in warning for text in _UNSTEADY for warning in self.row.warnings)

    @cached_property
    def by_category(self) -> dict[str, float]:
        """Seconds of a call by category."""
        return time_by_category(self.parts)

    @cached_property
    def busy_s(self) -> float:
        """Seconds of a call in kernels (on a CPU: in operations)."""
        return sum(part.time_s for part in self.parts)

    @cached_property
    def whole_s(self) -> float:
        """Seconds of a call, of which parts are shares.

        It is the latency, which includes GPU idle time, or the profiled time where the profiler
        made the call slower.
        """
        return max(self.busy_s, self.row.latency.value)

    def share(self, *categories: str) -> float:
        """The share of a call's time in some categories."""
        spent_s = sum(self.by_category.get(category, 0.0) for category in categories)
        return spent_s / self.whole_s if self.busy_s else 0.0

    @cached_property
    def matrix_s(self) -> float:
        """Seconds of a call in GEMM/conv kernels."""
        return self.by_category.get(MATRIX, 0.0)

    def matrix_share_on(self, unit: str) -> float:
        """The share of GEMM/conv time in kernels whose names indicate a unit."""
        spent_s = sum(
            p.time_s for p in self.parts if p.category == MATRIX and p.kernel_class.unit == unit
        )
        return spent_s / self.matrix_s if self.matrix_s else 0.0

    @property
    def tensor_core_share(self) -> float:
        """The share of GEMM/conv time in kernels that are known to use tensor cores."""
        return self.matrix_share_on(TENSOR_CORE)

    @property
    def cuda_core_share(self) -> float:
        """The share of GEMM/conv time in kernels that are known to use CUDA cores."""
        return self.matrix_share_on(CUDA_CORE)

    def matrix_share_of(self, *dtypes: str) -> float:
        """The share of GEMM/conv time in operations whose operands have one of these dtypes.

        Operations whose dtype is not known are left out.
        """
        total_s = sum(work.time_s for work in self.work if work.dtype)
        spent_s = sum(work.time_s for work in self.work if work.dtype in dtypes)
        return spent_s / total_s if total_s else 0.0

    def kernel_share_of(self, *dtypes: str) -> float:
        """The share of GEMM/conv time in kernels whose names indicate one of these dtypes."""
        spent_s = sum(
            part.time_s
            for part in self.parts
            if part.category == MATRIX and part.kernel_class.dtype in dtypes
        )
        return spent_s / self.matrix_s if self.matrix_s else 0.0

    @cached_property
    def casts(self) -> float:
        """Casts in a call."""
        return sum(o.count for o in self.evidence.operations if is_cast(o))

    @cached_property
    def recast(self) -> WeightCasts:
        """What a call spends on casts of weights."""
        return weight_casts(self.evidence)

    @cached_property
    def quantisation(self) -> Quantisation:
        """The quantised operations of a call."""
        return quantisation_of(self.evidence, self.work, self.recast)

    @property
    def weight_casts(self) -> float:
        """Casts in a call of a layer's own weights."""
        return self.recast.count

    @property
    def counted_share(self) -> float | None:
        """The share of GEMM/conv time whose FLOPs were counted; None where none were."""
        if self.evidence.flops is None or not self.work:
            return None
        total_s = sum(work.time_s for work in self.work)
        spent_s = sum(work.time_s for work in self.work if self._is_counted(work))
        return spent_s / total_s if total_s else None

    def _is_counted(self, work: MatrixWork) -> bool:
        names = (work.operation.name, *work.operation.parents)
        counted = {name.rpartition(".")[2] for name in self.evidence.counted}
        return any(name.rpartition("::")[2] in counted for name in names)

    @property
    def flop_rate(self) -> float | None:
        """FLOP/s of a call; None where its FLOPs were not counted almost completely."""
        flops = self.evidence.flops
        if not flops or (self.counted_share or 0.0) < _ALMOST_ALL:
            return None
        return flops / self.row.latency.value

    @property
    def min_flop_rate(self) -> float | None:
        """Minimum FLOP/s of a call; None where no FLOPs are known."""
        flops = self.min_flops or self.model_flops
        return flops / self.row.latency.value if flops else None

    @property
    def min_flops(self) -> float | None:
        """Minimum FLOPs of a call with any algorithm for convolutions.

        FLOPs that were not counted can only increase it. 3x3 convolutions count for a quarter of
        their FLOPs, larger ones for none, and if the FLOPs of a convolution are not known, all
        FLOPs count for a quarter.
        """
        flops = self.evidence.flops
        if not flops:
            return None
        spatial = [work for work in self.work if work.is_convolution and work.kernel_size > 1]
        if any(work.flops is None for work in spatial):
            return flops / WINOGRAD
        saved = sum((work.flops or 0.0) * _avoidable_share(work.kernel_size) for work in spatial)
        return max(0.0, flops - saved)

    def peak(self, rate: str) -> float | None:
        """A peak rate of its device; None where it is not known."""
        found = self.device.peaks.get(rate) if self.device else None
        return found.value if found else None


_ALMOST_ALL = 0.95


def _avoidable_share(kernel_size: int) -> float:
    """The share of a spatial convolution's FLOPs that an algorithm might save."""
    return 1 - 1 / WINOGRAD if kernel_size == _WINOGRAD_KERNEL_SIZE else 1.0


def facts_of_rows(data: ComparisonData) -> dict[str, Facts]:
    """The facts of every row of a comparison, by name.

    Args:
        data: the comparison.
    """
    parts = by_model(data).values()
    return {name: facts for part in parts for name, facts in _facts_of_model(part).items()}


def _facts_of_model(data: ComparisonData) -> dict[str, Facts]:
    gpu = data.environment.gpu
    device = device_of(gpu) if gpu else None
    rows = {
        row.backend: Facts(row, _evidence_of(row, gpu is not None), device, gpu is not None)
        for row in data.results
    }
    base = rows.get(data.reference)
    counted = base.min_flops if base else None
    if base and counted:
        return {
            name: facts if facts is base
            else attrs.evolve(facts, model_flops=counted * _items_ratio(facts.row, base.row))
            for name, facts in rows.items()
        }  # fmt: skip
    known = least_flops(data.workload)
    return {
        name: attrs.evolve(facts, model_flops=_flops_per_call(facts.row, known))
        for name, facts in rows.items()
    }


def _evidence_of(row: BackendResult, on_gpu: bool) -> Evidence:
    """The evidence of a row; on a CPU, an engine's layers are the operations of its calls.

    On a GPU an engine's times are those of the host, and the profile of the kernels has the others.
    """
    found = row.evidence or Evidence()
    if on_gpu or not row.engine_operations:
        return found
    return attrs.evolve(found, operations=row.engine_operations)


def _items_ratio(row: BackendResult, base: BackendResult) -> float:
    """Items per call of a row, divided by those of the reference."""
    known = row.batch_size and base.batch_size
    return (row.batch_size or 1) / (base.batch_size or 1) if known else 1.0


def _flops_per_call(row: BackendResult, item_flops: float | None) -> float | None:
    return item_flops * row.batch_size if item_flops and row.batch_size else None


def facts_of(data: ComparisonData, row: BackendResult) -> Facts:
    """The facts of one row of a comparison.

    Args:
        data: the comparison.
        row: one of its rows.
    """
    return facts_of_rows(data)[row.backend]
