"""A machine for studies that measures nothing, and logs what it is asked to measure."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import attrs

from made_up_results import comparison_data
from precisionbench.errors import OutOfMemoryError
from precisionbench.results import Cell, ComparisonData
from precisionbench.studies.machine import Device

BOARD = Device("fake:0", "Jetson AGX Fake 64GB", "board-1")


class Line(NamedTuple):
    """A line of the log."""

    kind: str
    batch_size: int
    pid: int
    time_ns: int


@attrs.frozen
class FakeMachine:
    """Logs the begin and the end of each cell.

    Attributes:
        folder: of the log, which several processes write.
        boards: its devices.
        deadly: batch sizes whose first measurement kills the worker.
        deadly_always: batch sizes whose every measurement kills the worker.
        too_large: from this batch size on, nothing fits in memory.
        takes_s: time that a cell takes.
    """

    folder: Path
    boards: tuple[Device, ...] = (BOARD,)
    deadly: tuple[int, ...] = ()
    deadly_always: tuple[int, ...] = ()
    too_large: int = 1_000_000
    takes_s: float = 0.0

    def devices(self) -> tuple[Device, ...]:
        return self.boards

    def measure(
        self, cell: Cell, model: Any, backends: tuple[Any, ...], device: Device
    ) -> ComparisonData:
        batch_size = cell.batch_size or 0
        self._log("begin", batch_size)
        if batch_size in self.deadly and self._is_first(batch_size):
            os.kill(os.getpid(), signal.SIGKILL)
        if batch_size in self.deadly_always:
            os.kill(os.getpid(), signal.SIGKILL)
        if batch_size >= self.too_large:
            raise OutOfMemoryError(f"batch {batch_size} does not fit", "use a smaller one")
        time.sleep(self.takes_s)
        self._log("end", batch_size)
        return comparison_data()

    def _is_first(self, batch_size: int) -> bool:
        try:
            (self.folder / f"died-{batch_size}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _log(self, kind: str, batch_size: int) -> None:
        line = f"{kind} {batch_size} {os.getpid()} {time.monotonic_ns()}\n"
        with (self.folder / "log").open("a") as log:  # one write of a line is not torn apart
            log.write(line)

    def log(self) -> list[Line]:
        """The lines of all processes, in the order of their times."""
        file = self.folder / "log"
        texts = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        lines = [Line(kind, *map(int, numbers)) for kind, *numbers in texts]
        return sorted(lines, key=lambda line: line.time_ns)
