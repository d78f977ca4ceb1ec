"""Values out of range are found where they begin, also within a layer whose output is finite."""

from __future__ import annotations

import attrs
import pytest
import torch
from torch import nn

from made_up_results import CLEAN, comparison, conv, evidence, findings
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.model.workload import resolve
from precisionbench.probes.float64_reference import layer_errors, layer_outputs_in_float64
from precisionbench.probes.overflow import overflows_of
from precisionbench.probes.profiler import layers_of
from precisionbench.results.evidence import Evidence, LayerError, Overflow


class Function(nn.Module):
    """A module whose forward is this function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def observed(model: nn.Module, x: torch.Tensor, dtype=torch.float16) -> Evidence:
    """The evidence of the model in 16 bits, on a CPU."""
    expected = layer_outputs_in_float64(resolve(model, x, device="cpu", seed=0))
    half, given = model.to(dtype), x.to(dtype)
    errors = layer_errors(lambda: half(given), half, len(x), expected)
    found = evidence(
        conv(1e-4, str(dtype).removeprefix("torch.")),
        errors=errors,
        layers=layers_of(lambda: half(given), half)["layers"],
    )
    overflows = overflows_of(lambda: half(given), half, found)
    return attrs.evolve(found, overflows=overflows)


def found_in(function, x: torch.Tensor, head: nn.Module | None = None):
    model = nn.Sequential(nn.Identity(), Function(function), head or nn.Identity())
    return findings(comparison(CLEAN["base"], observed(model, x)), "overflow")


def norm(x):
    centred = x - x.mean(1, keepdim=True)
    return centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + 1e-6)


def squared_in_place(x):
    return 1 / (1 + x.clone().mul_(x).sqrt())


def without_infinities(x):
    return torch.nan_to_num(x * x) / 1e4


def chosen(x):
    square = x * x
    return torch.where(square.isinf(), torch.zeros_like(x), square / 1e3)


def exponential(x):
    return x.exp().log()


SMALL = torch.linspace(-3, 4, 64).reshape(8, 8)
LARGE = torch.linspace(-900, 1000, 64).reshape(8, 8)
WIDE = LARGE.T.contiguous()  # each row has small and large values
HARMFUL = {
    "norm": (norm, WIDE, "pow"),
    "in place": (squared_in_place, WIDE, "mul"),
    "nan_to_num": (without_infinities, WIDE, "mul"),
    "where": (chosen, WIDE, "mul"),
    "logarithm of an exponential": (exponential, torch.linspace(0, 20, 64).reshape(8, 8), "exp"),
    "in one item of the batch": (norm, torch.cat([SMALL[1:], WIDE[:1]]), "pow"),
}


@pytest.mark.parametrize(("function", "x", "operation"), HARMFUL.values(), ids=HARMFUL)
def test_an_overflow_within_a_layer_of_finite_output_is_located(function, x, operation):
    (finding,) = found_in(function, x)
    assert finding.evidence[0].value > 0
    assert finding.reason.startswith("first in 1, operation ")
    assert finding.reason.split()[4].rstrip(",") in operation
    assert finding.remedy.startswith("use bfloat16, which has float32's range")


def masked_attention(low):
    def attention(x):
        scores = -(x.abs() @ x.abs().T)
        mask = torch.full_like(scores, low or torch.finfo(scores.dtype).min).triu(1)
        return torch.softmax(scores + mask, -1) @ x

    return attention


HARMLESS = {
    "mask of -inf": (masked_attention(float("-inf")), SMALL),
    "mask of the smallest number plus a score": (masked_attention(None), 10 * SMALL),
    "large and finite": (lambda x: x * 60, LARGE),
    "tanh": (lambda x: torch.tanh(x * x / 10), LARGE.abs() + 300),
    "sigmoid by hand": (lambda x: 1 / (1 + torch.exp(-x)), LARGE / 10),
    "a branch that is not taken": (
        lambda x: torch.where(x > 10, x, torch.log1p(torch.exp(x))),
        LARGE / 10,
    ),
    "a clamp at a number that both reach": (lambda x: (x * x).clamp(max=100), LARGE + 0.5),
    "logarithm of a mask": (lambda x: torch.softmax((x > 0).to(x.dtype).log(), 1), SMALL),
    "memory that is not initialised": (lambda x: torch.empty_like(x).zero_() + x, SMALL),
}


@pytest.mark.parametrize(("function", "x"), HARMLESS.values(), ids=HARMLESS)
def test_infinity_that_changes_no_output_is_no_finding(function, x):
    assert not found_in(function, x)


def test_an_infinite_output_is_traced_to_the_operation():
    (finding,) = found_in(lambda x: (x * x).sum(1), LARGE, head=nn.Softmax(0))
    assert finding.reason.startswith("first in 1, operation mul, in float16")


def test_a_cast_of_autocast_that_overflows_is_located():
    class Scaled(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 1e-4

    model, x = nn.Sequential(Scaled(8, 8)), torch.full((4, 8), 1e5)
    seen = evidence(errors=(LayerError("", 1.0, 1.0, 0, 1e5),))
    with torch.autocast("cpu", torch.float16):
        (found,) = overflows_of(lambda: model(x), model, seen)[:1]
    assert (found.layer, found.operation, found.dtype) == ("0", "_to_copy", "float16")


def test_rows_without_float16_and_with_small_errors_are_not_called_again():
    def never():
        raise AssertionError

    fine = evidence(errors=(LayerError("", 1e-7, 1.0, 0, 1.0),))
    assert overflows_of(never, nn.Linear(1, 1), fine) == ()


def test_the_verdict_on_the_output_names_the_operation_and_keeps_that_layer():
    model = nn.Sequential(nn.Identity(), Function(norm), nn.Linear(8, 4))
    found = diagnosis_of(comparison(CLEAN["base"], observed(model, WIDE)))
    (precision,) = (one for one in found.precisions if one.row == "half")
    assert (precision.verdict, precision.layer, precision.keep) == ("inaccurate", "1", ("1",))
    assert precision.reason.endswith("values overflow in 1 (pow)")


@pytest.mark.parametrize(
    ("largest", "dtype", "remedy"),
    [
        (1e3, "float16", "use bfloat16, which has float32's range, or keep a in float32"),
        (1e6, "float16", "use bfloat16, which has float32's range"),  # its output is cast back
        (1e39, "bfloat16", "scale the values down: they are beyond the range of bfloat16"),
    ],
)
def test_the_remedy_fits_the_dtype_and_the_layers_output(largest, dtype, remedy):
    errors = (LayerError("a", None, 6e4, 3, largest), LayerError("", None, 6e4, 3, largest))
    seen = evidence(conv(1e-4, dtype), errors=errors, overflows=(Overflow("a", "mul", dtype, 3),))
    (finding,) = findings(comparison(CLEAN["base"], seen), "overflow")
    assert finding.remedy.partition(" (half")[0] == remedy


def test_the_operation_is_one_of_the_first_layer_whose_output_is_infinite():
    overflows = (Overflow("mask", "add", "float16", 9), Overflow("b.norm", "pow", "float16", 3))
    errors = (LayerError("mask", 1e-4, 1.0, 0, 1.0), LayerError("b", None, 1.0, 3, 10.0))
    seen = evidence(conv(1e-4, "float16"), errors=errors, overflows=overflows)
    (finding,) = findings(comparison(CLEAN["base"], seen), "overflow")
    assert finding.reason.startswith("first in b.norm, operation pow")


def test_a_row_in_bfloat16_is_not_told_to_use_bfloat16():
    errors = (LayerError("a", None, 1e6, 3, 1e6),)
    row = {"options": {"dtype": "bfloat16"}}
    seen = evidence(conv(1e-4, "bfloat16"), errors=errors)
    (finding,) = findings(comparison(CLEAN["base"], seen, half_row=row), "overflow")
    assert finding.remedy.startswith("check that layer: its values fit into bfloat16")
