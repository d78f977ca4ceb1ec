"""The user's model and inputs, of which each backend gets private copies on the device."""

from __future__ import annotations

import contextlib
import gc
import importlib
import inspect
import itertools
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from precisionbench.errors import FOREIGN_ERRORS, WorkloadError, kind_of, one_line
from precisionbench.model.inputs import (
    as_inputs,
    batch_size_of,
    copied,
    is_factory,
    whole_batch_size,
    with_items,
)
from precisionbench.model.libraries import library_modules
from precisionbench.model.sources import (
    CopiedModel,
    ModelFactory,
    model_factory,
    private_copy,
    tensors_of,
)
from precisionbench.results import TensorInfo, WorkloadInfo
from precisionbench.results.dtypes import dtype_name
from precisionbench.torchtools.global_state import flags_restored, rng_restored, seed_everything
from precisionbench.torchtools.tensors import Inputs


@attrs.frozen
class Workload:
    """A model that can be built again and again, the same each time, and its inputs.

    Attributes:
        info: its description in results.
        build: builds the model (or copies the user's); may give `(model, inputs)`.
        inputs: the arguments of one forward pass, as the user gave them.
        device: where it is to run.
        seed: of the random state in which `build` is called.
        attached: plain tensors on the device that are attributes of modules, as (module's path,
            attribute): `model.to` moves parameters and buffers only, and a worker gets all of them
            on the CPU.
        imports: packages that the first building imported: a worker imports them beforehand.
        libraries: modules of well-known libraries that define parts of the model.
    """

    info: WorkloadInfo
    build: ModelFactory
    inputs: Inputs
    device: torch.device
    seed: int
    attached: tuple[tuple[str, str], ...] = ()
    imports: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()

    def make_model(self) -> nn.Module:
        """A private copy of the model, in eval mode, on the device.

        Raises:
            WorkloadError: the model cannot be copied, built, or moved to the device.
        """
        return self.moved(self.built())

    def built(self) -> nn.Module:
        """A private copy of the model where `build` makes it, mostly on the CPU.

        Raises:
            WorkloadError: the model cannot be copied or built.
        """
        with _as_first_built(self.seed):
            model, _ = _split(_call(self.build, f"the model {self.info.model!r}"))
        return model

    def moved(self, model: nn.Module) -> nn.Module:
        """The model in eval mode on the device.

        Args:
            model: as `built` gives it; changed in place.

        Raises:
            WorkloadError: it cannot be moved to the device.
        """
        model = _in_eval_mode(_moved(model, self.device))
        for path, attribute in self.attached:
            module = model.get_submodule(path)
            setattr(module, attribute, getattr(module, attribute).to(self.device))
        return model

    def preload(self) -> None:
        """Import what building the model needs, where that is known."""
        getattr(self.build, "preload", lambda: None)()
        for package in self.imports:
            with contextlib.suppress(*FOREIGN_ERRORS):  # building will raise a clearer error
                importlib.import_module(package)

    def make_inputs(self) -> Inputs:
        """Private copies of the inputs on the device."""
        return copied(self.inputs, self.device)

    def with_batch(self, batch_size: int) -> Workload:
        """The same workload with the first items of its batch only, or with them repeated.

        Args:
            batch_size: items to have, another number than there are.

        Raises:
            WorkloadError: nothing in the inputs is as long as the batch.
        """
        inputs = with_items(self.inputs, self.info.batch_size or 0, batch_size)
        info = attrs.evolve(self.info, batch_size=batch_size)
        return attrs.evolve(self, info=info, inputs=inputs)


def resolve(
    model: nn.Module | ModelFactory | str,
    inputs: Any = None,
    *,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> Workload:
    """Make a workload of the user's model and inputs, and check them.

    Args:
        model: an `nn.Module`, a factory, `"torchvision:NAME"`, `"package.module:function"` or
            `"path/to/file.py:function"`. A factory gives the model or `(model, inputs)`; it is
            called anew for every backend, with the same random seed, so it must build the same
            model each time.
        inputs: a tensor, a tuple of positional arguments, a mapping of keyword arguments, or a
            factory of one of these. None where the model's factory gives them.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, ...; None takes the model's GPU, else the current
            GPU, else the CPU.
        batch_size: items that one call serves, where the first tensor's first dimension (or the
            length of a first argument that is a list) does not say it; for `torchvision:NAME`
            and functions with a `batch_size` parameter the size of the batch to make.
        seed: of weights and inputs made by factories.

    Raises:
        WorkloadError: what is wrong with the model, the inputs or the device, and what to do.
    """
    batch_size = whole_batch_size(batch_size)
    target = usable_device(device, model)
    name, build = model_factory(model, batch_size, target)
    modules_before = set(sys.modules)
    built, checked = _first_built(name, build, inputs, seed)
    _check_devices(built, checked, free=device is not None or not isinstance(model, nn.Module))
    _check_complete(built)
    info = _describe(name, built, checked, batch_size_of(batch_size, checked))
    attached = _attached(built, target)
    libraries = library_modules(built)
    parts = [weakref.ref(part) for part in (*built.modules(), *tensors_of(built))]
    del built
    if _still_alive(parts):  # a later call would give the same weights, which a row may have cast
        build = _copying(build)
    imports = _packages_since(modules_before)
    return Workload(info, build, checked, target, seed, attached, imports, libraries)


def _first_built(
    name: str, build: ModelFactory, inputs: Any, seed: int
) -> tuple[nn.Module, Inputs]:
    """The model as it is built for the first time, and its inputs, checked."""
    with _as_first_built(seed):
        model, made_inputs = _split(_call(build, f"the model {name!r}"))
        given = made_inputs if inputs is None else inputs
        given = _call(given, "inputs") if is_factory(given) else given
        return model, as_inputs(given, name)


def _packages_since(modules: set[str]) -> tuple[str, ...]:
    """Packages that were imported since `modules` were all that was imported."""
    old = {name.partition(".")[0] for name in modules}
    return tuple(sorted({name.partition(".")[0] for name in set(sys.modules) - modules} - old))


def _describe(name: str, model: nn.Module, inputs: Inputs, batch_size: int | None) -> WorkloadInfo:
    return WorkloadInfo(
        model=name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        inputs=tuple(
            TensorInfo(path, tuple(tensor.shape), dtype_name(tensor.dtype))
            for path, tensor in inputs.tensors()
        ),
        batch_size=batch_size,
    )


@contextlib.contextmanager
def _as_first_built(seed: int) -> Iterator[None]:
    """The random state in which a model is built; global state is restored on leaving."""
    with rng_restored(), flags_restored():
        seed_everything(seed)
        yield


def _still_alive(parts: list[weakref.ref[Any]]) -> bool:
    """Whether any part is referenced, other than by a cycle that garbage collection frees."""
    if all(part() is None for part in parts):
        return False
    gc.collect()
    return any(part() is not None for part in parts)


def _copying(build: ModelFactory) -> ModelFactory:
    def build_copy() -> Any:
        model, inputs = _split(build())
        return private_copy(model), inputs

    return build_copy


def _device_error(error: Exception) -> str:
    """Torch's error in a line, without its list of every type of device."""
    text = one_line(error)
    is_list = "at start of device string" in text
    return "torch has no such type; known: cpu, cuda, cuda:1, ..." if is_list else text


def usable_device(device: str | torch.device | None, model: object = None) -> torch.device:
    """The device to measure on, once a tensor could be created there.

    Args:
        device: as the user gave it; None takes the model's GPU, else the current GPU, else the CPU.
        model: what is to be measured, where there is a model.

    Raises:
        WorkloadError: there is no such device, or it computes nothing.
    """
    if device is None:
        placed = _device_of(model) if isinstance(model, nn.Module) else None
        if placed is not None and placed.type != "cpu":
            return placed
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except Exception as exc:  # RuntimeError, AssertionError, NotImplementedError: torch's own mix
        raise WorkloadError(
            f"the device {str(device)!r} cannot be used ({_device_error(exc)})",
            "use 'cpu', or a torch built for this device",
        ) from exc
    if chosen.type == "meta":
        raise WorkloadError("a 'meta' device computes nothing", "use 'cpu' or 'cuda'")
    if chosen.type == "cuda" and chosen.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return chosen


def _device_of(model: nn.Module) -> torch.device | None:
    tensors = tensors_of(model)
    return tensors[0].device if tensors else None


def _call(build: ModelFactory, what: str) -> Any:
    try:
        return build()
    except WorkloadError:
        raise
    except FOREIGN_ERRORS as exc:
        raise WorkloadError(
            f"{what} cannot be built or copied ({one_line(exc)})", _building_remedy(build, exc)
        ) from exc


def _building_remedy(build: ModelFactory, error: BaseException) -> str:
    """What to do about a model or inputs that could not be built."""
    text = str(error)
    if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text:
        return "use a smaller model or smaller inputs"
    if isinstance(build, CopiedModel) or (isinstance(error, TypeError) and "required" in text):
        return "give a function without arguments that builds it"
    return "correct the function that builds it; call it alone to see the traceback"


def _split(built: Any) -> tuple[nn.Module, Any]:
    model, inputs = built if isinstance(built, tuple) and len(built) == 2 else (built, None)
    if isinstance(model, torch.export.ExportedProgram):
        model = model.module()
    if inspect.iscoroutine(model):
        model.close()  # else Python warns that it was never awaited
    if not isinstance(model, nn.Module):
        raise WorkloadError(
            f"the function that builds the model returned {_kind(model)}",
            "return an nn.Module or (nn.Module, inputs) from it",
        )
    return model, inputs


def _kind(value: object) -> str:
    """What a function returned instead of a model."""
    if value is None:
        return "None"
    size = f" of {len(value)} items" if isinstance(value, tuple) else ""
    return f"{kind_of(value)}{size}"


def _moved(model: nn.Module, device: torch.device) -> nn.Module:
    try:
        return model.to(device)
    except Exception as exc:
        is_of_device = isinstance(exc, (RuntimeError, MemoryError))  # and no fault of its pickling
        raise WorkloadError(
            f"the model cannot be moved to {device} ({one_line(exc)})",
            "use a smaller model or another device"
            if is_of_device
            else "pass a function that builds the model, or use the launcher 'inline'",
        ) from exc


def _attached(model: nn.Module, device: torch.device) -> tuple[tuple[str, str], ...]:
    """Plain tensors on a device other than the CPU that are attributes of modules."""
    if device.type == "cpu":
        return ()
    return tuple(
        (path, attribute)
        for path, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, torch.Tensor) and value.device.type == device.type
    )


def _in_eval_mode(model: nn.Module) -> nn.Module:
    # An exported program is in eval mode already and refuses the call.
    with contextlib.suppress(NotImplementedError):
        model.eval()
    return model


def _check_devices(model: nn.Module, inputs: Inputs, free: bool) -> None:
    """Raise for inputs on another device than the model; `free` where copies go to any device."""
    placed = _device_of(model)
    for path, tensor in inputs.tensors():
        if tensor.device.type == "meta":
            raise WorkloadError(f"inputs{path} is on 'meta' and holds no data", "give real data")
        if not free and placed is not None and tensor.device != placed:
            raise WorkloadError(
                f"inputs{path} is on {tensor.device} but the model is on {placed}",
                "move one of them, or name the device, and both are copied there",
            )


def _check_complete(model: nn.Module) -> None:
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
            raise WorkloadError(
                f"the model's {name} is lazy and has no shape yet",
                "call the model once on its inputs first, in the factory or before you pass it",
            )
        if tensor.is_meta:
            raise WorkloadError(
                f"the model's {name} is on 'meta' and holds no data", "load its weights first"
            )
