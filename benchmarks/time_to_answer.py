"""How long a user waits for an answer, and in which phase; and how long with other tools.

python benchmarks/time_to_answer.py result.json [--case mlp ...] [--diagnose] [--peers 1]

Every case is called twice: the second call of a process finds the server that starts workers.
Each phase begins with the first progress report of its name. With `--peers N`, the same rows are
then timed by `triton.testing.do_bench` (on a GPU) and `torch.utils.benchmark`, each in N fresh
processes one after another; as many as there are replicas give an interval between processes, so
their time is multiplied to that number. The record holds all seconds, the device and versions;
ResNet-50 (random weights) needs torchvision.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

import precisionbench as pb

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
REPLICAS = 3 if ON_GPU else 2
MLP = "nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(256, 256), nn.ReLU())])"
TINY = "nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))"
RESNET = "__import__('torchvision').models.resnet50()"
BFLOAT16, CHANNELS_LAST = "half:dtype=bfloat16", "half:memory_format=channels_last"
# What a user would write for each row: the model, the inputs.
ROWS = {
    "eager": ("model", "x"),
    "half": ("model.half()", "x.half()"),
    BFLOAT16: ("model.bfloat16()", "x.bfloat16()"),
    CHANNELS_LAST: (
        "model.half().to(memory_format=torch.channels_last)",
        "x.half().to(memory_format=torch.channels_last)",
    ),
}
TOOLS = {
    "triton.testing.do_bench": "from triton.testing import do_bench; print(do_bench(call))",
    "torch.utils.benchmark": (
        "from torch.utils.benchmark import Timer; "
        "print(Timer('call()', globals={'call': call}).blocked_autorange(min_run_time=0.2).median)"
    ),
}
PEER = """
import torch
from torch import nn
model = {model}.eval().{device}()
x = torch.rand({shape}).{device}()
model, x = {row[0]}, {row[1]}
def call():
    with torch.inference_mode():
        return model(x)
call()
{tool}
"""


@attrs.frozen
class Case:
    """A call that is timed.

    Attributes:
        title: in words.
        model: an expression that gives the model.
        shape: of the input.
        rows: beside `eager`.
        options: of `compare`.
        is_ladder: call `ladder` instead, which chooses its rows.
    """

    title: str
    model: str
    shape: tuple[int, ...]
    rows: tuple[str, ...] = ()
    options: Mapping[str, Any] = attrs.field(factory=dict)
    is_ladder: bool = False

    def workload(self) -> tuple[nn.Module, torch.Tensor]:
        """The model and the input."""
        return eval(self.model), torch.rand(self.shape)

    def call(self, workload: tuple[Any, Any], on_progress: Callable[[pb.Progress], Any]) -> Any:
        """Compare, or measure the ladder."""
        options = {"device": DEVICE, "on_progress": on_progress, **self.options}
        if self.is_ladder:
            return pb.ladder(*workload, **options)
        return pb.compare(*workload, backends=self.rows, **options)


CASES = {
    "tiny": Case(
        "three-layer MLP, 2 rows, budget_s=1",
        TINY,
        (4, 64),
        ("half:dtype=bfloat16",),
        {"budget_s": 1},
    ),
    "mlp": Case("eight-layer MLP, 2 rows, budget_s=4", MLP, (32, 256), ("half",), {"budget_s": 4}),
    "resnet50": Case(
        "ResNet-50, batch 100, 3 rows, defaults",
        RESNET,
        (100, 3, 224, 224),
        ("half", CHANNELS_LAST),
    ),
    "ladder": Case("ladder of ResNet-50, batch 256", RESNET, (256, 3, 224, 224), is_ladder=True),
}


def measure(case: Case, diagnose: bool) -> dict[str, Any]:
    """Time a case, and the diagnosis of it with experiments.

    Args:
        case: what to time.
        diagnose: also time `diagnose(experiments="auto")` after it, and the whole with experiments
            that are made in the comparison's workers.
    """
    workload = case.workload()
    begun_s = time.perf_counter()
    starts: dict[str, float] = {}

    def record(progress: pb.Progress) -> None:
        starts.setdefault(progress.stage, time.perf_counter() - begun_s)

    found = case.call(workload, record)
    total_s = time.perf_counter() - begun_s
    result: dict[str, Any] = {"case": case.title, "total_s": round(total_s, 2)}
    result |= {"phases_s": _phases(starts, total_s), "table": str(found).splitlines()}
    if diagnose and not case.is_ladder:
        begun_s = time.perf_counter()
        pb.diagnose(found, workload=workload, experiments="auto", on_progress=None)
        result["then_diagnose_s"] = round(time.perf_counter() - begun_s, 2)
        result |= _explained(case, workload)
    return result


def _explained(case: Case, workload: tuple[Any, Any]) -> dict[str, Any]:
    """Time the case with its experiments, as `compare --explain` makes them."""
    options = {**case.options, "experiments": pb.Experiments("auto")}
    begun_s = time.perf_counter()
    comparison = attrs.evolve(case, options=options).call(workload, lambda _: None)
    notes = pb.diagnose(comparison).notes
    total_s = time.perf_counter() - begun_s
    return {"with_experiments_s": round(total_s, 2), "notes": list(notes)}


def _phases(starts: dict[str, float], total_s: float) -> dict[str, float]:
    """Seconds of each phase, by when the phases began."""
    ordered = sorted(starts.items(), key=lambda item: item[1])
    ends = [start for _, start in ordered[1:]] + [total_s]
    before = {"before": ordered[0][1]} if ordered else {}
    lengths = {name: end - start for (name, start), end in zip(ordered, ends, strict=True) if name}
    return {name: round(seconds, 2) for name, seconds in {**before, **lengths}.items()}


def peers(case: Case, processes: int) -> dict[str, float]:
    """Seconds that other tools take for the rows of a case, by tool.

    Args:
        case: what to time.
        processes: fresh ones of each row; their time is multiplied to the number of replicas.
    """
    taken = {}
    for name, code in TOOLS.items():
        if name.startswith("triton") and not ON_GPU:
            continue
        begun_s = time.perf_counter()
        for row in ("eager", *case.rows):
            source = PEER.format(
                model=case.model, device=DEVICE, shape=case.shape, row=ROWS[row], tool=code
            )
            for _ in range(processes):
                subprocess.run([sys.executable, "-c", source], check=True, stdout=subprocess.PIPE)
        taken[name] = round((time.perf_counter() - begun_s) * REPLICAS / processes, 2)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--diagnose", action="store_true")
    parser.add_argument("--peers", type=int, default=0, metavar="N")
    options = parser.parse_args()
    record: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if ON_GPU else "CPU",
        "cores": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "runs": [],
    }
    for name in options.case or ["tiny", "mlp"]:
        case = CASES[name]
        found = {"first": measure(case, diagnose=False)}
        if not case.is_ladder:
            found["again"] = measure(case, options.diagnose)
        if options.peers and not case.is_ladder:
            found["peers_s"] = peers(case, options.peers)
        record["runs"].append(found)
        print(json.dumps(found, indent=1), flush=True)
        options.output.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
