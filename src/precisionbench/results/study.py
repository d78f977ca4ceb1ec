"""The cells of a study: what each of them measures, and what it gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from precisionbench.display import Shown
from precisionbench.results.validators import check_batch_size, check_shape

if TYPE_CHECKING:
    from precisionbench.results.comparison_data import ComparisonData


def _check_shape(instance: object, attribute: object, shape: tuple[int, ...] | None) -> None:
    if shape is not None:
        check_shape(instance, attribute, shape)


@attrs.frozen(repr=False)
class Cell(Shown):
    """One comparison of a study.

    Attributes:
        model: the model's label, or its name where it has none.
        shape: shape of one item of a random input; None where the model brings its inputs.
        batch_size: items per call; None is the model's own default.
        threads: number of CPU threads of a call; None is torch's default.
        device: name of the device, such as `NVIDIA H200`, or the part of it that the study names.
        backends: specs of the rows; empty for the default rows of the device.
    """

    model: str
    shape: tuple[int, ...] | None = attrs.field(validator=_check_shape)
    batch_size: int | None = attrs.field(validator=check_batch_size)
    threads: int | None
    device: str
    backends: tuple[str, ...]

    @property
    def title(self) -> str:
        """The cell in words, without its device, such as `resnet50, batch 8, 2 threads`."""
        parts = [self.model]
        parts += [f"shape {'x'.join(map(str, self.shape))}"] if self.shape else []
        parts += [f"batch {self.batch_size}"] if self.batch_size else []
        parts += [f"{self.threads} thread{'s' * (self.threads != 1)}"] if self.threads else []
        return ", ".join(parts)


@attrs.frozen(repr=False)
class StudyRun(Shown):
    """The cell that a comparison of a study belongs to, and how long it took.

    Attributes:
        cell: what was measured.
        wall_s: time from the start of the cell to its result.
    """

    cell: Cell
    wall_s: float


@attrs.frozen(repr=False)
class CellResult(Shown):
    """A finished cell of a study.

    Attributes:
        cell: what was measured.
        data: what it gave; None where it failed.
        failure: why it failed; empty where it did not.
        wall_s: time from the start of the cell to its result or failure.
    """

    cell: Cell
    data: ComparisonData | None
    failure: str = ""
    wall_s: float = 0.0


@attrs.frozen(repr=False)
class DeviceStatus(Shown):
    """How far a study is on one device.

    Attributes:
        device: its name in the study.
        measured: number of cells with a result.
        failed: number of cells that failed.
        left: number of cells that are still to be measured.
        remaining_s: estimated time for these, if one after another; None before the first result.
    """

    device: str
    measured: int
    failed: int
    left: int
    remaining_s: float | None
