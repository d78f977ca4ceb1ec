"""The machine of this process: its devices by torch, and `compare` as the measurement."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import attrs

from precisionbench.reference_data.peaks import device_of
from precisionbench.results import ComparisonData, Gpu
from precisionbench.results.json_values import Json
from precisionbench.results.study import Cell
from precisionbench.studies.machine import Device

_BOARD = Path("/proc/device-tree/model")  # of ARM boards


@attrs.frozen
class ThisMachine:
    """Measures cells with `compare`.

    Attributes:
        device: as for `compare`; `cuda` is every GPU that this process may use, and None, too,
            where there is one.
        options: further options of `compare`.
    """

    device: str | None = None
    options: Mapping[str, Json] = attrs.field(factory=dict)

    def devices(self) -> tuple[Device, ...]:
        """The devices that `device` means here.

        Raises:
            WorkloadError: there is none.
        """
        import torch

        from precisionbench.model.workload import usable_device

        chosen = usable_device(self.device)
        if chosen.type != "cuda":
            return (_cpu(str(chosen)),)
        is_one = ":" in (self.device or "")
        return tuple(map(_gpu, [chosen.index] if is_one else range(torch.cuda.device_count())))

    def measure(
        self, cell: Cell, model: Any, backends: tuple[Any, ...], device: Device
    ) -> ComparisonData:
        """Measure a cell with `compare`.

        Args:
            cell: of the study.
            model: as for `compare`.
            backends: as for `compare`; empty for the default rows.
            device: where to measure.

        Raises:
            PrecisionBenchError: as `compare` raises it.
            KeyboardInterrupt: a Ctrl-C before any round was finished.
        """
        from precisionbench.measure.compare import compare

        given: dict[str, Any] = dict(self.options)
        if cell.threads is not None:
            given["threads"] = cell.threads
        if cell.shape is not None:
            given["inputs"] = _inputs(cell, device)
        elif cell.batch_size is not None:
            given["batch_size"] = cell.batch_size
        rows = list(backends) or None
        return compare(model, backends=rows, device=device.address, on_progress=None, **given).data


def _inputs(cell: Cell, device: Device) -> Any:
    from precisionbench.model.random_inputs import RandomInputs
    from precisionbench.model.sources import default_batch_size
    from precisionbench.model.workload import usable_device

    assert cell.shape is not None
    batch_size = cell.batch_size or default_batch_size(usable_device(device.address))
    return RandomInputs((cell.shape,), batch_size)


@cache
def _gpu(index: int) -> Device:
    """A GPU; its name is the one of its board, as far as that is known."""
    import torch

    from precisionbench.system import environment

    gpu = environment.capture(torch.device("cuda", index)).gpu
    assert gpu is not None
    return Device(f"cuda:{index}", board_name(gpu), gpu.uuid or "")


def board_name(gpu: Gpu, model_file: Path = _BOARD) -> str:
    """The name of a GPU's board: a Jetson's driver gives one name to several boards.

    Args:
        gpu: as the machine reports it.
        model_file: in which Linux names the board.
    """
    if (spec := device_of(gpu)) is not None:
        return spec.name
    try:
        board = model_file.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return gpu.name
    return board if "jetson" in board.lower() else gpu.name


@cache
def _cpu(address: str) -> Device:
    import torch

    from precisionbench.system import environment

    return Device(address, environment.capture(torch.device("cpu")).cpu or "CPU")
