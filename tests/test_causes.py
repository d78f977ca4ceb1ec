"""Each cause is found where it is planted and nowhere else; the evidence is made up here.

The same rules on evidence of a real GPU are in test_recorded.py.
"""

from __future__ import annotations

import attrs
import pytest

from made_up_layers import PLANTED_LAYERS
from made_up_quantised import PLANTED_QUANTISED
from made_up_results import (
    CAST,
    CLEAN,
    HALF_CONV,
    HALF_ON_CUDA_CORES,
    LAYOUT,
    NORM,
    TF32_CONV,
    comparison,
    conv,
    conv_on_a_cpu,
    evidence,
    findings,
    layer,
    on_a_cpu,
    other,
)
from precisionbench.diagnosis.causes import CAUSES
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.experiments import with_experiments
from precisionbench.diagnosis.findings import ExperimentResult, FindingStatus
from precisionbench.results import (
    Agreement,
    Block,
    ComparisonData,
    DeviceState,
    Passes,
    TensorAgreement,
)
from precisionbench.results.claims import Claims
from precisionbench.results.evidence import (
    COMPILED_GRAPH,
    Copy,
    Kernel,
    LayerError,
    Operation,
    Tensor,
)
from precisionbench.statistics import Interval

HALF_LAYER = layer(dtype="float16")
NO_PASSES = (Passes(), Passes())


def half(*operations, layers=(HALF_LAYER,), **more):
    return evidence(*operations, layers=layers, **more)


def good(time_s: float = 0.2e-3):
    return conv(time_s, "float16", HALF_CONV)


def slow_half_on_a_cpu(
    dtype: str = "float16",
    flags: tuple[str, ...] | None = ("avx2",),
    operations: tuple[Operation, ...] = (),
    times_s: tuple[float, float] = (1e-3, 1.5e-3),
    noise_floor: float = 0.0025,
) -> ComparisonData:
    """A 16-bit row that takes 1.5 times as long as the float32 row, on a CPU with these flags."""
    operations = operations or (conv_on_a_cpu(1.4e-3, dtype),)
    row = {"options": {"dtype": dtype}}
    data = comparison(
        evidence(conv_on_a_cpu(0.9e-3)),
        half(*operations),
        gpu=None,
        times_s=times_s,
        half_row=row,
    )
    environment = attrs.evolve(data.environment, cpu_flags=flags)
    return attrs.evolve(data, environment=environment, noise_floor=noise_floor)


def normed_weight(path: str, time_s: float = 0.1e-3, name: str = "aten::div") -> Operation:
    """A part of what computes a weight; in a module of `torch.nn.utils.parametrize`, say."""
    return other(name, "void vectorized_elementwise_kernel", time_s, layer=path)


def normed_rows(
    norm_s: float = 0.9e-3, before_s: float = 1e-3, count: float = 8.0, row: dict | None = None
) -> ComparisonData:
    """A bfloat16 row on a CPU, with norms that take these times in it and in float32."""
    x = Tensor((16384, 64), "bfloat16")
    norm = attrs.evolve(on_a_cpu("aten::native_layer_norm", norm_s, x), layer="1", count=count)
    before = attrs.evolve(norm, time_s=before_s)
    return comparison(
        evidence(conv_on_a_cpu(0.9e-3), before),
        half(conv_on_a_cpu(0.3e-3, "bfloat16"), norm),
        gpu=None,
        times_s=(1.9e-3, norm_s + 0.31e-3),
        half_row={"options": {"dtype": "bfloat16"}, **(row or {})},
    )


def throttled() -> ComparisonData:
    data = comparison(**CLEAN)
    row = data.results[0]
    state = DeviceState(sm_clock_hz=1.0e9, throttled=("hw_thermal_slowdown",))
    blocks = tuple(
        Block(b.round, b.position, b.replica, b.samples, state=state)
        for b in row.measurement.blocks
    )
    slow = attrs.evolve(row, measurement=attrs.evolve(row.measurement, blocks=blocks))
    return attrs.evolve(data, results=(slow, data.results[1]))


def with_row(name: str, options: dict, seen=None) -> ComparisonData:
    row = {"name": name, "options": options}
    return comparison(CLEAN["base"], seen or CLEAN["half"], half_row=row)


def nonfinite(path: str, largest: float):
    seen = min(largest, 65504.0)
    errors = (LayerError(path, None, seen, 12, largest), LayerError("", None, 0.0, 5, largest))
    return half(good(), errors=errors)


def compiled(seen, details: dict, passes=NO_PASSES) -> ComparisonData:
    """A row of `compile` beside eager float32."""
    row = {
        "name": "compile",
        "options": {"dtype": "float32", "memory_format": "contiguous"},
        "details": {"graphs": 1, "graph_breaks": 0, **details},
    }
    return comparison(CLEAN["base"], seen, half_row=row, passes=passes)


def in_graph(operation: Operation) -> Operation:
    return attrs.evolve(operation, parents=(*operation.parents, COMPILED_GRAPH))


# What the host takes to launch a call, and the GPU to compute it.
SHORT = Passes(device_s=(0.01e-3,) * 5, enqueue_s=(0.05e-3,) * 5)
SHORTER = Passes(device_s=(0.01e-3,) * 5, enqueue_s=(0.02e-3,) * 5)


def with_flags(flags: dict) -> ComparisonData:
    return comparison(CLEAN["base"], CLEAN["half"], half_row={"flags": flags})


# For each cause a comparison in which it is, and the row in which it must be found.
PLANTED = {
    "waits-inside": (
        comparison(
            **CLEAN,
            passes=(Passes(), Passes(labels=("sync_inside",))),
        ),
        "half",
    ),
    "launch-bound": (
        comparison(
            **CLEAN,
            passes=(
                Passes(),
                Passes(device_s=(0.1e-3,) * 5, enqueue_s=(0.34e-3,) * 5, graph_s=(0.09e-3,) * 9),
            ),
        ),
        "half",
    ),
    "no-fast-half": (
        comparison(
            **CLEAN,
            times_s=(1e-3, 1e-3),
            gpu=attrs.evolve(
                comparison().environment.gpu,
                name="NVIDIA GeForce GTX 1080 Ti",
                compute_capability="6.1",
                multiprocessors=28,
            ),
        ),
        "half",
    ),
    "throttled": (throttled(), "eager"),
    "device-allocations": (
        comparison(CLEAN["base"], half(good(), device_allocations=3.0)),
        "half",
    ),
    "recast-weights": (
        comparison(
            CLEAN["base"],
            half(
                good(),
                attrs.evolve(
                    other("aten::copy_", CAST, 0.1e-3, ("float16", "float32"), "conv"),
                    inputs=(Tensor((64, 64, 3, 3), "float16"), Tensor((64, 64, 3, 3), "float32")),
                ),
                layers=(layer(),),
            ),
        ),
        "half",
    ),
    "tensorrt-fell-back": (
        with_row("torch2trt", {"precision": "fp16"}, evidence(conv(0.9e-3))),
        "half",
    ),
    "engine-on-the-cpu": (
        comparison(
            **CLEAN,
            half_row={
                "engine_operations": (
                    attrs.evolve(conv(0.3e-3, "float16"), place="CUDAExecutionProvider"),
                    attrs.evolve(conv(0.3e-3), place="CPUExecutionProvider"),
                )
            },
        ),
        "half",
    ),
    "engine-fallback": (
        comparison(
            **CLEAN,
            half_row={
                "engine_operations": (
                    attrs.evolve(conv(0.3e-3, "float16"), place="TensorRT"),
                    attrs.evolve(conv(0.3e-3, "float16"), place="PyTorch"),
                )
            },
        ),
        "half",
    ),
    "tensorrt-defaults": (with_row("torch2trt", {"precision": "fp32"}), "half"),
    "layout-conversions": (
        comparison(
            CLEAN["base"],
            half(conv(0.2e-3, "float16", HALF_CONV, extra=(Kernel(LAYOUT, 2.0, 0.1e-3),))),
        ),
        "half",
    ),
    "kernel-choice": (
        comparison(CLEAN["base"], half(conv(0.9e-3, "float16", HALF_ON_CUDA_CORES))),
        "half",
    ),
    "tensor-core-obstacles": (
        comparison(
            CLEAN["base"],
            half(
                conv(0.2e-3, "float16", HALF_CONV, channels=50),
                layers=(layer(channels=50, dtype="float16"),),
            ),
        ),
        "half",
    ),
    "tf32-baseline": (
        comparison(evidence(conv(0.5e-3, kernel=TF32_CONV)), CLEAN["half"]),
        "eager",
    ),
    "memory-bound": (
        comparison(
            CLEAN["base"], half(good(0.1e-3), other("aten::native_batch_norm", NORM, 0.2e-3))
        ),
        "half",
    ),
    "recomputed-weights": (
        comparison(CLEAN["base"], half(good(), normed_weight("conv.parametrizations.weight.0"))),
        "half",
    ),
    "patched-functions": (
        comparison(evidence(conv(), foreign_functions=("torch.conv2d",)), CLEAN["half"]),
        "eager",
    ),
    "host-copies": (
        comparison(
            CLEAN["base"],
            half(good(), copies=(Copy("HtoD", "pageable", 1.0, 0.1e-3, 6.0e6),)),
        ),
        "half",
    ),
    "wrong-batch": (
        comparison(
            attrs.evolve(CLEAN["base"], outputs=(Tensor((4, 10), "float32"),)),
            half(good(), outputs=(Tensor((1, 10), "float16"),)),
        ),
        "half",
    ),
    "batch-norm-in-float32": (
        comparison(
            CLEAN["base"],
            half(good(), other("aten::cudnn_batch_norm", NORM, 0.1e-3, ("float32",))),
        ),
        "half",
    ),
    "constant-inputs": (
        comparison(attrs.evolve(CLEAN["base"], input_zero_share=1.0), CLEAN["half"]),
        "eager",
    ),
    "overflow": (comparison(CLEAN["base"], nonfinite("conv", 1e6)), "half"),
    "half-on-a-cpu": (slow_half_on_a_cpu(), "half"),
    "graph-breaks": (
        compiled(
            evidence(in_graph(conv(0.2e-3)), other("aten::mul", CAST, 0.1e-3, ("float32",))),
            {"graphs": 2, "graph_breaks": 1, "graph_break_reasons": ["Failed to trace print"]},
        ),
        "half",
    ),
    "recompilation": (
        compiled(
            evidence(in_graph(conv(0.2e-3))),
            {"recompilations": 19, "calls_until_compiled": 20, "still_compiling": True},
        ),
        "half",
    ),
    "short-compiled-calls": (
        compiled(evidence(in_graph(conv(0.01e-3))), {}, (SHORTER, SHORT)),
        "half",
    ),
    "torch-settings": (with_flags({"cudnn.deterministic": True}), "half"),
    "wider-dtype": (
        comparison(
            CLEAN["base"],
            half(good(), other("aten::mul", CAST, 0.1e-3, ("float16", "float32"))),
        ),
        "half",
    ),
}
PLANTED |= PLANTED_LAYERS | PLANTED_QUANTISED


@pytest.mark.parametrize("cause", PLANTED)
def test_a_planted_cause_is_named(cause):
    data, row = PLANTED[cause]
    (finding,) = findings(data, cause)
    assert finding.row == row
    assert finding.status is not FindingStatus.RULED_OUT
    assert finding.remedy
    assert finding.evidence


@pytest.mark.parametrize(
    ("dtype", "flags", "reason", "remedy"),
    [
        ("bfloat16", ("avx2", "avx512f"), "none of the flags avx512_bf16", "stay in float32"),
        ("float16", ("avx512_bf16",), "avx512_fp16", "use bfloat16, for which this CPU has"),
        ("float16", None, "the CPU's flags were not recorded", "stay in float32"),
    ],
)
def test_slow_half_on_a_cpu_is_explained_by_its_flags(dtype, flags, reason, remedy):
    (finding,) = findings(slow_half_on_a_cpu(dtype, flags), "half-on-a-cpu")
    assert reason in finding.reason
    assert remedy in finding.remedy


def test_every_cause_is_planted_here():
    assert sorted(PLANTED) == sorted(cause.name for cause in CAUSES)


def test_a_clean_comparison_has_no_findings():
    assert diagnosis_of(comparison(**CLEAN)).findings == ()


def host_answer(data) -> str:
    (found,) = (a.answer for a in diagnosis_of(data).answers if "launch-bound" in a.question)
    return found


def test_rows_of_unknown_host_time_are_not_called_free_of_launch_overhead():
    seen = Passes(device_s=(1e-3,) * 5, enqueue_s=(0.1e-3,) * 5)
    assert host_answer(comparison(**CLEAN, passes=(seen, seen))) == "No."
    assert host_answer(comparison(**CLEAN, passes=(seen, Passes()))) == (
        "No. Not known for half: the launch time was not measured."
    )
    assert host_answer(comparison(**CLEAN, passes=(Passes(), Passes()))).startswith(
        "Not known: the"
    )
    assert "CUDA GPU" in host_answer(comparison(**CLEAN, passes=(Passes(), Passes()), gpu=None))


def test_the_reference_reports_no_error_against_itself():
    tensor = TensorAgreement("", (4,), "float32", 0.0, 0.0, 0.0, 0.0, 0)
    agreed = {"agreement": Agreement((tensor,), ())}
    data = comparison(evidence(conv()), evidence(conv()), base_row=agreed, half_row=agreed)
    base, half = (one.reason for one in diagnosis_of(data).precisions)
    assert "against the reference" not in base
    assert "against the reference" in half


@pytest.mark.parametrize("cause", PLANTED)
def test_without_evidence_no_finding_needs_evidence(cause):
    data, _ = PLANTED[cause]
    bare = attrs.evolve(
        data, results=tuple(attrs.evolve(row, evidence=None) for row in data.results)
    )
    seen_otherwise = {
        *("waits-inside", "launch-bound", "throttled", "no-fast-half"),
        *("tensorrt-defaults", "half-on-a-cpu", "engine-on-the-cpu", "engine-fallback"),
        *("recompilation", "short-compiled-calls", "no-fast-8-bits"),
    }
    assert bool(findings(bare, cause)) == (cause in seen_otherwise)


@pytest.mark.parametrize(
    ("cause", "data"),
    [
        # a name with `nhwc` in it is a convolution's
        ("layout-conversions", comparison(CLEAN["base"], half(good()))),
        # a detail: 3 % of the time
        (
            "layout-conversions",
            comparison(
                CLEAN["base"],
                half(conv(0.97e-3, "float16", HALF_CONV, extra=(Kernel(LAYOUT, 1.0, 0.03e-3),))),
            ),
        ),
        # an unknown kernel is not said to miss the tensor cores
        ("kernel-choice", comparison(CLEAN["base"], half(conv(1e-3, "float16", "future_gemm")))),
        # the three channels of a stem are normal
        (
            "tensor-core-obstacles",
            comparison(
                CLEAN["base"],
                half(
                    attrs.evolve(
                        good(),
                        inputs=(
                            Tensor((32, 3, 224, 224), "float16"),
                            Tensor((64, 3, 7, 7), "float16"),
                        ),
                    )
                ),
            ),
        ),
        # of float32 rows nobody expects tensor cores
        (
            "tensor-core-obstacles",
            comparison(evidence(conv(channels=50), layers=(layer(channels=50),)), CLEAN["half"]),
        ),
        # Apex patches by design
        (
            "patched-functions",
            with_row(
                "apex-amp", {"opt_level": "O1"}, half(good(), foreign_functions=("torch.conv2d",))
            ),
        ),
        # casts of activations are no weights'
        (
            "recast-weights",
            comparison(
                CLEAN["base"],
                half(good(), other("aten::copy_", CAST, 0.1e-3, ("float16", "float32"))),
            ),
        ),
        ("half-on-a-cpu", slow_half_on_a_cpu(times_s=(1e-3, 0.5e-3))),
        ("half-on-a-cpu", slow_half_on_a_cpu(noise_floor=0.0)),  # inconclusive
        ("half-on-a-cpu", slow_half_on_a_cpu("bfloat16", ("avx512_bf16",))),
        ("half-on-a-cpu", slow_half_on_a_cpu("bfloat16", ("asimd", "bf16"))),
        ("half-on-a-cpu", slow_half_on_a_cpu(flags=("amx_fp16",))),
        ("half-on-a-cpu", slow_half_on_a_cpu(flags=("asimdhp",))),
        # a false label, a look-up without arithmetic, and matrix work that became faster
        ("half-on-a-cpu", slow_half_on_a_cpu(operations=(conv_on_a_cpu(1.4e-3),))),
        (
            "half-on-a-cpu",
            slow_half_on_a_cpu(operations=(Operation("aten::embedding", "", (), 1.0, 1.4e-3),)),
        ),
        (
            "half-on-a-cpu",
            slow_half_on_a_cpu(
                operations=(
                    conv_on_a_cpu(0.5e-3, "float16"),
                    Operation("aten::index", "", (), 1.0, 0.9e-3),
                )
            ),
        ),
        # detections: how many there are depends on the data
        (
            "wrong-batch",
            comparison(
                attrs.evolve(CLEAN["base"], outputs=(Tensor((9065, 4), "float32"),)),
                half(good(), outputs=(Tensor((9051, 4), "float16"),)),
            ),
        ),
        # a head of ten classes takes the time of a small kernel, and padding it wins nothing
        (
            "tensor-core-obstacles",
            comparison(
                CLEAN["base"],
                half(
                    good(),
                    Operation(
                        "aten::addmm",
                        "head",
                        (
                            Tensor((10,), "float16"),
                            Tensor((32, 64), "float16"),
                            Tensor((64, 10), "float16"),
                        ),
                        1.0,
                        0.1e-3,
                        (Kernel("nvjet_hsh_64x8", 1.0, 0.1e-3),),
                    ),
                ),
            ),
        ),
        # a product of one row is bound by memory and runs on ordinary cores rightly
        (
            "kernel-choice",
            comparison(
                CLEAN["base"],
                half(
                    Operation(
                        "aten::mm",
                        "head",
                        (Tensor((1, 4096), "float16"), Tensor((4096, 4096), "float16")),
                        1.0,
                        1e-3,
                        (Kernel("gemvNSP_kernel<__half>", 1.0, 1e-3),),
                    ),
                ),
            ),
        ),
        # a single number that is fetched is no copy to speak of
        (
            "host-copies",
            comparison(CLEAN["base"], half(good(), copies=(Copy("DtoH", "", 1.0, 1e-6, 4.0),))),
        ),
    ],
)
def test_similar_evidence_without_the_cause_has_no_finding(cause, data):
    assert findings(data, cause) == []


def test_a_faster_graph_replay_confirms_launch_bound():
    (finding,) = findings(PLANTED["launch-bound"][0], "launch-bound")
    assert finding.status is FindingStatus.CONFIRMED
    assert finding.experiment == "graph-replay"
    assert finding.factor.low <= 0.35e-3 / 0.09e-3 <= finding.factor.high


def test_launch_bound_stays_suspected_without_a_graph_replay():
    passes = Passes(device_s=(0.1e-3,) * 5, enqueue_s=(0.34e-3,) * 5)
    (finding,) = findings(comparison(**CLEAN, passes=(Passes(), passes)), "launch-bound")
    assert finding.status is FindingStatus.SUSPECTED


@pytest.mark.parametrize("graph", [(), (0.33e-3,) * 9])
def test_a_host_that_is_hardly_slower_than_the_device_is_no_cause(graph):
    passes = Passes(device_s=(0.34e-3,) * 5, enqueue_s=(0.345e-3,) * 5, graph_s=graph)
    assert not findings(comparison(**CLEAN, passes=(Passes(), passes)), "launch-bound")


def test_norms_that_gain_nothing_on_a_cpu_are_memory_bound():
    """16 bits make the matmuls of the row faster, and its norms take as long as in float32."""
    (finding,) = findings(normed_rows(), "memory-bound")
    numbers = {one.name: one.value for one in finding.evidence}
    assert numbers["their time over that in the reference"] == pytest.approx(0.9)
    assert "aten::native_layer_norm in 1" in finding.reason
    assert "TensorRT" not in finding.remedy  # which has no CPU
    assert finding.proposed == "compiled"


@pytest.mark.parametrize(
    "data",
    [
        normed_rows(0.45e-3),  # half of the time: what the memory traffic promises
        normed_rows(0.15e-3, 0.15e-3),  # a third of the call
        normed_rows(count=100.0),  # many short calls, whose time is overhead
        normed_rows(row={"claims": Claims("bfloat16", engine="OpenVINO")}),  # which fuses itself
    ],
    ids=["halved", "few", "short", "engine"],
)
def test_a_cpu_row_without_such_norms_is_not_memory_bound(data):
    assert findings(data, "memory-bound") == []


@pytest.mark.parametrize(
    ("path", "name", "is_found"),
    [
        ("0.parametrizations.weight.0", "aten::mul", True),
        ("0", "aten::_weight_norm_interface", True),  # torch.nn.utils.weight_norm, in a hook
        ("0.norm", "aten::mul", False),
        ("parametrizations_of_mine", "aten::mul", False),
    ],
)
def test_weights_that_are_computed_are_known_by_their_module_or_operation(path, name, is_found):
    data = comparison(CLEAN["base"], half(good(), normed_weight(path, name=name)))
    found = findings(data, "recomputed-weights")
    assert bool(found) == is_found
    assert all(one.reason == "in 0" for one in found)


def test_computed_weights_are_no_operations_that_a_compiler_should_fuse():
    weights = [normed_weight(f"{n}.parametrizations.weight.0") for n in range(4)]
    data = comparison(CLEAN["base"], half(good(), *weights))
    assert findings(data, "memory-bound") == []
    assert findings(data, "recomputed-weights")
    few = comparison(CLEAN["base"], half(good(), normed_weight("0.parametrizations.w.0", 0.02e-3)))
    assert findings(few, "recomputed-weights") == []


@pytest.mark.parametrize("cause", ["layout-conversions", "memory-bound", "recast-weights"])
def test_kernels_are_no_cause_where_the_gpu_is_mostly_idle(cause):
    waiting = PLANTED[cause][0]
    slow = attrs.evolve(waiting, results=tuple(_slower(row, 30.0) for row in waiting.results))
    assert findings(waiting, cause)
    assert not findings(slow, cause)


def _slower(row, times):
    blocks = tuple(
        attrs.evolve(block, samples=tuple(times * sample for sample in block.samples))
        for block in row.measurement.blocks
    )
    return attrs.evolve(row, measurement=attrs.evolve(row.measurement, blocks=blocks))


@pytest.mark.parametrize(
    ("largest", "remedy"), [(1e6, "use bfloat16"), (100.0, "check that layer")]
)
def test_an_overflow_names_the_first_layer_and_a_fitting_remedy(largest, remedy):
    (finding,) = findings(comparison(CLEAN["base"], nonfinite("conv", largest)), "overflow")
    assert finding.status is FindingStatus.CONFIRMED
    assert "first in conv" in finding.reason
    assert finding.remedy.startswith(remedy)


def test_a_model_that_grows_its_input_until_it_is_infinite_has_no_overflow():
    warned = {"warnings": ("the last call's output differs from the first's: the model is random",)}
    data = comparison(CLEAN["base"], nonfinite("conv", 100.0), half_row=warned)
    assert findings(data, "overflow") == []


def test_non_finite_outputs_are_found_without_errors_per_layer():
    tensor = TensorAgreement("", (4, 5), "float16", None, None, None, None, 20)
    data = comparison(**CLEAN, half_row={"agreement": Agreement((tensor,), ())})
    (finding,) = findings(data, "overflow")
    assert finding.evidence[0].value == 20


SUSPECTED = PLANTED["layout-conversions"][0]


@pytest.mark.parametrize(
    ("speedup", "status"),
    [
        (Interval(1.4, 1.3, 1.5), FindingStatus.CONFIRMED),
        (Interval(1.0, 0.99, 1.005), FindingStatus.RULED_OUT),
        (Interval(0.8, 0.7, 0.9), FindingStatus.RULED_OUT),
        (Interval(1.1, 0.9, 1.3), FindingStatus.SUSPECTED),
    ],
)
def test_only_an_experiment_confirms_or_rules_out(speedup, status):
    (before,) = findings(SUSPECTED, "layout-conversions")
    assert before.status is FindingStatus.SUSPECTED
    trial = ExperimentResult("channels-last", "layout-conversions", "half", speedup)
    after = with_experiments(before, [trial])
    assert after.status is status
    assert after.factor == speedup
    assert after.experiment == "channels-last"


def test_a_failed_experiment_leaves_the_finding_suspected_with_the_reason():
    (before,) = findings(SUSPECTED, "layout-conversions")
    after = with_experiments(
        before, [ExperimentResult("channels-last", before.cause, "half", None, "no memory")]
    )
    assert after.status is FindingStatus.SUSPECTED
    assert "experiment not run: no memory" in after.reason


@pytest.mark.parametrize(
    ("speedup", "status", "reason"),
    [
        (Interval(3.0, 2.8, 3.2), FindingStatus.CONFIRMED, ""),
        (
            Interval(1.2, 1.15, 1.25),
            FindingStatus.SUSPECTED,
            "gave 1.2x (1.15 to 1.25), which may have",
        ),
        (Interval(1.6, 1.4, 1.8), FindingStatus.SUSPECTED, "more than 1.5x would confirm it"),
        (Interval(1.0, 0.99, 1.005), FindingStatus.RULED_OUT, "showed no such effect"),
    ],
)
def test_a_larger_batch_must_gain_much_to_confirm_launch_bound(speedup, status, reason):
    (before,) = findings(PLANTED["launch-bound"][0], "launch-bound")
    before = attrs.evolve(before, status=FindingStatus.SUSPECTED)
    after = with_experiments(
        before, [ExperimentResult("larger-batch", before.cause, before.row, speedup)]
    )
    assert after.status is status
    assert after.factor == speedup
    assert reason in after.reason


def test_slower_random_inputs_confirm_constant_inputs():
    (before,) = findings(PLANTED["constant-inputs"][0], "constant-inputs")
    slower = ExperimentResult("random-inputs", before.cause, "eager", Interval(0.9, 0.88, 0.92))
    same = ExperimentResult("random-inputs", before.cause, "eager", Interval(1.0, 0.995, 1.005))
    assert with_experiments(before, [slower]).status is FindingStatus.CONFIRMED
    assert with_experiments(before, [same]).status is FindingStatus.RULED_OUT


def test_a_row_of_nothing_but_normalisation_is_diagnosed():
    norm = half(other("aten::native_batch_norm", NORM, 1e-3), layers=())
    (finding,) = findings(comparison(CLEAN["base"], norm), "memory-bound")
    assert finding.factor.value == pytest.approx(100)


def test_folding_is_proposed_only_beside_compiling():
    busy = half(good(0.1e-3), other("aten::layer_norm", "vectorized_layer_norm_kernel", 0.2e-3))
    (finding,) = findings(comparison(CLEAN["base"], busy), "memory-bound")
    assert finding.proposed == "compiled"
    assert finding.alternatives == ("folded-batch-norm",)


def test_confirmed_findings_come_first_and_the_largest_factor_before_smaller_ones():
    base, seen = PLANTED["layout-conversions"][0].results
    data = comparison(base.evidence, attrs.evolve(seen.evidence, device_allocations=2.0))
    trials = [ExperimentResult("x", "device-allocations", "half", Interval(1.5, 1.4, 1.6))]
    order = [f.cause for f in diagnosis_of(data, trials).findings]
    assert order == ["device-allocations", "layout-conversions"]
