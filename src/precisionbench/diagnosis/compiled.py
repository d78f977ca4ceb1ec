"""Compiled rows: what `torch.compile` left to Python, and what a compiled call costs besides."""

from __future__ import annotations

from precisionbench.diagnosis.facts import Facts
from precisionbench.results import BackendResult, ComparisonData
from precisionbench.results.claims import EAGER
from precisionbench.results.earlier_claims import claims_of
from precisionbench.results.evidence import Operation

ENGINE = "torch.compile"
# What torch's profiler records around compiled code, and the checks before it.
_REGION = "Torch-Compiled Region"
_CHECKS = ("TorchDynamo Cache Lookup", "AOTDispatcher Runtime Wrapper", "Pregraph bytecode")


def is_compiled(row: BackendResult) -> bool:
    """Whether a row runs a model that `torch.compile` compiled."""
    return claims_of(row).engine == ENGINE


def has_regions(facts: Facts) -> bool:
    """Whether the profile of a row names its compiled code; that of old versions does not."""
    return any(_is_compiled_code(operation) for operation in facts.evidence.operations)


def share_outside(facts: Facts) -> float:
    """The share of a call's time in operations that no compiled code runs."""
    operations = facts.evidence.operations
    outside_s = sum(o.time_s for o in operations if not _is_compiled_code(o) and not _is_check(o))
    return outside_s / _whole_s(facts)


def share_of_checks(facts: Facts) -> float:
    """The share of a call's time in the checks before compiled code; 0 on a GPU.

    A profile of a GPU holds only operations that launch kernels.
    """
    return sum(o.time_s for o in facts.evidence.operations if _is_check(o)) / _whole_s(facts)


def eager_row(data: ComparisonData, row: BackendResult) -> BackendResult | None:
    """The row of the same comparison that computes the same in eager PyTorch.

    Args:
        data: the comparison.
        row: a compiled row.
    """
    wanted = (claims_of(row).dtype, row.batch_size, row.options.get("memory_format"))
    for other in data.results:
        claims = claims_of(other)
        own = (claims.dtype, other.batch_size, other.options.get("memory_format"))
        if claims.engine == EAGER and own == wanted and not other.options.get("cuda_graph"):
            return other
    return None


def _whole_s(facts: Facts) -> float:
    return max(facts.busy_s, facts.row.latency.value)


def _is_compiled_code(operation: Operation) -> bool:
    return any(name.startswith(_REGION) for name in (operation.name, *operation.parents))


def _is_check(operation: Operation) -> bool:
    return operation.name.startswith(_CHECKS)
