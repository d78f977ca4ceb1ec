"""The part of a call that the profile of a CPU does not show: what ran outside of PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

from precisionbench.diagnosis.parts import is_matrix
from precisionbench.results import BackendResult
from precisionbench.results.evidence import Evidence, Operation

# What Python and the profiler need around an operation or a module at most, and around a call.
_AROUND_ONE_S, _AROUND_ALL_S = 20e-6, 100e-6
# Namespaces of operations whose kind is known by their names.
_KNOWN = (
    *("aten", "prim", "prims", "mkldnn", "onednn", "quantized", "quantized_decomposed"),
    *("torchao", "inductor", "profiler", "torchvision", "torchaudio", "triton", "c10d"),
)


def unseen_part(row: BackendResult, evidence: Evidence) -> tuple[float, str]:
    """The share of a call's time whose precision the profile cannot show, and where it is spent.

    NumPy, code of other libraries, and Python code are in no operation of PyTorch. An operation of
    another library is recorded as one, and what it multiplies in is not.

    Args:
        row: that ran on a CPU.
        evidence: of the row.

    Returns:
        The share, 0 where it is not known, and the place in words.
    """
    whole_s = evidence.profiled_s
    if not whole_s or row.engine_operations:
        return 0.0, ""
    foreign = [operation for operation in evidence.operations if _is_foreign(operation)]
    foreign_s = sum(operation.time_s for operation in foreign)
    outside_s = max(0.0, whole_s - _explained_s(evidence))
    where = "outside of PyTorch's operations (Python code, NumPy or another library)"
    if foreign_s > outside_s:
        where = f"in operations of another library ({_longest(foreign)})"
    return min(1.0, (foreign_s + outside_s) / whole_s), where


def _explained_s(evidence: Evidence) -> float:
    """Seconds of a call in operations, and at most those that Python needs around them."""
    parts = sum(o.count for o in evidence.operations) + sum(one.calls for one in evidence.layers)
    in_operations_s = sum(operation.time_s for operation in evidence.operations)
    return in_operations_s + parts * _AROUND_ONE_S + _AROUND_ALL_S


def _is_foreign(operation: Operation) -> bool:
    namespace, colons, _ = operation.name.partition("::")
    return bool(colons) and namespace not in _KNOWN and not is_matrix(operation)


def _longest(operations: Sequence[Operation]) -> str:
    return max(operations, key=lambda operation: operation.time_s).name
