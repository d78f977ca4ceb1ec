"""Errors of plugins and models become sentences, whatever their text is."""

from __future__ import annotations

import pytest

from precisionbench.errors import (
    BackendUnavailableError,
    ExecutionError,
    PrecisionBenchError,
    PreparationError,
    one_line,
    raise_plain,
    text_of,
    traceback_of,
)
from precisionbench.measure.worker import guards
from precisionbench.measure.worker.guards import executing


def error_whose_text_is(answer: object) -> Exception:
    class Odd(Exception):
        def __str__(self):
            if isinstance(answer, BaseException):
                raise answer
            return answer

    return Odd()


class Text(str):
    def splitlines(self, keepends=False):
        raise ZeroDivisionError

    def __getitem__(self, index):
        raise ZeroDivisionError

    def __len__(self):
        return 1


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (ZeroDivisionError(), "Odd: its text cannot be made, because of ZeroDivisionError"),
        (SystemExit(1), "Odd: its text cannot be made, because of SystemExit"),
        (GeneratorExit(), "Odd: its text cannot be made, because of GeneratorExit"),
        (b"bytes", "Odd: its text cannot be made, because of TypeError"),
        (None, "Odd: its text cannot be made, because of TypeError"),
        (7, "Odd: its text cannot be made, because of TypeError"),
        ("a \udc80 file", "Odd: a \\udc80 file"),
        ("", "Odd"),
        (" \n \n", "Odd"),
        (Text("first\nsecond"), "Odd: first"),
    ],
)
def test_an_error_whose_text_is_odd_is_named_in_one_line(answer, sentence):
    assert one_line(error_whose_text_is(answer)) == sentence


@pytest.mark.parametrize("text", ["x" * 10_000_000, "x" + "\n" * 10_000_000])
def test_an_error_of_ten_megabytes_is_one_short_line(text):
    assert one_line(ValueError(text)).startswith("ValueError: x")
    assert len(one_line(ValueError(text))) <= 300
    assert len(str(PreparationError(text, text))) < 41_000


def test_the_interrupt_of_a_user_passes():
    with pytest.raises(KeyboardInterrupt):
        one_line(error_whose_text_is(KeyboardInterrupt()))


def test_a_class_with_an_odd_name_is_named_in_one_line():
    odd = type("An\nOdd" + "d" * 500, (Exception,), {})
    assert one_line(odd("text")).startswith("An Odddd")
    assert len(one_line(odd("text"))) <= 300


def test_a_shortened_text_says_how_much_was_left_out():
    assert text_of("abcdef", 6) == "abcdef"
    assert text_of("abcdefgh", 4) == "ab\n... 4 characters left out ...\ngh"
    assert text_of("a" * 5_000, 1_000).splitlines()[1] == "... 4.0 kB left out ..."
    assert text_of("a" * 5_000_000, 1_000).splitlines()[1] == "... 5.0 MB left out ..."


def test_the_traceback_of_an_odd_error_can_be_shown():
    error = error_whose_text_is(ZeroDivisionError())
    error.__notes__ = 7  # which Python's own function may refuse
    assert "Odd" in traceback_of(error)
    assert len(traceback_of(ValueError("x" * 10_000_000))) < 101_000


@pytest.mark.parametrize("reason", [None, b"bytes", 7, "a \udc80 file", "x" * 10_000_000])
def test_what_a_plugin_gives_our_errors_is_made_text(reason):
    error = BackendUnavailableError(reason, reason)
    for text in (error.reason, error.requirement, error.remedy, str(error)):
        assert isinstance(text, str)
        assert len(text.encode()) < 50_000


class Silent(BackendUnavailableError):
    def __init__(self) -> None:
        """Without reason and remedy."""

    def __str__(self) -> str:
        raise ZeroDivisionError


class Own(ExecutionError):
    pass


def test_an_error_of_a_plugins_own_class_becomes_one_of_ours():
    with pytest.raises(BackendUnavailableError) as caught:
        raise_plain(Silent())
    assert type(caught.value) is BackendUnavailableError
    assert "Silent: its text cannot be made" in str(caught.value)
    with pytest.raises(PrecisionBenchError) as caught:
        raise_plain(Own("it broke", "mend it"))
    assert type(caught.value) is ExecutionError
    assert str(caught.value) == "it broke; mend it"
    assert isinstance(caught.value.__cause__, Own)


def test_an_error_of_ours_stays_the_same():
    error = ExecutionError("it broke")
    with pytest.raises(ExecutionError) as caught:
        raise_plain(error)
    assert caught.value is error


@pytest.mark.parametrize("answer", [ZeroDivisionError(), b"bytes", "CUDA \udc80", "x" * 10_000_000])
def test_a_call_that_raises_an_odd_error_is_an_execution_error(answer):
    with pytest.raises(ExecutionError) as caught, executing():
        raise error_whose_text_is(answer)
    assert caught.value.reason.startswith("the model failed in forward (Odd: ")
    assert len(str(caught.value).encode()) < 1000


def test_causes_that_go_in_a_circle_end():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    guards.drop_frames(first)
    assert one_line(first) == "ValueError: first"
