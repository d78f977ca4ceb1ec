"""Cells of studies: what they have in common, and in which order they are shown."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import attrs

from precisionbench.results import ComparisonData
from precisionbench.results.grouping import grouped
from precisionbench.results.study import Cell, CellResult

K = TypeVar("K", bound=Hashable)


def device_name(data: ComparisonData) -> str:
    """The name of the GPU or the CPU that a comparison was measured on.

    Args:
        data: the comparison.
    """
    environment = data.environment
    return environment.gpu.name if environment.gpu else environment.cpu


def device_of(result: CellResult) -> str:
    """The device of a cell: the one that measured it, or the one that the study names.

    Args:
        result: of the cell.
    """
    return device_name(result.data) if result.data else result.cell.device


def cell_title(cell: Cell) -> str:
    """A cell in words, without its device and its backends.

    Args:
        cell: of a study.

    Returns:
        Such as `resnet50, 3x224x224, batch 8, 4 threads`.
    """
    parts = [cell.model]
    if cell.shape is not None:
        parts.append("x".join(map(str, cell.shape)) or "scalar")
    if cell.batch_size is not None:
        parts.append(f"batch {cell.batch_size}")
    if cell.threads is not None:
        parts.append(f"{cell.threads} thread{'s' * (cell.threads != 1)}")
    return ", ".join(parts)


def measured_batch(result: CellResult) -> int | None:
    """The batch size that a cell was measured with, or should have been.

    Args:
        result: of the cell.
    """
    named = result.cell.batch_size
    return named if named is not None or result.data is None else result.data.workload.batch_size


def measured_threads(result: CellResult) -> int | None:
    """The threads that a cell was measured with, or should have been.

    Args:
        result: of the cell.
    """
    named = result.cell.threads
    return named if named is not None or result.data is None else result.data.environment.threads


def on_its_device(result: CellResult) -> Cell:
    """The cell with the name of the device that measured it, so that cells can be matched.

    Args:
        result: of the cell.
    """
    return attrs.evolve(result.cell, device=device_of(result))


def newest(results: Iterable[CellResult]) -> tuple[CellResult, ...]:
    """One result for each cell and device: the newest one, or a failure where there is no other.

    Args:
        results: of cells, in any order.
    """
    cells = grouped(results, on_its_device)
    return tuple(max(found, key=_created) for found in cells.values())


def by_date(results: Iterable[CellResult]) -> list[ComparisonData]:
    """What was measured, in the order of its dates.

    Args:
        results: of cells.
    """
    found = [one.data for one in results if one.data is not None]
    return sorted(found, key=lambda data: data.created)


def _created(result: CellResult) -> str:
    return result.data.created if result.data else ""


def grouped_without(
    results: Iterable[CellResult], value: Callable[[CellResult], int | None], **unset: None
) -> list[list[tuple[int, CellResult]]]:
    """Groups of cells that differ in one number only, in the order of that number.

    Args:
        results: one for each cell.
        value: the number, such as the batch size; cells without it are left out.
        unset: the field of the cell that has this number, as None.

    Returns:
        For each group, the numbers with their cells.
    """
    numbered = [(number, one) for one in results if (number := value(one)) is not None]
    groups = grouped(numbered, lambda pair: attrs.evolve(on_its_device(pair[1]), **unset))
    return [sorted(group, key=lambda pair: pair[0]) for group in groups.values()]


def dates(results: Sequence[CellResult]) -> tuple[str, str] | None:
    """The first and the last date of results; None where nothing was measured.

    Args:
        results: of cells.
    """
    found = by_date(results)
    return (found[0].created, found[-1].created) if found else None
