"""Torch-TensorRT's real partitioner and converters and the real builder of TensorRT for RTX.

`nox -s tensorrt-rtx` installs them and runs this on any machine; nothing is run on a GPU. What the
engines report is read from their bytes (`rtx_builder.py`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from engine_rows import gpu_label
from made_up_results import findings
from precisionbench.backends.torch_tensorrt import TorchTensorRT
from precisionbench.backends.torch_tensorrt_build import Compiled, warn_of_operators_left
from precisionbench.errors import PrecisionBenchWarning, PreparationError
from precisionbench.results.dtypes import LONG_NAMES
from precisionbench.results.evidence import PYTORCH, Tensor

pytestmark = [
    pytest.mark.tensorrt_rtx,
    pytest.mark.filterwarnings("ignore"),  # of torch_tensorrt and its imports, about themselves
]
RECORDED = Path(__file__).parent / "recorded_engines"


@pytest.fixture(scope="module")
def build():
    """Compile a model without loading its engines."""
    from rtx_builder import built

    return built


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 64, 8, 8)
        self.encoder = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1)


class Middle(nn.Module):
    """Linear layers around an operator that TensorRT does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        self.after = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(torch.special.i0(self.before(x)))


@pytest.fixture
def transformer() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return Transformer(), torch.rand(4, 3, 32, 32)


@pytest.fixture
def middle() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return Middle(), torch.rand(4, 64)


def label(backend: TorchTensorRT, model: Compiled):
    return gpu_label(backend, model.operations(backend.name), model.details)


def matrix_dtypes(model: Compiled) -> set[str]:
    return {layer.dtype for layer in model.report.layers if layer.is_matrix}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_an_engine_computes_in_the_dtype_that_the_model_was_cast_to(build, transformer, precision):
    backend = TorchTensorRT(precision)
    model = build(backend, *transformer)
    assert matrix_dtypes(model) == {LONG_NAMES[precision]}
    assert (model.engines, model.left) == (1, [])
    data, found = label(backend, model)
    assert found.verdict == "true"
    assert findings(data, "engine-fallback") == []


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_recorded_engine_is_what_is_built(build, transformer, precision):
    from precisionbench.backends.tensorrt_layers import layers_of

    model = build(TorchTensorRT(precision), *transformer)
    (recorded,) = json.loads((RECORDED / f"rtx-transformer-{precision}.json").read_text())

    def matrices(layers):
        return sorted((layer.kind, layer.dtype) for layer in layers if layer.is_matrix)

    assert matrices(model.report.layers) == matrices(layers_of(recorded["Layers"]))


def test_autocast_computes_products_in_half_and_takes_float32(build, transformer):
    backend = TorchTensorRT("fp16", autocast=True)
    model = build(backend, *transformer)
    assert matrix_dtypes(model) == {"float16"}
    read = [tensor for layer in model.report.layers for tensor in layer.inputs]
    assert Tensor((4, 3, 32, 32), "float32") in read  # the model's input
    assert label(backend, model)[1].verdict == "true"


def test_enabled_precisions_change_nothing_and_such_a_label_is_false(build, transformer):
    """What users write, and what Torch-TensorRT takes and drops: this backend casts instead."""
    model = build(TorchTensorRT(), *transformer, enabled_precisions={torch.half})
    assert matrix_dtypes(model) == {"float32"}
    found = label(TorchTensorRT("fp16"), model)[1]
    assert (found.verdict, found.ran) == ("false", "in float32")


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_allowed_only_where_asked_for(build, transformer, tf32):
    model = build(TorchTensorRT(tf32=tf32), *transformer)
    (engine,) = [part for part in model.module.modules() if hasattr(part, "serialized_engine")]
    assert f"  tf32={int(tf32)}\n".encode() in engine.serialized_engine


def test_an_operator_that_tensorrt_lacks_is_counted_and_is_a_finding(build, middle):
    backend = TorchTensorRT("fp16", min_block_size=1)
    model = build(backend, *middle)
    assert (model.engines, model.operators) == (2, {"TensorRT": 6, PYTORCH: 1})
    with pytest.warns(PrecisionBenchWarning, match=r"1 of 7 operators \(1 i0\), beside 2 engines"):
        warn_of_operators_left(model)
    data, found = label(backend, model)
    assert found.verdict == "partly"
    assert "PyTorch ran 1 of 7 operators" in found.sentence
    (finding,) = findings(data, "engine-fallback")
    assert [number.value for number in finding.evidence] == [1, 7, 2]
    assert "i0" in finding.reason


@pytest.mark.parametrize("fast", [True, False])
def test_a_model_of_which_half_fell_back_has_a_false_label(build, middle, fast):
    backend = TorchTensorRT("fp16", min_block_size=1)
    left = {"torch.ops.aten.linear.default"}
    model = build(backend, *middle, torch_executed_ops=left, use_fast_partitioner=fast)
    assert model.operators == {"TensorRT": 2, PYTORCH: 5}
    found = label(backend, model)[1]
    assert (found.verdict, found.ran) == ("false", "by PyTorch")
    assert "4 of 4 matmuls and convolutions and 5 of 7 operators" in found.sentence


def test_a_model_that_is_too_small_for_an_engine_has_a_false_label(build, middle):
    """Torch-TensorRT logs it, and gives the model back."""
    backend = TorchTensorRT("fp16")
    model = build(backend, *middle)
    assert model.engines == 0
    assert label(backend, model)[1].verdict == "false"


def test_full_compilation_is_refused_with_the_remedy(build, middle):
    backend = TorchTensorRT(require_full_compilation=True, min_block_size=1)
    with pytest.raises(PreparationError, match="cannot convert all operators") as caught:
        build(backend, *middle)
    assert "leave require_full_compilation out" in caught.value.remedy


def test_a_model_that_cannot_be_exported_is_named(build):
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(PreparationError, match=r"torch\.export cannot export the model"):
        build(TorchTensorRT(), Branches(), torch.rand(4))


def test_the_builder_is_as_before(build, middle):
    build(TorchTensorRT(min_block_size=1), *middle)
    builder = sys.modules["tensorrt"].Builder
    before = vars(builder)["build_serialized_network"]
    build(TorchTensorRT(min_block_size=1), *middle)
    assert vars(builder)["build_serialized_network"] is before
