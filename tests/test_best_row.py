"""`comparison.best()`: the fastest row whose output is within a tolerance."""

from __future__ import annotations

import attrs
import pytest

from made_up_results import comparison_data, recorded
from precisionbench.comparison import Comparison
from precisionbench.errors import RowNotFoundError, SpecError
from precisionbench.results import Agreement, TensorAgreement


def resnet() -> Comparison:
    return Comparison(recorded("resnet50-five"))


def failing() -> Comparison:
    """Two rows, and one that cannot run."""
    return Comparison(comparison_data(schedule="rounds"))


def test_the_best_row_is_the_fastest_within_the_tolerance():
    found = resnet().best(within=1e-2)
    assert found.backend == "half:memory_format=channels_last"
    assert found.speedup == resnet().speedup(found.backend)
    assert found.error == resnet()[found.backend].agreement.relative_l2
    assert found.ties == found.left_out == ()


def test_rows_that_are_too_inaccurate_are_left_out_with_the_reason():
    found = resnet().best(within=6.5e-4)
    assert found.backend == "eager:precision=tf32"
    assert found.left_out == (
        "half: its error 7.2e-04 is above the tolerance 6.5e-04",
        "half:memory_format=channels_last: its error 7.2e-04 is above the tolerance 6.5e-04",
        "half:dtype=bfloat16: its error 5.4e-03 is above the tolerance 6.5e-04",
    )


def test_the_reference_is_within_any_tolerance():
    found = resnet().best(within=0)
    assert (found.backend, found.error) == ("eager", 0.0)


def with_error(relative_l2: float | None, nonfinite: int = 0, time_s: float = 0.004) -> Comparison:
    """`eager`, and `half` with an error and without a profile."""
    base, half = failing().results
    tensor = TensorAgreement("", (4, 5), "float16", relative_l2, 1.0, None, 1e-3, nonfinite)
    half = attrs.evolve(half, agreement=Agreement((tensor,)))
    return Comparison(attrs.evolve(failing().data, results=(base, half)))


@pytest.mark.parametrize(
    ("relative_l2", "best"), [(1e-3, "half"), (5e-3, "half"), (6e-3, "eager"), (None, "eager")]
)
def test_without_a_tolerance_that_of_the_rows_precision_counts(relative_l2, best):
    assert with_error(relative_l2).best().backend == best


@pytest.mark.parametrize("within", [None, 1.0])
def test_a_row_with_infinite_elements_is_never_the_best(within):
    found = with_error(1e-3, nonfinite=2).best(within)
    assert found.backend == "eager"
    assert found.left_out == (
        "half: its output is infinite or NaN where the reference's is finite",
    )


def test_rows_that_cannot_be_told_from_the_best_are_ties():
    same = attrs.evolve(failing().results[1], measurement=failing().results[0].measurement)
    found = Comparison(attrs.evolve(failing().data, results=(failing().results[0], same)))
    best = found.best(within=1.0)
    assert {best.backend, *best.ties} == {"eager", "half"}


def test_no_row_within_the_tolerance_is_an_error():
    data = with_error(1e-2).data
    failed = attrs.evolve(data.failures[0], backend="eager")
    data = attrs.evolve(data, results=data.results[1:], failures=(failed,))
    with pytest.raises(
        RowNotFoundError, match=r"no row is within tolerance \(half: its error 1.0e-02"
    ):
        Comparison(data).best(within=1e-3)


@pytest.mark.parametrize("within", [-1, float("nan"), "1e-2", True])
def test_a_tolerance_that_is_no_number_is_refused(within):
    with pytest.raises(SpecError, match="within is"):
        resnet().best(within)
