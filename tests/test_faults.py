"""Failures of real worker processes, and what a comparison then keeps (docs/faults.md)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import torch
from torch import nn

import precisionbench as pb
from made_up_results import comparison_data
from precisionbench.backends import Backend
from precisionbench.errors import (
    OutOfMemoryError,
    OutputError,
    PrecisionBenchError,
    WorkerError,
    WorkloadError,
)
from precisionbench.measure.worker import guards, protocol
from precisionbench.measure.worker.pool import WorkerPool
from precisionbench.measure.worker.shared_server import SHARED_SERVER
from precisionbench.model.workload import resolve
from precisionbench.results import journal as journals
from precisionbench.results import json_format

OPTIONS: dict[str, Any] = {"device": "cpu", "replicas": 1, "seed": 0, "effort": "quick"}


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        time.sleep(0.002)
        return self.linear(x)


def children() -> set[int]:
    """This process's children and the workers, without the server that forks them and is kept."""
    with SHARED_SERVER.in_use() as server:
        kept = server.pid if server else 0
    return (children_of("self") | children_of(str(kept))) - {kept}


def left_behind(before: set[int]) -> set[int]:
    """Children that are new since then, once the server has reaped those that have ended."""
    end_s = time.monotonic() + 5.0
    while (new := children() - before) and time.monotonic() < end_s:
        time.sleep(0.02)
    return new


def children_of(pid: str) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


def blocks_of(name: str, journal: str) -> int:
    with contextlib.suppress(OSError):
        return Path(journal).read_text().count(f'"of": "{name}')
    return 0


def raise_unpicklable() -> None:
    class LocalError(Exception):
        def __init__(self) -> None:
            super().__init__("cannot travel")
            self.lock = threading.Lock()

    raise LocalError


def be_untidy() -> None:
    """Print from native code, leave a thread running, and patch torch."""
    os.write(1, b"noise on standard output\n")
    threading.Thread(target=time.sleep, args=(600,)).start()
    torch.nn.functional.relu = lambda x: x


FAULTS = {
    "exit": lambda: os._exit(3),
    "hang": lambda: time.sleep(600),
    "unpicklable": raise_unpicklable,
    "untidy": be_untidy,
    "SIGSEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


@attrs.frozen
class Faulty(Backend):
    """Fails when it is prepared, after two rounds, in the call after the rounds, or when undone."""

    name: ClassVar[str] = "faulty"
    fault: str = ""
    when: str = "prepare"
    folder: str = "."

    @contextlib.contextmanager
    def prepare(self, model, inputs):
        if self.when == "prepare":
            FAULTS[self.fault]()
        call = inputs.bind(model)

        def measured():
            if self.is_due():
                FAULTS[self.fault]()
            return call()

        yield measured
        if self.when == "close":
            FAULTS[self.fault]()

    def is_due(self) -> bool:
        if self.when == "round":
            spec = f"faulty:fault={self.fault},when=round"
            return blocks_of(spec, f"{self.folder}/run.journal") >= 2
        return self.when == "last call" and Path(self.folder, "finishing").exists()


@attrs.frozen
class Limits(protocol.TimeLimits):
    """With limits of their own for what hangs here."""

    last_call_s: float = 2.0
    float64_s: float = 2.0


def give_less_time(patch: pytest.MonkeyPatch, request: str, limit: str) -> None:
    patch.setattr(protocol, "LIMITS", Limits())
    request = protocol.REQUESTS[request]
    patch.setitem(protocol.REQUESTS, request.name, attrs.evolve(request, limit=limit))


BEFORE_ROUNDS = [("exit", "prepare"), ("unpicklable", "prepare")]
ROUNDS = 6
IN_ROUNDS = [("SIGSEGV", "round"), ("SIGKILL", "round")]
LATER = [("exit", "last call"), ("hang", "last call"), ("SIGKILL", "close")]
SENTENCES = {
    "exit": "ended with exit code 3",
    "hang": "did not answer within 2 s",
    "unpicklable": "LocalError: cannot travel",
    "SIGSEGV": "ended by signal 11",
    "SIGKILL": "ended by signal 9",
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory, coverage_of_workers):
    """A run with every fault; its result, its journal, processes left running, and its progress."""
    folder = tmp_path_factory.mktemp("faults")
    faults = [*BEFORE_ROUNDS, *IN_ROUNDS, *LATER, ("untidy", "prepare")]
    backends = ["eager", *(Faulty(*one, str(folder)) for one in faults)]
    before = children()
    reported: list[pb.Progress] = []

    def on_progress(progress: pb.Progress) -> None:
        reported.append(progress)
        if progress.stage == "finishing":  # the only call after that is the last one
            (folder / "finishing").touch()

    with pytest.MonkeyPatch.context() as patch:
        give_less_time(patch, "check_steady", "last_call_s")
        for name, value in coverage_of_workers.items():
            patch.setenv(name, value)
        journal = folder / "run.journal"
        found = pb.compare(
            Tiny(), torch.rand(2, 8), backends=backends, budget_s=20, journal=journal,
            on_progress=on_progress, **OPTIONS,
        )  # fmt: skip
    return found, journal, left_behind(before), reported


def row(comparison: pb.Comparison, fault: str, when: str = "prepare") -> Any:
    return next(r for r in comparison.results if is_it(r.options, fault, when))


def failure(comparison: pb.Comparison, fault: str, when: str = "prepare") -> Any:
    return next(f for f in comparison.failures if is_it(f.options, fault, when))


def is_it(options: Any, fault: str, when: str) -> bool:
    return (options.get("fault"), options.get("when", "prepare")) == (fault, when)


@pytest.mark.parametrize(("fault", "when"), BEFORE_ROUNDS)
def test_a_worker_that_fails_while_it_prepares_is_a_failed_row(faulty, fault, when):
    assert SENTENCES[fault] in failure(faulty[0], fault, when).reason


@pytest.mark.parametrize(("fault", "when"), IN_ROUNDS)
def test_a_worker_that_fails_in_a_round_keeps_those_before(faulty, fault, when):
    found = row(faulty[0], fault, when)
    assert found.measurement.ended_by == "failed"
    assert len(found.measurement.blocks) >= 2
    assert any(SENTENCES[fault] in text for text in found.warnings)


@pytest.mark.parametrize(("fault", "when"), LATER)
def test_a_worker_that_fails_after_its_rounds_keeps_all_of_them(faulty, fault, when):
    found = row(faulty[0], fault, when)
    assert len(found.measurement.rounds) == ROUNDS
    (warning,) = (text for text in found.warnings if "after the measurement" in text)
    assert SENTENCES[fault] in warning
    assert found.agreement is not None


def test_a_failure_is_reported_once_and_when_it_happens(faulty):
    reported = faulty[3]
    rounds = [i for i, progress in enumerate(reported) if progress.stage == "measuring"]
    for fault, when in (*BEFORE_ROUNDS, *IN_ROUNDS):
        spec = f"faulty:fault={fault}" + (f",when={when}" if when != "prepare" else ",folder")
        stages = [(i, p.stage) for i, p in enumerate(reported) if p.backend.startswith(spec)]
        ((place, _),) = [one for one in stages if one[1] == "failed"]
        assert (place > rounds[0]) is (when == "round")
        assert place < rounds[-1]
        assert ("done" in [stage for _, stage in stages]) is (when == "round")


def test_the_other_rows_are_complete(faulty):
    assert len(faulty[0]["eager"].measurement.rounds) == ROUNDS
    assert faulty[0]["eager"].measurement.ended_by not in ("failed", "budget")
    assert not faulty[0].data.notes[1:], "but that this is a quick look"


def test_what_a_worker_prints_is_in_the_log_and_not_in_the_protocol(faulty):
    assert any("noise on standard output" in line for line in row(faulty[0], "untidy").log)


def test_threads_that_a_plugin_leaves_are_not_waited_for(faulty):
    assert row(faulty[0], "untidy").measurement.ended_by != "failed"


def test_a_patch_of_torch_affects_no_other_row(faulty):
    assert torch.nn.functional.relu.__module__ == "torch.nn.functional"
    assert any("relu" in text for text in row(faulty[0], "untidy").warnings)


def test_no_process_is_left_running(faulty):
    assert faulty[2] == set()


def test_the_journal_holds_the_same_rows_and_failures_as_the_result(faulty):
    written = pb.load(faulty[1])
    for name in ("eager", *(r.backend for r in faulty[0].data.results)):
        assert len(written[name].measurement.blocks) == len(faulty[0][name].measurement.blocks)
    assert {f.backend for f in written.data.failures} == {
        f.backend for f in faulty[0].data.failures
    }


@attrs.frozen
class FitsAlone(Backend):
    """Fits only where no other worker of this run holds the file."""

    name: ClassVar[str] = "fits-alone"
    file: str = ""

    @contextlib.contextmanager
    def prepare(self, model, inputs):
        holder = Path(self.file)
        if holder.exists() and Path(f"/proc/{holder.read_text() or 0}").exists():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        holder.write_text(str(os.getpid()))
        yield inputs.bind(model)


@pytest.mark.slow  # measures rows several times
def test_rows_that_do_not_fit_together_are_restarted_in_every_round(tmp_path):
    backends = [FitsAlone(str(tmp_path / "memory")), FitsAloneToo(str(tmp_path / "memory"))]
    found = pb.compare(
        Tiny(), torch.rand(2, 8), backends=backends, reference=backends[0], budget_s=0.2, **OPTIONS
    )
    assert found.data.schedule == "restarts"
    assert any("do not fit in the device's memory" in note for note in found.data.notes)
    assert len(found.data.results) == 2


@attrs.frozen
class FitsAloneToo(FitsAlone):
    name: ClassVar[str] = "held"


@pytest.fixture
def interrupting():
    """A callback that presses Ctrl-C after some rounds, once or twice.

    Python's own handler is in force meanwhile: tests that run in the background of a shell ignore
    interrupts.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def make(times: int):
        def tell(progress: pb.Progress) -> None:
            if not progress.backend and progress.position == 2:
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)

        return tell

    yield make
    signal.signal(signal.SIGINT, before)


def test_the_first_ctrl_c_returns_the_finished_rounds(interrupting):
    before = children()
    found = pb.compare(
        Tiny(),
        torch.rand(2, 8),
        backends=["eager"],
        on_progress=interrupting(1),
        **OPTIONS,
    )
    assert found["eager"].measurement.ended_by == "interrupted"
    assert len(found["eager"].measurement.rounds) == 2
    assert left_behind(before) == set()


def test_the_second_ctrl_c_raises_and_leaves_no_process(interrupting):
    before = children()
    with pytest.raises(KeyboardInterrupt):
        pb.compare(
            Tiny(),
            torch.rand(2, 8),
            backends=["eager"],
            on_progress=interrupting(2),
            **OPTIONS,
        )
    assert left_behind(before) == set()


def test_a_model_that_cannot_be_pickled_is_an_error_with_a_remedy():
    lock = threading.Lock()
    with pytest.raises(WorkloadError, match=r"cannot be sent to a worker.*launcher 'inline'"):
        pb.compare(lambda: (lock, Tiny())[1], torch.rand(2, 8), backends=["eager"], **OPTIONS)


SCRIPT = """
import sys, torch, precisionbench as pb
class Mine(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)
    def forward(self, x):
        return self.linear(x)
found = pb.compare(Mine(), torch.rand(2, 8), backends=["eager"], device="cpu", replicas=1,
                   evidence=False, budget_s=600, journal=sys.argv[1])
"""


def test_workers_exit_with_a_killed_parent_and_its_rounds_are_on_disk(tmp_path):
    """The parent is a script without a main guard, which defines its model itself."""
    journal = tmp_path / "journal"
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, str(journal)])
    try:
        end_s = time.monotonic() + 120
        while blocks_of("eager", str(journal)) < 1 and time.monotonic() < end_s:
            time.sleep(0.05)
        workers = children_of(str(parent.pid))
    finally:
        parent.kill()
        parent.wait()
    assert workers
    end_s = time.monotonic() + 10
    while any(map(is_running, workers)) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not any(map(is_running, workers))
    assert pb.load(journal)["eager"].measurement.blocks


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_loses_only_the_journal(tmp_path, monkeypatch):
    class Full(journals.Journal):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._out.close()
            self._out = Path("/dev/full").open("w")  # noqa: SIM115

    monkeypatch.setattr("precisionbench.measure.compare.Journal", Full)
    found = pb.compare(
        Tiny(), torch.rand(2, 8), backends=["eager"], journal=tmp_path / "j", **OPTIONS
    )
    assert found["eager"].measurement.blocks
    assert any("could not be written any further" in note for note in found.data.notes)


def test_a_journal_never_replaces_a_file(tmp_path):
    existing = tmp_path / "journal"
    existing.write_text("mine")
    with pytest.raises(OutputError, match="choose another name"):
        pb.compare(Tiny(), torch.rand(2, 8), backends=["eager"], journal=existing, **OPTIONS)
    assert existing.read_text() == "mine"


def test_a_truncated_journal_is_read_up_to_the_truncation(faulty, tmp_path):
    lines = Path(faulty[1]).read_text().splitlines()
    cut = tmp_path / "cut.journal"
    cut.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])
    assert pb.load(cut)["eager"].measurement.blocks


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda lines: [lines[0]], "without a finished block"),
        (lambda lines: [lines[0], "{", *lines[1:]], "line 2"),
        (lambda lines: [lines[0], '{"block": {}, "of": "nobody"}', *lines[1:]], "damaged"),
    ],
)
def test_a_damaged_journal_is_refused(faulty, tmp_path, change, sentence):
    broken = tmp_path / "broken.journal"
    broken.write_text("\n".join(change(Path(faulty[1]).read_text().splitlines())))
    with pytest.raises(PrecisionBenchError, match=sentence):
        pb.load(broken)


def lines_of(*extra: dict[str, Any], rows: tuple[str, ...] = ("eager",)) -> str:
    """A journal of one row with two blocks, and more lines."""
    data = comparison_data(schedule="rounds")
    header = {
        "format": journals.FORMAT,
        "version": json_format.VERSION,
        "rows": [
            {"backend": r.backend, "name": r.name, "options": dict(r.options)}
            for r in data.results
            if r.backend in rows
        ],
        **{
            name: json_format.unstructured(getattr(data, name))
            for name in ("created", "precisionbench", "workload", "environment", "seed")
        },
        "launcher": "process",
        "reference": "eager",
        "schedule": "rounds",
    }
    eager = json_format.unstructured(data.results[0])
    blocks = eager["measurement"]["blocks"][:2]
    eager["measurement"]["blocks"] = []
    lines = [header, {"row": eager}, *({"block": b, "of": "eager"} for b in blocks), *extra]
    return "\n".join(json.dumps(line) for line in lines)


def test_a_journal_of_a_row_that_failed_after_its_first_block_is_read():
    failure = {
        "backend": "eager",
        "name": "eager",
        "options": {},
        "error": "WorkerError",
        "reason": "it died",
        "remedy": "",
    }
    found = journals.from_text(lines_of({"failure": failure}), "it")
    assert not found.failures
    assert found.results[0].measurement.ended_by == "failed"
    assert "it failed later: it died" in found.results[0].warnings


def test_a_journal_of_restarted_rows_holds_only_the_restarts():
    row = json.loads(lines_of().splitlines()[1])
    block = {"round": 0, "position": 0, "replica": 0, "samples": [0.5]}
    again = lines_of({"schedule": "restarts"}, row, {"block": block, "of": "eager"})
    found = journals.from_text(again, "it")
    assert found.schedule == "restarts"
    assert [b.samples for b in found.results[0].measurement.blocks] == [(0.5,)]
    assert str(pb.Comparison(found))


class Spawns(nn.Module):
    """Starts a program of its own and leaves it running."""

    def forward(self, x):
        if not Path(self.mark).exists():
            Path(self.mark).write_text(str(subprocess.Popen(["sleep", "97"]).pid))
        return x + 1


def test_processes_that_a_model_starts_are_killed_with_its_worker(tmp_path):
    model = Spawns()
    model.mark = str(tmp_path / "pid")
    pb.compare(model, torch.rand(2, 8), backends=["eager"], **OPTIONS)
    pid = int(Path(model.mark).read_text())
    end_s = time.monotonic() + 5  # a signal takes effect when the system comes to it
    while is_running(pid) and time.monotonic() < end_s:
        time.sleep(0.01)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_entry_of_the_import_path_that_is_not_text_is_ignored(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])
    found = pb.compare(Tiny(), torch.rand(2, 8), backends=["eager"], **OPTIONS)
    assert found["eager"].latency.value > 0


@pytest.mark.parametrize(
    "text", ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling"]
)
def test_cudas_own_messages_about_memory_are_out_of_memory_errors(text):
    with pytest.raises(OutOfMemoryError):
        guards.raise_if_out_of_memory(RuntimeError(text))


class FailsInFloat64(nn.Module):
    """Works while it is measured; computed in float64 it hangs, and in the next process ends."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark, self.linear = mark, nn.Linear(8, 8)

    def forward(self, x):
        if x.dtype == torch.float64:
            fault = "exit" if Path(self.mark).exists() else "hang"
            Path(self.mark).touch()
            FAULTS[fault]()
        return self.linear(x)


@pytest.mark.slow  # measures rows several times
@pytest.mark.workers_counted
def test_workers_that_fail_while_they_are_profiled_lose_only_that(monkeypatch, tmp_path):
    """One hangs, one ends; neither is a reason to leave out the profile of the last row."""
    # only what hangs gets little time: starting a profiler takes seconds where others compute, too
    give_less_time(monkeypatch, "write_float64_reference", "float64_s")
    before = children()
    found = pb.compare(
        FailsInFloat64(str(tmp_path / "mark")), torch.rand(4, 8),
        backends=["half:dtype=bfloat16"], **{**OPTIONS, "replicas": 2, "evidence": True},
    )  # fmt: skip
    eager, half = found
    assert [len(result.measurement.rounds) for result in found] == [ROUNDS, ROUNDS]
    assert any("did not answer within 2 s" in warning for warning in eager.warnings)
    assert eager.evidence is None
    assert half.evidence.operations
    assert "ended with exit code 3" in half.evidence.unknown["errors"]
    assert left_behind(before) == set()


def test_a_worker_that_hangs_while_it_prepares_is_ended_after_its_limit():
    workload = resolve(Tiny(), torch.rand(2, 8), device="cpu", seed=0)
    with SHARED_SERVER.in_use() as server, WorkerPool(server) as pool:
        files = pool.write("workload.pt", workload), pool.write("backend.pt", Faulty("hang"))
        worker = pool.start(*files)
        pool.wait_until_loaded()
        for _ in "12":  # whatever it is asked later fails for the same reason
            with pytest.raises(WorkerError, match=r"did not answer within 1 s \(open\)"):
                worker.ask("open", limit_s=1.0)
        assert not is_running(worker.pid)
