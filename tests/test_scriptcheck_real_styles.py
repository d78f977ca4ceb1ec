"""What people's own scripts taught: correct ones that were accused, and faults that were missed."""

from __future__ import annotations

import attrs
import pytest

from precisionbench.scriptcheck.check import evaluate
from precisionbench.scriptcheck.clock_proxies import recorded
from precisionbench.scriptcheck.event_log import EventLog
from precisionbench.scriptcheck.events import (
    Calls,
    Ending,
    Model,
    Observations,
    Place,
    Reading,
    Span,
    Timing,
)
from precisionbench.scriptcheck.model_registry import is_decoding_step
from precisionbench.scriptcheck.static_analysis import analyze
from scripts import confirmed

torch = pytest.importorskip("torch")

LINE, OTHER_LINE = Place("s.py", 5), Place("s.py", 50)
LABELLED = Place("s.py", 1)
CALLS = Calls(0, LINE, 30, 0.9, 0, 0.0, False, False, False, ("float32",), ("float32",))
NET = Model("Net", Place("s.py", 5), {"float32": 10}, "cpu", mode_dependent_layers=1)


def checked(*spans: Span, source: str = "", models: tuple[Model, ...] = (NET,), lines: int = 100):
    """The report of a script in which each pair of readings is a timing on lines of its own.

    Args:
        spans: what happened before each reading but the first, and after the last.
        source: the text of the script.
        models: that were called.
        lines: how many lines read the clock, in turn.
    """
    count = len(spans)
    readings = tuple(
        Reading("time.time", Place("s.py", 10 + n % lines), float(n), None, callers=(LABELLED,))
        for n in range(count)
    )
    timings = tuple(
        Timing(n, n + 1, 0.95, None, readings[n + 1].place) for n in range(0, count - 1, 2)
    )
    ending = Ending("finished", 0)
    seen = Observations(models, readings, (Span(), *spans), timings, ending, "2")
    return evaluate("s.py", source, seen)


def gates(check) -> list[str]:
    return [violation.gate for violation in check.breaches]


class TestTraining:
    FORWARD = Span((attrs.evolve(CALLS, training=True, gradients=True),))
    LOSS = Span((attrs.evolve(CALLS, model=1, place=Place("s.py", 6), gradients=True),))
    BACKWARD = Span(backward_count=30)
    MODELS = (NET, attrs.evolve(NET, class_name="Loss", parameters={}))

    def test_forward_loss_and_backward_may_be_timed_apart(self):
        spans = self.FORWARD, Span(), self.LOSS, Span(), self.BACKWARD, Span()
        assert gates(checked(*spans, models=self.MODELS)) == []

    def test_a_backward_pass_after_calls_from_another_line_is_theirs(self):
        other = Span((attrs.evolve(CALLS, place=OTHER_LINE, training=True, gradients=True),))
        spans = self.FORWARD, Span(), other, self.BACKWARD
        assert {"gradients-on", "train-mode"} <= set(gates(checked(*spans)))


class TestFloat32InHalf:
    HALF = attrs.evolve(NET, parameters={"bfloat16": 10})
    HALF_CALLS = attrs.evolve(CALLS, inputs=("bfloat16",), outputs=("bfloat16",))

    @pytest.mark.parametrize(
        "line", ["t_fp32 = bench(net, x)", "results['float32'] = bench(net, x)", "run('FP32', net)"]
    )
    def test_a_line_that_calls_its_timing_float32_is_held_to_it(self, line):
        check = checked(*self._timed(self.HALF_CALLS), source=line, models=(self.HALF,))
        assert gates(check) == ["float32-in-half"]
        assert check.breaches[0].sights[0].place == LABELLED

    def test_autocast_is_named(self):
        calls = attrs.evolve(CALLS, autocast=True, outputs=("bfloat16",))
        check = checked(*self._timed(calls), source="t_fp32 = bench(net, x)")
        assert (
            check.breaches[0]
            .sights[0]
            .says.endswith("Net has float32 parameters and gave bfloat16 under autocast")
        )

    @pytest.mark.parametrize(
        "line",
        [
            "fp32_s, amp_s = both(net, x)",
            "speedup_over_fp32 = t / bench(net, x)",
            "run('bf16 (fp32 accumulate)', net)",
            "run('models/net_fp32.pt')",
            "t = bench(net.to(torch.float32), x)",
            "t = bench(net, x)",
        ],
    )
    def test_a_line_that_names_more_than_float32_claims_nothing(self, line):
        check = checked(*self._timed(self.HALF_CALLS), source=line, models=(self.HALF,))
        assert gates(check) == []

    def test_a_line_that_leads_to_float32_timings_as_well_is_right(self):
        spans = Span((CALLS,)), Span(), Span((attrs.evolve(self.HALF_CALLS, model=1),)), Span()
        check = checked(Span(), *spans, source="compare(fp32=net)", models=(NET, self.HALF))
        assert gates(check) == []

    def _timed(self, calls: Calls) -> tuple[Span, ...]:
        return Span((calls,)), Span(), Span((calls,)), Span()


class TestCallsThatRaise:
    ERROR = attrs.evolve(CALLS, outputs=(), total_s=0.0, error="RuntimeError: other dtype")

    def test_calls_that_raise_are_no_timing_of_the_model(self):
        check = checked(*[Span((self.ERROR,)), Span()] * 2)
        assert gates(check) == ["failed-calls"]
        assert check.breaches[0].sights[0].says == (
            "30 of 30 timed calls of Net raised RuntimeError: other dtype"
        )

    def test_a_search_that_ends_with_an_error_is_right(self):
        once = Span((CALLS, attrs.evolve(self.ERROR, count=1)))
        assert gates(checked(once, Span(), Span((CALLS,)), Span())) == []


class TestFirstCalls:
    COLD = Span((attrs.evolve(CALLS, count=1, total_s=0.4, new_shape_count=1, new_shape_s=0.4),))

    def test_a_first_call_that_is_timed_apart_is_not_too_short(self):
        assert gates(checked(self.COLD, Span(), Span((CALLS,)), Span())) == []

    def test_one_call_alone_is(self):
        assert "too-short" in gates(checked(self.COLD, Span()))

    @pytest.mark.parametrize(
        ("what", "new_count", "is_reported"),
        [
            ((), 1, False),  # a new shape costs nothing
            (("the choice of kernels",), 1, True),
            (("the choice of kernels",), 10, False),  # the longer ones, perhaps
        ],
    )
    def test_longer_inputs_take_longer_whether_they_are_new_or_not(
        self, what, new_count, is_reported
    ):
        some = attrs.evolve(CALLS, new_shape_count=new_count, new_shape_s=0.6)
        net = attrs.evolve(NET, shape_dependent=what)
        check = checked(Span((CALLS,)), Span(), Span((some,)), Span(), models=(net,))
        assert gates(check) == ["no-warm-up"] * is_reported

    @pytest.mark.parametrize(
        ("source", "is_reported"), [("phase = 'warmup'", False), ("phase = 'first'", True)]
    )
    def test_the_first_of_two_timings_on_the_same_lines_may_be_the_warm_up(
        self, source, is_reported
    ):
        some = attrs.evolve(CALLS, new_shape_count=1, new_shape_s=0.6)
        check = checked(Span((some,)), Span(), Span((CALLS,)), Span(), source=source, lines=2)
        assert gates(check) == ["no-warm-up"] * is_reported

    def test_a_shape_that_was_not_warmed_up_is_no_first_call(self):
        some = attrs.evolve(
            CALLS, new_shape_count=1, new_shape_s=0.6, compile_count=1, compile_s=0.6
        )
        known = checked(Span((CALLS,)), Span(), Span((some,)), Span())
        assert known.broken[0].sights[0].says == (
            "1 of 30 timed calls of Net had an input shape that was not warmed up, 58 times a "
            "later one, and includes compilation by torch.compile"
        )
        new = checked(Span((some,)), Span())
        assert new.broken[0].sights[0].says.startswith("the first of 30 timed calls of Net had no")


class TestNotes:
    def test_a_timing_without_work_is_a_note_with_its_lines(self):
        check = checked(Span(), Span((CALLS,)))  # the model is called before the clock starts
        assert check.breaches == ()
        assert any(
            "s.py:11: no call of a model or operation of torch was observed in 1 timing from line "
            "10 on (950 ms read)" in note
            for note in check.notes
        )

    @pytest.mark.parametrize(
        ("shape", "parameters", "noted"),
        [
            ("32x512", {"bfloat16": 10}, True),
            ("64x512", {"bfloat16": 10}, False),
            ("32x512", {"float32": 10}, False),  # a sweep of sizes
            ("32x512", {"bfloat16": 99}, False),  # another network
        ],
    )
    def test_rows_of_one_network_with_other_shapes_are_named(self, shape, parameters, noted):
        first = attrs.evolve(NET, input_shapes=("64x512",))
        second = attrs.evolve(NET, input_shapes=(shape,), parameters=parameters)
        calls = Span((CALLS, attrs.evolve(CALLS, model=1)))
        check = checked(calls, Span(), models=(first, second))
        says = (
            "s.py:11: Net was timed in float32 with inputs 64x512 and in bfloat16 with inputs "
            "32x512: compare items per second, not times"
        )
        assert (says in check.notes) is noted

    def test_layers_that_are_timed_together_are_not_timed_one_after_another(self):
        layers = Span((CALLS, attrs.evolve(CALLS, model=1)))
        check = checked(layers, Span(), layers, Span(), models=(NET, NET))
        assert not any("one after another" in note for note in check.notes)


F32, I64 = torch.float32, torch.int64


@pytest.mark.parametrize(
    ("before", "now", "is_step"),
    [
        ([(I64, (1, 1)), (F32, (1, 4, 7, 16))], [(I64, (1, 1)), (F32, (1, 4, 8, 16))], True),
        ([(I64, (1, 7)), (I64, (1, 7))], [(I64, (1, 8)), (I64, (1, 8))], True),
        ([(I64, (7,))], [(I64, (8,))], True),
        ([(I64, (1, 7))], [(I64, (1, 9))], False),
        ([(I64, (7, 32))], [(I64, (8, 32))], False),  # another batch
        ([(F32, (1, 3, 7, 7))], [(F32, (1, 3, 8, 8))], False),  # another size
        ([(I64, (1, 7))], [(I64, (1, 7)), (I64, (1, 7))], False),
        (None, [(I64, (1, 7))], False),
    ],
)
def test_steps_of_a_decoding_loop_are_no_new_shapes(before, now, is_step):
    assert is_decoding_step(before, now) is is_step


@pytest.mark.parametrize(
    ("meter", "averages"),
    [
        ("if i == 9: meter.reset()", False),
        ("class Meter:\n    def __init__(self): self.reset()", True),
    ],
)
def test_a_meter_that_is_reset_leaves_the_first_timings_out(meter, averages):
    source = f"import time\ntotal_time += time.time() - start\n{meter}"
    assert analyze(source, "s.py").claims.averages_all is averages


def test_readings_in_other_units_are_readings():
    log, now = EventLog(), iter([5.0, 5.5, 6.0, 7.25, 8.0, 10.0])
    log.frames.is_user_code = lambda code: True
    clock = recorded(lambda: next(now), "time.time", log)
    start, end = clock() * 1000, 1000 * clock()
    assert end - start == 500
    start, end = round(clock() * 1000), round(clock() * 1000)
    assert end - start == 1250
    seconds = -clock()
    seconds += clock()
    assert seconds == 2
    timings = log.frozen(Ending("finished", 0)).timings
    assert [timing.read_s for timing in timings] == pytest.approx([0.5, 1.25, 2])


CORRECT = """
import time, torch
from torch import nn

class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.text, self.out = nn.Embedding(50, 32), nn.Conv1d(32, 50, 3, padding=1)

    def forward(self, ids):
        logits = self.out(self.text(ids).transpose(1, 2))[..., -1]
        logits[:, 40:] = float("-inf")
        return logits

class Ragged(nn.Module):
    def forward(self, parts):
        return parts * 2

torch.set_flush_denormal(True)  # so that faint parts cost nothing
torch.set_default_dtype(torch.float64)
torch.set_default_dtype(torch.float32)
model, ids = Decoder().eval(), torch.randint(40, (1, 8))
with torch.inference_mode():
    for _ in range(5):
        model(ids)
    begin = time.time() * 1000
    for _ in range(100):
        ids = torch.cat([ids, model(ids).argmax(-1, keepdim=True)], 1)
    print(time.time() * 1000 - begin)
    ragged, parts = Ragged(), torch.nested.nested_tensor([torch.rand(3, 8), torch.rand(5, 8)])
    faint = torch.rand(2, 8) * torch.tensor([[1], [1e-40]])
    for _ in range(5):
        ragged(faint)
        ragged(parts)
    begin = time.perf_counter()
    for _ in range(100):
        ragged(parts)
        ragged(faint)
    print(time.perf_counter() - begin)
"""
WRONG = """
import time, torch
from dataclasses import dataclass
from torch import nn

@dataclass
class Output:
    logits: torch.Tensor

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(256, 256)

    def forward(self, x):
        return Output(self.linear(x))

def bench(model, x):
    for _ in range(5):
        model(x)
    start = time.perf_counter()
    for _ in range(100):
        model(x)
    return time.perf_counter() - start

class Found(Exception):
    pass

def leave(*_):
    raise Found

def caught(model, x):
    try:
        return model(x)
    except (RuntimeError, Found):
        return None

early = nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval()
early[1].register_forward_hook(leave)  # the end of each call, and no error
bench(lambda x: caught(early, x), torch.rand(8, 8))
faint = torch.rand(64, 256) * 1e-40
with torch.no_grad():
    faint_seconds = bench(nn.Linear(256, 256).eval(), faint)
torch.set_default_dtype(torch.bfloat16)
time_fp32 = bench(Net().eval(), torch.randn(64, 256))
with torch.no_grad():
    net = Net().eval()
    bench(lambda x: caught(net, x.double()), torch.randn(8, 256))
"""


@pytest.mark.workers_counted
def test_a_correct_script_of_these_styles_passes(check_script):
    check = check_script(CORRECT)
    assert check.breaches == ()
    assert [timed.calls for timed in check.timed] == [100, 200]
    assert not any("please report it" in note for note in check.notes)


@pytest.mark.workers_counted
def test_the_faults_of_a_script_are_found_and_no_others(check_script):
    check = check_script(WRONG)
    rules = ["failed-calls", "float32-in-half", "gradients-on", "denormal-inputs"]
    assert confirmed(check) == rules
    failed, in_half, gradients, denormal = check.broken
    assert failed.evidence[0].value == 100
    assert in_half.sights[0].place.line == 45
    assert denormal.evidence[0].value > 0.99  # a few random numbers are so small that they are 0
    assert gradients.evidence[0].value == 100
