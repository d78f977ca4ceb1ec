"""What identifies an object by all that it holds, the same in each process."""

from __future__ import annotations

import copyreg
import enum
import functools
import hashlib
import re
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from precisionbench.errors import FOREIGN_ERRORS
from precisionbench.model import code_parts
from precisionbench.model.script_parts import script_parts
from precisionbench.model.tensor_parts import shape_of, values_of
from precisionbench.torchtools.tensors import attributes_of

_DEEPEST = 60  # objects within objects
_MOST = 300_000  # objects
_MOST_READ = 5_000  # functions, and values that they read
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), type(NotImplemented))
_WITH_REPR = (torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype, range)
_DESCRIPTORS = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.ClassMethodDescriptorType,
)
_CACHED = type(functools.lru_cache(len))
_CODE = (
    _CACHED,
    *_DESCRIPTORS,
    types.FunctionType,
    types.MethodType,
    type,
    functools.partial,
    staticmethod,
    classmethod,
    property,
    functools.cached_property,
    torch.jit.ScriptFunction,
)
# State of torch itself, which differs from process to process: numbers of hooks, guards, streams.
_OF_TORCH = ("torch._", "torch.fx", "torch.utils.hooks", "torch.cuda")
_BOOKKEEPING = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Contents:
    """Makes digests of objects.

    Objects are read as `pickle` reads them. The order of a set, addresses and the names of the
    user's modules take no part.

    Args:
        values: whether values take part; else what remains is code, the shapes of tensors and the
            attributes of the modules that torch defines.
        named: tensors whose values are known otherwise; names are enough for them.

    Attributes:
        is_whole: false once something was met that cannot be read.
    """

    def __init__(
        self, *, values: bool = True, named: Iterable[tuple[str, torch.Tensor]] = ()
    ) -> None:
        self.is_whole = True
        self._values = values
        self._named = list(named)  # keeps them, so that no id is reused
        self._names = {id(tensor): name for name, tensor in self._named}
        self._known: dict[int, tuple[Any, bytes]] = {}  # with the object, so that no id is reused
        self._open: dict[int, int] = {}
        self._read: deque[tuple[str, Any]] = deque()

    def digest(self, value: Any) -> bytes:
        """A digest of an object, with the functions that it calls and the values that they read.

        Args:
            value: any object.
        """
        found = dict.fromkeys([self._of(value)])
        for _ in range(_MOST_READ):
            if not self._read:
                break
            name, one = self._read.popleft()
            found[hashed([name.encode(), self._of(one)])] = None
        self.is_whole &= not self._read
        return hashed(found)

    def _of(self, value: Any) -> bytes:
        if type(value) in _PLAIN:
            return _plain(value)
        key = id(value)
        if key in self._known:
            return self._known[key][1]
        if key in self._open:  # it holds itself
            return f"{len(self._open) - self._open[key]} above".encode()
        if len(self._open) >= _DEEPEST or len(self._known) >= _MOST:
            self.is_whole = False
            return _name(type(value))
        self._open[key] = len(self._open)
        try:
            found = hashed(self._parts(value))
        finally:
            del self._open[key]
        self._known[key] = (value, found)
        return found

    def _parts(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, torch.Tensor):
            return self._of_tensor(value)
        if isinstance(value, nn.Module):
            return self._of_module(value)
        if isinstance(value, _CODE):
            return self._of_code(value)
        if isinstance(value, _WITH_REPR):
            return iter([repr(value).encode()])
        if isinstance(value, enum.Enum):
            return iter([_name(type(value)), value.name.encode(), self._of(value.value)])
        if type(value) in (list, tuple, dict, types.MappingProxyType) or isinstance(
            value, (set, frozenset)
        ):
            return self._of_container(value)
        return self._of_object(value)

    def _all(self, values: Iterable[Any]) -> Iterator[bytes]:
        return map(self._of, values)

    def _of_container(self, value: Any) -> Iterator[bytes]:
        yield type(value).__qualname__.encode()
        if isinstance(value, Mapping):
            for key, one in value.items():
                yield from self._all((key, one))
        elif isinstance(value, (set, frozenset)):
            yield from sorted(self._all(value))
        elif all(type(one) in _PLAIN for one in value):  # of which there can be millions
            yield b"".join(map(_plain, value))
        else:
            yield from self._all(value)

    def _of_tensor(self, tensor: torch.Tensor) -> Iterator[bytes]:
        name = self._names.get(id(tensor), "")
        yield name.encode()
        if not self._values or name:
            yield shape_of(tensor)
            return
        try:
            if hasattr(tensor, "__tensor_flatten__"):  # its values are in other tensors
                names, others = tensor.__tensor_flatten__()
                yield from self._all([type(tensor), *(getattr(tensor, one) for one in names)])
                yield self._of(others)
            else:
                yield from values_of(tensor)
        except FOREIGN_ERRORS:
            self.is_whole = False

    # Objects

    def _of_object(self, value: Any) -> Iterator[bytes]:
        kind = type(value)
        yield self._of(kind)
        if kind.__module__ == "torch._ops":
            yield str(value).encode()
        elif isinstance(value, (weakref.ref, types.ModuleType)):
            yield str(getattr(value, "__name__", "")).encode()
        elif isinstance(value, torch.ScriptObject):
            yield from self._of_state(value, lambda: [value.__getstate__()])
        elif self._values and isinstance(value, np.ndarray) and not value.dtype.hasobject:
            yield from (repr((value.shape, value.dtype)).encode(), value.tobytes())
        elif self._values and not kind.__module__.startswith(_OF_TORCH):
            yield from self._of_state(value, lambda: _reduced(value))

    def _of_state(self, value: Any, read: Callable[[], Iterable[Any]]) -> Iterator[bytes]:
        """What `pickle` would write of an object, or else its attributes."""
        try:
            parts = list(read())
        except FOREIGN_ERRORS:
            found = attributes_of(value)
            self.is_whole &= bool(found)
            parts = [_sorted(found)]
        yield from self._all(parts)

    # Modules

    def _of_module(self, module: nn.Module) -> Iterator[bytes]:
        if isinstance(module, torch.jit.ScriptModule):
            yield from self._of_script(module)
        else:
            yield self._of(type(module))
            yield from self._of_attributes(module)
            yield from self._all(module.named_parameters(recurse=False))
            yield from self._all(module.named_buffers(recurse=False))
        yield from self._all(module.named_children())

    def _of_script(self, module: torch.jit.ScriptModule) -> Iterator[bytes]:
        """The code and tensors of TorchScript; its tensors are new objects each time."""
        yield from self._all(script_parts(module))
        for found in (module.named_parameters, module.named_buffers):
            for name, tensor in found(recurse=False):
                parts = values_of(tensor) if self._values else [shape_of(tensor)]
                yield from (name.encode(), *parts)

    def _of_attributes(self, module: nn.Module) -> Iterator[bytes]:
        yield _extra(module)
        if self._values or code_parts.is_known_by_version(type(module).__module__):
            yield self._of(_attributes(module))
        yield from self._of_hooks(vars(module))

    def _of_hooks(self, state: dict[str, Any]) -> Iterator[bytes]:
        """The hooks of a module, in their order; their numbers differ from process to process."""
        for place in _HOOKS:
            for number, hook in state[place].items():
                is_with = number in state.get(f"{place}_with_kwargs", ())
                yield from (f"{place} {is_with}".encode(), self._of(hook))

    # Code

    def _of_code(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, types.FunctionType):
            yield from self._of_function(value)
        elif isinstance(value, type):
            yield from self._of_class(value)
        elif isinstance(value, types.MethodType):
            yield from self._all((value.__func__, value.__self__))
        elif isinstance(value, functools.partial):
            held = (value.args, value.keywords) if self._values else ()
            yield from self._all((value.func, *held))
        elif isinstance(value, property):
            yield from self._all((value.fget, value.fset))
        elif isinstance(value, functools.cached_property):  # which holds a lock
            yield self._of(value.func)
        elif isinstance(value, torch.jit.ScriptFunction):
            yield str(value.code).encode()
        elif wrapped := getattr(value, "__wrapped__", None):
            yield from self._all((type(value).__qualname__, wrapped))
        else:
            yield from self._of_builtin(value)

    def _of_builtin(self, value: Any) -> Iterator[bytes]:
        yield _name(value)
        owner = getattr(value, "__self__", None)
        if self._values and not isinstance(owner, (types.ModuleType, type)):
            yield self._of(owner)

    def _of_function(self, function: types.FunctionType) -> Iterator[bytes]:
        module = code_parts.module_of(function)
        known = code_parts.is_known_by_version(module)
        yield from [_name(function)] if known else code_parts.code_of(function)
        if code_parts.is_users(module):
            read = code_parts.read_by(function)
            self._read.extend(pair for pair in read if self._values or isinstance(pair[1], _CODE))
        else:  # it may be a decorator, which holds the user's function
            held = code_parts.cells_of(function)
            self._read.extend(pair for pair in held if isinstance(pair[1], types.FunctionType))

    def _of_class(self, kind: type) -> Iterator[bytes]:
        users = code_parts.is_users(kind.__module__)
        yield kind.__qualname__.encode() if users else _name(kind)
        yield from self._all(one for one in kind.__mro__[1:] if one is not object)
        for name, member in sorted(vars(kind).items()):
            if self._is_part(kind, name, member, users):
                yield from (name.encode(), self._of(member))

    def _is_part(self, kind: type, name: str, member: Any, users: bool) -> bool:
        """Whether a member of a class says what the class does."""
        if isinstance(member, types.FunctionType):
            is_package = issubclass(kind, nn.Module) and not code_parts.is_known_by_version(
                kind.__module__
            )
            return users or is_package or code_parts.is_users(code_parts.module_of(member))
        if not users or isinstance(member, _DESCRIPTORS) or name.startswith(("__", "_abc_")):
            return False
        return self._values or isinstance(member, _CODE)


def hashed(parts: Iterable[bytes]) -> bytes:
    """A digest of texts in their order.

    Args:
        parts: any texts; their ends take part.
    """
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.digest()


def _plain(value: Any) -> bytes:
    text = hex(value) if type(value) is int else repr(value)  # repr refuses very long integers
    return f"{type(value).__name__} {len(text)} {text}".encode(errors="backslashreplace")


def _name(value: Any) -> bytes:
    name = getattr(value, "__qualname__", type(value).__qualname__)
    return f"{getattr(value, '__module__', '')}.{name}".encode()


def _sorted(attributes: Mapping[Any, Any]) -> dict[Any, Any]:
    return dict(sorted(attributes.items(), key=lambda item: str(item[0])))


def _reduced(value: Any) -> Iterator[Any]:
    """What `pickle` would write of an object, with its attributes in the order of their names."""
    registered = copyreg.dispatch_table.get(type(value))  # of a compiled regular expression, say
    found = registered(value) if registered else value.__reduce_ex__(4)
    if isinstance(found, str):  # a global name
        yield found
        return
    function, arguments, state, *items = (*found, None, None, None)[:5]
    yield from (function, arguments)
    states = state if isinstance(state, tuple) else (state,)
    yield [_sorted(one) if isinstance(one, dict) else one for one in states]
    yield [list(one) for one in items if one is not None]


def _extra(module: nn.Module) -> bytes:
    try:
        return _ADDRESS.sub("", module.extra_repr()).encode(errors="backslashreplace")
    except FOREIGN_ERRORS:
        return b""


def _attributes(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module; only tensors of what torch traced or compiled."""
    is_made = type(module).__module__.startswith(_OF_TORCH)
    return _sorted(
        {
            name: one
            for name, one in vars(module).items()
            if name not in _BOOKKEEPING and (isinstance(one, torch.Tensor) or not is_made)
        }
    )
