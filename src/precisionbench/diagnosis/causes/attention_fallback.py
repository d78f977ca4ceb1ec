"""Attention runs without a fused kernel, or with a slower one than the GPU has."""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.labels import HALF
from precisionbench.diagnosis.parts import FUSED_ATTENTION_FLAGS, casts_up
from precisionbench.errors import some
from precisionbench.results.evidence import Operation

_LEAST_SHARE = 0.15
_MATH = "aten::_scaled_dot_product_attention_math"
_NATIVE = "aten::_native_multi_head_attention"
_EFFICIENT = "_efficient_attention_forward"
# Batched products, and the place of the first factor among their operands: a result that exists
# already is the last operand.
_PRODUCTS = {"bmm": 0, "baddbmm": 1}
_PRODUCTS_EACH = 2  # of a softmax: Q K^T before it, and the product with V after it
# Flash attention and cuDNN's attention need tensor cores of this compute capability.
_FLASH_CAPABILITY = 8.0
_FUSED_DIMENSIONS = 4
_ALIGNMENT = {"float32": 4, "float16": 8, "bfloat16": 8}
_MASK_PLACE = 3  # of the operands of the memory-efficient kernel
_ADVICE = {
    "settings": "allow fused kernels: torch.backends.cuda.enable_flash_sdp(True), and the same for "
    "mem_efficient and cudnn",
    "weights": "call the module with need_weights=False, unless the weights are used",
    "written": "use torch.nn.functional.scaled_dot_product_attention in place of the separate "
    "matmuls and softmax",
    "native": "call the module without a mask",
    "cpu": "call torch.backends.mha.set_fastpath_enabled(False)",
    "math": "pad the head size to a multiple of 8, and use is_causal=True in place of a mask",
    "math on a CPU": "use one head size for query, key and value, and no mask that needs gradients",
    "dimensions": "give query, key and value as (batch, heads, length, size), also with one head",
    "dropout": "pass dropout_p=0.0 outside of training: scaled_dot_product_attention does not know "
    "whether a module is in training",
    "efficient": "use is_causal=True or no mask (e.g. sequences of one length), or FlexAttention",
}


@attrs.frozen
class _Attention:
    """Attention in one layer that did not run in the fastest kernel.

    Attributes:
        layer: path of the layer.
        ran: the kernel that ran, in words.
        why: why no faster one ran.
        advice: name of the advice.
        time_s: seconds of a call.
    """

    layer: str
    ran: str
    why: str
    advice: str
    time_s: float


def detect(context: CauseContext) -> CauseMatch | None:
    """The share of time in attention without a fused kernel, or in 16 bits without flash."""
    facts = context.facts
    found = [*_unfused(facts), *_slower_kernels(context)]
    spent_s = sum(one.time_s for one in found)
    share = min(1.0, spent_s / facts.whole_s) if found else 0.0
    if share <= _LEAST_SHARE:
        return None
    longest = max(found, key=lambda one: one.time_s)
    kinds = dict.fromkeys(f"ran {one.ran}, because {one.why}" for one in found)
    layers = some([one.layer or "the model's own forward" for one in found])
    return CauseMatch(
        (
            Number("time in such attention", share, "share"),
            Number("layers with such attention", len(found), "count"),
        ),
        without(share),
        remedy=_ADVICE[longest.advice],
        reason=f"{some(list(kinds))}; in {layers}",
        untestable=longest.advice in ("written", "native", "cpu"),  # calls that cannot be replaced
    )


def _unfused(facts: Facts) -> Iterator[_Attention]:
    """Attention as separate products and softmax, layer by layer."""
    evidence, on_gpu = facts.evidence, facts.on_gpu
    flags = [facts.row.flags.get(flag) for flag in FUSED_ATTENTION_FLAGS]
    is_switched_off = on_gpu and all(flag is False for flag in flags)
    by_layer: dict[str, list[Operation]] = {}
    for operation in evidence.operations:
        by_layer.setdefault(operation.layer, []).append(operation)
    kinds = {layer.path: (layer.kind, len(layer.outputs)) for layer in evidence.layers}
    for path, operations in by_layer.items():
        math_ones = [o for o in operations if _MATH in (o.name, *o.parents)]
        if math_ones:
            why, advice = _why_math(math_ones, on_gpu)
            if is_switched_off:
                why, advice = "torch's settings allow no fused kernel", "settings"
            yield _Attention(path, "the math kernel", why, advice, _sum_s(math_ones))
        written = _written_out([o for o in operations if o not in math_ones])
        if written:
            yield _by_hand(path, kinds.get(path, ("", 0)), written, on_gpu)


def _by_hand(
    path: str, layer: tuple[str, int], operations: list[Operation], on_gpu: bool
) -> _Attention:
    kind, outputs = layer
    is_fast_path = any(_NATIVE in operation.parents for operation in operations)
    if kind == "MultiheadAttention" and outputs > 1:
        why, advice = "the module returns its weights (need_weights=True)", "weights"
    elif is_fast_path and on_gpu:
        why, advice = "it has a mask", "native"
    elif is_fast_path:
        why, advice = "the fast path of nn.MultiheadAttention has no fused kernel on a CPU", "cpu"
    else:
        why, advice = "it is written as softmax(Q K^T) V", "written"
    return _Attention(path, "separate matmuls and softmax", why, advice, _sum_s(operations))


def _sum_s(operations: list[Operation]) -> float:
    return sum(operation.time_s for operation in operations)


def _written_out(operations: list[Operation]) -> list[Operation]:
    """The operations of softmax(Q K^T) V, and those on its scores; empty where there is none."""
    softmaxes = [o for o in operations if "softmax" in o.short_name and o.inputs]
    for softmax in softmaxes:
        scores = softmax.inputs[0].shape
        if not scores:
            continue
        first = [o for o in operations if _product_shape(o) == _flat(scores)]
        second = [o for o in operations if _product_operand(o) == _flat(scores)]
        # Two products of the same shapes are one operation that is called twice.
        products = {id(o): o for o in (*first, *second)}
        is_enough = sum(o.count for o in products.values()) >= _PRODUCTS_EACH * softmax.count
        if first and second and is_enough:
            on_scores = [
                o for o in operations if o.inputs and _flat(o.inputs[0].shape) == _flat(scores)
            ]
            return list({**products, **{id(o): o for o in on_scores}}.values())
    return []


def _flat(shape: tuple[int, ...]) -> tuple[int, int]:
    """The number of elements of scores, and their number of keys."""
    return math.prod(shape), shape[-1] if shape else 0


def _matrices(operation: Operation) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The shapes of the two operands of a batched product; None for other operations."""
    first = _PRODUCTS.get(operation.short_name)
    if first is None:
        return None
    shapes = [tensor.shape for tensor in operation.inputs[first : first + 2]]
    if len(shapes) < 2 or any(len(shape) != 3 for shape in shapes):
        return None
    return shapes[0], shapes[1]


def _product_shape(operation: Operation) -> tuple[int, int] | None:
    operands = _matrices(operation)
    return _flat((*operands[0][:2], operands[1][2])) if operands else None


def _product_operand(operation: Operation) -> tuple[int, int] | None:
    operands = _matrices(operation)
    return _flat(operands[0]) if operands else None


def _why_math(operations: list[Operation], on_gpu: bool) -> tuple[str, str]:
    """Why torch chose its math kernel, as far as shapes and dtypes show it; with the advice."""
    whole = next((o for o in operations if o.name == _MATH and o.inputs), None)
    dimensions = len(whole.inputs[0].shape) if whole else _FUSED_DIMENSIONS
    if dimensions != _FUSED_DIMENSIONS:
        return f"its tensors have {dimensions} dimensions, and fused kernels take 4", "dimensions"
    if not on_gpu and any("dropout" in o.short_name for o in operations):
        return "it has dropout, which no fused kernel has on a CPU", "dropout"
    reasons = " and ".join(_reasons_of_shapes(operations, on_gpu))
    return reasons or "no fused kernel was allowed", "math" if on_gpu else "math on a CPU"


def _reasons_of_shapes(operations: list[Operation], on_gpu: bool) -> Iterator[str]:
    products = [(o, pair) for o in operations if (pair := _matrices(o))]
    if not products:
        return
    size = products[0][1][0][2]
    values = products[-1][1][1][2]
    # The math kernel casts 16 bits to float32: its casts show what it was given.
    casts = [o.inputs[1].dtype for o in operations if casts_up(o)]
    dtype = casts[0] if casts else products[0][0].inputs[0].dtype
    if any(_adds_mask(o) for o in operations):
        yield "it has a mask"
    if size != values:
        yield f"the head sizes differ ({size} and {values})"
    if on_gpu:
        yield from _why_on_gpu(size, dtype)


def _why_on_gpu(size: int, dtype: str) -> Iterator[str]:
    alignment = _ALIGNMENT.get(dtype)
    if alignment is None:
        yield f"fused kernels do not take {dtype}"
    elif size % alignment:
        yield f"the head size {size} is not a multiple of {alignment}"
    if dtype == "float32":
        yield "float32 rules out flash and cuDNN"


def _adds_mask(operation: Operation) -> bool:
    shapes = [tensor.shape for tensor in operation.inputs[:2]]
    added = operation.short_name in ("add", "add_") and len(shapes) == 2
    return added and len(shapes[1]) >= 2 and shapes[0][-2:] == shapes[1][-2:]


def _slower_kernels(context: CauseContext) -> Iterator[_Attention]:
    """Attention in 16 bits that ran in the memory-efficient kernel, on a GPU that has flash."""
    gpu = context.data.environment.gpu
    if gpu is None or float(gpu.compute_capability) < _FLASH_CAPABILITY:
        return
    for o in context.facts.evidence.operations:
        if o.short_name == _EFFICIENT and o.inputs and o.inputs[0].dtype in HALF:
            masked = len(o.inputs) > _MASK_PLACE and len(o.inputs[_MASK_PLACE].shape) == 4
            why = "it has a mask" if masked else "flash and cuDNN attention were ruled out"
            yield _Attention(o.layer, "the memory-efficient kernel", why, "efficient", o.time_s)


CAUSE = Cause(
    "attention-fallback",
    "attention without the fastest kernel",
    "use torch.nn.functional.scaled_dot_product_attention without a mask, in FP16/BF16",
    detect,
    "fused-attention",
)
