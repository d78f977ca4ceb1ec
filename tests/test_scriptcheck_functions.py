"""Work that is no module's: operations, compiled and scripted functions, and tools that time."""

from __future__ import annotations

from pathlib import Path

import pytest

from precisionbench.scriptcheck.code_use import code_use, with_body
from precisionbench.scriptcheck.events import Ending
from scripts import confirmed

SETUP = """
import functools, time, timeit, torch
from torch.nn import functional as F
torch.manual_seed(0)
torch.set_num_threads(1)
w, x, y = torch.rand(64, 64), torch.rand(1024, 64), torch.rand(64, 64)

def layers(x, w):
    return F.relu(F.linear(x, w))

@torch.inference_mode()
def decorated(x):
    return layers(x, w)

def timed(function, *args):
    for _ in range(3):
        function(*args)
    start = time.perf_counter()
    for _ in range(400):
        function(*args)
    return time.perf_counter() - start

class Clock:
    def __enter__(self):
        self.start = time.perf_counter()
    def __exit__(self, *_):
        print(time.perf_counter() - self.start)
"""
# The code that is timed, the operations, and how often they run (0 if that is unknown).
TIMED = {
    "functional": ("for _ in range(400): F.linear(x, w)", "linear", 400),
    "operator": ("for _ in range(400): x @ y", "matmul", 400),
    "chain": ("for _ in range(300): torch.relu(torch.mm(x, y)).sum()", "relu, mm, sum", 300),
    "method": ("for _ in range(400): x.matmul(y).softmax(-1)", "matmul, softmax", 400),
    "arithmetic": ("for _ in range(2000): x * x + x", "mul, add", 2000),
    "function": ("for _ in range(400): layers(x, w)", "relu, linear", 400),
    "in place": ("out = x.clone()\nfor _ in range(2000): out += x", "add", 2000),
    "namespace": ("for _ in range(200): torch.fft.fft(x)", "fft_fft", 200),
    "unknown": ("rest = 400\nwhile rest:\n    rest -= 1\n    F.linear(x, w)", "linear", 0),
}


TIMERS = (
    "print(timed(torch.matmul, x, y))",
    "print(timed(lambda: F.linear(x, w)))",
    "print(timed(layers, x, w))",
    "print(timed(decorated, x))",
    "print(timed(functools.partial(torch.matmul, x, y)))",
    "with Clock():\n    for _ in range(400):\n        F.linear(x, w)",
    "print(timeit.timeit('F.linear(x, w)', globals=globals(), number=400))",
    "print(timeit.timeit(lambda: F.linear(x, w), number=400))",
    "print(timeit.Timer('layers(x, w)', globals=globals()).repeat(2, 200))",
)


def timing(code: str) -> str:
    return f"start = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)\n"


def around(code: str) -> str:
    return SETUP + timing(code)


class TestOperations:
    @pytest.mark.slow  # scripts that run for seconds
    def test_operations_are_seen_and_counted(self, check_script):
        check = check_script(SETUP + "".join(timing(code) for code, _, _ in TIMED.values()))
        assert check.breaches == ()
        assert check.ending == Ending("finished", 0)
        seen = [(set(timed.model.split(", ")), timed.calls) for timed in check.timed]
        assert seen == [(set(names.split(", ")), count) for _, names, count in TIMED.values()]
        assert {timed.parameters for timed in check.timed} == {("float32",)}

    @pytest.mark.slow
    def test_they_are_seen_however_they_are_timed(self, check_script):
        check = check_script(SETUP + "\n".join(TIMERS))
        assert check.breaches == ()
        assert sum(timed.calls for timed in check.timed) == 400 * len(TIMERS)

    @pytest.mark.workers_counted
    @pytest.mark.parametrize("timer", [TIMERS[0], TIMERS[4], TIMERS[5]])
    def test_constant_inputs_of_operations_are_found(self, check_script, timer):
        zeros = SETUP.replace("torch.rand(1024, 64)", "torch.zeros(1024, 64)")
        assert confirmed(check_script(zeros + timer)) == ["constant-inputs"]

    @pytest.mark.workers_counted
    def test_gradients_that_are_not_used_are_found(self, check_script):
        source = around("for _ in range(400): out = F.linear(x, w)")
        source = source.replace("\ndef layers", "w.requires_grad_()\ndef layers")
        assert confirmed(check_script(source)) == ["gradients-on"]
        assert (
            check_script(
                source.replace("out = F.linear", "with torch.no_grad(): out = F.linear")
            ).breaches
            == ()
        )

    def test_outputs_that_overflow_are_found(self, check_script):
        source = around("for _ in range(400): out = torch.exp(x * 1000)")
        assert confirmed(check_script(source)) == ["non-finite-outputs"]

    @pytest.mark.workers_counted
    def test_what_is_no_work_of_torch_is_no_timing(self, check_script):
        codes = (
            "data = [torch.zeros(3).tolist() for _ in range(1000)]",
            "x.to('cpu').numpy()",
            "time.sleep(0.02)",
            "sum(range(100000))",
        )
        assert check_script(SETUP + "".join(map(timing, codes))).timed == ()


class TestDevice:
    @pytest.mark.parametrize("work", ["F.linear(x, w)", "x @ y", "layers(x, w)", "exec('pass')"])
    def test_work_that_is_pending_when_the_clock_is_read_is_found_without_a_module(
        self, check_script, work
    ):
        source = around(f"for _ in range(20):\n    {work}\n    launch(0.5)")
        source = f"from slow_device import launch, synchronize\n{source}"
        assert confirmed(check_script(source, device="simulated")) == ["missing-synchronize"]
        waits = source.replace("launch(0.5)", "launch(0.001)\nsynchronize()")
        assert check_script(waits, device="simulated").breaches == ()


COMPILED = """
compiled = torch.compile(layers, backend="eager")
"""
SCRIPTED = """
scripted = torch.jit.script(layers)
traced = torch.jit.trace(layers, (x, w))
"""


class TestFunctions:
    @pytest.mark.slow  # compiles
    def test_calls_of_compiled_and_scripted_functions_are_counted(self, check_script):
        functions = "for f in (compiled, scripted, traced): print(timed(f, x, w))\n"
        check = check_script(SETUP + COMPILED + SCRIPTED + functions)
        assert check.breaches == ()
        assert (check.timed[0].model, check.timed[0].calls) == ("layers", 1200)

    @pytest.mark.slow  # compiles
    @pytest.mark.uncounted
    @pytest.mark.parametrize("how", ["script", "trace"])
    def test_modules_of_torchscript_are_timed_as_any_other(self, check_script, how):
        arguments = "net" if how == "script" else "net, x"
        source = f"""
net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Dropout()).eval()
net = torch.jit.{how}({arguments})
frozen = torch.jit.freeze(net)
with torch.inference_mode():
    print(timed(frozen, x))
    print(timed(net.MODE(), x))
"""
        correct = check_script(SETUP + source.replace("MODE", "eval"))
        assert correct.breaches == ()
        assert (correct.timed[0].model, correct.timed[0].calls) == ("Sequential", 800)
        assert not [note for note in correct.notes if "not observed" in note]
        training = check_script(SETUP + source.replace("MODE", "train"))
        assert confirmed(training) == ["train-mode"]

    @pytest.mark.slow  # scripts that run for seconds
    def test_a_compilation_that_is_timed_is_found(self, check_script):
        code = timing("for _ in range(400): compiled(x, w)")
        check = check_script(SETUP + COMPILED + code + code)  # the second one compiles nothing
        assert confirmed(check) == ["no-warm-up"]
        assert [sight.place for sight in check.broken[0].sights] == [check.timed[0].place]

    @pytest.mark.slow  # compiles
    @pytest.mark.uncounted
    def test_compiled_functions_work_as_without_observation(self, check_script):
        source = """
net = torch.nn.Linear(64, 64).eval()

@torch.compile(backend="eager", fullgraph=True)
def inner(x):
    return net(x) + 1

@torch.compile(backend="eager", fullgraph=True)
def outer(x):
    return inner(x) * 2

with torch.no_grad():
    assert torch.equal(outer(x), (net(x) + 1) * 2)
assert torch.equal(torch.vmap(torch.compile(torch.sin, backend="eager"))(x), torch.sin(x))
"""
        assert check_script(SETUP + source).ending == Ending("finished", 0)


BENCHMARK = """
from torch.utils import benchmark
timer = benchmark.Timer("F.linear(x, w)", globals=globals())
"""
CALLS = [
    "timeit(400)",
    "blocked_autorange(min_run_time=0.05)",
    "adaptive_autorange(max_run_time=0.1)",
]
DO_BENCH = """
def do_bench(fn, warmup=25, rep=100):
    fn()
    for _ in range(30):
        fn()
    return 1.0
"""


class TestTools:
    @pytest.mark.slow  # scripts that run for seconds
    @pytest.mark.parametrize("call", CALLS)
    def test_torch_benchmark_is_seen_without_its_warm_up(self, check_script, call):
        clean = check_script(f"{SETUP}{BENCHMARK}print(timer.{call})\n")
        assert clean.breaches == ()
        assert clean.timed[0].model == "linear"
        net = "net = torch.nn.Linear(64, 64).requires_grad_(False)\n"
        module = f"{SETUP}{net}{BENCHMARK}print(timer.{call})\n".replace("F.linear(x, w)", "net(x)")
        assert check_script(module).breaches == ()
        zeros = module.replace("torch.rand(1024", "torch.zeros(256")
        assert confirmed(check_script(zeros)) == ["constant-inputs"]

    @pytest.mark.workers_counted
    def test_autorange_of_timeit_is_one_result(self, check_script):
        source = f"{SETUP}print(timeit.Timer('F.linear(x, w)', globals=globals()).autorange())\n"
        (timed,) = check_script(source).timed
        assert timed.timings == 1

    @pytest.mark.workers_counted
    def test_do_bench_is_one_timing_without_its_first_call(self, check_script):
        Path("triton").mkdir()
        Path("triton/__init__.py").touch()
        Path("triton/testing.py").write_text(DO_BENCH)
        net = "net = torch.nn.Linear(64, 64).eval().requires_grad_(False)\n"
        source = (
            f"{SETUP}{net}from triton.testing import do_bench\nprint(do_bench(lambda: net(x)))\n"
        )
        check = check_script(source)
        assert [one for one in check.breaches if one.gate != "too-short"] == []
        assert check.timed[0].calls == 30
        operation = check_script(source.replace("net(x)", "F.linear(x, w)"))
        assert (operation.timed[0].model, operation.timed[0].calls) == ("linear", 30)
        zeros = check_script(source.replace("torch.rand(1024", "torch.zeros(256"))
        assert confirmed(zeros) == ["constant-inputs"]


class TestClock:
    @pytest.mark.parametrize("clock", ["process_time", "thread_time", "process_time_ns"])
    def test_cpu_time_is_the_wrong_clock(self, check_script, clock):
        source = around(TIMED["function"][0]).replace("perf_counter", clock)
        check = check_script(source)
        assert confirmed(check) == ["wrong-clock"]
        assert f"time.{clock} counts the CPU time" in check.broken[0].sights[0].says

    @pytest.mark.parametrize("clock", ["monotonic", "monotonic_ns", "perf_counter_ns", "time"])
    def test_clocks_of_elapsed_time_are_right(self, check_script, clock):
        source = around(TIMED["function"][0]).replace("perf_counter", clock)
        assert check_script(source).breaches == ()

    def test_cpu_time_beside_elapsed_time_is_wanted(self, check_script):
        source = around(TIMED["function"][0])
        source = source.replace(
            "start = time.perf_counter()\nfor",
            "cpu = time.process_time()\nstart = time.perf_counter()\nfor",
        )
        source += "print(time.process_time() - cpu)\n"
        assert check_script(source).breaches == ()

    def test_cpu_time_within_elapsed_time_of_the_same_calls_is_wanted(self, check_script):
        source = """
start = time.perf_counter()
cpu = time.process_time()
for _ in range(400): layers(x, w)
cpu = time.process_time() - cpu
print(time.perf_counter() - start, cpu)
"""
        check = check_script(SETUP + source)
        assert check.breaches == ()
        assert sum(timed.timings for timed in check.timed) == 2

    def test_cpu_time_within_the_elapsed_time_of_more_than_that_is_wrong(self, check_script):
        source = """
net = torch.nn.Linear(64, 64).eval()
x = torch.rand(8, 64)
net(x)
begun = time.perf_counter()
net(x)
start = time.process_time()
for _ in range(400): net(x)
print(time.process_time() - start)
print(time.perf_counter() - begun)
"""
        check = check_script(SETUP + source)
        assert "wrong-clock" in confirmed(check)
        assert sum(timed.timings for timed in check.timed) == 1


class TestSource:
    """What a piece of source uses."""

    def test_repetitions_by_ranges_and_names(self):
        source = "for _ in range(20):\n    for b in batches:\n        f(b)\n"
        (use,) = [use for use in code_use(source, 1, 3).uses if use.name == "f"]
        assert sorted(map(str, use.ranges)) == ["20", "batches"]
        assert code_use(source, 3, 3).uses[0].ranges == ()

    def test_source_that_is_no_python_uses_nothing(self):
        assert code_use("for", 1, 1).uses == ()
        assert with_body("for", 1) is None
