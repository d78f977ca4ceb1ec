"""Names of rows that are cut: they fit, and they still differ."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from precisionbench.report.short_names import short_names

NAMES = [
    "eager",
    "compile:dtype=float16,memory_format=channels_last",
    "compile:dtype=float16,freezing=true,memory_format=channels_last",
    "compile:dtype=float16,mode=reduce-overhead,memory_format=channels_last",
]


def test_names_that_fit_are_not_cut():
    assert short_names(NAMES, 80) == NAMES


def test_options_that_all_rows_of_a_backend_have_are_left_out_first():
    assert short_names(NAMES, 40) == [
        "eager",
        "compile:...",
        "compile:...,freezing=true",
        "compile:...,mode=reduce-overhead",
    ]


def test_the_end_of_a_name_is_kept():
    assert short_names(["half:memory_format=channels_last"], 20) == ["half:memo...els_last"]


@given(st.lists(st.sampled_from(NAMES) | st.text("ab:,=", max_size=40), unique=True), st.just(12))
def test_different_names_stay_different(names, width):
    short = short_names(names, width)
    assert all(len(name) <= width for name in short)
    assert len(set(short)) == len(names)
