"""What engines report of their layers becomes operations that labels and causes are drawn from."""

from __future__ import annotations

import attrs
import pytest

from made_up_results import CLEAN, HALF_CONV, comparison, conv, evidence, findings
from precisionbench.backends.engine_layers import (
    EngineLayer,
    called_briefly,
    summary,
    warn_of_other_place,
    warn_of_other_precision,
)
from precisionbench.backends.onnxruntime_session import layers_of
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.findings import Label
from precisionbench.diagnosis.parts import is_cast, is_matrix
from precisionbench.errors import PrecisionBenchWarning
from precisionbench.results import json_format
from precisionbench.results.claims import Claims
from precisionbench.results.evidence import Evidence, Operation, Tensor

CUDA, TENSORRT, CPU = (
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
    "CPUExecutionProvider",
)
IMAGES = (4, 3, 16, 16)


def layer(
    kind: str = "Conv", dtype: str = "float32", place: str = CPU, out: str = ""
) -> EngineLayer:
    inputs = (Tensor(IMAGES, dtype), Tensor((8, 3, 3, 3), dtype))
    return EngineLayer("node", kind, inputs, (Tensor(IMAGES, out or dtype),), place, 1e-3)


def operation(kind: str = "Conv", dtype: str = "float16", place: str = CUDA) -> Operation:
    return layer(kind, dtype, place).as_operation("onnxruntime")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Conv", "conv"),
        ("FusedConv", "fused_conv"),
        ("Gemm", "gemm"),
        ("MatMul", "matmul"),
        ("MatMulInteger", "matmul_integer"),
        ("QLinearConv", "q_conv"),
        ("QGemm", "q_gemm"),
        ("FullyConnected", "linear"),
        ("Convolution", "convolution"),
        ("Deconvolution", "convolution_transposed"),
        ("MultiHeadAttention", "scaled_dot_product_attention"),
        ("LSTM", "rnn_sequence"),
    ],
)
def test_matrix_layers_of_engines_are_matrix_operations(kind, name):
    made = layer(kind).as_operation("engine")
    assert made.name == f"engine::{name}"
    assert is_matrix(made)
    assert layer(kind).is_matrix


@pytest.mark.parametrize(
    "kind", ["QLinearAdd", "Convert", "Relu", "MaxPool", "ReorderOutput", "LayerNormalization"]
)
def test_others_are_not(kind):
    assert not is_matrix(layer(kind).as_operation("engine"))
    assert not layer(kind).is_matrix


@pytest.mark.parametrize("kind", ["Cast", "Convert", "Reorder", "QuantizeLinear"])
def test_a_layer_that_changes_the_dtype_is_a_cast(kind):
    made = layer(kind, "float32", out="float16").as_operation("engine")
    assert is_cast(made)
    assert made.inputs[1].dtype == "float32"  # what it was


def test_a_reorder_of_one_dtype_is_no_cast():
    assert layer("Reorder").as_operation("engine").name == "engine::reorder"


def test_details_count_matrix_layers_by_precision_and_all_by_place():
    layers = [layer(), layer("QLinearConv", "uint8"), layer("Relu", place=CUDA)]
    assert summary(layers) == {
        "layers": 3,
        "layer_precision": {"float32": 1, "int8": 1},
        "layer_places": {CPU: 2, CUDA: 1},
    }


def test_a_precision_that_no_layer_ran_in_is_a_warning():
    with pytest.warns(PrecisionBenchWarning, match=r"2 in float32.*not float16"):
        warn_of_other_precision([layer(), layer("Gemm")], "float16")


@pytest.mark.parametrize("layers", [[layer(dtype="float16"), layer()], [layer("Relu")], []])
def test_one_layer_in_it_or_none_to_judge_is_not(layers):
    warn_of_other_precision(layers, "float16")


def test_layers_that_ran_elsewhere_are_a_warning():
    with pytest.warns(PrecisionBenchWarning, match=rf"{CUDA} did not run 1 of 2 layers \(1 by CPU"):
        warn_of_other_place([layer(place=CUDA), layer("NonZero")], CUDA)
    warn_of_other_place([layer(place=CUDA)], CUDA)


@pytest.mark.parametrize(("call_s", "calls"), [(5.0, 1), (0.1, 2), (1e-3, 8)])
def test_a_slow_model_is_called_once_for_the_times_of_its_layers(call_s, calls):
    made: list[None] = []
    found = called_briefly(lambda: made.append(None), clock=lambda: len(made) * call_s)
    assert (found, len(made)) == (calls, calls)


def event(name: str, index: int, dur_us: float, **arguments) -> dict:
    known = {"op_name": "Conv", "provider": CPU, "node_index": str(index)}
    arguments = {"input_type_shape": [], "output_type_shape": [], **known, **arguments}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur_us, "args": arguments}


def test_times_of_a_profile_are_those_of_a_call_without_the_first():
    shapes = {"input_type_shape": [{"float": list(IMAGES)}, {"float16": [8]}]}
    first = [event("conv", 0, 900.0, **shapes), event("loop", 1, 800.0), event("loop", 1, 700.0)]
    later = [event("conv", 0, 10.0, **shapes), event("loop", 1, 4.0), event("loop", 1, 2.0)]
    others = [{"cat": "Session", "name": "model_run", "dur": 5000.0, "args": {}}]
    found = {one.name: one for one in layers_of([*first, *others, *later, *later], 3)}
    assert found["conv"].time_s == pytest.approx(10e-6)
    assert (found["loop"].time_s, found["loop"].count) == (pytest.approx(6e-6), 2)
    assert found["conv"].inputs == (Tensor(IMAGES, "float32"), Tensor((8,), "float16"))
    assert found["conv"].place == CPU


def label(
    *operations: Operation,
    seen: Evidence | None = CLEAN["half"],
    claim: str = "float16",
    provider: str = CUDA,
    on_gpu: bool = True,
) -> Label:
    """The label of an engine's row that reports these operations."""
    row = {
        "name": "onnxruntime",
        "claims": Claims(claim, engine="ONNX Runtime"),
        "engine_operations": operations,
        "details": {"provider": provider},
    }
    data = comparison(CLEAN["base"], seen, half_row=row, **({} if on_gpu else {"gpu": None}))
    return diagnosis_of(data).labels[1]


@pytest.mark.parametrize(
    ("dtype", "verdict"), [("float16", "true"), ("float32", "false"), ("int8", "false")]
)
def test_on_a_cpu_an_engines_layers_are_verified_without_a_profile(dtype, verdict):
    found = label(operation(dtype=dtype, place=CPU), seen=None, provider=CPU, on_gpu=False)
    assert found.verdict == verdict
    if verdict == "false":
        assert f"labelled float16 but ran in {dtype}" in found.sentence


@pytest.mark.parametrize(("dtype", "verdict"), [("float16", "true"), ("float32", "false")])
def test_layers_that_are_too_short_to_have_a_time_count_by_their_number(dtype, verdict):
    made = attrs.evolve(operation(dtype=dtype, place=CPU), time_s=0.0)
    found = label(made, seen=None, provider=CPU, on_gpu=False)
    assert found.verdict == verdict
    assert found.ran == f"in {dtype}"


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_quantised_layers_of_either_sign_are_int8(dtype):
    made = operation("QLinearConv", dtype, CPU)
    assert label(made, seen=None, claim="int8", provider=CPU, on_gpu=False).verdict == "true"


@pytest.mark.parametrize(
    ("dtypes", "verdict"),
    [
        (("float16",) * 9, "true"),
        (("float16",) * 6 + ("float32",) * 3, "partly"),
        (("float32",) * 9, "false"),
    ],
)
def test_on_a_gpu_layers_count_beside_the_kernels(dtypes, verdict):
    """The kernels are named for float16; the times of an engine's layers are the host's."""
    found = label(*(operation(dtype=dtype) for dtype in dtypes))
    assert found.verdict == verdict
    says = [one.says for one in found.witnesses if one.name == "layers"]
    assert says
    assert all(dtype in says[0] for dtype in dtypes)


def test_a_tf32_row_stores_float32():
    made = operation(dtype="float32")
    assert label(made, seen=None, claim="tf32").verdict == "true"


def test_int8_that_ran_in_float32_kernels_is_false():
    """CUDA's provider runs a quantised model with casts around float32 layers."""
    found = label(operation(dtype="float32"), seen=None, claim="int8")
    assert (found.verdict, found.ran) == ("false", "in float32")


def test_matrix_layers_of_another_provider_are_part_of_the_label():
    found = label(operation(), operation(place=CPU))
    assert (found.verdict, found.engine) == ("partly", CUDA)
    assert f"{CPU} ran 1 of 2 matmuls and convolutions" in found.sentence


def test_a_provider_that_ran_nothing_makes_the_label_false():
    found = label(operation(place=CUDA), provider=TENSORRT)
    assert (found.verdict, found.ran) == ("false", f"by {CUDA}")


def test_what_tensorrt_has_fused_counts_as_its_work():
    fused = layer("TRTKernel_graph_main", place=TENSORRT).as_operation("onnxruntime")
    assert label(fused, operation(place=CUDA), provider=TENSORRT).verdict == "partly"
    assert label(fused, provider=TENSORRT).verdict == "true"


def on_a_gpu(*operations: Operation):
    return comparison(
        CLEAN["base"],
        evidence(conv(0.3e-3, "float16", HALF_CONV)),
        half_row={"engine_operations": operations},
    )


def test_a_node_on_the_cpu_in_a_gpu_row_is_a_finding():
    data = on_a_gpu(operation(), operation("NonZero", "int64", CPU))
    (found,) = findings(data, "engine-on-the-cpu")
    assert found.row == "half"
    assert [number.value for number in found.evidence] == [1, 2]
    assert "non_zero" in found.reason


def test_on_a_cpu_it_is_none():
    data = attrs.evolve(on_a_gpu(operation(place=CPU)))
    data = attrs.evolve(data, environment=attrs.evolve(data.environment, gpu=None))
    assert findings(data, "engine-on-the-cpu") == []
    assert findings(on_a_gpu(operation()), "engine-on-the-cpu") == []


def test_a_file_keeps_what_an_engine_reports():
    data = on_a_gpu(operation(), operation("NonZero", "int64", CPU))
    again = json_format.from_json(json_format.to_json(data), "file")
    assert again.results[1].engine_operations == data.results[1].engine_operations
    assert again.results[1].engine_operations[1].place == CPU


def test_files_without_engines_do_not_mention_them():
    text = json_format.to_json(comparison(**CLEAN))
    assert "engine_operations" not in text
    assert '"place"' not in text
