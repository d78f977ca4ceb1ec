"""The job of a worker: measure one cell, and write its file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import cloudpickle

from precisionbench._internal.unpickling import loads
from precisionbench.display import Shown
from precisionbench.errors import FOREIGN_ERRORS, PrecisionBenchError, SpecError, one_line, some
from precisionbench.results.comparison_data import ComparisonData
from precisionbench.results.study import Cell, StudyRun
from precisionbench.studies.locks import claimed, free_device
from precisionbench.studies.machine import Device, Machine, is_named
from precisionbench.studies.store import Store


@attrs.frozen(repr=False)
class Outcome(Shown):
    """What became of a cell in this run.

    Attributes:
        name: of the cell's files.
        cell: what was to be measured.
        state: `measured`, `failed`, `known` (it had a file already), or `left` for another run.
        reason: why it failed or is left; empty otherwise.
        wall_s: time that it took.
    """

    name: str
    cell: Cell
    state: Literal["measured", "failed", "known", "left"]
    reason: str = ""
    wall_s: float = 0.0


@attrs.frozen
class Job:
    """A cell to measure, with all that a worker needs.

    Attributes:
        name: of the cell's files.
        cell: what is measured.
        folder: of the study.
        model: the model as `cloudpickle` bytes; common to its cells.
        backends: rows as for `compare`, as `cloudpickle` bytes.
        machine: of the worker.
        retry_failed: measure a cell that has failed before.
    """

    name: str
    cell: Cell
    folder: Path
    model: bytes
    backends: bytes
    machine: Machine
    retry_failed: bool = False

    def run(self) -> Outcome:
        """Measure the cell where no other process does, and its device is one of this machine.

        Raises:
            OutputError: its file cannot be written, or the folder cannot hold locks.
            KeyboardInterrupt: at Ctrl-C; the cell has no file.
        """
        devices = self.machine.devices()
        matching = [one for one in devices if is_named(one.name, self.cell.device)]
        if not matching:
            return self._outcome("left", f"this machine has {_names(devices)}")
        with claimed(self.folder, self.name) as is_ours:
            if not is_ours:
                return self._outcome("left", "another process measures it")
            if Store(self.folder).is_finished(self.name, self.retry_failed):
                return self._outcome("known")
            with free_device(self.folder, matching) as device:
                return self._measured(device)

    def _measured(self, device: Device) -> Outcome:
        store, start_s = Store(self.folder), time.monotonic()
        try:
            model, backends = loads(self.model), loads(self.backends)
            data = self.machine.measure(self.cell, model, backends, device)
        except FOREIGN_ERRORS as exc:
            run = StudyRun(self.cell, time.monotonic() - start_s)
            reason = str(exc) if isinstance(exc, PrecisionBenchError) else one_line(exc)
            store.save_failure(self.name, run, reason)
            return self._outcome("failed", reason, run.wall_s)
        if was_interrupted(data):
            raise KeyboardInterrupt
        run = StudyRun(self.cell, time.monotonic() - start_s)
        store.save(self.name, attrs.evolve(data, study=run))
        return self._outcome("measured", wall_s=run.wall_s)

    def _outcome(
        self,
        state: Literal["measured", "failed", "known", "left"],
        reason: str = "",
        wall_s: float = 0.0,
    ) -> Outcome:
        return Outcome(self.name, self.cell, state, reason, wall_s)


def _names(devices: Sequence[Device]) -> str:
    return some(list(dict.fromkeys(device.name for device in devices))) or "no device"


def was_interrupted(data: ComparisonData) -> bool:
    """Whether Ctrl-C ended a comparison early."""
    return any(row.measurement.ended_by == "interrupted" for row in data.results)


def run_cell(job: Job) -> Outcome:
    """`Job.run` as a function of its module, for executors of other processes.

    Args:
        job: what to do.
    """
    return job.run()


def devices_of(machine: Machine) -> tuple[Device, ...]:
    """The devices of the machine on which a worker runs.

    Args:
        machine: of the worker.
    """
    return machine.devices()


def as_bytes(value: Any) -> bytes:
    """A model or backends for a `Job`.

    Raises:
        SpecError: it cannot be sent to another process.
    """
    try:
        found: bytes = cloudpickle.dumps(value)
    except Exception as exc:
        raise SpecError(
            f"the model cannot be sent to a worker ({one_line(exc)})",
            "give a function that builds it, or its name, such as 'package.module:function'",
        ) from exc
    return found
