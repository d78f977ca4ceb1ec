"""How often the same code is called different: many real sessions of a row against itself.

    python benchmarks/false_alarms.py record.json [--batch 1 100] [--cores 0 2] [--sessions 100]

Each session is half ResNet-50 twice, three fresh worker processes each, opened one at a time,
measured by the Runner's own rounds and judged by its own statistics. Workers of a few sessions are
started together, which saves most of the time that importing takes, and wait until their session's
turn. A session's six processes serve once at each batch, and there once for each number of cores
that `--cores` asks them to share. The record keeps each block's median, so that other statistics
can be tried on it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from precisionbench.backends.half import Half
from precisionbench.launchers.process import START_LIMIT_S, Crew, RemoteSeat, Worker
from precisionbench.rounds import Lane, Rules, run_rounds
from precisionbench.runner import _NOISE_FLOOR
from precisionbench.speedups import ratio_of
from precisionbench.statistics import verdicts
from precisionbench.torch_state import read_flags
from precisionbench.workload import Workload, resolve

REPLICAS = 3
NAMES = ("half", "half#2")
SIZE = len(NAMES) * REPLICAS
PACK = 4  # sessions whose workers are started together


def main() -> None:
    options = _options()
    record: list[dict[str, Any]] = []
    end_s = time.monotonic() + options.limit
    for number in range(0, options.sessions, PACK):
        if time.monotonic() > end_s:
            break
        for one in pack(options, number):
            record.append(one)
            Path(options.record).write_text(json.dumps(record))
            print(told(one), flush=True)
    for batch, cores in itertools.product(options.batch, options.cores):
        wanted = [one for one in record if (one["batch"], one["cores"]) == (batch, cores)]
        if wanted:
            print(summary(wanted))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--cores", type=int, nargs="+", default=[0], help="0: all of them")
    parser.add_argument("--sessions", type=int, default=100, help="at each batch")
    parser.add_argument("--budget", type=float, default=7.0, help="seconds for each session")
    parser.add_argument("--limit", type=float, default=math.inf, help="start nothing after this")
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def pack(options: argparse.Namespace, number: int) -> Iterator[dict[str, Any]]:
    """Some sessions at each batch, each in processes of its own."""
    begun_s = time.monotonic()
    with Crew() as crew:
        files = [crew.write(f"{batch}.pt", workload(options, batch)) for batch in options.batch]
        backend = crew.write("half.pt", Half())
        workers = [crew.start(files[0], backend) for _ in range(PACK * SIZE)]
        crew.wait_until_loaded()
        print(f"{PACK * SIZE} workers loaded after {time.monotonic() - begun_s:.0f} s", flush=True)
        for i in range(PACK):
            mine = workers[i * SIZE : (i + 1) * SIZE]
            for batch, file in zip(options.batch, files, strict=True):
                yield from arms(options, mine, batch, (file, backend), number + i)
            for worker in mine:
                worker.kill()


def workload(options: argparse.Namespace, batch: int) -> Workload:
    device = torch.device(options.device)
    return resolve(options.model, None, device=device, batch_size=batch, seed=batch)


def arms(
    options: argparse.Namespace,
    workers: Sequence[Worker],
    batch: int,
    files: tuple[Path, Path],
    number: int,
) -> Iterator[dict[str, Any]]:
    """One session for each number of cores that all its workers share, in a random order."""
    rng = random.Random(number)
    if batch != options.batch[0]:
        names = {"workload": str(files[0]), "backend": str(files[1])}
        for worker in workers:
            worker.ask("load", START_LIMIT_S, **names, flags=read_flags())
    lanes = [Lane(name, []) for name in NAMES]
    for worker, lane in zip(workers, itertools.cycle(lanes), strict=False):  # as the Runner does
        lane.seats.append(RemoteSeat(worker))
    everywhere = os.sched_getaffinity(0)
    for cores in rng.sample(options.cores, len(options.cores)):
        allowed = set(sorted(everywhere)[-cores:]) if cores else everywhere
        for worker in workers:
            confine(worker.pid, allowed)
        fresh = [Lane(lane.name, lane.seats) for lane in lanes]
        yield {"batch": batch, "cores": cores, **session(options, fresh, rng)}
    for worker in workers:
        confine(worker.pid, everywhere)


def confine(pid: int, cores: set[int]) -> None:
    """Let all threads of a process run on these cores only."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def session(
    options: argparse.Namespace, lanes: Sequence[Lane], rng: random.Random
) -> dict[str, Any]:
    """The Runner's rounds on two equal rows, and what its statistics say."""
    floor = _NOISE_FLOOR.get(torch.device(options.device).type, 0.0)
    begun_s = time.monotonic()
    ended_by = run_rounds(lanes, Rules(options.budget, NAMES[0], rng, floor=floor))
    rows = {lane.name: lane.blocks for lane in lanes}
    ((interval, verdict, reason),) = verdicts({NAMES[1]: partial(_ratio, rows, floor)}).values()
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "verdict": verdict.value,
        "reason": reason,
        "ended_by": ended_by,
        "rounds": min(lane.complete_rounds for lane in lanes),
        "took_s": time.monotonic() - begun_s,
        "blocks": {
            name: [(b.round, b.position, b.replica, b.median_s) for b in blocks]
            for name, blocks in rows.items()
        },
    }


def _ratio(rows: Any, floor: float, confidence: float) -> Any:
    return ratio_of(rows, *NAMES, confidence, floor)


def told(one: dict[str, Any]) -> str:
    interval = f"{one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}] {one['verdict']}"
    where = f"batch {one['batch']}, {one['cores'] or 'all'} cores"
    return f"{where}: {interval}, {one['rounds']} rounds in {one['took_s']:.1f} s"


def summary(record: Sequence[dict[str, Any]]) -> str:
    count = len(record)
    excluded = sum(not one["low"] <= 1 <= one["high"] for one in record)
    false = sum(one["verdict"] in ("faster", "slower") for one in record)
    widths = sorted(math.log(one["high"] / one["low"]) / 2 for one in record)
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
