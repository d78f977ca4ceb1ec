"""Walks through nested inputs and outputs: tuples, lists, dicts and dataclasses of tensors.

Inputs may also hold objects of any class with tensors in their attributes, such as caches.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import types
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from precisionbench.errors import FOREIGN_ERRORS, WorkloadError, kind_of, one_line

TensorFunction = Callable[[torch.Tensor], torch.Tensor]
PathAndTensor = tuple[str, torch.Tensor]
LeafFunction = Callable[[Any], Any]
# Of integer tensors that torch accepts as indices.
INDEX_DTYPES = (torch.int32, torch.int64)


def _fields(tree: object) -> list[str] | None:
    """Names of the fields of a dataclass or attrs instance, else None."""
    if isinstance(tree, type):
        return None
    if dataclasses.is_dataclass(tree):
        return [field.name for field in dataclasses.fields(tree)]
    kind: Any = type(tree)
    return [field.name for field in attrs.fields(kind)] if attrs.has(kind) else None


# Objects whose attributes are code, or of which there is one for the whole process.
_OPAQUE = (type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType)
_DEEPEST = 8  # objects within objects


def attributes_of(value: object) -> dict[str, Any]:
    """The attributes that an object of any class holds, by name; none of what is code.

    Args:
        value: any object.
    """
    if isinstance(value, _OPAQUE):
        return {}
    try:
        found = dict(vars(value)) if hasattr(value, "__dict__") else {}
        for kind in type(value).__mro__:
            slots = vars(kind).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                    found[name] = getattr(value, name)
    except FOREIGN_ERRORS:  # of a proxy, for example
        return {}
    return found


def walk(
    tree: object, path: str = "", *, objects: bool = False
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in the tree with its path, such as `['boxes'][0]` or `.logits`.

    Args:
        tree: nested tuples, lists, mappings, dataclasses; other leaves are passed over.
        path: what the paths begin with.
        objects: also walk through the attributes of objects of other classes.
    """
    return _walk(tree, path, _DEEPEST if objects else 0, set())


def _walk(
    tree: object, path: str, depth: int, seen: set[int]
) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(tree, torch.Tensor):
        yield path, tree
    elif isinstance(tree, Mapping):  # before dataclasses: a ModelOutput is both
        for key, value in tree.items():
            yield from _walk(value, f"{path}[{key!r}]", depth, seen)
    elif isinstance(tree, (tuple, list)):
        for index, value in enumerate(tree):
            yield from _walk(value, f"{path}[{index}]", depth, seen)
    elif (names := _fields(tree)) is not None:
        for name in names:
            yield from _walk(getattr(tree, name), f"{path}.{name}", depth, seen)
    elif depth and id(tree) not in seen:  # objects may refer to each other in a circle
        seen.add(id(tree))
        for name, value in attributes_of(tree).items():
            yield from _walk(value, f"{path}.{name}", depth - 1, seen)


def _itself(leaf: Any) -> Any:
    return leaf


def map_tensors(function: TensorFunction, tree: Any, leaf: LeafFunction = _itself) -> Any:
    """The same tree with every tensor replaced by `function(tensor)`; the tree is not changed.

    Args:
        function: tensor in, tensor out.
        tree: as for `walk`.
        leaf: what to do with everything else that the tree holds (numpy arrays, caches, numbers).
    """
    recurse = functools.partial(map_tensors, function, leaf=leaf)
    if isinstance(tree, torch.Tensor):
        return function(tree)
    if isinstance(tree, PackedSequence):  # its batch_sizes must stay on the CPU, as int64
        data, sizes, *indices = tree
        return PackedSequence(function(data), sizes, *map(recurse, indices))
    if isinstance(tree, Mapping):
        return _with_items(tree, {key: recurse(value) for key, value in tree.items()})
    if isinstance(tree, (tuple, list)):
        values = map(recurse, tree)
        return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
    if names := _fields(tree):
        twin = copy.copy(tree)
        for name in names:
            object.__setattr__(twin, name, recurse(getattr(tree, name)))
        return twin
    return leaf(tree)


def _with_items(tree: Mapping[Any, Any], items: dict[Any, Any]) -> Mapping[Any, Any]:
    # The new dict of a plain dict is its twin, too; TorchDynamo cannot trace the copy of a dict.
    if type(tree) is dict or not isinstance(tree, MutableMapping):
        return items
    twin = copy.copy(tree)
    for key, value in items.items():  # a ModelOutput of transformers refuses update()
        twin[key] = value
    return twin


def deep_copied(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """A deep copy of an object among the inputs.

    Args:
        value: any object.
        memo: as for `copy.deepcopy`: by the `id` of an object what takes its place in the copy.

    Raises:
        WorkloadError: it cannot be copied; the error names the attribute that cannot.
    """
    try:
        return copy.deepcopy(value, memo)
    except Exception as exc:
        raise WorkloadError(
            f"the inputs hold {kind_of(value)} that cannot be copied"
            f"{_obstacle(value, memo)} ({one_line(exc)})",
            "give tensors, and other values that copy.deepcopy takes",
        ) from exc


def _obstacle(value: object, memo: dict[int, Any] | None) -> str:
    for name, one in attributes_of(value).items():
        try:
            copy.deepcopy(one, dict(memo or {}))
        except Exception:
            return f", because of its attribute {name!r}, {kind_of(one)}"
    return ""


def map_with_objects(function: TensorFunction, tree: Any, leaf: LeafFunction = _itself) -> Any:
    """As `map_tensors`, and with copies of objects of any class in which tensors are replaced.

    Args:
        function: tensor in, tensor out.
        tree: as for `walk`.
        leaf: what to do with everything that is not a tensor and holds none.

    Raises:
        WorkloadError: an object that holds tensors cannot be copied.
    """
    return map_tensors(function, tree, functools.partial(_with_object, function, leaf))


def _with_object(function: TensorFunction, leaf: LeafFunction, value: Any) -> Any:
    """A copy of an object with its tensors replaced; `leaf(value)` where it holds none.

    The copy is a deep one, so that a tensor or a list that two attributes share is shared in it.
    """
    tensors = [tensor for _, tensor in walk(value, objects=True)]
    if not tensors:
        return leaf(value)
    return deep_copied(value, {id(tensor): _replaced(function, tensor) for tensor in tensors})


def _replaced(function: TensorFunction, tensor: torch.Tensor) -> torch.Tensor:
    found = function(tensor)
    is_parameter = isinstance(tensor, nn.Parameter) and not isinstance(found, nn.Parameter)
    return nn.Parameter(found, tensor.requires_grad) if is_parameter else found


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor's elements can be read: it is strided, and no `torch.vmap` is within it.

    Args:
        tensor: of any kind.
    """
    is_batched = torch._C._functorch.is_batchedtensor(tensor)
    return tensor.layout == torch.strided and not is_batched


def is_computed_in(dtype: torch.dtype) -> bool:
    """Whether torch computes in a real floating-point dtype; those of 8 bits and less only store.

    Args:
        dtype: any dtype.
    """
    return dtype.is_floating_point and dtype.itemsize > 1


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A floating-point tensor in another dtype; integers and 8-bit floating point stay as they are.

    Complex tensors stay complex: in complex128 for float64, else in complex64. torch has no
    arithmetic to speak of in half of it, so only tensors that are complex32 already stay so, in
    float16.

    Args:
        tensor: any tensor.
        dtype: a floating-point dtype.
    """
    if tensor.is_complex():
        return tensor.to(_complex_dtype(tensor.dtype, dtype))
    return tensor.to(dtype) if is_computed_in(tensor.dtype) else tensor


def _complex_dtype(before: torch.dtype, dtype: torch.dtype) -> torch.dtype:
    if dtype == torch.float64:
        return torch.complex128
    is_half = before == torch.complex32 and dtype == torch.float16
    return torch.complex32 if is_half else torch.complex64


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def arrange(tensor: torch.Tensor, memory_format: str) -> torch.Tensor:
    """A 4-D or 5-D tensor in a memory format; any other tensor as it is.

    `tensor.contiguous()` would not do: it leaves the strides of a 1x1 convolution's weight, which
    are right for both formats, and by which cuDNN then chooses.

    Args:
        tensor: any tensor.
        memory_format: `contiguous` or `channels_last`.
    """
    if tensor.layout != torch.strided or tensor.dim() not in _CHANNELS_LAST:
        return tensor
    channels_last = memory_format == "channels_last"
    layout = _CHANNELS_LAST[tensor.dim()] if channels_last else torch.contiguous_format
    like = torch.empty(tensor.shape, device="meta", memory_format=layout)
    return tensor if tensor.stride() == like.stride() else tensor.clone(memory_format=layout)


@attrs.frozen
class Inputs:
    """The arguments of one forward pass.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = attrs.field(factory=dict)

    def map(self, function: TensorFunction, leaf: LeafFunction = _itself) -> Inputs:
        """The same arguments with every tensor replaced by `function(tensor)`.

        Args:
            function: tensor in, tensor out.
            leaf: what to do with everything that is not a tensor and holds none.

        Returns:
            New inputs; these are not changed, and objects that hold tensors are copied.

        Raises:
            WorkloadError: such an object cannot be copied.
        """
        args, kwargs = map_with_objects(function, (self.args, self.kwargs), leaf)
        return Inputs(args, kwargs)

    def to(self, dtype: torch.dtype) -> Inputs:
        """The same arguments with floating-point tensors cast; integers stay integers.

        Args:
            dtype: a floating-point dtype, as for `cast`.

        Returns:
            New inputs; these are not changed.
        """
        return self.map(lambda tensor: cast(tensor, dtype))

    def in_memory_format(self, memory_format: str) -> Inputs:
        """The same arguments with every 4-D and 5-D tensor arranged; those in objects stay as they
        are, because the dimensions of a cache are not those of images.

        Args:
            memory_format: `contiguous` or `channels_last`, as for `arrange`.

        Returns:
            New inputs; these are not changed.
        """
        change = functools.partial(arrange, memory_format=memory_format)
        return Inputs(map_tensors(change, self.args), map_tensors(change, self.kwargs))

    def tensors(self) -> list[tuple[str, torch.Tensor]]:
        """Every tensor with its path; those in attributes of objects are included."""
        return [*walk(self.args, objects=True), *walk(self.kwargs, objects=True)]

    def bind(self, model: Callable[..., object]) -> Callable[[], object]:
        """A callable without arguments that runs one forward pass.

        Args:
            model: what to call with these arguments.

        Returns:
            The callable; it returns what the model returns.
        """
        return functools.partial(model, *self.args, **self.kwargs)
