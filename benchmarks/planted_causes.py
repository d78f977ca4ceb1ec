"""Models with a known cause planted in them, and clean ones: whether the diagnosis names it.

    python benchmarks/planted_causes.py FOLDER [--case NAME ...] [--device cuda]

Each case is measured and its result saved in the folder; then it is diagnosed, and the table says
which causes were found where, which were missed, and who was accused without reason. Files that
are there already are diagnosed again without a GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import attrs
import torch
from torch import nn

import precisionbench as pb
from precisionbench.backends import Backend, Prepared
from precisionbench.errors import PrecisionBenchError

Build = Callable[[], Any]


@attrs.frozen
class Case:
    """A workload and what is wrong with it.

    Attributes:
        build: gives the model and its inputs.
        backends: beside the reference.
        planted: causes by row; a row that is not named has none.
        launcher: `process` where one row must not see the other.
    """

    build: Build
    backends: tuple[Any, ...] = ("half",)
    planted: dict[str, tuple[str, ...]] = attrs.field(factory=dict)
    launcher: str = "inline"


# --- models ---------------------------------------------------------------------------------------


def torchvision_model(name: str, batch: int) -> Build:
    def build() -> Any:
        import torchvision

        size = 299 if name == "inception_v3" else 224
        return torchvision.models.get_model(name), torch.randn(batch, 3, size, size)

    return build


def matmuls(width: int = 4096, layers: int = 4, batch: int = 4096) -> Any:
    """Large matrix products only: half precision has everything to win."""
    parts = [nn.Linear(width, width, bias=False) for _ in range(layers)]
    return nn.Sequential(*parts), torch.randn(batch, width)


def convolutions(channels: int, batch: int = 64, groups: int = 1, size: int = 56) -> Any:
    parts: list[nn.Module] = []
    for _ in range(6):
        parts += [nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False), nn.ReLU()]
    return nn.Sequential(*parts), torch.randn(batch, channels, size, size)


class Waiting(nn.Module):
    """Reads a number from the device in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.scale = nn.Linear(1024, 1024), 1.0

    def forward(self, x):
        for _ in range(8):
            x = self.body(x)
            self.scale = float(x.abs().max().item())
        return x


class ThroughTheHost(nn.Module):
    """Sends a tensor over the host and back in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(64, 64, 3, padding=1)

    def forward(self, x):
        x = self.body(x)
        return self.body(x.cpu().to(x.device))


def transformer(batch: int = 32, length: int = 256, width: int = 1024, fast: bool = True) -> Any:
    layer = nn.TransformerEncoderLayer(width, 16, 4 * width, batch_first=True, norm_first=not fast)
    model = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    return model, torch.randn(batch, length, width)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LSTM(1024, 1024, num_layers=2, batch_first=True)

    def forward(self, x):
        return self.body(x)[0]


def normalised(channels: int = 256, batch: int = 64) -> Any:
    """Mostly batch norm and additions: bound by memory."""
    parts: list[nn.Module] = []
    for _ in range(8):
        parts += [nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(nn.Conv2d(channels, channels, 1), *parts), torch.randn(
        batch, channels, 56, 56
    )


class Growing(nn.Module):
    """Activations that pass 65504 in its third layer."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(1024, 1024, bias=False) for _ in range(5))
        for part in self.parts:
            nn.init.normal_(part.weight, std=2.0)

    def forward(self, x):
        for part in self.parts:
            x = part(x)
        return x


@attrs.frozen
class Autocast(Backend):
    """A context for each call, under inference mode: weights are cast every time."""

    name: ClassVar[str] = "autocast-each-call"

    def prepare(self, model, inputs):
        import contextlib

        @contextlib.contextmanager
        def prepared():
            call = inputs.bind(model)

            def cast():
                with torch.autocast("cuda", torch.float16):
                    return call()

            yield Prepared(cast, model)

        return prepared()


@attrs.frozen
class Mislabelled(Backend):
    """Says half and computes in float32."""

    name: ClassVar[str] = "half-by-name"
    dtype: str = "float16"

    def prepare(self, model, inputs):
        import contextlib

        @contextlib.contextmanager
        def prepared():
            yield Prepared(inputs.bind(model), model)

        return prepared()


def zeros() -> Any:
    model, x = convolutions(64)
    return model, torch.zeros_like(x)


def wide(batch: int) -> Any:
    parts: list[nn.Module] = []
    for _ in range(30):
        parts += [nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(*parts), torch.randn(batch, 64)


CASES = {
    # planted
    "resnet50-five": Case(
        torchvision_model("resnet50", 100),
        ("eager:precision=tf32", "half", "half:memory_format=channels_last", "half:dtype=bfloat16"),
        {"half": ("C10", "C14"), "half:dtype=bfloat16": ("C10", "C14")},
        "process",
    ),
    "apex": Case(
        torchvision_model("resnet50", 64),
        ("apex-amp:opt_level=O1", "apex-amp:opt_level=O2"),
        {"apex-amp:opt_level=O1": ("C7",)},
        "process",
    ),
    "resnet50-batch1": Case(
        torchvision_model("resnet50", 1), ("half",), {"eager": ("C2",), "half": ("C2",)}, "process"
    ),
    "small-launches": Case(
        lambda: wide(16), ("half",), {"eager": ("C2",), "half": ("C2",)}, "process"
    ),
    "nchw": Case(
        lambda: convolutions(128), ("half", "half:memory_format=channels_last"), {"half": ("C10",)}
    ),
    "grouped": Case(lambda: convolutions(256, groups=32), ("half",), {"half": ("C12",)}),
    "depthwise": Case(lambda: convolutions(256, groups=256), ("half",), {"half": ("C12",)}),
    "channels-50": Case(lambda: convolutions(50), ("half",), {"half": ("C12",)}),
    "channels-25": Case(lambda: convolutions(25), ("half",), {"half": ("C12",)}),
    "linear-1001": Case(lambda: matmuls(1001), ("half",), {"half": ("C12",)}),
    "autocast": Case(lambda: matmuls(2048, 8, 256), (Autocast(),), {"autocast-each-call": ("C7",)}),
    "item": Case(lambda: (Waiting(), torch.randn(256, 1024)), ("half",), {"half": ("C16",)}),
    "host-copy": Case(
        lambda: (ThroughTheHost(), torch.randn(32, 64, 56, 56)), ("half",), {"half": ("C16",)}
    ),
    "normalised": Case(normalised, ("half",), {"half": ("C14",)}),
    "overflow": Case(lambda: (Growing(), torch.randn(4096, 1024)), ("half",), {"half": ("C23",)}),
    "resnet152": Case(torchvision_model("resnet152", 16), ("half",), {"half": ("C23", "C10")}),
    "zeros": Case(zeros, ("half",), {"eager": ("C22",)}),
    "mislabelled": Case(matmuls, (Mislabelled(),), {"half-by-name": ("L1",)}),
    # clean
    "matmuls": Case(matmuls, ("eager:precision=tf32", "half", "half:dtype=bfloat16")),
    "transformer": Case(transformer, ("eager:precision=tf32", "half", "half:dtype=bfloat16")),
    "transformer-math": Case(lambda: transformer(fast=False), ("half",)),
    "vit": Case(torchvision_model("vit_b_16", 64), ("half",)),
    "lstm": Case(lambda: (Recurrent(), torch.randn(64, 128, 1024)), ("half",)),
    "vgg-cl": Case(torchvision_model("vgg16", 64), ("half:memory_format=channels_last",)),
    "convs-cl": Case(lambda: convolutions(128), ("half:memory_format=channels_last",)),
    "mobilenet": Case(
        torchvision_model("mobilenet_v3_large", 64), ("half:memory_format=channels_last",)
    ),
    "convnext": Case(torchvision_model("convnext_tiny", 64), ("half:memory_format=channels_last",)),
    "regnet": Case(torchvision_model("regnet_x_8gf", 32), ("half:memory_format=channels_last",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--case", nargs="+", default=list(CASES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds for each row")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.case:
        file = options.folder / f"{name}.json"
        if not file.exists():
            try:
                measure(name, file, options)
            except PrecisionBenchError as exc:
                print(f"{name}: {exc}")


def measure(name: str, file: Path, options: argparse.Namespace) -> None:
    case, begun_s = CASES[name], time.monotonic()
    rows = len(case.backends) + 1
    comparison = pb.compare(
        case.build,
        backends=case.backends,
        device=options.device,
        launcher=case.launcher,
        budget_s=options.budget * rows * (3 if case.launcher == "process" else 1),
        seed=0,
        replicas=2 if case.launcher == "process" else None,
    )
    comparison.save(file)
    print(f"{name}: {time.monotonic() - begun_s:.1f} s")
    print(comparison)
    for row in comparison:
        evidence = row.evidence
        print(row.backend, "none" if evidence is None else dict(evidence.unknown))


if __name__ == "__main__":
    main()
