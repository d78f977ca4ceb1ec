"""Backends in this process, one after another, each undone before the next."""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Callable, Iterator

import attrs
import torch

from precisionbench.backends import Backend
from precisionbench.errors import OutOfMemoryError, PrecisionBenchError
from precisionbench.measure.worker import session
from precisionbench.measure.worker.session import Session
from precisionbench.model.workload import Workload
from precisionbench.torchtools.global_state import flags_restored, functions_restored, rng_restored
from precisionbench.torchtools.timer import Timer, clock_for


@attrs.frozen
class InlineLauncher:
    """Opens sessions in this process.

    Attributes:
        workload: the model and inputs.
        timer: times the calls on the workload's device.
    """

    workload: Workload
    timer: Timer

    name = "inline"

    @classmethod
    def on_device_of(cls, workload: Workload) -> InlineLauncher:
        """A launcher with the clock of the workload's device."""
        return cls(workload, Timer(clock_for(workload.device)))

    @contextlib.contextmanager
    def open(
        self, backend: Backend, tell: Callable[[str], object] = lambda _: None
    ) -> Iterator[Session]:
        """Prepare a backend; afterwards torch is as it was before.

        Args:
            backend: what to prepare.
            tell: told of each step.

        Raises:
            PrecisionBenchError: as `session.opened`.
        """
        try:
            with (
                rng_restored(),
                functions_restored(),
                flags_restored(),
                self._out_of_memory_explained(backend),
                session.opened(backend, self.workload, self.timer, tell) as opened,
            ):
                yield opened
        finally:
            free_memory()

    @contextlib.contextmanager
    def _out_of_memory_explained(self, backend: Backend) -> Iterator[None]:
        try:
            yield
        except OutOfMemoryError as exc:
            failed = exc
        else:
            return
        drop_frames(failed)
        batch = self.workload.info.batch_size
        if batch is None:
            raise OutOfMemoryError(
                failed.reason, "use smaller inputs or a smaller model, or free the device"
            ) from failed.__cause__
        raise OutOfMemoryError(
            f"batch {batch}: {failed.reason}", self._fitting_batch(backend, batch)
        ) from failed.__cause__

    def _fitting_batch(self, backend: Backend, batch: int) -> str:
        """Halve the batch until one call succeeds, and say which one did."""
        others = 0
        while batch := batch // 2:
            free_memory()
            try:
                smaller = self.workload.with_batch(batch)
                with session.opened(backend, smaller, self.timer):
                    return f"batch {batch} fits"
            except PrecisionBenchError as exc:  # memory again, or a model of one batch size only
                drop_frames(exc)
                others += not isinstance(exc, OutOfMemoryError)
        if others:
            return "use a smaller batch (cutting these inputs did not work), or free the device"
        return "not even batch 1 fits; use a smaller model, or free the device"


def drop_frames(exc: BaseException | None) -> None:
    """Let go of the tensors that an error's tracebacks hold."""
    while exc is not None:
        traceback.clear_frames(exc.__traceback__)
        exc = exc.__cause__


def free_memory() -> None:
    """Give back what torch holds of the GPU's memory and nobody uses."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        with contextlib.suppress(Exception):  # a lost device cannot be tidied
            torch.cuda.empty_cache()
