"""What is told of a run's progress, and how people see it."""

from __future__ import annotations

import io
import sys
import threading
import types
from typing import ClassVar

import pytest
import torch
from rich.console import Console

import precisionbench as pb
from precisionbench.measure.live_speedups import LiveSpeedups
from precisionbench.measure.schedule import RowState
from precisionbench.report import progress as display
from precisionbench.report.progress import (
    LiveDisplay,
    LogLines,
    Repeater,
    progress_display,
    stage_text,
)
from precisionbench.results.progress import Progress, in_phase
from precisionbench.statistics import Interval
from simulated_device import SimulatedDevice, session, steady

LONG = "compile:dtype=bfloat16,freezing=true,memory_format=channels_last"
HALF = {"half": Interval(2.1304, 2.05, 2.21)}


class Clock:
    """A clock that is moved by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


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
    assert steps == ["", "loading the model", "building", "first call", "warm-up calls"]
    rounds = [p for p in seen if p.stage == "measuring"]
    assert [p.position for p in rounds] == list(range(1, len(rounds) + 1))
    assert not rounds[4].speedups, "five rounds on_progress nothing yet"
    found = rounds[-1].speedups["half:dtype=bfloat16"]
    assert found.low <= found.value <= found.high
    assert 0 < seen[1].elapsed_s < rounds[0].elapsed_s < seen[-1].elapsed_s


def test_without_a_callback_no_speed_ups_are_computed(monkeypatch):
    monkeypatch.setattr(LiveSpeedups, "update", lambda *_: pytest.fail("it was computed"))
    arguments = {"device": "cpu", "replicas": 1, "budget_s": 1, "evidence": False}
    assert pb.compare(torch.nn.Linear(8, 8), torch.rand(2, 8), backends=["eager"], **arguments)


def row_states(rounds: int = 12) -> list[RowState]:
    import random

    device = SimulatedDevice(random.Random(0), steady)
    blocks = session(device, ratios=(1.0, 2.0), min_rounds=12)
    kept = {name: [b for b in found if b.round < rounds] for name, found in blocks.items()}
    return [RowState(name, [None] * 3, blocks=found) for name, found in kept.items()]


def test_current_speed_ups_are_those_of_the_finished_rounds():
    found = LiveSpeedups("0", 0.0).update(row_states())
    assert list(found) == ["1"]
    assert found["1"].low < 2 < found["1"].high
    assert found["1"].relative_half_width < 0.02


def test_too_few_rounds_have_no_speed_up():
    assert LiveSpeedups("0", 0.0).update(row_states(rounds=5)) == {}


def test_live_speed_ups_take_one_percent_of_the_time_at_most():
    clock = Clock()

    def costly() -> float:
        clock.now_s += 0.5  # each look reads it at its begin and at its end
        return clock.now_s

    live_speedups, rows = LiveSpeedups("0", 0.0, now=costly), row_states()
    live_speedups.update(rows)  # imports what it needs, which says nothing
    second = live_speedups.update(rows)
    assert live_speedups.update(rows) is second, "it was looked at only just now"
    clock.now_s += 60
    assert live_speedups.update(rows) is not second


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress("", "starting", 0, 6), "starting 6 worker processes"),
        (Progress("", "starting", 0, 1), "starting 1 worker process"),
        (Progress("half", "preparing", 2, 4, step="building"), "[2/4] half: preparing, building"),
        (Progress("", "warming_up", 0, 0, phase="experiments"), "experiments: warming up"),
        (Progress("", "measuring", 3, 100), "round 3 of at most 100"),
        (
            Progress("", "measuring", 9, 100, remaining_s=200.0),
            "round 9 of at most 100, about 3 min left",
        ),
        (Progress("half", "examining", 1, 1), "[1/1] half: looking at what runs in a call"),
        (Progress("half", "failed", 1, 2, "no memory"), "[1/2] half failed: no memory"),
        (
            Progress("", "interrupted", 0, 0),
            "stopping; what is finished is kept (Ctrl-C again ends it at once)",
        ),
    ],
)
def test_a_stage_is_a_line(progress, text):
    assert stage_text(progress) == text


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
    rounds = [(float(i), Progress("", "measuring", i, 100, speedups=HALF)) for i in range(1, 25)]
    assert lines_of(
        (0.0, Progress("half", "preparing", 1, 1)),
        (0.0, Progress("half", "preparing", 1, 1, step="building")),
        *rounds,
        (25.0, Progress("half", "finishing", 1, 1)),
        (26.0, Progress("half", "done", 1, 1)),
    ) == [
        "[1/1] half: preparing",
        "round 10 of at most 100: half 2.13x (2.05 to 2.21)",
        "round 20 of at most 100: half 2.13x (2.05 to 2.21)",
        "[1/1] half done",
    ]


def test_a_log_repeats_long_steps_with_the_elapsed_time():
    clock, out = Clock(), io.StringIO()
    with LogLines(out, clock) as on_progress:
        on_progress(Progress("half", "preparing", 1, 1, step="building"))
        clock.now_s = 120.0
        on_progress.write_elapsed()
    assert out.getvalue() == "[1/1] half: preparing, building, for 2 min\n"


def test_a_closed_stream_raises_no_error():
    out = io.StringIO()
    with LogLines(out) as on_progress:
        out.close()
        on_progress(Progress("half", "done", 1, 1))


def shown(progress: Progress, width: int, took_s: float = 0.0) -> list[str]:
    clock = Clock()
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    display = LiveDisplay(console, clock)
    display(progress)
    display._repeater.stop()
    clock.now_s = took_s
    console.print(display)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_long_name_is_cut_before_the_step_and_its_time(width):
    (line,) = shown(Progress(LONG, "preparing", 4, 4, step="building"), width, 72.0)
    assert len(line) <= width
    assert line.startswith("[4/4] compile:d")
    assert line.endswith(": preparing, building, for 72 s" if width > 40 else "…")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_speed_ups_are_aligned_with_their_intervals(width):
    speedups = {**HALF, LONG: Interval(1.905, 0.9, 3.1)}
    head, half, other = shown(Progress("", "measuring", 14, 100, speedups=speedups), width)
    assert head == "round 14 of at most 100"
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


def test_failures_remain_after_the_live_display():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system=None)
    with LiveDisplay(console) as on_progress:
        on_progress(Progress("apex-amp", "failed", 3, 4, "needs NVIDIA Apex"))
    assert "apex-amp: needs NVIDIA Apex\n" in out.getvalue()


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


def test_a_notebook_without_widgets_gets_log_lines():
    out = io.StringIO()
    console = Console(file=out, force_jupyter=True)
    with progress_display(console) as on_progress:
        if not isinstance(on_progress, LogLines):
            pytest.skip("ipywidgets is installed")
        on_progress(Progress("half", "done", 1, 2))
    assert out.getvalue() == "[1/2] half done\n"


class Output:
    """A double of the widget of ipywidgets that shows printed output in the cell."""

    made: ClassVar[list[Output]] = []

    def __init__(self) -> None:
        self.made.append(self)
        self.cleared = 0
        self.closed = False

    def clear_output(self, wait: bool) -> None:
        self.cleared += 1

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_a_notebook_with_widgets_gets_a_live_display(monkeypatch):
    """With doubles; the test below uses the real widgets."""
    said: list[str] = []
    ipython = types.ModuleType("IPython")
    ipython_display = types.ModuleType("IPython.display")
    ipython_display.display = lambda shown: said.append(getattr(shown, "text", ""))
    widgets = types.ModuleType("ipywidgets")
    widgets.Output = Output
    modules = {
        "IPython": ipython,
        "IPython.display": ipython_display,
        "ipywidgets": widgets,
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    with progress_display(Console(force_jupyter=True)) as on_progress:
        on_progress(Progress("", "measuring", 14, 100, speedups=HALF))
    (output,) = Output.made
    assert output.cleared >= 2
    assert output.closed
    assert any("round 14" in text for text in said)


def test_widgets_of_a_real_notebook_show_a_live_display():
    pytest.importorskip("IPython")
    pytest.importorskip("ipywidgets")
    with progress_display(Console(force_jupyter=True)) as on_progress:
        assert isinstance(on_progress, LiveDisplay)
        on_progress(Progress("", "measuring", 14, 100, speedups=HALF))


def test_progress_display_is_public():
    assert pb.progress_display is display.progress_display
    assert pb.Progress is Progress
