"""A worker's side: one backend, alone in a process, that does as its parent says.

The parent writes a line of JSON for each request and reads a line for each answer. Nothing else
may reach that channel, so the file descriptors of standard input and output are taken over first,
and whatever is printed, by native code too, goes to a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from precisionbench.errors import FOREIGN_ERRORS, PrecisionBenchError, one_line

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


def main() -> None:
    """Serve the parent until it closes the channel."""
    _die_with_parent()
    requests, answers = _channel()
    inbox: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(requests, inbox), daemon=True).start()
    _answer(answers, {"ready": os.getpid()}, _imported)
    with contextlib.ExitStack() as stack:
        server = _Server(stack, lambda step: _write(answers, {"step": step}))
        while True:
            request = json.loads(inbox.get())
            name = request.pop("do")
            _answer(answers, {}, lambda: getattr(server, name)(**request))  # noqa: B023
            if name == "close":
                _leave()


def _die_with_parent() -> None:
    """Let Linux end this process when its parent ends, however busy it is at that moment."""
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
    os._exit(1)  # the parent is gone, and nobody waits for what is under way


def _imported() -> None:
    import torch  # noqa: F401

    import precisionbench.measure.worker.session  # noqa: F401


def _answer(answers: TextIO, header: dict[str, Any], action: Callable[[], Any]) -> None:
    """Run an action and write what it gave, or what it raised, as one line."""
    try:
        message = {**header, "value": action()}
    except PrecisionBenchError as exc:
        message = {**header, "error": _described(exc)}
    except FOREIGN_ERRORS as exc:
        # One of ours, because it is none of the user's code that runs here unguarded.
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
        "cause": "".join(traceback.format_exception(cause)) if cause else "",
    }


def _leave() -> None:
    """End now: threads that a plugin left running are not waited for."""
    os._exit(0)


class _Server:
    """What a parent can ask for; each method's result is JSON."""

    def __init__(self, stack: contextlib.ExitStack, tell: Callable[[str], object]) -> None:
        self.stack, self.tell = stack, tell
        self.session: Any = None
        self.workload: Any = None
        self.backend: Any = None

    def load(self, workload: str, backend: str, flags: dict[str, Any]) -> None:
        """Set torch as the parent has it, load everything, and start the device."""
        import torch

        from precisionbench.measure.worker.session import executing
        from precisionbench.torchtools.global_state import set_flags

        set_flags(flags)
        self.workload, self.backend = _load(workload), _load(backend)
        self.workload.preload()
        if self.workload.device.type == "cuda":
            with executing():
                torch.zeros(1, device=self.workload.device)

    def open(self) -> Any:
        """Prepare the backend; gives the opening."""
        import attrs

        from precisionbench.measure.worker.local import InlineLauncher

        launcher = InlineLauncher.on_device_of(self.workload)
        self.session = self.stack.enter_context(launcher.open(self.backend, self.tell))
        return attrs.asdict(self.session.opening)

    def look_alone(self) -> Any:
        """Look again at what others disturbed that were prepared meanwhile; gives the opening."""
        import attrs

        self.session = self.session.looked_at_alone()
        return attrs.asdict(self.session.opening)

    def output(self, path: str) -> None:
        """Write the first output's tensors to a file."""
        import torch

        torch.save(self.session.output, path)

    def block(self, samples: int, calls_per_sample: int, settle_calls: int) -> Any:
        """Time one block; gives its samples."""
        return self.session.block(samples, calls_per_sample, settle_calls)

    def passes(self, call_s: float, capture: bool) -> Any:
        """All passes beside the latency."""
        import attrs

        return attrs.asdict(self.session.passes(call_s, capture))

    def get_ready_to_profile(self) -> None:
        """Start the profiler once, side by side with other workers."""
        from precisionbench.probes.profiler import start_profiler

        start_profiler(self.workload.device)

    def truth(self, path: str) -> None:
        """Write what the model's layers give in float64 to a file."""
        self.session.truth(path)

    def evidence(self, call_s: float, truth_path: str | None) -> Any:
        """What runs in a call, layer by layer."""
        from precisionbench.results import json_format

        return json_format.unstructured(self.session.evidence(call_s, truth_path))

    def check_steady(self) -> None:
        """Compare the output with the first one."""
        self.session.check_steady()

    def close(self) -> Any:
        """Undo the backend; gives the closing."""
        import attrs

        self.stack.close()
        return attrs.asdict(self.session.closing()) if self.session else {}


def _load(path: str) -> Any:
    """What the parent wrote; tensors are mapped from the file, not copied."""
    import torch

    from precisionbench._internal.importing import working_directory_on_path

    with working_directory_on_path():  # where the parent found `package.module:function`
        return torch.load(path, mmap=True, map_location="cpu", weights_only=False)
