"""Backends that are prepared in this process, one after another, each undone before the next."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from functools import partial

import attrs

from precisionbench.backends import Backend
from precisionbench.errors import OutOfMemoryError, PrecisionBenchError
from precisionbench.measure.worker import opening
from precisionbench.measure.worker.calls import CallBackend, CallLauncher
from precisionbench.measure.worker.first_call_limit import WarmCallLimit
from precisionbench.measure.worker.guards import drop_frames
from precisionbench.measure.worker.loading import Loaded, Turn, loaded
from precisionbench.measure.worker.protocol import KnownCalls
from precisionbench.measure.worker.session import Session
from precisionbench.model.inputs import may_index_items
from precisionbench.model.workload import Workload
from precisionbench.system.memory import free_memory
from precisionbench.torchtools.global_state import flags_restored, functions_restored, rng_restored
from precisionbench.torchtools.timer import Timer, clock_for


def launcher_for(
    backend: Backend, workload: Workload, turn: Turn = contextlib.nullcontext
) -> InlineLauncher | CallLauncher:
    """What opens a backend in this process, with the clock of the workload's device.

    Args:
        backend: a function, or what prepares a model.
        workload: the model and inputs.
        turn: entered while a model is copied to a GPU, and while a CPU computes first calls.
    """
    if isinstance(backend, CallBackend):
        return CallLauncher.on_device_of(workload)
    return InlineLauncher.on_device_of(workload, turn)


@attrs.frozen
class InlineLauncher:
    """Opens sessions in this process.

    Attributes:
        workload: the model and inputs.
        timer: times the calls on the workload's device.
        turn: entered while a model is copied to a GPU, and while a CPU computes first calls.
    """

    workload: Workload
    timer: Timer
    turn: Turn = contextlib.nullcontext

    @classmethod
    def on_device_of(
        cls, workload: Workload, turn: Turn = contextlib.nullcontext
    ) -> InlineLauncher:
        """A launcher with the clock of the workload's device."""
        return cls(workload, Timer(clock_for(workload.device)), turn)

    def load(self, backend: Backend) -> Loaded:
        """Make copies of the model and inputs for a backend, ahead of `open`.

        Args:
            backend: what is to be prepared.

        Raises:
            PrecisionBenchError: as `loading.loaded`.
        """
        return loaded(backend, self.workload, self.timer, turn=self.turn)

    @contextlib.contextmanager
    def open(
        self,
        backend: Backend,
        on_step: Callable[[str], object] = lambda _: None,
        known: KnownCalls | None = None,
        load: Callable[[], Loaded] | None = None,
        limit: WarmCallLimit | None = None,
    ) -> Iterator[Session]:
        """Prepare a backend; on leaving, torch's global state is restored.

        Args:
            backend: what to prepare.
            on_step: called with a description of each step before it begins.
            known: what an earlier replica has shown of its calls.
            load: gives the copies of the model and inputs; None makes them now.
            limit: how long a warm call may take; None: any time.

        Raises:
            PrecisionBenchError: as `opening.opened`.
        """
        load = load or partial(loaded, backend, self.workload, self.timer, on_step, self.turn)
        try:
            with (
                rng_restored(),
                functions_restored(),
                flags_restored(),
                self._out_of_memory_explained(backend),
                opening.opened(
                    backend, self.workload, self.timer, on_step, known, load, limit, self.turn
                ) as opened,
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
                failed.reason, "use smaller inputs or a smaller model, or free device memory"
            ) from failed.__cause__
        raise OutOfMemoryError(
            f"batch {batch}: {failed.reason}", self._fitting_batch(backend, batch)
        ) from failed.__cause__

    def _fitting_batch(self, backend: Backend, batch: int) -> str:
        """Halve the batch until one call succeeds; the remedy, which names that batch."""
        other_errors, all_items = 0, batch
        while batch := batch // 2:
            if may_index_items(self.workload.inputs, all_items, batch):
                other_errors += 1
                break
            gc.collect()  # on a CPU, too: the failed attempt may have left cycles
            free_memory()
            try:
                smaller = self.workload.with_batch(batch)
                with opening.opened(backend, smaller, self.timer):
                    return f"batch {batch} fits"
            except PrecisionBenchError as exc:  # memory again, or a model of one batch size only
                drop_frames(exc)
                other_errors += not isinstance(exc, OutOfMemoryError)
        if other_errors:
            return "use a smaller batch (these inputs could not be cut), or free device memory"
        return "batch 1 does not fit either; use a smaller model, or free device memory"
