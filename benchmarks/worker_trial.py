"""Run-to-run variance: the trial that the defaults of the runner are based on.

    python benchmarks/worker_trial.py trial.json [SECONDS]

Fresh workers prepare the same half ResNet-50 and are timed one at a time, in a random order in
each round, with and without one core affinity for all of them. Every call's time is kept, from the
first one after a switch of workers on, so that settling lengths can be compared afterwards; then
every worker prepares its model anew, elsewhere in the device's memory, which separates the effect
of the process from that of the preparation. It uses nothing of the library on purpose.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Batch, number of workers, cores that all workers share (0: no affinity), rounds.
CASES = [
    (100, 12, 0, 14),
    (1, 12, 0, 20),
    (1, 12, 1, 20),
    (100, 12, 2, 14),
    (1, 12, 2, 20),
    (100, 6, 0, 14),
    (1, 6, 0, 20),
    (100, 2, 0, 14),
    (1, 2, 0, 20),
]
CALLS = {100: 20, 1: 50}
WARMUP_S = 1.0


class Worker:
    """A fresh process that answers one line of JSON for each line it is sent."""

    def __init__(self, batch: int, cores: list[int]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", str(batch), json.dumps(cores)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, **message: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def ask(self, **message: Any) -> Any:
        self.send(**message)
        return self.receive()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def serve(batch: int, cores: list[int]) -> None:
    """The worker's side."""
    stages = {"start": time.time()}
    if cores:
        os.sched_setaffinity(0, cores)
    import torch

    stages["torch"] = time.time()
    import torchvision

    stages["torchvision"] = time.time()
    out = sys.stdout
    sys.stdout = sys.stderr
    kept: dict[str, Any] = {}

    def prepare(padding_bytes: int) -> dict[str, Any]:
        kept.clear()
        torch.cuda.empty_cache()
        kept["padding"] = torch.empty(padding_bytes, dtype=torch.uint8, device="cuda")
        torch.manual_seed(0)
        kept["model"] = torchvision.models.resnet50().eval().half().cuda()
        kept["input"] = torch.rand(batch, 3, 224, 224).half().cuda()
        kept["stream"] = torch.cuda.Stream()
        with torch.inference_mode(), torch.cuda.stream(kept["stream"]):
            kept["model"](kept["input"])
        torch.cuda.synchronize()
        return {"address": kept["input"].data_ptr()}

    def block(calls: int) -> list[float]:
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in "ab"] for _ in range(calls)]
        with torch.inference_mode(), torch.cuda.stream(kept["stream"]):
            for start, end in pairs:
                start.record()
                kept["model"](kept["input"])
                end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in pairs]

    print(json.dumps(stages), file=out, flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        begun = time.time()
        answer = prepare(message["padding"]) if "padding" in message else block(message["calls"])
        print(json.dumps({"answer": answer, "wall_s": time.time() - begun}), file=out, flush=True)


def rounds(workers: list[Worker], count: int, calls: int, rng: random.Random) -> list[Any]:
    """Every worker once in each round, in a random order: (worker, times of all calls)."""
    measured = []
    for _ in range(count):
        order = rng.sample(range(len(workers)), len(workers))
        measured.append([(i, workers[i].ask(calls=calls)["answer"]) for i in order])
    return measured


def one_case(batch: int, count: int, cores: int, n_rounds: int) -> dict[str, Any]:
    """Fresh workers, rounds, a second preparation, rounds again."""
    rng = random.Random(len(sys.argv))
    allowed = sorted(os.sched_getaffinity(0))[-cores:] if cores else []
    begun = time.time()
    workers = [Worker(batch, allowed) for _ in range(count)]
    stages = [worker.receive() for worker in workers]
    started_s = time.time() - begun
    case: dict[str, Any] = {"batch": batch, "workers": count, "cores": cores}
    case["stages_s"] = [{key: at - begun for key, at in stage.items()} for stage in stages]
    case["started_s"], case["preparations"] = started_s, []
    for repeat in range(2):
        built = [w.ask(padding=rng.randrange(1, 64) << 21 if repeat else 512) for w in workers]
        warm_until = time.time() + WARMUP_S * count
        while time.time() < warm_until:
            rounds(workers, 1, CALLS[batch], rng)
        measured = rounds(workers, n_rounds if not repeat else n_rounds // 2, CALLS[batch], rng)
        case["preparations"].append({"built": built, "rounds": measured})
    for worker in workers:
        worker.close()
    return case


def import_s() -> float:
    """Seconds that one fresh interpreter needs to import torch, alone on the machine."""
    begun = time.time()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.time() - begun


def main() -> None:
    """Run all cases that the time allows and write what came of each."""
    end = time.time() + float(sys.argv[2] if len(sys.argv) > 2 else 600)
    result: dict[str, Any] = {"import_torch_s": [import_s() for _ in range(3)], "cases": []}
    print(result, flush=True)
    for case in CASES:
        if time.time() > end:
            print("no time for", case, flush=True)
            continue
        begun = time.time()
        result["cases"].append(one_case(*case))
        print(case, round(time.time() - begun, 1), "s", flush=True)
        Path(sys.argv[1]).write_text(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        serve(int(sys.argv[2]), json.loads(sys.argv[3]))
    else:
        main()
