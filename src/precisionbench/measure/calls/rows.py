"""Functions as the rows of a comparison."""

from __future__ import annotations

import inspect
import re
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import attrs
import cloudpickle
import torch
from torch import nn

from precisionbench._internal.importing import working_directory_on_path
from precisionbench._internal.unpickling import loads
from precisionbench.errors import ENDS_OF_RUN, SpecError, WorkloadError, kind_of, one_line, text_of
from precisionbench.measure.rows import Row
from precisionbench.measure.worker.calls import CallBackend
from precisionbench.model.workload import Workload, usable_device
from precisionbench.results import WorkloadInfo
from precisionbench.results.claims import Claims
from precisionbench.results.comparison_data import CALL
from precisionbench.results.json_values import Json
from precisionbench.torchtools.tensors import Inputs
from precisionbench.torchtools.timer import Call

_LOCAL = "<locals>."
_SEPARATORS = re.compile(r"[:,=#\s]+")  # of specs: a row's name has none


@attrs.frozen
class CallRow(Row):
    """A function to measure; it has no options."""

    @property
    def identity(self) -> dict[str, Json]:
        """Fields that identify the row in results."""
        return {"backend": self.name, "name": CALL, "options": {}}


@attrs.frozen
class _Pickled:
    """Loads a function in a worker, with its tensors on the devices on which they are here."""

    data: bytes

    def __call__(self) -> Call:
        with working_directory_on_path():
            call: Call = loads(self.data)
        return call


def title_of(function: Callable[..., Any]) -> str:
    """The name of a function, for texts and as the name of a row.

    Args:
        function: any callable.
    """
    while isinstance(function, partial):
        function = function.func
    is_python = inspect.isfunction(function) or inspect.ismethod(function)
    name = getattr(function, "__qualname__" if is_python else "__name__", type(function).__name__)
    return _SEPARATORS.sub(".", text_of(name).rpartition(_LOCAL)[2])


def call_rows(calls: Mapping[str, Call], *, in_workers: bool, keeps_output: bool) -> list[CallRow]:
    """The rows of functions.

    Args:
        calls: functions without arguments, by the names of their rows.
        in_workers: whether they are measured in worker processes.
        keeps_output: whether their outputs are compared.

    Raises:
        SpecError: a name cannot be the name of a row.
        WorkloadError: a function cannot be sent to a worker.
    """
    return [
        CallRow(
            name,
            CALL,
            CallBackend(
                load=_Pickled(_pickled(name, call)) if in_workers else _constant(call),
                title=name,
                keeps_output=keeps_output,
            ),
            claims=Claims(),
        )
        for name, call in calls.items()
    ]


def _constant(call: Call) -> Callable[[], Call]:
    return lambda: call


def _pickled(name: str, call: Call) -> bytes:
    try:
        data: bytes = cloudpickle.dumps(call, protocol=5)
    except ENDS_OF_RUN:
        raise
    except BaseException as exc:
        raise WorkloadError(
            f"{name} cannot be sent to a worker process ({one_line(exc)})",
            "leave replicas out, and it is measured in this process",
        ) from exc
    return data


def check_calls(calls: object) -> dict[str, Call]:
    """The functions to compare, by name.

    Args:
        calls: as the user gave them.

    Raises:
        SpecError: they are not a mapping of names to callables.
    """
    if not isinstance(calls, Mapping) or not calls:
        raise SpecError(f"calls is {text_of(calls, 100)!r}", "give a dict: {'a': f, 'b': g}")
    for name, call in calls.items():
        if not isinstance(name, str) or not name or _SEPARATORS.search(name):
            raise SpecError(f"the name {text_of(name, 100)!r} is not a word", "use one such as 'a'")
        check_callable(call)
    return dict(calls)


def check_callable(function: object) -> None:
    """Refuse what cannot be called.

    Args:
        function: as the user gave it.

    Raises:
        SpecError: it cannot be called.
    """
    if not callable(function):
        raise SpecError(
            f"{kind_of(function)} cannot be called",
            "give the function itself and its arguments: f, x and not f(x)",
        )


def call_workload(title: str, device: torch.device) -> Workload:
    """A workload without a model.

    Args:
        title: what is measured.
        device: whose clock times it.
    """
    info = WorkloadInfo(title, None, (), None)
    return Workload(info, _no_model, Inputs(), device, secrets.randbits(32))


def _no_model() -> nn.Module:
    return nn.Identity()


def device_in_use(device: Any) -> torch.device:
    """The device whose clock times calls that were made once in this process.

    Args:
        device: as the user gave it; None is the accelerator of this process, if one was used.

    Raises:
        WorkloadError: there is no such device.
    """
    if device is not None:
        return usable_device(device)
    if torch.cuda.is_available():
        used = torch.cuda.is_initialized()
        return torch.device("cuda", torch.cuda.current_device()) if used else torch.device("cpu")
    if torch.accelerator.is_available():
        return torch.accelerator.current_accelerator() or torch.device("cpu")
    return torch.device("cpu")
