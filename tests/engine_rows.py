"""A row of a real engine without a measurement: its output, its details and its label."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import attrs
import torch
from torch import nn

from made_up_results import CLEAN, comparison
from precisionbench.backends import Backend, Inputs, Prepared
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.findings import Label
from precisionbench.probes.layers import eager_module
from precisionbench.probes.profiler import profiled
from precisionbench.results import ComparisonData
from precisionbench.results.evidence import Evidence, Operation
from precisionbench.torchtools.tensors import map_tensors


@attrs.frozen
class Row:
    """What a prepared backend gave."""

    output: Any
    prepared: Prepared

    @property
    def details(self) -> dict[str, Any]:
        return dict(self.prepared.details)


class Prepares:
    """A context within which a backend is prepared; its inputs can be changed."""

    def __init__(self, backend: Backend, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        self.backend, self.model, self.inputs = backend, model, Inputs(args, kwargs)
        self.inputs = self.inputs.map(lambda tensor: tensor.clone())

    def __enter__(self) -> Prepares:
        self._stack = ExitStack()
        manager = self.backend.prepare(self.model, self.inputs)
        self.prepared = self._stack.enter_context(manager)
        self.call = self.prepared.call
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def prepared(backend: Backend, model: nn.Module, *args: Any, **kwargs: Any) -> Row:
    """Prepare a backend, call it once and end it."""
    with Prepares(backend, model, *args, **kwargs) as found:
        return Row(map_tensors(torch.clone, found.call()), found.prepared)


def profiled_label(found: Prepares) -> Label:
    """The label of a row of PyTorch on a CPU, by a profile of its calls."""
    module = eager_module(found.prepared.module)
    with torch.inference_mode():
        found.call()
        profile = profiled(found.call, 0.1, torch.device("cpu"), module)
    return _label(found.backend, found.prepared, Evidence(**profile))


def engine_label(backend: Backend, row: Row) -> Label:
    """The label of the row on a CPU, where it was not profiled."""
    return _label(backend, row.prepared, None)


def _label(backend: Backend, prepared: Prepared, evidence: Evidence | None) -> Label:
    changes = {
        "name": backend.name,
        "claims": backend.claims(),
        "details": dict(prepared.details),
        "engine_operations": prepared.engine_operations,
    }
    data = comparison(CLEAN["base"], evidence, half_row=changes, gpu=None)
    return diagnosis_of(data).labels[1]


def gpu_label(
    backend: Backend,
    operations: tuple[Operation, ...],
    details: Mapping[str, Any],
    seen: Evidence | None = None,
) -> tuple[ComparisonData, Label]:
    """A comparison with a row of a GPU that reports these layers, and the label of the row."""
    row = {
        "name": backend.name,
        "claims": backend.claims(),
        "engine_operations": operations,
        "details": details,
    }
    data = comparison(CLEAN["base"], seen, half_row=row)
    return data, diagnosis_of(data).labels[1]
