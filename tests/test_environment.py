"""What is recorded of a machine, and what it does not tell."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch

from precisionbench.system import environment, nvml


@pytest.mark.parametrize(
    ("number", "text"), [(91900, "9.19.0"), (90100, "9.1.0"), (8902, "8.9.2"), (8005, "8.0.5")]
)
def test_cudnn_numbers_of_both_ways_of_counting(monkeypatch, number, text):
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: number)
    assert environment._cudnn() == text


def test_without_nvml_no_driver_fields_are_recorded(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert environment._from_driver(torch.device("cuda")) == {}


class Driver(types.ModuleType):
    """pynvml as far as an environment asks it; test_gpu.py asks the real one."""

    NVML_CLOCK_SM = 1
    closed = False

    def nvmlInit(self) -> None:
        pass

    def nvmlShutdown(self) -> None:
        self.closed = True

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes) -> str:
        return {b"GPU-7": "handle"}[uuid]

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:
        return 700_000

    def nvmlDeviceGetMaxClockInfo(self, handle: str, clock: int) -> int:
        raise RuntimeError("Not Supported")

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"


@pytest.fixture
def driver(monkeypatch) -> Driver:
    """A machine with one GPU, of which the driver tells all but its highest clock."""
    driver = Driver("pynvml")
    properties = types.SimpleNamespace(
        name="NVIDIA Test",
        major=9,
        minor=0,
        total_memory=1 << 30,
        multi_processor_count=132,
        uuid=7,
    )
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    return driver


def test_a_gpu_is_described_by_torch_and_by_its_driver(driver):
    found = environment._gpu(torch.device("cuda", 0))
    assert (found.name, found.compute_capability, found.uuid) == ("NVIDIA Test", "9.0", "7")
    assert (found.driver, found.power_limit_w, found.max_sm_clock_hz) == ("580.1", 700.0, None)
    assert driver.closed


def test_a_gpu_unknown_to_nvml_is_described_by_torch_alone(driver, monkeypatch):
    monkeypatch.delattr(Driver, "nvmlDeviceGetHandleByUUID")
    found = environment._gpu(torch.device("cuda", 0))
    assert (found.name, found.driver) == ("NVIDIA Test", None)
    assert driver.closed


def nvpmodel(tmp_path: Path, text: str, code: int = 0) -> str:
    program = tmp_path / "nvpmodel"
    program.write_text(f"#!/bin/sh\necho '{text}'\nexit {code}\n")
    program.chmod(0o755)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("text", "code", "mode"),
    [("NV Power Mode: MAXN\n0", 0, "MAXN"), ("no such tool", 1, None), ("nothing", 0, None)],
)
def test_a_jetson_power_mode_is_read_from_nvpmodel(tmp_path, monkeypatch, text, code, mode):
    monkeypatch.setenv("PATH", nvpmodel(tmp_path, text, code))
    assert environment._power_mode() == mode


def test_an_unsupported_nvml_query_is_none():
    def refused():
        raise RuntimeError("Not Supported")

    assert nvml.query(refused) is None


def test_a_jetson_is_known_by_its_release_file(monkeypatch):
    release = "# R32 (release), REVISION: 4.3, GCID: 21589087, BOARD: t186ref\nmore"
    monkeypatch.setattr(Path, "read_text", lambda _: release)
    assert environment._jetson() == "R32 (release), REVISION: 4.3, GCID: 21589087, BOARD: t186ref"


def test_unavailable_system_information_is_none(monkeypatch):
    def missing(_):
        raise OSError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    assert environment._jetson() is None
    assert environment._cpu()
    assert environment._cores() >= 1


def test_everything_about_a_cpu_is_captured():
    captured = environment.capture(torch.device("cpu"))
    assert captured.gpu is None
    assert captured.cpu
    assert captured.platform.split()[0] in ("Linux", "Darwin", "Windows")


@pytest.mark.parametrize(
    ("cpuinfo", "flags"),
    [
        (
            "processor\t: 0\nflags\t\t: fpu sse2 avx2 avx512_bf16 amx_bf16 fma\n\nprocessor\t: 1\n",
            ("amx_bf16", "avx2", "avx512_bf16", "fma"),
        ),
        ("Features\t: fp asimd asimdhp fphp bf16\n", ("asimd", "asimdhp", "bf16", "fphp")),
        ("isa\t: rv64imafdc\n", None),
        ("", None),
    ],
)
def test_flags_of_a_cpu_are_those_of_its_vector_and_matrix_instructions(cpuinfo, flags):
    assert environment.cpu_flags(cpuinfo) == flags
