"""Output of plugins and models is captured; text of other threads and handlers is shown."""

from __future__ import annotations

import logging
import sys
import threading
import tracemalloc
import warnings

import pytest

from precisionbench._internal.output_capture import OutputCapture, silence
from precisionbench.errors import PrecisionBenchWarning


def test_text_and_warnings_are_captured_and_not_shown(capsys):
    capture = OutputCapture()
    with capture.capturing():
        print("out")
        sys.stderr.writelines(["err", "or\n"])
        warnings.warn("old", FutureWarning, stacklevel=1)
        warnings.warn("mind the gap", PrecisionBenchWarning, stacklevel=1)
    capture.warn("our own")
    assert capture.log() == ("out", "error", "FutureWarning: old")
    assert capture.warnings() == ("our own", "mind the gap")
    assert capsys.readouterr() == ("", "")


def test_silence_discards_text_and_warnings(capsys):
    with silence():
        print("out")
        warnings.warn("old", FutureWarning, stacklevel=1)
    assert capsys.readouterr() == ("", "")


def test_a_logging_handler_made_within_the_capture_writes_to_the_terminal_afterwards(capsys):
    capture = OutputCapture()
    with capture.capturing():
        handler = logging.StreamHandler()
        handler.handle(logging.makeLogRecord({"msg": "during"}))
    handler.handle(logging.makeLogRecord({"msg": "after"}))
    assert capture.log() == ("during",)
    assert capsys.readouterr().err == "after\n"


def test_text_of_a_thread_that_ran_before_is_shown(capsys):
    begin, done = threading.Event(), threading.Event()

    def other() -> None:
        begin.wait(10)
        print("from another thread")
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with silence():
        print("from ours")
        begin.set()
        done.wait(10)
    thread.join()
    assert capsys.readouterr().out == "from another thread\n"


def test_text_of_a_thread_that_the_plugin_starts_is_captured(capsys):
    capture = OutputCapture()
    with capture.capturing():
        thread = threading.Thread(target=print, args=("from the plugin",))
        thread.start()
        thread.join()
    assert capture.log() == ("from the plugin",)
    assert capsys.readouterr().out == ""


def test_the_replaced_stream_has_the_attributes_of_the_original(capfd):
    encoding = sys.stdout.encoding
    with silence():
        assert sys.stdout.isatty() is False
        assert sys.stdout.encoding == encoding
        assert isinstance(sys.stdout.fileno(), int)
        sys.stdout.flush()


def test_a_process_without_standard_streams_can_be_captured(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    capture = OutputCapture()
    with capture.capturing():
        print("said")
        sys.stdout.flush()
    assert capture.log() == ("said",)


def test_of_one_long_line_the_ends_are_kept(capsys):
    capture = OutputCapture()
    with capture.capturing():
        print("begin " + "x" * 50_000_000 + " end")
    first, middle, last = capture.log()
    assert first.startswith("begin x")
    assert middle == "... 49.9 MB left out ..."
    assert last.endswith("x end")
    assert len(first) + len(last) < 70_000


def test_of_many_lines_the_first_and_the_last_are_kept():
    capture = OutputCapture()
    with capture.capturing():
        for number in range(100_000):
            print(number)
    log = capture.log()
    assert log[0] == "0"
    assert log[-1] == "99999"
    assert sum(map(len, log)) < 70_000
    printed = sum(len(f"{number}\n") for number in range(100_000))
    kept = 2 * 32_768
    assert f"... {(printed - kept) / 1e3:.1f} kB left out ..." in log


def test_memory_stays_small_while_much_is_printed_and_warned():
    capture = OutputCapture()
    tracemalloc.start()
    with capture.capturing():
        for number in range(4_000):
            sys.stdout.write("x" * 1000)
            warnings.warn(f"{'y' * 10_000} {number}", stacklevel=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


def test_of_thousands_of_warnings_the_first_and_the_last_are_kept():
    capture = OutputCapture()
    with capture.capturing():
        for number in range(3000):
            warnings.warn(f"step {number}", stacklevel=1)
            warnings.warn("the same again", stacklevel=1)
            warnings.warn(f"qualified {number}", PrecisionBenchWarning, stacklevel=1)
    log, qualified = capture.log(), capture.warnings()
    assert len(log) == len(qualified) == 201
    assert log[:2] == ("UserWarning: step 0", "UserWarning: the same again")
    assert log[-1] == "UserWarning: step 2999"
    assert "... 2801 warnings left out ..." in log
    assert qualified[100] == "... 2800 warnings left out ..."


def test_text_without_an_encoding_can_be_written_to_a_file():
    capture = OutputCapture()
    with capture.capturing():
        print("file \udc80")
        warnings.warn("name \udc80", PrecisionBenchWarning, stacklevel=1)
    assert capture.log() == ("file \\udc80",)
    assert capture.warnings() == ("name \\udc80",)


def test_only_text_can_be_written(capsys):
    capture = OutputCapture()
    with capture.capturing(), pytest.raises(TypeError, match="must be str, not bytes"):
        sys.stdout.write(b"bytes")
