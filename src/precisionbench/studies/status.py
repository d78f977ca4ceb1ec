"""How far a study is, and how much time it needs yet."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from precisionbench.results.study import DeviceStatus
from precisionbench.studies.cells import cells_of
from precisionbench.studies.definition import Definition
from precisionbench.studies.store import FinishedCell, Store, finished_cells


def status_of(store: Store, definition: Definition) -> tuple[DeviceStatus, ...]:
    """How far a study is on each of its devices.

    Args:
        store: of the study.
        definition: of the study.

    Returns:
        The devices that the definition names, and those with finished cells.

    Raises:
        ResultFormatError: a file is damaged.
    """
    found = finished_cells(store, definition)
    others = sorted({one.run.cell.device for one in found} - set(definition.devices))
    return tuple(_status(name, found, definition) for name in (*definition.devices, *others))


def _status(device: str, found: Sequence[FinishedCell], definition: Definition) -> DeviceStatus:
    here = [one for one in found if one.run.cell.device == device]
    failed = sum(1 for one in here if one.failure)
    left = len(set(cells_of(definition, device)) - {one.run.cell for one in here})
    times_s = [one.run.wall_s for one in here if not one.failure]
    remaining_s = left * median(times_s) if times_s else None
    return DeviceStatus(device, len(here) - failed, failed, left, remaining_s if left else 0.0)
