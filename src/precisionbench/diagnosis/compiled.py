"""Compiled rows: what `torch.compile` left to Python, and what a compiled call costs besides."""

from __future__ import annotations

from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.parts import moves_nothing
from precisionbench.results import BackendResult, ComparisonData
from precisionbench.results.claims import EAGER
from precisionbench.results.earlier_claims import claims_of
from precisionbench.results.evidence import COMPILED_GRAPH, Operation

ENGINE = "torch.compile"
# What torch's profiler records around a compiled graph: checks of what the code depends on, and
# the Python code between graphs.
_AROUND = (
    "TorchDynamo Cache Lookup",
    "Torch-Compiled Region",
    "Pregraph bytecode",
    "AOTDispatcher Runtime Wrapper",
)
# What it records while something is compiled.
_COMPILING = "(dynamo_timed)"


def is_compiled(row: BackendResult) -> bool:
    """Whether a row runs a model that `torch.compile` compiled."""
    return claims_of(row).engine == ENGINE


def has_graphs(facts: Facts) -> bool:
    """Whether the profile of a row names its compiled graphs; earlier files do not."""
    return any(_is_compiled_code(operation) for operation in facts.evidence.operations)


def share_outside(facts: Facts) -> float:
    """The share of a call's time in operations that no compiled graph runs."""
    return sum(o.time_s for o in _outside(facts)) / facts.whole_s


def works_outside(facts: Facts) -> bool:
    """Whether any work is outside of compiled graphs, as far as the profile names them.

    An output that is a view of an input is made from it after the graph, without any work.
    """
    return not has_graphs(facts) or not all(map(moves_nothing, _outside(facts)))


def _outside(facts: Facts) -> list[Operation]:
    operations = facts.evidence.operations
    return [o for o in operations if not (_is_compiled_code(o) or _is_around(o))]


def share_around(facts: Facts) -> float:
    """The share of a call's time in checks and Python code around compiled graphs; 0 on a GPU.

    A profile of a GPU holds only operations that launch kernels.
    """
    return sum(o.time_s for o in facts.evidence.operations if _is_around(o)) / facts.whole_s


def share_compiling(facts: Facts) -> float:
    """The share of a call's time in which it is compiled; 0 on a GPU."""
    compiling = [
        o for o in facts.evidence.operations
        if any(_COMPILING in name for name in (o.name, *o.parents))
    ]  # fmt: skip
    return sum(o.time_s for o in compiling) / facts.whole_s


def eager_row(data: ComparisonData, row: BackendResult) -> BackendResult | None:
    """The row of the same comparison that computes the same in eager PyTorch.

    Args:
        data: the comparison.
        row: a compiled row.
    """
    wanted = (
        claims_of(row).dtype,
        claims_of(row).weights,
        row.batch_size,
        row.options.get("memory_format"),
    )
    for other in data.results:
        claims = claims_of(other)
        own = (claims.dtype, claims.weights, other.batch_size, other.options.get("memory_format"))
        if claims.engine == EAGER and own == wanted and not other.options.get("cuda_graph"):
            return other
    return None


def _is_compiled_code(operation: Operation) -> bool:
    return COMPILED_GRAPH in (operation.name, *operation.parents)


def _is_around(operation: Operation) -> bool:
    return not operation.kernels and operation.name.startswith(_AROUND)
