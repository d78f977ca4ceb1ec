"""Autocast: each weight is cast once, and no other row notices."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from precisionbench.backends.autocast import caches_in_inference_mode
from precisionbench.backends.discovery import make
from precisionbench.errors import PreparationError
from precisionbench.measure.worker.local import InlineLauncher
from precisionbench.model.workload import Workload, resolve
from precisionbench.torchtools.global_state import Functions, read_flags

CACHED = "autocast:dtype=bfloat16"


CASTS = (torch.ops.aten._to_copy.default, torch.ops.aten.to.dtype)  # the latter in inference mode


class WeightCasts(TorchDispatchMode):
    """Counts casts of some tensors."""

    def __init__(self, weights: list[torch.Tensor]) -> None:
        super().__init__()
        self.ids, self.count = set(map(id, weights)), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in CASTS:
            self.count += id(args[0]) in self.ids
        return function(*args, **(kwargs or {}))


@pytest.fixture
def workload(cnn, images) -> Workload:
    return resolve(cnn, images, device="cpu", seed=0)


def opened(workload: Workload, spec: str):
    return InlineLauncher.on_device_of(workload).open(make(spec))


@pytest.mark.parametrize(
    ("spec", "casts"),
    [
        (CACHED, 0),
        ("autocast:dtype=float16", 0),
        ("autocast:dtype=bfloat16,cache_enabled=false", 4),
        (
            "autocast:dtype=bfloat16,grad_mode=inference_mode",
            0 if caches_in_inference_mode() else 4,
        ),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_weights_are_cast_in_the_first_call_only_unless_something_forbids_it(
    cnn, workload, spec, casts, frozen
):
    """Two weights and two biases; a model that was frozen (requires_grad=False) is no other."""
    cnn.requires_grad_(not frozen)
    with opened(workload, spec) as session:
        with WeightCasts(list(session.module.parameters())) as mode:
            session.call()
        assert mode.count == casts
        assert session.opening.details == {"weights_cached": casts == 0}
    assert all(p.requires_grad is not frozen for p in cnn.parameters())


def test_a_user_who_enters_autocast_for_each_call_casts_every_weight(cnn, images):
    """What `cache_enabled=false` stands for."""
    mode = WeightCasts(list(cnn.parameters()))
    for expected in (4, 8):
        with torch.no_grad(), mode, torch.autocast("cpu", torch.bfloat16):
            cnn(images)
        assert mode.count == expected


def test_inference_mode_warns_where_it_caches_no_weights(workload):
    with opened(workload, "autocast:dtype=bfloat16,grad_mode=inference_mode") as session:
        pass
    warnings = session.closing().warnings
    named = ["every call; leave grad_mode out" in warning for warning in warnings]
    assert named == ([] if caches_in_inference_mode() else [True])


def test_output_equals_that_of_torch_autocast(cnn, images, workload):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = cnn.eval()(images)
    with opened(workload, CACHED) as session:
        (output,) = session.output.values()
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, expected)


def test_the_next_row_is_not_affected_by_autocast(cnn, images, workload):
    flags, functions = read_flags(), Functions.now()
    with opened(workload, CACHED):
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")
    assert torch.autocast_increment_nesting() == 1
    assert torch.autocast_decrement_nesting() == 0
    assert read_flags() == flags
    assert functions.changes() == []
    with opened(workload, "eager") as session, torch.inference_mode():
        assert torch.equal(session.output[""], cnn.eval()(images))


def test_a_callers_own_autocast_is_on_again_afterwards(workload):
    with torch.autocast("cpu", torch.float16):
        with opened(workload, CACHED):
            assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.float16


def test_float64_reference_is_computed_without_autocast(workload, tmp_path):
    found = []
    for spec in ("eager", CACHED):
        with opened(workload, spec) as session:
            session.write_float64_reference(str(tmp_path / "truth.pt"))
        found.append(torch.load(tmp_path / "truth.pt", weights_only=False))
    assert found[0].keys() == found[1].keys()
    for path, seen in found[0].items():
        assert torch.equal(seen.values, found[1][path].values)


def test_a_model_in_half_is_cast_to_float32_first(images):
    workload = resolve(nn.Linear(16, 4).half(), images.half(), device="cpu", seed=0)
    with opened(workload, CACHED) as session:
        assert session.module.weight.dtype == torch.float32


def test_a_dtype_that_torch_cannot_autocast_to_fails_the_row(workload, monkeypatch):
    """Torch only warns then, and computes in float32."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    with pytest.raises(PreparationError, match="no autocast to bfloat16 on cpu"):
        opened(workload, CACHED).__enter__()
