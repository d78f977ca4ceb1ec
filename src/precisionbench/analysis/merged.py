"""Results of several studies put together: only what is comparable is in one group.

Cells of one group were measured on the same kind of device with the same versions, and two results
of one cell differ in nothing that can change times. Each further group names what sets it apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from precisionbench.analysis.cells import cell_title, device_of, on_its_device
from precisionbench.analysis.comparable import (
    Mismatch,
    hardware_mismatches,
    mismatches,
    software_mismatches,
)
from precisionbench.display import Shown
from precisionbench.errors import IncomparableError
from precisionbench.results import ComparisonData
from precisionbench.results.study import Cell, CellResult

_MOST_SHOWN = 8


@attrs.frozen(repr=False)
class Group(Shown):
    """Results that are comparable with each other.

    Attributes:
        device: name of the device.
        results: its cells, in the order given.
        apart: how it differs from the first group; empty for the first group itself.
        notes: what qualifies the group.
    """

    device: str
    results: tuple[CellResult, ...]
    apart: tuple[Mismatch, ...] = ()
    notes: tuple[str, ...] = ()


@attrs.frozen(repr=False)
class Merged(Shown):
    """Results of several studies, in groups of comparable ones.

    Attributes:
        groups: the first one has the first result; later ones differ from it.
    """

    groups: tuple[Group, ...]

    @property
    def results(self) -> tuple[CellResult, ...]:
        """The results of all groups."""
        return tuple(one for group in self.groups for one in group.results)

    def refuse_if_apart(self) -> None:
        """Raise an error that names what sets groups apart, if there are several.

        Raises:
            IncomparableError: the results are not all comparable.
        """
        if len(self.groups) < 2:
            return
        reasons = "; ".join(f"{group.device}: {apart_text(group)}" for group in self.groups[1:])
        raise IncomparableError(
            f"the results form {len(self.groups)} groups that are not comparable ({reasons})",
            "merge results of one device and one set of versions, or leave out --strict",
        )


def apart_text(group: Group) -> str:
    """What sets a group apart from the first one, such as `torch 2.15.0 instead of 2.14.1`.

    Args:
        group: not the first one.
    """
    shown = [f"{one.field} {one.new} instead of {one.old}" for one in group.apart[:_MOST_SHOWN]]
    more = len(group.apart) - _MOST_SHOWN
    return ", ".join([*shown, *([f"{more} more differences"] if more > 0 else [])])


def merge(results: Iterable[CellResult]) -> Merged:
    """Put the results of studies together.

    Equal results are kept once. A cell that failed is in the first group of its device.

    Args:
        results: of the cells of any number of studies.
    """
    found = list(results)
    groups: list[list[CellResult]] = []
    for one in (one for one in found if one.data is not None):
        _add(groups, one)
    for one in (one for one in found if one.data is None):
        _add_failed(groups, one)
    return Merged(tuple(_group(groups[0], members) for members in groups))


def _add(groups: list[list[CellResult]], one: CellResult) -> None:
    for group in groups:
        if one in group:
            return
        if not _mismatches(group, one):
            group.append(one)
            return
    groups.append([one])


def _add_failed(groups: list[list[CellResult]], one: CellResult) -> None:
    named = one.cell.device.casefold()
    for group in groups:
        if named in device_of(group[0]).casefold():
            if one not in group:
                group.append(one)
            return
    groups.append([one])


def _mismatches(group: Sequence[CellResult], one: CellResult) -> tuple[Mismatch, ...]:
    """What keeps a result out of a group: its device, its versions, or another run of its cell."""
    first, data = group[0].data, one.data
    assert data is not None
    if first is None:
        return (Mismatch("device", device_of(group[0]), device_of(one)),)
    found = (*hardware_mismatches(first, data), *software_mismatches(first, data))
    if found:
        return found
    if (other := _same_model(group, data)) and other.workload.parameters != (
        data.workload.parameters
    ):
        parameters = other.workload.parameters, data.workload.parameters
        return (Mismatch(f"parameters of {data.workload.model}", *map(str, parameters)),)
    again = _same_cell(group, one)
    return mismatches(again, data) if again else ()


def _same_model(group: Sequence[CellResult], data: ComparisonData) -> ComparisonData | None:
    others = (one.data for one in group if one.data)
    return next((one for one in others if one.workload.model == data.workload.model), None)


def _same_cell(group: Sequence[CellResult], one: CellResult) -> ComparisonData | None:
    cell = on_its_device(one)
    return next(
        (other.data for other in group if other.data and on_its_device(other) == cell), None
    )


def _group(first: Sequence[CellResult], members: Sequence[CellResult]) -> Group:
    apart = () if members is first else _apart(first, members)
    return Group(device_of(members[0]), tuple(members), apart, tuple(_notes(members)))


def _apart(first: Sequence[CellResult], members: Sequence[CellResult]) -> tuple[Mismatch, ...]:
    if members[0].data is None:
        return (Mismatch("device", device_of(first[0]), device_of(members[0])),)
    return _mismatches(first, members[0])


def _notes(members: Sequence[CellResult]) -> Iterable[str]:
    boards = {
        one.data.environment.gpu.uuid
        for one in members
        if one.data and one.data.environment.gpu and one.data.environment.gpu.uuid
    }
    if len(boards) > 1:
        yield f"{len(boards)} boards of the same model, which may differ by a few percent"
    times: dict[Cell, int] = {}
    for one in members:
        if one.data is not None:
            times[on_its_device(one)] = times.get(on_its_device(one), 0) + 1
    repeated = {cell: count for cell, count in times.items() if count > 1}
    if repeated:
        cell, count = next(iter(repeated.items()))
        more = f", and {len(repeated) - 1} more cells" if len(repeated) > 1 else ""
        yield f"tables have the newest of {count} results of {cell_title(cell)}{more}"
