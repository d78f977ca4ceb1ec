"""Plans a comparison: the models, the rows, and which row each is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import torch

from precisionbench._internal.output_capture import silence
from precisionbench.backends import Backend, discovery
from precisionbench.errors import SpecError, WorkloadError, some, text_of
from precisionbench.measure import availability
from precisionbench.measure.matrix import (
    MakeBackend,
    Matrix,
    PlannedRows,
    check_model_names,
    plan_matrix,
)
from precisionbench.measure.options import Options
from precisionbench.measure.rows import Backends, Row, first_backend, plan, plan_default
from precisionbench.model.inputs import whole_batch_size
from precisionbench.model.sources import takes_batch_size
from precisionbench.model.workload import Workload, resolve
from precisionbench.results import WorkloadInfo
from precisionbench.torchtools.global_state import Functions


@attrs.frozen
class Plan:
    """What to measure and how.

    Attributes:
        workloads: the model and inputs by the name of the model, empty where there is only one.
        planned: the rows, and which row each is compared with.
        options: how to measure.
        row_warnings: warnings that every row carries.
    """

    workloads: Mapping[str, Workload]
    planned: PlannedRows
    options: Options
    row_warnings: tuple[str, ...] = ()

    @classmethod
    def of_rows(
        cls, workload: Workload, rows: Sequence[Row], reference: str, options: Options
    ) -> Plan:
        """The plan of rows of one model.

        Args:
            workload: the model and inputs.
            rows: what to measure.
            reference: name of the row that the others are compared with.
            options: how to measure.
        """
        return cls({"": workload}, PlannedRows(rows, reference), options)

    @property
    def rows(self) -> Sequence[Row]:
        """What to measure."""
        return self.planned.rows

    @property
    def any_workload(self) -> Workload:
        """One of the workloads, for what all of them share: device and seed."""
        return next(iter(self.workloads.values()))

    @property
    def models(self) -> dict[str, WorkloadInfo]:
        """The models by name; empty where there is one without a name."""
        return {name: workload.info for name, workload in self.workloads.items() if name}

    @property
    def info(self) -> WorkloadInfo:
        """The model and inputs; of several models, what they have in common."""
        return WorkloadInfo.common(self.models) if self.models else self.any_workload.info

    @property
    def libraries(self) -> tuple[str, ...]:
        """Modules of well-known libraries that define parts of the models."""
        found = (module for one in self.workloads.values() for module in one.libraries)
        return tuple(dict.fromkeys(found))


@attrs.frozen
class Request:
    """What the user wants to measure.

    Attributes:
        models: the models by name; a single one may have the empty name.
        inputs: as for `compare`.
        backends: as for `compare`.
        reference: as for `compare`.
        device: as for `compare`.
        batch_sizes: one for each row to measure; empty for that of the inputs.
        batch_size: of the inputs, as for `compare`.
    """

    models: Mapping[str, Any]
    inputs: Any
    backends: Backends | None
    reference: str | Backend
    device: Any
    batch_sizes: tuple[int, ...]
    batch_size: int | None

    @classmethod
    def of(
        cls,
        model: Any,
        inputs: Any,
        backends: Backends | None,
        reference: str | Backend,
        device: Any,
        batch_size: int | Sequence[int] | None,
    ) -> Request:
        """The request of the arguments of `compare`.

        Raises:
            SpecError: the name of a model or the batch sizes cannot be used.
        """
        models, sizes = models_of(model), batch_sizes_of(batch_size)
        single = None if sizes else batch_size
        return cls(models, inputs, backends, reference, device, sizes, single)  # type: ignore[arg-type]

    @property
    def matrix(self) -> Matrix:
        """The models and batch sizes that rows are measured for."""
        return Matrix(tuple(filter(None, self.models)), self.batch_sizes)

    def planned(self, options: Options) -> Plan:
        """The rows and the workloads.

        Args:
            options: how to measure.

        Raises:
            SpecError: a backend or the reference is invalid.
            WorkloadError: a model, the inputs or the device cannot be used.
        """
        functions, is_inline = Functions.now(), options.launcher == "inline"
        make = discovery.make if is_inline else availability.make
        with silence():  # what a factory prints is in each row's log: it is called again there
            given = [] if self.backends is None else self.backends
            rows = planned_rows(given, self.reference, self.matrix, make)
            workloads = self._workloads(options.seed_or_random())
            if self.backends is None:
                rows = self._default_rows(workloads, make)
        warnings = _patch_warnings(functions.changes()) if is_inline else ()
        return Plan(workloads, rows, options, warnings)

    def _workloads(self, seed: int) -> dict[str, Workload]:
        workloads = {
            name: resolve(
                model,
                self.inputs,
                device=self.device,
                batch_size=self._batch_size_of(model),
                seed=seed,
            )
            for name, model in self.models.items()
        }
        _check_one_device({name: one.device for name, one in workloads.items()})
        return workloads

    def _batch_size_of(self, model: Any) -> int | None:
        """The batch size to make, of which rows with a smaller one take the first items."""
        if not self.batch_sizes:
            return self.batch_size
        return max(self.batch_sizes) if takes_batch_size(model) else None

    def _default_rows(self, workloads: Mapping[str, Workload], make: MakeBackend) -> PlannedRows:
        device_type = next(iter(workloads.values())).device.type
        has_images = any(one.info.has_images for one in workloads.values())
        plan_rows = partial(_default, device_type, has_images, make)
        return plan_matrix(self.reference, self.matrix, plan_rows, make=make)


def _default(
    device_type: str, has_images: bool, make: MakeBackend, reference: str | Backend
) -> tuple[list[Row], str]:
    return plan_default(device_type, has_images, reference, make)


def planned_rows(
    backends: Backends,
    reference: str | Backend,
    matrix: Matrix,
    make: MakeBackend = discovery.make,
) -> PlannedRows:
    """The rows of these backends for all models and batch sizes.

    Args:
        backends: as for `compare`.
        reference: as for `compare`.
        matrix: the models and batch sizes.
        make: makes a backend of a spec.

    Raises:
        SpecError: a backend or the reference is invalid.
    """
    plan_rows: Callable[..., tuple[list[Row], str]] = partial(_plan, backends, make)
    return plan_matrix(reference, matrix, plan_rows, first_backend(backends), make)


def _plan(backends: Backends, make: MakeBackend, reference: str | Backend) -> tuple[list[Row], str]:
    return plan(backends, reference, make)


def models_of(model: Any) -> dict[str, Any]:
    """The models by name; one that is not in a mapping has the empty name.

    Args:
        model: as for `compare`.

    Raises:
        SpecError: a name cannot be used, or there is no model.
    """
    if not isinstance(model, Mapping):
        return {"": model}
    models = {text_of(name): one for name, one in model.items()}
    if not models:
        raise SpecError("there is no model in the mapping", "give {'old': model, 'new': other}")
    check_model_names(list(models))
    return models


def batch_sizes_of(given: Any) -> tuple[int, ...]:
    """Several batch sizes, ascending; none where one or none was given.

    Args:
        given: as for `compare`.

    Raises:
        SpecError: one of them is not a whole number of 1 or more.
    """
    if given is None or isinstance(given, str) or not isinstance(given, Iterable):
        return ()
    sizes = sorted({size for one in given if (size := whole_batch_size(one)) is not None})
    if not sizes:
        raise SpecError(f"batch_size is {given!r}", "give a number, or several such as [1, 8, 32]")
    return tuple(sizes)


def _check_one_device(devices: Mapping[str, torch.device]) -> None:
    if len(set(devices.values())) > 1:
        places = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise WorkloadError(
            f"the models are on different devices ({places})", "give the device to measure on"
        )


def _patch_warnings(names: list[str]) -> tuple[str, ...]:
    """The warning of every row where importing or building something has patched torch."""
    if not names:
        return ()
    return (
        f"importing or building the model or a plugin patched torch for the whole process "
        f"({some(names)}); this row ran with the patches",
    )
