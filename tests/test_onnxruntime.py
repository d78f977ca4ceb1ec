"""The plugin for ONNX Runtime: what it refuses anywhere, and the real engine on a CPU."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import attrs
import pytest
import torch

import precisionbench as pb
from engine_rows import Prepares, engine_label, prepared
from odd_model import odd_model
from precisionbench.backends.onnxruntime import OnnxRuntime
from precisionbench.backends.onnxruntime_session import provider_name
from precisionbench.errors import (
    BackendUnavailableError,
    PrecisionBenchWarning,
    PreparationError,
    SpecError,
)
from precisionbench.results.claims import Claims
from precisionbench.torchtools.global_state import Functions
from precisionbench.torchtools.tensors import walk
from small_transformer import small_transformer

real = pytest.mark.onnxruntime
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.1}


def exported(precision: str = "fp32", *batches: object, **options: object) -> OnnxRuntime:
    """By the faster exporter; the tests of the other one name it."""
    data = batches if precision == "int8" else None
    options = {"exporter": "torchscript", **options}
    return OnnxRuntime(precision, calibration_data=data, **options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"memory_format": "channels_last"}, "contiguous"),
        ({"tf32": True, "precision": "fp16"}, "tf32"),
        ({"tf32": True, "provider": "cpu"}, "tf32"),
        ({"tf32": True, "provider": "tensorrt"}, "tf32"),
        ({"calibration": "mine:batches"}, "only INT8"),
        ({"calibration_data": ()}, "only INT8"),
        ({"provider": "rocket"}, "provider"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, reason):
    with pytest.raises(SpecError, match=reason):
        OnnxRuntime(**options)


def test_without_the_engine_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'precisionbench\[onnxruntime"):
        OnnxRuntime().check_available()


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        (OnnxRuntime(), "float32"),
        (OnnxRuntime(tf32=True), "tf32"),
        (OnnxRuntime("fp16"), "float16"),
        (OnnxRuntime("int8"), "int8"),
    ],
)
def test_a_row_claims_the_precision_of_the_exported_model(backend, dtype):
    assert backend.claims().dtype == dtype


@real
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_the_output_is_the_models(cnn, images, exporter):
    found = prepared(OnnxRuntime(exporter=exporter), cnn.eval(), images)
    assert torch.allclose(found.output, cnn(images), atol=1e-5)
    assert found.details["exporter"] == exporter
    assert found.details["provider"] == "CPUExecutionProvider"


@real
@pytest.mark.parametrize(
    ("precision", "exporter"),
    [
        ("fp32", "dynamo"),
        ("int8", "torchscript"),
        pytest.param("fp32", "torchscript", marks=pytest.mark.slow),
        pytest.param("int8", "dynamo", marks=pytest.mark.slow),
    ],
)
def test_a_transformer_with_keyword_arguments_and_a_mapping(precision, exporter):
    model, args, kwargs = small_transformer()
    backend = exported(precision, (*args, *kwargs.values()), exporter=exporter)
    found, expected = prepared(backend, model, *args, **kwargs), model(*args, **kwargs)
    assert set(found.output) == {"logits", "hidden"}
    for name, tensor in expected.items():
        error = (found.output[name] - tensor).norm() / tensor.norm()
        assert error < TOLERANCE[precision]
    assert engine_label(backend, found).verdict == "true"


@real
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_label_of_what_ran_as_asked_for_is_true(cnn, images, precision):
    backend = exported(precision, images)
    found = prepared(backend, cnn.eval(), images)
    assert engine_label(backend, found).verdict == "true"
    assert (found.output - cnn(images)).norm() / cnn(images).norm() < TOLERANCE[precision]


@real
def test_fp16_on_a_cpu_without_half_kernels_is_a_false_label(cnn, images):
    """The CPU's provider casts to float32 around every layer, and writes a line in its log."""
    with pytest.warns(PrecisionBenchWarning, match="this row is not float16"):
        found = prepared(exported("fp16"), cnn.eval(), images)
    label = engine_label(OnnxRuntime("fp16"), found)
    assert (label.verdict, label.ran) == ("false", "in float32")
    assert found.output.dtype == torch.float16


@real
def test_a_layer_that_the_quantiser_leaves_in_float32_is_a_false_int8_label():
    """The static quantiser has no recurrent layers."""
    lstm, x = torch.nn.LSTM(8, 16, batch_first=True).eval(), torch.rand(2, 5, 8)
    with pytest.warns(PrecisionBenchWarning, match="this row is not int8"):
        found = prepared(exported("int8", x), lstm, x)
    label = engine_label(OnnxRuntime("int8"), found)
    assert (label.verdict, label.ran) == ("false", "in float32")


@attrs.frozen
class Mislabelled(OnnxRuntime):
    """Claims INT8 and runs the float32 model."""

    name: ClassVar[str] = "mislabelled"

    def claims(self):
        return Claims("int8", engine="ONNX Runtime")

    @contextmanager
    def prepare(self, model, inputs):
        with exported().prepare(model, inputs) as found:
            yield found


@real
def test_a_row_that_claims_int8_and_runs_float32_is_a_false_label(cnn, images):
    found = prepared(Mislabelled(), cnn.eval(), images)
    label = engine_label(Mislabelled(), found)
    assert (label.verdict, label.ran) == ("false", "in float32")


@real
def test_int8_without_calibration_data_warns(cnn, images):
    with pytest.warns(PrecisionBenchWarning, match="calibrated on the benchmark's own inputs"):
        found = prepared(OnnxRuntime("int8", exporter="torchscript"), cnn.eval(), images)
    assert found.details["calibration_batches"] == 1


@real
def test_calibration_data_of_other_shapes_is_refused(cnn, images):
    with pytest.raises(PreparationError, match="calibration batch 1"):
        prepared(exported("int8", images, images[:1]), cnn.eval(), images)


@real
def test_a_provider_that_this_build_lacks_is_unavailable():
    with pytest.raises(BackendUnavailableError, match="onnxruntime-gpu") as raised:
        OnnxRuntime(provider="tensorrt").check_available()
    assert "CPUExecutionProvider" in raised.value.requirement


class PluginRuntime:
    """ONNX Runtime for CPUs, into which NVIDIA's plugin is loaded."""

    def __init__(self) -> None:
        self.registered: list[tuple[str, str]] = []

    def get_available_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def get_ep_devices(self) -> list[SimpleNamespace]:
        plugins = [SimpleNamespace(ep_name=name) for name, _ in self.registered]
        return [SimpleNamespace(ep_name="CPUExecutionProvider"), *plugins]

    def register_execution_provider_library(self, name: str, path: str) -> None:
        self.registered.append((name, path))


def test_the_plugin_of_tensorrt_for_rtx_is_registered_once_under_its_own_name(monkeypatch):
    plugin = ModuleType("onnxruntime_ep_nv_tensorrt_rtx")
    plugin.__spec__ = ModuleSpec(plugin.__name__, None)
    plugin.get_ep_name = lambda: "TensorRTRTX"
    plugin.get_library_path = lambda: "plugin.so"
    monkeypatch.setitem(sys.modules, plugin.__name__, plugin)
    runtime = PluginRuntime()
    assert provider_name(runtime, "tensorrt-rtx") == "TensorRTRTX"
    assert provider_name(runtime, "tensorrt-rtx") == "TensorRTRTX"
    assert runtime.registered == [("TensorRTRTX", "plugin.so")]


def test_without_the_plugin_of_tensorrt_for_rtx_it_says_how_to_get_it():
    with pytest.raises(BackendUnavailableError, match="onnxruntime-ep-nv-tensorrt-rtx"):
        provider_name(PluginRuntime(), "tensorrt-rtx")


@real
def test_a_model_that_cannot_be_exported_says_so(images):
    class Branches(torch.nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(PreparationError, match="cannot export the model") as raised:
        prepared(OnnxRuntime(exporter="dynamo"), Branches(), images)
    assert "exporter=torchscript" in raised.value.remedy


@real
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_arguments_and_results_of_any_structure(precision):
    model, args = odd_model()
    tensors = tuple(tensor for _, tensor in walk(args))
    expected = model(*args)
    found = prepared(exported(precision, tensors), model, *args)
    assert type(found.output) is tuple
    assert list(found.output[2]) == ["again", "positive", "largest"]
    for (_, got), (_, want) in zip(walk(found.output), walk(expected), strict=True):
        assert got.dtype == want.dtype
        if want.is_floating_point() or precision == "fp32":
            assert (got.float() - want.float()).norm() <= TOLERANCE[precision] * want.float().norm()


@real
def test_nothing_is_left_behind(cnn, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    functions, environment = Functions.now(), dict(os.environ)
    prepared(exported("int8", images), cnn.eval(), images)
    assert functions.changes() == []
    assert dict(os.environ) == environment
    assert list(Path(tmp_path).iterdir()) == []  # the profile was elsewhere, and is removed


@real
def test_what_is_timed_reads_the_inputs_where_they_are(cnn, images):
    with Prepares(exported(), cnn.eval(), images) as found:
        first = found.call()
        kept = first.clone()
        assert found.call() is first
        found.inputs.args[0].mul_(2)
        assert not torch.equal(found.call(), kept)


@real
@pytest.mark.parametrize("options", [{"tf32": True}, {"provider": "cuda"}])
def test_what_needs_a_gpu_is_unavailable_on_a_cpu(cnn, images, options):
    with pytest.raises(BackendUnavailableError):
        prepared(OnnxRuntime(**options), cnn.eval(), images)


@real
@pytest.mark.parametrize(
    ("precision", "exporter"),
    [
        ("fp32", "torchscript"),
        ("int8", "torchscript"),
        pytest.param("fp32", "dynamo", marks=pytest.mark.slow),
        pytest.param("int8", "dynamo", marks=pytest.mark.slow),
    ],
)
def test_a_resnet(precision, exporter):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model, x = torchvision.models.resnet18(weights=None).eval(), torch.rand(1, 3, 32, 32)
    backend = exported(precision, x, exporter=exporter)
    found, expected = prepared(backend, model, x), model(x)
    assert (found.output - expected).norm() / expected.norm() < TOLERANCE[precision]
    assert engine_label(backend, found).verdict == "true"


@real
@pytest.mark.slow
def test_rows_in_workers_beside_eager(cnn, images):
    comparison = pb.compare(
        cnn,
        images,
        backends=[OnnxRuntime(), OnnxRuntime("fp16")],
        device="cpu",
        budget_s=1,
        replicas=1,
        evidence=False,
    )
    assert comparison.failures == ()
    assert comparison["onnxruntime"].agreement.relative_l2 < 1e-5
    labels = {label.row: label.verdict for label in pb.diagnose(comparison).labels}
    assert labels["onnxruntime"] == "true"
    assert labels["onnxruntime:precision=fp16"] == "false"
