"""Builds of `tune` that go on while other configurations are measured."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest

from precisionbench.backends.rungs import Stage
from precisionbench.results.tuning import FINALIST, INACCURATE, NOT_FINISHED
from precisionbench.workflows.tuning.builds import likely
from precisionbench.workflows.tuning.space import Family, Space
from simulated_bench import Simulated, SimulatedBench
from test_tuning_search import (
    COMPILED,
    GRAPHED,
    SPACE,
    TRUTHS,
    best_of,
    outcomes,
    run,
    search_on,
    searched,
)

IN_LAYOUT = "compile:dtype=float16,freezing=true,memory_format=channels_last"
BFLOAT16 = "compile:dtype=bfloat16,freezing=true"
TUNED = "compile:dtype=float16,mode=max-autotune-no-cudagraphs,freezing=true"
REDUCED = "compile:dtype=float16,mode=reduce-overhead,freezing=true"
MODES = ({"mode": "max-autotune-no-cudagraphs"}, {"mode": "reduce-overhead"})
LARGER = attrs.evolve(
    SPACE,
    families=(
        *SPACE.families[:2],
        Family("compile", Stage.COMPILER, (COMPILED, BFLOAT16), MODES, MODES[:1], 20.0),
    ),
)


def test_builds_begin_before_anything_else_is_tried():
    search, machine = searched(ahead=2)
    assert machine.built_beside[0] == {COMPILED, GRAPHED}
    assert best_of(search) == GRAPHED
    assert machine.opened[COMPILED] <= 2  # built once for the search, and once for the end


def test_builds_begin_before_the_reference_is_prepared():
    machine = SimulatedBench(TRUTHS, ahead=2)
    search = search_on(machine)
    search.begin_builds()
    assert {*machine.begun} == {COMPILED, GRAPHED}
    machine.open(["eager"], 1e9)
    search.run()
    assert Counter(machine.begins) == {COMPILED: 1, GRAPHED: 1}
    assert best_of(search) == GRAPHED


def test_builds_that_make_room_for_the_reference_begin_again():
    machine = SimulatedBench(TRUTHS, ahead=2)
    search = search_on(machine)
    assert not search.end_builds()
    search.begin_builds()
    assert search.end_builds()
    assert not machine.begun
    machine.open(["eager"], 1e9)
    search.run()
    assert Counter(machine.begins) == {COMPILED: 2, GRAPHED: 2}
    assert best_of(search) == GRAPHED


def test_no_build_begins_for_which_there_is_no_time():
    machine = SimulatedBench(TRUTHS, ahead=2)
    search = search_on(machine, budget_s=5.0)
    search.begin_builds()
    assert not machine.begun


@pytest.mark.parametrize("reference", [COMPILED, GRAPHED])
@pytest.mark.parametrize("is_early", [True, False])
def test_a_reference_that_is_built_is_not_built_ahead(reference, is_early):
    machine = SimulatedBench(TRUTHS, ahead=2)
    search = search_on(machine, reference=reference)
    if is_early:
        search.begin_builds()
    machine.open([reference], 1e9)
    search.run()
    assert reference not in machine.begins
    assert next(iter(search.trials)) == reference
    assert best_of(search) == GRAPHED


def test_builds_of_which_nothing_is_known_have_no_limit_and_others_have_one():
    limits = []

    class Noted(SimulatedBench):
        def build_ahead(self, specs, given):
            limits.append(given.keys())
            super().build_ahead(specs, given)

    for is_early in (True, False):
        machine = Noted(TRUTHS, ahead=2)
        search = search_on(machine)
        if is_early:
            search.begin_builds()
        machine.open(["eager"], 1e9)
        search.run()
    assert limits == [set(), {COMPILED, GRAPHED}]


def test_what_is_ready_is_tried_before_more_that_needs_no_build():
    truths = {spec: attrs.evolve(truth, build_s=2.0) for spec, truth in TRUTHS.items()}
    _, machine = searched(truths, ahead=2, judging_s=5.0)
    assert COMPILED in machine.timed
    assert "half:cuda_graph=true" not in machine.timed  # which cannot win any more


def test_what_needs_no_build_is_tried_while_others_are_built():
    search, machine = searched(ahead=2)
    place = machine.timed.index("half:cuda_graph=true")
    assert place < machine.timed.index(COMPILED)
    assert search.trials["half:cuda_graph=true"].speedup is not None


def test_no_further_build_begins_until_the_first_show_how_long_they_take():
    begun: list[tuple[float, str]] = []

    class Noted(SimulatedBench):
        def build_ahead(self, specs, limits):
            begun.extend((self.clock_s, spec) for spec in specs)
            super().build_ahead(specs, limits)

    machine = Noted(TRUTHS, ahead=4)
    run(machine, LARGER, 200.0)
    assert [spec for _, spec in begun[:2]] == [COMPILED, REDUCED]
    assert BFLOAT16 in [spec for _, spec in begun[2:]]
    assert begun[2][0] >= begun[0][0] + TRUTHS[COMPILED].build_s


def test_tuned_kernels_are_not_built_before_others_show_how_long_builds_take():
    family = LARGER.families[2]
    assert TUNED in family.refined(COMPILED)
    assert likely(family, lambda spec: False, 8) == [COMPILED, REDUCED]


def test_it_takes_less_time_than_one_after_the_other():
    alone, beside = (searched(ahead=ahead)[1].clock_s for ahead in (0, 2))
    assert beside < alone - 20.0  # the second round of builds


def test_what_is_ready_is_not_kept_waiting_by_a_slow_build():
    truths = TRUTHS | {REDUCED: Simulated(1e-3, build_s=70.0)}
    search, machine = searched(truths, space=LARGER, ahead=3)
    assert machine.timed.index(COMPILED) < machine.timed.index(REDUCED)
    assert best_of(search) == REDUCED


def test_a_build_that_takes_too_long_is_ended_and_named():
    truths = TRUTHS | {REDUCED: Simulated(1e-3, build_s=1e4)}
    search, machine = searched(truths, space=LARGER, ahead=3)
    trial = search.trials[REDUCED]
    assert trial.outcome == NOT_FINISHED
    assert trial.reason.startswith("it was not built after 1")
    assert trial.reason.endswith("s; 20 s were expected")
    assert best_of(search) == COMPILED
    assert machine.clock_s <= 1.1 * 200
    assert not machine.begun


def test_nothing_is_built_while_finalists_are_measured():
    truths = TRUTHS | {REDUCED: Simulated(1e-3, build_s=1e4)}
    _, machine = searched(truths, space=LARGER, ahead=3)
    assert REDUCED in machine.built_beside[-2]
    assert machine.built_beside[-1] == set()


def test_builds_of_a_dtype_that_is_inaccurate_are_ended():
    truths = TRUTHS | {
        "half": Simulated(3e-3, error=1.0),
        COMPILED: Simulated(2e-3, error=1.0, build_s=50.0),
        BFLOAT16: Simulated(2e-3, build_s=20.0),
    }
    search, machine = searched(truths, space=LARGER, ahead=1)
    assert outcomes(search)["half"] == INACCURATE
    assert outcomes(search)[BFLOAT16] == FINALIST
    assert BFLOAT16 in machine.timed
    assert COMPILED not in machine.timed


def test_what_is_left_of_an_inaccurate_dtype_is_built_once_more_and_judged():
    truths = TRUTHS | {
        "half": Simulated(3e-3, error=1.0),
        COMPILED: Simulated(2e-3, error=1.0, build_s=20.0),
    }
    search, machine = searched(truths, ahead=2)
    assert search.ended_by == "finished"
    assert outcomes(search)[COMPILED] == INACCURATE
    assert max(Counter(machine.begins).values()) <= 2
    assert machine.clock_s < 120


def test_what_does_not_fit_beside_builds_is_tried_without_them():
    truths = {spec: attrs.evolve(truth, memory=1.0) for spec, truth in TRUTHS.items()}
    search, _ = searched(truths | {"half": Simulated(3e-3, memory=3.0)}, ahead=2, memory=6.0)
    assert outcomes(search)["half"] != "failed"
    assert best_of(search) == GRAPHED


def test_options_that_were_tried_are_not_left_out():
    search, _ = searched(ahead=2)
    assert "half:cuda_graph=true" in search.trials
    assert not [one for one in search.left_out if one.what.startswith("half")]


def test_a_build_for_which_no_time_is_left_is_no_measure_of_other_builds():
    truths = TRUTHS | {GRAPHED: Simulated(1.5e-3, build_s=35.0)}
    search, _ = searched(truths, budget_s=50.0, ahead=2)
    assert search.trials[GRAPHED].reason.startswith("the time was over after ")
    assert not search._estimates.late


def test_what_was_built_while_others_were_judged_for_long_is_not_called_late():
    search, _ = searched(budget_s=60.0, ahead=2, judging_s=40.0)
    reason = "it was ready, or had failed, when no time was left"
    assert search.trials[COMPILED].reason == reason
    assert not search._estimates.late


@pytest.mark.parametrize("budget_s", [60.0, 100.0])
def test_only_as_many_are_judged_as_there_is_time_for(budget_s):
    _, machine = searched(budget_s=budget_s, space=LARGER, ahead=4, judging_s=12.0)
    assert machine.clock_s <= 1.1 * budget_s


def test_a_build_that_fails_is_a_failure_like_others():
    truths = TRUTHS | {COMPILED: Simulated(2e-3, failure="no compiler", build_s=20.0)}
    search, _ = searched(truths, ahead=2)
    assert search.trials[COMPILED].reason == "no compiler; change it"
    assert best_of(search) == GRAPHED


@pytest.mark.parametrize("budget_s", [20.0, 40.0, 60.0, 90.0, 120.0])
@pytest.mark.parametrize("build_s", [5.0, 20.0, 60.0])
def test_the_budget_is_kept(budget_s, build_s):
    truths = {
        spec: attrs.evolve(truth, build_s=build_s) if "compile" in spec else truth
        for spec, truth in TRUTHS.items()
    }
    search, machine = searched(truths, budget_s=budget_s, space=LARGER, ahead=4)
    assert machine.clock_s <= 1.1 * budget_s
    assert search.data is not None
    assert {trial.outcome for trial in search.trials.values()}.isdisjoint({""})


def test_where_builds_would_disturb_nothing_is_built_beside():
    _, machine = searched(space=LARGER, ahead=0)
    assert not any(machine.built_beside)


def test_the_layout_for_images_is_built_first_where_there_is_one():
    family = Family("compile", Stage.COMPILER, (COMPILED, IN_LAYOUT, BFLOAT16), MODES)
    assert likely(family, lambda spec: False, 2)[0] == IN_LAYOUT
    assert all("channels_last" in spec for spec in likely(family, lambda spec: False, 3))
    assert likely(family, lambda spec: spec == IN_LAYOUT, 1) != [IN_LAYOUT]
    without = attrs.evolve(family, first=(COMPILED, BFLOAT16))
    assert likely(without, lambda spec: False, 2) == [COMPILED, TUNED]
    engine = Family("onnxruntime", Stage.ENGINE, ("onnxruntime",))  # which refuses layouts
    assert likely(engine, lambda spec: False, 2) == ["onnxruntime"]


def test_a_space_without_compilers_has_nothing_to_build():
    _, machine = searched(space=Space(SPACE.families[:2]), ahead=4)
    assert not any(machine.built_beside)
