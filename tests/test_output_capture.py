"""What others print: kept with the row, and nobody else's text is lost."""

from __future__ import annotations

import logging
import sys
import threading
import warnings

from precisionbench._internal.output_capture import OutputCapture, silence
from precisionbench.errors import PrecisionBenchWarning


def test_text_and_warnings_are_kept_and_not_shown(capsys):
    record = OutputCapture()
    with record.capturing():
        print("out")
        sys.stderr.writelines(["err", "or\n"])
        warnings.warn("old", FutureWarning, stacklevel=1)
        warnings.warn("mind the gap", PrecisionBenchWarning, stacklevel=1)
    record.warn("our own")
    assert record.log() == ("out", "error", "FutureWarning: old")
    assert record.warnings() == ("our own", "mind the gap")
    assert capsys.readouterr() == ("", "")


def test_silence_keeps_nothing_and_shows_nothing(capsys):
    with silence():
        print("out")
        warnings.warn("old", FutureWarning, stacklevel=1)
    assert capsys.readouterr() == ("", "")


def test_a_handler_that_was_made_meanwhile_still_speaks_to_the_user_afterwards(capsys):
    record = OutputCapture()
    with record.capturing():
        handler = logging.StreamHandler()
        handler.handle(logging.makeLogRecord({"msg": "during"}))
    handler.handle(logging.makeLogRecord({"msg": "after"}))
    assert record.log() == ("during",)
    assert capsys.readouterr().err == "after\n"


def test_what_another_thread_prints_is_shown(capsys):
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


def test_what_a_thread_of_the_plugin_prints_is_kept(capsys):
    record = OutputCapture()
    with record.capturing():
        thread = threading.Thread(target=print, args=("from the plugin",))
        thread.start()
        thread.join()
    assert record.log() == ("from the plugin",)
    assert capsys.readouterr().out == ""


def test_the_stand_in_is_a_stream_like_the_one_it_stands_for(capfd):
    encoding = sys.stdout.encoding
    with silence():
        assert sys.stdout.isatty() is False
        assert sys.stdout.encoding == encoding
        assert isinstance(sys.stdout.fileno(), int)
        sys.stdout.flush()


def test_a_process_without_streams_is_no_obstacle(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    record = OutputCapture()
    with record.capturing():
        print("said")
        sys.stdout.flush()
    assert record.log() == ("said",)
