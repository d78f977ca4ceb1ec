"""Results of several studies put together: only what is comparable is in one group.

Cells of one group were measured on the same kind of device with the same versions, and two results
of one cell differ in nothing that can change times. Each further group names what sets it apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from precisionbench.analysis.cells import named
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
    found = named(results)
    groups: list[_Members] = []
    for one in sorted(found, key=lambda one: one.data is None):
        place = next((group for group in groups if group.takes(one)), None)
        if place is None:
            place = _Members(one)
            groups.append(place)
        place.add(one)
    return Merged(tuple(_group(groups[0], members) for members in groups))


class _Members:
    """The results of a group, found by cell and by model.

    Args:
        first: the result that the others must be comparable with.
    """

    def __init__(self, first: CellResult) -> None:
        self.first = first
        self.results: list[CellResult] = []
        self._by_cell: dict[Cell, list[CellResult]] = {}
        self._parameters: dict[str, int | None] = {}

    def takes(self, one: CellResult) -> bool:
        """Whether a result belongs to this group."""
        if one.data is None:
            return one.cell.device == self.first.cell.device
        return not self.mismatches(one, one.data)

    def add(self, one: CellResult) -> None:
        """Add a result, unless an equal one is there."""
        same_cell = self._by_cell.setdefault(one.cell, [])
        if one in same_cell:
            return
        same_cell.append(one)
        self.results.append(one)
        if one.data is not None:
            self._parameters.setdefault(one.cell.model, one.data.workload.parameters)

    def mismatches(self, one: CellResult, data: ComparisonData) -> tuple[Mismatch, ...]:
        """What keeps a result out: its device, its versions, its model, or its cell's conditions.

        Args:
            one: the result.
            data: what it measured.
        """
        if self.first.data is None:
            return (Mismatch("device", self.first.cell.device, one.cell.device),)
        machine = (
            *hardware_mismatches(self.first.data, data),
            *software_mismatches(self.first.data, data),
        )
        return machine or self._of_model(one.cell.model, data) or self._of_cell(one.cell, data)

    def _of_model(self, model: str, data: ComparisonData) -> tuple[Mismatch, ...]:
        now = data.workload.parameters
        before = self._parameters.get(model, now)
        if before == now:
            return ()
        return (Mismatch(f"parameters of {model}", str(before), str(now)),)

    def _of_cell(self, cell: Cell, data: ComparisonData) -> tuple[Mismatch, ...]:
        measured = (one.data for one in self._by_cell.get(cell, ()) if one.data is not None)
        again = next(measured, None)
        return () if again is None else mismatches(again, data)


def _group(first: _Members, members: _Members) -> Group:
    one, results = members.first, tuple(members.results)
    if members is first:
        apart: tuple[Mismatch, ...] = ()
    elif one.data is None:
        apart = (Mismatch("device", first.first.cell.device, one.cell.device),)
    else:
        apart = first.mismatches(one, one.data)
    return Group(one.cell.device, results, apart, tuple(_notes(results)))


def _notes(members: Sequence[CellResult]) -> Iterable[str]:
    boards = {
        one.data.environment.gpu.uuid
        for one in members
        if one.data and one.data.environment.gpu and one.data.environment.gpu.uuid
    }
    if len(boards) > 1:
        yield f"{len(boards)} boards of the same model, which may differ by a few percent"
    times = Counter(one.cell for one in members if one.data is not None)
    repeated = [(cell, count) for cell, count in times.items() if count > 1]
    if repeated:
        cell, count = repeated[0]
        more = f", and {len(repeated) - 1} more cells" if len(repeated) > 1 else ""
        yield f"tables have the newest of {count} results of {cell.title}{more}"
