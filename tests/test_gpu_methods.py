"""That what the Timer reads on a GPU is true: known lengths, planted faults, and other tools."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any, ClassVar

import attrs
import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.backends import Backend
from precisionbench.probes import machine, timing
from precisionbench.probes.event_timing_checks import STREAM_ESCAPE, SYNC_INSIDE, qualify
from precisionbench.probes.run_all import l2_flush
from precisionbench.reference_data.peaks import device_of
from precisionbench.report.disturbances import disturbance_text
from precisionbench.system import nvml
from precisionbench.torchtools.timer import CudaEventClock, HostClock, Timer

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda", 0)


@pytest.fixture
def clock() -> Iterator[CudaEventClock]:
    clock = CudaEventClock(DEVICE)
    with clock.active(), torch.inference_mode():
        yield clock


def gemm(size: int, dtype: torch.dtype = torch.float16) -> Any:
    a = torch.rand(size, size, device=DEVICE).to(dtype)
    out = torch.empty_like(a)
    return lambda: torch.mm(a, a, out=out)


# --- known lengths --------------------------------------------------------------------------------


def host_s(cycles: int, count: int) -> float:
    """Seconds for one of many spins back to back, by the host's clock."""
    torch.cuda.synchronize()
    begun_s = time.perf_counter()
    for _ in range(count):
        torch.cuda._sleep(cycles)
    torch.cuda.synchronize()
    return (time.perf_counter() - begun_s) / count


@pytest.mark.parametrize("length_s", [50e-6, 200e-6, 1e-3, 10e-3])
def test_events_and_the_host_agree_on_the_length_of_a_spin(clock, length_s):
    long = 500_000_000  # cycles, so many that the clock has risen and launching does not matter
    cycles = round(length_s * long / median(host_s(long, 1) for _ in range(3)))
    timer, count = Timer(clock), round(0.1 / length_s)
    calls = timer.calls_per_sample(length_s)
    spin = partial(torch.cuda._sleep, cycles)
    read_s = median(timer.block(spin, 20, calls_per_sample=calls, settle_calls=5))
    expected_s = median(host_s(cycles, count) for _ in range(3))
    print(f"{length_s * 1e6:.0f} us: {read_s * 1e6:.2f} read, {expected_s * 1e6:.2f} expected")
    assert read_s == pytest.approx(expected_s, rel=0.01, abs=2e-6)


def test_a_cold_cache_is_slower_than_a_warm_one(clock):
    """Both behind a kernel that hides the host's time; only one of them empties the cache."""
    x = torch.rand(4 << 20, device=DEVICE)  # 16 MiB, which a large L2 holds
    y = torch.empty_like(x)

    def call() -> None:
        torch.add(x, 1, out=y)

    def spin() -> None:
        torch.cuda._sleep(200_000)

    timer = Timer(clock)
    warm_s = median(timer.block(call, 50, settle_calls=5, flush=spin))
    cold_s = median(timer.block(call, 50, settle_calls=5, flush=l2_flush(DEVICE)))
    assert cold_s > 1.05 * warm_s


# --- planted faults -------------------------------------------------------------------------------


def test_a_call_that_synchronizes_is_labelled(clock):
    x = torch.rand(1024, 1024, device=DEVICE)
    assert SYNC_INSIDE in qualify(clock, lambda: (x @ x).sum().item())


def test_work_on_another_stream_is_labelled(clock):
    other, multiply = torch.cuda.Stream(), gemm(4096)

    def call() -> None:
        with torch.cuda.stream(other):
            multiply()

    assert STREAM_ESCAPE in qualify(clock, call)


def test_a_plain_call_has_no_labels(clock):
    assert qualify(clock, gemm(4096)) == ()


@attrs.frozen
class Elsewhere(Backend):
    """Runs the model on a stream of its own, as an engine may."""

    name: ClassVar[str] = "elsewhere"

    @contextmanager
    def prepare(self, model, inputs):
        stream, call = torch.cuda.Stream(), inputs.bind(model)

        def escaping() -> object:
            with torch.cuda.stream(stream):
                return call()

        yield escaping


def test_a_backend_on_another_stream_is_timed_by_the_host(clock):
    model, x = nn.Linear(4096, 4096).cuda(), torch.rand(4096, 4096, device=DEVICE)
    found = pb.compare(model, x, backends=[Elsewhere()], launcher="inline", budget_s=20)
    row = found["elsewhere"]
    assert row.passes.labels == (STREAM_ESCAPE,)
    assert row.measurement.clock == "host"
    assert row.latency.value == pytest.approx(found["eager"].latency.value, rel=0.2)


class ManySmall(nn.Module):
    """Two hundred tiny kernels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(200):
            x = x + 1
        return x


def inline(model: Any, x: torch.Tensor) -> Any:
    return pb.compare(model.cuda(), x, backends=["eager"], launcher="inline", budget_s=20)["eager"]


def test_many_tiny_kernels_are_bound_by_the_host():
    row = inline(ManySmall(), torch.rand(64, device=DEVICE))
    assert row.launch_bound == "host_bound"
    assert row.enqueue_s > (row.device_s or 0)


def test_one_large_matmul_is_not_bound_by_the_host():
    row = inline(nn.Linear(8192, 8192), torch.rand(8192, 8192, device=DEVICE))
    assert row.launch_bound is None
    assert row.device_s / row.latency.value > 0.95  # the device is busy while it is timed
    assert row.wall_s > 0.98 * row.device_s  # of two passes, between which clocks may change


# --- other tools ----------------------------------------------------------------------------------
#
# What they are compared on moves memory: large matmuls run into the power limit, and then how long
# one takes depends on what ran just before it.


def doubling(mib: int) -> Any:
    """Reads so many MiB and writes as many."""
    x = torch.rand(mib << 18, device=DEVICE)
    out = torch.empty_like(x)
    return lambda: torch.mul(x, 2, out=out)


def ours_s(clock: CudaEventClock, call: Any, cold: bool = False) -> float:
    flush = l2_flush(DEVICE) if cold else None
    return median(Timer(clock).block(call, 60, settle_calls=5, flush=flush))


def ratio(ours: Any, theirs: Any) -> float:
    """The median of five ratios, both taken in turn."""
    found = sorted(ours() / theirs() for _ in range(5))
    print([f"{value:.4f}" for value in found])
    return found[2]


@pytest.mark.parametrize("mib", [512, 2048])
def test_latency_agrees_with_do_bench_on_a_cold_cache(clock, mib):
    testing = pytest.importorskip("triton.testing")
    call = doubling(mib)

    def theirs_s() -> float:
        return float(testing.do_bench(call, rep=200, return_mode="median")) * 1e-3

    ours_s(clock, call)
    assert ratio(lambda: ours_s(clock, call, cold=True), theirs_s) == pytest.approx(1, abs=0.02)


def test_latency_agrees_with_torchs_timer_where_the_device_is_the_bottleneck(clock):
    import torch.utils.benchmark as benchmark

    call = doubling(4096)

    def theirs_s() -> float:
        timer = benchmark.Timer("call()", globals={"call": call})
        return float(timer.blocked_autorange(min_run_time=0.3).median)

    ours_s(clock, call)
    assert ratio(lambda: ours_s(clock, call), theirs_s) == pytest.approx(1, abs=0.02)


def test_a_replay_agrees_with_do_bench_cudagraph(clock):
    testing = pytest.importorskip("triton.testing")
    call = doubling(512)
    call()

    def theirs_s() -> float:
        return float(testing.do_bench_cudagraph(call, rep=100)) * 1e-3

    found = ratio(lambda: median(timing.graph_replay(clock, call, 50)), theirs_s)
    assert found == pytest.approx(1, abs=0.03)


CUDA_BENCH = """
import sys, torch
from cuda import bench
from cuda.bench.results import BenchmarkResult
x = torch.rand(2048 << 18, device="cuda")
out = torch.empty_like(x)
def double(state):
    def launch(launch):
        with torch.cuda.stream(torch.cuda.ExternalStream(launch.get_stream().addressof())):
            torch.mul(x, 2, out=out)
    state.exec(launch, batched=False)
bench.register(double)
bench.run_all_benchmarks(["double", "--devices", "0", "--jsonbin", sys.argv[1], "--timeout", "3"])
(state,) = BenchmarkResult.from_json(sys.argv[1])["double"]
print("median", sorted(state.samples)[len(state.samples) // 2])
"""


def test_latency_agrees_with_cuda_bench(clock, tmp_path):
    pytest.importorskip("cuda.bench")
    command = [sys.executable, "-c", CUDA_BENCH, str(tmp_path / "found.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "median " in done.stdout, done.stdout + done.stderr
    theirs_s = float(done.stdout.rpartition("median ")[2])
    call = doubling(2048)
    ours_s(clock, call)
    found = ratio(lambda: ours_s(clock, call, cold=True), lambda: theirs_s)
    assert found == pytest.approx(1, abs=0.03)


# --- passes and workers ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared() -> pb.Comparison:
    """Two equal rows and a faster one in worker processes of their own."""
    torch.manual_seed(0)
    layers = [m for _ in range(6) for m in (nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())]
    x = torch.rand(64, 64, 56, 56)
    return pb.compare(
        nn.Sequential(*layers), x, backends=["eager", "eager", "half"], device="cuda", budget_s=60
    )


def test_the_same_backend_twice_is_inconclusive(compared):
    assert compared.data.schedule == "rounds"
    assert len({block.replica for block in compared["eager"].measurement.blocks}) == 3
    assert compared.speedup("eager#2").verdict not in (pb.Verdict.FASTER, pb.Verdict.SLOWER)
    assert compared.speedup("half").verdict is pb.Verdict.FASTER
    assert compared["half"].measurement.rounds[3:]


def test_every_pass_has_samples_or_a_reason(compared):
    for row in compared.results:
        passes = row.passes
        assert passes.labels == ()
        assert row.device_s <= 1.02 * row.latency.value
        assert row.enqueue_s < row.latency.value < 1.5 * row.wall_s
        assert row.graph_s == pytest.approx(row.device_s, rel=0.2)
        assert passes.peak_allocated_bytes >= 2 * 64 * 64 * 56 * 56 * 2
        assert passes.driver_bytes is None or passes.driver_bytes > 0
        assert passes.energy_j is not None or "energy" in passes.unknown
    if compared["half"].passes.energy_j and compared["eager"].passes.energy_j:
        assert compared["half"].energy_per_item_j < compared["eager"].energy_per_item_j


def test_the_device_state_is_read_around_every_block(compared):
    states = [block.state for row in compared.results for block in row.measurement.blocks]
    assert all(state is not None for state in states)
    if any(state.sm_clock_hz for state in states):
        assert all(100e6 < state.sm_clock_hz < 5e9 for state in states)


class Greedy(nn.Module):
    """Keeps more than half of the device's memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.cuda.get_device_properties(x.device).total_memory
        torch.empty(int(0.6 * total), dtype=torch.uint8, device=x.device)
        return x * 2


@pytest.mark.slow
def test_rows_that_do_not_fit_together_are_restarted_in_every_round():
    found = pb.compare(
        Greedy(), torch.rand(8, 8), backends=["half"], device="cuda", budget_s=20, replicas=1
    )
    assert found.data.schedule == "restarts"
    assert len(found.results) == 2
    assert any("started anew in every round" in note for note in found.data.notes)


@pytest.mark.slow
def test_another_process_on_the_same_gpu_is_named():
    script = "import torch; torch.zeros(1, device='cuda'); print('here', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline()
        with nvml.opened(DEVICE) as found:
            listed = nvml.processes(*found) if found else {}
        if not listed:
            pytest.skip("the driver does not list processes here")
        x = torch.rand(64, 64, device=DEVICE)
        compared = pb.compare(
            nn.Linear(64, 64).cuda(), x, backends=["eager"], budget_s=20, replicas=1
        )
        assert "other processes used this GPU" in disturbance_text(compared.data)
    finally:
        other.kill()
        other.wait()
        other.stdin.close()
        other.stdout.close()


# --- the machine ----------------------------------------------------------------------------------


def test_the_doctors_readings_are_those_of_this_gpu():
    found = pb.examine(quick=True)
    rates = found.readings.rates
    assert set(rates) | set(found.readings.unknown) == {"fp32", "tf32", "fp16", "bf16", "bandwidth"}
    gpu = found.readings.environment.gpu
    device = device_of(gpu)
    for rate, value in rates.items():
        if device and rate in device.peaks:
            assert 0.3 < value / device.peaks[rate].value < 1.05, rate
    if "tf32" in rates:
        assert rates["fp32"] < 0.8 * rates["tf32"]  # so that FP32 is none of it
    assert found.readings.clock == "cuda_events"
    assert 1e-9 < found.readings.clock_step_s < 2e-6
    assert 1e-6 < found.readings.launch_s < 100e-6


def test_the_host_does_not_wait_for_a_launch(clock):
    _, wall_s = timing.enqueue_and_wall(HostClock(DEVICE), lambda: torch.cuda._sleep(200_000), 5)
    assert machine.launch_s(DEVICE) < median(wall_s)
