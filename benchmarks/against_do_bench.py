"""Our medians beside triton.testing.do_bench's, in one process, on the same prepared model.

Needs an NVIDIA GPU with Triton and torchvision:

    python benchmarks/against_do_bench.py [FILE.json]

Each pair is repeated in turn, because clocks change between two tools that run in sequence.
It exits with 1 where a ratio is more than 2 % from 1.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch
from triton.testing import do_bench

from precisionbench.backends import discovery
from precisionbench.measure.rounds import run_rounds
from precisionbench.measure.schedule import RowState, Schedule
from precisionbench.measure.worker.local import InlineLauncher
from precisionbench.model.workload import resolve

PAIRS = 5
TOLERANCE = 0.02


def one_case(spec: str, batch_size: int) -> dict[str, Any]:
    """Ratios ours / theirs of the median latency for one backend and batch."""
    workload = resolve("torchvision:resnet50", batch_size=batch_size, device="cuda", seed=0)
    ours_s, theirs_s = [], []
    with InlineLauncher.on_device_of(workload).open(discovery.make(spec)) as session:
        for _ in range(PAIRS):
            row_state = RowState(spec, [session])
            run_rounds([row_state], Schedule(10.0, spec, random.Random(0)))
            ours_s.append(median(block.median_s for block in row_state.blocks))
            theirs_s.append(
                do_bench(session.call, warmup=200, rep=500, return_mode="median") * 1e-3
            )
    ratios = [ours / theirs for ours, theirs in zip(ours_s, theirs_s, strict=True)]
    return {
        "backend": spec,
        "batch_size": batch_size,
        "ours_ms": median(ours_s) * 1e3,
        "do_bench_ms": median(theirs_s) * 1e3,
        "ratio": median(ratios),
        "ratios": ratios,
    }


def main() -> None:
    """Print one line a case, and write all of them where a file is named."""
    cases = []
    for spec in ("eager", "half", "half:memory_format=channels_last"):
        for batch_size in (100, 256):
            case = one_case(spec, batch_size)
            cases.append(case)
            print(
                f"{spec:34} batch {batch_size:3}: ours {case['ours_ms']:8.3f} ms, "
                f"do_bench {case['do_bench_ms']:8.3f} ms, ratio {case['ratio']:.4f}"
            )
    if len(sys.argv) > 1:
        versions = {"gpu": torch.cuda.get_device_name(), "torch": str(torch.__version__)}
        Path(sys.argv[1]).write_text(json.dumps({**versions, "cases": cases}, indent=1) + "\n")
    missed = [case for case in cases if abs(float(case["ratio"]) - 1) > TOLERANCE]
    sys.exit(f"{len(missed)} ratios are more than {TOLERANCE:.0%} from 1" if missed else 0)


if __name__ == "__main__":
    main()
