"""How much slower a copy of a model is where torch has more threads than cores (Linux).

python benchmarks/threads_on_few_cores.py [--cores 1] [--layers 180] [--times 3]

torch keeps a thread for each core that it found when it was loaded. The weights of a model are
copied by all of them, in turn with all cores and with a few, and by one thread on the few.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Collection
from pathlib import Path
from statistics import median

import torch
from torch import nn


def let_all_threads_use(cores: Collection[int]) -> None:
    """Restrict each thread of this process."""
    for task in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def copy_s(model: nn.Module, cores: Collection[int], threads: int) -> float:
    """Seconds of a copy on these cores."""
    torch.set_num_threads(threads)
    let_all_threads_use(cores)
    begin_s = time.perf_counter()
    copy.deepcopy(model)
    return time.perf_counter() - begin_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--layers", type=int, default=180)
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    model = nn.Sequential(*[nn.Linear(768, 768) for _ in range(asked.layers)])
    every, threads = sorted(os.sched_getaffinity(0)), torch.get_num_threads()
    few = every[-asked.cores :]
    ways = {
        f"{threads} threads, {len(every)} cores": (every, threads),
        f"{threads} threads, {len(few)} cores": (few, threads),
        f"1 thread, {len(few)} cores": (few, 1),
    }
    copy_s(model, every, threads)  # the first copy asks the system for memory
    rounds = [[copy_s(model, *given) for given in ways.values()] for _ in range(asked.times)]
    found_s = [median(own) for own in zip(*rounds, strict=True)]
    for way, seconds in zip(ways, found_s, strict=True):
        print(f"{way}: {seconds:.3f} s, {seconds / found_s[0]:.1f} times")


if __name__ == "__main__":
    main()
