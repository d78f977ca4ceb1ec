"""A worker process, seen from its parent: how it is started, asked and killed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from precisionbench.errors import PrecisionBenchError, WorkerError, left_out
from precisionbench.measure.worker import messages
from precisionbench.measure.worker.first_call_limit import FirstCallLimit, WarmCallLimit
from precisionbench.measure.worker.messages import BrokenAnswerError, Message
from precisionbench.measure.worker.protocol import FIRST_CALL, REQUESTS, STRAY_WRITES, KnownCalls
from precisionbench.measure.worker.spawn import SpawnedProcess, WorkerProcess

_LOG_TAIL_LINES, _LOG_TAIL_BYTES = 20, 1 << 15
_QUOTED = 300  # characters of its last line, in a sentence
_LISTENER_LIMIT_S = 5.0
_START = "start"  # until it has imported torch
_ID_BYTES = 16
# Seconds after the user has stopped a run: for what was being waited for, and for all that follows.
_BUSY_LIMIT_S, _STOP_LIMIT_S = 0.5, 1.2


class _WakeUp:
    """Put among what was received to let the one who waits look at the time again."""


_WAKE_UP = _WakeUp()
_Received = Message | BrokenAnswerError | _WakeUp | None


@attrs.define
class _Awaited:
    """An answer that is still awaited.

    Attributes:
        id: of the request.
        request: its key in `protocol.REQUESTS`.
        title: its name in errors.
        limit_s: how long to wait for it.
        begun_s: when the wait began; None before that.
        call_end_s: when the first call must have ended.
        message: the answer, once it has come.
    """

    id: str
    request: str
    title: str
    limit_s: float
    begun_s: float | None = None
    call_end_s: float = math.inf
    message: Message | None = None


class Worker:
    """A worker process.

    Args:
        log: file that takes what it prints.
        start: starts its process.

    Attributes:
        on_step: called with a description of each step that it reports while it works.
        first_call_limit: how long the first call may take; None: as long as preparing may.
        warm_call_limit: how long the calls after it may take; None: any time.
    """

    def __init__(self, log: Path, start: Callable[[Path], WorkerProcess] = SpawnedProcess) -> None:
        self.log = log
        self._owner = os.getpid()
        self._process = start(log)
        # A signal handler may put something into this queue while its thread waits for it.
        self._received: queue.SimpleQueue[_Received] = queue.SimpleQueue()
        self._asked = self._answered = 0
        self._was_opened, self._is_open = False, True
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._awaited: deque[_Awaited] = deque()
        self._stopped_at_s = math.inf
        self._pid: int | None = None
        self.on_step: Callable[[str], object] = lambda _: None
        self.first_call_limit: FirstCallLimit | None = None
        self.warm_call_limit: WarmCallLimit | None = None
        self._error: PrecisionBenchError | None = None
        self.begin(_START)

    @property
    def pid(self) -> int:
        """Its process ID; until it has begun, that of the process that supervises it."""
        return self._process.pid if self._pid is None else self._pid

    def _listen(self) -> None:
        """Read its answers until it closes the channel, or until one is broken."""
        try:
            while line := self._process.stdout.readline(messages.MAX_LINE_BYTES + 1):
                if len(line) <= messages.MAX_LINE_BYTES and not line.endswith(b"\n"):
                    break  # it has died while it wrote
                self._take(messages.decoded(line))
        except BrokenAnswerError as exc:
            self._received.put(exc)
        except (ValueError, OSError):
            pass
        self._is_open = False
        self._received.put(None)

    def _take(self, message: Message) -> None:
        if message.step is None:
            self._answered += 1
        self._received.put(message)

    @property
    def is_busy(self) -> bool:
        """Whether it runs, and has not prepared its backend or not answered; for any thread."""
        has_answered = self._was_opened and self._answered >= self._asked
        return self._is_open and not has_answered

    # --- requests and answers -----------------------------------------------------------------

    def begin(self, request: str, limit_s: float | None = None, **arguments: Any) -> None:
        """Send a request whose answer is awaited later.

        Args:
            request: a key of `protocol.REQUESTS`.
            limit_s: seconds to wait once the answer is awaited; then the worker is killed. None
                takes that of a request without calls of the model.
            **arguments: JSON values.
        """
        known, new_id = REQUESTS[request], secrets.token_hex(_ID_BYTES)
        self._asked += 1
        self._was_opened |= request == "open"
        line = json.dumps({"id": new_id, "do": request, **arguments}) + "\n"
        with contextlib.suppress(OSError, ValueError):  # it is dead, which `answer` reports
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        limit_s = known.limit_s() if limit_s is None else limit_s
        self._awaited.append(_Awaited(new_id, request, known.title, limit_s))

    def begin_open(self, known: KnownCalls | None = None) -> None:
        """Begin to prepare its backend, while others do; a `WorkerBackend` waits for it.

        Args:
            known: what an earlier replica has shown of its calls.
        """
        limit = self.warm_call_limit
        self.begin("open", known=known and attrs.asdict(known), limit=limit and attrs.asdict(limit))

    @property
    def is_opening(self) -> bool:
        """Whether it was asked to prepare its backend, and the answer is still awaited."""
        return any(awaited.request == "open" for awaited in self._awaited)

    def is_ready(self, within_s: float) -> bool:
        """Wait for some time; whether all answers have come, so that `answer` need not wait.

        Steps are reported meanwhile, and an error is raised by `answer`.

        Args:
            within_s: seconds to wait at most.
        """
        until_s = time.monotonic() + within_s
        try:
            while len(self._awaited) > 1 and self._error is None:
                if self._arrived(self._awaited[0], until_s) is None:
                    return False
                self._next_answer()
            if self._error is not None or not self._awaited:
                return True
            return self._arrived(self._awaited[0], until_s) is not None
        except PrecisionBenchError as exc:
            self._error = exc
            return True

    def wait_until_imported(self) -> None:
        """Wait until it has imported torch and can take requests."""
        if self._awaited and self._awaited[0].request == _START and self._error is None:
            self._wait_for_answer()

    def wait_until_loaded(self) -> None:
        """Wait for all answers but that to `begin_open`, which is for the one who opens it."""
        while self._awaited and self._awaited[0].request != "open" and self._error is None:
            self._wait_for_answer()

    def finish(self) -> None:
        """Wait for all answers still awaited.

        Raises:
            WorkerError: it died, or did not answer in time.
            PrecisionBenchError: the first error that it raised.
        """
        self.wait_for_answers()
        if self._error is not None:
            raise self._error

    def wait_for_answers(self) -> None:
        """Wait for all answers still awaited; the next `ask` raises the first error of them."""
        while self._awaited and self._error is None:
            self._wait_for_answer()

    def _wait_for_answer(self) -> None:
        try:
            self._next_answer()
        except PrecisionBenchError as exc:
            self._error = exc

    def ask(self, request: str, limit_s: float | None = None, **arguments: Any) -> Any:
        """Send a request and wait for its answer.

        Args:
            request: as for `begin`.
            limit_s: as for `begin`.
            **arguments: JSON values.

        Returns:
            The answer as a JSON value; `Request.decoded` makes the result of it.

        Raises:
            WorkerError: it died, or did not answer in time.
            PrecisionBenchError: what the worker raised.
        """
        self.wait_for_answers()
        self.begin(request, limit_s, **arguments)
        return self.answer()

    def answer(self) -> Any:
        """The answer to the request that was begun last, as a JSON value.

        Raises:
            WorkerError: it died, or did not answer in time.
            PrecisionBenchError: what the worker raised.
        """
        while len(self._awaited) > 1 and self._error is None:
            self._next_answer()
        if self._error is not None:
            raise self._error
        return self._next_answer()

    def _next_answer(self) -> Any:
        """The answer that is awaited first; after a Ctrl-C meanwhile it still is."""
        try:
            value = self._receive(self._awaited[0])
        except PrecisionBenchError:
            self._awaited.popleft()
            raise
        self._awaited.popleft()
        return value

    def _receive(self, awaited: _Awaited) -> Any:
        awaited.begun_s = None
        while (message := self._arrived(awaited, math.inf)) is None:
            pass
        if message.error is not None:
            raise message.error.rebuilt()
        if awaited.request == _START:
            self._pid = REQUESTS[_START].decoded(message.value)
        return message.value

    def _arrived(self, awaited: _Awaited, until_s: float) -> Message | None:
        """Wait until a time for an answer, and report steps meanwhile; None if it has not come."""
        awaited.begun_s = awaited.begun_s or time.monotonic()
        while awaited.message is None:
            message = self._message(awaited, awaited.begun_s, until_s)
            if message is None or message.step is None:
                awaited.message = message
                break
            self.on_step(message.step)
            limit = self.first_call_limit if message.step == FIRST_CALL else None
            awaited.call_end_s = time.monotonic() + limit.limit_s if limit else math.inf
        return awaited.message

    def _message(self, awaited: _Awaited, begun_s: float, until_s: float) -> Message | None:
        """The next line that it writes; None where it has written none until a time."""
        end_s = min(begun_s + awaited.limit_s, awaited.call_end_s)
        try:
            while (received := self._next_received(begun_s, min(end_s, until_s))) is _WAKE_UP:
                pass  # and look again how long to wait
        except queue.Empty:
            if self._stop_s(begun_s) < min(end_s, until_s):
                raise self._ended(_stopped(awaited)) from None
            if until_s < end_s:
                return None
            limit = self.first_call_limit if end_s == awaited.call_end_s else None
            raise self._ended(limit.error() if limit else _hung(awaited)) from None
        if received is None:
            raise self._death(awaited.title)
        if isinstance(received, BrokenAnswerError):
            raise self._ended(_broken(awaited, received)) from received
        if not isinstance(received, Message) or received.id != awaited.id:
            raise self._ended(_broken(awaited, BrokenAnswerError("an answer to no request")))
        return received

    def _next_received(self, begun_s: float, end_s: float) -> _Received:
        left_s = min(end_s, self._stop_s(begun_s)) - time.monotonic()
        return self._received.get(timeout=max(0.0, left_s))

    def _stop_s(self, begun_s: float) -> float:
        """When a wait that has begun then ends where the user wants the run to end."""
        was_busy = begun_s <= self._stopped_at_s
        return self._stopped_at_s + (_BUSY_LIMIT_S if was_busy else _STOP_LIMIT_S)

    def _ended(self, error: PrecisionBenchError) -> PrecisionBenchError:
        """Kill it; later requests raise the same error."""
        self.kill()
        self._error = error
        return error

    def _death(self, title: str) -> WorkerError:
        self._received.put(None)  # later requests raise the same
        has_exited = self._process.wait_until_exited(_LISTENER_LIMIT_S)
        self.kill()
        if not has_exited:
            return WorkerError(f"its worker process closed its channel ({title})", STRAY_WRITES)
        code = self._process.returncode or 0
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        printed = self.tail()
        last = f"; last output: {printed[-1][:_QUOTED]}" if printed else ""
        return WorkerError(
            f"its worker process {how} ({title}){last}", _DEATHS.get(-code, _CRASHED)
        )

    # --- the process --------------------------------------------------------------------------

    def set_cpu_affinity(self, cores: Sequence[int]) -> None:
        """Let all its threads run on these cores only (Linux).

        Args:
            cores: their numbers.
        """
        # It has just ended, or this is not Linux.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{self.pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):  # a thread that has just ended
                    os.sched_setaffinity(int(task.name), cores)

    def pin_calls(self, cores: Sequence[int]) -> None:
        """Let its main thread, which calls the model, run on these cores only (Linux).

        Other threads keep their cores: those of torch's operations on the CPU, one for each core,
        would wait for each other on few (docs/between-processes.md).

        Args:
            cores: their numbers.
        """
        if hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(self.pid, cores)

    def tail(self) -> list[str]:
        """The last lines that it printed; the file may be of any size, so its end is read only."""
        try:
            with self.log.open("rb") as file:
                begin = max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES)
                file.seek(begin)
                text = file.read(_LOG_TAIL_BYTES).decode("utf-8", "replace")
        except OSError:
            return []
        if begin:
            text = f"{left_out(begin)}\n{text}"
        return [line for line in text.splitlines() if line.strip()][-_LOG_TAIL_LINES:]

    def stop(self) -> None:
        """Leave little time for its answers, because the user wants the run to end.

        A signal handler may call this.
        """
        self._stopped_at_s = min(self._stopped_at_s, time.monotonic())
        self._received.put(_WAKE_UP)

    def wait_until_exited(self) -> None:
        """Wait for it to exit by itself, once it is closed; `kill` ends it where it does not."""
        self._process.wait_until_exited(_LISTENER_LIMIT_S)

    def begin_kill(self) -> None:
        """Let it be killed, while others are; `kill` waits until it is."""
        if os.getpid() == self._owner:
            self._process.begin_kill()

    def kill(self) -> None:
        """Kill it and the processes that it has started, also where it has exited by itself."""
        if os.getpid() != self._owner:
            return  # the user's code has forked this process, and the worker is not its own
        self._process.kill()
        self._listener.join(_LISTENER_LIMIT_S)  # a child of its own may hold the pipe open
        for pipe in (self._process.stdin, self._process.stdout):
            if not self._listener.is_alive():
                with contextlib.suppress(OSError):
                    pipe.close()


_CRASHED = "the backend or one of its libraries crashed; use the launcher 'inline' to see where"
_DEATHS = {
    9: "the system may have run out of memory: use a smaller batch or fewer replicas",
    11: "a library of the backend crashed; try another version of that library",
}


def _hung(awaited: _Awaited) -> WorkerError:
    return WorkerError(
        f"its worker process did not answer within {awaited.limit_s:.0f} s ({awaited.title}) and "
        "was ended",
        "the backend or the model hangs; use the launcher 'inline' to see where",
    )


def _stopped(awaited: _Awaited) -> WorkerError:
    return WorkerError(
        f"its worker process was ended because the run was interrupted ({awaited.title})"
    )


def _broken(awaited: _Awaited, fault: BrokenAnswerError) -> WorkerError:
    return WorkerError(
        f"its worker process sent an invalid answer and was ended ({awaited.title}: {fault})",
        STRAY_WRITES,
    )
