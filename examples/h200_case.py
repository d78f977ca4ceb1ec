"""From the founding script's own number on an H200 to MLPerf's 95,089 images/s.

The figures were measured on an H200 on 2026-11-23, with CUDA events and triton's `do_bench`
(`docs/records/h200-founding-case.json`); this script measures nothing. That machine had no
TensorRT, so a factor between 1 and the ratio of the peaks is assumed for it, and the rest is
unexplained.

    python examples/h200_case.py
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import precisionbench as pb
from precisionbench.diagnosis.gap.ledger import Factor, Kind, Rate, ledger
from precisionbench.reference_data.peaks import devices_named
from precisionbench.statistics import Interval

RECORD = Path(__file__).parents[1] / "docs/records/h200-founding-case.json"
PUBLISHED = "mlperf-v5.0-h200-resnet50-offline"
BATCH, CALLS = 100, 30
# do_bench gives one median: figures are good to about this much from run to run.
NOISE = 0.02


def case() -> pb.GapLedger:
    """The ledger, every rung from the record."""
    record = json.loads(RECORD.read_text())
    printed = BATCH * CALLS / record["founding_script_as_posted"]["printed_s"]["Float32"]
    leaked = _case(record["seed_order_one_process"]["tf32_off"], "Float32")
    at = record["ladder_median_do_bench_images_per_s"]
    small, large = at["batch_100"], at["batch_256"]
    best = "compile reduce-overhead freezing fp16 cl"
    published = pb.published.get(PUBLISHED)
    rate = published.value_per_accelerator
    factors = [
        _measured("wait for the GPU before the clock is read", leaked / printed,
                  "CUDA events around the same loop, over what the script printed (two digits)"),
        Factor(
            "the baseline is not float32", Kind.MEASURED, Interval(1.0, 1.0, 1.0),
            "the same model in a separate process: 3,175 images/s, and 9,881 after Apex O1 in "
            "the same process, with an output in float16",
            "the rate stays, its label changes: it already includes half precision",
            is_confirmed=True,
        ),
        _measured("Apex O1 to half, in a separate process", small["fp16"] / leaked,
                  "half over the leaked row"),
        _measured("memory format: contiguous to channels_last", small["fp16 cl"] / small["fp16"],
                  "half channels_last over half"),
        _measured("engine: eager PyTorch to torch.compile",
                  small["compile fp16 cl"] / small["fp16 cl"], "compiled over eager"),
        _measured("frozen weights, and CUDA graphs", small[best] / small["compile fp16 cl"],
                  "two changes: mode=reduce-overhead with freezing over compiled"),
        _measured("batch: 100 to 256", large[best] / small[best], "the same row at both batches"),
        _int8(),
    ]  # fmt: skip
    found = ledger(
        Rate("Float32 as the founding script prints it", _near(printed, 0.02), str(RECORD.name)),
        Rate(PUBLISHED, Interval(rate, rate, rate), published.source_url),
        factors,
        differences=(
            "the precision differs (published: int8; measured: float16)",
            "the batch differs (published: 2048; measured: 100 and 256)",
            "the engine differs (published: TensorRT; measured: PyTorch, compiled at the end)",
            "the timed region differs (published: MLPerf Offline; measured: calls on the GPU)",
        ),
        notes=(
            "measured by triton's do_bench, which empties the L2 cache before each call",
            "the unexplained factor includes TensorRT, its batch of 2,048 and MLPerf's timing",
        ),
    )
    return pb.GapLedger.of(found)


def _case(rows: list[dict[str, Any]], name: str) -> float:
    return float(next(row["images_per_s"] for row in rows if row["case"] == name))


def _near(value: float, share: float) -> Interval:
    return Interval(value, value * (1 - share), value * (1 + share))


def _measured(name: str, factor: float, source: str) -> Factor:
    return Factor(name, Kind.MEASURED, _near(factor, NOISE), f"{source}; {RECORD.name}")


def _int8() -> Factor:
    """Between 1 and the ratio of the peaks."""
    (h200,) = devices_named("h200-sxm")
    fp16, int8 = (h200.peaks[name] for name in ("fp16", "int8"))
    ratio = int8.value / fp16.value
    return Factor(
        "fp16 to int8", Kind.ASSUMED, Interval(math.sqrt(ratio), 1.0, ratio),
        f"peaks: {fp16.source} [{fp16.status}]; {int8.source} [{int8.status}]",
        "anything between 1 and the ratio of the peaks",
    )  # fmt: skip


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(case())
