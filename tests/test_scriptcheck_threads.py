"""Threads and child processes of a checked script: it ends as Python would, and work is counted."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

import precisionbench as pb
from precisionbench.scriptcheck.events import (
    Calls,
    ChildProcesses,
    Ending,
    Model,
    Observations,
    Place,
    Reading,
    Span,
    Timing,
)
from precisionbench.scriptcheck.notes import notes
from precisionbench.scriptcheck.rules import RuleContext
from precisionbench.scriptcheck.static_analysis import StaticFindings, analyze
from precisionbench.scriptcheck.timed_regions import find_regions

SETUP = """
import atexit, threading, time, torch
from concurrent.futures import ThreadPoolExecutor
torch.set_num_threads(1)
net, x = torch.nn.Linear(256, 256).eval(), torch.rand(64, 256)

def call(count):
    with torch.inference_mode():
        for _ in range(count):
            net(x)

call(5)
"""
IN_A_POOL = (
    SETUP
    + """
with ThreadPoolExecutor(4) as pool:
    start = time.perf_counter()
    list(pool.map(call, [250] * 4))
    print(time.perf_counter() - start)
"""
)
THREADS_THAT_TIME_THEMSELVES = (
    SETUP
    + """
barrier = threading.Barrier(2)

def timed(count):
    barrier.wait()
    start = time.perf_counter()
    call(count)
    print(time.perf_counter() - start)

threads = [threading.Thread(target=timed, args=(count,)) for count in (300, 500)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
)


class TestEnd:
    """The script's process ends when Python would end it."""

    def test_an_idle_thread_pool_does_not_hold_it_up(self, check_script):
        pool = "pool = ThreadPoolExecutor(2)\npool.submit(call, 1).result()\n"
        assert check_script(SETUP + pool).ending == Ending("finished", 0)

    def test_a_daemon_thread_does_not_hold_it_up(self, check_script):
        forever = "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        assert check_script(SETUP + forever).ending == Ending("finished", 0)

    def test_other_threads_and_functions_registered_for_the_end_run_to_their_end(
        self, check_script
    ):
        source = """
def at_exit():
    assert open("thread").read() == "done"
    call(3)
    open("atexit", "w").write("done")

def later():
    time.sleep(0.3)
    call(2)
    open("thread", "w").write("done")

atexit.register(at_exit)
threading.Thread(target=later).start()
"""
        check = check_script(SETUP + source)
        assert check.ending == Ending("finished", 0)
        assert Path("atexit").read_text() == "done"

    def test_an_error_has_the_exit_status_of_python_and_ends_threads(self, check_script):
        pool = "pool = ThreadPoolExecutor(2)\npool.submit(call, 1).result()\nraise OSError('no')\n"
        ending = check_script(SETUP + pool).ending
        assert (ending.kind, ending.code, ending.says) == ("raised", 1, "OSError: no")

    @pytest.mark.workers_counted
    def test_a_forked_process_that_runs_on_writes_nothing(self, check_script):
        source = """
import os
pid = os.fork()
if not pid:
    raise SystemExit(3)
os.waitpid(pid, 0)
"""
        assert check_script(SETUP + source).ending == Ending("finished", 0)


class TestCounts:
    def test_calls_of_all_threads_are_counted(self, check_script):
        (timed,) = check_script(IN_A_POOL).timed
        assert (timed.timings, timed.calls) == (1, 1000)

    def test_a_thread_that_times_itself_counts_its_own_calls(self, check_script):
        (timed,) = check_script(THREADS_THAT_TIME_THEMSELVES).timed
        assert (timed.timings, timed.calls) == (2, 800)

    def test_calls_of_a_thread_without_a_clock_belong_to_the_one_that_reads_it(self):
        def regions(readings, timings):
            calls = (calls_of(0, 10), calls_of(1, 20), calls_of(2, 40))
            spans = (Span(), *[Span(calls)] * (len(readings) - 1), Span())
            models = (Model("Net", PLACE, {"float32": 1}, "cpu"),)
            seen = Observations(models, readings, spans, timings, Ending("finished", 0))
            return [region.count for region in find_regions(seen)]

        first, second = reading(0), reading(1)
        assert regions((first, first), (timing(0, 1),)) == [70]
        overlapping = (timing(0, 2), timing(1, 3))
        assert regions((first, second, first, second), overlapping) == [100, 120]


PLACE = Place("s.py", 5)


def reading(thread: int) -> Reading:
    return Reading("time.perf_counter", PLACE, 0.0, None, thread)


def timing(start: int, end: int) -> Timing:
    return Timing(start, end, 1.0, None, PLACE)


def calls_of(thread: int, count: int) -> Calls:
    kinds = ("float32",)
    return Calls(0, PLACE, count, 0.5, 0, 0.0, False, False, False, kinds, kinds, thread)


CHILDREN = """
import multiprocessing, subprocess, sys

def work(number):
    return sum(range(40_000_000)) + number

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(pool.map(work, range(2)))
"""


class TestChildProcesses:
    def test_work_of_child_processes_is_reported_as_not_observed(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("script.py").write_text(CHILDREN)
        check = pb.check("script.py", timeout_s=120)
        (note,) = [n for n in check.notes if "not observed" in n]
        assert note.startswith("child processes of the script (2 by multiprocessing at script.py:8")

    @pytest.mark.workers_counted
    def test_a_short_command_is_not_reported(self, check_script):
        source = SETUP + "import subprocess\nprint(subprocess.check_output(['uname']))\n"
        assert not [note for note in check_script(source).notes if "child process" in note]

    @pytest.mark.workers_counted
    def test_a_data_loader_is_reported_with_its_workers(self, check_script):
        source = """
from torch.utils.data import DataLoader

class Slow(torch.utils.data.Dataset):
    def __len__(self): return 4
    def __getitem__(self, number):
        sum(range(5_000_000))
        return torch.rand(4)

for batch in DataLoader(Slow(), num_workers=2):
    pass
"""
        (note,) = [n for n in check_script(SETUP + source).notes if "not observed" in n]
        assert "2 by DataLoader at script.py:22" in note


def notes_of(processes: ChildProcesses, source: str = "", cpu_s: float = 5.0) -> list[str]:
    seen = Observations(
        (), (), (Span(),), (), Ending("finished", 0), processes=(processes,), children_cpu_s=cpu_s
    )
    seen = attrs.evolve(seen, cores=4)
    static = analyze(source, "s.py") if source else StaticFindings()
    return [note for note in notes(RuleContext(seen, (), static)) if "wait for one another" in note]


class TestCores:
    SPAWNED = ChildProcesses("multiprocessing", PLACE, 8, 4, 4)

    def test_more_threads_than_cores_are_reported_with_both_numbers(self):
        (note,) = notes_of(self.SPAWNED)
        assert "4 child processes (multiprocessing) ran at the same time with 4 CPU threads" in note
        assert "16 threads on 4 CPU cores" in note

    @pytest.mark.parametrize(
        ("processes", "source", "cpu_s"),
        [
            (attrs.evolve(SPAWNED, threads_each=1), "", 5.0),
            (attrs.evolve(SPAWNED, threads_each=None), "", 5.0),
            (SPAWNED, "import torch\ntorch.set_num_threads(1)", 5.0),
            (SPAWNED, "import torch\ntorch.set_num_threads(share())", 5.0),
            (SPAWNED, "", 0.01),
        ],
        ids=["one thread", "no torch", "set to one", "computed", "idle"],
    )
    def test_no_more_threads_than_cores_are_no_note(self, processes, source, cpu_s):
        assert notes_of(processes, source, cpu_s) == []

    def test_threads_that_call_models_at_once_share_the_cores(self, check_script):
        many = IN_A_POOL.replace("set_num_threads(1)", "set_num_threads(64)")
        (note,) = [n for n in check_script(many).notes if "wait for one another" in n]
        assert note.startswith("4 threads of the script called models in one timing")
        assert "256 threads on" in note

    def test_threads_that_take_turns_share_no_cores(self, check_script):
        source = """
torch.set_num_threads(64)
first, second = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
first.submit(call, 1).result(), second.submit(call, 1).result()
start = time.perf_counter()
for _ in range(50):
    first.submit(call, 1).result()
    second.submit(call, 1).result()
print(time.perf_counter() - start)
"""
        check = check_script(SETUP + source)
        assert check.timed[0].calls == 100
        assert [n for n in check.notes if n.startswith("2 threads of the script")] == []
