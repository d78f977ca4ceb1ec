"""Calls of any function on a GPU: CUDA events, calls that wait, other streams, no host waits."""

from __future__ import annotations

import time

import pytest
import torch

import precisionbench as pb
from precisionbench.probes.timing import spin_rate
from precisionbench.torchtools.timer import CudaEventClock

pytestmark = pytest.mark.gpu

BUDGET_S = 3.0


@pytest.fixture(scope="module")
def cycles_per_s() -> float:
    clock = CudaEventClock(torch.device("cuda", 0))
    with clock.active():
        for _ in range(500):  # until the GPU's clock has risen
            torch.cuda._sleep(2_000_000)
        return spin_rate(clock)


def spin(cycles_per_s: float, seconds: float):
    cycles = round(cycles_per_s * seconds)
    return lambda: torch.cuda._sleep(cycles)


@pytest.mark.parametrize("seconds", [50e-6, 1e-3, 10e-3])
def test_asynchronous_work_is_timed_until_it_is_done(cycles_per_s, seconds):
    found = pb.time(spin(cycles_per_s, seconds), budget_s=BUDGET_S)
    assert found.clock == "cuda_events"
    assert found.latency.value == pytest.approx(seconds, rel=0.1, abs=5e-6)
    assert "noise floor" in found.covers


def test_a_call_that_waits_for_the_gpu_is_timed_by_the_host_with_a_warning(cycles_per_s):
    work, x = spin(cycles_per_s, 2e-3), torch.ones(1, device="cuda")

    def waits() -> float:
        work()
        return x.item()

    found = pb.time(waits, budget_s=BUDGET_S)
    assert found.clock == "host"
    assert found.latency.value == pytest.approx(2e-3, rel=0.1)
    assert any("waits for the GPU itself" in text for text in found.warnings)


def test_work_on_another_stream_is_timed_by_the_host_with_a_warning(cycles_per_s):
    work, stream = spin(cycles_per_s, 2e-3), torch.cuda.Stream()

    def elsewhere() -> None:
        with torch.cuda.stream(stream):
            work()

    found = pb.time(elsewhere, budget_s=BUDGET_S)
    assert found.clock == "host"
    assert found.latency.value == pytest.approx(2e-3, rel=0.1)
    assert any("another CUDA stream" in text for text in found.warnings)


def test_a_function_of_the_host_is_timed_right_beside_a_gpu():
    torch.ones(1, device="cuda")
    by_events = pb.time(time.sleep, 0.002, budget_s=BUDGET_S)
    by_host = pb.time(time.sleep, 0.002, device="cpu", budget_s=BUDGET_S)
    assert by_events.p50 == pytest.approx(by_host.p50, rel=0.1)
    assert by_host.clock == "host"


def test_a_speed_up_in_one_process_has_a_verdict_by_the_known_noise_floor(cycles_per_s):
    calls = {"slow": spin(cycles_per_s, 2e-3), "fast": spin(cycles_per_s, 1e-3)}
    found = pb.compare_calls(calls, budget_s=BUDGET_S)
    speedup = found.speedup("fast")
    assert speedup.verdict is pb.Verdict.FASTER
    assert speedup.value == pytest.approx(2, rel=0.1)


def test_the_same_function_twice_is_not_called_different(cycles_per_s):
    work = spin(cycles_per_s, 1e-3)
    speedup = pb.compare_calls({"a": work, "b": work}, budget_s=BUDGET_S).speedup("b")
    assert speedup.verdict not in (pb.Verdict.FASTER, pb.Verdict.SLOWER)


def test_tensors_of_a_function_stay_on_the_gpu_in_worker_processes():
    x = torch.ones(2048, 2048, device="cuda")
    found = pb.compare_calls(
        {"one": lambda: x @ x, "two": lambda: (x @ x) @ x}, replicas=2, budget_s=10
    )
    assert found["one"].measurement.clock == "cuda_events"
    assert 0.4 < found.speedup("two").value < 0.6


def test_a_call_that_fails_leaves_the_gpu_usable():
    x = torch.ones(2, device="cuda")

    def of_other_shapes() -> torch.Tensor:
        return x + torch.ones(3, device="cuda")

    with pytest.raises(pb.errors.ExecutionError, match="of_other_shapes failed"):
        pb.time(of_other_shapes)
    assert pb.time(lambda: x + x, budget_s=1).latency.value < 1e-3


# --- regions and calls of a program ---------------------------------------------------------------


def test_a_region_ends_when_its_work_is_done_and_excludes_earlier_work(cycles_per_s):
    earlier, own = spin(cycles_per_s, 50e-3), spin(cycles_per_s, 5e-3)
    earlier()
    with pb.time() as region:
        own()
    assert region.seconds == pytest.approx(5e-3, rel=0.1)


def test_decorated_calls_are_timed_on_the_gpu_without_waiting_for_it(cycles_per_s):
    work = spin(cycles_per_s, 10e-3)

    @pb.time()
    def step() -> None:
        work()

    torch.cuda.synchronize()
    begun_s = time.perf_counter()
    for _ in range(20):
        step()
    enqueued_s = time.perf_counter() - begun_s
    found = step.times
    assert enqueued_s < 0.1  # the GPU works for 0.2 s
    assert found.clock == "cuda_events"
    assert found.samples == pytest.approx([10e-3] * 19, rel=0.1)


def test_a_decorated_function_of_the_host_is_timed_right_while_the_gpu_is_busy(cycles_per_s):
    busy = spin(cycles_per_s, 0.2)

    @pb.time()
    def on_the_host() -> None:
        time.sleep(0.01)

    busy()
    for _ in range(3):
        on_the_host()
    assert min(on_the_host.times.samples) >= 0.01


def test_a_decorated_function_that_is_the_first_to_use_the_gpu_keeps_all_its_calls(tmp_path):
    """In a process of its own, because this one uses the GPU already."""
    import subprocess
    import sys

    script = tmp_path / "first.py"
    script.write_text(
        "import torch\nimport precisionbench as pb\n"
        "@pb.time()\ndef f():\n    return torch.ones(8, device='cuda')\n"
        "for _ in range(5):\n    f()\n"
        "print(f.times.clock, len(f.times.samples), f.times.first_call_s > f.times.p50)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["cuda_events", "4", "True"], done.stderr
