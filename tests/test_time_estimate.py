"""The estimate of the time that is left, and how it is corrected by what is seen."""

from __future__ import annotations

import random

import pytest

from precisionbench.measure.options import Options
from precisionbench.measure.rows import plan
from precisionbench.measure.schedule import RowState
from precisionbench.measure.time_budget import TimeBudget
from precisionbench.measure.time_estimate import TimeEstimate
from precisionbench.results.progress import Progress
from simulated_device import CALL_S, ManualClock, SimulatedBackend, SimulatedDevice

ROWS = [*plan(["half"], "eager")[0]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def estimate(clock: ManualClock, **options: object) -> TimeEstimate:
    return TimeEstimate.of(ROWS, "cuda", Options(**options), clock)


def preparing(row: str, process: int = 1, step: str = "building") -> Progress:
    which = f"process {process}, " if process > 1 else ""
    return Progress(row, "preparing", 1, 2, step=f"{which}{step}")


def row_states() -> list[RowState]:
    backend = SimulatedBackend(SimulatedDevice(random.Random(0)), CALL_S)
    return [RowState(row.name, [backend] * 3) for row in ROWS]


def test_there_is_an_estimate_from_the_first_call_on_and_it_runs_down(clock):
    found = estimate(clock)
    first = found.remaining_s(Progress("", "starting", 0, 6))
    clock.now_s += 1
    assert found.remaining_s(Progress("", "starting", 0, 6)) == pytest.approx(first - 1)
    assert first > 10


def test_engines_that_compile_are_expected_to_take_longer(clock):
    rows = [*plan(["compile"], "eager")[0]]
    slow = TimeEstimate.of(rows, "cuda", Options(), clock).remaining_s(
        Progress("", "starting", 0, 6)
    )
    assert slow > estimate(clock).remaining_s(Progress("", "starting", 0, 6)) + 50


def test_further_processes_of_a_row_should_take_as_long_as_its_first(clock):
    found = estimate(clock, passes=False, evidence=False)
    found.remaining_s(preparing("eager"))
    clock.now_s += 10
    before = found.remaining_s(preparing("eager", step="first call"))
    after = found.remaining_s(preparing("half"))
    assert after - before > 2 * 10, "two more of this row, and the other row's in proportion"
    clock.now_s += 1
    known = found.remaining_s(preparing("eager", 2))
    assert known == pytest.approx(2 * 10 + 2 * 1 + rest(clock), abs=1e-6)


def rest(clock: ManualClock) -> float:
    """What is expected after all rows are prepared."""
    found = estimate(clock, passes=False, evidence=False)
    return found.remaining_s(Progress("", "warming_up", 0, 0))


def test_steps_of_one_process_are_one_part(clock):
    found = estimate(clock)
    first = found.remaining_s(preparing("eager", step="loading the model"))
    assert found.remaining_s(preparing("eager", step="first call")) == first


def test_a_failed_row_takes_no_more_time(clock):
    found = estimate(clock)
    before = found.remaining_s(preparing("eager"))
    assert found.remaining_s(Progress("half", "failed", 2, 2, "no")) < before - 3


def test_once_rows_are_prepared_the_budget_bounds_the_estimate(clock):
    found = estimate(clock)
    found.remaining_s(preparing("eager"))
    found.plan_rounds(TimeBudget(4.0, "cuda", now=clock), row_states())
    assert found.remaining_s(Progress("", "warming_up", 0, 0)) == 4.0


def test_the_rounds_own_estimate_counts_while_they_go_on(clock):
    found = estimate(clock, passes=False, evidence=False)
    found.plan_rounds(TimeBudget(100.0, "cuda", (), False, clock), row_states())
    clock.now_s += 5
    assert found.remaining_s(Progress("", "measuring", 3, 100, remaining_s=7.0)) == 7.0


def test_rows_that_are_finished_leave_nothing(clock):
    found = estimate(clock)
    for row in ROWS:
        found.remaining_s(Progress(row.name, "examining", 1, 2))
    for row in ROWS:
        left_s = found.remaining_s(Progress(row.name, "done", 1, 2))
    assert left_s == 0


def test_later_sessions_are_part_of_the_estimate(clock):
    one, three = (estimate(clock, sessions=count) for count in (1, 3))
    starting = Progress("", "starting", 0, 6)
    assert three.remaining_s(starting) > one.remaining_s(starting) + 2 * 6
    three.remaining_s(Progress("", "measuring", 1, 100))
    clock.now_s += 5
    two = three.remaining_s(starting)
    three.remaining_s(Progress("", "measuring", 1, 100))
    clock.now_s += 5
    assert 0 < three.remaining_s(starting) < two


def test_rows_in_this_process_follow_each_other(clock):
    found = estimate(clock, launcher="inline", budget_s=8.0)
    assert found.remaining_s(Progress("eager", "preparing", 1, 2)) == 8.0
    clock.now_s += 2
    found.remaining_s(Progress("eager", "measuring", 1, 2))
    assert found.remaining_s(Progress("eager", "done", 1, 2)) == 2.0, "as long as the first took"


def test_restarted_rows_have_the_time_limit_of_all_rounds(clock):
    found = estimate(clock)
    found.only_rounds(30.0)
    clock.now_s += 10
    assert found.remaining_s(Progress("eager", "preparing", 1, 2)) == 20.0
    assert found.remaining_s(Progress("", "measuring", 1, 100, remaining_s=15.0)) == 15.0
