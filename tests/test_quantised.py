"""Why a quantised row is not faster: what is found, by the operations that ran, and what is not."""

from __future__ import annotations

import warnings

import attrs
import pytest
import torch
from torch import nn

from made_up_quantised import (
    CLEAN_QUANTISED,
    FAST,
    FLOAT,
    MOSTLY_RELU,
    PLANTED_QUANTISED,
    WEIGHT,
    X,
    cast_weight,
    fx_reference,
    int_mm,
    mm,
    operation,
    packed,
    pt2e,
    quantised,
    quantising,
    relu,
    with_row,
)
from made_up_results import H100, comparison, conv, evidence, findings, layer
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.facts import Facts, facts_of_rows
from precisionbench.diagnosis.findings import Finding, Label
from precisionbench.diagnosis.quantised import Quantisation
from precisionbench.model.workload import resolve
from precisionbench.probes.profiler import collect_evidence
from precisionbench.results import ComparisonData
from precisionbench.results.claims import EAGER, Claims
from precisionbench.results.environment import Gpu
from precisionbench.results.evidence import Evidence, Kernel, Operation, Tensor

CAUSES = set(PLANTED_QUANTISED)


def found(data: ComparisonData) -> set[str]:
    """The causes of quantised rows that are found."""
    return {one.cause for one in diagnosis_of(data).findings} & CAUSES


def quantisation(*operations) -> Quantisation:
    return facts_of_rows(quantised(*operations))["half"].quantisation


@pytest.mark.parametrize("cause", PLANTED_QUANTISED)
def test_each_planted_cause_is_the_only_one_found(cause):
    assert found(PLANTED_QUANTISED[cause][0]) == {cause}


def test_every_planted_cause_has_a_twin_without_it():
    assert CLEAN_QUANTISED.keys() == PLANTED_QUANTISED.keys()


@pytest.mark.parametrize("cause", CLEAN_QUANTISED)
def test_a_twin_without_the_cause_has_no_such_finding(cause):
    assert found(CLEAN_QUANTISED[cause]) == set()


@pytest.mark.parametrize(
    "data",
    [
        quantised(packed(0.35e-3), relu(0.02e-3), flags=("asimddp",), **FAST),
        # a float32 model that reads images as bytes
        quantised(
            operation("aten::copy_", 0.1e-3, ((4, 3, 8, 8), "float32"), ((4, 3, 8, 8), "uint8")),
            mm(),
            claim="float32",
        ),
    ],
)
def test_a_quantised_row_that_pays_and_a_row_in_floats_have_no_such_finding(data):
    assert found(data) == set()


def test_operations_are_counted_by_what_they_convert():
    seen = quantisation(cast_weight(0.1e-3), mm(), int_mm(0.2e-3, layer="2"), *quantising(0.5e-3))
    assert (seen.weights_s, seen.weight_conversions) == (0.1e-3, 1)
    assert seen.activations_s == pytest.approx(0.5e-3)
    assert [one.operation.name for one in seen.dequantised] == ["aten::mm"]
    assert [one.operation.name for one in seen.eight_bits] == ["aten::_int_mm"]
    assert not seen.reference_s


@pytest.mark.parametrize(
    ("name", "operands", "kind"),
    [
        ("aten::_scaled_mm", ((X, "float8_e4m3fn"), (WEIGHT, "float8_e4m3fn")), "eight_bits"),
        ("onednn::qlinear_pointwise", ((X, "uint8"), (WEIGHT, "int8")), "eight_bits"),
        ("onednn::qlinear_pointwise", ((X, "float32"), (WEIGHT, "int8")), "eight_bits"),
        ("quantized::linear", ((X, "quint8"),), "eight_bits"),
        ("onnxruntime::q_conv", ((X, "uint8"), (WEIGHT, "int8")), "eight_bits"),
        ("onnxruntime::dynamic_quantize_matmul", ((X, "float32"), (WEIGHT, "int8")), "eight_bits"),
        ("openvino::linear", ((X, "int8"), (WEIGHT, "int8")), "eight_bits"),
        ("aten::_weight_int8pack_mm", ((X, "bfloat16"), (WEIGHT, "int8")), "weight_only"),
        ("aten::_weight_int4pack_mm", ((X, "bfloat16"), ((64, 4, 32, 4), "int32")), "weight_only"),
        ("quantized::linear_dynamic_fp16", ((X, "float32"),), "floats"),
        ("aten::mm", ((X, "bfloat16"), (WEIGHT, "bfloat16")), "floats"),
    ],
)
def test_matmuls_are_sorted_by_the_operands_that_they_multiply(name, operands, kind):
    seen = quantisation(operation(name, 1e-3, *operands))
    assert [one.operation.name for one in getattr(seen, kind)] == [name]


def test_a_conversion_of_an_engine_is_one_of_activations_unless_a_matmul_in_floats_reads_it():
    def cast(shape: tuple[int, ...]):
        inputs = (shape, "float32"), (shape, "int8")
        return operation("onnxruntime::_to_copy", 1e-4, *inputs, layer="c", place="CPU")

    matmul = attrs.evolve(mm(), name="onnxruntime::matmul", place="CPU")
    seen = quantisation(cast(X), cast(WEIGHT), matmul)
    assert seen.activations_s == seen.weights_s == 1e-4
    assert len(seen.dequantised) == 1


def test_layers_in_floats_are_named_with_their_share_of_the_time():
    data = quantised(packed(0.2e-3), mm(0.5e-3, layer="head"), mm(0.3e-3, layer="stem"), **FAST)
    (finding,) = findings(data, "layers-in-float")
    assert finding.reason == "the longest: head 50%, stem 30%"
    assert [number.value for number in finding.evidence] == [2, pytest.approx(0.8)]
    assert finding.factor.high == pytest.approx(1 / (1 - 0.8 * 0.75))


def test_an_engines_layers_on_a_gpu_are_counted_because_their_times_are_not_known():
    layers = (
        operation("onnxruntime::q_conv", 0.0, (X, "int8"), (WEIGHT, "int8"), place="CUDA"),
        operation("onnxruntime::conv", 0.0, (X, "float16"), (WEIGHT, "float16"), place="CUDA"),
    )
    row = {"claims": Claims("int8", engine="ONNX Runtime"), "engine_operations": layers}
    data = comparison(evidence(conv()), evidence(layers=()), half_row=row)
    (finding,) = findings(data, "layers-in-float")
    assert [number.value for number in finding.evidence] == [1, 2]


def test_short_kernels_that_take_no_less_than_in_floats_are_too_small_to_pay():
    base = evidence(*(mm(10e-6, layer=str(n)) for n in range(4)), layers=())
    short = [packed(12e-6, layer=str(n)) for n in range(4)]
    data = quantised(*short, times_s=(50e-6, 60e-6), base=base)
    (finding,) = findings(data, "too-small-to-quantise")
    assert {one.name: one.value for one in finding.evidence}[
        "mean time of an 8-bit matmul or convolution"
    ] == pytest.approx(12e-6)


def test_idle_time_beyond_that_of_the_float_row_is_a_cost_of_quantising():
    """A tensor subclass spends most of a short call in Python code."""
    data = quantised(int_mm(0.2e-3), times_s=(1e-3, 2e-3))
    (finding,) = findings(data, "too-small-to-quantise")
    numbers = {one.name: one.value for one in finding.evidence}
    assert numbers["time besides GEMM/conv beyond that of the row in floats"] == pytest.approx(
        0.9, abs=0.01
    )


def test_a_weight_only_kernel_that_does_not_pay_is_explained_and_one_that_does_is_not():
    inputs = (X, "bfloat16"), (WEIGHT, "int8")
    kernel = operation("aten::_weight_int8pack_mm", 0.9e-3, *inputs)
    (finding,) = findings(quantised(kernel), "dequantised-weights")
    assert "small batches only" in finding.reason
    assert found(quantised(kernel, **FAST)) == set()


PACK_MM = {
    "int8": ("aten::_weight_int8pack_mm", (WEIGHT, "int8")),
    "int4": ("aten::_weight_int4pack_mm", ((64, 4, 32, 4), "int32")),
}


def slow_kernel(stored: str, gpu: Gpu | None, slower: float = 25.0) -> Finding:
    """The finding of a row whose kernels read the weights, `slower` times the row in floats."""
    name, weight = PACK_MM[stored]
    kernel = operation(name, slower * 0.9e-3, (X, "bfloat16"), weight)
    data = weight_only(kernel, times_s=(1e-3, slower * 1e-3))
    environment = attrs.evolve(data.environment, gpu=gpu)
    (finding,) = findings(attrs.evolve(data, environment=environment), "dequantised-weights")
    return finding


@pytest.mark.parametrize("stored", PACK_MM)
@pytest.mark.parametrize("gpu", [H100, None])
def test_weight_only_kernels_that_are_much_slower_are_said_to_be_made_for_a_few_rows(stored, gpu):
    finding = slow_kernel(stored, gpu)
    assert "written for a few rows of activations" in finding.reason
    assert "25 times as long as eager" in finding.reason
    assert "small batches" not in finding.reason + finding.remedy
    assert "int8-dynamic" in finding.remedy


def test_on_a_gpu_nobody_is_advised_to_compile_int8_weights():
    """torch.compile is what calls this kernel; the matmul that it replaces has tensor cores."""
    for slower in (1.2, 25.0):
        remedy = slow_kernel("int8", H100, slower).remedy
        assert remedy.startswith("do not compile a row with int8 weights on a GPU")
        assert "do not compile" not in slow_kernel("int8", None, slower).remedy
        assert "do not compile" not in slow_kernel("int4", H100, slower).remedy
    converted = weight_only(cast_weight(0.5e-3), mm())
    data = attrs.evolve(converted, environment=attrs.evolve(converted.environment, gpu=H100))
    (finding,) = findings(data, "dequantised-weights")
    assert "torch.compile" not in finding.remedy


def test_reference_code_explains_its_float_matmuls_and_conversions_alone():
    assert found(quantised(*fx_reference())) == {"reference-kernels"}
    (finding,) = findings(quantised(*pt2e(), times_s=(1e-3, 1e-3)), "reference-kernels")
    assert finding.factor.high == pytest.approx(5)


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn"])
def test_weights_that_the_models_own_code_casts_have_one_finding(dtype):
    """`linear(x, codes.to(x.dtype))`: the codes are a buffer of the layer."""
    stored = Tensor(WEIGHT, dtype)
    module = attrs.evolve(layer(), path="0", parameters=(), buffers=(stored,))
    data = quantised(cast_weight(0.5e-3, dtype), mm())
    row = data.results[1]
    seen = attrs.evolve(row.evidence, layers=(module,))
    data = attrs.evolve(data, results=(data.results[0], attrs.evolve(row, evidence=seen)))
    causes = {one.cause for one in diagnosis_of(data).findings}
    assert "recast-weights" in causes
    assert "dequantised-weights" not in causes


def test_a_model_that_is_quantised_itself_is_compared_with_no_row():
    data = quantised(*pt2e(), base=evidence(*pt2e(), layers=()), claim="")
    rows = {one.row for one in findings(data, "reference-kernels")}
    assert rows == {"eager", "half"}


@pytest.mark.parametrize(
    ("rival", "expected"),
    [
        (Claims("float16", engine=EAGER), True),
        (Claims("float16", engine="TensorRT"), False),
        (Claims("float16", weights="int8", engine=EAGER), False),
    ],
)
def test_the_fastest_row_in_floats_of_the_same_engine_is_what_8_bits_must_beat(rival, expected):
    """1.7x over float32 and slower than float16 is not faster."""
    base = evidence(mm(0.7e-3), relu(0.3e-3), layers=())
    data = quantised(packed(0.3e-3), relu(0.3e-3), base=base, times_s=(1e-3, 0.6e-3))
    data = with_row(data, "h", rival, None, 0.5e-3)
    assert (("memory-bound-in-8-bits") in found(data)) == expected


GPUS = [
    ("NVIDIA A100-SXM4-80GB", "8.0", 108, "float8", True),
    ("NVIDIA A100-SXM4-80GB", "8.0", 108, "int8", False),
    ("NVIDIA H100 80GB HBM3", "9.0", 132, "float8", False),
]


@pytest.mark.parametrize(("name", "capability", "multiprocessors", "claim", "expected"), GPUS)
def test_a_gpu_is_judged_by_its_peak_of_the_claimed_type(
    name, capability, multiprocessors, claim, expected
):
    gpu = attrs.evolve(
        comparison().environment.gpu,
        name=name,
        compute_capability=capability,
        multiprocessors=multiprocessors,
    )
    row = {"claims": Claims(claim, engine=EAGER)}
    data = comparison(FLOAT, evidence(layers=()), times_s=(1e-3, 1e-3), gpu=gpu, half_row=row)
    assert ("no-fast-8-bits" in found(data)) == expected


def test_a_cpu_has_no_fast_float8_whatever_its_flags():
    data = quantised(claim="float8", flags=("amx_int8",))
    (finding,) = findings(data, "no-fast-8-bits")
    assert "wider type" in finding.reason


def test_int8_kernels_of_a_gpu_are_known_by_their_names():
    kernel = Kernel("sm80_xmma_gemm_i8i8_i8i32_f32_tn_n_tilesize128x128", 1.0, 1e-3)
    one = attrs.evolve(mm(), name="", inputs=(), kernels=(kernel,))
    assert len(quantisation(one).eight_bits) == 1


def weight_only(*operations, layers=(), details=None, **more) -> ComparisonData:
    """A row whose weights are stored in int8, and which multiplies in float32."""
    data = quantised(*operations, claim="float32", **more)
    row = data.results[1]
    claims = Claims("float32", weights="int8", engine="torchao", packages=("torchao",))
    seen = attrs.evolve(row.evidence, layers=layers)
    row = attrs.evolve(row, claims=claims, evidence=seen, details=details or {})
    return attrs.evolve(data, results=(data.results[0], row))


def test_layers_in_floats_of_a_row_that_claims_floats_are_what_it_says():
    """A model with codes in a buffer, measured in half: nobody claims that it is quantised."""
    data = quantised(cast_weight(0.01e-3), mm(0.6e-3, layer="head"), claim="float16")
    assert "layers-in-float" not in found(data)


def test_a_row_with_quantised_weights_is_no_row_in_floats_that_it_must_beat():
    """Otherwise it would be compared with itself, and never be faster."""
    kernel = operation("aten::_weight_int8pack_mm", 0.4e-3, (X, "float32"), (WEIGHT, "int8"))
    assert found(weight_only(kernel, **FAST)) == set()
    assert found(weight_only(kernel)) == {"dequantised-weights"}


def test_a_convolution_beside_quantised_weights_is_in_floats_and_attention_is_not_counted():
    weight = Tensor((32, 32, 3, 3), "float32")
    image = ((4, 32, 32, 32), "float32")
    conv2d = operation("aten::mkldnn_convolution", 0.6e-3, image, (weight.shape, "float32"))
    attention = operation("aten::bmm", 0.6e-3, (X, "float32"), (X, "float32"), layer="attention")
    module = attrs.evolve(layer(), path="0", parameters=(weight,))
    (finding,) = findings(weight_only(conv2d, layers=(module,)), "layers-in-float")
    assert finding.remedy.startswith("torchao quantises linear layers only; OpenVINO")
    assert found(weight_only(attention, layers=(module,))) == set()


def test_a_compiled_row_pays_what_it_spends_besides_multiplying():
    """On a CPU the conversions are in compiled code, whose kernels have no names."""
    compiled = operation("CompiledFxGraph", 15e-6, layer="")
    row = {"times_s": (19e-6, 35e-6), "base": evidence(mm(5e-6), layers=())}
    data = quantised(int_mm(2e-6), compiled, **row)
    (finding,) = findings(data, "too-small-to-quantise")
    assert finding.factor.high == pytest.approx(35 / (35 - (33 - 14)), rel=0.01)


def test_operations_that_the_row_in_floats_does_not_have_are_a_cost_of_quantising():
    """FP8 in eager PyTorch searches the scale of each input with plain operations."""
    codes = ((X, "float8_e4m3fn"), (WEIGHT, "float8_e4m3fn"))
    searching = [operation(f"aten::{name}", 0.3e-3, (X, "float32")) for name in ("abs", "amax")]
    matmul = operation("aten::_scaled_mm", 0.4e-3, *codes)
    data = quantised(matmul, *searching, claim="float8", times_s=(1e-3, 1e-3))
    assert found(data) - {"no-fast-8-bits"} == {"too-small-to-quantise"}


def test_what_a_float_row_of_the_same_engine_spends_too_is_no_cost_of_quantising():
    """The checks of `torch.compile` have a finding of their own."""
    row = {"times_s": (19e-6, 35e-6), "base": evidence(mm(5e-6), layers=())}
    data = quantised(int_mm(2e-6), **row)
    claims = Claims("float32", engine=EAGER)
    same = with_row(data, "slow", claims, evidence(mm(5e-6), layers=()), 37e-6)
    engine = of_engine(data, "torch.compile").results[1]
    rival = attrs.evolve(same.results[2], claims=attrs.evolve(claims, engine="torch.compile"))
    same = attrs.evolve(same, results=(same.results[0], engine, rival))
    assert "too-small-to-quantise" in found(data)
    assert "too-small-to-quantise" not in found(same)


@pytest.mark.parametrize(
    ("times_s", "expected"),
    [((1e-3, 1.0e-3), True), ((1e-3, 0.95e-3), True), ((1e-3, 0.85e-3), False)],
)
def test_a_row_of_8_bits_need_not_be_slower_to_be_explained(times_s, expected):
    """At 1.0x with an interval that includes 1 it is known not to be faster."""
    data = attrs.evolve(quantised(int_mm(), *quantising(0.3e-3), times_s=times_s), noise_floor=0.01)
    assert ("too-small-to-quantise" in found(data)) == expected


@pytest.mark.parametrize(
    ("engine", "words"), [(EAGER, "fuse them"), ("OpenVINO", "quantise these")]
)
def test_a_row_that_gains_little_beside_memory_bound_work_has_a_remedy_that_it_can_take(
    engine, words
):
    data = quantised(packed(0.35e-3), relu(0.6e-3), base=MOSTLY_RELU, times_s=(1.2e-3, 0.95e-3))
    (finding,) = findings(of_engine(data, engine), "memory-bound-in-8-bits")
    assert finding.remedy.startswith(words)


@pytest.mark.parametrize(("engine", "compiles"), [(EAGER, True), ("torch.compile", False)])
def test_only_a_row_that_is_not_compiled_can_be_compiled(engine, compiles):
    data = quantised(int_mm(), *quantising(0.6e-3))
    (finding,) = findings(of_engine(data, engine), "too-small-to-quantise")
    assert ("torch.compile" in finding.remedy) == compiles


def of_engine(data: ComparisonData, engine: str) -> ComparisonData:
    row = attrs.evolve(data.results[1], claims=Claims("int8", engine=engine))
    return attrs.evolve(data, results=(data.results[0], row))


def test_a_row_of_8_bits_that_may_be_faster_is_not_explained():
    data = attrs.evolve(
        quantised(int_mm(), *quantising(0.3e-3), times_s=(1e-3, 1e-3)), noise_floor=0.2
    )
    assert found(data) == set()


# --- real models ----------------------------------------------------------------------------------


def profiled(model: nn.Module, *inputs: torch.Tensor) -> Evidence:
    """The evidence of a model on a CPU; its latency does not matter here."""
    workload = resolve(model, inputs, device="cpu")

    def call() -> object:
        with torch.no_grad():
            return model(*inputs)

    call()
    return collect_evidence(call, 0.05, workload, model)


def quantisation_of_real(model: nn.Module, *inputs: torch.Tensor) -> Quantisation:
    row = comparison().results[1]
    return Facts(row, profiled(model, *inputs), None, False).quantisation


@pytest.fixture(scope="module")
def fx_models() -> dict[str, nn.Module]:
    """A convolution that torch's FX quantisation converts for a CPU, and to reference code."""
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, convert_to_reference_fx, prepare_fx

    x = torch.randn(2, 3, 16, 16)
    converted = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch moves its quantisation to torchao
        for name, convert in {"fx": convert_fx, "reference": convert_to_reference_fx}.items():
            model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten()).eval()
            prepared = prepare_fx(model, get_default_qconfig_mapping("x86"), (x,))
            prepared(x)
            converted[name] = convert(prepared)
    return converted


@pytest.mark.filterwarnings("ignore")
def test_a_real_quantised_convolution_runs_in_8_bits(fx_models):
    seen = quantisation_of_real(fx_models["fx"], torch.randn(2, 3, 16, 16))
    assert [one.operation.name for one in seen.eight_bits] == ["quantized::conv2d_relu"]
    assert not seen.floats
    assert not seen.weights_s
    assert seen.activations_s > 0


@pytest.mark.filterwarnings("ignore")
def test_a_real_reference_model_runs_in_floats(fx_models):
    seen = quantisation_of_real(fx_models["reference"], torch.randn(2, 3, 16, 16))
    assert not seen.eight_bits
    assert len(seen.dequantised) == 1
    assert seen.reference_s > 0


@pytest.mark.filterwarnings("ignore")
def test_a_real_dynamically_quantised_model_runs_in_8_bits():
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    seen = quantisation_of_real(model, torch.randn(4, 64))
    assert len(seen.eight_bits) == 2
    assert not seen.floats


QKV = (((1, 8, 512, 64), "bfloat16"),) * 3


def claiming(*operations: Operation, attention: str = "bfloat16") -> Label:
    """The label of a row that claims int8 for all but attention."""
    data = quantised(*operations)
    row = data.results[1]
    row = attrs.evolve(row, claims=attrs.evolve(row.claims, attention=attention))
    (label,) = diagnosis_of(attrs.evolve(data, results=(data.results[0], row))).labels[1:]
    return label


def flash(time_s: float = 0.2e-3, tensors: tuple = QKV) -> Operation:
    return operation("aten::_scaled_dot_product_flash_attention", time_s, *tensors)


def test_attention_that_a_quantiser_leaves_as_it_says_is_no_false_label():
    found = claiming(int_mm(0.6e-3), flash())
    assert found.verdict == "true"
    says = "attention, 25% of GEMM/conv time, is left in bfloat16, as claimed"
    assert says in [witness.says for witness in found.witnesses]


def test_the_function_around_fused_attention_is_no_other_matmul():
    """On a CPU it has some time of its own."""
    parent = "aten::scaled_dot_product_attention"
    inner = attrs.evolve(flash(), parents=(parent,))
    outer = operation(parent, 0.25e-3, *QKV)
    assert claiming(int_mm(0.6e-3), outer, inner).verdict == "true"


def test_attention_without_such_a_claim_is_part_of_the_label():
    assert claiming(int_mm(0.6e-3), flash(), attention="").verdict == "partly"


def test_attention_in_another_dtype_than_the_one_it_is_left_in_is_part_of_the_label():
    float32 = tuple((shape, "float32") for shape, _ in QKV)
    assert claiming(int_mm(0.6e-3), flash(tensors=float32)).verdict == "partly"


def test_a_layer_that_was_not_quantised_is_not_excused_by_attention():
    label = claiming(int_mm(0.6e-3), flash(), mm(0.1e-3, "bfloat16", layer="head"))
    assert (label.verdict, label.ran) == ("partly", "in bfloat16")


def test_a_row_of_attention_alone_quantised_nothing():
    assert claiming(flash()).verdict == "false"
