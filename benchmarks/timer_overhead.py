"""What the Timer adds to each call on the host, and what importing the library costs.

    python benchmarks/timer_overhead.py

The call does nothing, so whatever a call takes inside a block beyond a bare loop is the Timer's.
Both are timed in turn, in one run. It exits with 1 where a limit is missed: 10 us a call, 100 ms
for an import that brings no torch, and for --help.
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

import torch

from precisionbench.torchtools.timer import Timer, clock_for

CALLS = 1000
REPEATS = 15
MAX_OVERHEAD_S = 10e-6
MAX_IMPORT_S = 0.1


def nothing() -> None:
    """A call of no work."""


def bare_loop_s() -> float:
    """Seconds per call of a plain loop."""
    start = time.perf_counter()
    for _ in range(CALLS):
        nothing()
    return (time.perf_counter() - start) / CALLS


def marked_loop_s(timer: Timer) -> float:
    """Seconds per call of the host's time between the first mark and the last."""
    marks, _ = timer.clock.marks(2 * CALLS)
    start = time.perf_counter()
    for begin, end in zip(marks[::2], marks[1::2], strict=True):
        begin()
        nothing()
        end()
    seconds = (time.perf_counter() - start) / CALLS
    timer.clock.wait()
    return seconds


def import_s(statement: str) -> float:
    """Seconds that a fresh interpreter needs for a statement beyond an empty one."""

    def run(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        return time.perf_counter() - start

    return median(run(statement) - run("pass") for _ in range(9))


def main() -> None:
    """Print the figures."""
    missed: list[str] = []
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for name in devices:
        timer = Timer(clock_for(torch.device(name)))
        with timer.clock.active():
            extra = [marked_loop_s(timer) - bare_loop_s() for _ in range(REPEATS)]
        print(f"{name}: the Timer adds {median(extra) * 1e6:.2f} us to a call on the host")
        missed += [name] if median(extra) > MAX_OVERHEAD_S else []
    help_text = "from precisionbench.cli import main; main(['--help'], standalone_mode=False)"
    statements = {
        "import precisionbench": "import precisionbench",
        "precisionbench --help": help_text,
    }
    for what, statement in statements.items():
        seconds = import_s(statement)
        print(f"{what}: {seconds * 1e3:.0f} ms")
        missed += [what] if seconds > MAX_IMPORT_S else []
    sys.exit(f"over the limit: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
