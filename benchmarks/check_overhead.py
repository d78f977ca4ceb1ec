"""How much longer a script takes under `precisionbench check`, start and report included.

    python benchmarks/check_overhead.py [SECONDS]

Each script runs about SECONDS (10) by itself. It runs in turn as it is and under check,
ROUNDS times. It exits with 1 where the median ratio of a script is over 1.3.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROUNDS = 3
MAX_RATIO = 1.3
SCRIPT = """
import sys, time, torch
from torch.nn import functional as F
torch.set_num_threads(1)
net = torch.nn.Sequential(*[torch.nn.Linear(32, 32), torch.nn.ReLU()] * 4).eval()
small, large = torch.rand(32), torch.rand(1024, 1024)
x, w = torch.rand(8, 32), torch.rand(32, 32)
count = int(sys.argv[1])

def operations():
    for _ in range(count):
        y = small + small

def functions():
    for _ in range(count):
        y = F.relu(F.linear(x, w))

def products():
    for _ in range(count):
        y = large @ large

def calls():
    for _ in range(count):
        y = net(x)

def each_call():
    for _ in range(count):
        start = time.perf_counter()
        y = net(x)
        times.append(time.perf_counter() - start)

times = []
with torch.inference_mode():
    start = time.perf_counter()
    CASE()
    print(time.perf_counter() - start)
"""
CASES = ("operations", "functions", "products", "calls", "each_call")
TRIAL_CALLS = 50


def run_s(*command: str) -> tuple[float, str]:
    """Seconds that a command takes, and what it prints."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    if done.returncode not in (0, 1):  # 1: check has found a problem
        raise RuntimeError(done.stderr)
    return time.perf_counter() - start, done.stdout


def ratios(script: Path, length_s: float) -> list[float]:
    """Time under check by the time alone, in each round."""
    trial_calls, trial_s = TRIAL_CALLS, 0.0
    while trial_s < length_s / 20:  # the first calls are slow: too few of them say little
        trial_calls *= 4
        trial_s = float(run_s(str(script), str(trial_calls))[1])
    count = str(max(1, int(trial_calls * length_s / trial_s)))
    found = []
    for _ in range(ROUNDS):
        alone_s, _ = run_s(str(script), count)
        checked_s, _ = run_s("-m", "precisionbench", "check", str(script), count)
        found.append(checked_s / alone_s)
    return found


def main(length_s: float) -> int:
    """Print the ratios of all scripts; returns the exit status."""
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            script = Path(folder) / f"{case}.py"
            script.write_text(SCRIPT.replace("CASE", case))
            found = ratios(script, length_s)
            worst = max(worst, median(found))
            print(f"{case:12s} {median(found):.2f}  ({', '.join(f'{r:.2f}' for r in found)})")
    return int(worst > MAX_RATIO)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0))
