"""What a search learns from the processes of the reference and of float64."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
import torch

from precisionbench.errors import (
    ExecutionError,
    OutOfMemoryError,
    PrecisionBenchError,
    WorkerError,
    WorkloadError,
)
from precisionbench.measure.open_rows import LateError
from precisionbench.results.evidence import LayerError
from precisionbench.results.tuning import WITHIN
from precisionbench.torchtools.global_state import threads
from precisionbench.torchtools.tensors import Inputs
from precisionbench.workflows.tuning import worker_bench as bench_module
from precisionbench.workflows.tuning.accuracy import SHUFFLED, ErrorJudge
from precisionbench.workflows.tuning.metric import metric_judge
from precisionbench.workflows.tuning.worker_bench import WorkerBench

GIVEN = Inputs((torch.arange(1.0, 13.0).reshape(3, 4),))
LATE = LateError("it was not built when the time was over", "use a larger budget_s")


OPENING = SimpleNamespace(build_s=0.5, first_call_s=0.1)


@attrs.define
class Rows:
    """Rows whose models are functions of the input."""

    folder: Path
    model: Callable[[torch.Tensor], torch.Tensor]
    errors: dict[str, PrecisionBenchError] = attrs.field(factory=dict)
    device: str = "cpu"
    replicas: dict[str, list[SimpleNamespace]] = attrs.field(factory=dict)
    stops: list[str] = attrs.field(factory=list)
    most_workers: int = 99
    on_stop: Callable[[], object] = lambda: None

    @property
    def pool(self) -> SimpleNamespace:
        return SimpleNamespace(folder=self.folder, stop=self._stop)

    def _stop(self) -> None:
        self.stops.append("stop")
        self.on_stop()

    def open(self, rows, end_s, limits=None) -> dict[str, PrecisionBenchError]:
        ready = [row.name for row in rows if row.name not in self.errors]
        opened = SimpleNamespace(outputs_of=self._outputs_of, opening=OPENING)
        self.replicas |= {name: [opened] for name in ready}
        return {row.name: self.errors[row.name] for row in rows if row.name in self.errors}

    @property
    def workload(self) -> SimpleNamespace:
        return SimpleNamespace(device=torch.device(self.device))

    def has_room(self, row, workers: int) -> bool:
        return workers * (row.backend.batch_size or 1) <= self.most_workers

    def is_begun(self, name: str) -> bool:
        return False

    def _outputs_of(self, path: str) -> dict[str, torch.Tensor]:
        return {"": self.model(torch.load(path)[0])}

    def close(self, names: Sequence[str]) -> None:
        for name in names:
            self.replicas.pop(name, None)


def begun(tmp_path: Path, model: Callable[[torch.Tensor], torch.Tensor], **errors) -> WorkerBench:
    bench = WorkerBench(Rows(tmp_path, model, errors), ErrorJudge.of(1e-2, GIVEN, seed=0), slots=1)
    bench.begin("eager", end_s=1e9)
    return bench


def test_each_output_is_judged_by_that_of_the_same_input_where_one_input_is_dropped(tmp_path):
    second = ErrorJudge.of(1e-2, GIVEN, seed=0).inputs[1][0]

    def model(x: torch.Tensor) -> torch.Tensor:
        return x / 0 if torch.equal(x, second) else x

    bench = begun(tmp_path, model)
    assert bench.judge.bound.batches == SHUFFLED
    accuracy = bench.accuracy("eager")
    assert (accuracy.verdict, accuracy.loss.value) == (WITHIN, 0.0)
    assert not bench.notes


@pytest.mark.parametrize(("device", "most"), [("cpu", 2), ("cuda", 3)])
def test_more_processes_are_of_use_up_to_the_number_that_compare_starts(tmp_path, device, most):
    bench, specs = begun(tmp_path, torch.abs), ["eager", "half"]
    bench.rows.device = device
    for count in range(1, most + 1):
        bench.rows.replicas = {spec: [SimpleNamespace()] * count for spec in specs}
        assert bench.has_room_for_more(specs) == (count < most)


def test_a_device_without_room_for_the_largest_batch_gets_no_more_processes(tmp_path):
    bench, specs = begun(tmp_path, torch.abs), ["eager", "half:batch_size=8"]
    for bench.rows.most_workers, expected in ((16, True), (15, False)):
        assert bench.has_room_for_more(specs) is expected


def test_the_first_batches_are_used_of_data_that_takes_long(tmp_path, monkeypatch):
    clock = itertools.count()  # a second for each look at it
    monkeypatch.setattr(bench_module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    data = [(GIVEN.args[0], number) for number in range(50)]
    judge = metric_judge(lambda *_: 1.0, data, 0.1, True, GIVEN, lambda outputs: outputs[""])
    bench = WorkerBench(Rows(tmp_path, torch.abs), judge, slots=1)
    bench.begin("eager", end_s=400.0)
    used = bench.judge.bound.batches
    assert 8 < used < 30
    (note,) = bench.notes
    assert note.startswith(f"the metric uses the first {used} of 50 batches, as each takes ")
    assert len(list(tmp_path.glob("inputs-*.pt"))) == used
    assert bench.accuracy("eager").verdict == WITHIN


def test_errors_of_a_model_whose_output_is_zero_say_nothing(tmp_path):
    (note,) = begun(tmp_path, torch.zeros_like).notes
    assert note.startswith("all outputs are zero, infinite or NaN for these inputs, so the errors")
    (note,) = begun(tmp_path, lambda x: x / 0 * 0).notes
    assert note.startswith("all outputs are zero, infinite or NaN for these inputs, so the errors")


def test_a_model_whose_output_is_empty_is_refused_before_anything_is_tried(tmp_path):
    with pytest.raises(WorkloadError, match="all tensors in the output of eager are empty"):
        begun(tmp_path, lambda x: x[:0])


def test_a_part_of_a_layer_is_no_layer_of_its_own():
    growth = {"block.a": (0.0, 3e-3), "block.b": (5e-2, 5.1e-2), "c": (5.1e-2, 5.2e-2)}
    errors = [LayerError(path, out, 1.0, 0, 1.0, given) for path, (given, out) in growth.items()]
    assert bench_module._worst_layers(errors) == ["block", "c"]


def test_a_wrapped_model_is_not_kept_in_float32_as_a_whole():
    """Its embeddings are added in its own forward, and all layers are parts of it."""
    growth = {"model.a": (0.0, 0.0), "model.drop": (3e-3, 3e-3), "model.h.b": (3e-3, 3.1e-3)}
    errors = [LayerError(path, out, 1.0, 0, 1.0, given) for path, (given, out) in growth.items()]
    assert bench_module._worst_layers(errors) == []
    grown_in_a_block = attrs.evolve(errors[2], input_relative_l2=9e-3, relative_l2=9.1e-3)
    assert bench_module._worst_layers([*errors[:2], grown_in_a_block])[0] == "model.h"
    elsewhere = attrs.evolve(errors[0], path="stem", relative_l2=None)  # its outputs are integers
    assert bench_module._worst_layers([elsewhere, *errors]) == ["model"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LATE, "the model in float64 was not ready in time; errors are against eager"),
        (ExecutionError("no kernel"), "the model in float64 does not run (ExecutionError: no kern"),
    ],
)
def test_without_float64_errors_are_against_the_reference_with_the_reason(tmp_path, error, words):
    bench = begun(tmp_path, torch.abs, float64=error)
    assert bench.notes[0].startswith(words)
    assert bench.judge.bound.reference == "eager"


def test_a_reference_that_is_not_ready_in_time_is_named_with_what_to_do(tmp_path):
    with pytest.raises(LateError, match=r"before the reference \(eager\) was ready; use"):
        begun(tmp_path, torch.abs, eager=LATE)


@pytest.mark.parametrize("crowded", ["eager", "float64"])
@pytest.mark.parametrize("builds", [True, False])
def test_what_is_built_meanwhile_ends_where_the_reference_has_no_memory(tmp_path, crowded, builds):
    rows = Rows(tmp_path, torch.abs, {crowded: OutOfMemoryError("it does not fit in memory")})
    bench = WorkerBench(rows, ErrorJudge.of(1e-2, GIVEN, seed=0), slots=1)

    def make_room() -> bool:
        if builds:
            rows.errors.clear()
        return builds

    if crowded == "eager" and not builds:
        with pytest.raises(OutOfMemoryError):
            bench.begin("eager", 1e9, make_room)
        return
    bench.begin("eager", 1e9, make_room)
    assert bench.judge.bound.reference == ("float64" if builds else "eager")
    assert len(bench.notes) == (not builds)


@attrs.define
class Meeting:
    """A model whose calls wait for each other, if all of them are made at the same time."""

    count: int
    _barrier: threading.Barrier = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._barrier = threading.Barrier(self.count, timeout=60)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self._barrier.wait()
        return x


def opened(tmp_path: Path, model, device: str, names: Sequence[str], slots: int) -> WorkerBench:
    """Configurations that are open, judged by the model that gives its input."""
    rows = Rows(tmp_path, lambda x: x, device=device)
    bench = WorkerBench(rows, ErrorJudge.of(1e-2, GIVEN, seed=0), slots=slots)
    bench.begin("eager", end_s=1e9)
    rows.model = model
    bench.open(names, end_s=1e9)
    return bench


def test_on_a_gpu_configurations_are_judged_side_by_side(tmp_path):
    names = ["half", "half:dtype=bfloat16", "eager:precision=tf32"]
    bench = opened(tmp_path, Meeting(3), "cuda", names, slots=3)
    assert bench.judges == 3
    found = [*bench.accuracies(names)]
    assert [one.verdict for one in found] == [WITHIN] * 3


@pytest.mark.parametrize(("device", "slots"), [("cpu", 4), ("cuda", 1)])
def test_on_a_cpu_or_with_few_cores_one_is_judged_after_the_other(tmp_path, device, slots):
    bench = opened(tmp_path, Meeting(1), device, ["half"], slots)
    assert bench.judges == 1
    assert [one.verdict for one in bench.accuracies(["half"])] == [WITHIN]


def test_no_more_are_judged_at_once_than_their_outputs_have_room(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_module, "_JUDGED_BYTES", 2 * GIVEN.args[0].numel() * 8)
    bench = opened(tmp_path, torch.Tensor.double, "cuda", ["half"], slots=8)
    bench.judge = attrs.evolve(bench.judge, expected=[{"": GIVEN.args[0].double()}])
    assert bench.judges == 2


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_one_that_fails_while_it_is_judged_leaves_the_others(tmp_path, device):
    names = ["half", "half:dtype=bfloat16"]
    bench = opened(tmp_path, lambda x: x, device, names, slots=2)

    def fails(path: str) -> dict[str, torch.Tensor]:
        raise ExecutionError("no kernel")

    bench.rows.replicas["half"] = [SimpleNamespace(outputs_of=fails, opening=OPENING)]
    failed, accurate = bench.accuracies(names)
    assert isinstance(failed, ExecutionError)
    assert accurate.verdict == WITHIN


def test_judging_side_by_side_leaves_the_number_of_threads_as_it_was(tmp_path):
    names = ["half", "half:dtype=bfloat16", "eager:precision=tf32", "autocast"]
    seen: list[int] = []
    with threads(3):
        bench = opened(tmp_path, Meeting(4), "cuda", names, slots=4)
        for _ in range(5):
            assert len([*bench.accuracies(names)]) == 4
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert (torch.get_num_threads(), seen) == (3, [3])


@pytest.mark.parametrize("interrupted", [0, 1])
def test_a_ctrl_c_stops_the_calls_of_those_that_are_judged_now(tmp_path, interrupted):
    names, ended = ["half", "half:dtype=bfloat16"], threading.Event()
    bench = opened(tmp_path, lambda x: x, "cuda", names, slots=2)

    def endless(path: str) -> dict[str, torch.Tensor]:
        os.kill(os.getpid(), signal.SIGINT)  # which the main thread takes
        assert ended.wait(60)
        raise ExecutionError("it was ended")

    spec = names[interrupted]
    bench.rows.replicas[spec] = [SimpleNamespace(outputs_of=endless, opening=OPENING)]
    bench.rows.on_stop = ended.set
    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        [*bench.accuracies(names)]
    assert bench.rows.stops == ["stop"]
    assert torch.get_num_threads() == before


def test_what_is_judged_no_further_is_not_waited_for(tmp_path):
    names, ended = ["half", "half:dtype=bfloat16"], threading.Event()
    bench = opened(tmp_path, lambda x: x, "cuda", names, slots=2)

    def endless(path: str) -> dict[str, torch.Tensor]:
        assert ended.wait(60)
        raise ExecutionError("it was ended")

    bench.rows.replicas[names[1]] = [SimpleNamespace(outputs_of=endless, opening=OPENING)]
    bench.rows.on_stop = ended.set
    before = torch.get_num_threads()
    judged = bench.accuracies(names)
    next(judged)
    judged.close()  # as an exception between two of them does
    assert bench.rows.stops == ["stop"]
    assert torch.get_num_threads() == before


class Asked:
    """A prepared worker that answers after some seconds, by a clock that is moved."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def ask(self, request: str, until_s: float, **arguments: str) -> list[LayerError]:
        self.clock[0] += self.seconds
        if "path" in arguments:
            Path(arguments["path"]).write_text("cut off")
        if self.clock[0] > until_s:
            raise WorkerError("it did not answer in time", "wait")
        return [LayerError("head", 1e-2, 1.0, 0, 1.0, 1e-4)]


@pytest.mark.parametrize(
    ("seconds", "limit_s", "found"),
    [(1.0, 10.0, ["head"]), (6.0, 10.0, None), (20.0, 10.0, None), (1.0, 0.2, None)],
)
def test_layers_are_compared_within_a_limit(tmp_path, monkeypatch, seconds, limit_s, found):
    clock = [0.0]
    monkeypatch.setattr(bench_module.time, "monotonic", lambda: clock[0])
    bench = begun(tmp_path, torch.abs)
    bench.rows.replicas["half"] = [Asked(clock, seconds)]
    assert bench.worst_layers("half", limit_s) == found
    noted = "the layers of half could not be compared with float64 in time" in str(bench.notes)
    assert noted == (found is None)
    assert (bench.rows.pool.folder / "float64.pt").exists() == (found is not None)
