"""`tune` on a real GPU, where builds go on beside what is measured."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.results.tuning import INACCURATE

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.uncounted]

# On a host whose other GPU was busy, nothing was built within a budget of 45 s.
BUDGET_S = 60.0


class Overflowing(nn.Module):
    """Activations reach 1e5 between two layers, beyond float16."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(512, 512), nn.Linear(512, 512)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(x) * 3e5) * 1e-5


def test_a_model_that_overflows_in_float16_is_tuned_in_another_dtype():
    torch.manual_seed(0)
    model, given, fresh = Overflowing().eval(), torch.randn(512, 512), torch.randn(512, 512)
    found = pb.tune(model, given, budget_s=BUDGET_S, device="cuda", journal=None)
    trials = {trial.spec: trial for trial in found.trials}
    assert trials["half"].outcome == INACCURATE
    assert "elements are infinite or NaN" in trials["half"].reason
    assert "float16" not in found.spec.replace("bfloat16", "")
    assert found.speedup.low > 1
    assert found.data.elapsed_s <= 1.1 * BUDGET_S
    assert any(spec.startswith("compile") and trial.build_s for spec, trial in trials.items())
    with found.prepare(model, given, device="cuda") as fast:
        own = fast(fresh.cuda()).double().cpu()
    with torch.inference_mode():
        expected = model.double()(fresh.double())
    assert float((own - expected).norm() / expected.norm()) <= 1e-2


def test_layers_are_compared_in_time_where_half_breaks_the_bound():
    """It took more than 20 s while all threads of a worker were pinned to two cores."""
    resnet50 = pytest.importorskip("torchvision").models.resnet50
    torch.manual_seed(0)
    model, given = resnet50().eval(), torch.randn(64, 3, 224, 224)
    found = pb.tune(
        model, given, max_error=3e-4, include=["eager", "half", "compile"], budget_s=BUDGET_S,
        device="cuda", journal=None,
    )  # fmt: skip
    trials = {trial.spec: trial for trial in found.trials}
    assert trials["half"].outcome == INACCURATE
    assert not [note for note in found.data.notes if "could not be compared" in note]
    assert found.error.high <= 3e-4
    assert found.data.elapsed_s <= 1.1 * BUDGET_S
