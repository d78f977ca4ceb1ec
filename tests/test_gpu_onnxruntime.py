"""ONNX Runtime's CUDA provider on a real GPU: precision, providers, no copies and no waits."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import DeviceType

import precisionbench as pb
from engine_rows import Prepares
from precisionbench.backends.onnxruntime import OnnxRuntime
from precisionbench.torchtools.refill import refill

pytestmark = [pytest.mark.gpu, pytest.mark.onnxruntime, pytest.mark.slow]


@pytest.fixture(autouse=True)
def cuda_provider() -> None:
    if "CUDAExecutionProvider" not in pytest.importorskip("onnxruntime").get_available_providers():
        pytest.skip("needs onnxruntime-gpu")


@pytest.mark.parametrize(
    ("precision", "dtype", "tolerance"),
    [("fp32", torch.float32, 1e-5), ("fp16", torch.float16, 5e-3)],
)
def test_every_layer_runs_on_the_gpu_in_the_precision_asked_for(
    cnn, images, precision, dtype, tolerance
):
    model, x = cnn.eval().cuda(), images.cuda()
    expected = model(x)
    with Prepares(OnnxRuntime(precision), model, x) as found:
        output = found.call()
        torch.cuda.synchronize()
        assert output.dtype == dtype
        assert output.is_cuda
        assert (output.float() - expected).norm() / expected.norm() < tolerance
        assert set(found.prepared.details["layer_places"]) == {"CUDAExecutionProvider"}
        assert set(found.prepared.details["layer_precision"]) == {str(dtype)[6:]}


def test_a_call_neither_waits_nor_copies(cnn, images):
    with Prepares(OnnxRuntime("fp16"), cnn.eval().cuda(), images.cuda()) as found:
        found.call()
        torch.cuda.synchronize()
        with torch.profiler.profile(acc_events=True) as profile:
            with torch.profiler.record_function("the call"):
                found.call()
            torch.cuda.synchronize()
    names = [event.name for event in profile.events()]
    assert not any("Memcpy HtoD" in name or "Memcpy DtoH" in name for name in names)
    on_host = [event for event in profile.events() if event.device_type == DeviceType.CPU]
    (call,) = (event for event in on_host if event.name == "the call")
    waits = [event for event in on_host if "Synchronize" in event.name]
    assert all(wait.time_range.start >= call.time_range.end for wait in waits)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_call_computes_with_what_is_copied_into_its_inputs(cnn, images, precision):
    model, x = cnn.eval().cuda(), images.cuda()
    expected = model(x * 3)
    with Prepares(OnnxRuntime(precision), model, x) as found:
        refill(found.prepared.inputs, [images * 3])
        output = found.call()
        torch.cuda.synchronize()
    assert (output.float() - expected).norm() / expected.norm() < 5e-3


def test_labels_in_a_comparison(cnn, images):
    comparison = pb.compare(
        cnn,
        images,
        backends=[OnnxRuntime(), OnnxRuntime("fp16"), OnnxRuntime("int8")],
        device="cuda",
        budget_s=30,
        replicas=1,
    )
    assert comparison.failures == ()
    labels = {label.row: label.verdict for label in pb.diagnose(comparison).labels}
    assert labels["onnxruntime"] == "true"  # and no TF32 kernel
    assert labels["onnxruntime:precision=fp16"] == "true"
    assert labels["onnxruntime:precision=int8"] in ("false", "partly")  # no INT8 kernels in CUDA's
