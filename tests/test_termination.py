"""SIGTERM and SIGHUP undo what was begun, say what is kept, and then end the process themselves."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")

BOOT = """
import contextlib, os, signal, sys, threading, time
from precisionbench._internal.termination import terminated_in_order
from precisionbench.errors import Terminated, text_of
def end():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BOOT + program], capture_output=True, text=True, timeout=60
    )


def test_what_was_begun_is_undone_before_the_process_ends():
    done = run("""
with terminated_in_order(lambda: print("last", flush=True)):
    try:
        end()
    finally:
        print("undone", flush=True)
print("never")
""")
    assert done.returncode == -signal.SIGTERM
    assert done.stdout.split() == ["undone", "last"]
    assert done.stderr == "precisionbench: ended by SIGTERM; nothing is kept\n"


def test_a_closed_terminal_ends_it_in_order():
    done = run("""
with terminated_in_order():
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.01)
    finally:
        print("undone", flush=True)
""")
    assert (done.returncode, done.stdout) == (-signal.SIGHUP, "undone\n")
    assert done.stderr == "precisionbench: ended by SIGHUP; nothing is kept\n"
    ignored = run("""
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
with terminated_in_order():
    os.kill(os.getpid(), signal.SIGHUP)
    time.sleep(0.01)
    print("goes on", flush=True)
    end()
""")
    assert (ignored.returncode, ignored.stdout) == (-signal.SIGTERM, "goes on\n")


def test_the_last_line_says_what_is_kept():
    done = run("""
with terminated_in_order():
    try:
        end()
    except Terminated as exc:
        exc.kept = "rounds are kept"
        raise
""")
    assert done.stderr == "precisionbench: ended by SIGTERM; rounds are kept\n"


def test_what_is_kept_is_known_where_the_signal_comes_again_while_it_is_undone():
    done = run("""
from precisionbench._internal import termination
termination._REPEATED_WITHIN_S = 0.0
with terminated_in_order():
    try:
        end()
    except Terminated as exc:
        exc.kept = "rounds are kept"
        end()
""")
    assert done.stderr == "precisionbench: ended by SIGTERM; rounds are kept\n"


def test_a_second_signal_does_not_disturb_the_undoing():
    done = run("""
with terminated_in_order():
    try:
        end()
    finally:
        end()
        print("undone", flush=True)
""")
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "undone\n")


def test_the_process_ends_also_where_something_keeps_the_exception():
    done = run("""
with terminated_in_order():
    try:
        end()
    except BaseException:
        print("kept", flush=True)
print("never")
""")
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "kept\n")


@pytest.mark.slow  # processes of their own
@pytest.mark.parametrize(
    "code",
    [
        "from precisionbench.measure.worker.guards import check_available; check_available(Slow())",
        "from precisionbench.measure.rows import plan; plan([Slow()])",
        "text_of(Slow())",
    ],
)
def test_the_code_of_a_plugin_that_it_interrupts_is_not_blamed_for_it(code):
    done = run(f"""
from precisionbench.backends.eager import Eager
class Slow(Eager):
    check_available = claims = __str__ = lambda self: end()
with terminated_in_order():
    with contextlib.suppress(Exception):
        {code}
    print("never")
""")
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")


def test_the_systems_action_is_in_force_again_afterwards():
    done = run("""
with terminated_in_order():
    pass
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
end()
""")
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")


def test_an_application_that_handles_the_signal_is_not_interfered_with():
    done = run("""
signal.signal(signal.SIGTERM, lambda *_: print("mine", flush=True))
with terminated_in_order():
    end()
""")
    assert (done.returncode, done.stdout) == (0, "mine\n")


def test_a_handler_that_was_set_meanwhile_stays():
    done = run("""
with terminated_in_order():
    signal.signal(signal.SIGTERM, lambda *_: print("mine", flush=True))
end()
""")
    assert (done.returncode, done.stdout) == (0, "mine\n")


def test_nothing_is_changed_in_a_thread():
    done = run("""
def use():
    with terminated_in_order():
        print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
thread = threading.Thread(target=use)
thread.start()
thread.join()
""")
    assert done.stdout == "True\n"


def test_a_process_that_was_forked_meanwhile_ends_at_once():
    done = run("""
with terminated_in_order():
    if not (child := os.fork()):
        try:
            end()
        finally:
            print("never")
    print(os.waitpid(child, 0)[1])
""")
    assert done.stdout == f"{int(signal.SIGTERM)}\n"
