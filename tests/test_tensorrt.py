"""The real TensorRT through the real torch2trt. It runs wherever both are installed.

What test_torch2trt.py proves against a double, and what the real thing can be brought to show, is
proved here on the real thing; docs/hardware.md says where this has run.
"""

from __future__ import annotations

import copy
import importlib.util
import inspect

import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.backends.torch2trt import Torch2trt
from precisionbench.errors import PrecisionBenchWarning, PreparationError
from precisionbench.torchtools.global_state import Functions
from precisionbench.torchtools.refill import refill
from precisionbench.torchtools.tensors import Inputs
from tensorrt_double import Double

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.tensorrt,
    pytest.mark.skipif(not importlib.util.find_spec("torch2trt"), reason="needs torch2trt"),
    # torch2trt and TensorRT's Python package are not ours to mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    # On a network this small TensorRT may rightly find float32 the fastest; the row then says so.
    pytest.mark.filterwarnings("ignore:.*was allowed but no layer of the engine writes it"),
]


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return (
        nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, 10),
        )
        .eval()
        .cuda()
    )


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(8, 3, 64, 64, device="cuda")


def batches(count: int = 4) -> list[torch.Tensor]:
    return [torch.rand(8, 3, 64, 64) for _ in range(count)]


def prepared(backend: Torch2trt, model: nn.Module, images: torch.Tensor):
    """Convert a copy, as a comparison does: torch2trt leaves attributes on what it is given."""
    with backend.prepare(copy.deepcopy(model), Inputs((images.clone(),))) as prepared:
        output = prepared.call()
        torch.cuda.synchronize()
        return prepared.details, output


def test_the_double_declares_what_torch2trt_declares():
    from torch2trt import torch2trt

    real = inspect.signature(torch2trt).parameters
    declared = inspect.signature(Double().torch2trt.torch2trt).parameters
    assert set(declared) == set(real) - {"kwargs"}


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-3), ("fp16", 2e-2)])
def test_the_engine_gives_the_models_output(net, images, precision, bound):
    details, output = prepared(Torch2trt(precision), net, images)
    expected = net(images)
    assert (output - expected).norm() / expected.norm() < bound
    assert details["engine_bytes"] > 0
    assert isinstance(details["layers"], int)


def test_a_call_computes_with_what_is_copied_into_its_inputs(net, images):
    with Torch2trt().prepare(copy.deepcopy(net), Inputs((images.clone(),))) as prepared:
        refill(prepared.inputs, [images * 3])
        output = prepared.call()
        torch.cuda.synchronize()
    expected = net(images * 3)
    assert (output - expected).norm() / expected.norm() < 1e-3


def test_every_layer_tells_its_precision(net, images):
    details, _ = prepared(Torch2trt("fp32"), net, images)
    assert set(details["layer_precision"]) <= {"fp32", "int32", "int64", "unknown"}


def test_int8_runs_with_the_users_batches(net, images):
    details, output = prepared(Torch2trt("int8", calibration_data=batches()), net, images)
    expected = net(images)
    assert details["calibration_batches"] == 4
    assert (output - expected).norm() / expected.norm() < 0.2


def test_int8_without_batches_warns(net, images):
    with pytest.warns(PrecisionBenchWarning, match="its numerical error is not"):
        prepared(Torch2trt("int8"), net, images)


def test_an_engine_is_saved_and_reloaded(net, images, tmp_path):
    backend = Torch2trt("fp32", engine_cache=tmp_path)
    first, output = prepared(backend, net, images)
    second, again = prepared(backend, net, images)
    assert (first["engine"], second["engine"]) == ("built", "reloaded")
    assert torch.equal(output, again)


def test_a_damaged_engine_is_built_anew(net, images, tmp_path):
    backend = Torch2trt("fp32", engine_cache=tmp_path)
    prepared(backend, net, images)
    next(tmp_path.iterdir()).write_bytes(b"damaged")
    assert prepared(backend, net, images)[0]["engine"] == "built"


def test_torch_and_tensorrt_are_afterwards_as_before(net, images):
    import tensorrt as trt

    functions, create = Functions.now(), vars(trt.Builder)["create_builder_config"]
    prepared(Torch2trt("fp16"), net, images)
    assert functions.changes() == []
    assert vars(trt.Builder)["create_builder_config"] is create
    assert trt.Logger.__name__ == "Logger"


def test_an_operation_without_converter_is_explained(images):
    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.i0(x)

    with pytest.raises(PreparationError, match="no converter for an operation of this model"):
        prepared(Torch2trt(), Odd().cuda(), images)


def test_outputs_in_a_dict_come_back_as_a_dict(images):
    class Heads(nn.Module):
        def forward(self, x):
            return {"sum": x + x, "product": x * x}

    _, output = prepared(Torch2trt(), Heads().cuda(), images)
    torch.testing.assert_close(output["sum"], images + images)
    torch.testing.assert_close(output["product"], images * images)


def test_an_engine_of_a_model_that_only_looks_the_same_is_built_anew(images, tmp_path):
    class Signed(nn.Module):
        def __init__(self, sign: float) -> None:
            super().__init__()
            self.sign = sign

        def forward(self, x):
            return torch.relu(x + 1) * self.sign

    backend = Torch2trt(engine_cache=tmp_path)
    signs = (1.0, -1.0, -1.0)
    engines = [prepared(backend, Signed(sign).cuda(), images)[0]["engine"] for sign in signs]
    assert engines == ["built", "built", "reloaded"]


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnx_graphsurgeon"))),
    reason="needs onnx and onnx_graphsurgeon",
)
def test_conversion_through_onnx(net, images):
    _, output = prepared(Torch2trt(use_onnx=True), net, images)
    expected = net(images)
    assert (output - expected).norm() / expected.norm() < 1e-3


def test_a_dla_runs_half_where_there_is_one(net, images):
    import tensorrt as trt

    if trt.Builder(trt.Logger()).num_DLA_cores == 0:
        pytest.skip("this device has no DLA")
    _, output = prepared(Torch2trt("fp16", dla_core=0), net, images)
    expected = net(images)
    assert (output - expected).norm() / expected.norm() < 2e-2


def test_integer_inputs_are_refused(net):
    with pytest.raises(PreparationError, match="would bake"):
        prepared(Torch2trt(), nn.Identity(), torch.ones(2, 2, dtype=torch.int64, device="cuda"))


def test_it_runs_in_a_comparison_beside_the_others(net, images):
    comparison = pb.compare(
        net,
        images,
        backends=["eager", "half", "torch2trt:precision=fp16"],
        launcher="inline",
        budget_s=6,
    )
    assert not comparison.failures
    assert comparison["torch2trt:precision=fp16"].agreement.relative_l2 < 2e-2
