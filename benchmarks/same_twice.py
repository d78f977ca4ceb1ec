"""How often `compare` itself calls the same backend different: real calls, as a user makes them.

    python benchmarks/same_twice.py record.json [--sessions 100] [--budget 5] [--device cpu]
        [--inline]

Each session is `compare` of the doctor's convolutions under `["eager", "eager"]`, with every
default but for the time, so in fresh worker processes. It needs no GPU; there
`benchmarks/false_alarms.py` asks the same with processes that are started together.

With `--inline` each session is our rounds over the backend prepared twice in this process, judged
with what processes are known to differ by: what the other tools do in `against_peers.py`.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from functools import partial
from pathlib import Path
from typing import Any

import attrs

import precisionbench as pb
from precisionbench.analysis.speedups import ratio_of
from precisionbench.backends.eager import Eager
from precisionbench.doctor.workloads import convolutions
from precisionbench.measure.rounds import run_rounds
from precisionbench.measure.schedule import RowState, Schedule
from precisionbench.measure.worker.local import InlineLauncher
from precisionbench.model.workload import resolve
from precisionbench.results.latency import known_noise_floor
from precisionbench.statistics import Interval, verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record")
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--budget", type=float, default=5.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--inline", action="store_true")
    options = parser.parse_args()
    record: list[dict[str, Any]] = []
    for number in range(options.sessions):
        record.append((inline_session if options.inline else session)(options, number))
        Path(options.record).write_text(json.dumps(record))
    print(summary(record))


def session(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    begun_s = time.monotonic()
    comparison = pb.compare(
        partial(convolutions, 1),
        backends=["eager", "eager"],
        device=options.device,
        budget_s=options.budget,
        seed=seed,
    )
    found = comparison.speedup("eager#2")
    rounds = len(comparison["eager"].measurement.rounds)
    print(
        f"{seed}: {found.value:.4f} [{found.low:.4f}, {found.high:.4f}] {found.verdict.value}, "
        f"{rounds} rounds, {time.monotonic() - begun_s:.1f} s",
        flush=True,
    )
    return {**attrs.asdict(found), "verdict": found.verdict.value, "rounds": rounds}


def inline_session(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    workload = resolve(partial(convolutions, 1), device=options.device, seed=seed)
    launcher = InlineLauncher.on_device_of(workload)
    noise_floor = known_noise_floor(workload.device.type)
    with launcher.open(Eager()) as first, launcher.open(Eager()) as second:
        row_states = [RowState("a", [first]), RowState("b", [second])]
        run_rounds(
            row_states, Schedule(options.budget, "a", random.Random(seed), noise_floor=noise_floor)
        )
    rows = {row_state.name: row_state.blocks for row_state in row_states}
    ratio = partial(ratio_of, rows, "a", "b", noise_floor=noise_floor)
    ((interval, verdict, reason),) = verdicts({"b": ratio}).values()
    print(f"{seed}: {interval} {verdict.value}", flush=True)
    told = {**attrs.asdict(interval), "verdict": verdict.value, "reason": reason}
    return {**told, "rounds": row_states[0].complete_rounds}


def summary(record: list[dict[str, Any]]) -> str:
    intervals = [Interval(one["value"], one["low"], one["high"]) for one in record]
    false = sum(one["verdict"] in ("faster", "slower") for one in record)
    strict = sum(interval.excludes_1 for interval in intervals)
    widths = sorted(interval.relative_half_width for interval in intervals)
    return (
        f"{len(record)} sessions: faster or slower in {false}, interval excludes 1 in {strict}; "
        f"median half-width {widths[len(widths) // 2]:.1%}"
    )


if __name__ == "__main__":
    main()
