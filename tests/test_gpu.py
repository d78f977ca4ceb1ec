"""What only a GPU can show: CUDA events, TF32, memory, and that nothing else is in a block."""

from __future__ import annotations

from contextlib import contextmanager
from typing import ClassVar

import attrs
import numpy as np
import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.backends import Backend
from precisionbench.errors import ExecutionError, WorkloadError
from precisionbench.torchtools.global_state import Functions, read_flags
from precisionbench.torchtools.timer import CudaEventClock, Timer

pytestmark = pytest.mark.gpu


@pytest.fixture
def timer() -> Timer:
    return Timer(CudaEventClock(torch.device("cuda", 0)))


def matmul(size: int = 2048, depth: int = 1) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layers = [nn.Linear(size, size, bias=False) for _ in range(depth)]
    return nn.Sequential(*layers).cuda(), torch.rand(size, size, device="cuda")


def test_a_gpu_is_timed_with_cuda_events_and_described():
    model, x = matmul()
    comparison = pb.compare(model, x, backends=["half"], budget_s=20, replicas=1)
    assert comparison["half"].measurement.clock == "cuda_events"
    gpu = comparison.data.environment.gpu
    assert gpu is not None
    assert gpu.name == torch.cuda.get_device_name()
    assert gpu.driver is not None


def test_half_is_faster_than_fp32_on_a_large_matmul():
    model, x = matmul(4096)
    found = pb.compare(model, x, backends=["half"], budget_s=20, launcher="inline")
    assert found.speedup("half").low > 1.5


def test_fp32_is_ieee_and_tf32_is_not():
    model, x = matmul()
    comparison = pb.compare(
        model,
        x,
        backends=["eager", "eager", "eager:precision=tf32"],
        budget_s=20,
        launcher="inline",
    )
    assert comparison["eager#2"].agreement.relative_l2 < 1e-6
    if "eager:precision=tf32" not in comparison:
        pytest.skip("this GPU has no TF32")
    assert 1e-5 < comparison["eager:precision=tf32"].agreement.relative_l2 < 2e-3
    assert comparison["eager:precision=tf32"].flags["cuda.matmul.allow_tf32"] is True
    assert comparison["eager"].flags["cuda.matmul.allow_tf32"] is False


@attrs.frozen
class Exact(Backend):
    """float64, beside which float32 and TF32 can be told apart."""

    name: ClassVar[str] = "exact"

    @contextmanager
    def prepare(self, model, inputs):
        yield inputs.to(torch.float64).bind(model.double())


TF32 = ["eager", "eager:precision=tf32"]


def test_fp32_convolutions_are_ieee_whatever_the_user_had_set():
    conv, x = nn.Conv2d(64, 64, 3).cuda(), torch.rand(16, 64, 56, 56, device="cuda")
    torch.backends.cudnn.allow_tf32 = True
    comparison = pb.compare(
        conv, x, backends=[Exact(), *TF32], reference=Exact(), budget_s=20, launcher="inline"
    )
    assert torch.backends.cudnn.allow_tf32 is True
    assert comparison["eager"].flags["cudnn.allow_tf32"] is False
    assert comparison["eager"].agreement.relative_l2 < 1e-6
    if TF32[1] in comparison:
        assert comparison[TF32[1]].agreement.relative_l2 > 1e-5


def test_torchs_global_state_is_restored():
    model, x = matmul(512)
    torch.cuda.manual_seed(7)
    rng, flags, functions = torch.cuda.get_rng_state(), read_flags(), Functions.now()
    pb.compare(model, x, backends=["half", "eager:precision=tf32"], budget_s=20, replicas=1)
    assert torch.equal(rng, torch.cuda.get_rng_state())
    assert read_flags() == flags
    assert functions.changes() == []


def test_inputs_on_the_cpu_are_refused_for_a_model_on_the_gpu():
    model, x = matmul(64)
    with pytest.raises(WorkloadError, match="is on cpu but the model is on cuda:0"):
        pb.compare(model, x.cpu())
    comparison = pb.compare(
        model, x.cpu(), backends=["eager"], device="cuda", budget_s=20, launcher="inline"
    )
    assert comparison.data.environment.device == "cuda:0"


class Masked(nn.Module):
    """Keeps a tensor on the GPU that is neither a parameter nor a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = torch.ones(8, device="cuda")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask


def test_plain_tensor_attributes_are_on_the_gpu_in_workers_too():
    found = pb.compare(
        Masked(), torch.rand(2, 8, device="cuda"), backends=["eager"], budget_s=20, replicas=1
    )
    assert found["eager"].latency.value > 0


class TakesMemory(nn.Module):
    """Needs an eighth of the GPU's memory for each item."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.cuda.get_device_properties(x.device).total_memory
        torch.empty(len(x), total // 8, dtype=torch.uint8, device=x.device)
        return x


def test_the_error_for_a_batch_that_does_not_fit_names_one_that_does():
    with pytest.raises(ExecutionError, match="batch 16: it does not fit .*; batch 4 fits"):
        pb.compare(TakesMemory(), torch.rand(16, 3, device="cuda"), backends=["eager"], budget_s=20)


def test_measured_times_of_spins_are_proportional_to_their_lengths(timer: Timer):
    cycles = [200_000 * step for step in range(1, 9)]
    with timer.clock.active():
        medians = [np.median(timer.block(lambda n=n: torch.cuda._sleep(n), 9)) for n in cycles]
    correlation = np.corrcoef(cycles, medians)[0, 1]
    assert correlation**2 > 0.999


class WatchedClock(CudaEventClock):
    """Knows when a block is between its first mark and its last."""

    inside = False

    def marks(self, count):
        marks, read = super().marks(count)
        first, last = marks[0], marks[-1]

        def begin() -> None:
            first()
            torch.cuda.set_sync_debug_mode("error")  # torch's own check of hidden waits
            self.inside = True

        def finish() -> None:
            self.inside = False
            torch.cuda.set_sync_debug_mode("default")
            last()

        return [begin, *marks[1:-1], finish], read


@pytest.fixture
def sync_debug_mode_reset():
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_a_block_runs_only_marks_and_calls(monkeypatch, sync_debug_mode_reset):
    """No synchronisation, no event made, no memory taken from the device, nothing compiled."""
    clock, seen = WatchedClock(torch.device("cuda", 0)), []

    def watch(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def watched(*args, **kwargs):
            seen.append((name, clock.inside))
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    watch(torch.cuda, "synchronize")
    watch(torch.cuda.Stream, "synchronize")
    watch(torch.cuda.Event, "elapsed_time")
    watch(torch.cuda, "Event")
    model, x = matmul(1024, depth=3)
    with clock.active(), torch.inference_mode():
        Timer(clock).block(lambda: model(x), 50)
        before = torch.cuda.memory_stats()["num_device_alloc"]
        assert len(Timer(clock).block(lambda: model(x), 50)) == 50
    assert {name for name, _ in seen} == {"Event", "synchronize", "elapsed_time"}
    assert not [name for name, inside in seen if inside]
    assert torch.cuda.memory_stats()["num_device_alloc"] == before
    assert not torch._dynamo.utils.counters["frames"]


def test_a_lost_device_ends_the_run_but_keeps_its_message():
    """An illegal address poisons the process, so this runs in one of its own."""
    import subprocess
    import sys

    script = """
import torch, precisionbench as pb
class Illegal(torch.nn.Module):
    def forward(self, x):
        if x.dtype == torch.float16:
            index = torch.full((1,), 1 << 40, device=x.device)
            return torch.gather(x.flatten(), 0, index)
        return x * 1
backends = ["eager", "half", "half:dtype=bfloat16"]
x = torch.rand(8, 8, device="cuda")
c = pb.compare(Illegal(), x, backends=backends, launcher="inline", budget_s=20)
print([r.backend for r in c.results], [(f.backend, f.error) for f in c.failures])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=180
    )
    expected = "['eager'] [('half', 'DeviceError'), ('half:dtype=bfloat16', 'DeviceError')]"
    assert expected in done.stdout, done.stderr


def test_a_mixture_of_old_and_new_precision_settings_is_accepted():
    """torch refuses to read its old switches after some uses of the new ones."""
    if not isinstance(getattr(torch.backends, "fp32_precision", None), str):
        pytest.skip("this torch has the old switches only")
    model, x = matmul()
    before = torch.backends.cuda.matmul.fp32_precision
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        comparison = pb.compare(
            model, x, backends=["eager:precision=tf32"], budget_s=20, launcher="inline"
        )
        if torch.cuda.get_device_capability() < (8, 0):
            pytest.skip("this GPU has no TF32")
        assert comparison.results[1].agreement.relative_l2 > 1e-5
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
