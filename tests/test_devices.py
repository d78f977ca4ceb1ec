"""Which peaks a GPU is given, and that a board that is merely alike is given none."""

from __future__ import annotations

import re

import pytest

from precisionbench.reference_data.peaks import RATES, all_devices, device_of, devices_named
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
        (gpu("NVIDIA GeForce RTX 4090", "8.9", 128, 24), "rtx-4090"),
        (gpu("NVIDIA GeForce RTX 5090", "12.0", 170, 32), "rtx-5090"),
        (gpu("NVIDIA GeForce RTX 3090", "8.6", 82, 24), "rtx-3090"),
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
        gpu("NVIDIA GeForce RTX 4080", "8.9", 76, 16),
        gpu("NVIDIA H100 80GB HBM3", "9.0", 114, 79.1),  # part of a board
        gpu("NVIDIA H200 NVL", "9.0", 132, 139.8),  # another board of nearly the same name
        gpu("Orin", "8.7", 8, 7.4),  # a Nano in one of two power modes
    ],
)
def test_an_unknown_or_ambiguous_gpu_has_no_peaks(seen):
    assert device_of(seen) is None


@pytest.mark.parametrize("device", all_devices(), ids=lambda device: device.id)
def test_every_device_has_plausible_peaks_with_sources(device):
    assert re.compile(device.pattern)
    assert set(device.peaks) <= set(RATES)
    assert {"fp32", "bandwidth"} <= set(device.peaks)
    for peak in device.peaks.values():
        assert peak.source or peak.status == "unverified"
    order = [device.peaks[rate].value for rate in ("fp32", "tf32", "fp16") if rate in device.peaks]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("agx xavier", {"jetson-agx-xavier"}),
        ("Jetson AGX Xavier (MAXN)", {"jetson-agx-xavier"}),
        ("xavier-nx", {"jetson-xavier-nx"}),
        ("Xavier", {"jetson-agx-xavier", "jetson-xavier-nx"}),  # the driver's name of both
        ("nano", {"jetson-nano"}),
        ("Orin Nano", {"jetson-orin-nano-8gb", "jetson-orin-nano-super"}),
        ("NVIDIA A100-SXM4-80GB", {"a100-sxm4-80gb"}),
        ("a100 pcie", {"a100-pcie-40gb", "a100-pcie-80gb"}),
        ("V100", {"v100-sxm2", "v100-pcie"}),
        ("Tesla T4", {"t4"}),
        ("NVIDIA H100 80GB HBM3", {"h100-sxm"}),
        ("NVIDIA H200", {"h200-sxm"}),
        ("NVIDIA H200 NVL", set()),
        ("GH200 96GB", set()),
        ("", set()),
    ],
)
def test_a_device_is_found_by_any_of_its_names(name, expected):
    assert {device.id for device in devices_named(name)} == expected


def test_a_full_name_matches_one_device_only():
    for device in all_devices():
        assert devices_named(device.id) == devices_named(device.name) == (device,)


@pytest.mark.parametrize("device", all_devices(), ids=lambda device: device.id)
def test_engines_and_clocks_have_plausible_values(device):
    peaks = device.peaks
    assert ("dla_int8" in peaks) == ("dlas" in peaks)
    assert 5e8 < peaks["sm_clock"].value < 3e9
    if "fp8" in peaks:
        assert peaks["fp8"].value == pytest.approx(peaks["int8"].value, rel=1e-3)
    if "int8" in peaks and device.compute_capability != "7.0":  # the V100 has no such tensor cores
        # GeForce boards halve the rate of float16 with a float32 accumulator.
        ratio = 4 if "GeForce" in device.name else 2
        assert peaks["int8"].value == pytest.approx(ratio * peaks["fp16"].value, rel=0.02)


def test_identities_are_unique():
    assert len({device.id for device in all_devices()}) == len(all_devices())
