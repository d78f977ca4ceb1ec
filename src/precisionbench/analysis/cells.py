"""Cells of studies: what they have in common, and in which order they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from precisionbench.results import ComparisonData
from precisionbench.results.grouping import grouped
from precisionbench.results.study import Cell, CellResult


def device_name(data: ComparisonData) -> str:
    """The name of the GPU or the CPU that a comparison was measured on.

    Args:
        data: the comparison.
    """
    environment = data.environment
    return environment.gpu.name if environment.gpu else environment.cpu


def result_of(data: ComparisonData) -> CellResult:
    """A comparison as the result of a cell, also one that was measured outside of a study.

    Args:
        data: the comparison.
    """
    if data.study is not None:
        return CellResult(data.study.cell, data, wall_s=data.study.wall_s)
    workload = data.workload
    cell = Cell(workload.model, None, workload.batch_size, None, device_name(data), ())
    return CellResult(cell, data)


def named(results: Iterable[CellResult]) -> list[CellResult]:
    """Results whose cells have the whole name of the device, so that cells can be matched.

    A study may name a part of it. A cell that failed gets the name of the device on which other
    cells of the same part were measured.

    Args:
        results: of cells.
    """
    found = list(results)
    names: dict[str, set[str]] = {}
    for one in found:
        if one.data is not None:
            names.setdefault(one.cell.device, set()).add(device_name(one.data))
    return [attrs.evolve(one, cell=_on_device(one, names)) for one in found]


def _on_device(result: CellResult, names: Mapping[str, set[str]]) -> Cell:
    if result.data is not None:
        return attrs.evolve(result.cell, device=device_name(result.data))
    known = names.get(result.cell.device, set())
    return attrs.evolve(result.cell, device=known.copy().pop()) if len(known) == 1 else result.cell


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


def newest(results: Iterable[CellResult]) -> tuple[CellResult, ...]:
    """One result for each cell: the newest one, or a failure where there is no other.

    Args:
        results: of cells, in any order, as `named` returns them.
    """
    cells = grouped(results, lambda one: one.cell)
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
