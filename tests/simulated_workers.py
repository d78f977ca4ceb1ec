"""Simulated worker processes on a virtual clock, in which one request of a row may go wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from precisionbench.errors import WorkerError
from precisionbench.measure.run import System
from precisionbench.measure.worker.protocol import Closing, KnownCalls, Opening
from precisionbench.results import Passes
from precisionbench.results.evidence import Evidence
from simulated_device import CALL_S, SimulatedBackend, SimulatedDevice

HANG_S = 3600.0


class UntellableError(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@attrs.define
class Fault:
    """What goes wrong in the workers of a row.

    Attributes:
        row: its name; None is any.
        request: where, as in the names of the methods of `SimulatedWorker` and `SimulatedPrepared`.
        error: makes what is raised there.
        takes_s: seconds until then.
        after: how many of these requests are answered before.
        replica: of this replica only; None is of each.
        asked: how many of these requests there were so far.
    """

    row: str | None
    request: str
    error: Callable[[], BaseException]
    takes_s: float = 0.0
    after: int = 0
    replica: int | None = None
    asked: int = 0

    def is_in(self, worker: SimulatedWorker, request: str) -> bool:
        """Whether it goes wrong now."""
        where = (worker.row, request, worker.replica)
        wanted = (self.row, self.request, self.replica)
        if any(one not in (None, here) for one, here in zip(wanted, where, strict=True)):
            return False
        self.asked += 1
        return self.asked > self.after


@attrs.define(eq=False)
class SimulatedWorker:
    """A worker process; once it has ended, all requests fail as the first did.

    Attributes:
        row: the row's name.
        replica: its number in the row.
        device: what its calls run on, with the clock.
        fault: what goes wrong, here or in another worker.
        ended: why it has ended; None while it runs.
        begun: requests that were begun, and are not answered yet.
    """

    row: str
    replica: int
    device: SimulatedDevice
    fault: Fault | None = None
    ended: WorkerError | None = None
    begun: list[str] = attrs.field(factory=list)
    on_step: Callable[[str], object] = print
    first_call_limit: Any = None
    is_opening: bool = False
    killed: bool = False
    pid: int = 7

    def asked(self, request: str) -> None:
        """Answer a request after those that were begun, or fail."""
        self.begun.append(request)
        self.finish()

    def finish(self) -> None:
        """Answer the requests that were begun, or fail."""
        requests, self.begun = self.begun, []
        for one in requests:
            self._answer(one)

    def _answer(self, request: str) -> None:
        if self.ended is not None:
            raise self.ended
        if self.fault is None or not self.fault.is_in(self, request):
            return
        self.device.now_s += self.fault.takes_s
        error = self.fault.error()
        self.ended = error if isinstance(error, WorkerError) else None
        raise error

    def begin_open(self, known: KnownCalls | None = None) -> None:
        self.is_opening = True

    def is_ready(self, within_s: float) -> bool:
        return True

    def set_cpu_affinity(self, cores: Sequence[int]) -> None:
        self.asked("set_cpu_affinity")

    def pin_calls(self, cores: Sequence[int]) -> None:
        self.asked("pin_calls")

    def kill(self) -> None:
        self.killed = True


class SimulatedPrepared:
    """The prepared backend of a simulated worker."""

    def __init__(self, worker: SimulatedWorker, *_: object) -> None:
        self.worker, self.passes_taken = worker, 0
        self._simulated = SimulatedBackend(worker.device, CALL_S)
        self.opening: Opening = self._simulated.opening
        for request in ("load", "open"):
            worker.asked(request)

    def recalibrate(self) -> None:
        self.worker.asked("recalibrate")

    def block(self, samples: int, calls_per_sample: int, settle_calls: int) -> tuple[float, ...]:
        self.worker.asked("block")
        return self._simulated.block(samples, calls_per_sample, settle_calls)

    @property
    def output(self) -> Mapping[str, torch.Tensor]:
        self.worker.asked("output")
        return {"output": torch.ones(2)}

    def passes(self, call_s: float, capture: bool, leave_out: Mapping[str, str]) -> Passes:
        self.worker.asked("passes")
        self.passes_taken += not leave_out
        return Passes()

    def check_steady(self) -> None:
        self.worker.asked("check_steady")

    def begin_profiler_start(self) -> None:
        self.worker.begun.append("start_profiler")

    def finish_profiler_start(self) -> None:
        self.worker.finish()

    def write_float64_reference(self, path: str) -> None:
        self.worker.asked("write_float64_reference")

    def evidence(self, call_s: float, float64_path: str | None) -> Evidence:
        self.worker.asked("evidence")
        return Evidence()

    def begin_close(self) -> None:
        self.worker.begun.append("begin_close")

    def close(self) -> None:
        self.worker.asked("close")

    def closing(self) -> Closing:
        return Closing()


@attrs.define
class SimulatedPool:
    """A pool of simulated workers.

    Attributes:
        device: what all of them run on.
        fault: what goes wrong.
        workers: those that were started.
        backends: names of the backends by file.
        waits: how many workers there were each time when it was waited for them.
    """

    device: SimulatedDevice
    fault: Fault | None = None
    workers: list[SimulatedWorker] = attrs.field(factory=list)
    backends: dict[Path, str] = attrs.field(factory=dict)
    waits: list[int] = attrs.field(factory=list)
    folder: Path = Path()

    def __enter__(self) -> SimulatedPool:
        return self

    def __exit__(self, *_: object) -> None:
        if self.fault is not None and self.fault.request == "end":
            raise self.fault.error()

    def write(self, name: str, value: Any) -> Path:
        self.backends[Path(name)] = getattr(value, "name", "")
        return Path(name)

    def write_workload(self, name: str, workload: Any) -> Path:
        return self.write(name, workload)

    def start(self, _: Path, backend: Path, with_model: bool = False) -> SimulatedWorker:
        row = self.backends[backend]
        replica = sum(worker.row == row for worker in self.workers)
        self.workers.append(SimulatedWorker(row, replica, self.device, self.fault))
        return self.workers[-1]

    def wait_until_loaded(self) -> None:
        self.waits.append(len(self.workers))

    def stop(self) -> None:
        pass


def simulated_system(fault: Fault | None = None, **system: Any) -> System:
    """What a run uses of the system, all of it simulated; rows are named as their backends."""
    device = SimulatedDevice(random.Random(0))
    known = {
        "worker_pool": lambda: SimulatedPool(device, fault),
        "open_backend": SimulatedPrepared,
        "monotonic_s": lambda: device.now_s,
        "workers_that_fit": lambda *_: None,
        "read_cpu_times": lambda _: None,
        "default_shared_cores": lambda _: 1,
    }
    return System(**{**known, **system})
