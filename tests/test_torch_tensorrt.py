"""The backend torch-tensorrt without its engine: options, what is missing, labels and findings.

test_tensorrt_rtx.py runs the real partitioner, converters and builder, and recorded what these
tests read; test_gpu_torch_tensorrt.py runs engines.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine_rows import gpu_label
from made_up_results import CLEAN, comparison, findings
from precisionbench.backends import Inputs
from precisionbench.backends.rungs import Capabilities
from precisionbench.backends.tensorrt_engine import Report, inspected, report_of
from precisionbench.backends.tensorrt_layers import dtype_of, layers_of
from precisionbench.backends.torch_tensorrt import (
    TorchTensorRT,
    check_supported,
    import_torch_tensorrt,
)
from precisionbench.backends.torch_tensorrt_build import Compiled, operators, warn_of_operators_left
from precisionbench.diagnosis.findings import Label
from precisionbench.errors import (
    BackendUnavailableError,
    PrecisionBenchWarning,
    SpecError,
)
from precisionbench.results import ComparisonData
from precisionbench.results.evidence import Operation, Tensor

RECORDED = Path(__file__).parent / "recorded_engines"
TRANSFORMER = "rtx-transformer-{}.json"


def report(precision: str) -> Report:
    """What the real engine of a transformer reported."""
    (found,) = json.loads((RECORDED / TRANSFORMER.format(precision)).read_text())
    return report_of(json.dumps(found))


# Options.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_format": "channels_last"}, "reads contiguous memory"),
        ({"autocast": True}, "autocast needs a 16-bit precision"),
        ({"tf32": True, "precision": "bf16"}, "tf32 is a precision of float32"),
        ({"workspace_bytes": 0}, "workspace_bytes is 0"),
        ({"min_block_size": 0}, "min_block_size is 0"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(SpecError, match=message):
        TorchTensorRT(**options)


def test_precision_is_never_asked_for_by_what_is_dropped():
    for backend in (TorchTensorRT("fp16"), TorchTensorRT("bf16", autocast=True)):
        assert "enabled_precisions" not in backend.compile_options()


def test_autocast_names_the_lower_precision():
    options = TorchTensorRT("bf16", autocast=True).compile_options()
    assert options["enable_autocast"] is True
    assert options["autocast_low_precision_type"] is torch.bfloat16


@pytest.mark.parametrize(
    ("backend", "claim"),
    [
        (TorchTensorRT(), "float32"),
        (TorchTensorRT(tf32=True), "tf32"),
        (TorchTensorRT("fp16"), "float16"),
        (TorchTensorRT("bf16", autocast=True), "mixed bfloat16"),
    ],
)
def test_a_row_claims_its_precision(backend, claim):
    assert backend.claims().precision_name == claim


# What may be missing.


class Package(types.ModuleType):
    """`torch_tensorrt` as far as the checks before a build read it."""

    def __init__(self, version: str = "2.14.0", rtx: bool = False) -> None:
        super().__init__("torch_tensorrt")
        self.__version__ = version
        self.ENABLED_FEATURES = types.SimpleNamespace(tensorrt_rtx=rtx)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_reported_before_an_import_that_would_fail_without_a_reason(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(BackendUnavailableError, match="requires a CUDA GPU"):
        TorchTensorRT().check_available()


def test_a_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(BackendUnavailableError, match=r"Torch-TensorRT 2\.10 or newer") as caught:
        import_torch_tensorrt()
    assert "pip install 'precisionbench[torch-tensorrt]'" in caught.value.remedy


def test_a_version_before_strong_typing_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_tensorrt", Package("2.9.0"))
    with pytest.raises(BackendUnavailableError, match=r"2\.9\.0 is installed"):
        import_torch_tensorrt()


@pytest.mark.parametrize("capability", [(7, 5), (9, 0), (10, 0)])
def test_tensorrt_for_rtx_is_refused_where_its_engines_do_not_run(capability):
    named = f"this one has {capability[0]}.{capability[1]}"
    with pytest.raises(BackendUnavailableError, match=named) as caught:
        check_supported(Package(rtx=True), capability)
    assert "torch-tensorrt" in caught.value.remedy


def test_elsewhere_it_is_not():
    for capability in ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1)):
        check_supported(Package(rtx=True), capability)
    check_supported(Package(), (9, 0))


def test_inputs_on_a_cpu_are_refused(cnn, images):
    with (
        pytest.raises(BackendUnavailableError, match="the inputs are on cpu"),
        TorchTensorRT().prepare(cnn, Inputs((images,))),
    ):
        pass


def test_the_ladder_climbs_it_on_a_gpu_where_it_is_installed(monkeypatch):
    gpu, cpu = Capabilities("cuda"), Capabilities("cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert list(TorchTensorRT.ladder_rungs(gpu)) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert [rung.options for rung in TorchTensorRT.ladder_rungs(gpu)] == [{"precision": "fp16"}]
    assert list(TorchTensorRT.ladder_rungs(cpu)) == []


# What an engine reports.


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16")]
)
def test_products_convolutions_and_attention_of_an_engine_are_found(precision, dtype):
    found = [layer for layer in report(precision).layers if layer.is_matrix]
    assert {layer.dtype for layer in found} == {dtype}
    assert {layer.kind for layer in found} >= {"Convolution", "MatMul"}
    fused = precision != "fp32"  # there is no fused attention in float32
    assert ("Attention" in {layer.kind for layer in found}) is fused


@pytest.mark.parametrize(
    ("kind", "name", "found"),
    [
        ("CaskConvolution", "conv + relu", "Convolution"),
        ("CaskDeconvolution", "up", "Deconvolution"),
        ("CaskGemmMatrixMultiply", "fc", "MatMul"),
        ("MatrixMultiply", "fc", "MatMul"),
        ("gemm", "fc_myl0_3", "MatMul"),
        ("fusion", "__myl_FcAddRelu", "MatMul"),
        ("kgen", "_gemm_mha_v2_myl0_4", "Attention"),
        ("kgen", "__myl_MoveConc", "kgen"),
        ("kgen", "__myl_ConvertMove", "kgen"),
        ("Reformat", "Reformatting CopyNode for Input Tensor 0 to conv1", "Reformat"),
        ("CudaPooling", "pool after conv1", "CudaPooling"),
        ("Myelin", "{ForeignNode[conv1...fc]}", "Myelin"),
    ],
)
def test_the_kind_of_a_layer_is_that_of_its_own_work(kind, name, found):
    """A fused layer is named after all layers in it, which only its metadata should be."""
    (layer,) = layers_of([{"Name": name, "LayerType": kind}])
    assert layer.kind == found


def test_formats_of_several_versions_name_dtypes():
    assert dtype_of("Channel major FP16 format where channel % 8 == 0") == "float16"
    assert dtype_of("FP8") == "float8"
    assert dtype_of("N/A due to dynamic shapes") == ""


def test_a_cast_of_an_engine_is_a_cast():
    conversion = {
        "Name": "Reformatting CopyNode",
        "LayerType": "Reformat",
        "Inputs": [{"Dimensions": [4], "Format/Datatype": "Float"}],
        "Outputs": [{"Dimensions": [4], "Format/Datatype": "Half"}],
    }
    (layer,) = layers_of([conversion])
    assert layer.as_operation("torch-tensorrt").short_name == "_to_copy"


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"Layers": [{"Outputs": 3}]}'])
def test_an_inspector_that_says_something_else_gives_a_reason(text):
    found = report_of(text)
    assert found.details["layer_precision"].startswith("unavailable: ")
    assert found.operations("torch-tensorrt") == ()


def test_an_inspector_that_raises_gives_it_too():
    assert inspected(types.SimpleNamespace(), object()).missing.startswith("unavailable: ")


# What is left to PyTorch.


class TwoHalves(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ x).softmax(-1)


def graph(model: nn.Module) -> torch.fx.GraphModule:
    found = torch.export.export(model, (torch.rand(4, 4, dtype=torch.float16),), strict=False)
    module = found.module()
    assert isinstance(module, torch.fx.GraphModule)
    return module


def compiled(precision: str = "fp16", **changes: Any) -> Compiled:
    """A model of which three operators became an engine, and three are PyTorch's."""
    halves = {"module": graph(TwoHalves()), "converted": [graph(TwoHalves())]}
    return Compiled(**{**halves, "report": report(precision), **changes})


def test_operators_of_pytorch_are_counted_with_their_dtypes():
    left = compiled().left
    assert [layer.kind for layer in left] == ["matmul", "relu", "softmax"]
    assert left[0].inputs == (Tensor((4, 4), "float16"),) * 2
    assert compiled().operators == {"TensorRT": 3, "PyTorch": 3}


def test_operators_in_inner_graphs_count_and_engines_do_not():
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.engine = graph(TwoHalves()), nn.Identity()

    outer = torch.fx.Graph()
    x = outer.placeholder("x")
    outer.output(outer.call_module("engine", (outer.call_module("inner", (x,)),)))
    found = operators(torch.fx.GraphModule(Outer(), outer))
    assert len(list(found)) == 3


def test_what_pytorch_runs_is_a_warning():
    said = r"PyTorch runs 3 of 6 operators \(1 matmul, 1 relu, 1 softmax\), beside 1 engine of"
    with pytest.warns(PrecisionBenchWarning, match=said):
        warn_of_operators_left(compiled())
    warn_of_operators_left(compiled(module=nn.Identity()))


# Labels and the finding.


def label(
    backend: TorchTensorRT, model: Compiled, *, seen: Any = None
) -> tuple[ComparisonData, Label]:
    return gpu_label(backend, model.operations(backend.name), model.details, seen)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_engine_in_the_precision_asked_for_is_verified_and_has_no_finding(precision):
    whole = compiled(precision, module=nn.Identity())
    data, found = label(TorchTensorRT(precision), whole)
    assert (found.verdict, found.witnesses[0].name) == ("true", "layers")
    assert findings(data, "engine-fallback") == []


@pytest.mark.parametrize(
    ("asked", "ran", "name"),
    [("fp16", "fp32", "float32"), ("bf16", "fp16", "float16"), ("fp32", "fp16", "float16")],
)
def test_an_engine_in_another_precision_makes_the_label_false(asked, ran, name):
    """What is planted: the engine that was really built for another precision."""
    found = label(TorchTensorRT(asked), compiled(ran, module=nn.Identity()))[1]
    assert (found.verdict, found.ran) == ("false", f"in {name}")


def test_kernels_in_half_do_not_hide_an_engine_in_float32():
    other = compiled("fp32", module=nn.Identity())
    assert label(TorchTensorRT("fp16"), other, seen=CLEAN["half"])[1].verdict == "false"


def test_half_of_the_operators_in_pytorch_makes_the_label_false():
    data, found = label(TorchTensorRT("fp16"), compiled())
    assert (found.verdict, found.engine, found.ran) == ("false", "TensorRT", "by PyTorch")
    assert "PyTorch ran 1 of" in found.sentence
    assert "3 of 6 operators" in found.sentence
    (finding,) = findings(data, "engine-fallback")
    assert [number.value for number in finding.evidence] == [3, 6, 1]
    assert finding.reason == "1 matmul, 1 relu, 1 softmax"


@pytest.mark.parametrize(("inside", "verdict"), [(9, "partly"), (3, "false"), (200, "true")])
def test_the_share_of_operators_decides_where_none_of_them_is_a_product(inside, verdict):
    backend, model = TorchTensorRT("fp16"), compiled(module=graph(nn.Softmax(-1)))
    details = {**model.details, "operators": {"TensorRT": inside, "PyTorch": 3}}
    data, found = gpu_label(backend, model.operations(backend.name), details)
    assert found.verdict == verdict
    assert len(findings(data, "engine-fallback")) == 1  # it is named in any case


def test_a_model_without_an_engine_has_a_false_label():
    none = compiled(converted=(), report=Report())
    found = label(TorchTensorRT("fp16"), none)[1]
    assert (found.verdict, found.ran) == ("false", "by PyTorch")


def test_layers_in_float32_beside_others_are_partly_false():
    layers = report("fp16").layers
    slow = [layer for layer in report("fp32").layers if layer.is_matrix][:2]
    mixed = Report([*layers, *slow])
    model = compiled(module=nn.Identity(), report=mixed)
    assert label(TorchTensorRT("fp16"), model)[1].verdict == "partly"


def test_tensorrt_for_torch2trt_may_use_float32_and_this_one_may_not():
    """Strong typing leaves no choice, so the remedy of weakly typed engines does not fit."""
    row = {"name": "torch-tensorrt", "claims": TorchTensorRT("fp16").claims()}
    data = comparison(CLEAN["base"], CLEAN["base"], half_row=row)
    assert findings(data, "tensorrt-fell-back") == []


@pytest.mark.parametrize("counts", ["none", {"PyTorch": "3"}, {"PyTorch": None}, [], 3])
def test_counts_of_a_file_that_are_no_counts_are_not_used(counts):
    operation = Operation("aten::relu", "relu", (), 1, 0.0, place="PyTorch")
    details = {"provider": "TensorRT", "operators": counts}
    data, found = gpu_label(TorchTensorRT("fp16"), (operation,), details)
    assert found.verdict == "unknown"
    assert len(findings(data, "engine-fallback")) == 1
