"""What a study needs of the machine that runs a cell: its devices, and a measurement on one."""

from __future__ import annotations

from typing import Any, Protocol

import attrs

from precisionbench.reference_data.peaks import devices_named, name_key
from precisionbench.results.comparison_data import ComparisonData
from precisionbench.results.study import Cell


@attrs.frozen
class Device:
    """A device of this machine.

    Attributes:
        address: as for `compare`, such as `cuda:0`.
        name: such as `NVIDIA H200`, or the name of the CPU.
        id: identifies the board on any host; empty where it has none.
    """

    address: str
    name: str
    id: str = ""


class Machine(Protocol):
    """The machine of a worker; replaced in tests."""

    def devices(self) -> tuple[Device, ...]:
        """The devices that the study may use here."""
        ...

    def measure(
        self, cell: Cell, model: Any, backends: tuple[Any, ...], device: Device
    ) -> ComparisonData:
        """Measure a cell.

        Args:
            cell: of the study.
            model: as for `compare`.
            backends: rows of the cell, as for `compare`.
            device: one of `devices`.
        """
        ...


def is_named(device: str, name: str) -> bool:
    """Whether a user's name for a device means this one.

    Args:
        device: full name, such as `Jetson AGX Orin 64GB`.
        name: the user's, such as `agx orin`: words of the full name, or another name of it.
    """
    wanted, words = name_key(name), [name_key(word) for word in device.split()]
    runs = ("".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1))
    if device == name or (wanted and wanted in runs):
        return True
    known = name_key(device)
    return any(known in map(name_key, (spec.id, spec.name)) for spec in devices_named(name))
