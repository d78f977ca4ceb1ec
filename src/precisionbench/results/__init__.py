"""Frozen records of what was measured, and the files that hold them.

Raw samples are kept; whatever can be derived from them is a property.
"""

from precisionbench.results.agreement import Agreement, TensorAgreement
from precisionbench.results.claims import Claims
from precisionbench.results.comparison_data import (
    BackendFailure,
    BackendResult,
    ComparisonData,
    Speedup,
    TensorInfo,
    WorkloadInfo,
)
from precisionbench.results.conditions import CpuUse, RoundConditions
from precisionbench.results.environment import Environment, Gpu
from precisionbench.results.measurement import (
    Block,
    DeviceState,
    Measurement,
    Preparation,
)
from precisionbench.results.passes import Passes
from precisionbench.results.study import Cell, CellResult, DeviceStatus, StudyRun
from precisionbench.statistics import Interval, Verdict

__all__ = [
    "Agreement",
    "BackendFailure",
    "BackendResult",
    "Block",
    "Cell",
    "CellResult",
    "Claims",
    "ComparisonData",
    "CpuUse",
    "DeviceState",
    "DeviceStatus",
    "Environment",
    "Gpu",
    "Interval",
    "Measurement",
    "Passes",
    "Preparation",
    "RoundConditions",
    "Speedup",
    "StudyRun",
    "TensorAgreement",
    "TensorInfo",
    "Verdict",
    "WorkloadInfo",
]
