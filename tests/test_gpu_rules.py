"""Transfers, and a loop that does not wait, on a real GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.probes import timing, transfers
from precisionbench.rules.wall_clock import Loop
from precisionbench.torchtools.timer import CudaEventClock, HostClock, Timer

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda", 0)


@pytest.fixture
def clock() -> Iterator[CudaEventClock]:
    clock = CudaEventClock(DEVICE)
    with clock.active(), torch.inference_mode():
        yield clock


def test_a_copy_has_the_bandwidth_of_the_bus(clock):
    sent = torch.rand(64 << 20, device=DEVICE)  # 256 MiB
    for copied in (transfers.to_device, transfers.to_host):
        rate = sent.numel() * 4 / median(copied(clock, [sent]))
        assert 1e9 < rate < 1e12


def test_a_larger_copy_takes_longer(clock):
    small, large = (torch.rand(n << 20) for n in (1, 16))
    times = [median(transfers.to_device(clock, [tensor])) for tensor in (small, large)]
    assert 4 < times[1] / times[0] < 64


def test_without_tensors_transfers_are_unmeasurable(clock):
    with pytest.raises(timing.UnmeasurableError, match="no tensor"):
        transfers.to_host(clock, [])


def test_a_comparison_measures_and_reports_transfers():
    model = nn.Sequential(nn.Conv2d(3, 64, 7), nn.ReLU())
    found = pb.compare(
        model,
        torch.rand(16, 3, 224, 224),
        backends=["half"],
        device="cuda",
        budget_s=20,
        replicas=1,
    )
    row = found["half"]
    assert row.passes.to_device_s
    assert row.passes.to_host_s
    stated = {(s.rule, s.figure): s for s in found.under_rules("half")}
    latency = stated["trtexec", "latency, median"]
    assert latency.value is not None
    assert latency.value > stated["trtexec", "GPU compute time, median"].value


def test_single_stream_is_stated_at_batch_1():
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU())
    found = pb.compare(
        model, torch.rand(1, 256), backends=["half"], device="cuda", budget_s=20, replicas=1
    )
    stated = {s.rule: s for s in found.under_rules("half")}
    assert stated["MLPerf SingleStream"].value is not None, stated["MLPerf SingleStream"].missing


@pytest.mark.parametrize("kernels", [100, 300])
def test_the_range_contains_what_an_unsynchronised_loop_measures(clock, kernels):
    x = torch.rand(16 << 20, device=DEVICE)

    def call() -> None:
        for _ in range(kernels):
            x.mul_(1.0)

    calls = 30
    call()
    device_s = median(Timer(clock).block(call, 10, settle_calls=2))
    enqueue_s = median(timing.enqueue_and_wall(HostClock(DEVICE), call, 3)[0])
    read_s = []
    for _ in range(5):
        clock.wait()
        begun_s = time.perf_counter()
        for _ in range(calls):
            call()
        read_s.append(time.perf_counter() - begun_s)
        clock.wait()
    loop = Loop(calls, device_s, enqueue_s, kernels)
    print(
        f"{kernels} kernels: {loop.shortest_s:.4f} <= {median(read_s):.4f} <= {loop.longest_s:.4f}"
    )
    assert 0.97 * loop.shortest_s < median(read_s) < 1.03 * loop.longest_s
