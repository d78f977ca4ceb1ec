"""What `tune` expects of configurations that it has not tried."""

from __future__ import annotations

import attrs
import pytest

from precisionbench.backends.rungs import Stage
from precisionbench.results.tuning import BEYOND, FINALIST, INACCURATE, Accuracy, Trial
from precisionbench.statistics import Interval
from precisionbench.workflows.tuning.estimates import PRIORS, Estimates
from precisionbench.workflows.tuning.space import Family, Space

HALF, BFLOAT16 = "half", "half:dtype=bfloat16"
IN_LAYOUT = ",memory_format=channels_last"
SPACE = Space(
    (
        Family("eager", Stage.PRECISION, ("eager", "eager:precision=tf32")),
        Family("half", Stage.PRECISION, (HALF, BFLOAT16)),
        Family("compile", Stage.COMPILER, ("compile:dtype=float16",)),
    )
)


def estimates(device: str = "cuda", inaccurate: tuple[str, ...] = (), **speeds: float) -> Estimates:
    """After some rows were timed, or found inaccurate; names are of rows without options."""
    known = {name: Interval(value, value, value) for name, value in speeds.items()}
    trials = {name: Trial(name, FINALIST, "") for name in known}
    trials |= {name: Trial(name, INACCURATE, "") for name in inaccurate}
    return Estimates(SPACE, trials, known, start_s=lambda: 3.0, priors=PRIORS[device])


@pytest.mark.parametrize(
    ("device", "order"),
    [
        ("cuda", [HALF, BFLOAT16, "eager:precision=tf32", "eager:memory_format=channels_last"]),
        ("cpu", [BFLOAT16, "eager:memory_format=channels_last", HALF]),
    ],
)
def test_the_dtype_that_is_usually_the_fastest_is_tried_first(device, order):
    found = estimates(device)
    assert sorted(order, key=lambda spec: -found.speed(spec)) == order
    assert found.is_promising("eager:memory_format=channels_last", "eager")


TUNED = "compile:dtype=float16,mode=max-autotune-no-cudagraphs"


@pytest.mark.parametrize(("built_s", "expected_s"), [(None, 30.0), (30.0, 90.0)])
def test_tuned_kernels_take_several_times_as_long_as_others_of_the_backend(built_s, expected_s):
    family = Family("compile", Stage.COMPILER, ("compile:dtype=float16",))
    built = {"compile:dtype=float16": Trial("compile:dtype=float16", FINALIST, build_s=built_s)}
    found = Estimates(Space((family,)), built, {}, start_s=lambda: 3.0)
    assert found.build_s(TUNED) == expected_s
    assert found.build_s("compile:dtype=float16") == (built_s or 10.0)
    found.late["compile"] = 70.0
    assert found.build_s(TUNED) == (210.0 if built_s is None else 150.0)
    del found.late["compile"]
    found.late[TUNED] = 400.0
    assert found.build_s(TUNED) == 400.0
    assert found.build_s("compile:dtype=float16") == (built_s or 10.0)


def test_float16_is_not_promising_on_a_cpu():
    assert not estimates("cpu").is_promising(HALF, "eager")


def test_a_dtype_is_expected_to_be_as_fast_as_in_the_other_layout():
    found = estimates(eager=1.0, half=3.0)
    assert found.speed(f"half:dtype=float16{IN_LAYOUT}") == 3.0
    assert found.speed("eager:memory_format=channels_last") == 1.0
    assert found.speed(BFLOAT16) == 3.0


def test_where_half_is_slow_the_next_dtype_is_promising():
    found = estimates(eager=1.0, half=0.9)
    assert found.is_promising("eager:precision=tf32", "eager")
    assert found.is_promising(BFLOAT16, "eager")


def test_a_dtype_that_is_inaccurate_is_unlikely_in_each_layout_but_not_with_layers_in_float32():
    found = estimates(inaccurate=(HALF,), eager=1.0)
    assert found.is_unlikely(f"half:dtype=float16{IN_LAYOUT}")
    assert found.is_unlikely("compile:dtype=float16")
    assert not found.is_unlikely("half:fp32_layers=head")
    assert not found.is_unlikely("autocast")
    assert not found.is_unlikely(BFLOAT16)


@pytest.mark.parametrize("accurate", ["half:fp32_layers=head", "autocast"])
def test_a_row_that_keeps_float32_does_not_show_that_its_dtype_is_accurate(accurate):
    found = estimates(inaccurate=(HALF,), **{"eager": 1.0, accurate: 3.0})
    assert found.is_unlikely("compile:dtype=float16")
    assert found.speed("half:fp32_layers=head+stem") == 3.0


@pytest.mark.parametrize("inaccurate", ["half:fp32_layers=head", "autocast"])
def test_a_dtype_is_unlikely_where_even_a_row_that_keeps_float32_is_inaccurate(inaccurate):
    assert estimates(inaccurate=(inaccurate,), eager=1.0).is_unlikely("compile:dtype=float16")


def near(*specs: str, error: float = 1.2e-2, **speeds: float) -> Estimates:
    """After rows whose error is beyond a bound of 1e-2."""
    found = estimates(inaccurate=specs, **speeds)
    accuracy = Accuracy(Interval(error, error, error), BEYOND)
    trials = {spec: attrs.evolve(found.trials[spec], accuracy=accuracy) for spec in specs}
    return attrs.evolve(found, trials={**found.trials, **trials}, limit=1e-2)


COMPILED = "compile:dtype=float16"


def test_a_dtype_that_nearly_keeps_the_bound_may_keep_it_with_another_backend():
    found = near(HALF, eager=1.0)
    assert not found.is_unlikely(COMPILED)
    assert found.speed(COMPILED) == 0.5 * estimates(eager=1.0).speed(COMPILED)
    assert found.is_unlikely(f"half:dtype=float16{IN_LAYOUT}")
    assert near(HALF, error=1.4e-2, eager=1.0).is_unlikely(COMPILED)


def test_a_backend_of_which_one_row_is_inaccurate_does_not_keep_the_bound_with_others():
    found = near(HALF, COMPILED, eager=1.0)
    assert found.is_unlikely(f"{COMPILED},freezing=true")
    assert not found.is_unlikely(BFLOAT16)
