"""Made-up comparisons with a cause in layers of a kind: attention, recurrent layers, norms."""

from __future__ import annotations

import attrs

from made_up_results import CLEAN, HALF_CONV, comparison, conv, evidence, layer, other
from precisionbench.results.evidence import Denormals, Evidence, Kernel, Layer, Operation, Tensor
from precisionbench.statistics.periodic import Periodic

SOFTMAX = "void (anonymous namespace)::softmax_warp_forward<c10::Half, c10::Half, float, 11>"
SDPA = ("aten::_scaled_dot_product_attention_math", "aten::scaled_dot_product_attention")
CL = {"memory_format": "channels_last"}


def tensors(dtype: str, *shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(Tensor(shape, dtype) for shape in shapes)


def operation(name: str, path: str, time_s: float, inputs=(), parents=(), kernel="") -> Operation:
    kernels = (Kernel(kernel or "nvjet_hsh_64x8", 1.0, time_s),)
    return Operation(name, path, tuple(inputs), 1.0, time_s, kernels, parents)


def attention(
    dtype="float16", size=64, parents=(), path="attention", time_s=0.04e-3, mask=False
) -> tuple[Operation, ...]:
    """The separate operations of attention with 8 heads over 128 tokens."""
    scores = (32, 8, 128, 128)
    query, keys = (256, 128, size), (256, size, 128)
    added = ("aten::add_", path, time_s / 4, tensors(dtype, scores, (128, 128)), parents)
    return (
        operation("aten::bmm", path, time_s, tensors(dtype, query, keys), parents),
        *((operation(*added),) if mask else ()),
        operation("aten::_softmax", path, time_s, tensors(dtype, scores), parents, SOFTMAX),
        operation("aten::bmm", path, time_s, tensors(dtype, (256, 128, 128), query), parents),
    )


def efficient(dtype="float16", mask=True) -> Operation:
    """Attention in the memory-efficient kernel."""
    shapes = [(32, 128, 8, 64)] * 3 + ([(32, 8, 128, 128)] if mask else [])
    kernel = "fmha_cutlassF_f16_aligned_64x64_rf_sm80"
    inputs = tensors(dtype, *shapes)
    return operation("aten::_efficient_attention_forward", "", 0.2e-3, inputs, (), kernel)


def fast(*operations: Operation, layers: tuple[Layer, ...] = (), **more) -> Evidence:
    """Evidence of a half row with some convolution besides."""
    plain = conv(0.15e-3, "float16", HALF_CONV)
    return evidence(plain, *operations, layers=(layer(dtype="float16"), *layers), **more)


def lstm(steps: int = 512, batch: int = 4, dtype: str = "float16") -> Layer:
    inputs = tensors(dtype, (steps, batch, 64))
    outputs = tensors(dtype, (steps, batch, 64), (1, batch, 64), (1, batch, 64))
    return Layer("lstm", "LSTM", inputs, outputs, tensors(dtype, (256, 64), (256, 64)), 1)


def recurrent(time_s: float = 0.2e-3, packed: bool = True) -> Operation:
    weights = ((33024,),) if packed else ()
    inputs = tensors("float16", (512, 4, 64), *weights, (1, 4, 64), (1, 4, 64))
    return operation("aten::_cudnn_rnn", "lstm", time_s, inputs, ("aten::lstm",))


def added_by_index(time_s: float, dtype: str) -> Operation:
    return other("aten::index_add_", "indexFuncLargeIndex", time_s, (dtype,), "messages")


def norm_with_copies(kind: str = "GroupNorm") -> tuple[Evidence, dict]:
    """A channels_last row in which the norm makes a copy."""
    x = Tensor((32, 64, 56, 56), "float16")
    copied = attrs.evolve(
        other("aten::copy_", "elementwise_kernel", 0.1e-3, ("float16", "float16"), "norm"),
        parents=("aten::contiguous", "aten::native_group_norm", "aten::group_norm"),
    )
    norm = Layer("norm", kind, (x,), (x,), tensors("float16", (64,), (64,)), 1)
    return fast(copied, layers=(norm,)), {"options": {"dtype": "float16", **CL}}


def on_a_cpu(*operations: Operation, **more) -> Evidence:
    """Evidence without kernels."""
    return evidence(*(attrs.evolve(one, kernels=()) for one in operations), **more)


def depthwise(time_s: float, dtype: str) -> Evidence:
    made = conv(time_s, dtype, groups=64, layer="depthwise")
    return on_a_cpu(
        conv(0.1e-3, dtype), made, layers=(layer(), layer("depthwise", groups=64, dtype=dtype))
    )


COPIED, IN_CHANNELS_LAST = norm_with_copies()
# For each cause a comparison in which it is, and the row in which it must be found.
PLANTED_LAYERS = {
    "attention-fallback": (comparison(CLEAN["base"], fast(*attention())), "half"),
    "norms-undo-channels-last": (
        comparison(CLEAN["base"], COPIED, half_row=IN_CHANNELS_LAST),
        "half",
    ),
    "grouped-convolutions": (
        comparison(
            depthwise(0.9e-3, "float32"),
            depthwise(0.9e-3, "bfloat16"),
            gpu=None,
            times_s=(1e-3, 1.01e-3),
        ),
        "half",
    ),
    "recurrent-layers": (
        comparison(CLEAN["base"], fast(recurrent(), layers=(lstm(),))),
        "half",
    ),
    "half-scatter": (
        comparison(
            evidence(conv(), added_by_index(0.1e-3, "float32")),
            fast(added_by_index(0.2e-3, "float16")),
        ),
        "half",
    ),
    "denormals": (
        comparison(
            on_a_cpu(conv(), denormals=(Denormals("conv", 0.5),)),
            on_a_cpu(conv(dtype="bfloat16")),
            gpu=None,
        ),
        "eager",
    ),
    "uneven-calls": (
        comparison(CLEAN["base"], fast(slow_calls=Periodic(10, 4.0, 0.2))),
        "half",
    ),
}
