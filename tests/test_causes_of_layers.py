"""Causes in attention, recurrent layers, norms and scatter: their reasons, and look-alikes.

The evidence is made up; that each cause is found where it is planted is in test_causes.py.
"""

from __future__ import annotations

import attrs
import pytest

from made_up_layers import (
    CL,
    COPIED,
    IN_CHANNELS_LAST,
    PLANTED_LAYERS,
    added_by_index,
    attention,
    depthwise,
    efficient,
    fast,
    lstm,
    norm_with_copies,
    on_a_cpu,
    operation,
    recurrent,
    tensors,
)
from made_up_results import CLEAN, LAYOUT, comparison, conv, evidence, findings, layer
from precisionbench.diagnosis.experiments import with_experiments
from precisionbench.diagnosis.findings import ExperimentResult, FindingStatus
from precisionbench.results.conditions import CpuUse, RoundConditions
from precisionbench.results.evidence import Copy, Denormals, Kernel, Layer, Operation, Tensor
from precisionbench.statistics import Interval
from precisionbench.statistics.periodic import Periodic

SDPA = ("aten::_scaled_dot_product_attention_math", "aten::scaled_dot_product_attention")


def found(cause: str, half, **more):
    return findings(comparison(more.pop("base", CLEAN["base"]), half, **more), cause)


# --- attention ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("half", "reason"),
    [
        (fast(*attention()), "it is written as softmax(Q K^T) V; in attention"),
        (fast(*attention(parents=SDPA, mask=True, size=50)),
         "ran the math kernel, because it has a mask and the head size 50 is not a multiple of 8"),
        (fast(*attention("float64", parents=SDPA)), "fused kernels do not take float64"),
        (fast(*attention(parents=("aten::_native_multi_head_attention",))),
         "because it has a mask; in attention"),
        (fast(efficient()), "ran the memory-efficient kernel, because it has a mask"),
    ],
)  # fmt: skip
def test_the_kernel_of_attention_is_named_with_the_reason(half, reason):
    (finding,) = found("attention-fallback", half)
    assert reason in finding.reason


def test_products_into_a_result_that_exists_are_attention_as_well():
    first, softmax, second = attention()
    into = attrs.evolve(second, inputs=(*second.inputs, second.inputs[1]))
    assert found("attention-fallback", fast(first, softmax, into))


def test_one_product_before_a_softmax_is_no_attention():
    """An einsum whose result goes through a softmax: all its sizes are equal."""
    product, softmax, _ = attention(size=128)
    assert found("attention-fallback", fast(product, softmax)) == []
    assert found("attention-fallback", fast(attrs.evolve(product, count=2.0), softmax))


def test_the_math_kernel_is_explained_by_the_dtype_that_it_was_given():
    cast = operation(
        "aten::copy_", "attention", 0.01e-3, tensors("float32", (32, 8, 128, 50)), SDPA
    )
    cast = attrs.evolve(cast, inputs=(*cast.inputs, Tensor((32, 8, 128, 50), "float16")))
    (finding,) = found("attention-fallback", fast(cast, *attention("float32", 50, SDPA)))
    assert "not a multiple of 8" in finding.reason
    assert "float32" not in finding.reason


def test_weights_that_are_returned_are_named_with_the_option_that_leaves_them_out():
    outputs = tensors("float16", (32, 128, 512), (32, 128, 128))
    module = Layer("attention", "MultiheadAttention", outputs[:1], outputs, (), 1)
    (finding,) = found("attention-fallback", fast(*attention(), layers=(module,)))
    assert "need_weights=True" in finding.reason
    assert "need_weights=False" in finding.remedy


@pytest.mark.parametrize(("parents", "proposed"), [(SDPA, "fused-attention"), ((), "")])
def test_only_attention_in_functions_of_pytorch_can_be_replaced_in_an_experiment(parents, proposed):
    (finding,) = found("attention-fallback", fast(*attention(parents=parents)))
    assert finding.proposed == proposed


def test_the_fast_path_of_modules_has_no_fused_kernel_on_a_cpu():
    native = ("aten::_native_multi_head_attention",)
    slow = on_a_cpu(*attention("float32", parents=native, time_s=0.1e-3))
    (finding,) = findings(comparison(slow, CLEAN["half"], gpu=None), "attention-fallback", "eager")
    assert "set_fastpath_enabled(False)" in finding.remedy


def test_attention_on_a_cpu_is_found_from_its_operations():
    slow = on_a_cpu(*attention("float32", parents=SDPA, time_s=0.1e-3))
    (finding,) = findings(comparison(slow, CLEAN["half"], gpu=None), "attention-fallback", "eager")
    assert "head size" not in finding.reason


@pytest.mark.parametrize(
    ("shape", "inner", "reason", "remedy"),
    [
        ((4, 128, 64), "aten::add", "its tensors have 3 dimensions", "(batch, heads, length"),
        ((4, 8, 128, 64), "aten::dropout", "it has dropout", "dropout_p=0.0"),
        ((4, 8, 128, 64), "aten::add", "no fused kernel was allowed", "one head size"),
    ],
)
def test_the_math_kernel_on_a_cpu_is_explained_by_its_arguments(shape, inner, reason, remedy):
    whole = operation(SDPA[0], "attention", 0.0, tensors("float32", shape), SDPA[1:])
    other = operation(inner, "attention", 0.01e-3, (), SDPA)
    products = attention("float32", parents=SDPA, time_s=0.1e-3)
    slow = on_a_cpu(whole, other, *products)
    (finding,) = findings(comparison(slow, CLEAN["half"], gpu=None), "attention-fallback", "eager")
    assert reason in finding.reason
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    "half",
    [
        # attention takes 5 % of the time
        fast(*attention(time_s=0.005e-3)),
        # a fused kernel
        fast(efficient("float32")),
        operation("aten::_cudnn_attention_forward", "", 0.2e-3),
        # a softmax between two matmuls whose scores it does not take: a gate for experts
        fast(
            operation("aten::bmm", "", 0.1e-3, tensors("float16", (8, 64, 64), (8, 64, 64))),
            operation("aten::_softmax", "", 0.1e-3, tensors("float16", (64, 8))),
            operation("aten::bmm", "", 0.1e-3, tensors("float16", (64, 1, 8), (64, 8, 64))),
        ),
    ],
)
def test_fused_attention_and_other_softmaxes_are_no_fallback(half):
    seen = fast(half) if isinstance(half, Operation) else half
    assert not found("attention-fallback", seen)


# --- recurrent layers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time_s", "steps"),
    [(0.01e-3, 512), (0.25e-3, 4)],
    ids=["little of the time", "few long steps"],
)
def test_recurrent_layers_that_fill_the_gpu_are_no_cause(time_s, steps):
    assert not found("recurrent-layers", fast(recurrent(time_s), layers=(lstm(steps),)))


def _many_kernels(count: float) -> Operation:
    """An LSTM of many kernels, which take a fifth of the latency."""
    return attrs.evolve(recurrent(), kernels=(Kernel("gemmSN_TN_kernel", count, 0.2e-3),))


def test_idle_time_between_the_kernels_of_recurrent_layers_is_theirs():
    (finding,) = found(
        "recurrent-layers", evidence(_many_kernels(1024.0), layers=(lstm(),)), times_s=(1e-3, 1e-3)
    )
    assert finding.evidence[0].value == pytest.approx(1.0)
    assert finding.evidence[-1].value == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("count", [2.0, 5.0], ids=["too few", "a small part"])
def test_idle_time_that_the_kernels_of_recurrent_layers_cannot_explain_is_not_theirs(count):
    others = attrs.evolve(conv(0.01e-3), kernels=(Kernel(LAYOUT, 95.0 * (count > 2), 0.01e-3),))
    seen = evidence(_many_kernels(count), others, layers=(lstm(),))
    assert not found("recurrent-layers", seen, times_s=(1e-3, 1e-3))


def test_weights_that_cudnn_packs_in_every_call_are_named():
    copies = (Copy("DtoD", "", 4.0, 0.05e-3, 1e6),)
    half = fast(recurrent(packed=False), layers=(lstm(4),), copies=copies)
    (finding,) = found("recurrent-layers", half)
    assert "flatten_parameters()" in finding.remedy
    packed = fast(recurrent(), layers=(lstm(4),), copies=copies)
    assert not found("recurrent-layers", packed)


def test_cells_in_a_loop_are_recurrent_layers():
    cell = Layer("cell", "GRUCell", (), (), (), 200)
    half = fast(operation("aten::addmm", "cell", 0.2e-3), layers=(cell,))
    (finding,) = found("recurrent-layers", half)
    assert ("dependent steps per call", 200.0) in [(n.name, n.value) for n in finding.evidence]


# --- scatter --------------------------------------------------------------------------------------


@pytest.mark.parametrize("half_s", [0.1e-3, 0.01e-3])
def test_additions_by_index_that_are_no_slower_than_in_float32_are_no_cause(half_s):
    base = evidence(conv(), added_by_index(0.1e-3, "float32"))
    assert not found("half-scatter", fast(added_by_index(half_s, "float16")), base=base)


def test_the_addition_is_named_and_not_what_it_calls():
    def adding(time_s: float, dtype: str):
        called = added_by_index(time_s, dtype)
        return attrs.evolve(called, name="aten::copy_", parents=("aten::index_add",))

    base, half = (
        evidence(conv(), adding(*one)) for one in ((0.1e-3, "float32"), (0.3e-3, "float16"))
    )
    (finding,) = found("half-scatter", half, base=base)
    assert finding.reason.startswith("aten::index_add in ")


# --- layouts --------------------------------------------------------------------------------------


def converting(*layers):
    extra = (Kernel(LAYOUT, 2.0, 0.1e-3),)
    return evidence(conv(0.2e-3, "float16", extra=extra), layers=(layer(), *layers))


def norm(kind: str, *shape: int) -> Layer:
    x = Tensor((32, 64, 56, 56), "float16")
    return Layer("norm", kind, (x,), (x,), (Tensor(shape or (64,), "float16"),), 1)


@pytest.mark.parametrize(
    ("kind", "shape"), [("GroupNorm", ()), ("InstanceNorm2d", ()), ("LayerNorm", (64, 56, 56))]
)
def test_channels_last_is_not_advised_where_norms_convert_back(kind, shape):
    (finding,) = found("layout-conversions", converting(norm(kind, *shape)))
    assert finding.remedy.startswith(f"replace norm ({kind})")
    assert finding.proposed == "channels-last"  # which shows whether it is slower


@pytest.mark.parametrize(("kind", "shape"), [("BatchNorm2d", ()), ("LayerNorm", (64,))])
def test_channels_last_is_advised_for_norms_that_have_such_kernels(kind, shape):
    (finding,) = found("layout-conversions", converting(norm(kind, *shape)))
    assert finding.remedy.startswith("use memory_format=channels_last")


def test_a_change_that_was_measured_and_does_not_help_is_not_advised():
    (before,) = found("layout-conversions", converting())
    slower = Interval(0.8, 0.78, 0.82)
    trial = ExperimentResult("channels-last", before.cause, before.row, slower)
    after = with_experiments(before, [trial])
    assert (after.status, after.remedy) == (FindingStatus.RULED_OUT, "")


def test_a_contiguous_row_shows_what_the_norms_cost():
    (before,) = found("norms-undo-channels-last", COPIED, half_row=IN_CHANNELS_LAST)
    assert before.reason == "norm (GroupNorm)"
    faster = ExperimentResult("contiguous", before.cause, before.row, Interval(1.4, 1.3, 1.5))
    assert with_experiments(before, [faster]).status is FindingStatus.CONFIRMED


@pytest.mark.parametrize(
    ("half", "options"),
    [(COPIED, {}), (norm_with_copies("BatchNorm2d")[0], CL)],
    ids=["contiguous row", "norm with a channels_last kernel"],
)
def test_copies_elsewhere_are_not_the_norms(half, options):
    row = {"options": {"dtype": "float16", **options}}
    assert not found("norms-undo-channels-last", half, half_row=row)


# --- grouped convolutions -------------------------------------------------------------------------


def test_grouped_convolutions_on_a_cpu_are_named_by_layer():
    data, row = PLANTED_LAYERS["grouped-convolutions"]
    (finding,) = findings(data, "grouped-convolutions", row)
    assert finding.reason == "depthwise (64 groups of 1 channels)"


@pytest.mark.parametrize("half_s", [0.3e-3, 0.01e-3])
def test_grouped_convolutions_that_gain_or_take_little_time_are_no_cause(half_s):
    half = depthwise(half_s, "bfloat16")
    base = depthwise(0.9e-3 if half_s > 0.1e-3 else half_s, "float32")
    assert not found("grouped-convolutions", half, base=base, gpu=None, times_s=(1e-3, 0.4e-3))


def test_time_that_the_profiler_adds_to_grouped_convolutions_is_not_theirs():
    half, base = depthwise(0.9e-3, "bfloat16"), depthwise(0.9e-3, "float32")
    assert not found("grouped-convolutions", half, base=base, gpu=None, times_s=(1e-3, 0.5e-3))


def test_grouped_convolutions_gain_at_most_what_16_bits_usually_bring():
    half, base = depthwise(0.9e-3, "bfloat16"), depthwise(0.9e-3, "float32")
    (finding,) = found("grouped-convolutions", half, base=base, gpu=None, times_s=(1e-3, 1e-3))
    assert finding.factor.value == pytest.approx(1 / (1 - 0.9 / 2), rel=1e-3)


def test_grouped_convolutions_that_channels_last_does_not_help_are_still_slow():
    data, row = PLANTED_LAYERS["grouped-convolutions"]
    (finding,) = findings(data, "grouped-convolutions", row)
    tried = ExperimentResult(
        finding.proposed, finding.cause, finding.row, Interval(0.9, 0.85, 0.95)
    )
    after = with_experiments(finding, [tried])
    assert (after.status, after.remedy) == (FindingStatus.SUSPECTED, finding.remedy)
    assert after.reason.endswith("channels-last does not help")


# --- denormals and uneven calls -------------------------------------------------------------------


@pytest.mark.parametrize("where", ["gpu", "few values", "little time"])
def test_denormals_that_cost_nothing_are_no_cause(where):
    share = 0.001 if where == "few values" else 0.5
    time_s = 1e-6 if where == "little time" else 1e-3
    operations = (conv(), conv(time_s, layer="small"))
    seen = on_a_cpu(*operations, denormals=(Denormals("small", share),))
    gpu = {} if where == "gpu" else {"gpu": None}
    assert not findings(comparison(seen, CLEAN["half"], **gpu), "denormals")


def with_samples(samples: tuple[float, ...]):
    data = comparison(**CLEAN)
    base, half = data.results
    blocks = tuple(attrs.evolve(one, samples=samples) for one in base.measurement.blocks)
    slow = attrs.evolve(base, measurement=attrs.evolve(base.measurement, blocks=blocks))
    return attrs.evolve(data, results=(slow, half))


def test_slow_calls_at_regular_distances_are_found_in_the_samples():
    every_fifth = tuple(3e-3 if i % 5 == 2 else 1e-3 for i in range(20))
    (finding,) = findings(with_samples(every_fifth), "uneven-calls")
    values = {number.name: number.value for number in finding.evidence}
    assert values["calls from one slow call to the next"] == 5
    assert values["time of a slow call over that of others"] == pytest.approx(3)
    assert values["share of the time that slow calls add"] == pytest.approx(2 / 7)
    assert not finding.costs_time  # the latency is the median, which leaves it out


def test_slow_calls_that_are_further_apart_than_a_block_is_long_are_found():
    data = with_samples((1e-3,) * 5)
    base, half = data.results
    blocks = tuple(  # each begins with an untimed call
        attrs.evolve(
            one, samples=tuple(3e-3 if (6 * n + 1 + i) % 13 == 2 else 1e-3 for i in range(5))
        )
        for n, one in enumerate(base.measurement.blocks)
    )
    row = attrs.evolve(base, measurement=attrs.evolve(base.measurement, blocks=blocks))
    (finding,) = findings(attrs.evolve(data, results=(row, half)), "uneven-calls")
    assert finding.evidence[0].value == 13


@pytest.mark.parametrize("slow", [{3, 4, 11, 13, 19}, set()], ids=["irregular", "none"])
def test_irregular_slow_calls_are_noise(slow):
    samples = tuple(3e-3 if i in slow else 1e-3 for i in range(20))
    assert not findings(with_samples(samples), "uneven-calls")


@pytest.mark.parametrize(("others_s", "is_found"), [(0.3, True), (1.7, False)])
def test_slow_calls_are_the_schedulers_where_other_processes_share_the_cores(others_s, is_found):
    data = with_samples((3e-3, 1e-3) * 10)
    load = RoundConditions(0, 19, cpu=CpuUse(1.0, 2, others_s + 1, 1.0))
    environment = attrs.evolve(data.environment, gpu=None)
    loaded = attrs.evolve(data, conditions=(load,), environment=environment)
    assert bool(findings(loaded, "uneven-calls")) == is_found


def test_calls_that_do_more_than_the_call_before_are_not_uneven():
    half = fast(some_calls=(operation("aten::cat", "cache", 0.1e-3),))
    warning = "inputs[1].keys grows with each call: from 1 kB to 4 kB in 6 warm-up calls"
    assert not found("uneven-calls", half, half_row={"warnings": (warning,)})


def test_the_operations_that_only_some_calls_run_are_named():
    rebuilt = operation("aten::mm", "cache", 0.1e-3)
    (finding,) = found("uneven-calls", fast(some_calls=(rebuilt,)))
    assert finding.reason == "only some calls run aten::mm in cache"


def test_slow_calls_that_add_little_are_no_cause():
    assert not found("uneven-calls", fast(slow_calls=Periodic(64, 1.5, 0.01)))
