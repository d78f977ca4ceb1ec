"""Operations run in a wider dtype than the row's, because an operand promotes the others."""

from __future__ import annotations

from collections.abc import Sequence

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.labels import HALF
from precisionbench.diagnosis.parts import (
    POINTWISE,
    casts_up,
    category_by_name,
    is_cast,
    is_matrix,
)
from precisionbench.results.dtypes import FLOAT32, FLOAT64, TF32
from precisionbench.results.evidence import Operation

_WIDER = (FLOAT32, FLOAT64)
_LEAST_SHARE = 0.05
_AUTOCAST = "_autocast_to_"
_CASTING = ("aten::_to_copy", "aten::to")


def detect(context: CauseContext) -> CauseMatch | None:
    """The share of time in operations with operands of a wider dtype."""
    facts, claim = context.facts, context.label.claim
    found: Sequence[Operation] = ()
    if claim in (FLOAT32, TF32):
        found = [o for o in facts.evidence.operations if _has(o, FLOAT64)]
    elif claim in HALF:
        found = _promoted(facts, claim)
    whole_s = facts.whole_s
    share = sum(o.time_s for o in found) / whole_s
    if share <= _LEAST_SHARE:
        return None
    wide = FLOAT64 if any(_has(o, FLOAT64) for o in found) else FLOAT32
    place = found[0].layer or "the model"
    casts = is_cast(found[0]) and not _caller(found[0])  # by the model's own code
    code = "the model" if found[0].place else place
    is_default = facts.row.flags.get("default_dtype") == wide != FLOAT32
    return CauseMatch(
        (
            Number(f"time in {wide} operations", share, "share"),
            Number(f"{wide} operations per call", sum(o.count for o in found), "count"),
        ),
        without(sum(map(_saved_s, found)) / whole_s),
        remedy=_OF_THE_DEFAULT.format(wide=wide)
        if is_default
        else _OF_CASTS.format(wide=wide, place=code)
        if casts
        else "",
        reason=f"first in {place} ({f'a cast to {wide}' if casts else found[0].name})",
        untestable=casts,
    )


def _saved_s(operation: Operation) -> float:
    """Seconds that the narrower dtype saves: casts, and in other operations half of the bytes.

    Matrix operations of a GPU can gain more: many have little float64 hardware.
    """
    if is_cast(operation) or (operation.kernels and is_matrix(operation)):
        return operation.time_s
    return operation.time_s / 2


def _promoted(facts: Facts, claim: str) -> Sequence[Operation]:
    """The wider operations of a 16-bit row, where 16-bit tensors meet wider ones.

    A layer that casts to float32 by itself, such as many RMS norms, does so on purpose, and so
    does a model with float32 weights. An operation that casts its 16-bit operands to float32, such
    as the math kernel of attention or `aten::mean` on a CPU, chose the dtype of all that it calls.
    """
    operations, layers = facts.evidence.operations, facts.evidence.layers
    if any(one.dtype == FLOAT32 for layer in layers for one in layer.parameters):
        return ()
    if any(_AUTOCAST in operation.name for operation in operations):  # of a scripted model
        return ()
    casts = [o for o in operations if casts_up(o)]
    casting = {_caller(o) for o in casts} - {""}
    promoting = [o for o in operations if casting.isdisjoint(o.parents) and _promotes(o, claim)]
    choosing = casting - {o.name for o in promoting}
    deliberate = {o.layer for o in casts} - {o.layer for o in promoting}
    wide = [
        o
        for o in operations
        if _has(o, *_WIDER) and o.layer not in deliberate and choosing.isdisjoint(o.parents)
    ]
    return wide if promoting else ()


def _promotes(operation: Operation, claim: str) -> bool:
    """Whether a pointwise operation has operands of both dtypes, so that its result is wider.

    Reductions, such as those in `mean` on a CPU, add 16-bit elements into a wider result, and an
    operation in place, such as `add_`, has a result of the dtype that was there before. What has
    no namespace, such as `forward` of a scripted model, only calls operations.
    """
    is_new = "::" in operation.name and not operation.short_name.endswith("_")
    is_pointwise = is_new and category_by_name(operation) == POINTWISE
    return is_pointwise and _has(operation, claim) and _has(operation, *_WIDER)


def _caller(cast: Operation) -> str:
    """The operation that a cast belongs to; empty where the model itself casts."""
    return next((name for name in cast.parents if name not in _CASTING), "")


def _has(operation: Operation, *dtypes: str) -> bool:
    """Whether it has an operand of one of these dtypes; a tensor without dimensions is a number."""
    return any(tensor.dtype in dtypes and tensor.shape for tensor in operation.inputs)


_OF_CASTS = (
    "remove the cast to {wide} (`.to()`, `.double()`, `.float()`, or an array of NumPy) from "
    "forward of {place}, or cast back directly after the operation that needs it"
)
_OF_THE_DEFAULT = (
    "remove torch.set_default_dtype(torch.{wide}), with which torch.zeros and other functions make "
    "{wide} tensors, or give each of them the dtype of the tensors that it meets"
)
CAUSE = Cause(
    "wider-dtype",
    "operations run in a wider dtype than the row's",
    "create constants in the dtype of the tensors that they meet (such as `x.dtype`), and register "
    "tensors as buffers, which are cast with the model",
    detect,
    "constants-cast",
)
