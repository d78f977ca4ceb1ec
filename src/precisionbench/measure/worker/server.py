"""The worker process: one backend, alone in it, and a server that answers its parent's requests.

The parent writes a line of JSON for each request and reads a line for each answer. Nothing else
may reach that channel, so the file descriptors of standard input and output are taken over first,
before torch is imported; whatever is printed, by native code too, goes to a file.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from precisionbench._internal import temporary_folder
from precisionbench._internal.supervisor import supervised
from precisionbench.errors import FOREIGN_ERRORS, PrecisionBenchError, one_line
from precisionbench.measure.worker.channel import Channel
from precisionbench.measure.worker.first_call_limit import WarmCallLimit
from precisionbench.measure.worker.messages import ErrorText, Message, encoded
from precisionbench.measure.worker.protocol import REQUESTS, Closing, KnownCalls, Opening
from precisionbench.results import json_format


def main() -> None:
    """Answer the parent's requests until it closes the channel."""
    supervised(own_session=True)
    channel = Channel.instead_of_streams()
    inbox: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(channel, inbox), daemon=True).start()
    with contextlib.ExitStack() as stack:
        server = Server(stack)
        while True:
            arguments = json.loads(inbox.get())
            request, name = arguments.pop("id"), arguments.pop("do")
            server.on_step = partial(_report_step, channel, request)
            channel.write(_answer(request, partial(server.answer, name, arguments)))
            if name == "close":
                _exit()


def _listen(channel: Channel, inbox: queue.Queue[bytes]) -> None:
    for line in channel.requests():
        inbox.put(line)
    os._exit(1)  # the parent is gone, so no answer is needed any more


def import_torch() -> None:
    """Import what every worker needs."""
    import cattrs  # noqa: F401
    import cloudpickle  # noqa: F401
    import torch  # noqa: F401

    import precisionbench.measure.worker.local  # noqa: F401


def _report_step(channel: Channel, request: str, step: str) -> None:
    channel.write(encoded(Message(request, step=step)))


def _answer(request: str, action: Callable[[], Any]) -> bytes:
    """The line with the result of an action, or with the error that it raised."""
    try:
        return encoded(Message(request, value=action()))
    except PrecisionBenchError as exc:
        error = exc
    except FOREIGN_ERRORS as exc:
        # An error of this library: code of plugins and models runs within guards.
        error = PrecisionBenchError(f"the worker failed ({one_line(exc)})")
        error.__cause__ = exc
    return encoded(Message(request, error=ErrorText.of(error)))


def _exit() -> None:
    """Exit at once, without waiting for threads that a plugin left running."""
    os._exit(0)


class Server:
    """Answers requests: it loads, opens and closes the session, which answers all others.

    Args:
        stack: closes what was opened.

    Attributes:
        on_step: called with a description of each step while the backend is prepared.
    """

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack
        self.on_step: Callable[[str], object] = lambda _: None
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
            raise PrecisionBenchError(f"unknown worker request {name!r}")
        target = self.session if request.answered_by_session else self
        return json_format.unstructured(getattr(target, request.name)(**arguments))

    def start(self) -> int:
        """Import torch; returns the process ID."""
        import_torch()
        return os.getpid()

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
        from precisionbench.torchtools.saving import load

        check_available(load(backend) if backend else make(spec))

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
        from precisionbench.measure.worker.loading import TURN_FILE, one_at_a_time
        from precisionbench.measure.worker.local import launcher_for
        from precisionbench.torchtools.global_state import set_flags
        from precisionbench.torchtools.saving import load

        temporary_folder.make_in(Path(workload).parent)
        set_flags(flags)
        self.workload, self.backend = load(workload, mapped=True), load(backend, mapped=True)
        self.workload.preload()
        if self.workload.device.type == "cuda":
            with executing():
                torch.zeros(1, device=self.workload.device)
        turn = partial(one_at_a_time, Path(workload).parent / TURN_FILE)
        self.launcher = launcher_for(self.backend, self.workload, turn)
        if with_model:
            self._load_model()
        for module in self.backend.imports:
            with contextlib.suppress(*FOREIGN_ERRORS):  # `prepare` imports it again, and explains
                importlib.import_module(module)

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

    def open(
        self, known: dict[str, Any] | None = None, limit: dict[str, Any] | None = None
    ) -> Opening:
        """Prepare the backend.

        Args:
            known: the fields of `KnownCalls`, of an earlier replica.
            limit: those of `WarmCallLimit`.
        """
        calls = None if known is None else KnownCalls(**known)
        load = self.loaded.pop if self.loaded else None  # nothing here holds the model any more
        limits = {} if limit is None else {"limit": WarmCallLimit(**limit)}
        opened = self.launcher.open(self.backend, self.on_step, calls, load, **limits)
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
