"""What is chosen is judged once more after the last rounds, in each of its processes."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch
from torch import nn

from precisionbench.backends.rungs import Stage
from precisionbench.errors import WorkerError
from precisionbench.model.workload import resolve
from precisionbench.results.tuning import (
    BEYOND,
    FAILED,
    FINALIST,
    INACCURATE,
    WITHIN,
    Accuracy,
    AccuracyBound,
)
from precisionbench.statistics import Interval
from precisionbench.workflows.tuning.accuracy import ErrorJudge
from precisionbench.workflows.tuning.batches import batches_of
from precisionbench.workflows.tuning.metric import MetricJudge
from precisionbench.workflows.tuning.recheck import Recheck, at_batch, given_inputs
from precisionbench.workflows.tuning.space import Family, Space
from simulated_bench import Simulated, SimulatedBench, SimulatedMemory
from test_tuning_search import COMPILED, GRAPHED, TRUTHS, best_of, search_on, searched


@attrs.define
class Process:
    """A process that answers with an output of its own."""

    output: dict[str, torch.Tensor]
    later: torch.Tensor | None = None

    def outputs_of(self, inputs_path: str) -> dict[str, torch.Tensor]:
        return self.output if self.later is None else {"": self.later}


X = torch.rand(4, 3) + 1
RIGHT = Process({"": X})
JUDGE = ErrorJudge(AccuracyBound("relative L2 error", 1e-2), (), [{"": X}, {"": 2 * X}])
METRIC = MetricJudge(AccuracyBound("top1", 0.1), lambda *_: 1.0, batches_of([1]), (), dict)
NOTHING_LOST = Accuracy(Interval(0.0, 0.0, 0.0), WITHIN, metric=1.0)
ALL_LOST = Accuracy(Interval(1.0, 1.0, 1.0), BEYOND, metric=0.0)


def changed(processes, judge=JUDGE, size=4, by_metric=ALL_LOST, notes=None):
    notes = [] if notes is None else notes
    again = Recheck(judge, Path(), size, 4, lambda _: by_metric, notes.append)
    return again.changed(processes)


@pytest.mark.parametrize("judge", [JUDGE, METRIC])
def test_processes_that_compute_what_was_judged_have_not_changed(judge):
    assert changed([RIGHT, RIGHT, Process({"": X}, X * 1.005)], judge) is None


@pytest.mark.parametrize("judge", [JUDGE, METRIC])
@pytest.mark.parametrize("wrong", [X * 1.3, X * 0, X * float("nan")])
def test_later_calls_that_compute_something_else_are_inaccurate(judge, wrong):
    found = changed([Process({"": X}, wrong)], judge)
    assert found.verdict == BEYOND
    assert found.reason.endswith(" when it was judged again")


@pytest.mark.parametrize(
    ("judge", "what"), [(JUDGE, "relative L2 error was 0.3"), (METRIC, "metric dropped by 1")]
)
def test_a_further_process_that_computes_something_else_is_inaccurate(judge, what):
    found = changed([RIGHT, Process({"": X * 1.3})], judge)
    assert found.verdict == BEYOND
    assert found.reason == f"the {what} when it was judged again in process 2 of 2"


@pytest.mark.parametrize("other", [X[:3], X.flip(0), X.round().long()])
def test_outputs_that_a_metric_judges_may_differ_where_it_does_not_drop(other):
    assert changed([RIGHT, Process({"": other})], METRIC, by_metric=NOTHING_LOST) is None


def test_outputs_at_another_batch_size_cannot_be_judged_by_the_metric_of_given_batches():
    assert changed([Process({"": X}, X * 2)], METRIC, size=8) is None


@pytest.mark.parametrize("size", [1, 3, 8, 10])
def test_items_at_another_batch_size_are_those_of_the_given_one(size):
    items = X.repeat(3, 1)[:size]
    assert changed([Process({"": items.half()})], size=size) is None
    wrong = items.clone()
    wrong[-1] = 0
    found = changed([Process({"": wrong})], size=size)
    assert found.verdict == BEYOND
    lost = wrong if size < 4 else items
    assert found.loss.value == pytest.approx(
        float(items[-1].norm() / (X.norm() * (size / 4) ** 0.5 if size < 4 else lost.norm()))
    )


@pytest.mark.parametrize("size", [1, 6])
def test_small_items_are_judged_by_the_size_of_all(size):
    x = torch.cat([torch.full((1, 3), 1e-4), X[1:]])
    judge = ErrorJudge(JUDGE.bound, (), [{"": x}])
    items = x.repeat(2, 1)[:size]
    assert changed([Process({"": items + 3e-6})], judge, size) is None
    zero = ErrorJudge(JUDGE.bound, (), [{"": torch.cat([torch.zeros(1, 3), X[1:]])}])
    assert changed([Process({"": items * 0 if size == 1 else items})], zero, size) is None


def test_the_batch_can_be_along_any_dimension_and_have_several_elements_for_an_item():
    second, several = torch.rand(5, 2, 3), torch.rand(2 * 7, 3)
    expected = {"second": second, "several": several, "loss": torch.rand(()), "none": X}
    own = {"second": second.repeat(1, 2, 1), "several": several.repeat(2, 1), "none": X}
    one, other = at_batch({**own, "loss": torch.rand(())}, expected, 4, 2)
    assert one.keys() == other.keys() == {"second", "several"}
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_without_an_output_that_belongs_to_the_batch_nothing_is_compared():
    assert at_batch({"": torch.rand(())}, {"": torch.rand(())}, 8, 4) == ({}, {})


class Ended(Process):
    def outputs_of(self, inputs_path: str) -> dict[str, torch.Tensor]:
        raise WorkerError("it died", "look")


def test_a_process_that_has_ended_is_noted_where_another_is_right():
    notes: list[str] = []
    assert changed([Ended({"": X}), RIGHT], notes=notes) is None
    assert notes == ["one of 2 processes could not be judged again: it died; look"]
    with pytest.raises(WorkerError, match="it died"):
        changed([Ended({"": X}), Ended({"": X})])


def test_the_given_inputs_are_written_once_for_each_batch_size(tmp_path):
    workload = resolve(nn.Linear(3, 3), X, device="cpu", seed=0)
    (given,) = torch.load(given_inputs(workload, 4, tmp_path))
    (larger,) = torch.load(given_inputs(workload, 6, tmp_path))
    assert torch.equal(given, X)
    assert torch.equal(larger, torch.cat([X, X[:2]]))
    assert given_inputs(workload, 6, tmp_path) == given_inputs(workload, 6, tmp_path)


def test_what_computes_something_else_once_it_was_timed_is_dropped_before_others_lose_to_it():
    memory = SimulatedMemory()
    search, machine = searched(unsteady=[GRAPHED], known=memory)
    assert machine.rechecked[-2:] == [GRAPHED, COMPILED]
    assert best_of(search) == COMPILED
    trial = search.trials[GRAPHED]
    assert (trial.outcome, trial.is_accurate) == (INACCURATE, False)
    assert trial.reason == "it computes something else now"
    assert trial in memory.kept  # the next run does not try it again
    assert search.ended_by == "finished"


def test_what_a_further_process_computes_wrongly_is_not_chosen_and_the_next_run_tries_the_others():
    class InTwo(SimulatedBench):
        def recheck(self, spec: str) -> Accuracy | None:
            return super().recheck(spec) if self.processes(spec) > 1 else None

    memory, machine = SimulatedMemory(), InTwo(TRUTHS, unsteady=[GRAPHED])
    first = search_on(machine, known=memory)
    machine.open(["eager"], 1e9)
    first.run()
    assert first.trials[GRAPHED].outcome == INACCURATE
    assert best_of(first) == "eager"  # the others had lost to it
    assert first.ended_by == "budget"
    memory = SimulatedMemory({trial.spec: trial for trial in memory.kept})
    second, _ = searched(known=memory)
    assert best_of(second) == COMPILED


def test_where_nothing_else_is_right_the_reference_is_kept():
    families = (Family("half", Stage.PRECISION, ("half",)),)
    search, machine = searched(unsteady=["half"], space=Space(families))
    assert machine.rechecked == ["half"]
    assert best_of(search) == "eager"


def test_a_configuration_whose_process_fails_when_it_is_judged_once_more_is_not_chosen():
    class Dies(SimulatedBench):
        def recheck(self, spec: str) -> Accuracy | None:
            return self._error(spec, is_late=True) if spec == GRAPHED else super().recheck(spec)

    machine = Dies({"eager": Simulated(10e-3), COMPILED: Simulated(2e-3), GRAPHED: Simulated(1e-3)})
    search = search_on(machine)
    machine.open(["eager"], 1e9)
    search.run()
    assert best_of(search) == COMPILED
    assert search.trials[GRAPHED].outcome == FAILED
    assert search.trials[GRAPHED].reason.endswith("(when it was judged again)")


def test_a_process_that_cannot_be_prepared_again_is_told():
    class Once(SimulatedBench):
        def _error(self, spec: str, is_late: bool):
            truth = self.truth(spec)
            again = attrs.evolve(self, truths={spec: attrs.evolve(truth, failure="it broke")})
            first = self.opened[spec] == 1 or spec != "half"
            return super()._error(spec, is_late) if first else SimulatedBench._error(again, spec, 0)

    machine = Once({"eager": Simulated(10e-3), "half": Simulated(2e-3)})
    search = search_on(machine, Space((Family("half", Stage.PRECISION, ("half",)),)))
    machine.open(["eager"], 1e9)
    search.run()
    assert best_of(search) == "half"
    assert search.trials["half"].outcome == FINALIST
    (note,) = search.notes
    assert note == (
        "half was measured without one of its processes, which failed: it broke; change it"
    )
