"""Seconds and peak memory of comparisons that are large in one respect (Linux, no GPU needed).

    python benchmarks/scale.py [report rows layers four weights] [--weights-gb 2] [--output FILE]

`report`: the reports of 64 sessions of 100 rounds, which are made up. `rows`: 200 backends of a
small model. `layers`: a model of 5,000 layers with its profile. `four`: four comparisons at once.
`weights`: four backends of a model with large weights, profiled.

Each case runs in a process of its own. Its peak memory is that of all its processes together: PSS
counts a page that several of them share once, and RSS once for each. A case that gives no result
for any of its rows makes the benchmark exit with 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import attrs
import torch
from torch import nn

import precisionbench as pb
from precisionbench.results import BackendResult, Block, Preparation

# the comparison that the tests draw, too
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

T = TypeVar("T")
_SAMPLE_EVERY_S = 0.2
_WIDTH = 4096  # of a square weight, 64 MiB in float32
_SESSIONS, _ROUNDS, _REPLICAS = 64, 100, 2
_ROWS, _LAYERS = 200, 5000


def report() -> pb.Comparison:
    """64 sessions of 100 rounds of two rows with two replicas each."""
    data = importlib.import_module("pages").large(rows=2, layers=3)
    draw = random.Random(0)
    rows = tuple(_with_sessions(row, draw) for row in data.results)
    return pb.Comparison(attrs.evolve(data, results=rows, failures=()))


def _with_sessions(row: BackendResult, draw: random.Random) -> BackendResult:
    places = [(s, r) for s in range(_SESSIONS) for r in range(_REPLICAS)]
    blocks = tuple(
        Block(number, 0, replica, tuple(1e-3 * draw.uniform(0.99, 1.01) for _ in range(5)), session)
        for session, replica in places
        for number in range(_ROUNDS)
    )
    preparations = tuple(Preparation(1.0, 0.1, 30, replica, session) for session, replica in places)
    measurement = attrs.evolve(row.measurement, blocks=blocks, preparations=preparations)
    return attrs.evolve(row, measurement=measurement)


def rows() -> pb.Comparison:
    """200 backends of a small model: one for each batch size."""
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    backends = [f"eager:batch_size={size}" for size in range(1, _ROWS + 1)]
    return pb.compare(
        model,
        torch.randn(_ROWS, 64),
        backends=backends,
        reference=backends[0],
        device="cpu",
        budget_s=240,
        on_progress=None,
    )


def layers() -> pb.Comparison:
    """Two backends of a model of 5,000 layers, one process each."""
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(_LAYERS)))
    backends = ["eager", "half:dtype=bfloat16"]
    return pb.compare(
        model,
        torch.randn(2, 8),
        backends=backends,
        device="cpu",
        replicas=1,
        budget_s=60,
        on_progress=None,
    )


def _one_of_four() -> pb.Comparison:
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256))
    backends = ["eager", "half:dtype=bfloat16"]
    return pb.compare(
        model, torch.randn(8, 256), backends=backends, device="cpu", budget_s=20, on_progress=None
    )


def four() -> None:
    """Four comparisons at once, each in a process of its own."""
    command = [sys.executable, __file__, "--run", "one"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for process in running:
        print(process.communicate()[0].strip())
    if any(process.returncode for process in running):
        sys.exit("one of the comparisons failed")


class _Weights(nn.Module):
    """Square weights in a row."""

    def __init__(self, gigabytes: float) -> None:
        super().__init__()
        count = max(1, round(gigabytes * 1e9 / 4 / _WIDTH**2))
        self.layers = nn.Sequential(*(nn.Linear(_WIDTH, _WIDTH, bias=False) for _ in range(count)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(x)
        return found


def weights(gigabytes: float) -> pb.Comparison:
    """Four backends of a model with large weights, one process each, profiled.

    Args:
        gigabytes: of weights in float32.
    """
    backends = ["eager", "half:dtype=bfloat16", "half", "autocast:dtype=bfloat16"]
    return pb.compare(
        partial(_Weights, gigabytes),
        torch.randn(2, _WIDTH),
        backends=backends,
        device="cpu",
        replicas=1,
        budget_s=60 * max(1.0, gigabytes),
        on_progress=None,
    )


# --- in the process of a case -------------------------------------------------------------------


def run(name: str, gigabytes: float) -> None:
    """Run a case, and all that is done with its comparison.

    Args:
        name: of the case.
        gigabytes: of weights, for `weights`.
    """
    if name == "four":
        four()
        return
    cases: dict[str, Callable[[], pb.Comparison]] = {
        "report": report,
        "rows": rows,
        "layers": layers,
        "one": _one_of_four,
        "weights": partial(weights, gigabytes),
    }
    comparison = _timed("measured", cases[name])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        _timed("text", partial(str, comparison))
        _timed("HTML", partial(comparison.to_html, Path(folder) / "report.html"))
        _timed("diagnosis", partial(pb.diagnose, comparison))
        _timed("saved", partial(comparison.save, file))
        _timed("loaded", partial(pb.load, file))
    _describe(comparison)


def _timed(name: str, action: Callable[[], T]) -> T:
    begun_s = time.perf_counter()
    found = action()
    print(f"  {name}: {time.perf_counter() - begun_s:.1f} s", flush=True)
    return found


def _describe(comparison: pb.Comparison) -> None:
    data = comparison.data
    profiled = sum(row.evidence is not None and bool(row.evidence.errors) for row in data.results)
    counts = [len(row.measurement.blocks) for row in data.results]
    print(
        f"  schedule {data.schedule}: {len(data.results)} rows of {min(counts)} to {max(counts)} "
        f"blocks, {profiled} with profile and float64 errors, {len(data.failures)} failed"
    )
    for note in data.notes[:5]:
        print(f"  note: {note}")
    if data.failures or not data.results:
        sys.exit("not every row has a result")


# --- the memory of all processes of a case ------------------------------------------------------


@attrs.define
class _Memory:
    """The peaks of a process and all its descendants, in bytes."""

    pss_bytes: int = 0
    rss_bytes: int = 0
    processes: int = 0

    def update(self, pid: int) -> None:
        """Read the memory of a process and its descendants now."""
        found = [_rollup(one) for one in (pid, *_descendants(pid))]
        self.pss_bytes = max(self.pss_bytes, sum(one.get("Pss", 0) for one in found))
        self.rss_bytes = max(self.rss_bytes, sum(one.get("Rss", 0) for one in found))
        self.processes = max(self.processes, len(found))


def _rollup(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:  # it has ended
        return {}
    return {line.partition(":")[0]: int(line.split()[1]) << 10 for line in lines}


def _descendants(pid: int) -> Iterator[int]:
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in file.read_text().split()]
        except OSError:
            continue
        for child in children:
            yield child
            yield from _descendants(child)


def measured(name: str, gigabytes: float) -> dict[str, object]:
    """Run a case in a process of its own, and print its time and peak memory.

    Args:
        name: of the case.
        gigabytes: of weights, for `weights`.
    """
    print(name, flush=True)
    command = [sys.executable, __file__, "--run", name, "--weights-gb", str(gigabytes)]
    begun_s, memory, over = time.perf_counter(), _Memory(), threading.Event()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def watch() -> None:
        while not over.wait(_SAMPLE_EVERY_S):
            memory.update(process.pid)

    watcher = threading.Thread(target=watch)
    watcher.start()
    said = process.communicate()[0]
    over.set()
    watcher.join()
    took_s = time.perf_counter() - begun_s
    print(
        f"{said}  in all: {took_s:.0f} s, peak of {memory.processes} processes: "
        f"PSS {memory.pss_bytes / 1e9:.2f} GB, RSS {memory.rss_bytes / 1e9:.2f} GB",
        flush=True,
    )
    if process.returncode:
        sys.exit(f"{name} failed")
    found = {"case": name, "took_s": round(took_s, 1), **attrs.asdict(memory)}
    weights_gb = {"weights_gb": gigabytes} if name == "weights" else {}
    return {**found, **weights_gb, "said": [line.strip() for line in said.splitlines()]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = ["report", "rows", "layers", "four", "weights"]
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--weights-gb", type=float, default=0.5, help="of `weights`, in GB")
    parser.add_argument("--output", type=Path, help="file for the figures, as JSON")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run(given.run, given.weights_gb)
        return
    if unknown := set(given.cases) - set(names):
        parser.error(f"no case {', '.join(unknown)}; known: {', '.join(names)}")
    found = [measured(name, given.weights_gb) for name in given.cases or names]
    if given.output:
        given.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
