"""Nothing is left of a comparison that a signal ends; `benchmarks/signals.py` has all phases."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are supervised on Linux"),
]


@pytest.fixture(scope="module")
def signals():
    file = Path(__file__).parent.parent / "benchmarks" / "signals.py"
    spec = importlib.util.spec_from_file_location("signals", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["signals"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["signals"]


@pytest.mark.parametrize(
    ("phase", "name"),
    [
        ("rounds", "SIGTERM"),
        ("profile", "SIGKILL"),
        ("closing", "SIGINT"),
        ("experiments, rounds", "SIGINT"),
    ],
)
def test_nothing_is_left_and_the_rounds_are_in_the_journal(signals, phase, name):
    found = signals.cell(phase, name)
    assert found.faults(signals.PHASES[phase], name, limit_s=signals.LONG_S / 2) == []
    if name == "SIGTERM":
        assert "ended by SIGTERM; finished rounds are kept; precisionbench show" in found.said
