"""The plugin for PT2E: what it refuses anywhere, and INT8 convolutions on a CPU."""

from __future__ import annotations

import platform
from contextlib import contextmanager
from typing import ClassVar

import attrs
import pytest
import torch
from torch import nn

from engine_rows import Prepares, profiled_label
from precisionbench.backends import Prepared
from precisionbench.backends.flat_model import flattened
from precisionbench.backends.pt2e import Pt2e
from precisionbench.backends.pt2e_layers import converted_weights
from precisionbench.backends.stored_weights import summary
from precisionbench.errors import (
    BackendUnavailableError,
    PrecisionBenchWarning,
    PreparationError,
    SpecError,
)
from precisionbench.torchtools.global_state import Functions
from small_transformer import small_transformer

real = [
    pytest.mark.torchao,
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="needs an x86 CPU"),
]


def real_engine(function):
    for mark in real:
        function = mark(function)
    return function


def test_channels_last_is_refused():
    with pytest.raises(SpecError, match="contiguous"):
        Pt2e(memory_format="channels_last")


def test_another_cpu_says_what_else(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(BackendUnavailableError, match="x86 CPU.*aarch64.*torchao"):
        Pt2e().check_available()


@attrs.frozen
class Reference(Pt2e):
    """Claims INT8, and runs the quantised model by PyTorch's reference kernels."""

    name: ClassVar[str] = "reference"

    @contextmanager
    def prepare(self, model, inputs):
        flat = flattened(model, inputs)
        quantised, _ = self._quantised(flat)
        details = summary(converted_weights(quantised, "model"), "int8")
        yield Prepared(lambda: quantised(*flat.inputs), quantised, details=details)


@pytest.mark.slow  # the C++ compiler
@real_engine
def test_kernels_that_dequantise_and_multiply_in_float32_are_a_false_label(cnn, images):
    with Prepares(Reference(calibration_data=[images]), cnn.eval(), images) as found:
        label = profiled_label(found)
    assert (label.verdict, label.ran) == ("false", "in float32")


class Mixed(nn.Module):
    """A convolution and two calls of a linear layer, with a layer that the quantiser leaves out."""

    def __init__(self):
        super().__init__()
        self.first, self.transposed = nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 8, 3)
        self.head = nn.Linear(8, 8)

    def forward(self, x):
        x = self.transposed(self.first(x)).relu().mean((2, 3))
        return self.head(self.head(x))


@real_engine
@pytest.mark.slow
def test_layers_that_the_quantiser_leaves_out_are_named_in_the_label():
    x = torch.rand(1, 3, 8, 8)
    with Prepares(Reference(calibration_data=[x]), Mixed().eval(), x) as found:
        details, label = found.prepared.details, profiled_label(found)
    assert (details["quantised_layers"], details["float_layer_names"]) == (2, ["transposed"])
    shares = {"float32": 576 / 856, "int8": 280 / 856}
    assert details["weight_shares"] == pytest.approx(shares)
    assert "weights are 67% in float32 (the first: transposed)" in label.sentence


@real_engine
def test_without_calibration_data_it_warns(cnn, images):
    with (
        pytest.warns(PrecisionBenchWarning, match="calibrated on the benchmark's own inputs"),
        Prepares(Reference(), cnn.eval(), images),
    ):
        pass


@real_engine
def test_a_model_that_cannot_be_exported_says_so(images):
    class Branches(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    with (
        pytest.raises(PreparationError, match="PT2E cannot quantise the model"),
        Prepares(Pt2e(calibration_data=[images]), Branches(), images),
    ):
        pass


@pytest.mark.slow  # the C++ compiler
@real_engine
def test_convolutions_run_in_int8(cnn, images):
    expected, functions = cnn.eval()(images), Functions.now()
    with Prepares(Pt2e(calibration_data=[images, images / 2]), cnn, images) as found:
        error = (found.call() - expected).norm() / expected.norm()
        assert error < 0.1
        assert found.prepared.details["calibration_batches"] == 2
        assert found.prepared.details["weight_shares"] == {"int8": 1.0}
        label = profiled_label(found)
    assert label.verdict == "true"
    assert functions.changes() == []


class Sums(nn.Module):
    """Adds outputs of quantised layers to its input and to a parameter."""

    def __init__(self):
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(64), nn.Dropout(0.5)
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.offset = nn.Parameter(torch.randn(8, 64))

    def forward(self, x):
        y = self.dropout(x) + self.first(self.norm(x))
        return self.offset + self.second(y)


@pytest.mark.slow  # the C++ compiler
@real_engine
def test_calls_change_neither_inputs_nor_parameters():
    """TorchInductor of torch 2.14 computes such sums in the memory of the input or parameter."""
    torch.manual_seed(0)
    model, x = Sums().eval(), torch.randn(8, 64)
    expected = model(x)
    with Prepares(Pt2e(calibration_data=[x]), model, x) as found:
        found.call()
        output = found.call()
        assert torch.equal(found.inputs.args[0], x)
    assert (output - expected).norm() / expected.norm() < 0.02


@real_engine
@pytest.mark.slow
def test_a_resnet():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model, x = torchvision.models.resnet18(weights=None).eval(), torch.rand(1, 3, 64, 64)
    expected = model(x)
    with Prepares(Pt2e(calibration_data=[x]), model, x) as found:
        assert (found.call() - expected).norm() / expected.norm() < 0.1
        assert profiled_label(found).verdict == "true"


@real_engine
@pytest.mark.slow
def test_a_transformer_with_keyword_arguments_and_a_mapping():
    model, args, kwargs = small_transformer(width=256)
    expected = model(*args, **kwargs)["logits"]
    batch = (*args, *kwargs.values())
    with Prepares(Pt2e(calibration_data=[batch]), model, *args, **kwargs) as found:
        output = found.call()["logits"]
        assert (output - expected).norm() / expected.norm() < 0.1
        assert profiled_label(found).verdict in ("true", "partly")
