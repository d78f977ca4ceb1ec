"""The model and its inputs: from whatever the user gives to private copies on the device."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.nn.utils.rnn import PackedSequence

from precisionbench.builtin_models import TorchvisionModel
from precisionbench.errors import WorkloadError, did_you_mean, one_line
from precisionbench.packages import working_directory_on_path
from precisionbench.results import TensorInfo, WorkloadInfo
from precisionbench.torch_state import rng_restored, seed_everything
from precisionbench.trees import Inputs

# Batch of the built-in models where the user names none: the founding case's on a GPU; on a CPU
# one that answers within seconds.
DEFAULT_BATCH_SIZE = {"cuda": 100}
DEFAULT_BATCH_SIZE_ELSEWHERE = 4

ModelFactory = Callable[[], Any]


@attrs.frozen
class Workload:
    """A model that can be built again and again, the same each time, and its inputs.

    Attributes:
        info: what results say of it.
        build: builds the model (or copies the user's); may give `(model, inputs)`.
        inputs: the arguments of one forward pass, as the user gave them.
        device: where it is to run.
        seed: of the random state in which `build` is called.
    """

    info: WorkloadInfo
    build: ModelFactory
    inputs: Inputs
    device: torch.device
    seed: int

    def make_model(self) -> nn.Module:
        """A private copy of the model, in eval mode, on the device.

        Raises:
            WorkloadError: the model cannot be copied, built, or moved to the device.
        """
        with _seeded(self.seed):
            model, _ = _split(_call(self.build, f"the model {self.info.model!r}"))
        return _in_eval_mode(_moved(model, self.device))

    def make_inputs(self) -> Inputs:
        """Private copies of the inputs on the device."""
        return self.inputs.map(self._copied, _copied_leaf)

    def with_batch(self, batch_size: int) -> Workload:
        """The same workload with the first items of its batch only.

        Args:
            batch_size: items to keep, fewer than there are.
        """

        def cut(tensor: torch.Tensor) -> torch.Tensor:
            batched = tensor.dim() > 0 and len(tensor) == self.info.batch_size
            return tensor[:batch_size] if batched else tensor

        args = tuple(arg[:batch_size] if isinstance(arg, list) else arg for arg in self.inputs.args)
        info = attrs.evolve(self.info, batch_size=batch_size)
        return attrs.evolve(self, info=info, inputs=attrs.evolve(self.inputs, args=args).map(cut))

    def _copied(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(self.device, copy=True)


def _copied_leaf(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception as exc:
        raise WorkloadError(
            f"the inputs hold a {type(value).__name__} that cannot be copied ({one_line(exc)})",
            "give tensors, and other values that copy.deepcopy takes",
        ) from exc


def resolve(
    model: nn.Module | ModelFactory | str,
    inputs: Any = None,
    *,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> Workload:
    """Turn what the user gave into a workload; everything that can be wrong with it is found here.

    Args:
        model: an `nn.Module`, a factory, `"torchvision:NAME"` or `"package.module:function"`. A
            factory gives the model or `(model, inputs)`; it is called anew for every backend,
            with the same random seed, so it must build the same model each time.
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
    target = _choose_device(model, device)
    name, build = _factory(model, batch_size, target)
    with _seeded(seed):
        built, made_inputs = _split(_call(build, f"the model {name!r}"))
        given = inputs if inputs is not None else made_inputs
        arguments = _as_inputs(_call(given, "inputs") if _is_factory(given) else given, name)
    _check_devices(built, arguments, free=device is not None or not isinstance(model, nn.Module))
    _check_complete(built)
    size = _batch_size(batch_size, arguments)
    return Workload(_describe(name, built, arguments, size), build, arguments, target, seed)


def _describe(name: str, model: nn.Module, inputs: Inputs, batch_size: int | None) -> WorkloadInfo:
    return WorkloadInfo(
        model=name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        inputs=tuple(
            TensorInfo(path, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for path, tensor in inputs.tensors()
        ),
        batch_size=batch_size,
    )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with rng_restored():
        seed_everything(seed)
        yield


def _choose_device(model: object, device: str | torch.device | None) -> torch.device:
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
            f"the device {str(device)!r} cannot be used ({one_line(exc)})",
            "use 'cpu', or a torch built for this device",
        ) from exc
    if chosen.type == "meta":
        raise WorkloadError("a 'meta' device computes nothing", "use 'cpu' or 'cuda'")
    if chosen.type == "cuda" and chosen.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return chosen


def _device_of(model: nn.Module) -> torch.device | None:
    tensors = [*model.parameters(), *model.buffers()]
    return tensors[0].device if tensors else None


def _factory(
    model: object, batch_size: int | None, device: torch.device
) -> tuple[str, ModelFactory]:
    """The model's name, and what builds it."""
    if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
        raise WorkloadError(f"batch_size is {batch_size!r}", "give a whole number of 1 or more")
    if isinstance(model, nn.Module):
        return type(model).__name__, lambda: copy.deepcopy(model)
    if isinstance(model, str):
        return model, _named(model, batch_size, device)
    if callable(model):
        return getattr(model, "__name__", type(model).__name__), model
    raise WorkloadError(
        f"the model is a {type(model).__name__}",
        "give an nn.Module, a function that builds one, 'torchvision:NAME' or "
        "'package.module:function'",
    )


def _named(name: str, batch_size: int | None, device: torch.device) -> ModelFactory:
    place, colon, attribute = name.partition(":")
    if not colon or not place or not attribute:
        raise WorkloadError(
            f"the model {name!r} has no ':'",
            f"write 'torchvision:{name or 'resnet50'}' or 'package.module:function'",
        )
    default = DEFAULT_BATCH_SIZE.get(device.type, DEFAULT_BATCH_SIZE_ELSEWHERE)
    size = default if batch_size is None else batch_size
    if place == "torchvision":
        return TorchvisionModel(attribute, size)
    factory = _imported(place, attribute)
    if isinstance(factory, nn.Module):
        return lambda: copy.deepcopy(factory)
    if _takes_batch_size(factory):
        return _in_working_directory(partial(factory, batch_size=size))
    if batch_size is not None:
        raise WorkloadError(
            f"the function {name!r} takes no batch_size",
            "give it a parameter of that name, or leave the batch size out",
        )
    return _in_working_directory(factory)


def _imported(place: str, attribute: str) -> Any:
    with working_directory_on_path():
        try:
            module = importlib.import_module(place)
        except (Exception, SystemExit) as exc:
            raise WorkloadError(
                f"the module {place!r} cannot be imported ({one_line(exc)})",
                "the working directory is on the path; check the name and run it alone with "
                f"python -c 'import {place}'",
            ) from exc
    factory = getattr(module, attribute, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise WorkloadError(
            f"the module {place!r} has no function {attribute!r}", did_you_mean(attribute, known)
        )
    return factory


def _in_working_directory(factory: ModelFactory) -> ModelFactory:
    """A factory may import further modules of the working directory when it is called."""

    def build() -> Any:
        with working_directory_on_path():
            return factory()

    return build


def _takes_batch_size(factory: ModelFactory) -> bool:
    try:
        return "batch_size" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # builtins have no signature
        return False


def _call(build: ModelFactory, what: str) -> Any:
    try:
        return build()
    except WorkloadError:
        raise
    except Exception as exc:
        raise WorkloadError(
            f"{what} cannot be built or copied ({one_line(exc)})",
            "give a function without arguments that builds it",
        ) from exc


def _split(built: Any) -> tuple[nn.Module, Any]:
    model, inputs = built if isinstance(built, tuple) and len(built) == 2 else (built, None)
    if isinstance(model, torch.export.ExportedProgram):
        model = model.module()
    if not isinstance(model, nn.Module):
        raise WorkloadError(
            f"the model's factory gave a {type(model).__name__}",
            "let it return an nn.Module or (nn.Module, inputs)",
        )
    return model, inputs


def _moved(model: nn.Module, device: torch.device) -> nn.Module:
    try:
        return model.to(device)
    except Exception as exc:
        raise WorkloadError(
            f"the model cannot be moved to {device} ({one_line(exc)})",
            "use a smaller model or another device",
        ) from exc


def _in_eval_mode(model: nn.Module) -> nn.Module:
    # An exported program is in eval mode already and refuses the call.
    with contextlib.suppress(NotImplementedError):
        model.eval()
    return model


def _is_factory(inputs: object) -> bool:
    return callable(inputs) and not isinstance(inputs, (torch.Tensor, Mapping, Inputs))


def _as_inputs(given: Any, name: str) -> Inputs:
    if given is None:
        raise WorkloadError(
            f"the model {name!r} came without inputs",
            "pass inputs=, or let the factory return (model, inputs)",
        )
    if isinstance(given, list):
        raise WorkloadError(
            "inputs is a list, which could mean one argument or several",
            "did you mean the tuple `([...],)` for one argument that is a list, or `(a, b)`?",
        )
    inputs = _wrapped(given)
    if inputs is None:
        raise WorkloadError(
            f"inputs is a {type(given).__name__}",
            "give a tensor, a tuple of arguments, a dict of keyword arguments, or a factory",
        )
    if not inputs.tensors():
        raise WorkloadError("inputs holds no tensor", "give at least one tensor")
    return inputs


def _wrapped(given: Any) -> Inputs | None:
    if isinstance(given, Inputs):
        return given
    if isinstance(given, (torch.Tensor, PackedSequence)):
        return Inputs((given,))
    if isinstance(given, Mapping):
        return Inputs(kwargs=dict(given))
    return Inputs(given) if isinstance(given, tuple) else None


def _check_devices(model: nn.Module, inputs: Inputs, free: bool) -> None:
    """Refuse what would fail in the user's own script, unless copies may go where they like."""
    placed = _device_of(model)
    for path, tensor in inputs.tensors():
        if tensor.device.type == "meta":
            raise WorkloadError(f"inputs{path} is on 'meta' and holds no data", "give real data")
        if not free and placed is not None and tensor.device != placed:
            raise WorkloadError(
                f"inputs{path} is on {tensor.device} but the model is on {placed}",
                "move one of them, or pass device= and both are copied there",
            )


def _check_complete(model: nn.Module) -> None:
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
            raise WorkloadError(
                f"the model's {name} is lazy and has no shape yet",
                "call the model once on its inputs first, in the factory or before you pass it",
            )


def _batch_size(given: int | None, inputs: Inputs) -> int | None:
    """What the user says, unless the inputs cannot hold so many items; else what the inputs say."""
    found = _batch_of(inputs)
    if found == 0:
        raise WorkloadError("the inputs hold a batch of 0 items", "give at least one item")
    if given is None or found is None:
        return given or found
    dimensions = {size for _, tensor in inputs.tensors() for size in tensor.shape}
    if given > found and given not in dimensions:  # fewer may be: graphs are batched as nodes
        raise WorkloadError(
            f"batch_size is {given}, but the inputs hold {found} items",
            "make the inputs of that size, or leave batch_size out",
        )
    return given


def _batch_of(inputs: Inputs) -> int | None:
    first = inputs.args[0] if inputs.args else None
    if isinstance(first, PackedSequence):
        return int(first.batch_sizes[0])
    if isinstance(first, list):
        return len(first)
    tensor = inputs.tensors()[0][1]
    return len(tensor) if tensor.dim() else None
