"""The part of a call on a CPU whose precision its profile cannot show."""

from __future__ import annotations

from precisionbench.diagnosis.parts import is_matrix
from precisionbench.results import BackendResult
from precisionbench.results.evidence import Evidence, Operation

_LEAST_SHARE = 1 / 3
# What Python and the profiler need around an operation or a module at most, and around a call.
_AROUND_ONE_S, _AROUND_ALL_S = 20e-6, 200e-6
# Namespaces of operations whose kind is known by their names.
_KNOWN = (
    *("aten", "prim", "prims", "mkldnn", "onednn", "quantized", "quantized_decomposed"),
    *("torchao", "inductor", "profiler", "torchvision", "torchaudio", "triton", "c10d"),
)


def unseen_part(row: BackendResult, evidence: Evidence, matrix_s: float) -> str:
    """What a call does besides its known matrix operations, if that could be most matrix work.

    NumPy, code of other libraries, and Python code are in no operation of PyTorch, and operations
    of threads that a model starts are not recorded. An operation of another library is recorded as
    one, and what it multiplies in is not.

    Args:
        row: that ran on a CPU.
        evidence: of the row.
        matrix_s: seconds of a call in known matrix operations.

    Returns:
        The part in words; empty where there is none, or where it is not known.
    """
    if not evidence.profiled_s or evidence.outside_s is None or row.engine_operations:
        return ""
    outside_s = evidence.outside_s - _overhead_s(evidence)
    share = outside_s / evidence.profiled_s
    if outside_s > matrix_s and share > _LEAST_SHARE:
        return (
            f"{share:.0%} of a call's time is outside of PyTorch's operations (Python code, "
            "NumPy, another library or another thread)"
        )
    foreign = [operation for operation in evidence.operations if _is_foreign(operation)]
    if foreign and sum(operation.time_s for operation in foreign) > matrix_s:
        longest = max(foreign, key=lambda operation: operation.time_s)
        return f"an operation of another library ({longest.name}) takes longer than all of them"
    return ""


def _overhead_s(evidence: Evidence) -> float:
    """Seconds of a call that Python and the profiler need around operations and modules at most."""
    parts = sum(o.count for o in evidence.operations) + sum(one.calls for one in evidence.layers)
    return parts * _AROUND_ONE_S + _AROUND_ALL_S


def _is_foreign(operation: Operation) -> bool:
    namespace, colons, _ = operation.name.partition("::")
    return bool(colons) and namespace not in _KNOWN and not is_matrix(operation)
