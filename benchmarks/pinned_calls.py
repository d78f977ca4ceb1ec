"""How much slower operations on the CPU are where all threads are pinned, not just the caller.

python benchmarks/pinned_calls.py [--cores 1] [--calls 50] [--times 5]

torch keeps a thread for each core that it found when it was loaded, and divides `values[mask]` of
16384 elements between them. It is timed in turns: with all cores for all threads, with a few for
the thread that calls, as `compare` pins workers, and with a few for all threads. Linux only.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from statistics import median

import torch


def restrict(all_threads: Collection[int], caller: Collection[int]) -> None:
    """Let the threads of this process run on some cores, and the one that calls on its own."""
    for task in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(task.name), all_threads)
    os.sched_setaffinity(0, caller)


def call_s(operation: Callable[[], object], calls: int) -> float:
    """The median latency of some calls in seconds, after one call."""
    operation()
    found_s: list[float] = []
    for _ in range(calls):
        begin_s = time.perf_counter()
        operation()
        found_s.append(time.perf_counter() - begin_s)
    return median(found_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    every = sorted(os.sched_getaffinity(0))
    few = every[-asked.cores :]
    ways = {
        f"all threads on {len(every)} cores": (every, every),
        f"the caller on {len(few)} of them": (every, few),
        f"all threads on {len(few)} of them": (few, few),
    }
    values = torch.rand(1 << 14, dtype=torch.float64)
    mask = values > 0.5
    call_s(lambda: values[mask], asked.calls)  # starts the threads
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(asked.times):
        for way, (others, caller) in ways.items():
            restrict(others, caller)
            found[way].append(call_s(lambda: values[mask], asked.calls))
    first_s, *_ = (median(samples_s) for samples_s in found.values())
    print(f"{torch.get_num_threads()} threads")
    for way, samples_s in found.items():
        taken_s = median(samples_s)
        print(f"{way}: {1e6 * taken_s:.0f} us, {taken_s / first_s:.1f} times")


if __name__ == "__main__":
    main()
