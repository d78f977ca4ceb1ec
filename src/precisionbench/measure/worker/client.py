"""A backend that is prepared in a worker process, as the rest of `measure` uses it."""

from __future__ import annotations

import inspect
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import attrs
import torch

from precisionbench._internal.bounded_text import bounded_log, bounded_warnings
from precisionbench.errors import FOREIGN_ERRORS, WorkerError, one_line
from precisionbench.measure.worker.process import Worker
from precisionbench.measure.worker.protocol import (
    REQUESTS,
    Closing,
    KnownCalls,
    Opening,
    PreparedBackend,
)

P = ParamSpec("P")
R = TypeVar("R")


def _asked(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[WorkerBackend, P], R]:
    """The method of `WorkerBackend` that lets the worker's session answer.

    Args:
        method: of `PreparedBackend`; its name is a key of `REQUESTS`.
    """
    signature = inspect.signature(method)

    def ask(self: WorkerBackend, /, *args: P.args, **kwargs: P.kwargs) -> R:
        _, *values = signature.bind(self, *args, **kwargs).arguments.items()
        answer: R = self.ask(method.__name__, **dict(values))
        return answer

    ask.__doc__ = method.__doc__
    return ask


class WorkerBackend:
    """A backend that is prepared in a worker process.

    Args:
        worker: its process.
        on_step: called with a description of each step while it prepares.
        known: what an earlier replica has shown of its calls, where it does not prepare already.

    Attributes:
        opening: what is known of it since it is ready.
        most_s: the most that an answer may take in addition to its calls, where that is less than
            usual.

    Raises:
        PrecisionBenchError: as `opening.opened`.
    """

    def __init__(
        self,
        worker: Worker,
        on_step: Callable[[str], object] = lambda _: None,
        known: KnownCalls | None = None,
    ) -> None:
        self.worker = worker
        worker.on_step = on_step
        arguments: dict[str, Any] = {} if known is None else {"known": attrs.asdict(known)}
        answer = worker.answer() if worker.is_opening else worker.ask("open", **arguments)
        self.opening: Opening = REQUESTS["open"].decoded(answer)
        self.most_s = math.inf
        self._closing = Closing()

    def ask(self, request: str, until_s: float = math.inf, /, **arguments: Any) -> Any:
        """Send a request and wait for its result.

        Args:
            request: a key of `protocol.REQUESTS`.
            until_s: when it has to be answered, in seconds of `time.monotonic`; then the worker is
                killed.
            **arguments: JSON values.

        Raises:
            WorkerError: the worker died, or did not answer in time.
            PrecisionBenchError: what the worker raised.
        """
        known = REQUESTS[request]
        limit_s = known.limit_s(self.opening.call_s, arguments, self.most_s)
        limit_s = min(limit_s, max(0.0, until_s - time.monotonic()))
        return known.decoded(self.worker.ask(request, limit_s, **arguments))

    block = _asked(PreparedBackend.block)
    check_steady = _asked(PreparedBackend.check_steady)
    passes = _asked(PreparedBackend.passes)
    write_float64_reference = _asked(PreparedBackend.write_float64_reference)
    layer_errors = _asked(PreparedBackend.layer_errors)
    evidence = _asked(PreparedBackend.evidence)

    def recalibrate(self) -> None:
        """Measure the clock and the length of a call again, once no other backend is prepared.

        Raises:
            PrecisionBenchError: a call failed.
        """
        self.opening = self.ask("recalibrate")

    @property
    def output(self) -> Mapping[str, torch.Tensor]:
        """The tensors of the first call's output by their paths, on the CPU."""
        return self._written("write_output", "first output")

    def outputs_of(self, inputs_path: str) -> Mapping[str, torch.Tensor]:
        """Call once with other inputs of the same shapes; later calls have the earlier ones again.

        Args:
            inputs_path: of a file of `torch.save`: a list of tensors in the order of
                `Inputs.tensors()`.

        Returns:
            The output's tensors by their paths, on the CPU.

        Raises:
            PreparationError: the backend's calls cannot be given other inputs.
            WorkloadError: the inputs have other shapes.
            PrecisionBenchError: the call failed.
        """
        return self._written("write_outputs_of", "output", inputs_path=inputs_path)

    def _written(self, request: str, what: str, **arguments: str) -> Mapping[str, torch.Tensor]:
        """The tensors that the worker writes to a file to answer a request."""
        path = self.worker.log.with_suffix(".output")
        try:
            self.ask(request, path=str(path), **arguments)
            return _tensors_in(path, what)
        finally:
            path.unlink(missing_ok=True)

    def begin_profiler_start(self) -> None:
        """Begin to start the profiler, which takes seconds; the next request waits for it."""
        self.worker.begin("start_profiler")

    def finish_profiler_start(self) -> None:
        """Wait until the profiler has started, where that was begun.

        Raises:
            PrecisionBenchError: it could not be started.
        """
        self.worker.finish()

    def begin_close(self) -> None:
        """Begin to undo the backend; `close` waits for it."""
        self.worker.begin("close")

    def close(self) -> None:
        """Wait until the backend is undone, after `begin_close`.

        Raises:
            PrecisionBenchError: what its cleanup raised.
        """
        closing = Closing()
        try:
            closing = REQUESTS["close"].decoded(self.worker.answer())
            self.worker.wait_until_exited()
        finally:  # what native code has printed is kept in any case
            log = bounded_log([*closing.log, *self.worker.tail()])
            self._closing = Closing(bounded_warnings(closing.warnings), log)

    def closing(self) -> Closing:
        """The warnings and the log, which are complete once it is closed."""
        return self._closing


def _tensors_in(path: Path, what: str) -> Mapping[str, torch.Tensor]:
    """The tensors that a worker has written; no code in its file is run.

    They are mapped from the file, so that huge ones take no memory before they are compared.
    """
    mapped = os.name != "nt"  # where a file that is mapped cannot be removed
    try:
        found = torch.load(path, mmap=mapped, map_location="cpu", weights_only=True)
        if not all(isinstance(one, torch.Tensor) for one in found.values()):
            raise TypeError("not only tensors")
    except FOREIGN_ERRORS as exc:
        raise WorkerError(
            f"its {what} could not be read, so its error is unknown ({one_line(exc)})"
        ) from exc
    return found  # type: ignore[no-any-return]
