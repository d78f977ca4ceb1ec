"""Output of plugins and models is captured; text of other threads and handlers is shown."""

from __future__ import annotations

import logging
import sys
import threading
import warnings

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
