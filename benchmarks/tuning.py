"""Whether `tune` finds what a person finds by hand, in time, and keeps its bound on fresh inputs.

python benchmarks/tuning.py result.json [--model resnet50 ...] [--device cuda:1] [--budget 120]
    [--hand-build-s 120] [--by-hand-s 60] [--processes 2] [--total-s 580] [--samples FOLDER]
    [--tiny]
python benchmarks/tuning.py result.json --again earlier.json [--model resnet50 ...] ...
python benchmarks/tuning.py merged.json --merge first.json second.json

Each model is tuned, and its winner is run on inputs that the search has not seen. Then the winner
and what a person would try by hand (half, channels_last, compile with and without freezing,
reduce-overhead, max-autotune-no-cudagraphs, a CUDA graph) are measured in common rounds, in two
processes each. A row by hand that is not built within `--hand-build-s` is named in the record, and
the others are measured without it. With more than two `--processes`, the winner and the fastest
rows by hand are then measured again, in so many processes each. `--again` does this alone, for the
winners of an earlier record, with more time to build. The record is written after each step, so
that a run which is killed keeps what it has; a step that fails is named, too. `--samples` keeps the
samples of the last rounds, and of those by hand, as files that `precisionbench show` reads. With a
smaller `--max-error` than half keeps, layers are compared and mixed rows tried.

With `--total-s` the run ends in time: models that would not end are left out, and named. For
several GPUs, start one process for each (`--device`), with models and a file of its own, and merge
the files. Weights are random; models need torchvision, and BERT and GPT-2 transformers.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn
from tuning_models import CASES, Case
from tuning_records import Record, different, merged

import precisionbench as pb
from precisionbench.analysis.speedups import per_item_ratio
from precisionbench.backends import discovery
from precisionbench.backends.specs import canonical_spec
from precisionbench.measure.open_rows import OpenRows
from precisionbench.measure.options import Options
from precisionbench.measure.rows import Row, plan
from precisionbench.model.workload import resolve
from precisionbench.results import ComparisonData
from precisionbench.system import environment
from precisionbench.system.memory import free_memory
from precisionbench.torchtools.agreement import compare_tensors

REFERENCE = "eager"
FRESH = 5
FRESH_S = 30.0  # to prepare the winner once more, and run the model in float64
LEAST_BUILD_S = 15.0  # below it, no row by hand is built
BUILD_SHARE = 0.6  # of what is left beside the rounds, for the first processes of rows by hand
CLOSE = 0.9  # rows by hand with this share of the speed of the fastest are measured further
LAYOUT = "memory_format=channels_last"
BY_HAND = (
    "best_by_hand", "share_of_best_by_hand", "latencies_s", "items_per_s_by_hand",
    "errors_by_hand", "not_measured", "by_hand_s", "by_hand_left_out", "failures", "failure",
    "batch", "processes",
)  # fmt: skip


@attrs.frozen
class Times:
    """How long things may take, in seconds.

    Attributes:
        budget_s: of `tune`.
        hand_build_s: to build the rows by hand, and as long again for their second processes.
            Of less time that is left, the first processes have most: the second ones find what is
            compiled on disk. A tenth is left for the end.
        by_hand_s: of the rounds by hand.
        end_s: when everything has to end, by `time.monotonic`.
        processes: of the winner and the fastest rows by hand.
    """

    budget_s: float
    hand_build_s: float
    by_hand_s: float
    end_s: float
    processes: int

    def left_s(self) -> float:
        """Seconds that are left for everything."""
        return self.end_s - time.monotonic()

    def build_s(self, share: float = BUILD_SHARE) -> float:
        """Seconds in which rows by hand can be built now."""
        return min(self.hand_build_s, (self.left_s() - self.by_hand_s) * share)

    def options(self, processes: int) -> Options:
        """Of the rounds by hand."""
        return Options(
            replicas=processes, evidence=False, passes=False, budget_s=self.by_hand_s, ranked=True
        )


@attrs.frozen
class Tried:
    """A model that is tuned.

    Attributes:
        case: what it is.
        model: as it was built.
        inputs: of a batch.
        device: where it runs.
        samples: file for the samples of a step, by its name; None keeps none.
    """

    case: Case
    model: nn.Module
    inputs: torch.Tensor
    device: torch.device
    samples: Callable[[str], Path] | None

    @classmethod
    def of(
        cls, case: Case, batch: int, device: torch.device, samples: Callable[[str], Path] | None
    ) -> Tried:
        """The model with random weights and inputs, the same in each run."""
        torch.manual_seed(0)
        return cls(case, case.build().eval(), case.inputs(batch), device, samples)

    def keep(self, data: ComparisonData, step: str) -> None:
        """Write the samples of a step, if wanted."""
        if self.samples:
            pb.Comparison(data).save(self.samples(step))

    def tuned(self, budget_s: float) -> tuple[pb.Tuned, dict[str, Any]]:
        """What `tune` finds, and its part of the record."""
        begun_s = time.perf_counter()
        steps: list[tuple[float, str]] = []
        best = pb.tune(
            self.model, self.inputs, max_error=self.case.max_error, budget_s=budget_s,
            device=self.device, journal=None,
            on_progress=lambda one: note_step(steps, one),
        )  # fmt: skip
        elapsed_s = time.perf_counter() - begun_s
        self.keep(best.comparison.data, "tune")
        measured = {row.backend: row.throughput for row in best.comparison}
        throughput = measured.get(best.spec)  # None where it missed the final rounds
        return best, {
            "elapsed_s": elapsed_s,
            "budget_kept": elapsed_s <= 1.1 * budget_s,
            "best": best.spec,
            "choice": best.data.choice,
            "ended_by": best.data.ended_by,
            "speedup": attrs.astuple(best.speedup),
            "error": best.error and attrs.astuple(best.error),
            "items_per_s": throughput and throughput.value,
            "trials": [attrs.asdict(trial) for trial in best.trials],
            "left_out": [attrs.astuple(one) for one in best.left_out],
            "notes": list(best.data.notes),
            "steps": steps,
        }

    def fresh(self, best: pb.Tuned) -> dict[str, Any]:
        """Relative L2 errors on inputs that the search has not seen."""
        batches = [self.case.inputs(len(self.inputs)) for _ in range(FRESH)]
        with best.prepare(self.model, self.inputs, device=self.device) as fast:
            found = [fast(batch.to(self.device)).double().cpu() for batch in batches]
        double = copy.deepcopy(self.model).double().to(self.device)
        errors = []
        with torch.inference_mode():
            for batch, own in zip(batches, found, strict=True):
                wide = batch if self.case.tokens else batch.double()
                expected = double(wide.to(self.device)).cpu()
                errors.append(float((own - expected).norm() / expected.norm()))
        del double
        free_memory()  # the workers of the rows by hand need the room
        return {"fresh_errors": errors, "bound_kept": max(errors) <= self.case.max_error}

    def hand_rows(self) -> list[str]:
        """What a person would try."""
        layout = f",{LAYOUT}" if self.case.has_images else ""
        dtype = "float16" if self.device.type == "cuda" else "bfloat16"
        half, compiled = f"half:dtype={dtype}", f"compile:dtype={dtype}{layout}"
        rows = [half, f"{half}{layout}", compiled, f"{compiled},freezing=true"]
        if self.device.type == "cuda":
            rows += [
                f"{half}{layout},cuda_graph=true",
                f"{compiled},freezing=true,mode=reduce-overhead",
                f"{compiled},freezing=true,mode=max-autotune-no-cudagraphs",
            ]
        return rows

    def by_hand(self, best: str, times: Times) -> dict[str, Any]:
        """The winner beside what a person would try."""
        if times.build_s() < LEAST_BUILD_S:
            return {"by_hand_left_out": f"{max(0.0, times.left_s()):.0f} s were left"}
        begun_s = time.perf_counter()
        specs = [canonical_spec(discovery.make(spec)) for spec in self.hand_rows()]
        rows, _ = plan([*dict.fromkeys([REFERENCE, best, *specs])], REFERENCE)
        workload = resolve(self.model, self.inputs, device=self.device, seed=0)
        with OpenRows.of(workload, None) as open_rows:
            data, missing, errors = measured(open_rows, rows, times)
            self.keep(data, "by-hand")
            by_hand = {
                name
                for name in (REFERENCE, *specs)
                if errors.get(name, math.inf) <= self.case.max_error
            }
            found = compared(data, best, by_hand)
            if times.processes > 2 and best in found["latencies_s"]:
                close = {best, *fastest_of(data, by_hand)}
                again = self.further(open_rows, [row for row in rows if row.name in close], times)
                shares = compared(again, best, by_hand & close)
                found |= {key: shares[key] for key in ("best_by_hand", "share_of_best_by_hand")}
                found["processes"] = {
                    row.backend: len(row.measurement.preparations) for row in again.results
                }
        return {
            **found,
            "errors_by_hand": errors,
            "not_measured": missing,
            "by_hand_s": time.perf_counter() - begun_s,
        }

    def further(self, open_rows: OpenRows, rows: Sequence[Row], times: Times) -> ComparisonData:
        """The winner beside the fastest accurate rows by hand, in more processes."""
        for _ in range(times.processes - 2):
            if times.build_s() >= LEAST_BUILD_S:
                open_rows.open(rows, time.monotonic() + times.build_s())
        names = [row.name for row in rows]
        data = open_rows.measure(names, names[0], times.options(times.processes))
        self.keep(data, "by-hand-further")
        return data


def file_of(folder: Path, model: str, step: str) -> Path:
    """Where the samples of a step are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{model}-{step}.json"


def note_step(steps: list[tuple[float, str]], progress: pb.Progress) -> None:
    """When each step of the search began; what is only repeated is left out."""
    if not steps or steps[-1][1] != progress.step:
        steps.append((round(progress.elapsed_s, 1), progress.step))


def measured(
    open_rows: OpenRows, rows: Sequence[Row], times: Times
) -> tuple[ComparisonData, dict[str, str], dict[str, float]]:
    """Rows in common rounds, in two processes each; why others are not among them; and errors."""
    errors = open_rows.open(rows, time.monotonic() + times.build_s())
    ready = [row for row in rows if row.name in open_rows.replicas]
    if REFERENCE in errors:
        raise errors[REFERENCE]
    open_rows.open(ready, time.monotonic() + times.build_s(share=0.9))
    outputs = {row.name: open_rows.replicas[row.name][0].output for row in ready}
    data = open_rows.measure([row.name for row in ready], REFERENCE, times.options(2))
    failed = {failure.backend: failure.reason for failure in data.failures}
    missing = {**{name: error.reason for name, error in errors.items()}, **failed}
    return data, missing, relative_errors(outputs)


def fastest_of(data: ComparisonData, names: Collection[str]) -> list[str]:
    """Those of some rows that are nearly as fast as the fastest of them."""
    latencies = {row.backend: row.latency.value for row in pb.Comparison(data)}
    able = [name for name in latencies if name in names]
    least = min(latencies[name] for name in able)
    return [name for name in able if least / latencies[name] >= CLOSE]


def relative_errors(outputs: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, float]:
    """The relative L2 error of each row against the float32 row; infinite where it overflowed."""
    expected = outputs[REFERENCE]
    found = {name: compare_tensors(output, expected) for name, output in outputs.items()}
    return {
        name: math.inf if one.nonfinite_count or one.relative_l2 is None else one.relative_l2
        for name, one in found.items()
    }


def compared(data: ComparisonData, best: str, by_hand: Collection[str]) -> dict[str, Any]:
    """The speed of the winner, by that of the fastest accurate row by hand, with its interval."""
    rows = {row.backend: row for row in pb.Comparison(data)}
    accurate = [row for name, row in rows.items() if name in by_hand]
    fastest = min(accurate, key=lambda row: row.latency.value).backend
    share = per_item_ratio(data, fastest, best) if best in rows else None
    return {
        "best_by_hand": fastest,
        "share_of_best_by_hand": share and attrs.astuple(share),
        "latencies_s": {name: row.latency.value for name, row in rows.items()},
        "items_per_s_by_hand": {
            name: row.throughput.value for name, row in rows.items() if row.throughput
        },
    }


def try_model(tried: Tried, entry: dict[str, Any], record: Record, times: Times) -> None:
    """Tune a model, and what follows; the record holds each step that was done."""
    best, found = tried.tuned(times.budget_s)
    print(best, flush=True)
    entry.update(found)
    record.write()
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "fresh inputs": lambda: tried.fresh(best),
        "by hand": lambda: tried.by_hand(best.spec, times),
    }
    take(steps, entry, record)


def try_again(
    tried: Tried, earlier: Mapping[str, Any], entry: dict[str, Any], record: Record, times: Times
) -> None:
    """Measure what a person would try beside the winner of an earlier record."""
    entry.update({key: value for key, value in earlier.items() if key not in BY_HAND})
    take({"by hand": lambda: tried.by_hand(entry["best"], times)}, entry, record)


def take(
    steps: Mapping[str, Callable[[], dict[str, Any]]], entry: dict[str, Any], record: Record
) -> None:
    """Take steps; the record holds what each found, or why it failed."""
    for step, work in steps.items():
        try:
            entry.update(work())
        except Exception as exc:  # what is known without it is kept
            entry.setdefault("failures", {})[step] = f"{type(exc).__name__}: {exc}"
        record.write()


def winners(given: argparse.Namespace, where: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The models of an earlier record that were tuned, by name, as far as they are wanted.

    Raises:
        SystemExit: the record is of another device or version, or holds no such model.
    """
    earlier = json.loads(given.again.read_text())
    if differing := different(earlier["environment"], where):
        raise SystemExit(f"{given.again} was made elsewhere: it differs in {', '.join(differing)}")
    found = {case["model"]: case for case in earlier["cases"] if "best" in case}
    if missing := [name for name in given.model or () if name not in found] or not found:
        raise SystemExit(f"{given.again} has no winner of {missing if found else 'any model'}")
    return {name: found[name] for name in given.model or found}


def case_of(name: str, max_error: float | None) -> Case:
    """The model of a name, with its own bound or another one."""
    case = CASES[name]
    return case if max_error is None else attrs.evolve(case, max_error=max_error)


def run(given: argparse.Namespace) -> None:
    """Try the models for which there is time."""
    device = torch.device(given.device)
    end_s = time.monotonic() + given.total_s
    times = Times(given.budget, given.hand_build_s, given.by_hand_s, end_s, given.processes)
    where = environment.capture(device, ["torchvision", "transformers"])
    record = Record(given.result, attrs.asdict(where))
    earlier = winners(given, json.loads(json.dumps(record.environment))) if given.again else {}
    needed_s = 1.1 * times.budget_s + FRESH_S
    if earlier:
        needed_s = times.by_hand_s + LEAST_BUILD_S / BUILD_SHARE
    for name in earlier or given.model or CASES:
        if times.left_s() < needed_s:
            record.left_out[name] = f"{times.left_s():.0f} s were left of about {needed_s:.0f} s"
            continue
        case, begun_s = case_of(name, given.max_error), time.monotonic()
        batch = 2 if given.tiny else case.batch
        entry = record.begin(model=name, batch=batch, max_error=case.max_error)
        samples = given.samples and partial(file_of, given.samples, name)
        tried = Tried.of(case, batch, device, samples)
        try:
            if earlier:
                try_again(tried, earlier[name], entry, record, times)
            else:
                try_model(tried, entry, record, times)
        except Exception as exc:  # the other models are of use without this one
            entry["failure"] = f"{type(exc).__name__}: {exc}"
        entry["all_s"] = time.monotonic() - begun_s
        record.write()
        shown = {key: entry[key] for key in entry if key not in ("trials", "steps")}
        print(json.dumps(shown, default=str))
    record.write()


def main() -> None:
    """Run, or merge the records of earlier runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path)
    parser.add_argument("--model", action="append", choices=list(CASES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--budget", type=float, default=120.0)
    parser.add_argument("--max-error", type=float, help="in place of each model's own bound")
    parser.add_argument("--hand-build-s", type=float, default=120.0)
    parser.add_argument("--by-hand-s", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--samples", type=Path, metavar="FOLDER")
    parser.add_argument("--total-s", type=float, default=math.inf)
    parser.add_argument("--tiny", action="store_true", help="a batch of 2, to try the script")
    parser.add_argument("--again", type=Path, metavar="FILE", help="rows by hand alone")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="FILE")
    given = parser.parse_args()
    if given.again and given.again.resolve() == given.result.resolve():
        parser.error(f"{given.result} is the earlier record; name a new file")
    for name in given.model or CASES if given.samples else ():
        if kept := next(given.samples.glob(f"{name}-*.json"), None):
            parser.error(f"{kept} exists; name another folder for samples")
    if given.merge:
        merged(given.merge, given.result, CASES).write()
    else:
        run(given)


if __name__ == "__main__":
    main()
