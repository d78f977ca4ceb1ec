"""Which peaks a GPU is given, and that a board that is merely alike is given none."""

from __future__ import annotations

import re

import pytest

from precisionbench.devices import RATES, device_of, known
from precisionbench.results import Gpu


def gpu(name: str, capability: str, multiprocessors: int, gib: float = 80) -> Gpu:
    return Gpu(name, capability, int(gib * 2**30), multiprocessors)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (gpu("NVIDIA H200", "9.0", 132, 139.8), "h200-sxm"),
        (gpu("NVIDIA H100 80GB HBM3", "9.0", 132, 79.1), "h100-sxm"),
        (gpu("NVIDIA H100 PCIe", "9.0", 114, 79.1), "h100-pcie"),
        (gpu("NVIDIA A100-SXM4-40GB", "8.0", 108, 39.4), "a100-sxm4-40gb"),
        (gpu("NVIDIA L4", "8.9", 58, 22), "l4"),
        (gpu("NVIDIA L40S", "8.9", 142, 44), "l40s"),
        (gpu("Tesla T4", "7.5", 40, 14.6), "t4"),
        (gpu("Xavier", "7.2", 8, 31), "jetson-agx-xavier"),
        (gpu("Xavier", "7.2", 6, 7.6), "jetson-xavier-nx"),
        (gpu("Orin", "8.7", 16, 61), "jetson-agx-orin-64gb"),
    ],
)
def test_a_gpu_is_found_by_its_drivers_name(seen, expected):
    found = device_of(seen)
    assert found is not None
    assert found.id == expected


@pytest.mark.parametrize(
    "seen",
    [
        gpu("NVIDIA GeForce RTX 4090", "8.9", 128, 24),
        gpu("NVIDIA H100 80GB HBM3", "9.0", 114, 79.1),  # part of a board
        gpu("NVIDIA H200 NVL", "9.0", 132, 139.8),  # another board of nearly the same name
        gpu("Orin", "8.7", 8, 7.4),  # a Nano in one of two power modes
    ],
)
def test_a_gpu_that_is_unknown_or_could_be_several_has_no_peaks(seen):
    assert device_of(seen) is None


@pytest.mark.parametrize("device", known(), ids=lambda device: device.id)
def test_every_device_has_sensible_peaks_with_sources(device):
    assert re.compile(device.pattern)
    assert set(device.peaks) <= set(RATES)
    assert {"fp32", "bandwidth"} <= set(device.peaks)
    for peak in device.peaks.values():
        assert peak.source or peak.status == "unverified"
    order = [device.peaks[rate].value for rate in ("fp32", "tf32", "fp16") if rate in device.peaks]
    assert order == sorted(order)


def test_identities_are_unique():
    assert len({device.id for device in known()}) == len(known())
