"""Backends in worker processes of their own, one for each replica.

Nothing that one of them does to torch can reach another, and one that crashes or hangs takes
nobody with it. Workers import side by side; preparing is left to the Runner, one at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from precisionbench import errors
from precisionbench.errors import (
    FOREIGN_ERRORS,
    PrecisionBenchError,
    WorkerError,
    WorkloadError,
    one_line,
)
from precisionbench.measure.worker.protocol import Closing, Opening
from precisionbench.results import json_format
from precisionbench.results.evidence import Evidence
from precisionbench.results.records import Passes
from precisionbench.torchtools.global_state import read_flags

# How long a worker may be silent. Building an engine can take an hour; a block cannot.
START_LIMIT_S = 300.0
PREPARE_LIMIT_S = 3600.0
BLOCK_LIMIT_S = 60.0
CLOSE_LIMIT_S = 10.0
EVIDENCE_LIMIT_S = 60.0
_BLOCK_FACTOR = 20.0  # times as long as a block should take
_LOG_TAIL_LINES = 20
_LISTENER_LIMIT_S = 5.0
_POLL_S = 0.01

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from precisionbench.measure.worker.server import main; main()"
)


def _import_path() -> list[str]:
    """Where this process imports from; Python itself passes over entries that are no text."""
    entries: list[Any] = [*sys.path]
    return [entry for entry in entries if isinstance(entry, str)]


class WorkerPool:
    """The workers of one run and the folder that they share; none of them outlives it.

    Use it as a context manager.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="precisionbench-"))
        self._workers: list[Worker] = []

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for worker in self._workers:
                worker.kill()
        except BaseException:  # an impatient Ctrl-C must leave nobody behind
            for worker in self._workers:
                worker.kill()
            raise
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, workload: Path, backend: Path) -> Worker:
        """Start one worker; it imports and loads while others do, too.

        Args:
            workload: the file that holds the workload.
            backend: the file that holds the backend.
        """
        worker = Worker(self.folder / f"worker-{len(self._workers)}.log")
        self._workers.append(worker)
        worker.begin(
            "load", START_LIMIT_S, workload=str(workload), backend=str(backend), flags=read_flags()
        )
        return worker

    def wait_until_loaded(self) -> None:
        """Wait for all workers: whoever still imports would disturb those that prepare."""
        for worker in self._workers:
            worker.settle()

    def write(self, name: str, value: object) -> Path:
        """Write something for workers to load; tensors in it are mapped there, not copied.

        Args:
            name: of the file.
            value: what to write.

        Raises:
            WorkloadError: it cannot be pickled.
        """
        import cloudpickle

        path = self.folder / name
        try:
            torch.save(value, path, pickle_module=cloudpickle, pickle_protocol=5)
        except OSError as exc:
            raise WorkloadError(
                f"the model could not be written for the workers ({one_line(exc)})",
                f"free space in {self.folder.parent}, or set TMPDIR to another folder",
            ) from exc
        except FOREIGN_ERRORS as exc:
            raise WorkloadError(
                f"the model or its inputs cannot be sent to a worker process ({one_line(exc)})",
                "pass a function that builds the model, or launcher='inline'",
            ) from exc
        return path


class Worker:
    """A worker process, seen from its parent.

    Args:
        log: file that takes what it prints.

    Attributes:
        on_step: told of what it does meanwhile, while an answer is awaited.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(_import_path())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                encoding="utf-8",
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # a Ctrl-C in the terminal is ours to handle
            )
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._awaited = deque([("start", START_LIMIT_S)])
        self.on_step: Callable[[str], object] = lambda _: None
        self._error: PrecisionBenchError | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _listen(self) -> None:
        assert self._process.stdout
        with contextlib.suppress(ValueError, OSError):
            for line in self._process.stdout:
                self._answers.put(line)
        self._answers.put(None)

    def begin(self, what: str, limit_s: float, **arguments: Any) -> None:
        """Send a request whose answer is awaited later.

        Args:
            what: a method of the worker's server.
            limit_s: seconds to wait once the answer is awaited; then the worker is killed.
            **arguments: JSON values.
        """
        assert self._process.stdin
        with contextlib.suppress(OSError, ValueError):  # it is dead; that it has no answer says so
            self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
            self._process.stdin.flush()
        self._awaited.append((what, limit_s))

    def begin_to_open(self) -> None:
        """Begin to prepare its backend, while others do; a `WorkerBackend` waits for it."""
        self.begin("open", PREPARE_LIMIT_S)

    @property
    def is_opening(self) -> bool:
        """Whether it has begun to prepare its backend, and nobody has asked for the answer."""
        return any(what == "open" for what, _ in self._awaited)

    def wait_until_imported(self) -> None:
        """Wait until it has imported torch and can take requests."""
        if self._awaited and self._awaited[0][0] == "start" and self._error is None:
            self._settle_one()

    def settle(self) -> None:
        """Wait for all answers still awaited; the first error among them is raised when asked."""
        while self._awaited and self._error is None:
            self._settle_one()

    def _settle_one(self) -> None:
        try:
            self._receive(*self._awaited.popleft())
        except PrecisionBenchError as exc:
            self._error = exc

    def ask(self, what: str, limit_s: float, **arguments: Any) -> Any:
        """Send a request and wait for its answer.

        Args:
            what: a method of the worker's server.
            limit_s: seconds to wait; then the worker is killed.
            **arguments: JSON values.

        Raises:
            WorkerError: it died, or did not answer in time.
            PrecisionBenchError: what the worker raised.
        """
        self.settle()
        self.begin(what, limit_s, **arguments)
        return self.answer()

    def answer(self) -> Any:
        """The answer to what was begun last.

        Raises:
            WorkerError: it died, or did not answer in time.
            PrecisionBenchError: what the worker raised.
        """
        while len(self._awaited) > 1 and self._error is None:
            self._receive(*self._awaited.popleft())
        if self._error is not None:
            raise self._error
        return self._receive(*self._awaited.popleft())

    def _receive(self, what: str, limit_s: float) -> Any:
        end_s = time.monotonic() + limit_s
        while "step" in (message := self._message(what, limit_s, end_s)):
            self.on_step(message["step"])
        if "error" in message:
            raise _rebuilt(**message["error"])
        return message.get("value")

    def _message(self, what: str, limit_s: float, end_s: float) -> dict[str, Any]:
        """The next line that it writes."""
        try:
            line = self._answers.get(timeout=max(0.0, end_s - time.monotonic()))
        except queue.Empty:
            self.kill()
            self._error = WorkerError(  # whoever asks next is told the same
                f"its worker process did not answer within {limit_s:.0f} s ({what}) and was ended",
                "the backend or the model hangs; run it with launcher='inline' to see where",
            )
            raise self._error from None
        if line is None:
            raise self._death(what)
        return json.loads(line)  # type: ignore[no-any-return]

    def _death(self, what: str) -> WorkerError:
        self._answers.put(None)  # whoever asks next is told the same
        self._wait_until_ended(_LISTENER_LIMIT_S)
        self.kill()
        code = self._process.returncode
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        told = self.tail()
        said = f"; it last said: {told[-1]}" if told else ""
        return WorkerError(f"its worker process {how} ({what}){said}", _DEATHS.get(-code, _CRASHED))

    def run_on(self, cores: Sequence[int]) -> None:
        """Let all its threads run on these cores only (Linux).

        Args:
            cores: their numbers.
        """
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # a thread that has just ended
                os.sched_setaffinity(int(task.name), cores)

    def tail(self) -> list[str]:
        """The last lines that it printed."""
        try:
            text = self.log.read_bytes().decode("utf-8", "replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-_LOG_TAIL_LINES:]

    def wait(self) -> None:
        """Let it end by itself, after it was closed; `kill` ends it where it does not."""
        self._wait_until_ended(_LISTENER_LIMIT_S)

    def _wait_until_ended(self, limit_s: float) -> None:
        """Wait for its end without taking note of it: its group keeps its number until then."""
        if not hasattr(os, "waitid"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(limit_s)
            return
        end_s = time.monotonic() + limit_s
        while self._process.returncode is None and time.monotonic() < end_s:
            with contextlib.suppress(ChildProcessError):
                if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    return
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """End it now, and what it has started with it, also where it has ended by itself."""
        if self._process.returncode is None:
            with contextlib.suppress(OSError):
                if hasattr(os, "killpg"):
                    os.killpg(self.pid, 9)
                else:
                    self._process.kill()
        self._process.wait()
        self._listener.join(_LISTENER_LIMIT_S)  # a child of its own may hold the pipe open
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not self._listener.is_alive():
                with contextlib.suppress(OSError):
                    pipe.close()


_CRASHED = "the backend or a library of its crashed; run it with launcher='inline' to see where"
_DEATHS = {
    9: "the system may have run out of memory: use a smaller batch or fewer replicas",
    11: "a library of the backend crashed; try another version of it",
}


class RemoteError(Exception):
    """An error that was raised in a worker process; its text is the traceback there."""


def _rebuilt(kind: str, reason: str, remedy: str, cause: str) -> PrecisionBenchError:
    """The error that a worker described."""
    found = getattr(errors, kind, PrecisionBenchError)
    error: PrecisionBenchError = found(reason, remedy)
    error.__cause__ = RemoteError(cause) if cause else None
    return error


def _look_limit_s(call_s: float) -> float:
    """How long a look into calls of this length may take: it makes about ten."""
    return EVIDENCE_LIMIT_S + 10 * _BLOCK_FACTOR * call_s


def _opening(told: Mapping[str, Any]) -> Opening:
    return Opening(**{**told, "labels": tuple(told["labels"])})


class WorkerBackend:
    """A backend that is prepared in a worker.

    Args:
        worker: where it lives.
        on_step: told of what it does while it prepares.

    Raises:
        PrecisionBenchError: as `session.opened`.
    """

    def __init__(self, worker: Worker, on_step: Callable[[str], object] = lambda _: None) -> None:
        self.worker = worker
        worker.on_step = on_step
        told = worker.answer() if worker.is_opening else worker.ask("open", PREPARE_LIMIT_S)
        self.opening = _opening(told)
        self._closing = Closing()

    def look_alone(self) -> None:
        """Look again at what others disturbed that were prepared meanwhile.

        Raises:
            PrecisionBenchError: a call failed.
        """
        self.opening = _opening(self.worker.ask("look_alone", PREPARE_LIMIT_S))

    @property
    def output(self) -> Mapping[str, torch.Tensor]:
        """The tensors of the first call's output by their paths, on the CPU."""
        path = self.worker.log.with_suffix(".output")
        self.worker.ask("output", BLOCK_LIMIT_S, path=str(path))
        try:
            return torch.load(path, weights_only=False)  # type: ignore[no-any-return]
        finally:
            path.unlink(missing_ok=True)

    def block(self, samples: int, calls_per_sample: int, settle_calls: int) -> tuple[float, ...]:
        """Time one block; see `Timer.block`."""
        calls = samples * calls_per_sample + settle_calls
        limit_s = BLOCK_LIMIT_S + _BLOCK_FACTOR * calls * self.opening.call_s
        return tuple(
            self.worker.ask(
                "block",
                limit_s,
                samples=samples,
                calls_per_sample=calls_per_sample,
                settle_calls=settle_calls,
            )
        )

    def check_steady(self) -> None:
        """Note it where the output has changed since the first call."""
        self.worker.ask("check_steady", BLOCK_LIMIT_S + _BLOCK_FACTOR * self.opening.call_s)

    def passes(self, call_s: float, capture: bool) -> Passes:
        """Everything about a call that is not its latency."""
        limit_s = BLOCK_LIMIT_S + 100 * _BLOCK_FACTOR * call_s
        told = self.worker.ask("passes", limit_s, call_s=call_s, capture=capture)
        found: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
        return Passes(**found)

    def get_ready_to_profile(self) -> None:
        """Begin to start the profiler, which takes seconds; what is asked next waits for it."""
        self.worker.begin("get_ready_to_profile", EVIDENCE_LIMIT_S)

    def truth(self, path: str) -> None:
        """Write what the model's layers give in float64 to a file."""
        self.worker.ask("truth", _look_limit_s(self.opening.call_s), path=path)

    def evidence(self, call_s: float, truth_path: str | None) -> Evidence:
        """What runs in a call, and how far each layer's output is from float64's."""
        limit_s = _look_limit_s(call_s)
        told = self.worker.ask("evidence", limit_s, call_s=call_s, truth_path=truth_path)
        return json_format.structured(told, Evidence)

    def leave(self) -> None:
        """Begin to undo the backend; `close` waits for it."""
        self.worker.begin("close", CLOSE_LIMIT_S)

    def close(self) -> None:
        """Wait until the backend is undone, after `leave`.

        Raises:
            PrecisionBenchError: what its cleanup raised.
        """
        told = self.worker.answer()
        self.worker.wait()
        printed = self.worker.tail()
        self._closing = Closing(tuple(told["warnings"]), (*told["log"], *printed))

    def closing(self) -> Closing:
        """What is known once it has been closed."""
        return self._closing
