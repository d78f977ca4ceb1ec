"""Why 309 images/s were not 1,941: the founding case, from reported and published figures.

Nothing is measured here. A user reported the five rows of a Jetson AGX Xavier in 2020. Every factor
between them and NVIDIA's number is marked as cited, derived from cited figures, or assumed.

    python examples/founding_case.py [FILE to save the five rows in]
"""

import argparse
import math

import attrs

import precisionbench as pb
from precisionbench.comparison import Comparison
from precisionbench.diagnosis.gap.ledger import Factor, Kind
from precisionbench.results import (
    BackendResult,
    Block,
    ComparisonData,
    Environment,
    Gpu,
    Measurement,
    Preparation,
    TensorInfo,
    WorkloadInfo,
)
from precisionbench.statistics import Interval

BATCH, CALLS = 100, 30
PUBLISHED = "nvidia-blog-agx-xavier-resnet50"
# Row by the published record that reports it, in the order in which they ran in one process.
ROWS = {
    "apex-amp:opt_level=O3": "founding-agxxavier-resnet50-b100-amp-o3",
    "apex-amp:opt_level=O2": "founding-agxxavier-resnet50-b100-amp-o2",
    "apex-amp": "founding-agxxavier-resnet50-b100-amp-o1",
    "apex-amp:opt_level=O0": "founding-agxxavier-resnet50-b100-amp-o0",
    "eager": "founding-agxxavier-resnet50-b100-float32",
}
# Kernel launches that wait at most, and kernels of a call: how far a clock can be ahead that is
# read without waiting (docs/rules.md; 274 to 277 kernels on an H200).
QUEUE, KERNELS = 1024, 275


def reported() -> Comparison:
    """The five rows as a comparison, marked as reported."""
    rows = [_row(name, pb.published.get(record).value) for name, record in ROWS.items()]
    source = pb.published.get(ROWS["eager"])
    xavier = Gpu("Jetson AGX Xavier", "7.2", 0, 8)
    environment = Environment(
        device="cuda:0", gpu=xavier, platform="Linux aarch64", python="not recorded",
        torch="not recorded", cuda=None, cudnn="8.0", packages={}, cpu="not recorded",
        cpu_cores=8, threads=8, jetson="JetPack 4.4", flags={}, power_mode="MAXN",
    )  # fmt: skip
    data = ComparisonData(
        created=f"{source.date}T00:00:00+00:00",
        precisionbench="reported",
        workload=WorkloadInfo(
            model="torchvision:resnet50",
            parameters=25_557_032,
            inputs=(TensorInfo("", (BATCH, 3, 224, 224), "float32"),),
            batch_size=BATCH,
        ),
        environment=environment,
        seed=0,
        launcher="reported",
        reference="eager",
        results=tuple(rows),
        failures=(),
        notes=(
            f"reported, not measured here: {source.source_title}, {source.source_url}",
            "one process, O3 to Float32, without torch.cuda.synchronize; one figure for each row",
        ),
    )
    return Comparison(data)


def _row(name: str, images_per_s: float) -> BackendResult:
    call_s = BATCH / images_per_s
    apex = name.startswith("apex-amp")
    level = name.rpartition("=")[2] if "=" in name else "O1"
    return BackendResult(
        backend=name,
        name="apex-amp" if apex else "eager",
        options={"opt_level": level} if apex else {"precision": "fp32"},
        batch_size=BATCH,
        measurement=Measurement(
            clock="reported",
            resolution_s=1e-3,
            calls_per_sample=CALLS,
            preparations=(Preparation(build_s=0.0, first_call_s=0.0, warmup_calls=3),),
            blocks=(Block(0, 0, 0, (call_s,)),),
            ended_by="rounds",
        ),
    )


def factors() -> list[Factor]:
    """Factors that the ledger cannot derive from pairs of published numbers."""
    unseen = 1 - QUEUE / (KERNELS * CALLS)
    gpu = [pb.published.get(name) for name in (
        "mlperf-v0.7-dividiti-agx-xavier-resnet50-offline",
        "mlperf-v0.5-agx-xavier-resnet50-target-gpu",
    )]  # fmt: skip
    engines = [
        ("mlperf-v0.7-dividiti-agx-xavier-resnet50-offline",
         "mlperf-v0.7-agx-xavier-resnet50-offline"),
        ("mlperf-v0.5-agx-xavier-resnet50-target-gpu",
         "mlperf-v0.5-agx-xavier-resnet50-target-gpu-2dla"),
    ]  # fmt: skip
    volta = [
        (f"nvidia-examples-v100-sxm2-resnet50-b{batch}-mixed", f"gist-v100-resnet50-b{batch}-fp16")
        for batch in (128, 256)
    ]
    synchronised = _between([unseen, 1.0])
    tensorrt = _between([_ratio(*pair) for pair in volta])
    half = pb.published.get(ROWS["apex-amp:opt_level=O3"]).value
    int8 = _over([record.items_per_s or 0.0 for record in gpu], half, synchronised, tensorrt)
    return [
        Factor(
            "the clock was read before the GPU was done",
            Kind.ASSUMED,
            synchronised,
            f"at most {QUEUE} of {KERNELS * CALLS} launches can wait (docs/rules.md)",
            "kernels counted on an H200; the length of the queue was observed by a user",
        ),
        Factor(
            "PyTorch eager to TensorRT",
            Kind.ASSUMED,
            tensorrt,
            _cited(volta),
            "no figure of a Xavier is published; a V100 is of the same generation",
        ),
        Factor(
            "fp16 to int8",
            Kind.ASSUMED,
            int8,
            "; ".join(f"{r.id} ({r.source_url})" for r in gpu),
            "MLPerf's and its configuration's INT8 on the GPU alone, over 308 images/s times the "
            "two factors above, so it is as uncertain as they are",
        ),
        Factor(
            "two DLAs beside the GPU",
            Kind.ASSUMED,
            _between([_ratio(*pair) for pair in engines]),
            _cited(engines),
            "the page does not state which engines ran; NVIDIA's own recipe for this model, "
            "jetson_benchmarks, adds the GPU's and two DLAs' rates",
        ),
    ]  # fmt: skip


def _ratio(before: str, after: str) -> float:
    first, second = (pb.published.get(name).items_per_s or 1.0 for name in (before, after))
    return second / first


def _between(ends: list[float]) -> Interval:
    low, high = min(ends), max(ends)
    return Interval(math.sqrt(low * high), low, high)


def _over(rates: list[float], start: float, *known: Interval) -> Interval:
    """What the known factors leave between a start and some rates."""
    middle = start * math.prod(one.value for one in known)
    low = min(rates) / (start * math.prod(one.high for one in known))
    high = max(rates) / (start * math.prod(one.low for one in known))
    return Interval(math.sqrt(min(rates) * max(rates)) / middle, low, high)


def _cited(pairs: list[tuple[str, str]]) -> str:
    urls = [pb.published.get(after).source_url for _, after in pairs]
    names = [f"{before} to {after}" for before, after in pairs]
    return "; ".join(f"{pair} ({url})" for pair, url in zip(names, urls, strict=True))


def case() -> tuple[Comparison, pb.GapLedger]:
    """The five rows, and the ledger from the one called Float32 to NVIDIA's number."""
    comparison = reported()
    gap = pb.explain_gap(
        comparison, "eager", PUBLISHED, through="apex-amp:opt_level=O3", factors=factors()
    )
    seen = (
        "measured on an H200: after Apex O1, a later Float32 run is in half precision: 3,175 "
        "images/s in a separate process, 9,899 after O1, and an output in float16 "
        "(docs/records/h200-founding-case.json)"
    )
    return comparison, attrs.evolve(gap, notes=(seen, *gap.notes))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?")
    file = parser.parse_args().file
    comparison, gap = case()
    print(comparison, gap, sep="\n\n")
    if file is not None:
        comparison.save(file)
