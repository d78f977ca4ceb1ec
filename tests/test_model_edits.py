"""Edits of models that experiments measure: attention that can be fused, and flushed denormals."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from precisionbench.errors import PreparationError
from precisionbench.probes.denormals import denormal_share, denormals_of
from precisionbench.torchtools.tensors import Inputs
from precisionbench.workflows.fused_attention import fusable_attention
from precisionbench.workflows.model_edits import EDITS

CPU = torch.device("cpu")
spectral_norm = parametrizations.spectral_norm


def old_weight_norm(layer: nn.Module) -> nn.Module:
    """The function that torch deprecates, which computes the weight in a hook."""
    with pytest.warns(FutureWarning):
        return torch.nn.utils.weight_norm(layer)


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(x, x, x[..., :3], torch.zeros(5, 5))


def edited(name: str, model: nn.Module, x: torch.Tensor):
    changed, inputs = EDITS[name](model, Inputs((x,)))
    with torch.inference_mode():
        return changed, inputs.bind(changed)()


@pytest.mark.parametrize(("size", "values"), [(8, 8), (5, 3), (3, 12)])
def test_padded_attention_without_a_mask_gives_the_same_numbers(size, values):
    query, key = torch.randn(2, 2, 4, 7, size)
    value = torch.randn(2, 4, 7, values)
    expected = functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(fusable_attention(query, key, value), expected)


def test_attention_in_a_model_is_replaced_in_its_calls_only():
    x, before = torch.randn(1, 2, 5, 6), functional.scaled_dot_product_attention
    model = Attention()
    expected = model(x)
    _, output = edited("fused-attention", model, x)
    torch.testing.assert_close(output, expected)
    assert functional.scaled_dot_product_attention is before


def test_a_module_that_is_asked_for_weights_returns_none():
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.MultiheadAttention(8, 2)

        def forward(self, x: torch.Tensor):
            return self.body(x, x, x, None, True)

    x = torch.randn(5, 1, 8)
    model = Asking().eval()
    expected, weights = model(x)
    assert weights is not None
    _, (output, weights) = edited("fused-attention", model, x)
    assert weights is None
    torch.testing.assert_close(output, expected)


def test_attention_that_is_written_out_cannot_be_replaced():
    with pytest.raises(PreparationError, match="cannot be replaced"):
        edited("fused-attention", nn.Linear(4, 4), torch.randn(1, 4))


def test_denormal_weights_and_inputs_become_zero_and_paths_stay():
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    model[0].weight.data.fill_(1e-40)
    x = torch.tensor([[1e-40, 1.0, 2.0, 3.0]])
    found = denormals_of(lambda: model(x), model, CPU)["denormals"]
    assert ("0", 1.0) in [(one.layer, one.share) for one in found]
    changed, output = edited("flush-denormals", model, x)
    assert output.abs().sum() == 0
    assert [path for path, _ in changed.named_parameters()] == ["0.weight"]
    assert denormals_of(lambda: changed(x), nn.Identity(), CPU)["denormals"] == ()


@pytest.mark.parametrize(
    ("dtype", "small", "share"),
    [
        (torch.float32, 1e-40, 0.5),
        (torch.bfloat16, 1e-39, 0.5),
        (torch.float64, 1e-310, 0.5),
        (torch.float32, 1e-37, 0.0),
        (torch.float16, 1e-6, 0.0),  # computed in float32, where it is a normal number
        (torch.float32, 0.0, 0.0),
    ],
)
def test_the_share_of_denormals(dtype, small, share):
    assert denormal_share(torch.tensor([small, 1.0, -small, -2.0], dtype=dtype)) == share
    assert denormal_share(torch.tensor([])) == 0.0


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, old_weight_norm, spectral_norm])
def test_weights_that_are_computed_once_give_the_same_numbers(norm):
    model, x = nn.Sequential(norm(nn.Linear(6, 5)), nn.ReLU()).eval(), torch.randn(3, 6)
    expected = model(x)
    changed, output = edited("weights-computed-once", model, x)
    torch.testing.assert_close(output, expected)
    assert [name for name, _ in changed.named_parameters()] == ["0.bias", "0.weight"]
    assert not changed[0]._forward_pre_hooks


def test_a_model_whose_weights_are_not_computed_has_nothing_to_compute_once():
    with pytest.raises(PreparationError, match="no layer has weights"):
        EDITS["weights-computed-once"](nn.Linear(2, 2), Inputs((torch.ones(2),)))
