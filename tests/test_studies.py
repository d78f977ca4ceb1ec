"""Studies: cells and their files, runs that go on, devices, workers, locks."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import multiprocessing
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import attrs
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import precisionbench as pb
from hostile_text import PIECES, assert_visible
from made_up_results import H100, comparison_data
from precisionbench.cli import main
from precisionbench.errors import ResultFormatError, SpecError, WorkerError
from precisionbench.results import Cell, CellResult, DeviceStatus, StudyRun, json_format
from precisionbench.studies.cells import cells_of, name_of
from precisionbench.studies.definition import define, read_toml
from precisionbench.studies.executors import LocalProcesses
from precisionbench.studies.locks import claimed, free_device
from precisionbench.studies.machine import Device, is_named
from precisionbench.studies.run import Study, Work
from precisionbench.studies.status import status_of
from precisionbench.studies.store import Store, load_cells
from precisionbench.studies.submitit_executor import SubmititExecutor
from precisionbench.studies.this_machine import board_name
from study_machine import BOARD, FakeMachine

EXAMPLE = Path(__file__).parent.parent / "examples/study.toml"
HOSTILE = "".join(PIECES)


def work(machine: FakeMachine, **definition) -> Work:
    return Work.of(define(**{"models": ["net"], **definition}), machine)


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    folder = tmp_path / "log"
    folder.mkdir()
    return FakeMachine(folder)


def begun(machine: FakeMachine) -> list[int]:
    return [line.batch_size for line in machine.log() if line.kind == "begin"]


# Cells


def test_every_combination_is_a_cell():
    definition = define(models=["a", "b"], batch_sizes=[1, 8], threads=[1, 2], backends=["half"])
    cells = cells_of(definition, "CPU")
    assert len(cells) == len(set(cells)) == 8
    assert cells[0] == Cell("a", None, 1, 1, "CPU", ("half",))
    assert [cell.title for cell in cells[:2]] == ["a, batch 1, 1 thread", "a, batch 8, 1 thread"]


def test_the_name_of_a_cell_covers_all_that_it_measures():
    definition = define(models={"new": "net.py:Net"}, batch_sizes=[8], shapes=[[3, 8, 8]])
    cell = cells_of(definition, "NVIDIA H200")[0]
    changed = [
        name_of(attrs.evolve(cell, **change), definition)
        for change in (
            {"shape": (3, 8, 9)},
            {"batch_size": 9},
            {"threads": 1},
            {"device": "NVIDIA H100"},
            {"backends": ("half",)},
        )
    ]
    others = [
        name_of(cell, attrs.evolve(definition, models={"new": "other.py:Net"})),
        name_of(cell, attrs.evolve(definition, options={"effort": "quick"})),
    ]
    names = [name_of(cell, definition), *changed, *others]
    assert len(set(names)) == len(names)
    assert all(name.startswith("new-b") for name in names)


def test_adding_a_batch_size_keeps_the_names_of_the_other_cells():
    small, large = (define(models=["a"], batch_sizes=sizes) for sizes in ([1, 8], [1, 4, 8]))
    names = {name_of(cell, small) for cell in cells_of(small, "CPU")}
    assert names < {name_of(cell, large) for cell in cells_of(large, "CPU")}


@pytest.mark.parametrize("label", ["../../etc", "a/b", "\u202e", "x" * 500, "...", "new model"])
def test_the_label_of_a_model_never_leaves_the_folder(label):
    definition = define(models={label: "a"})
    name = name_of(cells_of(definition, "CPU")[0], definition)
    assert name.replace("-", "").replace(".", "").isalnum()
    assert not name.startswith(".")
    assert len(name) < 80


# Definitions


def test_a_toml_file_defines_a_study(tmp_path):
    file = tmp_path / "boards.toml"
    file.write_text(
        'batch_sizes = [1, 8]\nshapes = ["3,224,224"]\nbackends = ["fast=half"]\n'
        'devices = ["agx orin"]\neffort = "quick"\n'
        '[models]\nold = "net.py:Old"\nnew = "net.py:New"\n'
        '[submitit]\nslurm_partition = "gpu"\n'
    )
    found = read_toml(file)
    assert found.folder == tmp_path / "boards"
    assert found.submitit == {"slurm_partition": "gpu"}
    assert found.definition == define(
        models={"old": "net.py:Old", "new": "net.py:New"},
        batch_sizes=[1, 8],
        shapes=[(3, 224, 224)],
        backends=["fast=half"],
        devices=["agx orin"],
        effort="quick",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models = [", "is not valid TOML"),
        ("batch_sizes = [1]", "the key 'models' is missing"),
        ('models = ["a"]\nbatchsizes = [1]', "did you mean 'batch_sizes'?"),
        ('models = ["a"]\nbatch_sizes = [0]', "batch_sizes has 0"),
        ('models = ["a"]\nbatch_sizes = [8, 8]', "batch_sizes has 8 twice"),
        ('models = ["a"]\nbatch_sizes = []', "the study has no batch_sizes"),
        ('models = ["a"]\nshapes = ["3,x"]', "shapes has '3,x'"),
        ("models = []", "the study has no models"),
        ("models = [1]", "give names such as"),
        ('models = ["a"]\nbackends = ["half:dtype"]', "in the place of an option"),
        ('models = ["a"]\nthreads = [true]', "threads has True"),
        ('models = ["a"]\nsubmitit = 1', "write a table"),
    ],
)
def test_errors_of_a_toml_file_say_what_is_wrong(tmp_path, text, expected):
    file = tmp_path / "study.toml"
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_toml(file)
    assert expected in str(caught.value)
    assert "study.toml" in str(caught.value)


def test_a_module_without_shapes_is_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(SpecError, match="'Linear' has no inputs; give shapes"):
        pb.study(nn.Linear(2, 2), batch_sizes=[1], folder=tmp_path / "s")
    with pytest.raises(SpecError, match="two models have the name 'Linear'"):
        pb.study([nn.Linear(2, 2), nn.Linear(2, 2)], shapes=[(2,)], folder=tmp_path / "s")
    for models, said in (
        ("study.toml", "'study.toml' has no ':'.*is run by `precisionbench study run FILE`"),
        (None, "the model 'NoneType' is a NoneType; give an nn.Module"),
        ({"modles": {}}, "the model 'modles' is a dict; give an nn.Module"),
    ):
        with pytest.raises(SpecError, match=said):
            pb.study(models, folder=tmp_path / "s")
    with pytest.raises(SpecError, match="there is no effort 'fast'"):
        pb.study("a:b", effort="fast", folder=tmp_path / "s")
    assert not (tmp_path / "s").exists()


# The folder


def test_a_result_file_has_its_cell_and_is_an_ordinary_result(tmp_path, machine):
    work(machine, batch_sizes=[8]).run(tmp_path / "s")
    (file,) = (tmp_path / "s").glob("net-b8-*.json")
    assert pb.load(file).data.study.cell == Cell("net", None, 8, None, BOARD.name, ())
    assert pb.load(file)["half"].backend == "half"


def test_results_outside_of_studies_are_written_as_before():
    assert "study" not in json.loads(json_format.to_json(comparison_data()))


def test_a_study_goes_on_where_it_ended(tmp_path, machine):
    planned = work(machine, batch_sizes=[1, 2, 3])
    planned.run(tmp_path / "s")
    next((tmp_path / "s").glob("net-b2-*.json")).unlink()
    outcomes = planned.run(tmp_path / "s")
    assert [one.cell.batch_size for one in outcomes] == [2]
    assert begun(machine) == [1, 2, 3, 2]


def test_a_cell_that_fails_is_a_file_with_its_reason(tmp_path, machine):
    planned = work(attrs.evolve(machine, too_large=2), batch_sizes=[1, 2, 3])
    outcomes = planned.run(tmp_path / "s")
    assert [one.state for one in outcomes] == ["measured", "failed", "failed"]
    cells = load_cells(tmp_path / "s")
    assert [one.failure for one in cells] == [
        "",
        "batch 2 does not fit; use a smaller one",
        "batch 3 does not fit; use a smaller one",
    ]
    assert [one.data is None for one in cells] == [False, True, True]
    assert planned.run(tmp_path / "s") == ()
    again = work(machine, batch_sizes=[1, 2, 3]).run(tmp_path / "s", retry_failed=True)
    assert [(one.cell.batch_size, one.state) for one in again] == [(2, "measured"), (3, "measured")]
    assert not list((tmp_path / "s").glob("*.failed.json"))


def test_results_of_an_earlier_definition_are_kept_and_left_out(tmp_path, machine):
    work(machine, batch_sizes=[1], effort="quick").run(tmp_path / "s")
    work(machine, batch_sizes=[1, 2]).run(tmp_path / "s")
    assert len(Store(tmp_path / "s").names()) == 3
    assert [one.cell.batch_size for one in load_cells(tmp_path / "s")] == [1, 2]


def test_other_results_in_the_folder_are_ignored(tmp_path, machine):
    work(machine, batch_sizes=[1]).run(tmp_path / "s")
    pb.Comparison(comparison_data()).save(tmp_path / "s/mine.json")
    assert len(load_cells(tmp_path / "s")) == 1


@pytest.mark.parametrize("text", ["", "{}", '{"study": {"cell": 1}}', '{"study": ' + "[" * 5000])
@pytest.mark.parametrize("suffix", [".json", ".failed.json"])
def test_a_damaged_file_is_named(tmp_path, machine, text, suffix):
    work(machine, batch_sizes=[1]).run(tmp_path / "s")
    (tmp_path / f"s/bad{suffix}").write_text(text)
    with pytest.raises(ResultFormatError, match="bad"):
        load_cells(tmp_path / "s")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "is not the definition"),
        ("[]", "its 'format' is not"),
        ('{"format": "precisionbench.study", "version": 2}', "its version is 2"),
        ('{"format": "precisionbench.study", "version": 1}', "must have models"),
        ('{"format": "precisionbench.study", "version": 1, "models": {"a": 1}}', "must be text"),
    ],
)
def test_a_damaged_definition_is_named(tmp_path, text, expected):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(SpecError) as caught:
        load_cells(tmp_path)
    assert "study.json" in str(caught.value)
    assert expected in str(caught.value)


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(SpecError, match="there is no folder"):
        load_cells(tmp_path / "none")
    with pytest.raises(SpecError, match="has no study"):
        load_cells(tmp_path)


def test_ctrl_c_keeps_finished_cells_and_no_half_of_one(tmp_path, machine):
    @attrs.frozen
    class Interrupted(FakeMachine):
        def measure(self, cell, model, backends, device):
            data = super().measure(cell, model, backends, device)
            if cell.batch_size != 2:
                return data
            row = data.results[0]
            cut = attrs.evolve(row.measurement, ended_by="interrupted")
            return attrs.evolve(data, results=(attrs.evolve(row, measurement=cut),))

    planned = work(Interrupted(machine.folder), batch_sizes=[1, 2, 3])
    with pytest.raises(KeyboardInterrupt):
        planned.run(tmp_path / "s")
    assert [one.cell.batch_size for one in load_cells(tmp_path / "s")] == [1]
    assert begun(machine) == [1, 2]


# Devices


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("Jetson AGX Orin 64GB (MAXN)", "agx orin"),
        ("Jetson AGX Orin 64GB (MAXN)", "orin agx"),
        ("NVIDIA Jetson Orin Nano Developer Kit", "orin nano"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("Intel(R) Xeon(R) Platinum 8481C", "8481c"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB"),
    ],
)
def test_a_device_is_meant_by_words_of_its_name(device, name):
    assert is_named(device, name)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA A100 SXM4 80GB", "a10"),
        ("NVIDIA H200", "h100"),
        ("Jetson AGX Orin 64GB (MAXN)", "orin nano"),
        ("NVIDIA H200", ""),
        ("NVIDIA H200", "nvidia"),
    ],
)
def test_a_device_is_not_meant_by_parts_of_words(device, name):
    assert not is_named(device, name)


def test_the_board_of_a_jetson_is_named_where_the_driver_is_ambiguous(tmp_path):
    model = tmp_path / "model"
    model.write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    unknown = attrs.evolve(H100, name="Orin", multiprocessors=1)
    assert board_name(unknown, model) == "NVIDIA Jetson Orin Nano Developer Kit"
    assert board_name(unknown, tmp_path / "none") == "Orin"
    model.write_bytes(b"Some other board\0")
    assert board_name(unknown, model) == "Orin"


def test_machines_that_share_a_folder_measure_the_cells_of_their_own_device(tmp_path, machine):
    devices = {"devices": ["agx fake", "nx fake"], "batch_sizes": [1, 2]}
    outcomes = work(machine, **devices).run(tmp_path / "s")
    assert Counter(one.state for one in outcomes) == {"measured": 2, "left": 2}
    assert outcomes[-1].reason == f"this machine has {BOARD.name}"
    other = attrs.evolve(machine, boards=(Device("fake:0", "NX Fake", "board-2"),))
    assert [one.state for one in work(other, **devices).run(tmp_path / "s")] == ["measured"] * 2
    assert [one.cell.device for one in load_cells(tmp_path / "s")] == [
        *["agx fake"] * 2,
        *["nx fake"] * 2,
    ]


def test_only_the_chosen_device_is_measured(tmp_path, machine):
    planned = work(machine, devices=["agx fake", "nx fake"], batch_sizes=[1])
    outcomes = planned.run(tmp_path / "s", only_device="nx fake")
    assert [one.state for one in outcomes] == ["left"]
    with pytest.raises(SpecError, match="'orin' is none of the devices"):
        planned.run(tmp_path / "s", only_device="orin")


def test_without_names_of_devices_each_machine_adds_its_own_cells(tmp_path, machine):
    other = attrs.evolve(machine, boards=(Device("fake:0", "Other", "board-2"),))
    for one in (machine, other):
        work(one, batch_sizes=[1, 2]).run(tmp_path / "s")
    assert Counter(one.cell.device for one in load_cells(tmp_path / "s")) == {
        BOARD.name: 2,
        "Other": 2,
    }


# Locks


def test_a_cell_that_another_process_measures_is_left(tmp_path, machine):
    planned = work(machine, batch_sizes=[1, 2])
    folder = tmp_path / "s"
    folder.mkdir()
    name = name_of(cells_of(planned.definition, BOARD.name)[0], planned.definition)
    with claimed(folder, name) as is_ours:
        assert is_ours
        outcomes = planned.run(folder)
    assert [(one.state, one.reason) for one in outcomes] == [
        ("left", "another process measures it"),
        ("measured", ""),
    ]


def test_two_runs_at_the_same_time_measure_each_cell_once(tmp_path, machine):
    """As two `study run` of one folder do: what one of them measures, the other leaves or knows."""
    slow = attrs.evolve(machine, takes_s=0.01)
    sizes = list(range(1, 13))
    planned = work(slow, batch_sizes=sizes, devices=["agx fake", "nx fake"])
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        every = threads.submit(planned.run, tmp_path / "s")
        own = threads.submit(planned.run, tmp_path / "s", only_device="agx fake")
    assert sorted(begun(machine)) == sizes
    reasons = Counter(one.reason for one in every.result() if one.cell.device == "nx fake")
    assert reasons == {f"this machine has {BOARD.name}": 12}
    assert {one.cell.device for one in own.result()} == {"agx fake"}
    for before, after in itertools.pairwise(machine.log()):
        assert (before.kind, after.kind) != ("begin", "begin"), "two at the same time"
    assert len(load_cells(tmp_path / "s")) == 12


def _hold(folder: Path, ready, end) -> None:
    with free_device(folder, [BOARD]):
        ready.set()
        end.wait(30)


def test_the_lock_of_a_device_ends_with_its_process(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, end, got = context.Event(), context.Event(), threading.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, end))
    holder.start()
    assert ready.wait(30)

    def wait_for_device() -> None:
        with free_device(tmp_path, [BOARD]):
            got.set()

    waiting = threading.Thread(target=wait_for_device)
    waiting.start()
    assert not got.wait(0.2)
    holder.kill()
    holder.join()
    assert got.wait(10)
    waiting.join()


def test_a_free_device_is_taken_where_another_one_is_busy(tmp_path):
    second = Device("fake:1", "Fake", "board-2")
    with (
        free_device(tmp_path, [BOARD, second]) as one,
        free_device(tmp_path, [BOARD, second]) as two,
    ):
        assert (one, two) == (BOARD, second)


def test_the_same_board_has_one_lock_on_every_host_and_a_cpu_one_for_each(tmp_path, monkeypatch):
    cpu = Device("cpu", "CPU")
    with free_device(tmp_path, [cpu]), free_device(tmp_path, [BOARD]):
        monkeypatch.setattr("socket.gethostname", lambda: "another")
        with free_device(tmp_path, [BOARD, cpu]) as found:
            assert found == cpu


def test_one_cell_at_a_time_is_measured_on_a_device(tmp_path, machine):
    slow = attrs.evolve(machine, takes_s=0.01)
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        work(slow, batch_sizes=list(range(1, 13))).run(tmp_path / "s", executor)
    kinds = [line.kind for line in machine.log()]
    assert kinds == ["begin", "end"] * 12


def test_runs_side_by_side_in_one_folder_share_the_cells(tmp_path, machine):
    boards = (BOARD, attrs.evolve(BOARD, address="fake:1", id="board-2"))
    planned = work(attrs.evolve(machine, boards=boards), batch_sizes=list(range(1, 101)))
    with concurrent.futures.ThreadPoolExecutor(4) as runs:
        started = [runs.submit(planned.run, tmp_path / "s") for _ in range(4)]
    states = Counter(one.state for run in started for one in run.result())
    assert states["measured"] == 100
    assert sorted(begun(machine)) == list(range(1, 101))
    assert len(load_cells(tmp_path / "s")) == 100


# Workers


def test_two_hundred_cells_survive_two_killed_workers(tmp_path, machine):
    deadly = attrs.evolve(machine, deadly=(60, 140))
    planned = work(deadly, batch_sizes=list(range(1, 201)))
    with LocalProcesses(4) as executor:
        outcomes = planned.run(tmp_path / "s", executor)
    assert Counter(one.state for one in outcomes) == {"measured": 200}
    log = machine.log()
    ends = Counter(line.batch_size for line in log if line.kind == "end")
    begins = Counter(line.batch_size for line in log if line.kind == "begin")
    assert ends == dict.fromkeys(range(1, 201), 1)
    assert begins == {**ends, 60: 2, 140: 2}
    for line, following in itertools.pairwise(log):  # none within another
        if line.kind == "begin" and following.pid != line.pid:
            assert line.batch_size in (60, 140)
    assert set(Store(tmp_path / "s").names().values()) == {False}
    assert len(Store(tmp_path / "s").names()) == 200
    assert planned.run(tmp_path / "s") == ()
    assert [path.name for path in (tmp_path / "s/.locks").iterdir()] == ["device-board-1.lock"]


def test_a_cell_that_kills_its_workers_fails_and_the_others_go_on(tmp_path, machine):
    deadly = attrs.evolve(machine, deadly_always=(2,))
    with LocalProcesses(1) as executor:
        outcomes = work(deadly, batch_sizes=[1, 2, 3]).run(tmp_path / "s", executor)
    assert Counter(one.state for one in outcomes) == {"measured": 2, "failed": 1}
    (failed,) = [one for one in load_cells(tmp_path / "s") if one.failure]
    assert failed.cell.batch_size == 2
    assert failed.failure.startswith("its worker process died")


class BrokenPool(concurrent.futures.ThreadPoolExecutor):
    """A pool that breaks with its third job, as one of processes does when one of them dies."""

    jobs = 0

    def submit(self, fn, /, *args, **kwargs):
        self.jobs += 1
        if self.jobs == 3:
            raise concurrent.futures.BrokenExecutor("a process died")
        return super().submit(fn, *args, **kwargs)


def test_a_broken_executor_ends_the_run_and_keeps_what_is_finished(tmp_path, machine):
    planned = work(machine, batch_sizes=[1, 2, 3], devices=[BOARD.name])
    with BrokenPool(1) as executor, pytest.raises(WorkerError, match="run the study again"):
        planned.run(tmp_path / "s", executor)
    outcomes = planned.run(tmp_path / "s")
    assert {one.cell.batch_size for one in outcomes} >= {3}
    assert len(load_cells(tmp_path / "s")) == 3


class WorkersThatFail(concurrent.futures.ThreadPoolExecutor):
    """A pool with an error of its own for a worker that dies, as those of Ray and Dask have."""

    def __init__(self, *batch_sizes: int) -> None:
        super().__init__(1)
        self.batch_sizes = list(batch_sizes)

    def submit(self, fn, /, job, *args):
        size = getattr(getattr(job, "cell", None), "batch_size", None)
        if size not in self.batch_sizes:
            return super().submit(fn, job, *args)
        self.batch_sizes.remove(size)
        future = concurrent.futures.Future()
        future.set_exception(OSError("worker lost"))
        return future


def test_a_cell_whose_worker_fails_by_an_error_of_the_executor_is_tried_again(tmp_path, machine):
    with WorkersThatFail(1, 2, 2) as executor:
        outcomes = work(machine, batch_sizes=[1, 2, 3]).run(tmp_path / "s", executor)
    states = {one.cell.batch_size: (one.state, one.reason) for one in outcomes}
    lost = ("failed", "its worker failed (OSError: worker lost)")
    assert states == {1: ("measured", ""), 2: lost, 3: ("measured", "")}
    assert [one.failure for one in load_cells(tmp_path / "s")] == ["", lost[1], ""]


def test_an_executor_that_cancels_its_jobs_has_ended(tmp_path, machine):
    class Cancelled(concurrent.futures.ThreadPoolExecutor):
        def submit(self, fn, /, *args):
            future = concurrent.futures.Future()
            future.cancel()
            return future

    planned = work(machine, batch_sizes=[1], devices=[BOARD.name])
    with Cancelled(1) as executor, pytest.raises(WorkerError, match="run the study again"):
        planned.run(tmp_path / "s", executor)
    assert load_cells(tmp_path / "s") == ()


class FakeJob:
    """A job of submitit, by its documented interface."""

    job_id = "17"

    def __init__(self, call) -> None:
        self._call, self._checks, self.cancelled = call, 0, False

    def done(self) -> bool:
        self._checks += 1
        return self._checks > 1

    def result(self):
        return self._call()

    def cancel(self, check: bool = True) -> None:
        self.cancelled = True


class FakeSubmitit:
    def __init__(self) -> None:
        self.jobs: list[FakeJob] = []

    def submit(self, fn, *args, **kwargs) -> FakeJob:
        self.jobs.append(FakeJob(lambda: fn(*args, **kwargs)))
        return self.jobs[-1]


def test_jobs_of_submitit_measure_a_study(tmp_path, machine):
    with SubmititExecutor(FakeSubmitit(), poll_s=0.001) as executor:
        outcomes = work(machine, batch_sizes=[1, 2]).run(tmp_path / "s", executor)
    assert [one.state for one in outcomes] == ["measured", "measured"]


def test_a_job_of_submitit_that_fails_twice_is_a_failed_cell(tmp_path, machine):
    class Failing(FakeSubmitit):
        def submit(self, fn, *args, **kwargs):
            self.jobs.append(FakeJob(lambda: 1 / 0))
            return self.jobs[-1]

    submitit = Failing()
    with SubmititExecutor(submitit, poll_s=0.001) as executor:
        planned = work(machine, batch_sizes=[1], devices=[BOARD.name])
        (outcome,) = planned.run(tmp_path / "s", executor)
    assert outcome.state == "failed"
    assert "the job 17 failed (ZeroDivisionError" in outcome.reason
    assert len(submitit.jobs) == 2


def test_jobs_of_submitit_are_cancelled(tmp_path):
    class Endless(FakeJob):
        def done(self) -> bool:
            return False

    submitit = FakeSubmitit()
    submitit.submit = lambda fn: submitit.jobs.append(Endless(fn)) or submitit.jobs[-1]
    executor = SubmititExecutor(submitit, poll_s=0.001)
    future = executor.submit(int)
    executor.shutdown(cancel_futures=True)
    assert future.cancelled()
    assert submitit.jobs[0].cancelled


# Status


def test_the_status_estimates_the_time_left_from_finished_cells(tmp_path):
    definition = define(models=["net"], batch_sizes=[1, 2, 3, 4, 5], devices=["a", "b"])
    store = Store(tmp_path)
    store.define(definition)
    cells = cells_of(definition, "a")
    for cell, wall_s in zip(cells[:2], (10.0, 30.0), strict=True):
        run = StudyRun(cell, wall_s)
        store.save(name_of(cell, definition), comparison_data(study=run))
    store.save_failure(name_of(cells[2], definition), StudyRun(cells[2], 1.0), "too large")
    assert status_of(store, definition) == (
        DeviceStatus("a", 2, 1, 2, 40.0),
        DeviceStatus("b", 0, 0, 5, None),
    )


def test_progress_counts_cells_and_estimates_the_rest(tmp_path, machine):
    steps = []
    work(machine, batch_sizes=[1, 2]).run(tmp_path / "s", on_cell=steps.append)
    assert [(one.finished, one.total) for one in steps] == [(1, 2), (2, 2)]
    assert steps[0].remaining_s > 0 == steps[1].remaining_s


def test_cells_that_are_left_do_not_shorten_the_estimate(tmp_path, machine):
    steps = []
    slow = attrs.evolve(machine, takes_s=0.05)
    planned = work(slow, batch_sizes=[1, 2], devices=["other", "agx fake"])
    planned.run(tmp_path / "s", on_cell=steps.append)
    assert [one.outcome.state for one in steps] == ["left", "left", "measured", "measured"]
    assert [one.remaining_s >= 0.05 for one in steps] == [False, False, True, False]
    assert steps[0].remaining_s == 0


# Command line


@pytest.fixture
def finished(tmp_path, machine, monkeypatch) -> Path:
    """A folder beside its TOML file: one cell measured, one failed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.toml").write_text('models = ["net"]\nbatch_sizes = [1, 2]\n')
    definition = read_toml(tmp_path / "sweep.toml").definition
    Work.of(definition, attrs.evolve(machine, too_large=2)).run(tmp_path / "sweep")
    return tmp_path / "sweep"


@pytest.mark.parametrize("name", ["sweep", "sweep.toml"])
def test_show_prints_rows_and_failures(finished, name):
    done = CliRunner().invoke(main, ["study", "show", name])
    assert done.exit_code == 0, done.output
    assert "2 cells: 1 measured, 1 failed, 0 left" in done.stdout
    assert "net, batch 1\n  eager  " in done.stdout
    assert "net, batch 2: batch 2 does not fit; use a smaller one" in done.stdout


def test_status_prints_a_line_for_each_device(finished):
    done = CliRunner().invoke(main, ["study", "status", "sweep"])
    assert done.exit_code == 0, done.output
    line = next(line for line in done.stdout.splitlines() if BOARD.name in line)
    assert line.split()[-4:] == ["1", "1", "0", "0:00"]
    as_json = CliRunner().invoke(main, ["study", "status", "sweep", "--json"])
    assert json.loads(as_json.stdout)["devices"][0]["failed"] == 1


def test_a_run_without_anything_left_says_where_the_results_are(tmp_path, monkeypatch):
    """`study run` on this machine, with a model that does not exist: each cell says so."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text('models = ["no_such_module:f"]\ndevice = "cpu"\n')
    done = CliRunner().invoke(main, ["study", "run", "s.toml"])
    assert done.exit_code == 3, done.output
    assert "[1/1] no_such_module:f on " in done.stderr
    assert "the module 'no_such_module' cannot be imported" in done.stderr
    again = CliRunner().invoke(main, ["study", "run", "s.toml"])
    assert again.exit_code == 0
    assert "1 cell: 0 measured, 1 failed, 0 left" in again.stdout
    assert "1 cell has failed; --retry-failed measures failed cells again" in again.stderr
    assert "Next: precisionbench study show s" in again.stderr


@pytest.mark.parametrize("command", ["status", "show"])
def test_a_study_is_read_without_torch(finished, command):
    code = (
        "import sys; from precisionbench.cli import main; "
        f"main(['study', '{command}', 'sweep'], standalone_mode=False); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_hostile_names_are_shown_harmless(tmp_path):
    definition = define(models={HOSTILE: "net"}, devices=[HOSTILE], batch_sizes=[1, 2])
    store = Store(tmp_path)
    store.define(definition)
    one, two = cells_of(definition, HOSTILE)
    store.save(name_of(one, definition), comparison_data(study=StudyRun(one, 1.0)))
    store.save_failure(name_of(two, definition), StudyRun(two, 1.0), HOSTILE)
    for command in ("status", "show"):
        done = CliRunner().invoke(main, ["study", command, str(tmp_path)])
        assert done.exit_code == 0, done.output
        assert_visible(done.stdout)


@pytest.mark.skipif(not EXAMPLE.exists(), reason="the tests stand alone, without the repository")
def test_the_example_is_a_study():
    found = read_toml(EXAMPLE)
    assert len(cells_of(found.definition, "GPU")) == 6
    assert found.submitit["slurm_partition"] == "gpu"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["study", "run", "none.toml"], "cannot be read"),
        (["study", "show", "none"], "there is no folder"),
        (["study", "run", "a.toml", "--workers", "2", "--submitit"], "exclude each other"),
    ],
)
def test_mistakes_on_the_command_line_are_bad_usage(tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert expected in done.stderr


# Measuring


TWO_MODELS = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layer = nn.Linear(8, width)
    def forward(self, x):
        return self.layer(x)

class Large(Small):
    def __init__(self):
        super().__init__(64)
"""


@pytest.fixture
def two_models(tmp_path, monkeypatch) -> dict:
    """Arguments of a study that measures for a moment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(TWO_MODELS)
    return {
        "models": {"small": "nets.py:Small", "large": "nets.py:Large"},
        "batch_sizes": [1, 2, 4],
        "shapes": [(8,)],
        "backends": ["eager", "half:dtype=bfloat16"],
        "device": "cpu",
        "launcher": "inline",
        "effort": "quick",
        "budget_s": 0.2,
    }


def check_measured(study: Study) -> None:
    cells = study.cells()
    assert [one.failure for one in cells] == [""] * 6
    assert {one.data.workload.batch_size for one in cells} == {1, 2, 4}
    assert all(len(one.data.results) == 2 for one in cells)
    assert study.status()[0].measured == 6
    assert "large, shape 8, by batch size" in str(study)


def test_two_models_are_measured_in_a_local_process(two_models):
    with LocalProcesses(1) as executor:
        check_measured(pb.study(**two_models, executor=executor))
    assert pb.study(**two_models).outcomes == ()


@pytest.mark.slow  # starts interpreters
@pytest.mark.submitit
def test_two_models_are_measured_by_submitit(two_models, tmp_path):
    from precisionbench.studies.submitit_executor import submitit_executor

    with submitit_executor(tmp_path, {"cluster": "local", "timeout_min": 5}) as executor:
        check_measured(pb.study(**two_models, executor=executor))


def test_a_study_of_objects_is_measured_in_this_process(tmp_path):
    study = pb.study(
        {"mine": nn.Linear(8, 4)},
        shapes=[(8,)],
        batch_sizes=2,
        backends={"fast": "half:dtype=bfloat16"},
        device="cpu",
        launcher="inline",
        effort="quick",
        budget_s=0.1,
        folder=tmp_path / "s",
    )
    ((cell,), result) = study.cells(), study.cells()[0]
    assert isinstance(cell, CellResult)
    assert result.cell.backends == ("fast=half:dtype=bfloat16",)
    assert result.data.results[-1].label == "fast"


def test_a_cell_with_a_number_of_threads_computes_with_them(tmp_path):
    before = torch.get_num_threads()
    study = pb.study(
        {"mine": nn.Linear(8, 4)},
        shapes=[(8,)],
        threads=[1, 3],
        backends=["eager"],
        device="cpu",
        launcher="inline",
        effort="quick",
        budget_s=0.1,
        folder=tmp_path / "s",
    )
    measured = [(one.cell.threads, one.data) for one in study.cells()]
    assert [threads for threads, _ in measured] == [1, 3]
    for threads, data in measured:
        assert data.environment.threads == data.options["threads"] == threads
        assert {row.flags["num_threads"] for row in data.results} == {threads}
    ((_, points),) = pb.load_study(study).summary.groups[0].scaling[0].rows
    assert [point.threads for point in points] == [1, 3]
    assert torch.get_num_threads() == before


def test_a_number_of_threads_that_cannot_be_is_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(SpecError, match="threads is 5000; give a whole number from 1 to 1024"):
        pb.study("a:b", threads=[1, 5000], folder=tmp_path / "s")
    assert not (tmp_path / "s").exists()
