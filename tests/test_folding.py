"""The option `fold_batch_norm`: fewer layers, the same output."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.backends.batch_norm_folding import folded
from precisionbench.backends.discovery import make
from precisionbench.errors import PreparationError
from precisionbench.measure.worker.local import InlineLauncher
from precisionbench.model.workload import resolve

FOLDED = "eager:fold_batch_norm=true"


class Nested(nn.Module):
    """Pairs inside of containers, and one batch norm that follows no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3)
        self.body = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)),
        )
        self.head = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6))

    def forward(self, x):
        return self.head(self.body(self.first(x)).mean((2, 3)))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    made = Nested().eval()
    for module in made.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight)
    return made


def seen(model: nn.Module, x: torch.Tensor, spec: str, path: str):
    """Output and evidence of a row."""
    workload = resolve(model, x, device="cpu", seed=0)
    with InlineLauncher.on_device_of(workload).open(make(spec)) as session:
        session.write_float64_reference(path)
        return session.output[""], session.evidence(0.001, path)


@pytest.mark.uncounted
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_a_folded_model_computes_the_same_with_fewer_layers(model, images, tmp_path, memory_format):
    spec = f"{FOLDED},memory_format={memory_format}"
    before, plain = seen(model, images, "eager", str(tmp_path / "truth"))
    after, found = seen(model, images, spec, str(tmp_path / "truth"))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    kinds = [[layer.kind for layer in one.layers] for one in (plain, found)]
    assert kinds[0].count("BatchNorm2d") + kinds[0].count("BatchNorm1d") == 4
    assert kinds[1].count("BatchNorm2d") + kinds[1].count("BatchNorm1d") == 1
    assert not any(isinstance(m, nn.Identity) for m in model.modules())  # the user's own


def test_folded_layers_are_not_compared_with_unfolded_ones(model, images, tmp_path):
    """Their output in float64 is that before the batch norm."""
    _, found = seen(model, images, FOLDED, str(tmp_path / "truth"))
    assert [error.path for error in found.errors] == ["first", "body.0.2", ""]
    assert all(error.relative_l2 < 1e-5 for error in found.errors)


def test_it_is_folded_before_it_is_cast(model, images):
    workload = resolve(model, images, device="cpu", seed=0)
    spec = "half:dtype=bfloat16,fold_batch_norm=true"
    with InlineLauncher.on_device_of(workload).open(make(spec)) as session:
        dtypes = {parameter.dtype for parameter in session.module.parameters()}
    assert dtypes == {torch.bfloat16}


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(x) if x.sum() > 0 else x


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.one, self.two = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.two(self.conv(self.one(self.conv(x))))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(3, 3), "the model has no batch norm to fold; leave fold_batch_norm out"),
        (Branches(), "torch.fx cannot trace it .*; leave fold_batch_norm out, fold them"),
        (Twice(), "cannot be folded into 'conv', because one of them runs more than once"),
        (
            nn.Sequential(nn.BatchNorm2d(3)),
            "no batch norm of the model is the only user of",
        ),
    ],
)
def test_a_model_that_cannot_be_folded_says_why(model, message):
    with pytest.raises(PreparationError, match=message):
        folded(model.eval())


def test_a_row_that_cannot_be_folded_fails_alone(images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    found = pb.compare(
        model, images, backends=["half", FOLDED], device="cpu", launcher="inline", budget_s=0.1
    )
    (failure,) = found.failures
    assert (failure.backend, failure.error) == (FOLDED, "PreparationError")
