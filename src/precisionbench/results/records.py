"""All records of a comparison under one import; `precisionbench.results` is the public name."""

from precisionbench.results.agreement import Agreement, TensorAgreement
from precisionbench.results.comparison_data import (
    BackendFailure,
    BackendResult,
    ComparisonData,
    Speedup,
    TensorInfo,
    WorkloadInfo,
)
from precisionbench.results.environment import Environment, Gpu
from precisionbench.results.json_values import Json, as_json
from precisionbench.results.measurement import (
    REPORTED,
    Block,
    DeviceState,
    Measurement,
    Preparation,
)
from precisionbench.results.passes import Passes
from precisionbench.statistics import Interval, Verdict

__all__ = [
    "REPORTED",
    "Agreement",
    "BackendFailure",
    "BackendResult",
    "Block",
    "ComparisonData",
    "DeviceState",
    "Environment",
    "Gpu",
    "Interval",
    "Json",
    "Measurement",
    "Passes",
    "Preparation",
    "Speedup",
    "TensorAgreement",
    "TensorInfo",
    "Verdict",
    "WorkloadInfo",
    "as_json",
]
