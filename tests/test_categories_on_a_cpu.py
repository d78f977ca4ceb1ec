"""Categories of a call's time on a CPU, where operations call others and keep their own time."""

from __future__ import annotations

import copy

import attrs
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from made_up_results import on_a_cpu
from precisionbench.diagnosis.parts import parts_of, time_by_category
from precisionbench.probes.profiler import profiled
from precisionbench.results.evidence import Evidence, Tensor

SIZE = (2, 16, 64, 64)
INDEX = torch.randint(0, 64, SIZE)
STEPS = torch.arange(64)
CODES = torch.randint(-8, 8, (64, 64), dtype=torch.int8)
ROWS = torch.randint(0, 500, (64, 64))


class Function(nn.Module):
    """A layer that calls a function."""

    def __init__(self, call) -> None:
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


class Bag(nn.Module):
    """Sums of embeddings, whatever its input."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.EmbeddingBag(500, 256)

    def forward(self, _):
        return self.body(ROWS)


# Layers by name, each with the category of most of its time. The bias of a layer would be a copy.
LAYERS = {
    "hardswish": ("pointwise", nn.Hardswish()),
    "silu": ("pointwise", nn.SiLU()),
    "gelu": ("pointwise", nn.GELU()),
    "leaky_relu": ("pointwise", nn.LeakyReLU()),
    "prelu": ("pointwise", nn.PReLU()),
    "elu": ("pointwise", nn.ELU()),
    "in_place": (  # several, as one takes no longer than the copy on some CPUs
        "pointwise",
        Function(lambda x: F.hardswish(x.clone(), inplace=True).tanh_().exp_().log1p_().sin_()),
    ),
    "where": ("pointwise", Function(lambda x: torch.where(x > 0, x, 0.1 * x))),
    "masked": ("pointwise", Function(lambda x: x.masked_fill(x > 1, 0.0))),
    "compared": ("pointwise", Function(lambda x: (x > 0.5) | (x < -0.5))),
    "two_dtypes": ("pointwise", Function(lambda x: ((x * STEPS) * STEPS) * STEPS)),
    "codes": ("pointwise", Function(lambda x: CODES - STEPS[:, None, None])),
    "magnitude": ("pointwise", Function(lambda x: torch.complex(x.float(), x.float()).abs())),
    "gather": ("pointwise", Function(lambda x: torch.gather(x, 2, INDEX))),
    "scatter": ("pointwise", Function(lambda x: torch.zeros_like(x).scatter_add(2, INDEX, x))),
    "pad": ("pointwise", Function(lambda x: F.pad(x, (1, 1, 1, 1), "reflect"))),
    "nearest": ("pointwise", Function(lambda x: F.interpolate(x, scale_factor=2))),
    "bicubic": ("pointwise", Function(lambda x: F.interpolate(x, size=70, mode="bicubic"))),
    "noise": ("pointwise", Function(lambda x: x + torch.randn_like(x))),
    "max_pool": ("reduction", nn.MaxPool2d(3, 1, 1)),
    "softmax": ("reduction", nn.Softmax(-1)),
    "cumsum": ("reduction", Function(lambda x: x.cumsum(-1))),
    "batch_norm": ("norm", nn.BatchNorm2d(16)),
    "layer_norm": ("norm", nn.LayerNorm([16, 64, 64])),
    "concatenated": ("copy", Function(lambda x: torch.cat([x, x], 1))),
    "transposed": ("copy", Function(lambda x: x.transpose(1, 2).contiguous())),
    "converted": ("cast", Function(lambda x: x.to(torch.float64))),
    "fft": ("other", Function(lambda x: torch.fft.fft2(x.float()))),
    "sort": ("other", Function(lambda x: x.sort(-1))),
    "bag": ("pointwise", Bag()),
    "conv": ("matrix", nn.Conv2d(16, 64, 3)),
    "linear": ("matrix", nn.Linear(64, 256, bias=False)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_most_time_of_a_layer_is_in_the_category_of_its_work(name, dtype):
    expected, layer = LAYERS[name]
    layer = copy.deepcopy(layer).eval().to(dtype)
    x = torch.randn(SIZE).to(dtype)
    with torch.inference_mode():
        layer(x)
        found = profiled(lambda: layer(x), 0.05, torch.device("cpu"), None)
    times = time_by_category(parts_of(Evidence(operations=found["operations"])))
    assert next(iter(times)) == expected, times


def categories(*operations):
    return time_by_category(parts_of(Evidence(operations=operations)))


def test_an_operation_that_only_calls_others_does_no_work_itself():
    x = Tensor((4, 64), "float32")
    inner = [on_a_cpu(n, 1e-6, x, parents=("torchao::quantize_affine",)) for n in ("div", "round")]
    assert categories(on_a_cpu("torchao::quantize_affine", 30e-6, x), *inner)["other"] == 30e-6


def test_what_an_operation_of_another_library_does_is_not_known():
    x = Tensor((1000, 4), "float32")
    assert categories(on_a_cpu("torchvision::nms", 1e-3, x)) == {"other": 1e-3}
    assert categories(on_a_cpu("torchvision::deform_conv2d", 1e-3, x)) == {"matrix": 1e-3}


def test_a_view_is_no_work_in_pytorch_and_a_copy_in_an_engine():
    x = Tensor((64, 64), "float32")
    view = on_a_cpu("aten::transpose", 1e-6, x)
    layer = attrs.evolve(view, name="onnxruntime::transpose", place="CPUExecutionProvider")
    assert (*categories(view), *categories(layer)) == ("other", "pointwise")
