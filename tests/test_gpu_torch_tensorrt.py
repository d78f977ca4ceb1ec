"""Engines of Torch-TensorRT on a real GPU. It runs wherever Torch-TensorRT is installed.

What needs no GPU, up to building an engine, is in test_tensorrt_rtx.py; docs/hardware.md says where
this has run.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

import precisionbench as pb
from engine_rows import Prepares, gpu_label
from precisionbench.backends.torch_tensorrt import TorchTensorRT
from precisionbench.errors import PrecisionBenchWarning, PreparationError
from precisionbench.results.dtypes import LONG_NAMES
from precisionbench.torchtools.global_state import Functions
from precisionbench.torchtools.refill import refill
from small_transformer import small_transformer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.tensorrt,
    pytest.mark.slow,
    pytest.mark.skipif(
        not importlib.util.find_spec("torch_tensorrt"), reason="needs Torch-TensorRT"
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
TOLERANCES = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 3e-2}


@pytest.fixture(autouse=True)
def _available() -> None:
    try:
        TorchTensorRT().check_available()
    except pb.BackendUnavailableError as exc:
        pytest.skip(str(exc))


@pytest.mark.parametrize("precision", list(TOLERANCES))
def test_a_call_computes_with_what_is_copied_into_its_inputs(cnn, images, precision):
    model, x = cnn.eval().cuda(), images.cuda()
    expected = model(x * 3)
    with Prepares(TorchTensorRT(precision, min_block_size=1), model, x) as found:
        refill(found.prepared.inputs, [images * 3])
        output = found.call()
        torch.cuda.synchronize()
    assert (output.float() - expected).norm() / expected.norm() < TOLERANCES[precision]


@pytest.mark.parametrize("precision", list(TOLERANCES))
def test_an_engine_computes_the_models_output_in_the_precision_asked_for(cnn, images, precision):
    backend = TorchTensorRT(precision, min_block_size=1)
    model, x = cnn.eval().cuda(), images.cuda()
    expected = model(x)
    with Prepares(backend, model, x) as found:
        output = found.call()
        torch.cuda.synchronize()
        prepared = found.prepared
    assert str(output.dtype) == f"torch.{LONG_NAMES[precision]}"
    assert (output.float() - expected).norm() / expected.norm() < TOLERANCES[precision]
    assert prepared.details["engines"] == 1
    assert prepared.details["operators"]["PyTorch"] == 0
    label = gpu_label(backend, prepared.engine_operations, prepared.details)[1]
    assert label.verdict == "true"
    assert label.witnesses  # the engine reports the types of its layers


def test_autocast_keeps_inputs_and_outputs_in_float32(cnn, images):
    backend = TorchTensorRT("fp16", autocast=True, min_block_size=1)
    with Prepares(backend, cnn.eval().cuda(), images.cuda()) as found:
        assert found.call().dtype == torch.float32


def test_an_engine_reads_its_inputs_in_each_call(cnn, images):
    model, x = cnn.eval().cuda(), images.cuda()
    with Prepares(TorchTensorRT(min_block_size=1), model, x) as found:
        found.call()
        (tensor,) = found.inputs.args
        tensor.copy_(tensor.flatten().roll(7).view_as(tensor))
        torch.testing.assert_close(found.call(), model(tensor), rtol=1e-4, atol=1e-5)


def test_integer_inputs_keywords_and_dicts():
    model, args, kwargs = small_transformer()
    model, tokens = model.cuda(), args[0].cuda()
    scale = kwargs["scale"].cuda()
    expected = model(tokens, scale=scale)
    with Prepares(TorchTensorRT(min_block_size=1), model, tokens, scale=scale) as found:
        output = found.call()
    assert list(output) == list(expected)
    torch.testing.assert_close(output["logits"], expected["logits"], rtol=1e-3, atol=1e-4)


class Middle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(torch.special.i0(self.before(x)))


def test_an_operator_that_is_left_to_pytorch_is_counted_and_runs():
    model, x = Middle().eval().cuda(), torch.rand(4, 64, device="cuda")
    expected = model(x)
    warns = pytest.warns(PrecisionBenchWarning, match=r"PyTorch runs 1 of 3 operators")
    with warns, Prepares(TorchTensorRT(min_block_size=1), model, x) as found:
        torch.testing.assert_close(found.call(), expected, rtol=1e-3, atol=1e-4)
        assert found.prepared.details["engines"] == 2


def test_full_compilation_is_refused():
    backend = TorchTensorRT(require_full_compilation=True, min_block_size=1)
    with (
        pytest.raises(PreparationError, match="cannot convert all operators"),
        Prepares(backend, Middle().eval().cuda(), torch.rand(4, 64, device="cuda")),
    ):
        pass


def test_functions_of_torch_are_as_before(cnn, images):
    functions = Functions.now()
    with Prepares(TorchTensorRT(min_block_size=1), cnn.eval().cuda(), images.cuda()) as found:
        found.call()
    assert functions.changes() == []


def test_labels_in_a_comparison(cnn, images):
    comparison = pb.compare(
        cnn,
        images,
        backends=[
            TorchTensorRT(min_block_size=1),
            TorchTensorRT("fp16", min_block_size=1),
            TorchTensorRT("fp16", min_block_size=100),
        ],
        device="cuda",
        budget_s=30,
        replicas=1,
    )
    assert comparison.failures == ()
    labels = [label.verdict for label in pb.diagnose(comparison).labels]
    assert labels[-3:] == ["true", "true", "false"]
