"""What starting four workers costs beside one `import torch` in a fresh interpreter.

    python benchmarks/start_up.py

It exits with 1 where four workers need more than 1.5 times as long on a machine of 8 or more cores.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

import torch
from torch import nn

from precisionbench.backends.eager import Eager
from precisionbench.measure.worker.pool import WorkerPool
from precisionbench.model.workload import resolve

WORKERS = 4
TIMES = 5
LIMIT = 1.5
CORES = 8


def import_s() -> float:
    begun_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - begun_s


def workers_s() -> tuple[float, float]:
    """Seconds until all four have imported, and until all have loaded a model and the device."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    workload = resolve(nn.Linear(8, 8), torch.rand(8, 8), device=device, batch_size=None, seed=0)
    with WorkerPool() as pool:
        files = pool.write("workload.pt", workload), pool.write("backend.pt", Eager())
        begun_s = time.perf_counter()
        workers = [pool.start(*files) for _ in range(WORKERS)]
        for worker in workers:
            worker.wait_until_imported()
        imported_s = time.perf_counter() - begun_s
        pool.wait_until_loaded()
        return imported_s, time.perf_counter() - begun_s


def main() -> None:
    alone_s = statistics.median(import_s() for _ in range(TIMES))
    found = [workers_s() for _ in range(TIMES)]
    imported_s, loaded_s = (statistics.median(one) for one in zip(*found, strict=True))
    cores = len(os.sched_getaffinity(0))
    print(
        f"{cores} cores: import torch {alone_s:.2f} s; {WORKERS} workers started in "
        f"{imported_s:.2f} s ({imported_s / alone_s:.2f} times), with model and device loaded "
        f"{loaded_s:.2f} s"
    )
    sys.exit(cores >= CORES and imported_s > LIMIT * alone_s)


if __name__ == "__main__":
    main()
