"""How often the same code is called different: many real sessions of a row against itself.

    python benchmarks/false_alarms.py record.json [--batch N] [--sessions N] [--affinity]

Each session is half ResNet-50 twice, three fresh worker processes each, measured by the Runner's
own rounds and judged by its own statistics. Workers of a few sessions are started together, which
saves most of the time that importing takes, and wait until their session's turn; each serves one
session. With `--affinity` every session is then measured a second time with all its workers on the
same two cores. The record keeps each block's median, so that other statistics can be tried on it.
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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from precisionbench.backends.half import Half
from precisionbench.launchers.process import Crew, RemoteSeat
from precisionbench.rounds import Lane, Rules, run_rounds
from precisionbench.runner import _NOISE_FLOOR
from precisionbench.speedups import ratio_of
from precisionbench.statistics import verdicts
from precisionbench.workload import resolve

REPLICAS = 3
NAMES = ("half", "half#2")
PACK = 4  # sessions whose workers are started together
CORES = 2


def main() -> None:
    options = _options()
    record: list[dict[str, Any]] = []
    while len(record) < options.sessions * (1 + options.affinity):
        record += pack(options, len(record))
        Path(options.record).write_text(json.dumps(record))
    for affinity in (False, True)[: 1 + options.affinity]:
        print(summary([one for one in record if one["affinity"] is affinity]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--budget", type=float, default=7.0, help="seconds for each session")
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--affinity", action="store_true")
    return parser.parse_args()


def pack(options: argparse.Namespace, number: int) -> list[dict[str, Any]]:
    """Some sessions, each in processes of its own."""
    begun_s = time.monotonic()
    device = torch.device(options.device)
    workload = resolve(options.model, None, device=device, batch_size=options.batch, seed=number)
    with Crew() as crew:
        files = crew.write("workload.pt", workload), crew.write("half.pt", Half())
        workers = [crew.start(*files) for _ in range(PACK * len(NAMES) * REPLICAS)]
        crew.wait_until_loaded()
        with ThreadPoolExecutor() as pool:
            seats = list(pool.map(RemoteSeat, workers))
        ready_s = time.monotonic() - begun_s
        size = len(NAMES) * REPLICAS
        crews = [seats[i : i + size] for i in range(0, len(seats), size)]
        found = [one for i, crew in enumerate(crews) for one in arms(options, crew, number + i)]
    shown = ", ".join(f"{one['value']:.4f} {one['verdict']}" for one in found)
    print(f"{ready_s:.0f} + {time.monotonic() - begun_s - ready_s:.0f} s: {shown}", flush=True)
    return found


def arms(
    options: argparse.Namespace, seats: Sequence[RemoteSeat], seed: int
) -> list[dict[str, Any]]:
    """One session, and the same workers again on the same cores where that is asked for."""
    found = [session(options, seats, seed, affinity=False)]
    if options.affinity:
        for seat in seats:
            confine(seat.worker.pid)
        found.append(session(options, seats, seed, affinity=True))
    return found


def confine(pid: int) -> None:
    """Let all threads of a process run on the first few cores only."""
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def session(
    options: argparse.Namespace, seats: Sequence[RemoteSeat], seed: int, affinity: bool
) -> dict[str, Any]:
    """The Runner's rounds on two equal rows, and what its statistics say."""
    lanes = [Lane(NAMES[0], list(seats[:REPLICAS])), Lane(NAMES[1], list(seats[REPLICAS:]))]
    floor = _NOISE_FLOOR.get(torch.device(options.device).type, 0.0)
    begun_s = time.monotonic()
    ended_by = run_rounds(lanes, Rules(options.budget, NAMES[0], random.Random(seed), floor=floor))
    rows = {lane.name: lane.blocks for lane in lanes}
    ((interval, verdict, reason),) = verdicts({NAMES[1]: partial(_ratio, rows, floor)}).values()
    return {
        "batch": options.batch,
        "affinity": affinity,
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
        f"batch {record[0]['batch']}, affinity {record[0]['affinity']}: {count} sessions, "
        f"faster or slower in {false}, interval excludes 1 in {excluded}; "
        f"median half-width {widths[count // 2]:.2%}, call {call_s * 1e3:.3g} ms"
    )


if __name__ == "__main__":
    main()
