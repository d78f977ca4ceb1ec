"""Builds of `tune` that go on while other configurations are measured."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest

from precisionbench.backends.rungs import Stage
from precisionbench.results.tuning import FINALIST, INACCURATE, NOT_FINISHED
from precisionbench.spec_syntax import split_spec
from precisionbench.workflows.tuning.builds import likely
from precisionbench.workflows.tuning.space import Family, Space
from simulated_bench import Simulated, SimulatedBench
from test_tuning_search import (
    COMPILED,
    GRAPHED,
    SPACE,
    TRUTHS,
    best_of,
    canonical,
    outcomes,
    search_on,
    searched,
)

IN_LAYOUT = "compile:dtype=float16,freezing=true,memory_format=channels_last"
BFLOAT16 = "compile:dtype=bfloat16,freezing=true"
TUNED = "compile:dtype=float16,mode=max-autotune-no-cudagraphs,freezing=true"
MODES = ({"mode": "max-autotune-no-cudagraphs"}, {"mode": "reduce-overhead"})
TWO_DTYPES = Family("compile", Stage.COMPILER, (COMPILED, BFLOAT16), MODES[1:])
LARGER = attrs.evolve(
    SPACE,
    families=(
        *SPACE.families[:2],
        Family("compile", Stage.COMPILER, (COMPILED, BFLOAT16), MODES, typical_build_s=20.0),
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


def test_where_16_bits_are_inaccurate_others_are_built_beside_what_is_left_to_try():
    """The builds that began early are of no use then."""
    tf32, kept = "compile:freezing=true,precision=tf32", "half:fp32_layers=head"
    family = Family("compile", Stage.COMPILER, (COMPILED, BFLOAT16, tf32), typical_build_s=20.0)
    halves = ("half", "half:dtype=bfloat16", COMPILED, BFLOAT16)
    inaccurate = {spec: Simulated(3e-3, error=0.2) for spec in halves}
    truths = {**TRUTHS, **inaccurate, kept: Simulated(5e-3), tf32: Simulated(3e-3, build_s=20.0)}
    space = attrs.evolve(SPACE, families=(*SPACE.families[:2], family))
    machine = SimulatedBench(truths, ahead=2, layers=["head"])
    search = search_on(machine, space, 100.0)
    search.begin_builds()
    assert [*machine.begun] == [COMPILED, BFLOAT16]
    machine.open(["eager"], 1e9)
    search.run()
    assert tf32 in machine.built_beside[machine.timed.index(kept) - 1]
    assert best_of(search) == tf32


def test_a_build_that_begins_because_nothing_better_is_left_goes_on_to_its_end():
    """Those of float16 ended with its half row, and only they are left to build."""
    family = Family("compile", Stage.COMPILER, (COMPILED, BFLOAT16), typical_build_s=20.0)
    halves = {"half": 0.2, "half:dtype=bfloat16": 0.3, "half:fp32_layers=head": 1e-3}
    inaccurate = {spec: Simulated(3e-3, error=error) for spec, error in halves.items()}
    built = {
        COMPILED: Simulated(2e-3, error=9e-3, build_s=20.0),
        BFLOAT16: Simulated(2e-3, 0.2, 25),
    }
    space = attrs.evolve(SPACE, families=(*SPACE.families[:2], family))
    machine = SimulatedBench(
        {**TRUTHS, **inaccurate, **built}, ahead=1, layers=["head"], judging_s=3.0
    )
    search = search_on(machine, space, 150.0)
    search.begin_builds()
    machine.open(["eager"], 1e9)
    search.run()
    assert machine.begins.count(COMPILED) == 2
    assert machine.begins.count(BFLOAT16) == 1
    assert best_of(search) == COMPILED


def test_builds_that_an_interruption_ends_are_in_the_result():
    machine = SimulatedBench(TRUTHS, ahead=2, interrupt_at=1)
    search = search_on(machine, LARGER)
    search.begin_builds()
    machine.open(["eager"], 1e9)
    search.run()
    assert {*machine.begins} <= search.trials.keys()


@pytest.mark.parametrize(("of_half", "is_found"), [(1.2e-2, True), (2e-2, False)])
def test_builds_go_on_where_half_nearly_keeps_the_bound(of_half, is_found):
    """Compiled, a Swin-T has 0.84 times the error of half, and BERT-base 0.76 times."""
    tf32 = "compile:freezing=true,precision=tf32"
    family = Family("compile", Stage.COMPILER, (COMPILED, tf32), typical_build_s=20.0)
    truths = {
        **TRUTHS,
        "half": Simulated(3e-3, error=of_half),
        "half:dtype=bfloat16": Simulated(3e-3, error=0.1),
        COMPILED: Simulated(2e-3, error=9e-3, build_s=20.0),
        tf32: Simulated(3e-3, build_s=20.0),
    }
    machine = SimulatedBench(truths, ahead=1)
    search = search_on(machine, attrs.evolve(SPACE, families=(*SPACE.families[:2], family)), 50.0)
    search.begin_builds()
    machine.open(["eager"], 1e9)
    search.run()
    assert best_of(search) == (COMPILED if is_found else tf32)


def test_what_is_ready_is_tried_before_more_that_needs_no_build():
    truths = {spec: attrs.evolve(truth, build_s=2.0) for spec, truth in TRUTHS.items()}
    _, machine = searched(truths, ahead=2, judging_s=5.0)
    assert COMPILED in machine.timed
    assert "half:cuda_graph=true" not in machine.timed  # which cannot win any more


def test_what_needs_no_build_is_tried_while_others_are_built():
    early = Simulated(6e-3, build_s=2.0)  # it is tried before further options of half
    truths = TRUTHS | {GRAPHED: early, COMPILED: Simulated(2e-3, build_s=60.0)}
    _, machine = searched(truths, ahead=2)
    places = [machine.timed.index(one) for one in (GRAPHED, "half:cuda_graph=true", COMPILED)]
    assert places == sorted(places)


@pytest.mark.parametrize("ahead", [2, 4])
def test_what_is_built_at_other_batch_sizes_is_tried_once(ahead):
    truths = TRUTHS | {
        "half:cuda_graph=true": Simulated(1.5e-3),
        GRAPHED: Simulated(1.49e-3, build_s=20.0),
    }
    space = attrs.evolve(SPACE, batch_sizes=(8, 16))
    search, machine = searched(truths, space=space, ahead=ahead, budget_s=400.0)
    assert search.ended_by == "finished"
    larger = {"batch_size": "8", "cuda_graph": "true"}
    assert ("half", larger) in [split_spec(spec) for spec in machine.timed]


@pytest.mark.parametrize("outcome", ["hangs", "fails"])
def test_a_first_build_that_shows_nothing_does_not_keep_others_waiting(outcome):
    hangs = Simulated(2e-3, build_s=1e4)
    first = {
        COMPILED: hangs if outcome == "hangs" else Simulated(2e-3, failure="no compiler"),
        GRAPHED: hangs,
    }
    space = attrs.evolve(LARGER, families=(*LARGER.families[:2], TWO_DTYPES))
    _, machine = searched(TRUTHS | first, budget_s=150.0, space=space, ahead=4)
    assert {*machine.begins[:2]} == {COMPILED, GRAPHED}
    assert BFLOAT16 in machine.timed
    usual_s = TWO_DTYPES.typical_build_s
    assert machine.begun_s[BFLOAT16] < (4 * usual_s if outcome == "hangs" else usual_s)


def test_what_needs_no_build_leaves_time_to_judge_what_is_being_built():
    layouts = ("", "memory_format=channels_last")
    cheap = [
        canonical(f"{name}:{','.join(filter(None, (option, layout)))}".rstrip(":"))
        for name, option in [("eager", "precision=tf32"), ("half", ""), ("half", "dtype=bfloat16")]
        for layout in layouts
    ]
    truths = {spec: Simulated(4e-3) for spec in cheap} | {"eager": TRUTHS["eager"]}
    built = {spec: attrs.evolve(TRUTHS[spec], build_s=25.0) for spec in (COMPILED, GRAPHED)}
    families = [
        Family(name, Stage.PRECISION, tuple(spec for spec in cheap if spec.startswith(name)))
        for name in ("eager", "half")
    ]
    space = Space((*families, SPACE.families[2]))
    search, machine = searched(truths | built, 70.0, space, ahead=2, judging_s=8.0)
    assert {COMPILED, GRAPHED} & {*machine.timed}
    assert best_of(search) in (COMPILED, GRAPHED)


def test_a_reference_that_is_not_tried_shows_how_long_others_of_it_build():
    space = Space((SPACE.families[1],), batch_sizes=(8, 16))
    truths = TRUTHS | {COMPILED: Simulated(1e-3, build_s=60.0)}
    machine = SimulatedBench(truths, ahead=2)
    search = search_on(machine, space, 120.0, reference=COMPILED)
    machine.open([COMPILED], 1e9)
    search.run()
    assert not machine.begins
    larger = [one.reason for spec, one in search.trials.items() if "batch_size" in spec]
    assert larger
    assert all(reason.startswith("it takes about 6") for reason in larger)


def test_what_is_ready_and_may_win_is_tried_rather_than_more_finalists_measured():
    late = {COMPILED: Simulated(2e-3, build_s=45.0), GRAPHED: Simulated(9e-3, build_s=1e4)}
    search, machine = searched(TRUTHS | late, budget_s=76.0, ahead=2, judging_s=5.0)
    assert best_of(search) == COMPILED
    assert machine.clock_s <= 77


@pytest.mark.parametrize("budget_s", [50.0, 58.0, 65.0])
def test_what_is_ready_and_may_win_is_tried_rather_than_finalists_prepared_again(budget_s):
    """EfficientNet-B0 on a busy host: its graph, 1.6 times as fast, was ready and not tried."""
    late = {COMPILED: Simulated(2e-3, build_s=30.0), GRAPHED: Simulated(1e-3, build_s=31.0)}
    search, machine = searched(TRUTHS | late, budget_s, ahead=2, judging_s=2.0)
    assert COMPILED in machine.timed
    assert best_of(search) == GRAPHED
    assert machine.clock_s <= budget_s


def test_what_may_win_and_is_built_soon_is_waited_for():
    late = {COMPILED: Simulated(3e-3, build_s=25.0), GRAPHED: Simulated(1e-3, build_s=40.0)}
    search, machine = searched(TRUTHS | late, 55.0, ahead=2, judging_s=1.0)
    assert best_of(search) == GRAPHED
    assert machine.clock_s <= 55


def test_a_build_that_takes_twice_as_long_as_expected_is_not_waited_for():
    late = {COMPILED: Simulated(2e-3, build_s=15.0), GRAPHED: Simulated(1e-3, build_s=1e4)}
    search, machine = searched(TRUTHS | late, 70.0, ahead=2, judging_s=1.0)
    assert best_of(search) == COMPILED
    assert machine.processes(COMPILED) == 2  # for which there is time
    assert search.trials[GRAPHED].reason.startswith("the time was over after ")


@pytest.mark.parametrize("places", [(0, 1), (1, 0)])
def test_of_what_is_ready_the_most_promising_is_tried_first(places):
    slow, fast = "compile:freezing=true,precision=tf32", COMPILED
    first = tuple((slow, fast)[place] for place in places)
    family = Family("compile", Stage.COMPILER, first)
    late = {fast: Simulated(2e-3, build_s=45.0), slow: Simulated(5e-3, build_s=45.0)}
    space = attrs.evolve(SPACE, families=(*SPACE.families[:2], family))
    search, machine = searched(TRUTHS | late, 76.0, space, ahead=2, judging_s=5.0)
    assert {*machine.begins} == {slow, fast}
    assert best_of(search) == fast


def test_configurations_that_are_judged_side_by_side_need_less_time():
    one, four = (searched(judging_s=8.0, judges=judges, budget_s=300.0) for judges in (1, 4))
    assert four[1].clock_s < one[1].clock_s - 8.0
    for search, _ in (one, four):
        assert search._screening.judging_s == pytest.approx(8.0)
    saved_s = one[0]._screening.needed_s(4) - four[0]._screening.needed_s(4)
    assert saved_s == pytest.approx(3 * 8.0)


def test_at_most_a_quarter_of_the_budget_is_kept_to_build_finalists_once_more():
    search, _ = searched(budget_s=120.0)
    assert search._finals.again_s(20.0) == pytest.approx(14.0)
    assert search._finals.again_s(1e4) == 30.0


def test_no_more_finalists_are_planned_for_than_are_asked_for():
    search, _ = searched(budget_s=120.0)
    assert search._finals.left_s(finalists=1) > search._finals.left_s()


def test_no_further_build_begins_until_the_first_show_how_long_they_take():
    _, machine = searched(space=LARGER, ahead=4)
    assert {*machine.begins[:2]} == {COMPILED, GRAPHED}
    assert machine.begun_s[BFLOAT16] >= machine.begun_s[COMPILED] + TRUTHS[COMPILED].build_s


def test_tuned_kernels_are_not_built_before_others_show_how_long_builds_take():
    family = LARGER.families[2]
    assert TUNED in family.refined(COMPILED)
    assert likely(family, lambda spec: False, 8) == [COMPILED, GRAPHED]


def test_it_takes_less_time_than_one_after_the_other():
    alone, beside = (searched(ahead=ahead)[1].clock_s for ahead in (0, 2))
    assert beside < alone - 20.0  # the second round of builds


def test_what_is_ready_is_not_kept_waiting_by_a_slow_build():
    truths = TRUTHS | {GRAPHED: Simulated(1e-3, build_s=70.0)}
    search, machine = searched(truths, space=LARGER, ahead=3)
    assert machine.timed.index(COMPILED) < machine.timed.index(GRAPHED)
    assert best_of(search) == GRAPHED


def test_a_build_that_takes_too_long_is_ended_and_named():
    truths = TRUTHS | {GRAPHED: Simulated(1e-3, build_s=1e4)}
    search, machine = searched(truths, space=LARGER, ahead=3)
    trial = search.trials[GRAPHED]
    assert trial.outcome == NOT_FINISHED
    assert trial.reason.startswith("it was not built after 1")
    assert trial.reason.endswith("s; 20 s were expected")
    assert best_of(search) == COMPILED
    assert machine.clock_s <= 1.1 * 200
    assert not machine.begun


def test_nothing_is_built_while_finalists_are_measured():
    truths = TRUTHS | {GRAPHED: Simulated(1e-3, build_s=1e4)}
    _, machine = searched(truths, space=LARGER, ahead=3)
    assert GRAPHED in machine.built_beside[-2]
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
    truths = {
        spec: attrs.evolve(one, build_s=35.0) for spec, one in TRUTHS.items() if one.build_s > 1
    }
    search, _ = searched(TRUTHS | truths, budget_s=70.0, ahead=2, judging_s=8.0)
    reason = "it was ready, or had failed, when no time was left"
    assert search.trials[GRAPHED].reason == reason
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
    assert likely(without, lambda spec: False, 2) == [COMPILED, GRAPHED]
    asked_for = attrs.evolve(family, first=(TUNED, COMPILED), then=())
    assert likely(asked_for, lambda spec: False, 4) == [COMPILED]
    assert likely(attrs.evolve(asked_for, first=(TUNED,)), lambda spec: False, 4) == [TUNED]
    engine = Family("onnxruntime", Stage.ENGINE, ("onnxruntime",))  # which refuses layouts
    assert likely(engine, lambda spec: False, 2) == ["onnxruntime"]


def test_a_space_without_compilers_has_nothing_to_build():
    _, machine = searched(space=Space(SPACE.families[:2]), ahead=4)
    assert not any(machine.built_beside)
