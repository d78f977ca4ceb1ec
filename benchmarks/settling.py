"""What longer settling before each block changes: intervals, and latencies at the power limit.

python benchmarks/settling.py result.json [--model vit_b_16 ...] [--settle-s 0.02 --settle-s 0.2]
    [--rounds-s 12] [--build-s 90] [--times 2]

The rows of a model (float32, half, compiled and frozen, that as a CUDA graph, `reduce-overhead`)
are prepared once, in two processes each. They are then measured for the same time with each
settling time in turn. Above the usual 20 ms, settling calls may take up to 0.95 of a block. The
record has each row's latency, its spread between processes and within them, how much longer the
last sample of a block takes than the first, and its speed with the interval over that of the last
row, with all samples. Models are those of `benchmarks/tuning.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import attrs
import torch
from tuning_models import CASES, Case

from precisionbench.analysis.speedups import per_item_ratio
from precisionbench.measure import block_plan
from precisionbench.measure.open_rows import OpenRows
from precisionbench.measure.options import Options
from precisionbench.measure.rows import plan
from precisionbench.model.workload import resolve
from precisionbench.results import BackendResult, ComparisonData
from precisionbench.results.grouping import grouped
from precisionbench.system import environment

LONG_SHARE = 0.95
USUAL_S, USUAL_SHARE = block_plan._SETTLE_S, block_plan._MAX_SETTLE_SHARE


def specs_of(case: Case, on_gpu: bool) -> list[str]:
    """The rows of a model."""
    options = f"dtype={'float16' if on_gpu else 'bfloat16'}"
    options += ",memory_format=channels_last" if case.has_images else ""
    frozen = f"compile:{options},freezing=true"
    graphs = [f"{frozen},cuda_graph=true", f"{frozen},mode=reduce-overhead"]
    return ["eager", f"half:{options}", frozen, *(graphs if on_gpu else ())]


def row_record(row: BackendResult) -> dict[str, Any]:
    """What is known of a row."""
    blocks = row.measurement.blocks
    processes = grouped(blocks, lambda block: block.replica)
    medians = {replica: [block.median_s for block in own] for replica, own in processes.items()}
    levels = [median(own) for own in medians.values()]
    within = [stdev(map(math.log, own)) for own in medians.values() if len(own) > 1]
    return {
        "latency_s": median(levels),
        "sd_between": stdev(map(math.log, levels)) if len(levels) > 1 else None,
        "sd_within": mean(within) if within else 0.0,
        "last_over_first": mean(block.samples[-1] / block.samples[0] for block in blocks),
        "rounds": len(row.measurement.rounds),
        "ended_by": row.measurement.ended_by,
        "samples_s": [[block.replica, block.samples] for block in blocks],
    }


def measured(
    open_rows: OpenRows, names: Sequence[str], settle_s: float, rounds_s: float
) -> ComparisonData:
    """The rows, measured with a settling time."""
    block_plan._SETTLE_S = settle_s
    block_plan._MAX_SETTLE_SHARE = LONG_SHARE if settle_s > USUAL_S else USUAL_SHARE
    options = Options.of("thorough", replicas=2, evidence=False, passes=False, budget_s=rounds_s)
    return open_rows.measure(names, names[0], options)


def courses(case: Case, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of a model with each settling time, as often as wanted."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows, _ = plan(specs_of(case, device.type == "cuda"), "eager")
    batch = case.batch if device.type == "cuda" else 2
    workload = resolve(case.build().eval(), case.inputs(batch), device=device, seed=0)
    with OpenRows.of(workload, None) as open_rows:
        for _ in range(2):
            for name, error in open_rows.open(rows, time.monotonic() + given.build_s).items():
                print(f"{name}: {error}", flush=True)
        names = [row.name for row in rows if len(open_rows.replicas.get(row.name, ())) == 2]
        for settle_s in (given.settle_s or [USUAL_S, 0.2]) * given.times:
            begun_s = time.monotonic()
            data = measured(open_rows, names, settle_s, given.rounds_s)
            yield {
                "settle_s": settle_s,
                "elapsed_s": time.monotonic() - begun_s,
                "rows": {row.backend: row_record(row) for row in data.results},
                "over_last": {
                    name: attrs.astuple(per_item_ratio(data, names[-1], name)) for name in names
                },
            }


def show(model: str, found: dict[str, Any]) -> None:
    """Print what one settling time gave."""
    print(f"{model}, {found['settle_s']:g} s of settling, {found['elapsed_s']:.1f} s", flush=True)
    for name, row in found["rows"].items():
        value, low, high = found["over_last"][name]
        print(
            f"  {name[-60:]:60s} {row['latency_s'] * 1e3:.3f} ms, {row['rounds']} rounds, within "
            f"{row['sd_within']:.2%}, end of a block {row['last_over_first'] - 1:+.1%}, "
            f"{value:.3f} ({low:.3f} to {high:.3f}) times as fast as the last row",
            flush=True,
        )


def main() -> None:
    """Write the record after each measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path)
    parser.add_argument("--model", action="append", choices=list(CASES))
    parser.add_argument("--settle-s", action="append", type=float)
    parser.add_argument("--rounds-s", type=float, default=12.0)
    parser.add_argument("--build-s", type=float, default=90.0)
    parser.add_argument("--times", type=int, default=2)
    given = parser.parse_args()
    where = environment.capture(
        torch.device("cuda" if torch.cuda.is_available() else "cpu"), ["torchvision"]
    )
    record: dict[str, Any] = {"environment": attrs.asdict(where), "models": {}}
    for model in given.model or ["vit_b_16", "resnet50"]:
        kept = record["models"].setdefault(model, [])
        for found in courses(CASES[model], given):
            kept.append(found)
            show(model, found)
            given.result.write_text(json.dumps(record, default=str) + "\n")


if __name__ == "__main__":
    main()
