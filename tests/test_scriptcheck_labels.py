"""What a script says about its rows: labels of precisions, items per second, warm-ups."""

from __future__ import annotations

import json
import pickle
import statistics
import sys
import weakref
from threading import get_ident

import pytest

from precisionbench.scriptcheck.clock_proxies import (
    RecordedNanoseconds,
    RecordedSeconds,
    recorded,
)
from precisionbench.scriptcheck.event_log import CallKey, EventLog
from precisionbench.scriptcheck.events import Ending, LoopValue
from precisionbench.scriptcheck.frames import UserFrames
from precisionbench.scriptcheck.loop_values import LoopValues
from precisionbench.scriptcheck.rate_labels import counts_items, shows_items
from precisionbench.scriptcheck.row_labels import Claim, claim_of_loops
from precisionbench.scriptcheck.static_analysis import analyze
from scripts import confirmed

torch = pytest.importorskip("torch")

HEAD = """
import time
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).eval()

def bench(model, x, count=40):
    with torch.no_grad():
        for _ in range(5):
            model(x)
        start = time.perf_counter()
        for _ in range(count):
            model(x)
        return time.perf_counter() - start

batch_size = 8
x = torch.randn(batch_size, 64)
"""


class TestLabelsInLoops:
    @pytest.mark.parametrize(
        ("values", "claim"),
        [
            ({"name": "fp32"}, Claim.FLOAT32),
            ({"name": "FP32", "dtype": "float32"}, Claim.FLOAT32),
            ({"k": "bf16"}, Claim.HALF),
            ({"name": "row", "amp": "True"}, Claim.HALF),
            ({"name": "row", "training": "True"}, None),
            ({"use_amp": "True", "name": "amp"}, Claim.HALF),
            ({"name": "fp32", "use_amp": "True"}, None),
            ({"name": "fp32", "use_amp": "False"}, Claim.FLOAT32),
            ({"name": "bf16", "use_amp": "False"}, None),
            ({"name": "fp32 vs bf16"}, None),
            ({"name": "fp32", "dtype": "bfloat16"}, None),
            ({"kv_dtype": "float32"}, None),
            ({"weight_dtype": "bf16"}, None),
            ({"name": "resnet"}, None),
        ],
    )
    def test_a_variable_claims_a_precision_where_no_other_one_says_otherwise(self, values, claim):
        found = claim_of_loops(LoopValue(name, text) for name, text in values.items())
        assert (found and found[1]) is claim

    def test_variables_are_read_in_the_loops_around_a_line_only(self, tmp_path):
        source = (
            "for name, size in {'fp32': 1, 'bf16': 2}.items():\n"
            "    helper()\n"
            "helper()\n"
            "table = {dtype: helper() for dtype in (torch.float32,)}\n"
            "for i in range(1):\n"
            "    helper()\n"
        )
        file = tmp_path / "rows.py"
        file.write_text(source)
        values, found = LoopValues(UserFrames()), []
        names = {"helper": lambda: found.append(values.read(sys._getframe(1), 1)), "torch": torch}
        exec(compile(source, str(file), "exec"), names)
        texts = [[(value.name, value.text) for value in one] for one in found]
        assert texts == [[("name", "fp32")], [("name", "bf16")], [], [("dtype", "float32")], []]

    def test_reading_them_keeps_nothing_alive(self):
        class Weights:
            pass

        values = LoopValues(UserFrames())

        def rows():
            for name in ["fp32"]:
                weights = Weights()
                seen = values.read(sys._getframe(), 1)
                alive = weakref.ref(weights)
                del weights
                yield name, seen, alive()

        assert list(rows()) == [("fp32", (LoopValue("name", "fp32"),), None)]

    def test_a_float32_row_of_a_model_that_was_cast_in_place_is_found(self, check_script):
        source = (
            "model = net()\n"
            "models = {'fp32': model, 'bf16': model.bfloat16()}\n"
            "print({name: bench(m, x.bfloat16()) for name, m in models.items()})\n"
        )
        check = check_script(HEAD + source)
        assert confirmed(check) == ["float32-in-half"]
        assert "name = fp32 in the loop" in check.broken[0].sights[0].says

    def test_right_labels_in_a_loop_pass(self, check_script):
        source = (
            "for name, dtype in [('fp32', torch.float32), ('bf16', torch.bfloat16)]:\n"
            "    print(name, bench(net().to(dtype), x.to(dtype)))\n"
            "for name, enabled in [('fp32', False), ('amp', True)]:\n"
            "    with torch.autocast('cpu', torch.bfloat16, enabled=enabled):\n"
            "        print(name, bench(net(), x))\n"
        )
        assert check_script(HEAD + source).breaches == ()


class TestHalfInFloat32:
    OTHER_DEVICE = (
        "kind = 'cuda'\n"
        "t_fp32 = bench(net(), x)\n"
        "with torch.autocast(kind, torch.bfloat16):\n"
        "    t_bf16 = bench(net(), x)\n"
    )

    def test_autocast_for_another_device_is_found_and_no_use_of_cuda(self, check_script):
        check = check_script(HEAD + self.OTHER_DEVICE)
        assert [violation.gate for violation in check.breaches] == ["half-in-float32"]
        assert check.broken[0].sights[0].place.line == len(HEAD.splitlines()) + 4

    @pytest.mark.parametrize(
        "line",
        [
            "class Mixed(nn.Module):\n    def forward(self, x): return self.net(x.half()).float()",
            "model.forward = torch.autocast('cpu')(model.forward)",
            "model = quantize_dynamic(model, dtype=torch.float16)",
            "torch.set_float32_matmul_precision('medium')",
            "import some_engine",
        ],
    )
    def test_a_model_that_may_cast_inside_is_not_accused(self, line):
        assert analyze(line, "s.py").claims.may_cast
        assert not analyze(HEAD + self.OTHER_DEVICE, "s.py").claims.may_cast


class TestItemsPerSecond:
    WRONG = (
        "print(f'{n / seconds:.1f} images/sec (batch {batch_size})')",
        "print('FPS:', 1 / (seconds / n))",
        "samples_per_second = n / seconds; print(round(samples_per_second, 1))",
        "import logging; logging.warning('%s img/s', n * batch_size / seconds * batch_size)",
    )

    def test_a_batch_that_counts_not_at_all_or_twice_is_found(self, check_script):
        source = "\n".join(("n = 41", "seconds = bench(net(), x, n)", *self.WRONG))
        check = check_script(f"{HEAD}{source}\n")
        assert confirmed(check) == ["wrong-item-rate"]
        first = len(HEAD.splitlines()) + 3
        sights = check.broken[0].sights
        assert [sight.place.line for sight in sights] == list(range(first, first + 4))
        assert sights[0].says == (
            "41 timed calls of Sequential with a batch of 8 are 328 items; the figure counts 41: "
            "the batch counts not at all"
        )
        assert sights[3].says.endswith("the figure counts 2,624: the batch counts twice")

    def test_right_rates_other_rates_and_other_batches_pass(self, check_script):
        """The last two: as many steps of one batch as it has items, and 50 points of one sample."""
        source = (
            "n = 41\n"
            "seconds = bench(net(), x, n)\n"
            "mean = sum([seconds, bench(net(), x, n)]) / (2 * n)\n"
            "print(f'{batch_size / mean:.1f} images/s')\n"
            "print(f'{n * batch_size / seconds:.1f} samples/s')\n"
            "print(f'{n / seconds:.1f} batches/s, {n * batch_size / seconds:.1f} images/s')\n"
            "print(f'{n / seconds:.1f} it/s')\n"
            "steps_s = bench(net(), x, batch_size)\n"
            "print(f'{batch_size / steps_s:.1f} images/s')\n"
            "points_s = bench(net(), torch.randn(50, 64))\n"
            "print(40 / points_s, 'samples/s')\n"
        )
        assert confirmed(check_script(HEAD + source)) == []

    @pytest.mark.parametrize(
        ("line", "shows"),
        [
            ("print(f'{a} images/s')", True),
            ("print(f'{a} imgs per second')", True),
            ("images_per_sec = a", True),
            ("print('fps', a)", True),
            ("print(f'{a} images')", False),
            ("print(f'{a} it/s, {b} images/s')", False),
            ("print(f'{a} tokens/s')", False),
        ],
    )
    def test_units_are_read_from_the_statement(self, line, shows):
        assert shows_items(line, 1) is shows

    def test_arithmetic_that_names_a_batch_counts_items(self):
        assert counts_items("print(batch_size / seconds)", 1)
        assert not counts_items("print(runs / seconds, 'batch', batch_size)", 1)


class TestNumbersOfTimings:
    """A timing is a number like any other for the script."""

    @pytest.fixture
    def timings(self) -> list[float | int]:
        log, now = EventLog(), iter(range(0, 9000, 1000))
        log.frames.is_user_code = lambda code: True
        seconds = recorded(lambda: float(next(now)), "time.time", log)
        nanoseconds = recorded(lambda: next(now), "time.time_ns", log, RecordedNanoseconds, 1e-9)
        key = CallKey(0, ("s.py", 1), get_ident(), False, False, False, (), ())
        found = []
        for clock in (seconds, nanoseconds):
            start = clock()
            log.add_call(key, 0.1, False)
            found.append(clock() - start)
        assert all(number.timed is not None for number in found)
        return found

    def test_it_does_what_a_plain_number_does(self, timings):
        for number, plain in zip(timings, (1000.0, 1000), strict=True):
            assert number == plain
            assert (repr(number), str(number)) == (repr(plain), str(plain))
            assert f"{number:,}" == f"{plain:,}"
            assert json.dumps(number) == json.dumps(plain)
            assert type(pickle.loads(pickle.dumps(number))) is type(plain)
            assert round(number) == 1000
            assert number / 7 == plain / 7
            assert 7 / number == 7 / plain
            assert number / 1e6 == plain / 1e6
            assert number // 7 == plain // 7
            assert number * number == plain * plain
            assert sum([number, number]) == 2 * plain
            assert number + 1 == plain + 1
            assert statistics.mean([number, number]) == plain
            assert torch.tensor([number]).item() == plain
            with pytest.raises(TypeError):
                number + "text"
            with pytest.raises(ZeroDivisionError):
                number / 0

    def test_sums_means_and_multiples_carry_the_calls(self, timings):
        seconds, nanoseconds = timings
        assert (sum([seconds, seconds]) / 2 * 1e3).timed.calls == 2
        assert (nanoseconds / 1e9).timed.calls == 1
        assert not hasattr(seconds + 1, "timed")
        assert not hasattr(seconds * seconds, "timed")


class TestWholeMilliseconds:
    SOURCE = """
def now():
    return int(time.time() * 1000)

model = net()
with torch.no_grad():
    model(x)
    start = now()
    for _ in range(50):
        model(x)
    end = now()
    print(end - start)
    other = net().train()
    other(x)
    start = now()
    for _ in range(60):
        other(x)
    print(now() - start)
"""

    def test_they_are_timings_where_the_source_subtracts_them(self, check_script):
        check = check_script(HEAD + self.SOURCE)
        assert check.breaches == ()
        assert [(timed.timings, timed.calls) for timed in check.timed] == [(2, 110)]

    def test_dates_are_no_timing(self, check_script):
        source = "run = int(time.time() * 1000)\nnet()(x)\nprint(f'{int(time.time() * 1000)}.pt')\n"
        assert check_script(HEAD + source).timed == ()

    @pytest.mark.parametrize(
        "convert", [lambda t: t // 1_000_000, lambda t: t * 1e-6, lambda t: t / 1e6]
    )
    def test_nanoseconds_may_be_converted_first(self, convert):
        log, now = EventLog(), iter([5_000_000, 25_000_000])
        log.frames.is_user_code = lambda code: True
        clock = recorded(lambda: next(now), "time.time_ns", log, RecordedNanoseconds, 1e-9)
        start, end = convert(clock()), convert(clock())
        assert end - start == pytest.approx(20)
        timings = log.frozen(Ending("finished", 0)).timings
        assert [timing.read_s for timing in timings] == pytest.approx([0.02])

    def test_int_gives_a_plain_number(self):
        log = EventLog()
        log.frames.is_user_code = lambda code: True
        clock = recorded(lambda: 2.5, "time.time", log, RecordedSeconds)
        assert type(int(clock() * 1000)) is int


class TestTimedWarmUps:
    @pytest.mark.parametrize(
        ("line", "is_warm_up"),
        [
            ("with Timer('warm-up'): pass", True),
            ("warmup_s = bench(model)", True),
            ("print('first call', bench(model))", True),
            ("run_warmup(model)", True),
            ("t = bench(model, warmup=5)", False),
            ("t = bench_with_warmup(model)", False),
            ("run('after warm-up', model)", False),
            ("warm_s = bench(model)", False),
        ],
    )
    def test_a_line_may_call_what_it_times_a_warm_up(self, line, is_warm_up):
        assert bool(analyze(line, "s.py").warm_up_places) is is_warm_up

    def test_a_timer_around_the_warm_up_is_right_and_around_all_calls_is_not(self, check_script):
        source = """
class Slow(nn.Linear):
    loaded = False
    def forward(self, x):
        if not self.loaded:
            time.sleep(0.1)
        self.loaded = True
        return super().forward(x)

class Timer:
    def __init__(self, name):
        self.name = name
    def __enter__(self):
        self.start = time.perf_counter()
    def __exit__(self, *_):
        print(self.name, time.perf_counter() - self.start)

model = Slow(64, 64).eval()
with torch.no_grad():
    with Timer("warm-up"):
        for _ in range(10):
            model(x)
    for _ in range(10):
        with Timer("run"):
            model(x)
"""
        assert check_script(HEAD + source).breaches == ()
        assert "no-warm-up" in confirmed(check_script(HEAD + source.replace("warm-up", "all")))


def test_rows_with_other_thread_counts_are_noted(check_script):
    source = (
        "torch.set_num_threads(1)\n"
        "first = bench(net(), x)\n"
        "torch.set_num_threads(2)\n"
        "second = bench(net().bfloat16(), x.bfloat16())\n"
    )
    notes = check_script(HEAD + source).notes
    assert any("float32 with 1 and in bfloat16 with 2 CPU threads" in note for note in notes)
    same = check_script(HEAD + source.replace("(2)", "(1)")).notes
    assert not any("CPU threads" in note for note in same)


def test_a_start_whose_end_is_left_out_begins_no_timing(check_script):
    source = """
model = net()
times = []
with torch.no_grad():
    for i in range(30):
        start = time.perf_counter()
        model(x)
        if i >= 4:
            times.append(time.perf_counter() - start)
"""
    check = check_script(HEAD + source)
    assert check.breaches == ()
    assert [timed.calls for timed in check.timed] == [26]
