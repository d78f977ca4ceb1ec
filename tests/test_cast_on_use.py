"""Weights that are cast whenever they are used: the same results, in less memory."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import nn

from precisionbench.backends.base import cast_model
from precisionbench.model.workload import resolve
from precisionbench.probes import float64_reference
from precisionbench.probes.float64_reference import large_bytes_on, layer_outputs_in_float64
from precisionbench.torchtools.cast_on_use import CastOnUse, cast_on_use

WIDE = 256  # a square weight of this width is large enough to be cast on use


def in_float64(model: nn.Module) -> nn.Module:
    return cast_model(model, torch.float64)


class Tied(nn.Module):
    """Shares a weight, reads its dtype and slices it."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WIDE, WIDE)
        self.head = nn.Linear(WIDE, WIDE, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        first, second = self.head.weight.split(WIDE // 2)
        mixed = x.to(self.head.weight.dtype) @ first.t() @ second
        return self.head(mixed) + self.embedding(torch.arange(2)) + self.head.weight[:2]


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDE, WIDE, dtype=torch.complex64))

    def forward(self, x):
        return (torch.fft.fft(x) @ self.weight).real


MODELS = {
    "linear": lambda: nn.Sequential(nn.Linear(WIDE, WIDE), nn.GELU(), nn.Linear(WIDE, 8)),
    "convolutions": lambda: nn.Sequential(
        nn.Unflatten(1, (WIDE, 1, 1)),
        nn.Conv2d(WIDE, WIDE, 3, padding=1, groups=2),
        nn.BatchNorm2d(WIDE),
        nn.ConvTranspose2d(WIDE, WIDE, 3),
    ),
    "attention": lambda: nn.Sequential(
        nn.Unflatten(1, (1, WIDE)), nn.TransformerEncoderLayer(WIDE, 4, WIDE, batch_first=True)
    ),
    "recurrent": lambda: nn.LSTM(WIDE, WIDE, 2),
    "shared": Tied,
    "computed weights": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(WIDE, WIDE)),
    "complex": Complex,
    "16 bits": lambda: nn.Linear(WIDE, WIDE).bfloat16(),
}


@pytest.mark.parametrize("name", MODELS)
def test_results_are_those_of_the_model_cast_as_a_whole(name):
    torch.manual_seed(0)
    model, x = MODELS[name]().eval(), torch.randn(2, WIDE, dtype=torch.float64)
    with torch.inference_mode():
        whole = in_float64(copy.deepcopy(model))(x)
        lazy = cast_on_use(copy.deepcopy(model), torch.float64, in_float64)(x)
    torch.testing.assert_close(lazy, whole, rtol=1e-12, atol=1e-12)


def wide_float64_tensors() -> list[torch.Tensor]:
    tensors = [one for one in gc.get_objects() if type(one) is torch.Tensor]
    return [one for one in tensors if one.dtype == torch.float64 and one.numel() > WIDE]


def test_only_the_weight_that_is_used_is_in_float64():
    seen: list[int] = []
    kept = wide_float64_tensors()  # of other tests
    known = {*map(id, kept)}

    class Counting(nn.Linear):
        def forward(self, x):
            found = super().forward(x)
            seen.append(len({*map(id, wide_float64_tensors())} - known))
            return found

    model = nn.Sequential(*(Counting(WIDE, WIDE) for _ in range(3)))
    cast_on_use(model, torch.float64, in_float64)
    with torch.inference_mode():
        model(torch.randn(1, WIDE, dtype=torch.float64))
    assert seen == [0, 0, 0]  # a layer's copy is gone once it has run
    assert all(layer.weight.dtype == torch.float64 for layer in model)
    assert all(layer.weight.held.dtype == torch.float32 for layer in model)


def test_a_shared_weight_stays_shared_and_a_parameter():
    model = cast_on_use(Tied(), torch.float64, in_float64)
    assert model.head.weight is model.embedding.weight
    assert isinstance(model.head.weight, nn.Parameter)
    assert isinstance(model.head.weight, CastOnUse)


class Stateful(nn.Module):
    """Counts its calls in a part of a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WIDE, WIDE), requires_grad=False)

    def forward(self, x):
        self.weight[:, 1].add_(1 / 3)
        return x @ self.weight


class ByAddress(nn.Linear):
    """Asks where its weight is, as code that calls a library does."""

    def forward(self, x):
        assert self.weight.data_ptr()
        return super().forward(x)


@pytest.mark.parametrize(
    ("free_bytes", "large_bytes"), [(None, 1 << 28), (4 << 30, 1 << 28), (128 << 30, 4 << 30)]
)
def test_what_is_large_depends_on_the_memory_that_a_gpu_has_free(
    monkeypatch, free_bytes, large_bytes
):
    monkeypatch.setattr(float64_reference, "free_device_bytes", lambda _: free_bytes)
    assert large_bytes_on(torch.device("cuda")) == large_bytes


@pytest.mark.parametrize("kind", [Stateful, lambda: ByAddress(WIDE, WIDE)])
def test_a_model_that_does_more_with_its_weights_is_cast_as_a_whole(kind):
    torch.manual_seed(0)
    x = torch.randn(2, WIDE)
    with torch.no_grad():
        model = kind()
        workload = resolve(model, x, device="cpu", seed=0)
        found = layer_outputs_in_float64(workload, large_bytes=0)
        expected = in_float64(copy.deepcopy(model))(x.double())
    assert found[""].values.equal(expected.flatten())
