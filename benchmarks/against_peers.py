"""Other tools and this one on the same GPU: false verdicts on equal code, and the time they take.

Needs an NVIDIA GPU with torchvision and Triton; NVIDIA's cuda-bench is included if installed:

    python benchmarks/against_peers.py record.json [--processes 8] [--repeats 12] [--ours ALARMS]

Two questions, for `triton.testing.do_bench`, `torch.utils.benchmark`, `cuda-bench` and us:

1. Half ResNet-50 against itself at batches 1 and 100, in one process and across fresh ones. One
   rule for all: the 95 % interval of the ratio of medians, bootstrapped for tools that give none,
   judged by `statistics.verdict_of`; false is `faster` or `slower`. Ours across fresh processes
   is what `benchmarks/false_alarms.py` has recorded (`--ours`).
2. `half` against `half:memory_format=channels_last` at batch 100: the time until a tool's own
   interval is +-0.5 % wide, and until an interval over processes is (Student's t over the
   log ratios of fresh processes, three at least). Starting processes is counted apart.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import precisionbench as pb
from precisionbench.analysis.speedups import ratio_of
from precisionbench.backends.half import Half
from precisionbench.measure.rounds import run_rounds
from precisionbench.measure.schedule import RowState, Schedule
from precisionbench.measure.worker.local import InlineLauncher
from precisionbench.model.workload import resolve
from precisionbench.results.latency import known_noise_floor
from precisionbench.statistics import Interval, verdict_of
from precisionbench.system import cpu_affinity

BATCHES = (1, 100)
TARGET = 0.005
RESAMPLES = 1000
OURS_S = 3.0  # for one of our sessions in one process
NOISE_FLOOR = known_noise_floor("cuda")
Call = Callable[[], object]


def main() -> None:
    options = _options()
    if options.child is not None:
        child(options.child, options.ours_sessions)
        return
    for record in measured(options):
        Path(options.record).write_text(json.dumps(record))
    print(report(record, options.ours))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=12, help="pairs of one process, times two")
    parser.add_argument("--ours-sessions", type=int, default=4)
    parser.add_argument("--compares", type=int, default=1)
    parser.add_argument("--ours", help="what false_alarms.py has recorded")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


# --- one process ----------------------------------------------------------------------------------


def models() -> dict[str, Call]:
    """The calls that all tools time, by name."""
    import torchvision

    def call(batch: int, memory_format: torch.memory_format) -> Call:
        torch.manual_seed(0)
        model = torchvision.models.resnet50().eval().half().cuda().to(memory_format=memory_format)
        x = torch.rand(batch, 3, 224, 224, device="cuda").half().to(memory_format=memory_format)

        def forward() -> object:
            with torch.inference_mode():
                return model(x)

        forward()
        return forward

    plain = torch.contiguous_format
    calls = {f"half {batch}": call(batch, plain) for batch in BATCHES}
    return {**calls, "channels_last 100": call(100, torch.channels_last)}


def child(repeats: int, ours_sessions: int) -> None:
    """Prepare, report that, wait for the start, and print the result of every tool."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # NVBench prints natively
    calls = models()
    print("ready", file=out, flush=True)
    sys.stdin.readline()
    warm(calls)
    names = [name for name in calls for _ in range(repeats if name.startswith("half") else 1)]
    figures = []
    for name in random.sample(names, len(names)):
        for tool in (do_bench, torch_timer):
            figures.append(timed(tool, name, calls[name]))
    figures += cuda_bench([(name, calls[name]) for name in random.sample(names, len(names))])
    ours = [one for _ in range(ours_sessions) for batch in BATCHES for one in [in_process(batch)]]
    print(json.dumps({"figures": figures, "ours": ours}), file=out, flush=True)


def warm(calls: dict[str, Call]) -> None:
    end_s = time.monotonic() + 1.0
    while time.monotonic() < end_s:
        for call in calls.values():
            call()
        torch.cuda.synchronize()


def timed(tool: Callable[[Call], Sequence[float]], name: str, call: Call) -> dict[str, Any]:
    begun_s = time.monotonic()
    samples = tool(call)
    took_s = time.monotonic() - begun_s
    return {"tool": tool.__name__, "name": name, "samples": list(samples), "took_s": took_s}


def do_bench(call: Call) -> Sequence[float]:
    from triton import testing

    return [ms * 1e-3 for ms in testing.do_bench(call, return_mode="all")]


def torch_timer(call: Call) -> Sequence[float]:
    from torch.utils import benchmark

    timer = benchmark.Timer("call()", globals={"call": call})
    return [float(s) for s in timer.blocked_autorange(min_run_time=0.2).times]


def cuda_bench(named: Sequence[tuple[str, Call]]) -> list[dict[str, Any]]:
    """NVBench runs what is registered once for each process, in one go."""
    try:
        from cuda import bench
        from cuda.bench.results import BenchmarkResult
    except ImportError:
        return []
    took: dict[str, float] = {}

    def benchmark(key: str, call: Call) -> Callable[[Any], None]:
        def launch(launch: Any) -> None:
            stream = torch.cuda.ExternalStream(launch.get_stream().addressof())
            with torch.cuda.stream(stream):
                call()

        def run(state: Any) -> None:
            begun_s = time.monotonic()
            state.exec(launch, batched=False)
            took[key] = time.monotonic() - begun_s

        return run

    for index, (_, call) in enumerate(named):
        bench.register(benchmark(f"b{index}", call)).set_name(f"b{index}")
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "found.json")
        try:
            bench.run_all_benchmarks(
                ["peers", "--devices", "0", "--jsonbin", file, "--timeout", "2", "--quiet"]
            )
            found = BenchmarkResult.from_json(file)
        except Exception as exc:  # the others' figures are worth keeping
            print(f"cuda-bench failed: {exc}")
            return []
        return [
            {
                "tool": "cuda_bench",
                "name": name,
                "samples": list(state.samples or ()),
                "took_s": took[f"b{index}"],
            }
            for index, (name, _) in enumerate(named)
            for state in found[f"b{index}"]
        ]


def in_process(batch: int) -> dict[str, Any]:
    """Our rounds over the same backend twice in one process, with the floor that we add then."""
    workload = resolve("torchvision:resnet50", batch_size=batch, device="cuda", seed=0)
    launcher = InlineLauncher.on_device_of(workload)
    begun_s = time.monotonic()
    with launcher.open(Half()) as first, launcher.open(Half()) as second:
        row_states = [RowState("a", [first]), RowState("b", [second])]
        run_rounds(row_states, Schedule(OURS_S, "a", random.Random(), noise_floor=NOISE_FLOOR))
    rows = {row_state.name: row_state.blocks for row_state in row_states}
    interval = ratio_of(rows, "a", "b", 0.95, NOISE_FLOOR)
    return {
        "batch": batch,
        "interval": [interval.value, interval.low, interval.high],
        "took_s": time.monotonic() - begun_s,
    }


# --- all processes --------------------------------------------------------------------------------


def measured(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Fresh processes that load side by side and measure one at a time; the record as it grows."""
    begun_s = time.monotonic()
    children = [started(options.record, options.repeats, options.ours_sessions)]
    answer(children[0])
    alone_s, begun_s = time.monotonic() - begun_s, time.monotonic()
    children += [started(options.record, 2, 0) for _ in range(options.processes)]
    for one in children[1:]:
        answer(one)
    starting_s = time.monotonic() - begun_s
    print(f"{len(children)} processes ready after {starting_s:.1f} s", flush=True)
    record: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "alone_s": alone_s,
        "starting_s": starting_s,
        "processes": [],
        "compares": [],
    }
    for one in children:
        one.stdin.write("go\n")
        one.stdin.flush()
        record["processes"].append(json.loads(answer(one)))
        one.wait()
        print(f"a process is through after {time.monotonic() - begun_s:.0f} s", flush=True)
        yield record
    for _ in range(options.compares):
        record["compares"].append(compared())
        yield record


def started(record: str, repeats: int, ours_sessions: int) -> Any:
    command = [sys.executable, __file__, record, "--child", str(repeats)]
    return subprocess.Popen(
        [*command, "--ours-sessions", str(ours_sessions)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def answer(one: Any) -> str:
    line = one.stdout.readline()
    if not line:
        raise SystemExit("a process died; what it said is above")
    return str(line)


def compared() -> dict[str, Any]:
    """Ours, as a user calls it, with the time at which the interval was narrow enough."""
    rows = ("half", "half:memory_format=channels_last")
    marks: list[float] = []
    begun_s = time.monotonic()
    comparison = pb.compare(
        "torchvision:resnet50",
        backends=rows,
        reference="half",
        batch_size=100,
        device="cuda",
        on_progress=lambda progress: (
            marks.append(time.monotonic())
            if progress.stage == "measuring" and not progress.backend
            else None
        ),
    )
    took_s = time.monotonic() - begun_s
    blocks = {name: comparison[name].measurement.blocks for name in rows}
    widths = []
    for count in range(6, len(marks) + 1):
        some = {name: [b for b in blocks[name] if b.round < count] for name in rows}
        widths.append((count, ratio_of(some, *rows, 0.95, NOISE_FLOOR).relative_half_width))
    reached = next((count for count, width in widths if width <= TARGET), None)
    row = comparison[rows[0]]
    return {
        "took_s": took_s,
        "first_round_s": marks[0] - begun_s,
        "reached_s": None if reached is None else marks[reached - 1] - begun_s,
        "rounds": len(marks),
        "half_width": widths[-1][1] if widths else math.inf,
        "ended_by": row.measurement.ended_by,
        "speedup": comparison.speedup(rows[1]).value,
        "device_share": {
            name: (comparison[name].device_s or math.nan) / comparison[name].latency.value
            for name in rows
        },
    }


# --- what it comes to -----------------------------------------------------------------------------


def bootstrapped(base: Sequence[float], other: Sequence[float]) -> Interval:
    """The ratio of medians with the percentile interval of independent resamples."""
    rng = np.random.default_rng(0)
    medians = [
        np.median(rng.choice(np.asarray(samples), (RESAMPLES, len(samples))), axis=1)
        for samples in (base, other)
    ]
    low, high = np.quantile(medians[0] / medians[1], (0.025, 0.975))
    value = statistics.median(base) / statistics.median(other)
    return Interval(value, min(float(low), value), max(float(high), value))


def pairs_of(record: dict[str, Any], tool: str, name: str) -> tuple[list[Any], list[Any]]:
    """Pairs of figures of one process, and of two fresh processes."""
    by_process = [
        [f["samples"] for f in one["figures"] if (f["tool"], f["name"]) == (tool, name)]
        for one in record["processes"]
    ]
    inside = [(one[i], one[i + 1]) for one in by_process for i in range(0, len(one) - 1, 2)]
    firsts = [one[0] for one in by_process if one]
    return inside, list(itertools.combinations(firsts, 2))


def false_verdicts(intervals: Sequence[Interval]) -> str:
    false = sum(verdict_of(one)[0].value in ("faster", "slower") for one in intervals)
    strict = sum(one.excludes_1 for one in intervals)
    return f"{false}/{strict} of {len(intervals)}" if intervals else "-"


def report(record: dict[str, Any], alarms: str | None) -> str:
    tools = sorted({f["tool"] for one in record["processes"] for f in one["figures"]})
    lines = ["false verdicts / interval excludes 1, of how many", ""]
    lines.append("| tool | batch | in one process | across fresh ones |")
    lines.append("|---|---:|---:|---:|")
    for tool, batch in itertools.product(tools, BATCHES):
        inside, across = pairs_of(record, tool, f"half {batch}")
        cells = [
            false_verdicts([bootstrapped(*pair) for pair in pairs]) for pairs in (inside, across)
        ]
        lines.append(f"| {tool} | {batch} | {cells[0]} | {cells[1]} |")
    fresh = json.loads(Path(alarms).read_text()) if alarms else []
    for batch in BATCHES:
        inside = [
            Interval(*one["interval"])
            for process in record["processes"]
            for one in process["ours"]
            if one["batch"] == batch
        ]
        across = [
            Interval(one["value"], one["low"], one["high"])
            for one in fresh
            if (one["batch"], one["cores"]) == (batch, cpu_affinity.SHARED_CORES)
        ]
        lines.append(f"| ours | {batch} | {false_verdicts(inside)} | {false_verdicts(across)} |")
    return "\n".join([*lines, "", *costs(record, tools)])


def costs(record: dict[str, Any], tools: Sequence[str]) -> Iterator[str]:
    """What a ratio +-0.5 % wide takes."""
    yield "half against channels_last at batch 100, until the interval is +-0.5 % wide"
    for tool in tools:
        found = list(ratios(record, tool))
        logs = [math.log(interval.value) for interval, _ in found]
        seconds = [took_s for _, took_s in found]
        centre = math.exp(statistics.mean(logs))
        covering = sum(interval.low <= centre <= interval.high for interval, _ in found)
        own = statistics.median(interval.relative_half_width for interval, _ in found)
        enough = next((k for k in range(3, len(logs) + 1) if t_width(logs[:k]) <= TARGET), None)
        honest = "not reached" if enough is None else f"{sum(seconds[:enough]):.1f} s measuring"
        starting = (
            f"{record['alone_s']:.1f} s each alone, {record['starting_s']:.1f} s side by side"
        )
        yield (
            f"{tool}: its own interval is +-{own:.2%} after {statistics.median(seconds):.2f} s and "
            f"holds the mean of all processes in {covering} of {len(found)}; +-0.5 % over "
            f"{enough or len(logs)} processes: {honest}, besides starting them ({starting})"
        )
    for one in record["compares"]:
        reached = one["reached_s"]
        when = "not reached" if reached is None else f"{reached - one['first_round_s']:.1f} s"
        yield (
            f"ours: +-{one['half_width']:.2%} after {one['rounds']} rounds ({one['ended_by']}), "
            f"{one['took_s']:.1f} s in all; +-0.5 % {when} after the first round, which ended at "
            f"{one['first_round_s']:.1f} s; device busy {one['device_share']}"
        )


def ratios(record: dict[str, Any], tool: str) -> Iterator[tuple[Interval, float]]:
    """Each process's ratio with the tool's own interval, and the seconds it took."""
    for process in record["processes"]:
        rows: dict[str, Any] = {}
        for figure in process["figures"]:
            if figure["tool"] == tool:
                rows.setdefault(figure["name"], figure)
        with contextlib.suppress(KeyError):
            both = [rows["half 100"], rows["channels_last 100"]]
            interval = bootstrapped(*(one["samples"] for one in both))
            yield interval, sum(one["took_s"] for one in both)


def t_width(logs: Sequence[float]) -> float:
    from scipy.special import stdtrit

    t = float(stdtrit(len(logs) - 1, 0.975))
    return t * statistics.stdev(logs) / math.sqrt(len(logs))


if __name__ == "__main__":
    main()
