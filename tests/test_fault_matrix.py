"""Whatever goes wrong at any request of one row: it keeps its rounds, and the others are complete.

Worker processes are simulated here; real ones fail in test_faults.py and
benchmarks/fault_matrix.py.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import attrs
import pytest
import torch
from torch import nn

from precisionbench.errors import ExecutionError, OutOfMemoryError, WorkerError
from precisionbench.measure import interleaved, restarts
from precisionbench.measure.collector import Collector
from precisionbench.measure.options import Options
from precisionbench.measure.rows import Row, plan
from precisionbench.measure.run import Run
from precisionbench.measure.worker.protocol import Closing
from precisionbench.model.workload import resolve
from precisionbench.results.journal import Journal
from precisionbench.system.telemetry import NoTelemetry
from simulated_device import SimulatedDevice
from simulated_workers import (
    HANG_S,
    Fault,
    SimulatedPool,
    SimulatedPrepared,
    UntellableError,
    simulated_system,
)

ROWS = ("eager", "half", "autocast")
FAULTY = "half"
KINDS: dict[str, tuple[Callable[[], BaseException], float, str]] = {
    "crash": (lambda: WorkerError("it ended with exit code 3"), 0.0, "it ended with exit code 3"),
    "kill": (lambda: WorkerError("it was ended by signal 9"), 0.0, "it was ended by signal 9"),
    "hang": (lambda: WorkerError("it did not answer"), HANG_S, "it did not answer"),
    "exception": (lambda: ExecutionError("forward failed"), 0.0, "forward failed"),
    "a foreign exception": (
        lambda: FileNotFoundError("/proc/7/task"),
        0.0,
        "precisionbench itself failed (FileNotFoundError: /proc/7/task); please report it",
    ),
    "an exception without text": (UntellableError, 0.0, "UntellableError"),
    "exit": (lambda: SystemExit(2), 0.0, "SystemExit"),
}
BEFORE_ROUNDS = ("load", "open", "recalibrate", "block")
AFTER_ROUNDS = (
    "output",
    "passes",
    "check_steady",
    "start_profiler",
    "evidence",
    "begin_close",
    "close",
)


def fault(kind: str, request: str, **where: Any) -> Fault:
    error, takes_s, _ = KINDS[kind]
    return Fault(FAULTY, request, error, takes_s, **where)


def run(
    fault: Fault | None = None,
    replicas: int = 2,
    options: dict[str, Any] | None = None,
    collector: dict[str, Any] | None = None,
    after_rows: Callable[..., object] = lambda _, __: None,
    **system: Any,
) -> Collector:
    """Six rounds of three rows in simulated workers, of which one may fail."""
    found = new_collector(**(collector or {}))
    known = {"effort": "quick", "budget_s": 20.0, "replicas": replicas, **(options or {})}
    simulated = simulated_system(fault, **system)
    interleaved.measure({"": workload()}, found, Options(**known), simulated, after_rows)
    return found


def new_collector(**arguments: Any) -> Collector:
    return Collector(rows(), "eager", 1, **arguments)


@cache
def rows() -> tuple[Row, ...]:
    return tuple(plan(list(ROWS), "eager")[0])


@cache
def workload() -> Any:
    return resolve(nn.Linear(2, 2), torch.rand(1, 2), device="cpu", batch_size=None, seed=0)


def rounds(collector: Collector, name: str) -> int:
    return len(collector.results[name].measurement.rounds)


@pytest.fixture(scope="module")
def whole() -> Collector:
    """The same run without a fault."""
    return run()


def assert_the_others_are_complete(found: Collector, whole: Collector, warnings: bool = False):
    for name in ROWS:
        if name == FAULTY:
            continue
        result, expected = found.results[name], whole.results[name]
        assert result.measurement.ended_by not in ("failed", "budget", "interrupted")
        assert rounds(found, name) == rounds(whole, name) == 6
        assert result.evidence is not None
        assert result.evidence.unknown == {}
        assert result.agreement == expected.agreement
        assert warnings or result.warnings == expected.warnings == ()


@pytest.mark.parametrize(("together", "started"), [(False, 6), (True, 3)])
def test_rows_built_together_do_not_wait_until_their_further_replicas_have_started(
    together, started
):
    pool = SimulatedPool(SimulatedDevice(random.Random(0)))
    found = run(options={"build_together": together}, worker_pool=lambda: pool)
    assert pool.waits == [started]
    assert [worker.replica for worker in pool.workers] == (
        [0, 0, 0, 1, 1, 1] if together else [0, 1] * 3
    )
    assert {len(row.measurement.preparations) for row in found.results.values()} == {2}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("request_", BEFORE_ROUNDS)
def test_a_row_that_fails_before_its_first_round_costs_the_others_nothing(whole, kind, request_):
    together = {"build_together": request_ == "recalibrate"}
    found = run(fault(kind, request_), options=together)
    assert KINDS[kind][2] in str(found.errors[FAULTY])
    assert [note for note in found.run_notes if "budget" in note] == []
    assert_the_others_are_complete(found, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_fails_in_a_round_keeps_those_before(whole, kind):
    found = run(fault(kind, "block", after=12))
    result = found.results[FAULTY]
    assert result.measurement.ended_by == "failed"
    assert 1 <= rounds(found, FAULTY) < rounds(whole, FAULTY)
    assert KINDS[kind][2] in result.warnings[0]
    assert [text for text in (*result.warnings, *found.run_notes) if "budget" in text] == []
    assert_the_others_are_complete(found, whole)


@pytest.mark.uncounted
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("request_", AFTER_ROUNDS)
def test_a_row_that_fails_after_its_rounds_keeps_them_and_says_why(whole, kind, request_):
    found = run(fault(kind, request_))
    assert rounds(found, FAULTY) == rounds(whole, FAULTY)
    assert KINDS[kind][2] in said(found, FAULTY)
    assert "budget" not in " ".join((said(found, FAULTY), *found.run_notes))
    assert_the_others_are_complete(found, whole)


def said(found: Collector, name: str) -> str:
    return "\n".join(found.results[name].warnings)


@pytest.mark.parametrize("kind", ["kill", "hang"])
@pytest.mark.parametrize("request_", ["output", "passes", "check_steady", "start_profiler"])
def test_a_row_without_its_only_worker_is_not_asked_for_the_model_in_float64(kind, request_):
    found = run(attrs.evolve(fault(kind, request_), row="eager"), replicas=1)
    assert KINDS[kind][2] in said(found, "eager")
    assert len(found.results["eager"].warnings) == 1
    for name in ("half", "autocast"):
        assert found.results[name].evidence.unknown == {}


@pytest.mark.parametrize("kind", KINDS)
def test_where_one_process_cannot_compute_the_model_in_float64_another_does(whole, kind):
    found = run(attrs.evolve(fault(kind, "write_float64_reference"), row="eager"))
    assert all(rounds(found, name) == rounds(whole, name) for name in ROWS)
    assert found.run_notes == []
    has_ended = kind in ("crash", "kill", "hang")
    assert (KINDS[kind][2] in said(found, "eager")) is has_ended
    assert (found.results["eager"].evidence is None) is has_ended
    for name in ("half", "autocast"):
        assert found.results[name].evidence.unknown == {}


@pytest.mark.parametrize("request_", ["output", "passes", "close"])
def test_a_worker_that_has_ended_is_warned_of_once(request_):
    found = run(fault("kill", request_), replicas=1)
    assert len(found.results[FAULTY].warnings) == 1


def test_a_row_whose_worker_ended_in_a_round_says_so_once():
    found = run(fault("kill", "block", after=12))
    (warning,) = (text for text in found.results[FAULTY].warnings if "signal 9" in text)
    assert "it failed after" in warning


def test_no_further_process_is_risked_where_two_could_not_compute_the_model_in_float64():
    found = run(attrs.evolve(fault("kill", "write_float64_reference"), row=None))
    lost = [name for name in ROWS if found.results[name].evidence is None]
    assert lost == ["eager"]


@pytest.mark.parametrize("request_", ["open", "recalibrate"])
def test_a_replica_that_fails_leaves_its_row_the_other_one(request_):
    together = {"build_together": request_ == "recalibrate"}
    faulty = fault("a foreign exception", request_, replica=1)
    if request_ == "recalibrate":  # the first replica alone is measured again
        faulty = attrs.evolve(faulty, replica=0)
    found = run(faulty, options=together)
    assert "only one process" in found.results[FAULTY].warnings[0]
    assert "FileNotFoundError" in found.results[FAULTY].warnings[0]


def test_what_qualifies_a_row_is_known_of_the_replica_that_is_left():
    class Warns(SimulatedPrepared):
        def closing(self) -> Closing:
            return Closing(("it ran in float32",)) if self.worker.ended is None else Closing()

    for replica in (0, 1):
        found = run(fault("crash", "check_steady", replica=replica), open_backend=Warns)
        assert found.results[FAULTY].warnings[0] == "it ran in float32"


def test_a_worker_that_cannot_be_pinned_is_measured_on_all_cores(whole):
    found = run(fault("a foreign exception", "pin_calls"), options={"evidence": False})
    assert "could not be pinned" in found.results[FAULTY].warnings[0]
    assert rounds(found, FAULTY) == rounds(whole, FAULTY)


# --- what a hang costs ----------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 3, 12])
def test_the_time_until_a_hanging_row_is_ended_is_not_part_of_the_budget(whole, after):
    """In the first warm-up, in the warm-up, and in the rounds."""
    found = run(fault("hang", "block", after=after))
    assert_the_others_are_complete(found, whole)
    assert found.run_notes == whole.run_notes == []


@pytest.mark.parametrize("request_", ["output", "passes", "check_steady", "evidence"])
def test_rows_after_one_that_hangs_have_their_passes_and_profile(request_):
    prepared: list[SimulatedPrepared] = []

    def opened(*arguments: Any) -> SimulatedPrepared:
        prepared.append(SimulatedPrepared(*arguments))
        return prepared[-1]

    run(fault("hang", request_), replicas=1, open_backend=opened)
    taken = {one.worker.row: one.passes_taken for one in prepared}
    assert {name: taken[name] for name in ("eager", "autocast")} == {"eager": 1, "autocast": 1}


# --- rows that are restarted ----------------------------------------------------------------------


def restarted(fault: Fault | None = None, count: int = 3, budget_s: float = 60.0) -> Run:
    """The rows restarted in each round, in simulated workers."""
    options = Options(budget_s=budget_s)
    run = Run({"": workload()}, new_collector(), options, simulated_system(fault))
    restarts.measure(run, max_rounds=count)
    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("request_", ["load", "open", "block"])
def test_a_restarted_row_that_fails_at_once_costs_the_others_nothing(kind, request_):
    found = restarted(fault(kind, request_))
    assert KINDS[kind][2] in str(found.collector.errors[FAULTY])
    counts = {name: len(part.measurement.rounds) for name, (part,) in found.finished.items()}
    assert counts == {"eager": 3, "autocast": 3}
    assert found.collector.run_notes == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_restarted_row_that_fails_later_keeps_its_rounds(kind):
    found = restarted(fault(kind, "open", after=1))
    counts = {name: len(part.measurement.rounds) for name, (part,) in found.finished.items()}
    assert counts == {"eager": 3, "half": 1, "autocast": 3}
    assert KINDS[kind][2] in found.finished[FAULTY][0].warnings[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("request_", AFTER_ROUNDS)
def test_a_restarted_row_that_fails_after_its_block_is_measured_on(kind, request_):
    found = restarted(fault(kind, request_))
    parts = {name: part for name, (part,) in found.finished.items()}
    assert {name: len(part.measurement.rounds) for name, part in parts.items()} == dict.fromkeys(
        ROWS, 3
    )
    assert all(part.evidence for name, part in parts.items() if name != FAULTY)
    assert found.collector.run_notes == []


# --- what belongs to no row -----------------------------------------------------------------------


class Unexpected(Exception):
    """An error in our own code."""


def raise_it(*_: object, **__: object) -> Any:
    raise Unexpected("oh")


class FailingTelemetry:
    def before(self) -> None:
        pass

    after = raise_it


@contextmanager
def failing_telemetry(_: object) -> Iterator[FailingTelemetry]:
    yield FailingTelemetry()


class ClosingTelemetry(nullcontext[NoTelemetry]):
    __exit__ = raise_it


class FailingJournal(Journal):
    def __init__(self) -> None:
        self.rows = 0

    def add_header_fields(self, **_: object) -> None:
        pass

    def has_row(self, name: str, session: int) -> bool:
        return True

    def add_block(self, name: str, block: object) -> None:
        raise_it()


def fail_in_rounds(progress: Any) -> None:
    if progress.stage == "measuring":
        raise_it()


@pytest.mark.parametrize(
    ("arguments", "noted"),
    [
        ({"read_cpu_times": raise_it}, "sampling other load on the machine failed"),
        ({"open_telemetry": failing_telemetry}, "reading the device's state failed"),
        ({"open_telemetry": contextmanager(raise_it)}, "reading the device's state failed"),
        ({"collector": {"journal": FailingJournal()}}, "writing the journal failed"),
        ({"collector": {"on_progress": fail_in_rounds}}, "on_progress failed"),
        ({"collector": {"on_progress": raise_it}}, "on_progress failed"),
    ],
)
def test_rows_are_complete_where_what_they_do_without_fails(whole, arguments, noted):
    found = run(**arguments)
    (note,) = found.run_notes
    assert noted in note
    assert ("please report it" in note) is ("on_progress" not in note)
    assert found.results.keys() == whole.results.keys()
    assert_the_others_are_complete(found, whole)


def test_telemetry_that_cannot_be_closed_is_not_mentioned():
    assert run(open_telemetry=lambda _: ClosingTelemetry(NoTelemetry())).run_notes == []


@pytest.mark.parametrize("session", [0, 1])
def test_rows_are_kept_where_something_fails_after_them(whole, session):
    """What is done with their workers, and the end of the pool."""
    sessions = {"options": {"sessions": 1 + session}}
    for arguments in (
        {"after_rows": raise_it},
        {"fault": Fault("", "end", partial(Unexpected, "oh"))},
    ):
        found = run(**arguments, **sessions)
        (note,) = found.run_notes
        assert "kept: precisionbench itself failed (Unexpected: oh)" in note
        assert found.results.keys() == whole.results.keys()


@pytest.fixture
def ctrl_c() -> Iterator[Callable[..., None]]:
    """Presses Ctrl-C, with Python's own handler in force."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda *_: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("fit", [6, 2])
def test_a_first_ctrl_c_after_the_rows_leaves_the_result(ctrl_c, fit):
    """Where workers are ended and results are collected; two that fit at once are restarted."""

    class Pool(SimulatedPool):
        def __exit__(self, *_: object) -> None:
            ctrl_c()

    class Prepared(SimulatedPrepared):
        def closing(self) -> Closing:
            if (self.worker.row, self.worker.replica) == ("eager", 0):
                ctrl_c()
            return Closing()

    device = SimulatedDevice(random.Random(0))
    for arguments in ({"worker_pool": lambda: Pool(device)}, {"open_backend": Prepared}):
        assert run(**arguments, workers_that_fit=lambda *_: fit).results.keys() == set(ROWS)


def test_a_first_ctrl_c_while_a_later_session_is_prepared_keeps_the_earlier_one(ctrl_c):
    opened: list[str] = []

    class Prepared(SimulatedPrepared):
        def __init__(self, worker: Any, *rest: Any) -> None:
            opened.append(worker.row)
            if len(opened) == 8:
                ctrl_c()
            super().__init__(worker, *rest)

    found = run(open_backend=Prepared, options={"sessions": 2})
    assert len(opened) == 8  # it is not prepared any further
    assert found.run_notes == ["interrupted: 1 of 2 sessions were measured"]
    assert {rounds(found, name) for name in ROWS} == {6}
    assert {row.measurement.ended_by for row in found.results.values()} == {"interrupted"}


def test_a_first_ctrl_c_before_the_first_round_ends_the_run(ctrl_c):
    class Prepared(SimulatedPrepared):
        def __init__(self, *arguments: Any) -> None:
            ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        run(open_backend=Prepared)


def test_rounds_are_kept_where_the_rule_that_ends_them_fails(whole):
    class NoTimes(SimulatedPrepared):
        """From its tenth block on it gives what no statistics can take."""

        def block(self, samples: int, *rest: int) -> Any:
            self.blocks = getattr(self, "blocks", 0) + 1
            found = super().block(samples, *rest)
            return found if self.blocks < 10 else tuple(map(str, found))

    found = run(open_backend=NoTimes)
    (note,) = found.run_notes
    assert "the rounds ended early: precisionbench itself failed (TypeError" in note
    assert {rounds(found, name) for name in ROWS} == {5}
    assert {found.results[name].measurement.ended_by for name in ROWS} == {"failed"}


def test_a_later_session_that_does_not_fit_costs_the_first_one_nothing(whole):
    class Full(SimulatedPrepared):
        opened = 0

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            Full.opened += 1
            if 6 < Full.opened < 8:
                raise OutOfMemoryError("full")

    found = run(open_backend=Full, options={"sessions": 2})
    (note,) = found.run_notes
    assert "a later session was not measured" in note
    assert rounds(found, "eager") == rounds(whole, "eager")


class Unreadable(dict):
    __iter__ = __getitem__ = items = keys = raise_it


def test_the_output_of_a_row_that_cannot_be_compared_is_a_warning():
    class Odd(SimulatedPrepared):
        @property
        def output(self) -> Any:
            return Unreadable(super().output) if self.worker.row == FAULTY else super().output

    found = run(open_backend=Odd)
    assert "the output could not be compared" in found.results[FAULTY].warnings[0]
    assert found.results[FAULTY].agreement is None
    assert found.results["autocast"].agreement is not None


def test_a_row_that_does_not_fit_even_alone_is_a_failure(whole):
    found = run(Fault(FAULTY, "open", lambda: OutOfMemoryError("full")))
    assert isinstance(found.errors[FAULTY], OutOfMemoryError)
    assert_the_others_are_complete(found, whole)


def test_rows_that_fit_alone_only_are_restarted_in_every_round():
    """The second row does not fit beside the first, and is the only one when it is tried again."""
    fault = Fault(FAULTY, "open", lambda: OutOfMemoryError("full"))
    system = simulated_system(fault)

    def opened(worker: Any, *rest: object) -> SimulatedPrepared:
        try:
            return SimulatedPrepared(worker, *rest)
        finally:
            fault.after = 99 if fault.asked else 0  # once only

    found, system = new_collector(), attrs.evolve(system, open_backend=opened)
    outcome = interleaved.measure({"": workload()}, found, Options(budget_s=3.0), system)
    assert outcome.schedule == "restarts"
    assert found.results.keys() == {*ROWS}
    assert "do not fit in the device's memory" in found.run_notes[0]


def test_an_error_of_ours_before_the_first_round_is_raised():
    with pytest.raises(Unexpected):
        run(workers_that_fit=raise_it)
