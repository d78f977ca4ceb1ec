"""A supervised process ends as if it were alone, and nothing that it has started outlives it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from test_fork_server import has_ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are supervised on Linux")

BOOT = """
import ctypes, multiprocessing, os, pathlib, signal, subprocess, sys, time
from precisionbench._internal.supervisor import descendants, supervised
supervised(own_session="own" in sys.argv)
folder = pathlib.Path(sys.argv[1])
def say(name, value=""):
    (folder / "new").write_text(str(value))
    (folder / "new").rename(folder / name)
def start(command):
    # found by a file: a daemon's parent does not know its process ID
    script = f"{command} sh -c 'echo $$ > {folder}/$$.pid; exec sleep 600' >/dev/null 2>&1 &"
    subprocess.run(["sh", "-c", script])
def started(count):
    while len(list(folder.glob("*.pid"))) < count or not all(
        one.read_text() for one in folder.glob("*.pid")
    ):
        time.sleep(0.01)
"""


def start(folder: Path, program: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", BOOT + program, str(folder), *arguments])


def wait_for(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + 30
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.01)
    assert condition()


def pids(folder: Path) -> list[int]:
    return [int(one.read_text()) for one in folder.glob("*.pid")]


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("sys.exit(0)", 0),
        ("os._exit(7)", 7),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -11),
        ("os.kill(os.getpid(), signal.SIGTERM)", -15),
    ],
)
def test_the_supervisor_ends_as_its_child_does(tmp_path, end, status):
    assert start(tmp_path, end).wait(60) == status


def test_the_childs_streams_are_those_of_its_parent(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BOOT + "print(input())", str(tmp_path)],
        input="text\n", capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "text\n"


@pytest.mark.parametrize("own", ["", "own"])
def test_programs_and_daemons_end_with_the_process_that_has_started_them(tmp_path, own):
    process = start(tmp_path, "start(''); start('setsid'); started(2)", own)
    assert process.wait(60) == 0
    assert len(pids(tmp_path)) == 2
    assert all(map(has_ended, pids(tmp_path)))


def test_a_process_that_holds_the_interpreter_ends_at_sigterm_with_all_that_it_has_started(
    tmp_path,
):
    program = "start('setsid'); started(1); say('ready'); ctypes.PyDLL(None).sleep(600)"
    process = start(tmp_path, program, "own")
    wait_for((tmp_path / "ready").exists)
    process.terminate()
    assert process.wait(60) == -9
    assert all(map(has_ended, pids(tmp_path)))


def test_all_end_with_a_parent_that_is_killed(tmp_path):
    command = (
        "start('setsid'); started(1); say('ready', os.getpid()); ctypes.PyDLL(None).sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])",
         sys.executable, "-c", BOOT + command, str(tmp_path)],
    )  # fmt: skip
    wait_for((tmp_path / "ready").exists)
    parent.kill()
    parent.wait()
    child = int((tmp_path / "ready").read_text())
    assert has_ended(child)
    assert all(map(has_ended, pids(tmp_path)))


def test_shared_memory_of_a_killed_process_is_removed_by_its_resource_tracker(tmp_path):
    program = """
from multiprocessing import shared_memory
say('ready', shared_memory.SharedMemory(create=True, size=64).name)
time.sleep(600)
"""
    process = start(tmp_path, program, "own")
    wait_for((tmp_path / "ready").exists)
    name = (tmp_path / "ready").read_text()
    assert Path("/dev/shm", name).exists()
    process.terminate()
    process.wait(60)
    assert not Path("/dev/shm", name).exists()


def test_a_signal_to_the_childs_own_group_leaves_its_supervisor(tmp_path):
    process = start(tmp_path, "start('setsid'); started(1); os.killpg(0, signal.SIGKILL)", "own")
    assert process.wait(60) == -9
    assert all(map(has_ended, pids(tmp_path)))


def test_ctrl_c_in_the_terminal_is_the_childs_and_not_its_supervisors(tmp_path):
    program = """
try:
    start('setsid'); started(1); say('ready'); time.sleep(600)
except KeyboardInterrupt:
    say('interrupted'); sys.exit(3)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.signal(2, signal.default_int_handler)\n"
         + BOOT + program, str(tmp_path)],
        start_new_session=True,
    )  # fmt: skip
    wait_for((tmp_path / "ready").exists)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 3
    assert (tmp_path / "interrupted").exists()
    assert all(map(has_ended, pids(tmp_path)))
