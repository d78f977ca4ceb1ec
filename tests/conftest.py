"""Fixtures, small models, and which marks this machine can run."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import nn

from precisionbench.backends.discovery import GROUP, BackendInfo
from precisionbench.measure import availability
from precisionbench.scriptcheck.check import Check, evaluate
from script_forks import ScriptForks

# A busy machine is no failure: a case may take as long as it takes. By default every run draws the
# same examples, so that a change is not failed by an example that has nothing to do with it;
# `pytest --hypothesis-profile=explore` draws new ones, and more of them.
_UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, max_examples=25, **_UNTIMED)
settings.register_profile("explore", **_UNTIMED)
settings.load_profile("repeatable")


def _has_apex() -> bool:
    found = importlib.util.find_spec("apex")
    folders = found.submodule_search_locations or () if found else ()
    return any((Path(folder) / "amp").is_dir() for folder in folders)


# Packages of engines that run on a CPU, by mark.
_ENGINES = {
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino", "nncf"),
    "torchao": ("torchao",),
}
_TENSORRT = ("torch2trt", "torch_tensorrt")


def _missing(mark: str) -> str | None:
    """Why tests of this mark cannot run here; None where they can."""
    if mark in ("gpu", "apex", "tensorrt") and not torch.cuda.is_available():
        return "needs an NVIDIA GPU"
    if mark == "apex" and not _has_apex():
        return "needs NVIDIA Apex with apex.amp (25.05 or older) on the path"
    if absent := [name for name in _ENGINES.get(mark, ()) if not importlib.util.find_spec(name)]:
        return f"needs {' and '.join(absent)}: pip install 'precisionbench[{mark}]'"
    if mark == "submitit" and not importlib.util.find_spec("submitit"):
        return "needs submitit: pip install 'precisionbench[study]'"
    if mark == "tensorrt" and not any(map(importlib.util.find_spec, _TENSORRT)):
        return "needs TensorRT with torch2trt or Torch-TensorRT"
    if mark == "tensorrt_rtx" and not importlib.util.find_spec("tensorrt_rtx"):
        return "needs the builder of TensorRT for RTX: nox -s tensorrt-rtx"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Where files run side by side, the last one to begin must not be a long one.
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)
    known = ("gpu", "apex", "tensorrt", "tensorrt_rtx", "submitit", *_ENGINES)
    reasons = {mark: reason for mark in known if (reason := _missing(mark))}
    for item in items:
        marks = {marker.name for marker in item.iter_markers()}
        for reason in (reason for mark, reason in reasons.items() if mark in marks):
            item.add_marker(pytest.mark.skip(reason=reason))


class SmallCnn(nn.Module):
    """A convolution, a batch norm and a linear layer: everything that precision touches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.bn(self.conv(images)))
        return self.head(features.mean((2, 3)))


@pytest.fixture(autouse=True)
def no_wish_for_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have set these for programs of their own."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cnn() -> SmallCnn:
    torch.manual_seed(0)
    return SmallCnn()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    """The files of an AGX Xavier, as its documentation lists them."""
    files = {
        "etc/nv_tegra_release": "# R32 (release), REVISION: 4.3",
        "sys/class/devfreq/17000000.gv11b/cur_freq": "1377000000\n",
        "sys/class/hwmon/hwmon3/name": "ina3221\n",
        "sys/class/hwmon/hwmon3/in1_label": "GPU\n",
        "sys/class/hwmon/hwmon3/in1_input": "19000\n",
        "sys/class/hwmon/hwmon3/curr1_input": "1000\n",
        "sys/class/hwmon/hwmon3/in2_label": "CPU\n",
        "sys/class/hwmon/hwmon3/in2_input": "19000\n",
        "sys/class/hwmon/hwmon3/curr2_input": "500\n",
        "sys/class/hwmon/hwmon0/name": "tmp451\n",
        "sys/class/thermal/thermal_zone0/type": "CPU-therm\n",
        "sys/class/thermal/thermal_zone1/type": "GPU-therm\n",
        "sys/class/thermal/thermal_zone1/temp": "43500\n",
    }
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a package of one module with entry points, as pip would lay it out."""

    def installed(package: str, code: str, **entries: str) -> None:
        module = package.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))
        metadata = tmp_path / f"{module}-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        lines = "\n".join(f"{name} = {module}:{value}" for name, value in entries.items())
        (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    monkeypatch.syspath_prepend(str(tmp_path))
    return installed


@pytest.fixture(scope="session")
def script_forks() -> Iterator[ScriptForks]:
    with ScriptForks() as forks:
        yield forks


@pytest.fixture
def check_script(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script_forks: ScriptForks,
    coverage_of_workers: dict[str, str],
) -> Callable[..., Check]:
    """Checks the source of a script in a fork, where `pb.check` starts a fresh process.

    Coverage counts what the script runs, and doubles its time, where the test is marked so.
    """
    monkeypatch.chdir(tmp_path)
    counted = coverage_of_workers if request.node.get_closest_marker("workers_counted") else {}

    def check(source: str, script: str = "script.py", device: str = "") -> Check:
        Path(script).write_text(source)
        return evaluate(script, source, script_forks.observe(script, [], device, counted))

    return check


@pytest.fixture
def uncompiled(
    monkeypatch: pytest.MonkeyPatch, list_once: Callable[[], tuple[BackendInfo, ...]]
) -> None:
    """Leave compiled rows and engines out of ladders: they take a minute on two cores."""
    listed = tuple(
        attrs.evolve(info, available=False, requirement="time", remedy="wait")
        if info.name in ("compile", "aot-inductor", "pt2e", *_ENGINES)
        else info
        for info in list_once()
    )
    monkeypatch.setattr(availability, "list_backends", lambda: listed)
