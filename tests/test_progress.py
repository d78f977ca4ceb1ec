"""What is told of a run's progress, and how people see it."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import os
import random
import re
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import torch
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from rich.console import Console

import precisionbench as pb
from precisionbench._internal.repeater import Repeater
from precisionbench.measure.live_speedups import LiveSpeedups
from precisionbench.measure.schedule import RowState
from precisionbench.report import progress as display
from precisionbench.report.progress import LogLines, progress_display, shown
from precisionbench.report.progress_live import LiveDisplay
from precisionbench.report.progress_state import DisplayState, stage_text, times_text
from precisionbench.results.progress import OnProgressOption, Progress, in_phase
from precisionbench.statistics import Interval
from simulated_device import CALL_S, SimulatedBackend, SimulatedDevice, session, steady
from terminals import running

LONG = "compile:dtype=bfloat16,freezing=true,memory_format=channels_last"
HALF = {"half": Interval(2.1304, 2.05, 2.21)}


class Clock:
    """A clock that is moved by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.slow  # measures and profiles rows
@pytest.mark.uncounted
def test_a_run_in_workers_reports_each_stage_and_current_speed_ups():
    seen: list[Progress] = []
    pb.compare(
        torch.nn.Linear(8, 8),
        torch.rand(2, 8),
        backends=["half:dtype=bfloat16", "apex-amp"],
        device="cpu",
        replicas=1,
        budget_s=8,
        on_progress=seen.append,
    )
    stages = list(dict.fromkeys(p.stage for p in seen))
    assert stages == [
        "failed",  # apex-amp, before anything is started
        "starting",
        "preparing",
        "warming_up",
        "measuring",
        "finishing",
        "examining",
        "done",
    ]
    steps = [p.step for p in seen if p.backend == "eager" and p.stage == "preparing"]
    assert steps == ["", "building", "first call", "warm-up calls"]
    rounds = [p for p in seen if p.stage == "measuring"]
    assert [p.position for p in rounds] == list(range(1, len(rounds) + 1))
    assert not rounds[4].speedups, "five rounds on_progress nothing yet"
    found = rounds[-1].speedups["half:dtype=bfloat16"]
    assert found.low <= found.value <= found.high
    assert 0 < seen[1].elapsed_s < rounds[0].elapsed_s < seen[-1].elapsed_s


def test_without_a_callback_no_speed_ups_are_computed(monkeypatch):
    monkeypatch.setattr(LiveSpeedups, "update", lambda *_: pytest.fail("it was computed"))
    arguments = {"device": "cpu", "replicas": 1, "budget_s": 0.3, "evidence": False}
    assert pb.compare(torch.nn.Linear(8, 8), torch.rand(2, 8), backends=["eager"], **arguments)


def row_states(rounds: int = 12, batch_sizes: tuple[int, int] = (1, 1)) -> list[RowState]:
    device = SimulatedDevice(random.Random(0), steady)
    blocks = session(device, ratios=(1.0, 2.0), min_rounds=12)
    kept = {name: [b for b in found if b.round < rounds] for name, found in blocks.items()}
    return [
        RowState(name, [SimulatedBackend(device, CALL_S, size)] * 3, blocks=kept[name])
        for name, size in zip(kept, batch_sizes, strict=True)
    ]


def test_current_speed_ups_are_those_of_the_finished_rounds():
    found = LiveSpeedups(lambda _: "0", 0.0).update(row_states())
    assert list(found) == ["1"]
    assert found["1"].low < 2 < found["1"].high
    assert found["1"].relative_half_width < 0.02


def test_current_speed_ups_are_by_items_where_rows_have_batches_of_their_own():
    found = LiveSpeedups(lambda _: "0", 0.0).update(row_states(batch_sizes=(8, 32)))
    assert found["1"].value == pytest.approx(8, rel=0.02)


def test_too_few_rounds_have_no_speed_up():
    assert LiveSpeedups(lambda _: "0", 0.0).update(row_states(rounds=1)) == {}
    assert LiveSpeedups(lambda _: "0", 0.0).update(row_states(rounds=2))


def test_one_process_of_each_row_needs_more_rounds_for_a_speed_up():
    rows = row_states()
    for rounds, has_speed_up in ((5, False), (6, True)):
        kept = [[b for b in one.blocks if not b.replica and b.round < rounds] for one in rows]
        first = [RowState(str(i), rows[i].replicas[:1], blocks=kept[i]) for i in range(len(rows))]
        assert bool(LiveSpeedups(lambda _: "0", 0.0).update(first)) == has_speed_up


def test_live_speed_ups_take_one_percent_of_the_time_at_most():
    clock = Clock()

    def costly() -> float:
        clock.now_s += 0.5  # each look reads it at its begin and at its end
        return clock.now_s

    live_speedups, rows = LiveSpeedups(lambda _: "0", 0.0, now=costly), row_states()
    live_speedups.update(rows)  # imports what it needs, which says nothing
    second = live_speedups.update(rows)
    assert live_speedups.update(rows) is second, "it was looked at only just now"
    clock.now_s += 60
    assert live_speedups.update(rows) is not second


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (None, "starting"),
        (Progress("", "starting", 0, 6), "starting 6 worker processes"),
        (Progress("", "starting", 0, 1), "starting 1 worker process"),
        (Progress("half", "preparing", 2, 4, step="building"), "[2/4] half: preparing, building"),
        (Progress("", "warming_up", 0, 0, phase="experiments"), "experiments: warming up"),
        (Progress("", "looking", 0, 0, step="clocks"), "measuring clocks"),
        (Progress("", "measuring", 3, 100), "measuring, round 3"),
        (Progress("half", "finishing", 1, 1), "[1/1] half: measuring memory and energy"),
        (Progress("half", "examining", 1, 1), "[1/1] half: profiling"),
        (Progress("half", "failed", 1, 2, "no memory"), "[1/2] half failed: no memory"),
        (
            Progress("", "interrupted", 0, 0),
            "stopping; finished rounds are kept (Ctrl-C again: stop now)",
        ),
    ],
)
def test_a_stage_is_a_line(progress, text):
    assert stage_text(progress) == text


def measuring(elapsed_s: float, remaining_s: float | None, stage: str = "measuring") -> Progress:
    return Progress("", stage, 1, 9, remaining_s=remaining_s, elapsed_s=elapsed_s)


def state_after(*steps: Progress) -> DisplayState:
    """The state of a display that was shown as the run began."""
    state = DisplayState(0.0, 0.0)
    for progress in steps:
        state = state.after(progress, progress.elapsed_s)
    return state


@pytest.mark.parametrize(
    ("now_s", "text"),
    [
        (10.0, "0:10 elapsed, about 0:30 left"),
        (39.9, "0:40 elapsed, about 0:01 left"),
        (75.0, "1:15 elapsed, longer than estimated"),
        (3700.0, "1:01:40 elapsed, longer than estimated"),
    ],
)
def test_times_are_elapsed_and_remaining(now_s, text):
    assert times_text(state_after(measuring(10.0, 30.0)), now_s) == text


def test_without_an_estimate_only_the_elapsed_time_is_shown():
    state = state_after(measuring(10.0, None))
    assert times_text(state, 12.0) == "0:12 elapsed"
    assert state.share_at(12.0) == 0


def test_the_bar_is_elapsed_time_over_total_time():
    state = state_after(measuring(10.0, 30.0))
    assert state.share_at(10.0) == pytest.approx(0.25)
    assert state.share_at(20.0) == pytest.approx(0.5)
    assert state.share_at(50.0) == 1


def test_an_estimate_that_jumps_is_smoothed_within_a_stage():
    steady = [measuring(10.0, 30.0), measuring(11.0, 29.0)]
    smoothed = state_after(*steady, measuring(12.0, 48.0))
    assert smoothed.ends_s == pytest.approx(46.0), "it was 40 s and is said to be 60 s"
    assert state_after(*steady, measuring(12.0, 48.0, "finishing")).ends_s == 60


def test_the_bar_does_not_move_back_a_little():
    before = state_after(measuring(10.0, 10.0))
    after = before.after(measuring(11.0, 12.0, "finishing"), 11.0)
    assert after.ends_s == 23, "which is 48 %"
    assert after.share_at(11.0) == before.share == 0.5


def test_the_bar_moves_back_at_once_where_the_estimate_was_wrong():
    full = state_after(measuring(10.0, 10.0), measuring(60.0, None))
    assert full.share == 1
    assert full.after(measuring(61.0, 61.0, "finishing"), 61.0).share == 0.5


@pytest.mark.parametrize("remaining_s", [None, 0.0])
def test_a_step_without_an_estimate_keeps_the_latest_one(remaining_s):
    state = state_after(measuring(10.0, 30.0), measuring(20.0, remaining_s))
    assert times_text(state, 20.0) == "0:20 elapsed, about 0:20 left"


@pytest.mark.parametrize(
    "second",
    [measuring(2.0, 8.0), attrs.evolve(measuring(55.0, 8.0), elapsed_s=57.0, phase="noise")],
)
def test_the_time_of_another_run_begins_anew(second):
    state = state_after(attrs.evolve(measuring(50.0, 5.0), speedups=HALF)).after(second, 60.0)
    assert state.began_s == 60 - second.elapsed_s
    assert state.ends_s == 68
    assert not state.speedups


def test_speed_ups_stay_when_the_rounds_have_ended():
    rounds = attrs.evolve(measuring(5.0, 5.0), speedups=HALF)
    assert state_after(rounds, measuring(6.0, 4.0, "finishing")).speedups == HALF


def test_the_phase_is_named_first():
    seen: list[Progress] = []
    in_phase(seen.append, "experiments")(Progress("", "warming_up", 0, 0))
    assert seen[0].phase == "experiments"
    assert in_phase(None, "experiments") is None


def lines_of(*steps: tuple[float, Progress]) -> list[str]:
    clock, out = Clock(), io.StringIO()
    with LogLines(out, clock) as on_progress:
        for now_s, progress in steps:
            clock.now_s = now_s
            on_progress(progress)
    return out.getvalue().splitlines()


def test_a_log_has_a_line_for_rows_and_for_rounds_every_ten_seconds():
    rounds = [
        (float(i), Progress("", "measuring", i, 100, remaining_s=40.0 - i, speedups=HALF))
        for i in range(1, 25)
    ]
    assert lines_of(
        (0.0, Progress("half", "preparing", 1, 1)),
        (0.0, Progress("half", "preparing", 1, 1, step="building")),
        *rounds,
        (25.0, Progress("half", "finishing", 1, 1)),
        (26.0, Progress("half", "done", 1, 1)),
    ) == [
        "[1/1] half: preparing",
        "measuring, round 10 (0:10 elapsed, about 0:30 left): half 2.13x (2.05 to 2.21)",
        "measuring, round 20 (0:20 elapsed, about 0:20 left): half 2.13x (2.05 to 2.21)",
        "[1/1] half done",
    ]


def test_a_log_repeats_long_steps_with_the_elapsed_time():
    clock, out = Clock(), io.StringIO()
    with LogLines(out, clock) as on_progress:
        on_progress(Progress("half", "preparing", 1, 1, step="building"))
        clock.now_s = 120.0
        on_progress.write_elapsed()
    assert out.getvalue() == "[1/1] half: preparing, building, for 2:00\n"


def test_a_closed_stream_raises_no_error():
    out = io.StringIO()
    with LogLines(out) as on_progress:
        out.close()
        on_progress(Progress("half", "done", 1, 1))


def drawn(progress: Progress, width: int, took_s: float = 0.0) -> list[str]:
    """What a live display shows some time after a step."""
    clock = Clock()
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    live = LiveDisplay(console, clock)
    with live:
        live(progress)
    out.truncate(0)
    out.seek(0)
    clock.now_s = took_s
    console.print(live)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_long_name_is_cut_before_the_step_and_its_time(width):
    line, times = drawn(Progress(LONG, "preparing", 4, 4, step="building"), width, 72.0)
    assert len(line) <= width
    assert line.startswith("[4/4] compi")
    assert line.endswith(": preparing, building, for 1:12" if width > 40 else "…")
    assert times == "1:12 elapsed"


@pytest.mark.parametrize(("width", "bar"), [(30, 0), (40, 9), (60, 29), (80, 40), (200, 40)])
def test_the_bar_takes_the_room_beside_the_times(width, bar):
    times = "0:30 elapsed, about 0:30 left"
    _, line = drawn(Progress("", "warming_up", 0, 0, remaining_s=60.0), width, 30.0)
    assert line.endswith(times)
    assert len(line) == (bar + 2 if bar else 0) + len(times)
    assert line.count("━") == bar // 2, "half of it is full; without colours the rest is empty"


def test_speed_ups_that_fit_are_in_one_line():
    speedups = {**HALF, "compile": Interval(1.905, 0.9, 3.1)}
    *_, line = drawn(Progress("", "measuring", 14, 100, speedups=speedups), 60)
    assert line == "half 2.13x (2.05 to 2.21), compile 1.9x (0.90 to 3.1)"


@pytest.mark.parametrize("width", [40, 80])
def test_more_speed_ups_are_aligned_with_their_intervals(width):
    speedups = {**HALF, LONG: Interval(1.905, 0.9, 3.1)}
    head, _, half, other = drawn(Progress("", "measuring", 14, 100, speedups=speedups), width)
    assert head == "measuring, round 14"
    assert half.endswith("2.13x  2.05 to 2.21")
    assert other.split()[-4:] == ["1.9x", "0.90", "to", "3.1"]
    assert len(half) == len(other) <= width


def test_no_thread_runs_during_timing():
    console = Console(file=io.StringIO(), force_terminal=True)
    before = threading.active_count()
    with LiveDisplay(console) as on_progress:
        on_progress(Progress("half", "preparing", 1, 1, step="building"))
        assert threading.active_count() == before + 1
        for stage in ("warming_up", "measuring", "finishing"):
            on_progress(Progress("", stage, 1, 100))
            assert threading.active_count() == before, stage
        on_progress(Progress("half", "preparing", 1, 1))
    assert threading.active_count() == before


def test_a_repeater_calls_its_action_until_it_is_stopped():
    ticked = threading.Event()
    repeater = Repeater()
    repeater.start(ticked.set, 1e-3)
    assert ticked.wait(60)
    repeater.stop()
    ticked.clear()
    assert not ticked.is_set()


def test_a_failure_is_told_once_and_remains_after_the_live_display():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system=None)
    with LiveDisplay(console) as on_progress:
        on_progress(Progress("apex-amp", "failed", 3, 4, "needs NVIDIA Apex"))
        on_progress(Progress("half", "preparing", 1, 4))
    assert out.getvalue().count("apex-amp: needs NVIDIA Apex\n") == 1
    assert out.getvalue().count("needs NVIDIA Apex") == 1


def test_the_cursor_stays_visible_so_that_a_killed_process_leaves_it():
    out = io.StringIO()
    with LiveDisplay(Console(file=out, force_terminal=True)) as on_progress:
        on_progress(Progress("half", "done", 1, 1))
        assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")


def test_printed_output_stays_where_it_leads_unless_that_is_the_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdout", file := io.StringIO())
    with LiveDisplay(Console(file=io.StringIO(), force_terminal=True)):
        print("printed by a callback")
    assert file.getvalue() == "printed by a callback\n"


def test_without_a_terminal_there_are_log_lines(capsys):
    with progress_display() as on_progress:
        assert isinstance(on_progress, LogLines)
        on_progress(Progress("half", "done", 1, 2))
    assert capsys.readouterr().err == "[1/2] half done\n"


def test_force_color_does_not_make_a_log_a_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_display() as on_progress:
        assert isinstance(on_progress, LogLines)


def test_without_standard_error_nothing_is_shown(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with progress_display() as on_progress:
        on_progress(Progress("half", "done", 1, 2))


def test_a_notebook_without_ipython_gets_log_lines(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    out = io.StringIO()
    console = Console(file=out, force_jupyter=True)
    with progress_display(console) as on_progress:
        assert isinstance(on_progress, LogLines)
        on_progress(Progress("half", "done", 1, 2))
    assert out.getvalue() == "[1/2] half done\n"


class Notebook:
    """A double of `IPython.display` in a notebook: outputs of a cell, by identifier."""

    def __init__(self) -> None:
        self.updates: list[str] = []

    def display(self, shown: Any, display_id: bool = False) -> Notebook:
        assert display_id
        self.update(shown)
        return self

    def update(self, shown: Any) -> None:
        self.updates.append(shown._repr_mimebundle_([], [])["text/html"])


def test_a_notebook_gets_a_live_display_without_widgets(monkeypatch):
    notebook = Notebook()
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with progress_display(Console(force_jupyter=True)) as on_progress:
        on_progress(Progress("", "measuring", 14, 100, remaining_s=50.0, speedups=HALF))
    first, shown, last = notebook.updates
    assert "starting" in first
    assert "measuring, round 14\n" in shown
    assert "0:00 elapsed, about 0:50 left\nhalf 2.13x (2.05 to 2.21)" in shown
    assert re.sub("<[^>]*>", "", last).strip() == ""


def test_ipython_itself_updates_the_display(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = InteractiveShell.instance()
    monkeypatch.setattr(shell, "display_pub", CapturingDisplayPublisher())
    try:
        with progress_display(Console(force_jupyter=True)) as on_progress:
            on_progress(Progress("", "measuring", 14, 100))
    finally:
        InteractiveShell.clear_instance()
    first, shown, _ = shell.display_pub.outputs
    assert shown["transient"] == first["transient"]
    assert "round 14" in shown["data"]["text/html"]


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


OUTSIDE = {"CI": "", "PYTEST_CURRENT_TEST": "", "TERM": "xterm"}


@contextlib.contextmanager
def displayed(
    stream: io.StringIO | None, on_progress: OnProgressOption = "auto", **environ: str
) -> Iterator[Any]:
    """What is shown on a standard error, outside of tests and CI."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        for name, value in {**OUTSIDE, **environ}.items():
            patch.setenv(name, value)
        with shown(on_progress) as tell:
            yield tell


def is_displayed(stream: io.StringIO | None, **environ: str) -> bool:
    with displayed(stream, **environ) as tell:
        return tell is not None


def test_auto_is_a_live_display_on_a_terminal():
    screen = Screen()
    with displayed(screen) as tell:
        assert isinstance(tell, LiveDisplay)
        tell(Progress("half", "done", 1, 1))
    assert "[1/1] half done" in screen.getvalue()
    assert is_displayed(screen), "again, after the first has ended"


def test_auto_writes_lines_on_a_dumb_terminal():
    screen = Screen()
    with displayed(screen, TERM="dumb") as tell:
        tell(Progress("half", "done", 1, 1))
    assert screen.getvalue() == "[1/1] half done\n"


@pytest.mark.parametrize("name", ["CI", "PYTEST_CURRENT_TEST"])
def test_auto_is_silent_in_ci_and_in_tests(name):
    assert not is_displayed(Screen(), **{name: "1"})


@pytest.mark.parametrize("stream", [io.StringIO(), None])
def test_auto_is_silent_without_a_terminal(stream):
    assert not is_displayed(stream)


def test_auto_is_silent_in_a_thread_and_within_another_display():
    in_thread: list[bool] = []
    thread = threading.Thread(target=lambda: in_thread.append(is_displayed(Screen())))
    thread.start()
    thread.join()
    assert in_thread == [False]
    with progress_display():
        assert not is_displayed(Screen())


def test_none_is_silent_and_a_function_is_taken_as_it_is():
    screen, seen = Screen(), []
    with displayed(screen, None) as tell:
        assert tell is None
    with displayed(screen, seen.append) as tell:
        tell(measuring(1.0, None))
    assert len(seen) == 1
    assert screen.getvalue() == ""


@pytest.mark.parametrize("function", [pb.compare, pb.ladder, pb.diagnose, pb.examine])
def test_functions_that_measure_show_progress_by_default(function):
    assert inspect.signature(function).parameters["on_progress"].default == "auto"


SCRIPT = """
import sys, torch
import precisionbench as pb
model, inputs = torch.nn.Linear(64, 64), torch.rand(8, 64)
on_progress = None if "silent" in sys.argv else "auto"
options = dict(device="cpu", replicas=1, budget_s=1.5, evidence=False, on_progress=on_progress)
pb.compare(model, inputs, backends=["half:dtype=bfloat16", "apex-amp"], **options)
print("the result")
"""


@pytest.mark.slow
def test_a_script_in_a_terminal_shows_a_bar_and_its_output_stays_clean(tmp_path):
    with (tmp_path / "out").open("w") as out, running(code=SCRIPT, stdout=out, **OUTSIDE) as screen:
        assert screen.exit_code() == 0
    assert "starting 2 worker processes" in screen.plain()
    assert re.search(r"━ +\d:\d\d elapsed, about \d:\d\d left", screen.plain())
    assert (tmp_path / "out").read_text() == "the result\n"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["silent", "piped"])
def test_a_script_that_is_silent_or_piped_shows_nothing(tmp_path, mode):
    if mode == "silent":
        with running("silent", code=SCRIPT, **OUTSIDE) as screen:
            assert screen.exit_code() == 0
        assert screen.plain() == "the result\n"
        return
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env={**os.environ, **OUTSIDE}, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("the result\n", "")


@pytest.mark.slow
def test_an_error_removes_the_display_before_its_traceback():
    with running(code=SCRIPT.replace("apex-amp", "no-such"), **OUTSIDE) as screen:
        assert screen.exit_code() == 1
    display, error = screen.shown.split("Traceback", 1)
    assert "BackendNotFoundError" in error
    assert display.index("starting") < display.rindex("\x1b[2K"), "its lines are erased"
    assert display.rindex("\x1b[?25h") > display.rindex("\x1b[?25l"), "the cursor is visible"


def test_progress_display_is_public():
    assert pb.progress_display is display.progress_display
    assert pb.Progress is Progress
