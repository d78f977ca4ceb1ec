"""Which configuration `tune` chooses, and the front of its result."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_up_results import recorded
from made_up_tuning import LATENCIES_S, error, final, tuning_data, with_metric
from precisionbench.analysis.speedups import speedup_over
from precisionbench.analysis.tuning import (
    choose,
    front,
    is_different,
    loss_of,
    ratio_text,
    simplicity,
)
from precisionbench.results import Passes
from precisionbench.results.tuning import FAILED, FINALIST, INACCURATE, Trial
from precisionbench.statistics import Interval

CHANNELS_LAST = "half:memory_format=channels_last"

# --- the choice ---------------------------------------------------------------------------------


def test_the_fastest_accurate_configuration_is_chosen_with_its_lead():
    spec, why = choose(final(), LATENCIES_S)
    assert spec == CHANNELS_LAST
    assert why.startswith(f"{CHANNELS_LAST} is 1.12x (1.1")
    assert why.endswith("as fast as the runner-up half")


def test_configurations_of_other_batches_are_compared_per_item():
    large = "half:batch_size=64"
    data = final({"eager": 10e-3, "half": 2.5e-3, large: 10e-3})
    rows = [attrs.evolve(r, batch_size=64 if r.backend == large else 8) for r in data.results]
    spec, why = choose(attrs.evolve(data, results=tuple(rows)), ["eager", "half", large])
    assert spec == large
    assert why.startswith(f"{large} is 2.00x (1.9")
    assert why.endswith("as fast per item as the runner-up half")


def test_an_inaccurate_configuration_is_never_chosen():
    spec, why = choose(final(), ["eager", "half"])
    assert spec == "half"
    assert why.startswith("half is 3.57x (3.5")
    assert why.endswith("as fast as the reference eager")


def test_of_two_that_are_equally_fast_the_one_with_fewer_options_wins():
    tie = {"eager": 10e-3, CHANNELS_LAST: 2.499e-3, "half": 2.501e-3}
    spec, why = choose(final(tie, jitter=0.02), tie)
    assert spec == "half"
    assert why.startswith(f"half and {CHANNELS_LAST} are equally fast within the intervals (")
    assert f"({CHANNELS_LAST}: 1.00x, " in why
    assert why.endswith("half has fewer options")


def test_of_two_that_are_equally_fast_the_one_of_the_simpler_engine_wins():
    tie = {"eager": 10e-3, "compile": 2.499e-3, CHANNELS_LAST: 2.501e-3}
    spec, why = choose(final(tie, jitter=0.02), tie)
    assert spec == CHANNELS_LAST
    assert why.endswith(f"{CHANNELS_LAST} has the simpler engine")


def test_of_equally_simple_ones_the_fastest_wins():
    dtype = "half:dtype=bfloat16"
    tie = {"eager": 10e-3, dtype: 2.5e-3, CHANNELS_LAST: 2.502e-3}
    spec, why = choose(final(tie, jitter=0.02), tie)
    assert spec in (dtype, CHANNELS_LAST)
    assert why.endswith(f"{spec} is the fastest of the simplest")


def test_where_the_simpler_one_is_much_slower_by_its_estimate_the_faster_one_wins():
    unclear = {"eager": 10e-3, CHANNELS_LAST: 2.5e-3, "half": 2.8e-3}
    data = final(unclear, jitter=0.6, rounds=6)
    ratio = speedup_over(data, "half", CHANNELS_LAST)
    assert ratio.value > 1.06
    assert not is_different(ratio)
    spec, why = choose(data, unclear)
    assert spec == CHANNELS_LAST
    assert why.startswith(f"{CHANNELS_LAST} is {ratio.value:.2f}x (")
    assert ") as fast as half, which is inconclusive; half is simpler, but " in why
    assert why.endswith(f"by the estimate {1 - 1 / ratio.value:.1%} slower than {CHANNELS_LAST}")


@pytest.mark.parametrize(
    ("latency_s", "jitter", "best"),
    [(2.533e-3, 0.1, CHANNELS_LAST), (2.475e-3, 0.2, "half"), (2.51e-3, 0.02, "half")],
)
def test_the_simpler_one_is_chosen_where_its_difference_is_negligible_or_may_be_noise(
    latency_s, jitter, best
):
    """1.03x (0.99 to 1.06), 1.02x (0.95 to 1.09), 1.01x (0.996 to 1.02): all inconclusive."""
    unclear = {"eager": 10e-3, CHANNELS_LAST: 2.5e-3, "half": latency_s}
    data = final(unclear, jitter=jitter, rounds=8, noise_floor=0.003 if jitter < 0.1 else 0.0)
    ratio = speedup_over(data, "half", CHANNELS_LAST)
    assert not is_different(ratio)
    assert 1 < ratio.value < 1.05
    assert choose(data, unclear)[0] == best


def test_of_equal_ones_the_simplest_is_named_where_it_is_much_slower_than_the_fastest():
    rows = {"eager": 10e-3, "compile": 2.6e-3, CHANNELS_LAST: 2.55e-3, "half": 2.75e-3}
    data = final(rows, rounds=8, drift={"compile": 0.2})
    assert not is_different(speedup_over(data, "compile", "half"))
    spec, why = choose(data, rows)
    assert spec == CHANNELS_LAST
    assert why.startswith(f"{CHANNELS_LAST} and compile are equally fast within the intervals")
    assert f"{CHANNELS_LAST} has the simpler engine" in why
    assert why.endswith("half is simpler, but by the estimate 10.4% slower than compile")


def test_a_certain_winner_over_the_reference_is_chosen_although_another_may_be_faster():
    rows = {"eager": 3e-3, "compile": 2.5e-3, "half": 2.6e-3}
    data = final(rows, rounds=8, drift={"compile": 0.7})
    assert not is_different(speedup_over(data, "eager", "compile"))
    spec, why = choose(data, rows)
    assert spec == "half"
    assert why.endswith(
        "as fast as the reference eager; compile is faster by its estimate, but not certainly "
        "faster than eager"
    )


def test_the_simplest_is_not_chosen_where_it_may_be_no_faster_than_the_reference():
    rows = {"eager": 2.62e-3, "compile": 2.5e-3, "half": 2.55e-3}
    data = final(rows, rounds=8, drift={"half": 0.1})
    assert not is_different(speedup_over(data, "eager", "half"))
    assert choose(data, rows)[0] == "compile"


def test_a_difference_of_less_than_a_percent_is_a_tie():
    tie = {"eager": 10e-3, CHANNELS_LAST: 2.49e-3, "half": 2.5e-3}
    assert choose(final(tie, jitter=1e-4, noise_floor=1e-5), tie)[0] == "half"


def test_a_small_difference_that_is_certain_is_no_tie():
    small = {"eager": 10e-3, CHANNELS_LAST: 2.48e-3, "half": 2.5e-3}
    data = final(small, jitter=0.01)
    ratio = speedup_over(data, "half", CHANNELS_LAST)
    assert ratio.verdict == "different_but_small"
    spec, why = choose(data, small)
    assert spec == CHANNELS_LAST
    assert why.startswith(f"{CHANNELS_LAST} is 1.01x (1.01 to 1.01)")
    points = {one.spec: one for one in front(tuning_data(final=data))}
    assert points[CHANNELS_LAST].is_on_front
    assert why.endswith("as fast as the runner-up half")


def test_the_reference_is_not_left_for_a_small_difference():
    data = final({"eager": 2.5e-3, "half": 2.488e-3}, jitter=0.01)
    assert speedup_over(data, "eager", "half").verdict == "different_but_small"
    assert choose(data, ["eager", "half"])[0] == "eager"


@pytest.mark.parametrize("latency_s", [9.99e-3, 10.5e-3])
def test_where_nothing_accurate_is_faster_the_reference_is_kept(latency_s):
    rows = {"eager": 10e-3, "half": latency_s, CHANNELS_LAST: 2.5e-3}
    spec, why = choose(final(rows, jitter=0.02), ["eager", "half"])
    assert spec == "eager"
    assert why.startswith("eager is kept, because no accurate configuration is clearly faster; ")
    assert "the fastest other one, half, is " in why


def test_without_another_accurate_configuration_the_reference_is_kept():
    assert choose(final(), ["eager"]) == (
        "eager",
        "eager is kept, because no other configuration is accurate enough",
    )
    alone = final({"eager": 1e-2})
    assert choose(alone, ["eager"])[1].endswith("no other configuration reached the final rounds")


def test_an_inaccurate_reference_does_not_win_over_an_accurate_configuration():
    rows = {"eager": 10e-3, "float64": 40e-3}
    assert choose(final(rows), ["float64"]) == (
        "float64",
        "float64 is the only configuration that is accurate enough",
    )


def test_a_clear_difference_of_too_few_rounds_is_chosen_and_called_inconclusive():
    spec, why = choose(final(rounds=2), LATENCIES_S)
    assert spec == CHANNELS_LAST
    assert why.endswith("the runner-up half; inconclusive (too few rounds)")


def test_configurations_of_other_batches_are_compared_by_items():
    large = "half:batch_size=16"
    rows = {"eager": 10e-3, "half": 2.5e-3, large: 6e-3}
    spec, why = choose(final(rows, batch_sizes={large: 16}), rows)
    assert spec == large
    assert why.startswith(f"{large} is 1.67x (1.6")


def test_engines_and_then_the_number_of_options_make_a_configuration_less_simple():
    in_order = [
        "eager",
        "eager:precision=tf32",
        "half",
        CHANNELS_LAST,
        "half:dtype=bfloat16,memory_format=channels_last",
        "autocast",
        "compile",
        "onnxruntime",
    ]
    mixed = sorted(in_order, key=len)
    assert sorted(mixed, key=simplicity) == in_order


# --- the front ----------------------------------------------------------------------------------


def on_front(data) -> list[str]:
    return [point.spec for point in front(data) if point.is_on_front]


def test_the_front_has_the_fastest_the_most_accurate_and_the_smallest():
    found = front(tuning_data())
    assert [point.spec for point in found] == [CHANNELS_LAST, "half", "eager"]
    assert on_front(tuning_data()) == [CHANNELS_LAST, "half", "eager"]
    assert found[0].speedup.value == pytest.approx(4.0, rel=0.01)
    assert found[0].loss == error(9.1e-4).loss
    assert found[0].memory_bytes == 470_000_000
    assert found[0].energy_j is None
    assert found[2].speedup.value == 1


def test_a_configuration_that_is_worse_in_everything_is_not_on_the_front():
    folded = "half:fold_batch_norm=true"
    rows, passes = {**LATENCIES_S, folded: 5e-3}, {folded: Passes(peak_allocated_bytes=950_000_000)}
    trials = (*tuning_data().trials, Trial(folded, FINALIST, accuracy=error(2e-3)))
    data = tuning_data(final=final(rows, passes), trials=trials)
    assert on_front(data) == [CHANNELS_LAST, "half", "eager"]


@pytest.mark.parametrize("outcome", [INACCURATE, FAILED])
def test_what_was_inaccurate_or_failed_in_the_end_is_not_on_the_front(outcome):
    data = tuning_data()
    trials = [
        attrs.evolve(one, outcome=outcome if one.spec == CHANNELS_LAST else one.outcome)
        for one in data.trials
    ]
    assert on_front(attrs.evolve(data, trials=tuple(trials))) == ["half", "eager"]


def test_a_missing_figure_does_not_keep_others_from_the_front():
    passes = {CHANNELS_LAST: Passes(peak_allocated_bytes=None)}
    assert "half" in on_front(tuning_data(final=final(passes=passes)))
    passes = {"eager": Passes(), "half": Passes(), CHANNELS_LAST: Passes()}
    trials = tuple(attrs.evolve(one, accuracy=error(1e-3)) for one in tuning_data().trials)
    assert on_front(tuning_data(final=final(passes=passes), trials=trials)) == [CHANNELS_LAST]


def test_equally_fast_configurations_are_both_on_the_front():
    tie = {"eager": 10e-3, CHANNELS_LAST: 2.499e-3, "half": 2.501e-3}
    passes = dict.fromkeys(tie, Passes())
    trials = tuple(attrs.evolve(one, accuracy=error(1e-3)) for one in tuning_data().trials)
    data = tuning_data(final=final(tie, passes, jitter=0.02), trials=trials)
    assert set(on_front(data)) == {CHANNELS_LAST, "half"}


def test_energy_is_for_an_item():
    passes = {"half": Passes(energy_j=0.5)}
    found = {one.spec: one for one in front(tuning_data(final=final(passes=passes)))}
    assert found["half"].energy_j == 0.125


def test_a_metric_does_not_drop_for_the_reference():
    data = with_metric()
    without = attrs.evolve(data, trials=data.trials[1:])
    assert loss_of(without, "eager").value == 0
    assert loss_of(tuning_data(trials=()), "eager") is None


def test_the_front_of_a_recorded_comparison():
    data = recorded("resnet50-five")
    trials = tuple(
        Trial(row.backend, FINALIST, accuracy=error(row.agreement.relative_l2 or 1e-7))
        for row in data.results
    )
    found = front(tuning_data(final=data, reference=data.reference, trials=trials))
    assert found[0].spec == CHANNELS_LAST
    assert {one.spec for one in found} == {row.backend for row in data.results}


figures = st.tuples(
    st.floats(1e-4, 1e-1), st.one_of(st.none(), st.integers(1, 10**10)), st.floats(1e-8, 1e-1)
)


@given(st.lists(figures, min_size=1, max_size=5))
def test_a_front_is_never_empty_and_has_a_fastest_configuration(rows):
    specs = ["eager", *(f"half:variant={n}" for n in range(1, len(rows)))]
    named = dict(zip(specs, rows, strict=True))
    latencies_s = {spec: latency_s for spec, (latency_s, _, _) in named.items()}
    passes = {spec: Passes(peak_allocated_bytes=size) for spec, (_, size, _) in named.items()}
    trials = tuple(Trial(spec, FINALIST, accuracy=error(x)) for spec, (_, _, x) in named.items())
    found = front(tuning_data(final=final(latencies_s, passes, rounds=6), trials=trials))
    assert any(one.is_on_front for one in found)
    assert [one.latency.value for one in found] == sorted(one.latency.value for one in found)


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (Interval(1.116, 1.1, 1.14), "1.12x (1.10 to 1.14)"),
        (Interval(11.85, 0.2, 1870.4), "11.85x (0.20 to 1,870)"),
        (Interval(0.0931, 0.09, 0.1), "0.0931x (0.09 to 0.10)"),
    ],
)
def test_a_ratio_has_three_digits_and_no_exponent(ratio, text):
    assert ratio_text(ratio) == text
