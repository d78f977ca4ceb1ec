from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from precisionbench import environment, nvml


@pytest.mark.parametrize(
    ("number", "text"), [(91900, "9.19.0"), (90100, "9.1.0"), (8902, "8.9.2"), (8005, "8.0.5")]
)
def test_cudnn_numbers_of_both_ways_of_counting(monkeypatch, number, text):
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: number)
    assert environment._cudnn() == text


def test_a_machine_without_the_drivers_library_tells_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert environment._from_driver(torch.device("cuda")) == {}


def test_a_question_that_the_driver_refuses_is_not_told():
    def refused():
        raise RuntimeError("Not Supported")

    assert nvml.asked(refused) is None


def test_a_jetson_is_known_by_its_release_file(monkeypatch):
    release = "# R32 (release), REVISION: 4.3, GCID: 21589087, BOARD: t186ref\nmore"
    monkeypatch.setattr(Path, "read_text", lambda _: release)
    assert environment._jetson() == "R32 (release), REVISION: 4.3, GCID: 21589087, BOARD: t186ref"


def test_what_the_system_does_not_tell_is_left_open(monkeypatch):
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
