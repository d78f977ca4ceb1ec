"""Numbers the models that a script calls, and describes each of them."""

from __future__ import annotations

import contextlib
import operator
import threading
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, cast

import attrs
import torch
from torch import nn

from precisionbench.probes.denormals import denormal_share
from precisionbench.results.dtypes import dtype_name
from precisionbench.scriptcheck.device import DeviceMonitor
from precisionbench.scriptcheck.events import Model
from precisionbench.scriptcheck.frames import Line, place_of
from precisionbench.scriptcheck.operations import Operations
from precisionbench.scriptcheck.torch_patches import PatchTracker
from precisionbench.torchtools.global_state import has_tf32, tf32_operations
from precisionbench.torchtools.tensors import INDEX_DTYPES

_PATCHED_NAMES_KEPT = 3
# The patched functions that are shown first.
_SHOWN_FIRST = ("torch.nn.functional.conv2d", "torch.nn.functional.linear", "torch.matmul")
_CONVOLUTIONS = (nn.modules.conv._ConvNd, nn.RNNBase)
_MATMULS = (nn.Linear, nn.Bilinear, nn.MultiheadAttention)
_MODE_DEPENDENT = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
    nn.RNNBase,
    nn.MultiheadAttention,
)
_OPERATIONS_NAMED = 4
_SHAPES_KEPT = 8
_DENORMAL = 1e-40
_OPERATIONS_JOINT = ", "
_MOST_KEPT_BYTES = 1 << 26


class _DeviceTypes(dict[torch.device, str]):
    """Types of devices, kept because torch makes a new text at each call."""

    def __missing__(self, device: torch.device) -> str:
        return self.setdefault(device, device.type)


class ModelRegistry:
    """The models that a script has called.

    A model counts again when its precision or device changes, or the patches of torch or its
    settings of TF32 do.

    Args:
        device: selects the device that models run on.

    Attributes:
        torch_threads: most threads that torch used for an operation on the CPU, at first calls.
    """

    def __init__(self, device: DeviceMonitor) -> None:
        self._device = device
        self._patches = PatchTracker()
        self._tf32_at_start = tf32_operations()
        self._models: list[Model] = []
        self._device_types = _DeviceTypes()
        self._numbers: dict[tuple[Any, ...], tuple[weakref.ref[nn.Module], int]] = {}
        self._parameters: dict[int, tuple[weakref.ref[nn.Module], weakref.ref[torch.Tensor]]] = {}
        self._function_numbers: dict[tuple[Any, ...], tuple[int, Any]] = {}
        self._shapes: set[tuple[Any, ...]] = set()
        self._last_shapes: dict[int, tuple[Any, ...]] = {}  # of those that were new
        self._first_tensors: dict[int, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        self._patched_by_apex: list[weakref.ref[nn.Module]] = []
        self.torch_threads = 0
        self._lock = threading.RLock()  # a first call may come from several threads at once

    def number(self, module: nn.Module, line: Line) -> tuple[int, str]:
        """The model's number and the type of its device; a new model is described.

        Args:
            module: the model.
            line: that called it.
        """
        parameter = self._first_parameter(module)
        device_type = "cpu" if parameter is None else self._device_types[parameter.device]
        self._patches.update_if_sample_changed()
        state = (
            None
            if parameter is None
            else (parameter.dtype, device_type, *_tf32_settings(device_type))
        )
        known, number = self._numbers.get((id(module), state, self._patches.epoch), (None, -1))
        if known is None or known() is not module:
            number = self._new_number(module, parameter, state, line)
        return number, device_type

    def _new_number(
        self, module: nn.Module, parameter: torch.Tensor | None, state: object, line: Line
    ) -> int:
        """Number a module, unless another thread has just done so."""
        with self._lock:
            if parameter is not None:
                self._device.select(parameter.device)
                self._patches.update()
            known, number = self._numbers.get((id(module), state, self._patches.epoch), (None, -1))
            if known is not None and known() is module:
                return number
            self.torch_threads = max(self.torch_threads, torch.get_num_threads())
            number = len(self._models)
            self._numbers[id(module), state, self._patches.epoch] = weakref.ref(module), number
            self._models.append(self._described(module, number, line))
            return number

    def function_number(
        self, function: Any, name: str, kind: str, tensors: list[torch.Tensor], line: Line
    ) -> tuple[int, str]:
        """The number of a function, for these dtypes and this device, and the type of the device.

        Args:
            function: what was called; for operations the line of the second reading.
            name: of the function.
            kind: as in `Model.kind`.
            tensors: that it was given.
            line: that called it.
        """
        is_line = isinstance(function, tuple)
        device = next((tensor.device for tensor in tensors), None)
        dtypes = frozenset(tensor.dtype for tensor in tensors)
        key = (function if is_line else id(function), name, device, dtypes)
        with self._lock:
            if key not in self._function_numbers:
                self._function_numbers[key] = len(self._models), function  # keeps its id its own
                self._models.append(_described_function(name, kind, tensors, line))
                self.torch_threads = max(self.torch_threads, torch.get_num_threads())
                if device is not None:
                    self._device.select(device)
        return self._function_numbers[key][0], device.type if device else "cpu"

    def operations_number(self, found: Operations, line: Line) -> tuple[int, str]:
        """The number of some operations, and the type of their device; keeps their first tensors.

        Args:
            found: the operations.
            line: that read the clock.
        """
        tensors = [*found.inputs, *found.others]
        name = _OPERATIONS_JOINT.join(found.names[:_OPERATIONS_NAMED])
        name += f" and {len(found.names) - _OPERATIONS_NAMED} more operations" * (
            len(found.names) > _OPERATIONS_NAMED
        )
        number, device_type = self.function_number(line, name, "operations", tensors, line)
        self._first_tensors.setdefault(
            number, (_kept(list(found.inputs)), _kept(list(found.outputs)))
        )
        return number, device_type

    def is_new_shape(
        self, number: int, inputs: list[torch.Tensor], outputs: list[torch.Tensor]
    ) -> bool:
        """Whether inputs of this shape are new to a model; keeps its first inputs and outputs.

        A step of a decoding loop is not new: its cache, mask or text is longer by one each time.

        Args:
            number: the model's.
            inputs: of a call.
            outputs: of the same call.
        """
        shapes = (number, *[(tensor.dtype, shape_of(tensor)) for tensor in inputs])
        if shapes in self._shapes:
            return False
        with self._lock:
            is_new = shapes not in self._shapes
            self._shapes.add(shapes)
            is_new = is_new and not is_decoding_step(self._last_shapes.get(number), shapes[1:])
            self._last_shapes[number] = shapes[1:]
            self._first_tensors.setdefault(number, (_kept(inputs), _kept(outputs)))
        return is_new

    def add_patched_by_apex(self, modules: Iterable[nn.Module]) -> None:
        """Note that patches are meant for these models.

        Args:
            modules: given to Apex with an optimization level that patches torch.
        """
        self._patched_by_apex += [weakref.ref(module) for module in modules]

    def frozen(self) -> tuple[Model, ...]:
        """All models, with what their first inputs and outputs show."""
        shapes = self._input_shapes()
        return tuple(
            _with_values(
                attrs.evolve(model, input_shapes=shapes.get(number, ())),
                *self._first_tensors.get(number, ([], [])),
            )
            for number, model in enumerate(list(self._models))
        )

    def _first_parameter(self, module: nn.Module) -> torch.Tensor | None:
        """The first parameter of a module, kept because finding it dominates the overhead."""
        owner, known = self._parameters.get(id(module), (None, None))
        parameter = (
            known() if known is not None and owner is not None and owner() is module else None
        )
        if parameter is None:
            parameter = next(module.parameters(), None)
            if parameter is not None:
                self._parameters[id(module)] = weakref.ref(module), weakref.ref(parameter)
        return parameter

    def _described(self, module: nn.Module, number: int, line: Line) -> Model:
        parameters: Counter[str] = Counter()
        for parameter in module.parameters():
            parameters[dtype_name(parameter.dtype)] += parameter.numel()
        first = next(module.parameters(), None)
        patches = self._patches.names if parameters else ()
        shown = sorted(patches, key=lambda name: name not in _SHOWN_FIRST)
        return Model(
            class_name=_class_name(getattr(module, "_orig_mod", module)),
            place=place_of(line),
            parameters=dict(parameters),
            device=str(first.device) if first is not None else "",
            patched_names=tuple(shown[:_PATCHED_NAMES_KEPT]),
            patch_count=len(patches),
            patch_owner=self._patches.owner(number) if patches else None,
            patched_by_apex=any(ref() is module for ref in self._patched_by_apex),
            mode_dependent_layers=_count(module, _MODE_DEPENDENT),
            tf32_operations=_tf32_operations(module, first),
            tf32_requested=tf32_operations() != self._tf32_at_start,
            shape_dependent=tuple(_shape_dependent(module, first)),
        )

    def _input_shapes(self) -> dict[int, tuple[str, ...]]:
        """The shapes of the inputs of each model, as text."""
        texts: dict[int, list[str]] = defaultdict(list)
        for number, *inputs in list(self._shapes):
            if len(texts[number]) < _SHAPES_KEPT:
                texts[number].append(", ".join("x".join(map(str, shape)) for _, shape in inputs))
        return {number: tuple(sorted(shapes)) for number, shapes in texts.items()}


def _described_function(name: str, kind: str, tensors: list[torch.Tensor], line: Line) -> Model:
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[dtype_name(tensor.dtype)] += tensor.numel()
    device = tensors[0].device if tensors else None
    in_tf32 = kind == "operations" and device is not None and device.type == "cuda"
    return Model(
        class_name=name,
        place=place_of(line),
        parameters=dict(elements),
        device=str(device) if device is not None else "",
        tf32_operations=_tf32_of_names(name) if in_tf32 and has_tf32(device) else (),
        kind=kind,
    )


def _tf32_of_names(names: str) -> tuple[str, ...]:
    """Kinds of operations that run in TF32 if they run in float32, by the operations' names."""
    parts = names.split(_OPERATIONS_JOINT)
    kinds = {"convolutions": ("conv",), "matmuls": ("matmul", "linear", "mm", "bmm", "addmm")}
    return tuple(
        kind for kind in tf32_operations() if any(part.startswith(kinds[kind]) for part in parts)
    )


def _tf32_settings(device_type: str) -> tuple[object, ...]:
    """Torch's settings of TF32 in a form that is cheap to read at each call."""
    if device_type != "cuda":
        return ()
    precision = getattr(torch._C, "_get_fp32_precision_getter", None)
    if precision is not None:
        return precision("cuda", "matmul"), precision("cuda", "conv")
    return torch._C._get_cublas_allow_tf32(), torch._C._get_cudnn_allow_tf32()


def _count(module: nn.Module, kinds: tuple[type, ...]) -> int:
    return sum(issubclass(_class_of(layer), kinds) for layer in module.modules())


def _class_name(module: nn.Module) -> str:
    scripted = isinstance(module, torch.jit.ScriptModule)
    return str(module.original_name) if scripted else type(module).__name__


def _class_of(layer: nn.Module) -> type:
    """The class of a layer; of a scripted or traced one, the class in `torch.nn` that it had."""
    if isinstance(layer, torch.jit.ScriptModule):
        return cast(type, getattr(nn, layer.original_name, type(layer)))
    return type(layer)


def _shape_dependent(module: nn.Module, parameter: torch.Tensor | None) -> Iterator[str]:
    """What may be chosen, tuned or compiled anew for each input shape of a module."""
    if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None):
        yield "compilation by torch.compile"
    if _count(module, _CONVOLUTIONS):
        benchmark = torch.backends.cudnn.benchmark
        yield "tuning by cuDNN's benchmark mode" if benchmark else "the choice of kernels"
    elif parameter is not None and parameter.is_cuda:
        yield "the choice of kernels"


def _tf32_operations(module: nn.Module, parameter: torch.Tensor | None) -> tuple[str, ...]:
    """Kinds of a module's operations that run in TF32 if they run in float32."""
    if parameter is None or not parameter.is_cuda or not has_tf32(parameter.device):
        return ()
    layers = {"convolutions": _CONVOLUTIONS, "matmuls": _MATMULS}
    return tuple(name for name in tf32_operations() if _count(module, layers[name]))


def shape_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """The shape of a tensor; that of a nested tensor is its number of dimensions and parts.

    Args:
        tensor: any.
    """
    try:
        return tensor.shape
    except RuntimeError:
        return tensor.dim(), tensor.size(0)


def is_decoding_step(before: tuple[Any, ...] | None, now: tuple[Any, ...]) -> bool:
    """Whether inputs are those of the last call, longer by one, as in a loop that decodes.

    Floating-point inputs that all grow are data of another size.

    Args:
        before: dtype and shape of each input of the last call.
        now: the same of this one.
    """
    if before is None or len(before) != len(now):
        return False
    grows = [
        old[0] == new[0] and _grows_by_one(tuple(old[1]), tuple(new[1]))
        for old, new in zip(before, now, strict=True)
    ]
    is_same = [old == new for old, new in zip(before, now, strict=True)]
    has_tokens = any(not dtype.is_floating_point for dtype, _ in now)
    return all(map(operator.or_, grows, is_same)) and (has_tokens or any(is_same))


def _grows_by_one(before: tuple[int, ...], now: tuple[int, ...]) -> bool:
    """Whether a shape is longer by one, in other dimensions than the batch."""
    if len(before) != len(now):
        return False
    steps = [new - old for old, new in zip(before, now, strict=True)]
    return set(steps) <= {0, 1} and any(steps[1:] or steps)


def _kept(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors to examine once the script has ended; large ones are not kept."""
    numbers = (t for t in tensors if t.is_floating_point() or t.dtype in INDEX_DTYPES)
    return [t.detach() for t in numbers if t.numel() * t.element_size() <= _MOST_KEPT_BYTES]


def _with_values(model: Model, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> Model:
    """The model with what its first input and output show."""
    with contextlib.suppress(RuntimeError):  # device lost
        return attrs.evolve(
            model,
            non_finite_share=_non_finite_share(outputs),
            constant_input=_constant_input(inputs),
            denormal_share=_denormal_share(inputs),
        )
    return model


def _non_finite_share(tensors: list[torch.Tensor]) -> float | None:
    tensors = [tensor for tensor in tensors if tensor.is_floating_point()]
    count = sum(tensor.numel() for tensor in tensors)
    non_finite = sum(int((~torch.isfinite(tensor)).sum()) for tensor in tensors)
    masked = sum(int(torch.isneginf(tensor).sum()) for tensor in tensors)
    if non_finite == masked < count:  # logits of what must not be chosen
        return 0.0
    return non_finite / count if count else None


def _denormal_share(tensors: list[torch.Tensor]) -> float:
    """The largest share of denormal numbers in a tensor on the CPU, unless they are flushed."""
    are_flushed = not float(torch.tensor(_DENORMAL, dtype=torch.float32, device="cpu") * 1)
    shares = (denormal_share(t) for t in tensors if t.device.type == "cpu" and not are_flushed)
    return max(shares, default=0.0)


def _constant_input(tensors: list[torch.Tensor]) -> float | None:
    """The number that all floating-point inputs consist of; none beside indices that vary."""
    large = [tensor for tensor in tensors if tensor.numel() > 1]
    values = {_constant(tensor) for tensor in large if tensor.is_floating_point()}
    if len(values) != 1 or any(  # a mask of ones beside the indices of tokens
        _constant(tensor) is None for tensor in large if not tensor.is_floating_point()
    ):
        return None
    return values.pop()


def _constant(tensor: torch.Tensor) -> float | None:
    first = tensor.flatten()[0]
    return float(first) if bool((tensor == first).all()) else None
