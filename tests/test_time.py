"""`pb.time` and `pb.compare_calls`: on a fake clock, in this process and in workers."""

from __future__ import annotations

import contextlib
import itertools
import time
from functools import partial

import pytest
import torch

import precisionbench as pb
from precisionbench.errors import ExecutionError, RowNotFoundError, SpecError, WorkloadError
from precisionbench.measure.calls.rows import call_rows, title_of
from precisionbench.measure.calls.together import CallsHere
from precisionbench.measure.options import Options

QUICK_S = 0.4  # seconds: budget of measurements in which only the answer's form matters


class FakeClock:
    """A clock that only calls advance; it is also the clock of the budget."""

    name = "fake"
    resolution_s = 1e-9
    min_sample_s = 10e-6

    def __init__(self) -> None:
        self.now_s = 0.0
        self.calls: list[str] = []

    def work(self, name: str, seconds: float):
        def call() -> None:
            self.calls.append(name)
            self.now_s += seconds

        return call

    def marks(self, count):
        readings: list[float] = []

        def mark() -> None:
            readings.append(self.now_s)

        def read() -> list[float]:
            return [end - start for start, end in zip(readings[::2], readings[1::2], strict=True)]

        return [mark] * count, read

    def wait(self) -> None:
        pass

    def active(self):
        return contextlib.nullcontext()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def measured(clock: FakeClock, durations: dict[str, float], **options) -> pb.Comparison:
    """Functions of known duration, compared on the fake clock."""
    calls = {name: clock.work(name, seconds) for name, seconds in durations.items()}
    here = CallsHere(
        call_rows(calls, in_workers=False, keeps_output=False),
        next(iter(calls)),
        Options(launcher="inline", evidence=False, passes=False, **options),
        "calls",
        make_clock=lambda _: clock,
        now=lambda: clock.now_s,
    )
    return here.measure("cpu")


# --- what is measured -----------------------------------------------------------------------------


def test_the_time_of_a_call_is_what_the_clock_reads(clock):
    found = pb.CallTime(measured(clock, {"f": 2e-3}).data)
    assert found.latency.value == pytest.approx(2e-3)
    assert found.p50 == pytest.approx(2e-3)
    assert found.p99 == pytest.approx(2e-3)
    assert (found.clock, found.calls_per_sample) == ("fake", 1)
    assert len(found.samples) == 25 * len(found.blocks)  # blocks of 50 ms


def test_short_calls_share_samples_of_50_us(clock):
    found = pb.CallTime(measured(clock, {"f": 5e-6}).data)
    assert found.calls_per_sample in (10, 11)
    assert found.latency.value == pytest.approx(5e-6)


def test_calls_of_minutes_are_measured_in_three_rounds(clock):
    found = pb.CallTime(measured(clock, {"f": 120.0}).data)
    assert len(found.samples) == 3
    assert found.latency.value == pytest.approx(120.0)
    assert any("3 of at least 12 rounds" in text for text in found.warnings)


def test_a_budget_of_the_users_is_kept(clock):
    found = pb.CallTime(measured(clock, {"f": 120.0}, budget_s=10.0).data)
    assert len(found.samples) == 1
    assert "one sample, so without an interval" in str(found)


def test_functions_are_measured_in_rounds_of_random_order(clock):
    found = measured(clock, {"a": 10e-3, "b": 20e-3})
    speedup = found.speedup("b")
    assert speedup.value == pytest.approx(0.5)
    firsts = [min(row, key=lambda block: block.position) for row in _blocks_by_round(found)]
    assert {block.samples[0] > 15e-3 for block in firsts} == {True, False}


def _blocks_by_round(found: pb.Comparison):
    blocks = sorted(
        (block for row in found for block in row.measurement.blocks), key=lambda b: b.round
    )
    return [list(group) for _, group in itertools.groupby(blocks, key=lambda b: b.round)]


def test_one_process_gives_no_verdict_unless_the_noise_floor_is_known(clock):
    one = measured(clock, {"a": 10e-3, "b": 20e-3}).speedup("b")
    assert (one.verdict, one.reason) == (pb.Verdict.INCONCLUSIVE, "one_process")
    known = measured(clock, {"a": 10e-3, "b": 20e-3}, noise_floor=0.01).speedup("b")
    assert known.verdict is pb.Verdict.SLOWER


def test_the_interval_says_what_it_includes(clock):
    alone = pb.CallTime(measured(clock, {"f": 1e-3}).data)
    assert "within this process only" in alone.covers
    known = pb.CallTime(measured(clock, {"f": 1e-3}, noise_floor=0.01).data)
    assert "noise floor between processes (1.00%)" in known.covers
    assert known.latency.relative_half_width > 0.01


def test_calls_that_become_slower_have_a_warning(clock):
    def slower() -> None:
        clock.now_s += 1e-3 * (1 + clock.now_s)

    clock.work = lambda *_: slower  # type: ignore[method-assign]
    found = pb.CallTime(measured(clock, {"f": 0.0}).data)
    assert any("became slower during the run" in text for text in found.warnings)


# --- pb.time --------------------------------------------------------------------------------------


def test_any_function_is_timed_with_its_arguments():
    found = pb.time(time.sleep, 0.004, budget_s=QUICK_S)
    assert found.name == "sleep"
    assert 0.004 <= found.p50 < 0.02
    assert found.first_call_s >= 0.004
    assert found.clock == "host"


class Scaled:
    def __call__(self) -> None:
        pass

    def method(self) -> None:
        pass


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (print, "print"),
        (torch.ops.aten.mm, "mm"),
        (partial(partial(max, 1), 2), "max"),
        (Scaled(), "Scaled"),
        (Scaled().method, "Scaled.method"),
        (lambda: None, "<lambda>"),
        (torch.nn.Linear(1, 1), "Linear"),
    ],
)
def test_a_function_has_a_name_that_a_row_can_have(function, name):
    assert title_of(function) == name


def test_a_function_that_does_nothing_takes_nanoseconds():
    found = pb.time(lambda: None, budget_s=QUICK_S)
    assert found.calls_per_sample > 10
    assert 1e-9 < found.latency.value < 1e-6


def test_a_call_has_the_callers_settings():
    """A training step: `compare` switches gradients off, and casts float32 operations to IEEE."""
    weights = torch.ones(3, requires_grad=True)
    seen = set()

    def step() -> None:
        seen.add((torch.is_autocast_enabled("cpu"), torch.get_float32_matmul_precision()))
        (weights.sum() ** 2).backward()

    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu"):
            pb.time(step, budget_s=QUICK_S)
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == {(True, "medium")}
    assert weights.grad is not None


def test_what_a_function_raises_is_the_cause_of_an_error_that_names_it():
    def broken() -> None:
        raise ValueError("no such file")

    with pytest.raises(ExecutionError, match=r"broken failed \(ValueError: no such file\)") as info:
        pb.time(broken)
    assert isinstance(info.value.__cause__, ValueError)


def test_a_function_that_fails_after_some_rounds_has_no_time():
    calls = itertools.count()

    def ends() -> None:
        time.sleep(0.01)
        if next(calls) > 45:
            raise OSError("the disk is full")

    with pytest.raises(ExecutionError, match="the disk is full"):
        pb.time(ends, budget_s=2)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3,), {}, "an int cannot be called; give the function itself"),
        ((lambda x: x,), {}, "missing a required argument.*@pb.time()"),
        ((print,), {"budget_s": 0}, "budget_s is 0"),
        ((print,), {"name": "a:b"}, "'a:b' is not a word"),
        ((), {"budget_s": 1}, "budget_s is only for a function that is measured"),
    ],
)
def test_wrong_arguments_are_refused_with_a_remedy(arguments, options, message):
    with pytest.raises(SpecError, match=message):
        pb.time(*arguments, **options)


def test_a_generator_has_a_warning_that_it_computes_later():
    found = pb.time(lambda: (i for i in range(9)), budget_s=QUICK_S)
    assert any(
        "returns a generator, which computes only when it is read" in w for w in found.warnings
    )


def test_compilation_within_the_measured_calls_has_a_warning():
    counters = pytest.importorskip("torch._dynamo.utils").counters

    def recompiles() -> None:
        counters["stats"]["unique_graphs"] += 1

    before = counters["stats"]["unique_graphs"]
    try:
        found = pb.time(recompiles, budget_s=QUICK_S)
    finally:
        counters["stats"]["unique_graphs"] = before
    assert any("within the measured calls" in text for text in found.warnings)


def test_what_a_function_prints_is_not_shown(capsys):
    found = pb.time(print, "hello", budget_s=QUICK_S)
    assert capsys.readouterr().out == ""
    assert "hello" in found.row.log


# --- the result -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sleeps() -> pb.CallTime:
    return pb.time(partial(time.sleep, 0.002), budget_s=QUICK_S)


def test_a_time_is_saved_and_read_as_a_comparison_of_one_row(sleeps, tmp_path):
    sleeps.save(tmp_path / "sleep.json")
    loaded = pb.load(tmp_path / "sleep.json")
    assert pb.CallTime(loaded.data) == sleeps
    assert loaded["sleep"].latency == sleeps.latency


def test_a_comparison_of_two_rows_is_no_time(clock):
    found = measured(clock, {"a": 1e-3, "b": 1e-3})
    with pytest.raises(SpecError, match="this comparison has 2"):
        pb.CallTime(found.data)


def test_the_text_has_the_figures_and_how_they_were_measured(sleeps):
    text = str(sleeps)
    assert text.startswith("sleep: 2.")
    assert "the interval includes the variance within this process only" in text
    assert "samples of one call each in" in text
    assert "host clock" in text
    assert repr(sleeps).splitlines()[0] == text.splitlines()[0]


def test_percentiles_without_enough_samples_are_none(sleeps):
    few = pb.CallTime(_with_samples(sleeps, 28).data)
    assert few.p90 is None
    assert few.p99 is None
    assert pb.CallTime(_with_samples(sleeps, 29).data).p90 is not None


def _with_samples(found: pb.CallTime, count: int) -> pb.CallTime:
    import attrs

    from precisionbench.results import Block

    blocks = tuple(Block(i, 0, 0, (1e-3,)) for i in range(count))
    row = found.row
    measurement = attrs.evolve(row.measurement, blocks=blocks)
    results = (attrs.evolve(row, measurement=measurement),)
    return pb.CallTime(attrs.evolve(found.data, results=results))


def test_the_data_frame_has_a_line_for_each_sample(sleeps):
    pytest.importorskip("pandas")
    frame = sleeps.to_dataframe()
    assert list(frame.columns) == ["round", "process", "call_s"]
    assert tuple(frame["call_s"]) == sleeps.samples


# --- pb.compare_calls -----------------------------------------------------------------------------


def test_outputs_that_are_tensors_are_compared_with_the_references():
    x = torch.ones(8)
    calls = {"a": lambda: x, "b": lambda: x + 1e-3, "numbers": lambda: 3}
    found = pb.compare_calls(calls, budget_s=QUICK_S)
    assert found["b"].agreement.relative_l2 == pytest.approx(1e-3, rel=0.01)
    assert found["numbers"].agreement is None
    text = str(found)
    assert "\ncall " in text
    assert "backend" not in text.partition("Notes")[0]


def test_a_function_that_fails_is_a_failure_beside_the_others():
    def broken() -> None:
        raise ValueError("boom")

    found = pb.compare_calls({"a": lambda: None, "broken": broken}, budget_s=QUICK_S)
    assert "a" in found
    with pytest.raises(ExecutionError, match="boom"):
        found["broken"]


def test_nothing_measured_is_the_references_error():
    def broken() -> None:
        raise ValueError("boom")

    with pytest.raises(ExecutionError, match="boom"):
        pb.compare_calls({"a": broken})


@pytest.mark.parametrize(
    ("calls", "options", "message"),
    [
        ([print], {}, "give a dict"),
        ({}, {}, "give a dict"),
        ({"a": 3}, {}, "an int cannot be called"),
        ({"a": print}, {"reference": "b"}, "there is no call 'b'; known: a"),
        ({"a:b": print}, {}, "is not a word"),
    ],
)
def test_wrong_calls_are_refused(calls, options, message):
    with pytest.raises(SpecError, match=message):
        pb.compare_calls(calls, **options)


def test_replicas_measure_in_fresh_processes_with_the_callers_settings():
    weights = torch.ones(3, requires_grad=True)

    def step() -> None:
        (weights.sum() ** 2).backward()

    def twice() -> None:
        step()
        step()

    found = pb.compare_calls({"step": step, "twice": twice}, replicas=2, budget_s=0.8)
    assert [len(row.measurement.preparations) for row in found] == [2, 2]
    assert found.speedup("twice").value < 0.9
    assert found.speedup("twice").reason != "one_process"
    assert weights.grad is None  # no call ran in this process
    assert found["twice"].agreement is None
    with pytest.raises(RowNotFoundError):
        found["thrice"]


def test_a_function_that_cannot_be_sent_to_a_worker_is_refused(tmp_path):
    with (
        (tmp_path / "file").open("w") as file,
        pytest.raises(WorkloadError, match="cannot be sent to a worker.*leave replicas out"),
    ):
        pb.time(file.write, "x", replicas=2)
