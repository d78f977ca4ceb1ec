"""The search of `tune`, on a machine with known speeds, errors and build times."""

from __future__ import annotations

import re

import attrs
import pytest

from precisionbench.analysis.tuning import choose
from precisionbench.backends import discovery
from precisionbench.backends.rungs import Capabilities, Stage
from precisionbench.backends.specs import canonical_spec
from precisionbench.errors import PrecisionBenchError
from precisionbench.results.tuning import (
    BEYOND,
    FAILED,
    FINALIST,
    INACCURATE,
    NOT_FINISHED,
    SLOWER,
    WITHIN,
    Accuracy,
    Trial,
)
from precisionbench.spec_syntax import split_spec
from precisionbench.statistics import Interval
from precisionbench.workflows.tuning.finals import MOST_FINALISTS
from precisionbench.workflows.tuning.search import Search
from precisionbench.workflows.tuning.space import Facts, Family, Space, space
from simulated_bench import Simulated, SimulatedBench, SimulatedMemory

COMPILED = "compile:dtype=float16,freezing=true"
GRAPHED = "compile:dtype=float16,mode=reduce-overhead,freezing=true"
SPACE = Space(
    (
        Family("eager", Stage.PRECISION, ("eager", "eager:precision=tf32")),
        Family("half", Stage.PRECISION, ("half", "half:dtype=bfloat16"), ({"cuda_graph": True},)),
        Family("compile", Stage.COMPILER, (COMPILED,), ({"mode": "reduce-overhead"},)),
    )
)
TRUTHS = {
    "eager": Simulated(10e-3, error=1e-7),
    "eager:precision=tf32": Simulated(6e-3, error=5e-4),
    "half": Simulated(3e-3),
    "half:dtype=bfloat16": Simulated(3.01e-3, error=5e-3),
    "half:cuda_graph=true": Simulated(2.8e-3),
    COMPILED: Simulated(2e-3, build_s=20.0),
    GRAPHED: Simulated(1.5e-3, build_s=20.0),
}


RIVALS = (COMPILED, GRAPHED)
CLOSE = {**TRUTHS, COMPILED: attrs.evolve(TRUTHS[GRAPHED], latency_s=1.501e-3)}


def searched(
    truths=TRUTHS, budget_s=200.0, space=SPACE, known=None, **bench
) -> tuple[Search, SimulatedBench]:
    machine = SimulatedBench(truths, **bench)
    return run(machine, space, budget_s, known), machine


def run(machine: SimulatedBench, space: Space, budget_s: float, known=None) -> Search:
    search = search_on(machine, space, budget_s, known)
    machine.open(["eager"], 1e9)
    search.run()
    return search


def search_on(
    machine: SimulatedBench, space=SPACE, budget_s=200.0, known=None, reference="eager"
) -> Search:
    """A search that has not begun, and whose reference is not prepared."""
    return Search(
        space,
        machine,
        known or SimulatedMemory(),
        reference,
        end_s=budget_s,
        budget_s=budget_s,
        now=machine.now,
    )


def canonical(spec: str) -> str:
    return canonical_spec(discovery.make(spec))


def best_of(search: Search) -> str:
    accurate = [spec for spec, trial in search.trials.items() if trial.outcome == FINALIST]
    return choose(search.data, accurate)[0]


def outcomes(search: Search) -> dict[str, str]:
    return {spec: trial.outcome for spec, trial in search.trials.items()}


def test_the_fastest_accurate_configuration_wins():
    search, _ = searched()
    assert best_of(search) == GRAPHED
    assert search.ended_by == "finished"
    assert search.trials[GRAPHED].measured_in == "final"
    assert search.trials[GRAPHED].speedup.value == pytest.approx(10 / 1.5, rel=0.02)


def test_an_inaccurate_configuration_is_never_timed():
    search, machine = searched({**TRUTHS, GRAPHED: Simulated(1e-5, error=0.5, build_s=20.0)})
    assert search.trials[GRAPHED].outcome == INACCURATE
    assert GRAPHED not in machine.timed
    assert best_of(search) == COMPILED


def test_what_cannot_win_is_dropped_with_its_share_of_the_leaders_speed():
    search, machine = searched()
    slow = search.trials["eager:precision=tf32"]
    assert slow.outcome == SLOWER
    assert slow.reason.endswith("x the speed of half")
    assert "eager:precision=tf32" not in machine.open_now


def test_a_row_that_is_hopelessly_slow_is_neither_judged_nor_timed():
    search, machine = searched({**TRUTHS, "half:dtype=bfloat16": Simulated(0.2)})
    slow = search.trials["half:dtype=bfloat16"]
    assert (slow.outcome, slow.accuracy) == (SLOWER, None)
    assert "half:dtype=bfloat16" not in machine.timed
    assert "times as long as those of" in slow.reason


def test_a_row_whose_first_calls_are_delayed_by_other_processes_can_win():
    busy = Simulated(1.5e-3, build_s=20.0, first_calls_s=0.09)
    search, _ = searched({**TRUTHS, GRAPHED: busy})
    assert best_of(search) == GRAPHED


def test_a_row_whose_calls_take_seconds_is_ended_by_its_first_calls():
    slow = Simulated(4.8)
    search, machine = searched({**TRUTHS, "half:dtype=bfloat16": slow})
    trial = search.trials["half:dtype=bfloat16"]
    assert trial.outcome == SLOWER
    assert trial.reason == (
        "a call takes 4.8 s, more than 40 times as long as one of eager (10 ms)"
    )
    assert "half:dtype=bfloat16" not in machine.timed
    _, without = searched({**TRUTHS, "half:dtype=bfloat16": Simulated(3.01e-3, error=0.5)})
    assert machine.clock_s - without.clock_s < 5 * slow.latency_s
    assert best_of(search) == GRAPHED


def test_the_reference_stays_in_all_rounds_although_it_is_slower():
    search, machine = searched()
    assert search.trials["eager"].outcome == FINALIST
    assert machine.opened["eager"] == 2


def test_a_reference_that_is_not_accurate_enough_stays_and_is_not_chosen():
    search, _ = searched({**TRUTHS, "eager": Simulated(1e-3, error=0.5)})
    assert search.trials["eager"].outcome == INACCURATE
    assert search.trials["eager"].accuracy.loss.value == 0.5
    assert best_of(search) == GRAPHED


def test_finalists_are_measured_in_a_second_process_each_and_nothing_else_is():
    search, machine = searched()
    twice = {spec for spec, count in machine.opened.items() if count == 2}
    final = {row.backend for row in search.data.results}
    assert twice == final
    assert len(final) <= MOST_FINALISTS + 1


def test_finalists_are_measured_in_further_processes_where_time_is_left():
    search, machine = searched(CLOSE, most_processes=3)
    assert {len(row.measurement.preparations) for row in search.data.results} == {3}
    assert [spec for spec, count in machine.opened.items() if count == 3] == ["eager", *RIVALS]
    search, short = searched(CLOSE, budget_s=90.0, most_processes=3)
    assert {row.backend for row in search.data.results} == {"eager", *RIVALS}
    assert max(short.opened.values()) == 2


def test_what_is_ready_before_others_are_built_gets_a_third_process_meanwhile():
    close = {**TRUTHS, "half:cuda_graph=true": Simulated(1.51e-3)}
    search, machine = searched(close, budget_s=60.0, ahead=2, most_processes=3)
    found = {r.backend: len(r.measurement.preparations) for r in search.data.results}
    assert found == {"eager": 3, "half:cuda_graph=true": 3, GRAPHED: 2}
    assert machine.now() <= 60.0 * 1.01
    search, machine = searched(close, budget_s=300.0, ahead=2, most_processes=3)
    assert {len(row.measurement.preparations) for row in search.data.results} == {3}
    assert max(machine.opened.values()) == 3


def test_nothing_is_built_beside_the_last_rounds():
    slow = {"half:cuda_graph=true": Simulated(1.51e-3, build_s=4.0)}
    for budget_s in (45.0, 50.0, 55.0, 60.0, 70.0, 80.0):
        _, machine = searched({**TRUTHS, **slow}, budget_s=budget_s, ahead=2, most_processes=3)
        assert not machine.begun
        assert machine.built_beside[-1] == set()


def test_what_is_built_meanwhile_does_not_wait_for_third_processes():
    builds = {
        "half:cuda_graph=true": Simulated(1.51e-3, build_s=4.0),
        GRAPHED: Simulated(1.5e-3, build_s=5.0),
        COMPILED: Simulated(9e-3, build_s=5.0),
    }
    search, _ = searched({**TRUTHS, **builds}, budget_s=36.0, ahead=2, most_processes=3)
    assert {len(row.measurement.preparations) for row in search.data.results} == {3}


def test_one_finalist_needs_no_further_processes():
    search, machine = searched(most_processes=3)
    assert [row.backend for row in search.data.results] == ["eager", GRAPHED]
    assert max(machine.opened.values()) == 2


def test_a_further_process_that_does_not_fit_is_not_tried_again():
    heavy = {spec: attrs.evolve(truth, memory=1.0) for spec, truth in CLOSE.items()}
    search, machine = searched(heavy, memory=7.0, most_processes=4)
    assert [machine.opened[spec] for spec in ("eager", *RIVALS)] == [3, 3, 3]
    assert [machine.processes(spec) for spec in ("eager", *RIVALS)] == [3, 2, 2]
    assert FAILED not in outcomes(search).values()
    _, machine = searched(heavy, memory=5.0, most_processes=3)
    assert max(machine.opened.values()) == 2  # the second ones did not fit


@pytest.mark.parametrize(
    ("factor", "budget_s"), [(100, 60.0), (200, 60.0), (500, 120.0), (533, 120.0)]
)
def test_further_processes_of_slow_calls_keep_the_budget(factor, budget_s):
    slow = {s: attrs.evolve(t, latency_s=factor * t.latency_s) for s, t in CLOSE.items()}
    slow["eager"] = attrs.evolve(slow["eager"], latency_s=1.6 * slow[GRAPHED].latency_s)
    _, two = searched(slow, budget_s=budget_s)
    _, three = searched(slow, budget_s=budget_s, most_processes=3)
    assert three.now() <= max(1.05 * budget_s, two.now())


def test_a_further_process_that_hangs_is_not_waited_for_until_the_end():
    @attrs.define
    class Hanging(SimulatedBench):
        def truth(self, spec: str) -> Simulated:
            known = super().truth(spec)
            third = spec == GRAPHED and self.opened.get(spec) == 3
            return attrs.evolve(known, build_s=1e4) if third else known

    hanging = Hanging(CLOSE, most_processes=3)
    search = run(hanging, SPACE, 900.0)
    assert hanging.opened[GRAPHED] == 3
    assert best_of(search) in RIVALS
    assert hanging.now() < 250


def test_the_final_rounds_may_take_what_is_left_of_the_budget():
    machine = SimulatedBench(CLOSE)
    search = run(machine, SPACE, 95.0)
    assert len(search.data.results) == 3
    assert machine.now() == pytest.approx(95.0, abs=0.5)
    assert machine.options[-1].ranked
    plenty = SimulatedBench(CLOSE)
    run(plenty, SPACE, 400.0)
    assert plenty.options[-1].budget_s == 3 * 10.0


def test_the_last_rounds_measure_what_the_result_shows_and_nothing_else():
    machine = SimulatedBench(CLOSE)
    search = attrs.evolve(search_on(machine), final_passes=True)
    machine.open(["eager"], 1e9)
    search.run()
    assert machine.options[-1].passes == ("energy", "device", "wall")
    assert not any(options.passes for options in machine.options[:-1])


def test_time_is_kept_for_what_the_last_rounds_measure():
    left_s = []
    for passes in (True, False):
        told = []
        machine = SimulatedBench(CLOSE, ahead=2)
        search = search_on(machine, SPACE, 36.0)
        search = attrs.evolve(search, final_passes=passes, tell=told.append)
        machine.open(["eager"], 1e9)
        search.run()
        left_s += [one.remaining_s for one in told if one.step.startswith("starting further")]
    assert left_s[0] > left_s[1]


def test_a_failure_is_a_trial_with_its_reason():
    search, _ = searched({**TRUTHS, "half": Simulated(3e-3, failure="no such kernel")})
    assert search.trials["half"].outcome == FAILED
    assert "no such kernel" in search.trials["half"].reason
    assert best_of(search) == GRAPHED


def test_a_process_that_ends_while_it_is_timed_is_a_failure():
    search, _ = searched({**TRUTHS, COMPILED: Simulated(2e-3, fails_when_timed=True)})
    assert search.trials[COMPILED].outcome == FAILED
    assert "half" in best_of(search)


def test_the_reference_that_cannot_be_timed_is_an_error():
    with pytest.raises(PrecisionBenchError, match="eager could not be measured"):
        searched({**TRUTHS, "eager": Simulated(1e-2, fails_when_timed=True)})


@pytest.mark.parametrize("budget_s", [12, 20, 40, 60, 90, 120])
def test_the_budget_is_kept_with_the_best_so_far_in_hand(budget_s):
    search, machine = searched(budget_s=float(budget_s))
    assert machine.clock_s <= 1.1 * budget_s
    assert search.data is not None
    assert best_of(search) in {row.backend for row in search.data.results}


@pytest.mark.parametrize("budget_s", [20, 60, 120])
@pytest.mark.parametrize("call_s", [0.3, 1.0])
def test_the_budget_is_kept_where_calls_are_long(budget_s, call_s):
    truths = {
        spec: attrs.evolve(one, latency_s=call_s * one.latency_s / TRUTHS["eager"].latency_s)
        for spec, one in TRUTHS.items()
    }
    search, machine = searched(truths, float(budget_s))
    assert machine.clock_s <= 1.1 * budget_s
    assert best_of(search) in {row.backend for row in search.data.results}


def test_what_there_was_no_time_for_is_named():
    search, _ = searched(budget_s=60.0, slots=1)
    assert search.ended_by == "budget"
    assert outcomes(search)[GRAPHED] == NOT_FINISHED
    assert "s were left for it" in search.trials[GRAPHED].reason


def test_a_build_that_takes_too_long_is_given_up_and_not_a_failure():
    truths = {**TRUTHS, COMPILED: Simulated(2e-3, build_s=1000.0)}
    search, machine = searched(truths, 60.0, slots=1)
    assert search.trials[COMPILED].outcome == NOT_FINISHED
    assert machine.clock_s <= 66
    assert best_of(search) == "half:cuda_graph=true"


# Builds


ENGINE, SLOW_ENGINE = "torch2trt:precision=fp16", "aot-inductor:precision=fp16,freezing=true"
WITH_ENGINES = Space(
    (
        *SPACE.families,
        Family("torch2trt", Stage.ENGINE, (ENGINE,), typical_build_s=20.0),
        Family("aot-inductor", Stage.ENGINE, (SLOW_ENGINE,), typical_build_s=100.0),
    )
)


@pytest.mark.parametrize("slots", [1, 4])
def test_a_build_that_does_not_end_leaves_time_for_the_others(slots):
    truths = {**TRUTHS, COMPILED: Simulated(2e-3, build_s=1e4), ENGINE: Simulated(1.8e-3)}
    search, machine = searched(truths, 120.0, WITH_ENGINES, slots=slots)
    assert machine.clock_s <= 132
    assert search.trials[COMPILED].outcome == NOT_FINISHED
    assert re.match(r"it was not built after \d+ s; 10 s were", search.trials[COMPILED].reason)
    assert best_of(search) == ENGINE


def test_what_usually_takes_longer_than_the_time_that_is_left_is_not_begun():
    truths = {**TRUTHS, SLOW_ENGINE: Simulated(1e-3, build_s=100.0)}
    search, machine = searched(truths, 120.0, WITH_ENGINES)
    assert SLOW_ENGINE not in machine.opened
    assert "s were left for it" in search.trials[SLOW_ENGINE].reason
    assert GRAPHED in machine.timed


def test_a_network_that_builds_fast_here_is_built_by_slow_engines_too():
    truths = {
        **{spec: attrs.evolve(one, build_s=1.0) for spec, one in TRUTHS.items()},
        SLOW_ENGINE: Simulated(1e-3, build_s=6.0),
    }
    search, _ = searched(truths, 60.0, WITH_ENGINES)
    assert best_of(search) == SLOW_ENGINE


def test_further_options_of_what_is_fast_come_before_what_builds_slowly():
    truths = {**TRUTHS, SLOW_ENGINE: Simulated(1.9e-3, build_s=100.0)}
    _, machine = searched(truths, 600.0, WITH_ENGINES, slots=1)
    assert machine.timed.index(GRAPHED) < machine.timed.index(SLOW_ENGINE)


@pytest.mark.parametrize("signal", [9, 11])
def test_a_process_that_dies_while_it_builds_is_a_failure_with_its_signal(signal):
    truths = {**TRUTHS, COMPILED: Simulated(2e-3, signal=signal), ENGINE: Simulated(1.8e-3)}
    search, _ = searched(truths, space=WITH_ENGINES)
    assert search.trials[COMPILED].outcome == FAILED
    assert f"ended by signal {signal}" in search.trials[COMPILED].reason
    assert best_of(search) == ENGINE


def test_what_has_a_dtype_that_is_inaccurate_is_built_last():
    wide = "compile:freezing=true"
    space = Space((SPACE.families[1], Family("compile", Stage.COMPILER, (COMPILED, wide))))
    truths = {
        **TRUTHS,
        "half": Simulated(3e-3, error=0.5),
        COMPILED: Simulated(2e-3, error=0.5),
        wide: Simulated(4e-3),
    }
    _, machine = searched(truths, space=space, slots=1)
    begun = list(machine.opened)
    assert begun.index(wide) < begun.index(COMPILED)


def test_compiled_rows_are_tried_in_the_order_of_what_was_fast_without_a_compiler():
    slow, fast = "compile:dtype=bfloat16", "compile:dtype=float16"
    space = Space((SPACE.families[1], Family("compile", Stage.COMPILER, (slow, fast))))
    truths = {**TRUTHS, "half:dtype=bfloat16": Simulated(6e-3), slow: Simulated(4e-3, build_s=9)}
    _, machine = searched(truths, space=space, slots=1)
    assert machine.timed.index(fast) < machine.timed.index(slow)


def test_further_options_of_a_slow_family_are_left_out_with_the_reason():
    truths = {**TRUTHS, COMPILED: Simulated(9e-3, build_s=5.0)}
    search, machine = searched(truths)
    assert GRAPHED not in machine.opened
    assert "compile with mode=reduce-overhead" in [one.what for one in search.left_out]


def test_layers_stay_in_float32_where_half_alone_is_not_accurate():
    kept = "half:fp32_layers=head"
    inaccurate = {spec: Simulated(3e-3, error=0.2) for spec in ("half", "half:dtype=bfloat16")}
    truths = {**TRUTHS, **inaccurate, kept: Simulated(3.2e-3)}
    search, _ = searched(truths, layers=["head", "stem"])
    assert search.trials["half"].outcome == INACCURATE
    assert search.trials[kept].outcome in (FINALIST, SLOWER)


def test_no_layer_stays_in_float32_where_a_half_row_of_another_dtype_is_accurate():
    """Their layers are not compared with float64 either, which takes seconds."""
    wide = "half:dtype=bfloat16"
    truths = {**TRUTHS, wide: Simulated(3e-3, error=0.2)}
    search, machine = searched(truths, layers=["head", "stem"])
    assert search.trials[wide].outcome == INACCURATE
    assert search.trials["half"].accuracy.verdict == WITHIN
    assert machine.observed == []
    assert not [spec for spec in search.trials if "fp32_layers" in spec]


def test_layers_are_compared_of_the_half_row_with_the_smaller_error():
    """Another row with as many bits, and a larger error everywhere, would not do better mixed."""
    wide, kept = "half:dtype=bfloat16", "half:fp32_layers=head"
    near, far = Simulated(3e-3, error=0.02), Simulated(3e-3, error=0.2)
    truths = {**TRUTHS, "half": near, wide: far, kept: Simulated(3.2e-3)}
    search, machine = searched(truths, layers=["head"])
    assert machine.observed == ["half"]
    assert search.trials[wide].outcome == INACCURATE
    assert kept in machine.timed
    _, machine = searched({**truths, "half": attrs.evolve(near, latency_s=6e-3)}, layers=["head"])
    assert machine.observed == ["half", wide]


def test_a_half_row_of_an_earlier_run_without_layers_does_not_stand_for_the_other():
    """It was accurate in its first calls, and no more when it was judged again."""
    wide, loss = "half:dtype=bfloat16", Interval(0.02, 0.02, 0.02)
    earlier = Trial(
        "half", INACCURATE, "", Accuracy(loss, BEYOND), Interval(3.3, 3.2, 3.4), "final", 1.0
    )
    truths = {**TRUTHS, wide: Simulated(3e-3, error=0.2)}
    _, machine = searched(truths, known=SimulatedMemory({"half": earlier}), layers=["head"])
    assert machine.observed == [wide]


def test_the_layout_that_no_mixed_row_has_does_not_count_as_another_half_row():
    laid_out = "half:memory_format=channels_last"
    space = Space((Family("half", Stage.PRECISION, ("half", laid_out)),))
    truths = {"half": Simulated(3e-3, error=0.02), laid_out: Simulated(3e-3, error=0.019)}
    _, machine = searched(truths, space=space, layers=["head"])
    assert machine.observed == ["half"]


def test_builds_of_an_inaccurate_dtype_end_before_its_layers_are_compared():
    """They lose, and cores are free for others."""
    truths = {**TRUTHS, **{s: Simulated(3e-3, error=0.2) for s in ("half", "half:dtype=bfloat16")}}
    building = []

    class Machine(SimulatedBench):
        def worst_layers(self, spec, limit_s):
            building.append([*self.begun])
            return super().worst_layers(spec, limit_s)

    machine = Machine(truths, ahead=2, layers=["head"])
    search = search_on(machine, SPACE, 200.0)
    search.begin_builds()
    assert machine.begun
    machine.open(["eager"], 200.0)
    search.run()
    assert building
    assert not any(building)


def test_layers_stay_in_float32_where_the_accurate_half_row_is_slow():
    """As bfloat16 is on a GPU without it."""
    kept, wide = "half:fp32_layers=head", "half:dtype=bfloat16"
    truths = {
        "eager": Simulated(10e-3),
        "half": Simulated(3e-3, error=0.2),
        wide: Simulated(25e-3),
        kept: Simulated(3.3e-3),
    }
    space = Space((Family("half", Stage.PRECISION, ("half", wide)),))
    search, machine = searched(truths, space=space, layers=["head"])
    assert machine.observed == ["half"]
    assert best_of(search) == kept


def test_a_run_that_is_continued_keeps_layers_in_float32_too():
    kept = "half:fp32_layers=head"
    inaccurate = {spec: Simulated(3e-3, error=0.2) for spec in ("half", "half:dtype=bfloat16")}
    truths = {**TRUTHS, **inaccurate, kept: Simulated(1e-3)}
    memory = SimulatedMemory()
    first, _ = searched(truths, known=memory, layers=["head"])
    known = {trial.spec: trial for trial in memory.kept if trial.outcome == INACCURATE}
    second, machine = searched(truths, known=SimulatedMemory(known))
    assert machine.observed == []
    assert best_of(second) == best_of(first) == kept


def test_layers_that_take_too_long_to_compare_are_compared_by_the_next_run():
    kept = "half:fp32_layers=head"
    inaccurate = {spec: Simulated(3e-3, error=0.2) for spec in ("half", "half:dtype=bfloat16")}
    truths = {**TRUTHS, **inaccurate, kept: Simulated(1e-3)}
    memory = SimulatedMemory()
    first, machine = searched(truths, 240.0, known=memory, layers=["head"], layers_s=1e3)
    assert first.trials["half"].outcome == INACCURATE
    assert kept not in first.trials
    assert NOT_FINISHED not in outcomes(first).values()
    assert first.ended_by == "budget"
    assert machine.clock_s < 240.0
    known = {trial.spec: trial for trial in memory.kept}
    assert "half" not in known
    second, _ = searched(truths, known=SimulatedMemory(known), layers=["head"])
    assert best_of(second) == kept


def test_beside_builds_an_accurate_half_row_counts_although_its_first_calls_are_slower():
    wide = "half:dtype=bfloat16"
    slow = {"half": Simulated(3e-3, first_calls_s=9e-3), wide: Simulated(3e-3, error=0.2)}
    _, machine = searched({**TRUTHS, **slow}, ahead=2)
    assert machine.observed == []
    _, machine = searched({**TRUTHS, **slow})
    assert machine.observed == [wide]


def test_layers_are_not_compared_where_an_earlier_run_shows_a_fast_half_row():
    wide = "half:dtype=bfloat16"
    slow = {"half": Simulated(3e-3, first_calls_s=9e-3), wide: Simulated(3e-3, error=0.2)}
    memory = SimulatedMemory()
    first, machine = searched({**TRUTHS, **slow}, 240.0, known=memory, layers_s=1e3)
    assert machine.observed == [wide]
    assert first.ended_by == "finished"  # half was timed by then, and is as fast
    known = {trial.spec: trial for trial in memory.kept if trial.spec != wide}
    second, machine = searched({**TRUTHS, **slow}, known=SimulatedMemory(known))
    assert machine.observed == []
    assert second.trials[wide].outcome == INACCURATE


@attrs.define
class Interrupted(SimulatedBench):
    """The user ends the run while a configuration is judged."""

    judged: str = ""

    def accuracy(self, spec: str) -> Accuracy:
        if spec == self.judged:
            raise KeyboardInterrupt
        return super().accuracy(spec)


def test_what_was_judged_before_an_interruption_is_in_the_journal():
    tf32 = "eager:precision=tf32"
    truths = {**TRUTHS, tf32: Simulated(6e-3, error=0.2), "half": Simulated(3e-3, error=0.2)}
    memory = SimulatedMemory()
    machine = Interrupted(truths, judged="half:dtype=bfloat16")
    with pytest.raises(KeyboardInterrupt):
        run(machine, SPACE, 200.0, memory)
    found = {trial.spec: trial.outcome for trial in memory.kept}
    assert found[tf32] == INACCURATE
    assert "half" not in found  # its layers were not compared yet


def test_an_interruption_keeps_the_best_so_far():
    search, _ = searched(interrupt_at=2)
    assert search.ended_by == "interrupted"
    assert search.trials[COMPILED].outcome == NOT_FINISHED
    assert search.trials[COMPILED].reason == "the search was interrupted before it was tried"
    assert best_of(search) in {row.backend for row in search.data.results}


def test_final_rounds_that_are_interrupted_count_and_nothing_is_a_failure():
    _, machine = searched(CLOSE)
    memory = SimulatedMemory()
    search, _ = searched(CLOSE, known=memory, interrupt_at=len(machine.options))
    assert search.ended_by == "interrupted"
    assert {len(row.measurement.preparations) for row in search.data.results} == {2}
    assert search.trials[GRAPHED].measured_in == "final"
    assert FAILED not in {trial.outcome for trial in memory.kept}


def test_a_row_that_an_interruption_leaves_without_a_round_is_no_failure():
    _, machine = searched(CLOSE)
    memory = SimulatedMemory()
    search, _ = searched(
        CLOSE, known=memory, interrupt_at=len(machine.options), unfinished=(GRAPHED,)
    )
    assert {len(row.measurement.preparations) for row in search.data.results} != {2}
    assert search.trials[GRAPHED].outcome == FINALIST
    assert FAILED not in {trial.outcome for trial in memory.kept}


def test_nothing_that_an_earlier_run_decided_is_prepared_again():
    memory = SimulatedMemory()
    first, _ = searched(known=memory)
    known = {trial.spec: trial for trial in memory.kept}
    second, machine = searched(known=SimulatedMemory(known))
    decided = {s for s, t in first.trials.items() if t.outcome in (SLOWER, INACCURATE, FAILED)}
    assert decided
    assert not decided & set(machine.opened)
    assert all(second.trials[spec].from_journal for spec in decided)
    assert best_of(second) == best_of(first)


@pytest.mark.parametrize(
    ("compiled", "best"),
    [
        ([], "half:cuda_graph=true"),
        ([{"first": (f"{COMPILED},dynamic=true",)}], "half:cuda_graph=true"),
        ([{"excluded": ("compile:mode=reduce-overhead",)}], COMPILED),
    ],
)
def test_what_lost_to_a_configuration_that_takes_no_part_is_tried_again(compiled, best):
    families = (*SPACE.families[:2], *(attrs.evolve(SPACE.families[2], **one) for one in compiled))
    memory = SimulatedMemory()
    first, _ = searched(known=memory)
    assert best_of(first) == GRAPHED
    assert first.trials["half:cuda_graph=true"].slower_than.startswith("compile")
    known = SimulatedMemory({trial.spec: trial for trial in memory.kept})
    second, machine = searched(space=Space(families), known=known)
    assert best_of(second) == best
    assert "eager:precision=tf32" not in machine.opened  # what it lost to is still there


def test_what_lost_to_another_batch_size_is_tried_again_without_it():
    memory, large = SimulatedMemory(), canonical("half:batch_size=64")
    truths = {"eager": Simulated(10e-3), "half": Simulated(3e-3), large: Simulated(3.1e-3)}
    halves = attrs.evolve(SPACE.families[1], first=("half",), then=())
    first, _ = searched(truths, space=Space((halves,), batch_sizes=(64,)), known=memory)
    assert first.trials["half"].slower_than == large
    known = SimulatedMemory({trial.spec: trial for trial in memory.kept})
    second, _ = searched(truths, space=Space((halves,)), known=known)
    assert best_of(second) == "half"


def test_what_lost_to_a_configuration_that_has_changed_is_tried_again():
    memory = SimulatedMemory()
    searched(known=memory)
    known = {trial.spec: trial for trial in memory.kept if not trial.spec.startswith("compile")}
    slow = {spec: Simulated(20e-3, build_s=20.0) for spec in (COMPILED, GRAPHED)}
    second, _ = searched({**TRUTHS, **slow}, known=SimulatedMemory(known))
    assert best_of(second).startswith("half")


def test_a_configuration_that_was_given_up_is_tried_again():
    known = {COMPILED: Trial(COMPILED, NOT_FINISHED, "no time")}
    search, machine = searched(known=SimulatedMemory(known))
    assert COMPILED in machine.opened
    assert best_of(search) == GRAPHED


def test_equal_configurations_are_a_tie_that_the_simpler_one_wins():
    truths = {spec: Simulated(3e-3) for spec in TRUTHS} | {"eager": Simulated(10e-3)}
    search, _ = searched(truths, noise=0.004)
    accurate = [spec for spec, trial in search.trials.items() if trial.outcome == FINALIST]
    best, why = choose(search.data, accurate)
    assert best.startswith(("eager", "half"))
    assert "equally fast" in why


def test_where_nothing_is_faster_the_reference_stays():
    truths = {spec: Simulated(12e-3) for spec in TRUTHS} | {"eager": Simulated(10e-3)}
    search, _ = searched(truths)
    accurate = [spec for spec, trial in search.trials.items() if trial.outcome == FINALIST]
    assert choose(search.data, accurate)[0] == "eager"


def test_progress_names_the_leader_its_interval_and_the_time_left():
    told = []
    machine = SimulatedBench(TRUTHS)
    machine.open(["eager"], 1e9)
    search = Search(
        SPACE, machine, SimulatedMemory(), "eager", 200.0, 200.0, now=machine.now, tell=told.append
    )
    search.run()
    last = told[-1]
    assert last.leader == GRAPHED
    assert isinstance(last.speedup, Interval)
    assert all(status.done <= status.total for status in told)
    assert [s.remaining_s for s in told] == sorted((s.remaining_s for s in told), reverse=True)


FROZEN = {"dtype": "float16", "freezing": "true", "memory_format": "channels_last"}


class Gpu(dict[str, Simulated]):
    """Configurations of a convolutional network on a GPU, by their options."""

    def get(self, spec: str, default: object = None) -> Simulated:
        name, options = split_spec(spec)
        values = set(options.values())
        is_half = name in ("half", "autocast") or values & {"float16", "bfloat16", "fp16"}
        latency_s = 14e-3 if is_half else 22e-3 if "tf32" in values else 40e-3
        latency_s *= 0.75 if "channels_last" in values else 1.0
        if name not in ("compile", "torchao", "aot-inductor"):
            return Simulated(latency_s, build_s=2.0)
        if name == "compile":
            if "max-autotune-no-cudagraphs" in values:
                return Simulated(latency_s * 0.74, build_s=110)
            return Simulated(latency_s * (0.77 if options.get("cuda_graph") else 0.8), build_s=25)
        return Simulated(14e-3, build_s=18.0) if name == "torchao" else CRASHES


CRASHES = Simulated(1e-3, build_s=95.0, signal=11)
ON_GPU = Facts(
    Capabilities(
        "cuda",
        (9, 0),
        True,
        256,
        dict.fromkeys(("onnxruntime", "openvino", "torch2trt", "torch-tensorrt"), "missing"),
    ),
    True,
)


LAST = "half:memory_format=channels_last"
LAUNCH_BOUND = {
    "eager": Simulated(10e-3, error=1e-7),
    "eager:precision=tf32": Simulated(7.5e-3, error=5e-4),
    "half": Simulated(10.5e-3),
    LAST: Simulated(11e-3),
    "half:cuda_graph=true": Simulated(6e-3),
    canonical(f"{LAST},cuda_graph=true"): Simulated(3e-3),
    COMPILED: Simulated(4e-3, build_s=80.0),
}


@pytest.mark.parametrize("noise", [0.002, 0.1])
def test_of_rows_that_launches_limit_the_graph_of_each_layout_is_tried(noise):
    """EfficientNet-B0 on an H200: half in channels_last was slower, and its graph the fastest."""
    families = (
        SPACE.families[0],
        attrs.evolve(SPACE.families[1], first=("half", LAST)),
        SPACE.families[2],
    )
    search, machine = searched(LAUNCH_BOUND, 95.0, Space(families), noise=noise)
    assert best_of(search) == canonical(f"{LAST},cuda_graph=true")
    assert "half:cuda_graph=true" in machine.timed
    assert "eager:cuda_graph=true" not in machine.opened  # 16 bits are accurate


def test_the_graph_of_a_layout_that_is_about_as_fast_is_tried():
    """ViT-B/16 on an H200: the layouts are 1 % apart, which the first rounds cannot tell."""
    half = attrs.evolve(SPACE.families[1], first=("half", LAST))
    graph = canonical(f"{LAST},cuda_graph=true")
    truths = {**TRUTHS, LAST: Simulated(2.98e-3), graph: Simulated(2.7e-3)}
    search, _ = searched(truths, space=Space((SPACE.families[0], half)))
    assert best_of(search) == graph


@pytest.mark.parametrize("seed", range(4))
def test_the_graph_of_a_layout_is_tried_where_the_first_rounds_are_too_noisy_to_rule_it_out(seed):
    """ViT-B/16 on an H200 that was throttled: 5 % apart by the first rounds, 2 % by longer ones."""
    half = attrs.evolve(SPACE.families[1], first=("half", LAST))
    graph = canonical(f"{LAST},cuda_graph=true")
    truths = {**TRUTHS, LAST: Simulated(3.15e-3), graph: Simulated(2e-3)}
    space = Space((SPACE.families[0], half))
    search, _ = searched(truths, space=space, noise=0.1, seed=seed)
    assert best_of(search) == graph


def test_of_rows_that_the_gpu_limits_only_the_fastest_gets_further_options():
    half = attrs.evolve(SPACE.families[1], first=("half", LAST))
    truths = {**TRUTHS, LAST: Simulated(4e-3)}
    _, machine = searched(truths, space=Space((SPACE.families[0], half)))
    assert "half:cuda_graph=true" in machine.opened
    assert canonical(f"{LAST},cuda_graph=true") not in machine.opened


@pytest.mark.parametrize("slots", [4, 8])
@pytest.mark.parametrize("begun_s", [6.0, 14.0])
@pytest.mark.parametrize("ahead", [True, False])
def test_two_minutes_are_enough_for_a_frozen_cuda_graph_on_a_gpu(slots, begun_s, ahead):
    machine = SimulatedBench(
        Gpu(), slots=slots, ahead=slots * ahead, judging_s=1.0, clock_s=begun_s
    )
    search = run(machine, space(ON_GPU), 120.0)
    assert machine.clock_s <= 121
    assert split_spec(best_of(search)) == ("compile", FROZEN | {"cuda_graph": "true"})
    tuned = [trial for spec, trial in search.trials.items() if "max-autotune" in spec]
    assert re.match(r"it takes about \d+ s, and \d+ s were left", tuned[0].reason)


def test_kernels_are_tuned_where_there_is_time():
    machine = SimulatedBench(Gpu(), slots=4, ahead=4, judging_s=1.0, clock_s=6.0)
    search = run(machine, space(ON_GPU), 400.0)
    best = split_spec(best_of(search))
    assert best == ("compile", FROZEN | {"mode": "max-autotune-no-cudagraphs"})


def test_autocast_is_left_out_where_half_is_accurate_with_the_reason():
    inaccurate = Simulated(3e-3, error=0.5)
    rows = Family("autocast", Stage.PRECISION, ("autocast", "autocast:dtype=bfloat16"))
    truths = {**TRUTHS, "half:dtype=bfloat16": inaccurate}
    search, machine = searched(truths, space=Space((SPACE.families[1], rows)))
    assert "autocast" not in machine.opened
    assert "autocast:dtype=bfloat16" in machine.opened
    reasons = {one.what: one.reason for one in search.left_out}
    assert reasons["autocast"].startswith("half with the same options is accurate enough")


# Memory


def test_what_does_not_fit_beside_others_is_tried_once_more_with_room():
    near = {**TRUTHS, "half": Simulated(2.8e-3)}  # so that it stays open beside its CUDA graph
    large = {**near, COMPILED: Simulated(2e-3, build_s=5.0, memory=6.0)}
    search, machine = searched(large, memory=9.0)
    assert machine.opened[COMPILED] > 1
    assert search.trials[COMPILED].speedup.value == pytest.approx(5.0, rel=0.02)


def test_what_was_closed_for_room_is_prepared_again_for_the_final_rounds():
    large = {**TRUTHS, COMPILED: Simulated(2.79e-3, build_s=5.0, memory=6.0)}
    search, _ = searched(large, memory=9.0, process_noise=0.05)
    measured = {row.backend for row in search.data.results}
    for spec, trial in search.trials.items():
        assert (trial.outcome == FINALIST) <= (spec in measured), trial


def test_what_does_not_fit_beside_the_reference_says_so():
    large = {**TRUTHS, COMPILED: Simulated(2e-3, memory=50.0)}
    search, _ = searched(large, memory=10.0)
    assert search.trials[COMPILED].outcome == FAILED
    assert "does not fit in memory beside eager and half" in search.trials[COMPILED].reason
    assert "use a smaller batch" in search.trials[COMPILED].reason
    assert "half" in best_of(search)


# Batch sizes


SIZES = attrs.evolve(SPACE, batch_sizes=(1, 32))


def test_batch_sizes_are_compared_by_items_per_second():
    truths = {
        **TRUTHS,
        f"{GRAPHED},batch_size=32": Simulated(32 / 4 * 1.2e-3, build_s=20.0),
        f"{GRAPHED},batch_size=1": Simulated(1e-3, build_s=20.0),  # 4 items in 4 ms
    }
    spec_of = {canonical(spec): truth for spec, truth in truths.items()}
    search, _ = searched(spec_of, 400.0, SIZES)
    best = best_of(search)
    assert best == canonical(f"{GRAPHED},batch_size=32")
    assert search.trials[best].speedup.value == pytest.approx(10 / 1.2, rel=0.02)
    assert search.trials[canonical(f"{GRAPHED},batch_size=1")].outcome == SLOWER


def test_a_call_of_a_larger_batch_may_take_as_long_as_its_items_need():
    large, slow = (canonical(f"{GRAPHED},batch_size={size}") for size in (4000, 8000))
    truths = {**TRUTHS, large: Simulated(1000 * 1.6e-3), slow: Simulated(2000 * 3.6e-2)}
    search, _ = searched(truths, 900.0, attrs.evolve(SPACE, batch_sizes=(4000, 8000)))
    assert search.trials[large].speedup is not None
    assert search.trials[slow].reason.startswith("a call takes 72 s, more than 20 times as long")


def test_a_batch_that_does_not_fit_is_a_failure_with_the_reason():
    large = canonical(f"{GRAPHED},batch_size=32")
    search, _ = searched({**TRUTHS, large: Simulated(1e-3, memory=90.0)}, 400.0, SIZES, memory=40.0)
    assert search.trials[large].outcome == FAILED
    assert "does not fit in memory" in search.trials[large].reason
    assert best_of(search) == GRAPHED


def test_the_error_of_another_batch_is_that_of_the_given_one():
    large = canonical(f"{GRAPHED},batch_size=32")
    search, _ = searched({**TRUTHS, large: Simulated(9e-3, error=0.5)}, 400.0, SIZES)
    assert search.trials[large].outcome == FINALIST
    assert search.trials[large].accuracy == search.trials[GRAPHED].accuracy


# A busy machine


def share_kept(noise: float, process_noise: float, searches: int) -> float:
    """In which share of searches the fastest configuration reaches the final rounds."""
    truths = {**TRUTHS, GRAPHED: Simulated(1.8e-3, build_s=20.0)}
    found = [
        searched(truths, noise=noise, process_noise=process_noise, seed=seed)[0]
        for seed in range(searches)
    ]
    return sum(GRAPHED in {row.backend for row in one.data.results} for one in found) / searches


@pytest.mark.uncounted
def test_the_fastest_is_kept_although_processes_differ():
    assert share_kept(0.002, process_noise=0.1, searches=40) >= 0.95


@pytest.mark.slow  # many searches
@pytest.mark.parametrize("noise", [0.002, 0.1])
def test_the_fastest_is_kept_in_95_of_100_searches_on_a_busy_machine(noise):
    assert share_kept(noise, process_noise=0.1, searches=200) >= 0.95


def test_on_a_quiet_machine_what_is_slower_is_dropped_early():
    search, machine = searched(noise=0.002, process_noise=0.002)
    assert machine.opened["half:dtype=bfloat16"] == 1
    assert search.trials["eager:precision=tf32"].outcome == SLOWER
