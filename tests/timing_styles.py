"""Correct benchmark scripts in the usual styles, each with a fault that turns it into a wrong one.

They run on a CPU and on a GPU; `test_scriptcheck_styles.py` and `test_gpu_check.py` check them.
"""

from __future__ import annotations

import attrs

# The first call with each shape of inputs is slow, as where kernels are loaded or tuned.
PRELUDE = """
import time
import torch
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
torch.set_num_threads(1)

class Loading(nn.ReLU):
    loaded = ()

    def forward(self, x):
        if x.shape not in self.loaded:
            self.loaded = (*self.loaded, x.shape)
            time.sleep(0.03)
        return super().forward(x)

class Slow(nn.Module):  # for tests on a GPU that need much work
    def forward(self, x):
        if device == "cuda":
            torch.cuda._sleep(2_000_000)
        return x

def net():
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Loading(), nn.Conv2d(8, 8, 3)]
    return nn.Sequential(*layers).to(device).eval()

def batch(size=8, side=48):
    return torch.randn(size, 3, side, side, device=device)

def wait():
    if device == "cuda":
        torch.cuda.synchronize()

model, x = net(), batch()
"""


@attrs.frozen
class Style:
    """A way to write a benchmark.

    Attributes:
        body: what follows the prelude.
        fault: a text of the script and what replaces it in the wrong twin.
        rule: that the twin violates.
    """

    body: str
    fault: tuple[str, str]
    rule: str

    @property
    def correct(self) -> str:
        """The correct script."""
        return PRELUDE + self.body

    @property
    def waits_by_helper(self) -> bool:
        """Whether `wait()` is all that waits for the device."""
        return "wait()" in self.body and "synchronize" not in self.body

    @property
    def wrong(self) -> str:
        """The wrong twin."""
        old, new = self.fault
        assert old in self.correct
        return self.correct.replace(old, new)


CONSTANT = ("torch.randn(", "torch.zeros(")
TRAINING = ("to(device).eval()", "to(device)")

STYLES = {
    "clock": Style(
        """
with torch.no_grad():
    for _ in range(5):
        model(x)
    wait()
    start = time.time()
    for _ in range(40):
        model(x)
    wait()
    print((time.time() - start) / 40)
""",
        ("range(5)", "range(0)"),
        "no-warm-up",
    ),
    "events": Style(
        """
with torch.inference_mode():
    for _ in range(5):
        model(x)
    if device == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        for _ in range(40):
            model(x)
        end.record()
        end.synchronize()
        print(start.elapsed_time(end) / 40)
    else:
        begin = time.perf_counter()
        for _ in range(40):
            model(x)
        print(1e3 * (time.perf_counter() - begin) / 40)
""",
        CONSTANT,
        "constant-inputs",
    ),
    "warm-up in a helper": Style(
        """
def warm_up(function, count=5):
    for _ in range(count):
        function()
    wait()

def measure(function, count=40):
    wait()
    start = time.perf_counter()
    for _ in range(count):
        function()
    wait()
    return (time.perf_counter() - start) / count

@torch.inference_mode()
def run():
    return model(x)

warm_up(run)
print(measure(run))
""",
        ("@torch.inference_mode()", ""),
        "gradients-on",
    ),
    "first timings dropped by a slice": Style(
        """
times = []
with torch.inference_mode():
    for _ in range(30):
        wait()
        start = time.perf_counter()
        model(x)
        wait()
        times.append(time.perf_counter() - start)
print(sum(times[5:]) / len(times[5:]))
""",
        ("times[5:]", "times"),
        "no-warm-up",
    ),
    "first timings dropped by a condition": Style(
        """
total = 0.0
with torch.inference_mode():
    for i in range(30):
        wait()
        start = time.perf_counter()
        model(x)
        wait()
        stop = time.perf_counter()
        if i >= 5:
            total += stop - start
print("mean time", total / 25)
""",
        ("        if i >= 5:\n            total", "        total"),
        "no-warm-up",
    ),
    "statistics by numpy": Style(
        """
import numpy as np
seconds = np.zeros(30)
with torch.inference_mode():
    for _ in range(5):
        model(x)
    for i in range(30):
        wait()
        start = time.perf_counter_ns()
        model(x)
        wait()
        seconds[i] = (time.perf_counter_ns() - start) / 1e9
print(seconds.mean(), seconds.std(), np.percentile(seconds, [50, 90, 99]))
""",
        ("inference_mode", "enable_grad"),
        "gradients-on",
    ),
    "statistics by pandas": Style(
        """
import pandas as pd
rows = []
with torch.no_grad():
    for size in (2, 4, 8):
        x = batch(size)
        for repeat in range(10):
            wait()
            t0 = time.perf_counter()
            model(x)
            wait()
            t1 = time.perf_counter()
            rows.append({"batch": size, "repeat": repeat, "ms": 1e3 * (t1 - t0)})
frame = pd.DataFrame(rows)
print(frame[frame.repeat >= 3].groupby("batch").ms.describe())
""",
        TRAINING,
        "train-mode",
    ),
    "decorator": Style(
        """
import functools

def timed(function):
    @functools.wraps(function)
    def wrapper(*args):
        wait()
        start = time.perf_counter()
        result = function(*args)
        wait()
        print(function.__name__, time.perf_counter() - start)
        return result
    return wrapper

@timed
@torch.no_grad()
def many(x):
    for _ in range(40):
        model(x)

with torch.no_grad():
    model(x)
many(x)
""",
        ("    model(x)\nmany", "    pass\nmany"),
        "no-warm-up",
    ),
    "context manager": Style(
        """
from contextlib import contextmanager

@contextmanager
def timer(label):
    wait()
    start = time.perf_counter()
    yield
    wait()
    print(f"{label}: {time.perf_counter() - start:.4f} s")

model = torch.jit.trace(model, x)
with torch.inference_mode():
    for _ in range(5):
        model(x)
    with timer("40 calls"):
        for _ in range(40):
            model(x)
""",
        CONSTANT,
        "constant-inputs",
    ),
    "timer class": Style(
        """
class Timer:
    def __enter__(self):
        wait()
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_):
        wait()
        self.seconds = time.perf_counter() - self.start

with torch.no_grad():
    for _ in range(5):
        model(x)
    with Timer() as timer:
        for _ in range(40):
            model(x)
print(timer.seconds / 40)
""",
        ("no_grad", "enable_grad"),
        "gradients-on",
    ),
    "benchmark class": Style(
        """
class Benchmark:
    def __init__(self, model, x):
        self.model, self.x = model, x

    def warm_up(self):
        for _ in range(5):
            self.model(self.x)

    @torch.inference_mode()
    def run(self, count=40):
        self.warm_up()
        wait()
        start = time.monotonic()
        for _ in range(count):
            self.model(self.x)
        wait()
        return count / (time.monotonic() - start)

if __name__ == "__main__":
    print(f"{Benchmark(model, x).run():.1f} calls/s")
""",
        ("        self.warm_up()\n", ""),
        "no-warm-up",
    ),
    "loop over batch sizes": Style(
        """
with torch.inference_mode():
    for size in (1, 2, 4, 8):
        x = batch(size)
        for _ in range(3):
            model(x)
        wait()
        start = time.perf_counter()
        for _ in range(20):
            model(x)
        wait()
        print(size, 20 * size / (time.perf_counter() - start))
""",
        ("range(3)", "range(0)"),
        "no-warm-up",
    ),
    "loop over sizes, each timed call by call": Style(
        """
with torch.inference_mode():
    for side in range(20, 40, 2):
        x = batch(2, side)
        for _ in range(2):
            model(x)
        wait()
        start = time.perf_counter()
        model(x)
        wait()
        print(side, time.perf_counter() - start)
""",
        ("range(2)", "range(0)"),
        "new-shapes",
    ),
    "data loader": Style(
        """
from torch.utils.data import DataLoader, TensorDataset
loader = DataLoader(TensorDataset(torch.randn(160, 3, 48, 48)), batch_size=8)
with torch.inference_mode():
    for _ in range(5):
        model(x)
    seconds = count = 0
    for (inputs,) in loader:
        inputs = inputs.to(device)
        wait()
        start = time.perf_counter()
        model(inputs)
        wait()
        seconds += time.perf_counter() - start
        count += len(inputs)
print(count / seconds)
""",
        TRAINING,
        "train-mode",
    ),
    "average meters": Style(
        """
from torch.utils.data import DataLoader, TensorDataset

class AverageMeter:
    sum = count = 0

    def update(self, value, n=1):
        self.sum += value * n
        self.count += n
        self.average = self.sum / self.count

loader = DataLoader(TensorDataset(torch.randn(160, 3, 48, 48)), batch_size=8)
batch_time, data_time = AverageMeter(), AverageMeter()
with torch.no_grad():
    end = time.time()
    for i, (images,) in enumerate(loader):
        data_time.update(time.time() - end)
        output = model(images.to(device))
        wait()
        batch_time.update(time.time() - end)
        end = time.time()
        if i % 10 == 0:
            print(i, batch_time.average, data_time.average)
""",
        TRAINING,
        "train-mode",
    ),
    "warm-up in the same loop": Style(
        """
with torch.inference_mode():
    for i in range(45):
        if i == 5:
            wait()
            start = time.perf_counter()
        model(x)
    wait()
    print((time.perf_counter() - start) / 40)
""",
        ("if i == 5", "if i == 0"),
        "no-warm-up",
    ),
    "end to end from a data loader": Style(
        """
from torch.utils.data import DataLoader, TensorDataset
loader = DataLoader(TensorDataset(torch.randn(160, 3, 48, 48, device=device)), batch_size=8)
with torch.inference_mode():
    for _ in range(5):
        model(x)
    wait()
    start = time.perf_counter()
    for (inputs,) in loader:
        model(inputs)
    wait()
    print(160 / (time.perf_counter() - start), "images/s")
""",
        ("        model(inputs)", "        time.sleep(0.05)\n        model(inputs)"),
        "mostly-other-work",
    ),
    "torch.compile": Style(
        """
def timed(function):
    wait()
    start = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - start

compiled = torch.compile(model[:1], backend="eager", dynamic=False)
with torch.inference_mode():
    print("compilation", timed(lambda: compiled(x)))
    for _ in range(3):
        compiled(x)
    print("mean time", sum(timed(lambda: compiled(x)) for _ in range(20)) / 20)
""",
        ("(lambda: compiled(x)) for _", "(lambda: compiled(batch(1, 60 + i))) for i"),
        "new-shapes",
    ),
    "the first call by the same helper": Style(
        """
def timed(x):
    wait()
    start = time.perf_counter()
    model(x)
    wait()
    return time.perf_counter() - start

with torch.inference_mode():
    print("first call", timed(x))
    times = [timed(x) for _ in range(20)]
print("mean", sum(times) / len(times))
""",
        ('    print("first call", timed(x))\n', ""),
        "no-warm-up",
    ),
    "autocast": Style(
        """
with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16):
    for _ in range(5):
        model(x)
    wait()
    start = time.perf_counter()
    for _ in range(20):
        model(x)
    wait()
    print((time.perf_counter() - start) / 20)
""",
        ("range(5)", "range(0)"),
        "no-warm-up",
    ),
    "warm-up until a time": Style(
        """
with torch.inference_mode():
    deadline = time.perf_counter() + 0.1
    while time.perf_counter() < deadline:
        model(x)
    begin = time.perf_counter()
    while True:
        model(x)
        elapsed = time.perf_counter() - begin
        if elapsed > 0.1:
            break
    wait()
    start = time.perf_counter()
    for _ in range(20):
        model(x)
    wait()
    print((time.perf_counter() - start) / 20)
""",
        CONSTANT,
        "constant-inputs",
    ),
    "as many calls as fit in a time": Style(
        """
with torch.inference_mode():
    for _ in range(5):
        model(x)
    wait()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < 0.1:
        model(x)
        wait()
        count += 1
    elapsed = time.perf_counter() - start
print(count / elapsed)
""",
        TRAINING,
        "train-mode",
    ),
    "median of single calls, fetched": Style(
        """
import statistics
latencies = []
with torch.inference_mode():
    for _ in range(25):
        start = time.perf_counter()
        model(x).sum().item()
        latencies.append(time.perf_counter() - start)
print(statistics.median(latencies))
""",
        ("model(x).sum()", "model(torch.tensor(x.tolist(), device=device)).sum()"),
        "mostly-other-work",
    ),
    "timeit": Style(
        """
import timeit

def run():
    model(x)
    wait()

with torch.inference_mode():
    run()
    print(min(timeit.repeat(run, number=20, repeat=3)) / 20)
""",
        ("inference_mode", "enable_grad"),
        "gradients-on",
    ),
    "torch.utils.benchmark": Style(
        """
from torch.utils import benchmark
with torch.inference_mode():
    timer = benchmark.Timer("model(x)", globals={"model": model, "x": x})
    print(timer.timeit(50).median, timer.blocked_autorange(min_run_time=0.05).median)
""",
        CONSTANT,
        "constant-inputs",
    ),
    "the whole script timed, too": Style(
        """
begin = time.time()
with torch.inference_mode():
    for name in ("first", "second"):
        model = net()
        for _ in range(5):
            model(x)
        wait()
        start = time.perf_counter()
        for _ in range(20):
            model(x)
        wait()
        print(name, time.perf_counter() - start)
print("all", time.time() - begin)
""",
        ("range(5)", "range(0)"),
        "no-warm-up",
    ),
    "starts and ends in lists": Style(
        """
import numpy
starts, ends = [], []
with torch.inference_mode():
    for _ in range(10):
        for _ in range(2):
            model(x)
        wait()
        starts.append(time.perf_counter())
        model(x)
        wait()
        ends.append(time.perf_counter())
print(numpy.subtract(ends, starts).mean())
""",
        ("inference_mode", "enable_grad"),
        "gradients-on",
    ),
    "training step": Style(
        """
model.train()
optimizer = torch.optim.SGD(model.parameters(), 1e-3)

def step():
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()

for _ in range(3):
    step()
wait()
start = time.perf_counter()
for _ in range(20):
    step()
wait()
print((time.perf_counter() - start) / 20)
""",
        CONSTANT,
        "constant-inputs",
    ),
}
