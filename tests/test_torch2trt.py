"""The torch2trt plugin against a double that refuses what torch2trt 0.5.0 does not declare.

What the plugin asks for, and what it makes of the answer, is tested here on any machine;
test_tensorrt.py runs the real TensorRT.
"""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest
import torch
from torch import nn

import precisionbench as pb
from engine_rows import gpu_label
from full_disk import files_limited_to
from precisionbench.backends import torch2trt as plugin
from precisionbench.backends.tensorrt_engine import message_recorder, report_of
from precisionbench.backends.torch2trt import Torch2trt
from precisionbench.errors import (
    BackendUnavailableError,
    OutputError,
    PrecisionBenchWarning,
    PreparationError,
    SpecError,
)
from precisionbench.torchtools.global_state import Functions
from precisionbench.torchtools.refill import refill
from precisionbench.torchtools.tensors import Inputs
from tensorrt_double import Builder, BuilderFlag, Double, Engine, ILogger, Runtime, TRTModule


@pytest.fixture
def double(monkeypatch) -> Double:
    double = Double()
    double.install(monkeypatch)
    monkeypatch.setattr(plugin, "require_cuda", lambda _: None)
    monkeypatch.setattr(Engine, "layer_types", ("Half", "Half", "Float"))
    monkeypatch.setattr(Runtime, "cores", [])
    return double


def prepared(backend: Torch2trt, model: nn.Module, *args, **kwargs):
    with backend.prepare(model.eval(), Inputs(args, kwargs)) as prepared:
        return prepared, prepared.call()


def calibration_batches() -> list[torch.Tensor]:
    return [torch.rand(4, 3, 16, 16) for _ in range(3)]


def test_the_engine_gives_the_models_output(double, cnn, images):
    _, output = prepared(Torch2trt(), cnn, images)
    assert torch.allclose(output, cnn(images))


class Weighted(nn.Module):
    def forward(self, x: torch.Tensor, *, weights: torch.Tensor) -> torch.Tensor:
        return x * weights


def test_an_engine_computes_with_what_is_copied_into_its_inputs(double):
    args = Inputs((torch.rand(3, 4).t(),), {"weights": torch.rand(4, 3)})
    new = [torch.rand(4, 3), torch.rand(4, 3)]
    with Torch2trt().prepare(Weighted().eval(), args) as prepared:
        refill(prepared.inputs, new)
        assert torch.allclose(prepared.call(), new[0] * new[1])


def test_it_runs_in_a_comparison_beside_the_others(double, cnn, images, monkeypatch):
    monkeypatch.setattr(Torch2trt, "check_available", lambda _: None)
    double.messages = ["a layer was forced to FP32"]
    comparison = pb.compare(
        cnn,
        images,
        backends=["torch2trt:precision=fp16"],
        device="cpu",
        launcher="inline",
        budget_s=0.05,
    )
    row = comparison["torch2trt:precision=fp16"]
    assert row.details["layer_precision"] == {"fp16": 2, "fp32": 1}
    assert row.details["engine_bytes"] > 0
    assert row.log == (
        "Warning: Encountered known unsupported method torch.Tensor.dim",
        "TensorRT: a layer was forced to FP32",
    )


@pytest.mark.parametrize(
    ("precision", "fp16", "int8"),
    [("fp32", False, False), ("fp16", True, False), ("int8", True, True)],
)
def test_each_precision_sets_its_flags(double, cnn, images, monkeypatch, precision, fp16, int8):
    monkeypatch.setattr(Engine, "layer_types", ("Int8", "Half", "Float"))
    data = calibration_batches() if int8 else None
    prepared(Torch2trt(precision, calibration_data=data), cnn, images)
    asked = double.calls[0]
    assert (asked["fp16_mode"], asked["int8_mode"]) == (fp16, int8)
    assert asked["keep_network"] is False
    assert asked["strict_type_constraints"] is False


def test_float32_is_ieee_and_layers_report_their_precision(double, cnn, images):
    """torch2trt makes its own builder config, with TF32 on and the layers' precision hidden."""
    prepared(Torch2trt(), cnn, images)
    (config,) = double.configs
    assert BuilderFlag.TF32 not in config.flags
    assert config.profiling_verbosity == "detailed"


def test_tf32_is_left_on_where_asked_for(double, cnn, images):
    prepared(Torch2trt(tf32=True), cnn, images)
    assert BuilderFlag.TF32 in double.configs[0].flags


def test_the_workspace_reaches_both_the_old_and_the_new_setting(double, cnn, images):
    prepared(Torch2trt(workspace_bytes=1 << 28), cnn, images)
    assert double.calls[0]["max_workspace_size"] == 1 << 28
    assert double.configs[0].pools == {"workspace": 1 << 28}


def test_tensorrt_classes_are_restored(double, cnn, images):
    before = double.tensorrt.Logger, vars(Builder)["create_builder_config"]
    functions = Functions.now()
    prepared(Torch2trt(), cnn, images)
    assert (double.tensorrt.Logger, vars(Builder)["create_builder_config"]) == before
    assert double.tensorrt.Runtime is Runtime
    assert functions.changes() == []


def test_what_the_engine_chose_is_kept(double, cnn, images):
    details = prepared(Torch2trt("fp16"), cnn, images)[0].details
    assert details["layers"] == 3
    assert details["reformat_layers"] == 1
    assert details["layer_precision"] == {"fp16": 2, "fp32": 1}
    assert details["engine"] == "built"
    assert details["tensorrt"] == "10.3.0"


def test_without_detailed_verbosity_the_precision_is_unavailable():
    found = report_of(json.dumps({"Layers": ["conv", "Reformatting CopyNode for Input"]}))
    assert found.details["reformat_layers"] == 1
    assert found.details["layer_precision"].startswith("unavailable")
    assert found.operations("torch2trt") == ()


def test_an_inspector_that_fails_does_not_fail_the_row(double, cnn, images, monkeypatch):
    monkeypatch.setattr(Engine, "get_engine_information", lambda *_: "no JSON")
    details = prepared(Torch2trt(), cnn, images)[0].details
    assert details["layer_precision"].startswith("unavailable: JSONDecodeError")


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("Row major linear FP32", "fp32"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("Half", "fp16"),
        ("Float", "fp32"),
        ("BFloat16", "bf16"),
        ("FP8", "fp8"),
        ("Int64", "int64"),
        ("", "unknown"),
    ],
)
def test_the_inspectors_words_of_every_version_are_understood(text, precision):
    layers = [{"LayerType": "x", "Outputs": [{"Format/Datatype": text}]}]
    assert report_of(json.dumps({"Layers": layers})).details["layer_precision"] == {precision: 1}


def test_an_allowed_precision_that_no_layer_uses_warns(double, cnn, images, monkeypatch):
    """C8: TensorRT's FP16 flag permits half, it does not force it."""
    monkeypatch.setattr(Engine, "layer_types", ("Float", "Float", "Float"))
    with pytest.warns(PrecisionBenchWarning, match="fp16 was allowed but no layer .* writes it"):
        prepared(Torch2trt("fp16"), cnn, images)


# INT8 calibration.


def test_int8_without_data_is_calibrated_on_the_inputs_with_a_warning(
    double, cnn, images, monkeypatch
):
    monkeypatch.setattr(Engine, "layer_types", ("Int8", "Int8", "Float"))
    with pytest.warns(PrecisionBenchWarning, match="latency is valid, its numerical error is"):
        details = prepared(Torch2trt("int8"), cnn, images)[0].details
    assert len(double.calls[0]["int8_calib_dataset"]) == 1
    assert details["calibration_batches"] == 1


def test_the_users_own_batches_are_used(double, cnn, images, monkeypatch):
    monkeypatch.setattr(Engine, "layer_types", ("Int8", "Int8", "Float"))
    prepared(Torch2trt("int8", calibration_data=calibration_batches()), cnn, images)
    items = double.calls[0]["int8_calib_dataset"].items
    assert len(items) == 3
    assert all(item[0].dtype == torch.float32 and item[0].is_contiguous() for item in items)


def test_batches_may_come_from_a_function_named_in_the_spec(double, cnn, images, monkeypatch):
    monkeypatch.setattr(Engine, "layer_types", ("Int8", "Int8", "Float"))
    place = f"{__name__}:calibration_batches"
    sys.modules.setdefault(__name__, sys.modules[calibration_batches.__module__])
    prepared(Torch2trt("int8", calibration=place), cnn, images)
    assert len(double.calls[0]["int8_calib_dataset"]) == 3


def test_a_function_that_is_not_there_is_named(double, cnn, images):
    with pytest.raises(SpecError, match="calibration=no_module:f failed"):
        prepared(Torch2trt("int8", calibration="no_module:f"), cnn, images)


def test_batches_of_another_shape_are_refused(double, cnn, images):
    """TensorRT would read beyond their end: it is given a raw pointer."""
    with pytest.raises(
        PreparationError, match=r"calibration batch 0 has shapes \[\(1, 3, 16, 16\)"
    ):
        prepared(Torch2trt("int8", calibration_data=[torch.rand(1, 3, 16, 16)]), cnn, images)


def test_no_batches_at_all_are_refused(double, cnn, images):
    with pytest.raises(PreparationError, match="there are no calibration batches"):
        prepared(Torch2trt("int8", calibration_data=[]), cnn, images)


# Options that cannot be.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_format": "channels_last"}, "reads its inputs as contiguous memory"),
        ({"dla_core": 0}, "a DLA computes in half or INT8 only"),
        ({"calibration": "a:b"}, "only INT8 is calibrated"),
        ({"calibration_data": [1], "precision": "fp16"}, "only INT8 is calibrated"),
        ({"dla_core": -1, "precision": "fp16"}, "there is no DLA core -1"),
        ({"workspace_bytes": 0}, "workspace_bytes is 0"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(SpecError, match=message):
        Torch2trt(**options)


def test_a_dla_runs_with_the_gpu_as_fallback(double, cnn, images):
    prepared(Torch2trt("fp16", dla_core=1), cnn, images)
    asked = double.calls[0]
    assert asked["default_device_type"] == "DLA"
    assert asked["dla_core"] == 1
    assert asked["gpu_fallback"] is True
    assert Runtime.cores == [1], "torch2trt would load the engine on core 0"


def test_a_saved_engine_is_loaded_on_the_dla_it_was_built_for(double, cnn, images, tmp_path):
    for _ in range(2):
        prepared(Torch2trt("fp16", dla_core=1, engine_cache=tmp_path), cnn, images)
    assert Runtime.cores == [1, 1]


def test_a_dla_core_that_the_device_lacks_is_refused(double, cnn, images):
    with pytest.raises(BackendUnavailableError, match="DLA core 2 .this device has 2"):
        prepared(Torch2trt("fp16", dla_core=2), cnn, images)


# Saved engines.


def test_an_engine_is_saved_and_reloaded(double, cnn, images, tmp_path):
    backend = Torch2trt("fp16", engine_cache=tmp_path / "engines")
    first, output = prepared(backend, cnn, images)
    second, again = prepared(backend, cnn, images)
    assert [first.details["engine"], second.details["engine"]] == ["built", "reloaded"]
    assert len(double.calls) == 1
    assert torch.equal(output, again)
    assert second.details["layer_precision"] == first.details["layer_precision"]


def test_engines_do_not_fit_other_weights_shapes_options_or_versions(double, cnn, images, tmp_path):
    def build(backend=None, model=cnn, x=images) -> int:
        prepared(backend or Torch2trt("fp16", engine_cache=tmp_path), model, x)
        return len(double.calls)

    assert build() == build() == 1
    assert build(x=images[:2]) == 2
    assert build(Torch2trt("fp16", workspace_bytes=1, engine_cache=tmp_path)) == 3
    double.tensorrt.__version__ = "10.4.0"
    assert build() == 4
    cnn.head.bias.data += 1
    assert build() == 5


def test_a_cache_folder_that_cannot_be_made_is_named_before_building(double, cnn, images, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="the folder '.*file/engines' cannot be made .*; choose"):
        prepared(Torch2trt("fp16", engine_cache=tmp_path / "file/engines"), cnn, images)
    assert double.calls == []


def test_an_engine_that_cannot_be_kept_is_measured(double, cnn, images, tmp_path):
    backend = Torch2trt("fp16", engine_cache=tmp_path)
    full = pytest.warns(PrecisionBenchWarning, match="could not be saved in .*; free space there")
    with files_limited_to(1000), full:
        found, _ = prepared(backend, cnn, images)
    assert found.details["engine"] == "built"
    assert list(tmp_path.iterdir()) == []


class Table(nn.Module):
    """Computes with a buffer that is not saved, and has a state that cannot be asked for."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("table", torch.full((1,), value), persistent=False)

    def forward(self, x):
        return x * self.table

    def get_extra_state(self):
        raise RuntimeError("asked for the state")


def test_engines_do_not_fit_other_buffers_even_those_that_are_not_saved(double, images, tmp_path):
    backend = Torch2trt("fp16", engine_cache=tmp_path)
    for value in (1.0, 1.1):
        prepared(backend, Table(value), images)
    assert len(double.calls) == len(list(tmp_path.iterdir())) == 2


class Signed(nn.Module):
    """Computes with a plain number, which is no weight."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, x):
        return x * self.sign


def test_an_engine_of_a_model_that_only_looks_the_same_is_built_anew(double, images, tmp_path):
    """The key knows structure and weights, not the code of `forward` nor plain attributes."""
    backend = Torch2trt("fp16", engine_cache=tmp_path)
    engines = [
        prepared(backend, Signed(sign), images)[0].details["engine"] for sign in (1.0, -1.0, -1.0)
    ]
    assert engines == ["built", "built", "reloaded"]
    assert len(list(tmp_path.iterdir())) == 1


def test_int8_engines_do_not_fit_other_calibration_data(double, cnn, images, tmp_path, monkeypatch):
    monkeypatch.setattr(Engine, "layer_types", ("Int8", "Int8", "Float"))
    for _ in range(2):
        data = calibration_batches()
        backend = Torch2trt("int8", engine_cache=tmp_path, calibration_data=data)
        assert prepared(backend, cnn, images)[0].details["engine"] == "built"
    assert prepared(backend, cnn, images)[0].details["engine"] == "reloaded"


def test_a_damaged_engine_is_built_anew(double, cnn, images, tmp_path):
    backend = Torch2trt("fp16", engine_cache=tmp_path)
    prepared(backend, cnn, images)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"damaged")
    assert prepared(backend, cnn, images)[0].details["engine"] == "built"
    assert file.read_bytes() != b"damaged"


# Models.


class Keywords(nn.Module):
    def forward(self, x, *, scale, shift):
        return {"y": x * scale + shift}


def test_keyword_inputs_are_passed_by_position(double):
    x = torch.rand(2, 3)
    _, output = prepared(Torch2trt(), Keywords(), x, scale=x, shift=x)
    assert torch.allclose(output["y"], x * x + x)
    assert len(double.calls[0]["inputs"]) == 3


def test_inputs_are_made_contiguous(double):
    prepared(Torch2trt(), nn.Identity(), torch.rand(3, 2).t())
    assert double.calls[0]["inputs"][0].is_contiguous()


def test_integer_inputs_are_refused(double):
    """torch2trt takes float16, float32 and bool; others become constants in silence."""
    with pytest.raises(PreparationError, match=r"would turn the torch.int64 input \[0\] into"):
        prepared(Torch2trt(), nn.Identity(), torch.ones(2, dtype=torch.int64))


def test_outputs_that_torch2trt_would_lose_are_refused(double):
    class Labels(nn.Module):
        def forward(self, x):
            return {"scores": x, "labels": x.argmax(1)}

    with pytest.raises(PreparationError, match=r"tensors at \['scores'\], \['labels'\]"):
        prepared(Torch2trt(), Labels(), torch.rand(2, 3))


def test_an_engine_of_the_wrong_batch_is_refused(double, cnn, images, monkeypatch):
    """C17: torch2trt 0.4 with TensorRT 8 gave batch 1 for batch 3."""
    monkeypatch.setattr(TRTModule, "wrong_batch", True)
    with pytest.raises(PreparationError, match=r"gives outputs \[\('', \(1, 5\)\)\]"):
        prepared(Torch2trt(), cnn, images)


def test_an_engine_of_constants_is_refused(double, cnn, images, monkeypatch):
    """torch2trt makes constants of what it cannot convert: its real converters left attention out.

    The output for the measured inputs is then exactly the model's.
    """
    monkeypatch.setattr(TRTModule, "constant", cnn.eval()(images).detach())
    with pytest.raises(PreparationError, match="has stored results of operations without a c"):
        prepared(Torch2trt(), cnn, images)


def test_inputs_that_are_all_alike_are_no_other_inputs(double, cnn, images):
    prepared(Torch2trt(), cnn, torch.ones_like(images))


def test_the_label_of_a_row_is_verified_by_the_layers_of_its_engine(
    double, cnn, images, monkeypatch
):
    monkeypatch.setattr(Engine, "layer_types", ("Float", "Float", "Float"))
    with pytest.warns(PrecisionBenchWarning, match="fp16 was allowed"):
        row = prepared(Torch2trt("fp16"), cnn, images)[0]
    found = gpu_label(Torch2trt("fp16"), row.engine_operations, row.details)[1]
    assert (found.verdict, found.ran) == ("false", "in float32")
    monkeypatch.setattr(Engine, "layer_types", ("Half", "Half", "Half"))
    row = prepared(Torch2trt("fp16"), cnn, images)[0]
    found = gpu_label(Torch2trt("fp16"), row.engine_operations, row.details)[1]
    assert found.verdict == "true"


def test_an_operation_without_converter_is_explained(double, cnn, images):
    double.error = AttributeError("'Tensor' object has no attribute '_trt'")
    double.messages = ["layer fell over"]
    with pytest.raises(PreparationError) as caught:
        prepared(Torch2trt(), cnn, images)
    assert "no converter for an operation of this model" in str(caught.value)
    assert "TensorRT message: layer fell over" in str(caught.value)
    assert "use_onnx=true" in caught.value.remedy
    assert caught.value.__cause__ is double.error


def test_a_build_without_an_engine_reports_the_error_of_tensorrt(double, cnn, images):
    double.builds_nothing = True
    double.messages, double.errors = ["careful"], ["no tactic for conv1", "cannot build"]
    with pytest.raises(PreparationError, match=r"built no engine \(cannot build\); fix what it"):
        prepared(Torch2trt(), cnn, images)


def test_an_engine_that_does_not_run_is_refused(double, cnn, images, monkeypatch):
    """execute_async gives false, which torch2trt does not look at, and logs why."""

    def forward(self, x):
        message_recorder(double.tensorrt).log(ILogger.ERROR, "illegal address")
        return torch.zeros(4, 5)

    monkeypatch.setattr(TRTModule, "forward", forward)
    with pytest.raises(PreparationError, match=r"does not run \(illegal address\)"):
        prepared(Torch2trt(), cnn, images)


class Heads(nn.Module):
    def forward(self, x):
        return {"scores": x, "boxes": x[:, :2]}


def test_outputs_in_dicts_may_come_in_any_order(double):
    _, output = prepared(Torch2trt(), Heads(), torch.rand(2, 3))
    assert list(output) == ["boxes", "scores"]


def test_a_model_may_be_converted_twice_with_the_same_inputs(double, cnn, images):
    """torch2trt leaves attributes of its own on its inputs."""
    args = Inputs((images,))
    for _ in range(2):
        with Torch2trt().prepare(cnn.eval(), args) as prepared:
            prepared.call()
    assert len(double.calls) == 2
    assert not hasattr(images, "_trt")


def test_inputs_in_dataclasses_are_refused(double):
    @dataclasses.dataclass
    class Batch:
        x: torch.Tensor

    class Takes(nn.Module):
        def forward(self, batch):
            return batch.x

    with pytest.raises(PreparationError, match=r"finds inputs in tuples, .* are at \[0\]\.x"):
        prepared(Torch2trt(), Takes(), Batch(torch.rand(2, 3)))


def test_any_other_error_of_a_build_is_chained(double, cnn, images):
    double.error = RuntimeError("out of tactics")
    with pytest.raises(PreparationError, match="could not build the engine .*out of tactics"):
        prepared(Torch2trt(), cnn, images)


def test_onnx_is_passed_on_with_the_exporter_that_torch2trt_knows(double, cnn, images, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **options: asked.append(options))
    export = torch.onnx.export
    prepared(Torch2trt(use_onnx=True), cnn, images)
    assert double.calls[0]["use_onnx"] is True
    assert asked == [{"dynamo": False}]
    assert torch.onnx.export is export


# What may be missing.


def test_missing_tensorrt_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendUnavailableError, match="TensorRT 8 to 10 for Python, which does"):
        Torch2trt().check_available()


def test_tensorrt_11_is_refused(double):
    double.tensorrt.__version__ = "11.0.1"
    with pytest.raises(BackendUnavailableError, match="11.0.1 is installed"):
        Torch2trt().check_available()


def test_tensorrt_7_is_refused(double):
    double.tensorrt.__version__ = "7.1.3"
    with pytest.raises(BackendUnavailableError, match="TensorRT 8 to 10 .7.1.3 is installed"):
        Torch2trt().check_available()


def test_missing_onnx_is_reported(double, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendUnavailableError, match="onnx for use_onnx=true, .*; pip install"):
        Torch2trt(use_onnx=True).check_available()


def test_missing_torch2trt_is_reported(double, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch2trt", None)
    with pytest.raises(BackendUnavailableError, match="torch2trt, which does not import here"):
        Torch2trt().check_available()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_reported(double):
    with pytest.raises(BackendUnavailableError, match="requires a CUDA GPU"):
        Torch2trt().check_available()


def test_inputs_on_a_cpu_are_refused(cnn, images):
    with pytest.raises(BackendUnavailableError, match="the inputs are on cpu"):
        prepared(Torch2trt(), cnn, images)


def test_the_double_refuses_a_name_that_torch2trt_does_not_declare(double, cnn, images):
    with pytest.raises(TypeError, match="fp16"):
        double.torch2trt.torch2trt(cnn, [images], fp16=True)


def test_details_are_json(double, cnn, images):
    json.dumps(dict(prepared(Torch2trt(), cnn, images)[0].details))
