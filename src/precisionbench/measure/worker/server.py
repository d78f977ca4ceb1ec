"""The worker process: one backend, alone in it, and a server that answers its parent's requests.

The parent writes a line of JSON for each request and reads a line for each answer. Nothing else
may reach that channel, so the file descriptors of standard input and output are taken over first,
before torch is imported; whatever is printed, by native code too, goes to a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import attrs

from precisionbench.errors import FOREIGN_ERRORS, PrecisionBenchError, one_line, traceback_of
from precisionbench.measure.worker.protocol import REQUESTS, Closing, KnownCalls, Opening
from precisionbench.results import json_format

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


def main() -> None:
    """Answer the parent's requests until it closes the channel."""
    die_with_parent()
    requests, answers = _channel()
    inbox: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(requests, inbox), daemon=True).start()
    _answer(answers, {"ready": os.getpid()}, import_torch)
    with contextlib.ExitStack() as stack:
        server = Server(stack, lambda step: _write(answers, {"step": step}))
        while True:
            arguments = json.loads(inbox.get())
            name = arguments.pop("do")
            _answer(answers, {}, partial(server.answer, name, arguments))
            if name == "close":
                _exit()


def die_with_parent() -> None:
    """Let Linux kill this process when its parent ends, however busy this process is then."""
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)


def _channel() -> tuple[TextIO, TextIO]:
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return requests, answers


def _listen(requests: TextIO, inbox: queue.Queue[str]) -> None:
    for line in requests:
        inbox.put(line)
    os._exit(1)  # the parent is gone, so no answer is needed any more


def import_torch() -> None:
    """Import what every worker needs."""
    import cattrs  # noqa: F401
    import cloudpickle  # noqa: F401
    import torch  # noqa: F401

    import precisionbench.measure.worker.local  # noqa: F401


def _answer(answers: TextIO, header: dict[str, Any], action: Callable[[], Any]) -> None:
    """Run an action and write its result, or the error that it raised, as one line."""
    try:
        message = {**header, "value": action()}
    except PrecisionBenchError as exc:
        message = {**header, "error": _described(exc)}
    except FOREIGN_ERRORS as exc:
        # An error of this library: code of plugins and models runs within guards.
        error = PrecisionBenchError(f"the worker failed ({one_line(exc)})")
        error.__cause__ = exc
        message = {**header, "error": _described(error)}
    _write(answers, message)


def _write(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _described(error: PrecisionBenchError) -> dict[str, str]:
    """An error as text: foreign ones may not survive pickling, and their classes may be unknown."""
    cause = error.__cause__
    reason = getattr(error, "requirement", error.reason)
    return {
        "kind": type(error).__name__,
        "reason": reason,
        "remedy": error.remedy,
        "cause": traceback_of(cause) if cause else "",
    }


def _exit() -> None:
    """Exit at once, without waiting for threads that a plugin left running."""
    os._exit(0)


class Server:
    """Answers requests: it loads, opens and closes the session, which answers all others.

    Args:
        stack: closes what was opened.
        on_step: called with a description of each step while the backend is prepared.
    """

    def __init__(self, stack: contextlib.ExitStack, on_step: Callable[[str], object]) -> None:
        self.stack, self.on_step = stack, on_step
        self.session: Any = None
        self.workload: Any = None
        self.backend: Any = None
        self.launcher: Any = None
        self.loaded: list[Any] = []

    def answer(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """The answer to a request as a JSON value.

        Args:
            name: a key of `REQUESTS`.
            arguments: of the method that answers it.
        """
        if (request := REQUESTS.get(name)) is None:
            raise PrecisionBenchError(f"a worker answers no request {name!r}")
        target = self.session if request.answered_by_session else self
        return json_format.unstructured(getattr(target, request.name)(**arguments))

    def describe(self, name: str) -> dict[str, Any]:
        """Import an installed backend, and give the fields of its `BackendInfo`.

        Args:
            name: of the backend.
        """
        from precisionbench.backends.discovery import describe

        return attrs.asdict(describe(name))

    def check_available(self, backend: str = "", spec: str = "") -> None:
        """Check whether a backend can run on this machine.

        Args:
            backend: its file.
            spec: its spec, where there is no file.
        """
        from precisionbench.backends.discovery import make
        from precisionbench.measure.worker.guards import check_available

        check_available(_load(backend) if backend else make(spec))

    def load(
        self, workload: str, backend: str, flags: dict[str, Any], with_model: bool = False
    ) -> None:
        """Set torch as the parent has it, read both files, and start the device.

        Args:
            workload: file of the workload.
            backend: file of the backend.
            flags: torch's settings in the parent.
            with_model: also copy the model to the device, where that is known to hold all copies.
        """
        import torch

        from precisionbench.measure.worker.guards import executing
        from precisionbench.measure.worker.loading import one_at_a_time
        from precisionbench.measure.worker.local import InlineLauncher
        from precisionbench.torchtools.global_state import set_flags

        set_flags(flags)
        self.workload, self.backend = _load(workload), _load(backend)
        self.workload.preload()
        if self.workload.device.type == "cuda":
            with executing():
                torch.zeros(1, device=self.workload.device)
        turn = partial(one_at_a_time, Path(workload))
        self.launcher = InlineLauncher.on_device_of(self.workload, turn)
        if with_model:
            self._load_model()

    def _load_model(self) -> None:
        """Copy the model; where memory is short, `open` tries again and says what would fit."""
        from precisionbench.errors import OutOfMemoryError
        from precisionbench.measure.worker.guards import drop_frames
        from precisionbench.system.memory import free_memory

        try:
            self.loaded.append(self.launcher.load(self.backend))
        except OutOfMemoryError as exc:
            drop_frames(exc)
            free_memory()

    def open(self, known: dict[str, Any] | None = None) -> Opening:
        """Prepare the backend; `known` holds the fields of `KnownCalls`, of an earlier replica."""
        calls = None if known is None else KnownCalls(**known)
        load = self.loaded.pop if self.loaded else None  # nothing here holds the model any more
        opened = self.launcher.open(self.backend, self.on_step, calls, load)
        self.session = self.stack.enter_context(opened)
        return self.session.opening  # type: ignore[no-any-return]

    def recalibrate(self) -> Opening:
        """Measure the clock and the length of a call again, undisturbed."""
        self.session = self.session.recalibrated()
        return self.session.opening  # type: ignore[no-any-return]

    def close(self) -> Closing:
        """Undo the backend."""
        self.stack.close()
        return self.session.closing() if self.session else Closing()


def _load(path: str) -> Any:
    """The object in a file of the parent; tensors are mapped from it, not copied."""
    import torch

    from precisionbench._internal.importing import working_directory_on_path

    with working_directory_on_path():  # where the parent found `package.module:function`
        return torch.load(path, mmap=True, map_location="cpu", weights_only=False)
