"""Frozen records of what was measured, and the files that hold them.

Raw samples are kept; whatever can be derived from them is a property.
"""

from precisionbench.results.claims import Claims
from precisionbench.results.records import (
    Agreement,
    BackendFailure,
    BackendResult,
    Block,
    ComparisonData,
    DeviceState,
    Environment,
    Gpu,
    Interval,
    Measurement,
    Passes,
    Preparation,
    Speedup,
    TensorAgreement,
    TensorInfo,
    Verdict,
    WorkloadInfo,
)

__all__ = [
    "Agreement",
    "BackendFailure",
    "BackendResult",
    "Block",
    "Claims",
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
