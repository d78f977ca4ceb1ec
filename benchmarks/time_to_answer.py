"""How long a user waits for an answer, and in which phase: comparisons, and the diagnosis after.

python benchmarks/time_to_answer.py result.json [--case mlp --case resnet50 ...] [--diagnose]

Each phase begins with the first progress report of its name. The record holds the seconds of each
phase, the device and versions; a ResNet-50 of random weights needs torchvision.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

import precisionbench as pb


@attrs.frozen
class Case:
    """A call that is timed.

    Attributes:
        title: in words.
        call: makes the comparison; takes `on_progress`.
        workload: the model and inputs, for the diagnosis.
    """

    title: str
    call: Callable[..., pb.Comparison]
    workload: tuple[Any, Any]


def mlp() -> Case:
    layers = [layer for _ in range(4) for layer in (nn.Linear(256, 256), nn.ReLU())]
    model, inputs = nn.Sequential(*layers), torch.rand(32, 256)

    def call(**options: Any) -> pb.Comparison:
        return pb.compare(model, inputs, backends=["half"], budget_s=4, device=_device(), **options)

    return Case("four-layer MLP, 2 rows, budget_s=4", call, (model, inputs))


def tiny() -> Case:
    model, inputs = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)), torch.rand(4, 64)

    def call(**options: Any) -> pb.Comparison:
        return pb.compare(
            model, inputs, backends=["half:dtype=bfloat16"], budget_s=1, device=_device(), **options
        )

    return Case("three-layer MLP, 2 rows, budget_s=1", call, (model, inputs))


def resnet50() -> Case:
    import torchvision

    model, inputs = torchvision.models.resnet50(), torch.rand(100, 3, 224, 224)
    rows = ["half", "half:memory_format=channels_last"]

    def call(**options: Any) -> pb.Comparison:
        return pb.compare(model, inputs, backends=rows, device=_device(), **options)

    return Case("ResNet-50, batch 100, 3 rows, defaults", call, (model, inputs))


CASES = {"mlp": mlp, "tiny": tiny, "resnet50": resnet50}


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def measure(case: Case, diagnose: bool) -> dict[str, Any]:
    """Time a case, and the diagnosis of it with experiments.

    Args:
        case: what to time.
        diagnose: also time `diagnose(experiments="auto")` after it, and the whole with experiments
            that are made in the comparison's workers.
    """
    begun_s = time.perf_counter()
    starts: dict[str, float] = {}

    def record(progress: pb.Progress) -> None:
        starts.setdefault(progress.stage, time.perf_counter() - begun_s)

    comparison = case.call(on_progress=record)
    total_s = time.perf_counter() - begun_s
    found = {"case": case.title, "total_s": round(total_s, 2), "phases_s": _phases(starts, total_s)}
    found["table"] = str(comparison).splitlines()
    if diagnose:
        begun_s = time.perf_counter()
        pb.diagnose(comparison, workload=case.workload, experiments="auto")
        found["then_diagnose_s"] = round(time.perf_counter() - begun_s, 2)
        found |= _explained(case)
    return found


def _explained(case: Case) -> dict[str, Any]:
    """Time the case with its experiments, as `compare --explain` makes them."""
    begun_s = time.perf_counter()
    diagnosis = pb.diagnose(case.call(experiments=pb.Experiments("auto")))
    total_s = time.perf_counter() - begun_s
    return {"with_experiments_s": round(total_s, 2), "notes": list(diagnosis.notes)}


def _phases(starts: dict[str, float], total_s: float) -> dict[str, float]:
    """Seconds of each phase, by when the phases began."""
    ordered = sorted(starts.items(), key=lambda item: item[1])
    ends = [start for _, start in ordered[1:]] + [total_s]
    before = {"before": ordered[0][1]} if ordered else {}
    lengths = {name: end - start for (name, start), end in zip(ordered, ends, strict=True) if name}
    return {name: round(seconds, 2) for name, seconds in {**before, **lengths}.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--diagnose", action="store_true")
    options = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    record: dict[str, Any] = {"device": device, "torch": torch.__version__, "runs": []}
    for name in options.case or ["tiny", "mlp"]:
        found = measure(CASES[name](), options.diagnose)
        record["runs"].append(found)
        print(json.dumps(found, indent=1))
        options.output.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
