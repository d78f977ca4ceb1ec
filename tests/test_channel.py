"""The channel between a worker and its parent: its own, and whatever comes out of it is checked."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import torch
from torch import nn

from precisionbench.backends import Backend
from precisionbench.backends.eager import Eager
from precisionbench.errors import (
    BackendUnavailableError,
    OutputError,
    PrecisionBenchError,
    PreparationError,
    WorkerError,
)
from precisionbench.measure.worker import messages
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.measure.worker.first_call_limit import FirstCallLimit, SlowFirstCallError
from precisionbench.measure.worker.fork_client import ForkServer, can_fork
from precisionbench.measure.worker.messages import BrokenAnswerError, ErrorText, Message
from precisionbench.measure.worker.pool import WorkerPool
from precisionbench.measure.worker.process import Worker
from precisionbench.measure.worker.protocol import FIRST_CALL
from precisionbench.model.workload import resolve

# --- lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"junk\n",
        b"\xff\xfe\n",
        b"[1, 2]\n",
        b"{}\n",
        b'{"id": "1", "value": NaN}\n',
        b'{"id": "1", "error": "text"}\n',
        b'{"id": "1", "error": {"kind": 3}}\n',
        b'{"id": "1", "value": ' + b"9" * 5000 + b"}\n",
        b"[" * 100_000 + b"\n",
        b'{"id": "1", "val',
    ],
)
def test_a_line_that_is_no_message_is_refused_with_a_reason(line):
    with pytest.raises(BrokenAnswerError, match="is not an answer"):
        messages.decoded(line)


def test_a_line_that_is_too_long_is_refused_on_both_sides(monkeypatch):
    monkeypatch.setattr(messages, "MAX_LINE_BYTES", 1 << 20)
    with pytest.raises(WorkerError, match="its answer of 2 MiB exceeds the limit of 1 MiB"):
        messages.encoded(Message("1", value="x" * (1 << 21)))
    with pytest.raises(BrokenAnswerError, match="more than 1 MiB"):
        messages.decoded(b"x" * ((1 << 20) + 1))


@pytest.mark.parametrize("value", [float("nan"), object(), {"a": {1, 2}}])
def test_a_value_that_is_no_json_cannot_be_sent(value):
    with pytest.raises(WorkerError, match="its answer cannot be sent"):
        messages.encoded(Message("1", value=value))


def test_an_error_of_any_length_can_be_sent():
    error = PreparationError("r" * 10_000_000, "m" * 10_000_000)
    error.__cause__ = ValueError("c" * 10_000_000)
    line = messages.encoded(Message("1", error=ErrorText.of(error)))
    assert len(line) < 1_000_000
    assert isinstance(messages.decoded(line).error.rebuilt(), PreparationError)


def test_an_error_keeps_its_class_and_its_requirement():
    sent = ErrorText.of(BackendUnavailableError("an NVIDIA GPU", "buy one"))
    assert str(sent.rebuilt()) == str(BackendUnavailableError("an NVIDIA GPU", "buy one"))


@pytest.mark.parametrize("kind", ["FOREIGN_ERRORS", "one_line", "no such class", "Exception"])
def test_an_error_of_another_class_is_a_plain_one_of_ours(kind):
    assert type(ErrorText(kind, "why").rebuilt()) is PrecisionBenchError


# --- the parent, beside a process that answers anything -------------------------------------------


class Process:
    """A worker's process that answers each request with what a function makes of it."""

    pid = 1
    returncode: int | None = None

    def __init__(self, answer: Callable[[dict[str, Any]], bytes]) -> None:
        self.requests, self.killed = [], threading.Event()
        reader, self._answers = os.pipe()
        self.stdout = os.fdopen(reader, "rb")
        self.stdin = self
        self._answer = answer

    def write(self, line: bytes) -> None:
        request = json.loads(line)
        self.requests.append(request)
        started = request["do"] == "start"
        reply = answered(request, 4711) if started else self._answer(request)
        os.write(self._answers, reply)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def wait_until_exited(self, limit_s: float) -> bool:
        return self.killed.is_set()

    def begin_kill(self) -> None:
        pass

    def kill(self) -> None:
        if not self.killed.is_set():
            self.killed.set()
            os.close(self._answers)


def answered(request: dict[str, Any], value: object) -> bytes:
    return json.dumps({"id": request["id"], "value": value}).encode() + b"\n"


def worker_that(answer: Callable[[dict[str, Any]], bytes]) -> tuple[Worker, Process]:
    process = Process(answer)
    return Worker(Path("/nonexistent/log"), lambda _: process), process


def test_a_worker_is_busy_until_it_has_prepared_and_answered_everything_or_ended():
    worker, process = worker_that(lambda request: answered(request, {}))
    worker.ask("close")
    assert worker.is_busy  # it was not asked to prepare
    worker.ask("open")
    assert not worker.is_busy
    process._answer = lambda _: b""
    worker.begin("recalibrate")
    assert worker.is_busy
    worker.kill()
    assert not worker.is_busy


def test_a_worker_is_ready_once_its_last_answer_has_come_and_reports_steps_before():
    worker, process = worker_that(lambda request: answered(request, None))
    steps: list[str] = []
    worker.on_step = steps.append
    worker.begin("load")
    process._answer = lambda r: json.dumps({"id": r["id"], "step": "building"}).encode() + b"\n"
    worker.begin("open")
    assert not worker.is_ready(0.01)
    assert steps == ["building"]
    os.write(process._answers, answered(process.requests[-1], 5))
    assert worker.is_ready(60.0)
    assert worker.is_ready(0.0)  # again, and the answer is still there
    assert worker.answer() == 5
    worker.kill()


def test_a_worker_that_has_ended_is_ready_and_its_error_is_raised_by_the_answer():
    worker, process = worker_that(lambda _: b"")
    worker.begin("load")
    worker.begin("open")
    process.kill()
    assert worker.is_ready(60.0)
    with pytest.raises(WorkerError, match=r"ended with exit code 0 \(load\)"):
        worker.answer()


def test_a_first_call_beyond_its_limit_ends_a_worker_that_is_asked_now_and_then():
    class Short(FirstCallLimit):
        limit_s = 0.05

    def step(request: dict[str, Any]) -> bytes:
        return json.dumps({"id": request["id"], "step": FIRST_CALL}).encode() + b"\n"

    worker, process = worker_that(step)
    worker.first_call_limit = Short("eager", 0.0)
    worker.begin("open")
    end_s = time.monotonic() + 60
    while not worker.is_ready(0.01) and time.monotonic() < end_s:
        pass
    with pytest.raises(SlowFirstCallError, match=r"a call takes more than 50 ms"):
        worker.answer()
    assert process.killed.is_set()


def test_answers_are_those_to_the_requests():
    worker, process = worker_that(lambda request: answered(request, request["samples"]))
    assert [worker.ask("block", 60.0, samples=n) for n in (3, 5)] == [3, 5]
    assert worker.pid == 4711
    assert len({request["id"] for request in process.requests}) == 3
    worker.kill()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: b"Segmentation fault (just printed)\n", "'Segmentation fault"),
        (lambda _: b'{"value": 1}\n', "is not an answer"),
        (lambda _: b'{"id": "guessed", "value": 1}\n', "an answer to no request"),
        (lambda r: b"junk" + answered(r, 1), "'junk{"),
        (lambda r: b'{"id": "guessed", "step": "building"}\n' + answered(r, 1), "to no request"),
    ],
)
def test_a_broken_answer_ends_the_worker_and_is_an_error_of_its_row(answer, reason):
    worker, process = worker_that(answer)
    for _ in range(2):  # and of each later request
        with pytest.raises(WorkerError, match=reason) as caught:
            worker.ask("block", 60.0, samples=1)
    assert "invalid answer and was ended (block: " in caught.value.reason
    assert "writes to a file descriptor that it did not open" in caught.value.remedy
    assert process.killed.is_set()


def test_an_answer_of_the_wrong_form_is_an_error_of_its_row():
    opening = {"clock": "host", "resolution_s": "fast"}
    worker, _ = worker_that(lambda request: answered(request, opening))
    with pytest.raises(WorkerError, match=r"sent an invalid answer \(open: "):
        WorkerBackend(worker)
    worker.kill()


def test_a_worker_that_closes_the_channel_is_said_to_have_done_so():
    worker, process = worker_that(lambda _: b"")
    process.wait_until_exited = lambda _: False
    os.dup2(os.open(os.devnull, os.O_WRONLY), process._answers)
    with pytest.raises(WorkerError, match=r"closed its channel \(block\)"):
        worker.ask("block", 60.0, samples=1)


def test_a_worker_that_dies_while_it_writes_an_answer_is_said_to_have_died():
    worker, process = worker_that(lambda request: answered(request, 1)[:-9])
    worker.wait_until_imported()
    worker.begin("evidence")
    process.returncode = -9
    process.kill()
    with pytest.raises(WorkerError, match=r"was ended by signal 9 \(evidence\)"):
        worker.finish()


def test_once_the_user_has_stopped_the_run_no_answer_is_waited_for_long():
    worker, process = worker_that(lambda _: b"")
    worker.wait_until_imported()
    before = signal.signal(signal.SIGALRM, lambda *_: worker.stop())
    signal.setitimer(signal.ITIMER_REAL, 0.05)  # while this thread waits for the answer
    try:
        with pytest.raises(WorkerError, match=r"because the run was interrupted \(passes\)"):
            worker.ask("passes", 600.0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert process.killed.is_set()


def test_a_stopped_worker_that_is_not_busy_still_answers():
    worker, _ = worker_that(lambda request: answered(request, 1))
    worker.wait_until_imported()
    worker.stop()
    assert worker.ask("write_output", path="p") == 1
    worker.kill()


def test_a_process_that_the_system_does_not_start_is_an_error_with_a_remedy():
    with WorkerPool() as pool:
        pool.folder = pool.folder / "no such folder"
        with pytest.raises(WorkerError, match="no worker process can be started .*No such file"):
            pool.start_idle()


# --- outputs --------------------------------------------------------------------------------------


class Executes:
    def __reduce__(self) -> Any:
        return os.abort, ()


@pytest.mark.parametrize(
    "content", [b"", b"junk", pickle.dumps(Executes()), pickle.dumps([1]), pickle.dumps({"a": 1})]
)
def test_an_output_that_cannot_be_read_costs_the_row_its_agreement(tmp_path, content):
    def write(request: dict[str, Any]) -> bytes:
        if "path" in request:
            Path(request["path"]).write_bytes(content)
        return answered(request, OPENING)

    process = Process(write)
    prepared = WorkerBackend(Worker(tmp_path / "worker.log", lambda _: process))
    with pytest.raises(WorkerError, match="first output could not be read, so its error is"):
        _ = prepared.output
    assert not list(tmp_path.iterdir())
    prepared.worker.kill()


OPENING = {
    "clock": "host", "resolution_s": 1e-9, "min_sample_s": 2e-4, "build_s": 0.1, "call_s": 0.01,
    "first_call_s": 0.1, "warmup_calls": 3, "flags": {}, "details": {},
}  # fmt: skip


# --- real workers ---------------------------------------------------------------------------------


def write_everywhere() -> None:
    for entry in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            if int(entry.name) > 2:
                os.write(int(entry.name), b'{"id": "forged", "value": 1}\n')


def close_everything() -> None:
    os.closerange(3, 2048)


def print_by_number() -> None:
    os.write(1, b"printed to number 1\n")


def write_in_children() -> None:
    """Processes that a plugin starts have no channel, whether they are forked or new programs."""
    if not (child := os.fork()):
        write_everywhere()
        os._exit(0)
    os.waitpid(child, 0)
    listed = [sys.executable, "-c", "import os; print(max(map(int, os.listdir('/proc/self/fd'))))"]
    done = subprocess.run(listed, capture_output=True, close_fds=False, check=True, timeout=60)
    assert int(done.stdout) < 900


ACTS: dict[str, Callable[[], None]] = {
    "everywhere": write_everywhere,
    "close": close_everything,
    "print": print_by_number,
    "children": write_in_children,
}


@attrs.frozen
class Acts(Backend):
    name: ClassVar[str] = "acts"
    act: str = ""

    @contextlib.contextmanager
    def prepare(self, model, inputs):
        ACTS[self.act]()
        yield inputs.bind(model)


@pytest.fixture(scope="module")
def opened() -> Iterator[Callable[[Backend], WorkerBackend]]:
    """Opens a backend in a worker."""
    with ForkServer() as server, WorkerPool(server) as pool:
        made = resolve(nn.Linear(4, 4), torch.rand(2, 4), device="cpu", batch_size=None, seed=0)
        workload = pool.write("workload.pt", made)

        def opens(backend: Backend) -> WorkerBackend:
            return WorkerBackend(pool.start(workload, pool.write("backend.pt", backend)))

        yield opens


linux = pytest.mark.skipif(not can_fork(), reason="workers are forked on Linux only")


@linux
def test_what_a_backend_writes_to_the_channel_is_a_failure_of_its_row(opened):
    with pytest.raises(WorkerError, match=r"invalid answer and was ended \(open: an answer to no"):
        opened(Acts("everywhere"))


@linux
def test_a_backend_that_closes_the_channel_is_a_failure_of_its_row(opened, monkeypatch):
    monkeypatch.setattr("precisionbench.measure.worker.process._LISTENER_LIMIT_S", 0.2)
    with pytest.raises(WorkerError, match=r"its worker process .*\(open\)"):
        opened(Acts("close"))


@linux
@pytest.mark.parametrize("act", ["print", "children"])
def test_the_streams_and_the_children_of_a_worker_are_not_the_channel(opened, act):
    prepared = opened(Acts(act))
    assert len(prepared.block(2, 1, 0)) == 2
    prepared.begin_close()
    prepared.close()
    assert ("printed to number 1" in prepared.closing().log) is (act == "print")


@linux
def test_an_output_that_cannot_be_written_is_a_failure_of_that_request_only(opened, tmp_path):
    prepared = opened(Eager())
    for path in (tmp_path, tmp_path / "no such folder" / "output"):
        with pytest.raises(OutputError, match="temporary file .* could not be written"):
            prepared.worker.ask("write_output", path=str(path))
    assert prepared.output[""].shape == (2, 4)
    prepared.worker.kill()
