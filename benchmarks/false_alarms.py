"""How often the same code is called different: many real sessions of a row against itself.

    python benchmarks/false_alarms.py record.json [--batch 1 100] [--sessions 100] [--cores 2]

A pack is four sessions (`--pack`). Each is half ResNet-50 twice, three fresh worker processes a
row, as `compare` starts them; the 24 processes of a pack are measured in the same rounds, as the
rows of one comparison are, and every pair of rows is judged by itself with the library's
statistics. The processes serve once at each batch, all on the same `--cores`, and in the first
`--arms` packs once more on every core, before or after by chance. Nothing loads or opens while
anything is measured: that was tried, and at batch 100 intervals became twenty times as wide. The
record keeps each block's median, so that other statistics can be tried.

With `--one-process` the two rows of all sessions live in this process, prepared once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch

from precisionbench.analysis.speedups import ratio_of
from precisionbench.backends import discovery
from precisionbench.measure.rounds import run_rounds
from precisionbench.measure.schedule import RowState, Schedule
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.measure.worker.fork_client import ForkServer
from precisionbench.measure.worker.local import InlineLauncher
from precisionbench.measure.worker.pool import WorkerPool
from precisionbench.measure.worker.process import Worker
from precisionbench.model.torchvision_models import TorchvisionModel
from precisionbench.model.workload import Workload, resolve
from precisionbench.results.latency import known_noise_floor
from precisionbench.statistics import Interval, verdicts
from precisionbench.system import cpu_affinity
from precisionbench.torchtools.global_state import read_flags

REPLICAS = 3
Rows = dict[str, list[Any]]
# Workers, and what names the files of each batch.
Pack = tuple[list[Worker], list[dict[str, str]]]


class Opened(WorkerBackend):
    """A worker that was asked to open before, with others at the same time."""

    def undisturbed(self) -> Opened:
        """The same once it knows how long a call takes when nobody else opens."""
        call_s = statistics.median(self.block(5, 1, 2))
        self.opening = attrs.evolve(self.opening, call_s=call_s)
        return self


def main() -> None:
    options = _options()
    record: list[dict[str, Any]] = []
    sessions = one_process(options) if options.one_process else Packs(options).sessions()
    for one in sessions:
        record.append(one)
        Path(options.record).write_text(json.dumps(record))
        print(in_words(one), flush=True)
    for batch, cores in itertools.product(options.batch, sorted({0, options.cores})):
        wanted = [one for one in record if (one["batch"], one["cores"]) == (batch, cores)]
        if wanted:
            print(summary(wanted))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--sessions", type=int, default=100, help="at each batch")
    parser.add_argument("--pack", type=int, default=4, help="sessions that share their rounds")
    parser.add_argument("--cores", type=int, default=cpu_affinity.SHARED_CORES, help="0: all")
    parser.add_argument("--arms", type=int, default=0, help="packs to repeat on all cores")
    parser.add_argument(
        "--budget", type=float, nargs="+", default=[10.0, 10.0], help="seconds of a pack at each"
    )
    parser.add_argument("--limit", type=float, default=math.inf, help="start no pack after this")
    parser.add_argument("--one-process", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="half")
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


class Packs:
    """Packs of 24 workers, one after another."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rng = random.Random(options.seed)
        self.end_s = time.monotonic() + options.limit
        self.rows = 2 * options.pack
        self.workloads = [workload(options, batch) for batch in options.batch]

    def sessions(self) -> Iterator[dict[str, Any]]:
        """Every session of every pack."""
        for number in range(math.ceil(self.options.sessions / self.options.pack)):
            begun_s = time.monotonic()
            if begun_s > self.end_s:
                return
            with ForkServer() as server, WorkerPool(server) as pool:
                yield from self._pack(pool, number)
            print(f"pack {number}: {time.monotonic() - begun_s:.0f} s", flush=True)

    def _pack(self, pool: WorkerPool, number: int) -> Iterator[dict[str, Any]]:
        pack = self._started(pool)
        for index, batch in enumerate(self.options.batch):
            row_states = self._opened(pack, index)
            arms = [self.options.cores, 0] if number < self.options.arms else [self.options.cores]
            for cores in self.rng.sample(arms, len(arms)):
                yield from self._measured(row_states, batch, number, cores)

    def _started(self, pool: WorkerPool) -> Pack:
        """Workers that begin to load the first workload, and what names each batch's files."""
        backend = pool.write("backend.pt", discovery.make(self.options.backend))
        files = [pool.write(f"{i}.pt", one) for i, one in enumerate(self.workloads)]
        workers = [pool.start(files[0], backend) for _ in range(self.rows * REPLICAS)]
        return workers, [{"workload": str(file), "backend": str(backend)} for file in files]

    def _opened(self, pack: Pack, index: int) -> list[RowState]:
        workers, files = pack
        begun_s = time.monotonic()
        if index:
            for worker in workers:
                worker.begin("load", None, **files[index], flags=read_flags())
        for worker in workers:
            worker.begin_open()
        replicas = [Opened(worker) for worker in workers]
        row_states = [RowState(str(row), []) for row in range(self.rows)]
        for prepared, row_state in zip(replicas, itertools.cycle(row_states), strict=False):
            row_state.replicas.append(prepared.undisturbed())
        print(f"opened after {time.monotonic() - begun_s:.1f} s", flush=True)
        return row_states

    def _measured(
        self, row_states: Sequence[RowState], batch: int, pack: int, cores: int
    ) -> Iterator[dict[str, Any]]:
        """All rows in common rounds, on some cores only where that is asked for."""
        everywhere = cpu_affinity.usable_cores()
        allowed = cpu_affinity.reserved_cores(cores) if cores else everywhere
        workers = [prepared.worker for row_state in row_states for prepared in row_state.replicas]
        for worker in workers:
            worker.pin_calls(allowed)
        fresh = [RowState(row_state.name, row_state.replicas) for row_state in row_states]
        begun_s = time.monotonic()
        budget_s = self.options.budget[self.options.batch.index(batch)]
        ended_by = run_rounds(fresh, Schedule(budget_s, "0", self.rng, noise_floor=self._floor()))
        took_s = time.monotonic() - begun_s
        for worker in workers:
            worker.pin_calls(everywhere)
        rows = {row_state.name: row_state.blocks for row_state in fresh}
        labels = sorted(
            {label for row_state in fresh for o in row_state.openings for label in o.labels}
        )
        for base in range(0, self.rows, 2):
            pair = {name: rows[name] for name in (str(base), str(base + 1))}
            yield {
                "batch": batch,
                "cores": cores,
                "pack": pack,
                "ended_by": ended_by,
                "pack_s": took_s,
                "samples": fresh[base].samples,
                "labels": labels,
                **judged(pair, self._floor()),
            }

    def _floor(self) -> float:
        return known_noise_floor(self.options.device)


def one_process(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Sessions of two equal rows in this process, each of fresh rounds."""
    floor, rng = known_noise_floor(options.device), random.Random(options.seed)
    for batch in options.batch:
        launcher = InlineLauncher.on_device_of(workload(options, batch))
        backend = discovery.make(options.backend)
        with launcher.open(backend) as first, launcher.open(backend) as second:
            for number in range(options.sessions):
                begun_s = time.monotonic()
                row_states = [RowState("0", [first]), RowState("1", [second])]
                budget_s = options.budget[options.batch.index(batch)]
                ended_by = run_rounds(row_states, Schedule(budget_s, "0", rng, noise_floor=floor))
                took_s = time.monotonic() - begun_s
                rows = {row_state.name: row_state.blocks for row_state in row_states}
                yield {
                    "batch": batch,
                    "cores": 0,
                    "pack": number,
                    "ended_by": ended_by,
                    "pack_s": took_s,
                    **judged(rows, floor),
                }


def workload(options: argparse.Namespace, batch: int) -> Workload:
    """The model as a traced object: workers neither make its weights nor import torchvision."""
    device = torch.device(options.device)
    name = options.model.removeprefix("torchvision:")
    model, inputs = TorchvisionModel(name, batch)()
    traced = torch.fx.symbolic_trace(model.eval())
    return resolve(traced, inputs, device=device, batch_size=batch, seed=batch)


def judged(pair: Rows, noise_floor: float) -> dict[str, Any]:
    """What the library's statistics say of two equal rows."""
    base, other = pair
    comparison = {other: partial(ratio_of, pair, base, other, noise_floor=noise_floor)}
    ((interval, verdict, reason),) = verdicts(comparison).values()
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "verdict": verdict.value,
        "reason": reason,
        "rounds": len({block.round for block in pair[base]}),
        "blocks": {
            name: [(b.round, b.position, b.replica, b.median_s) for b in blocks]
            for name, blocks in pair.items()
        },
    }


def in_words(one: dict[str, Any]) -> str:
    interval = f"{one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}] {one['verdict']}"
    where = f"batch {one['batch']}, {one['cores'] or 'all'} cores"
    return f"{where}: {interval}, {one['rounds']} rounds in {one['pack_s']:.1f} s"


def summary(record: Sequence[dict[str, Any]]) -> str:
    count = len(record)
    intervals = [Interval(one["value"], one["low"], one["high"]) for one in record]
    excluded = sum(interval.excludes_1 for interval in intervals)
    false = sum(one["verdict"] in ("faster", "slower") for one in record)
    widths = sorted(interval.relative_half_width for interval in intervals)
    times = [
        median_s for one in record for _, _, _, median_s in itertools.chain(*one["blocks"].values())
    ]
    call_s = statistics.median(times)
    return (
        f"batch {record[0]['batch']}, {record[0]['cores'] or 'all'} cores: {count} sessions, "
        f"faster or slower in {false}, interval excludes 1 in {excluded}; "
        f"median half-width {widths[count // 2]:.2%}, call {call_s * 1e3:.3g} ms"
    )


if __name__ == "__main__":
    main()
