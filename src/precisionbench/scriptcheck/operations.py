"""Finds the operations of torch that a script has timed without calling a module.

It reads the source of the timed lines and resolves the names there in the frame that has just
computed the time: nothing is done while the clock runs. Functions of the script that are called
there are followed.
"""

from __future__ import annotations

import builtins
import functools
from collections.abc import Iterator, Mapping, Sequence
from inspect import getattr_static
from types import FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import attrs
import torch

from precisionbench.scriptcheck.code_use import CodeUse, Use, code_use, function_use, with_body
from precisionbench.scriptcheck.frames import TIMEIT, Line, UserFrames, source_of

_TIMEIT_LOOP = "for _i in _it:"
_MOST_DEPTH = 4  # of functions that call one another
_NAMESPACES = (
    torch,
    torch.nn.functional,
    torch.linalg,
    torch.fft,
    torch.special,
    torch.Tensor,
)
# They make, move or describe tensors, or set how torch works: nobody times them alone as work.
_NO_WORK = frozenset(
    """
    tensor as_tensor rand randn randint zeros ones empty full arange linspace eye from_numpy clone
    to cuda cpu item numpy tolist detach float half bfloat16 double type copy_ pin_memory
    size dim numel element_size is_tensor is_floating_point requires_grad_ backward
    no_grad inference_mode enable_grad set_grad_enabled autocast manual_seed device
    set_num_threads get_num_threads compile load save synchronize record elapsed_time
    """.split()  # noqa: SIM905, a list of as many lines would be
)
# Methods of tensors by whose name a call on something unknown is taken for an operation.
_METHODS = frozenset(dir(torch.Tensor)) - frozenset((*dir(list), *dir(dict), *dir(str)))
_MISSING = object()


@attrs.frozen
class Operations:
    """Operations of torch between two readings of a clock.

    Attributes:
        names: of the operations.
        inputs: tensors that they were given first, as data and not as weights.
        others: their other tensors.
        outputs: tensors that were assigned to a name.
        count: how often the operation that ran most ran; 0 if unknown.
    """

    names: tuple[str, ...]
    inputs: tuple[torch.Tensor, ...]
    others: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]
    count: int


def find_operations(
    start: Sequence[Line], end: Sequence[Line], frame: FrameType, frames: UserFrames
) -> Operations | None:
    """The operations between two readings.

    Args:
        start: the line of the first reading, and those that led to it.
        end: the same of the second.
        frame: that has computed their difference.
        frames: which frames are the user's.

    Returns:
        The operations; None if none were found.
    """
    for code, scope in _regions(start, end, frame, frames):
        finder = _Finder(frames)
        finder.add(code, scope, 1, 0)
        if finder.names and finder.tensors:
            return finder.found(tuple(_tensors_of(code.stored, scope)))
    return None


def _regions(
    start: Sequence[Line], end: Sequence[Line], frame: FrameType | None, frames: UserFrames
) -> Iterator[tuple[CodeUse, _Scope]]:
    """What the timed lines may use, and the names there, the innermost frame first.

    The lines between the readings, or between the calls that led to them; or the body of a `with`
    statement, where its context manager reads the clock.
    """
    while frame is not None:
        file = frame.f_code.co_filename
        if file == TIMEIT:
            yield from _statement(frame)
        elif frames.contains(frame):
            lines = {(file, line) for _, _, line in frame.f_code.co_lines() if line}
            first = next((line for line in start if line in lines), None)
            last = next((line for line in end if line in lines), None)
            source, scope = source_of(file), _Scope(frame.f_locals, frame.f_globals)
            if first and last and first <= last:
                yield code_use(source, first[1], last[1]), scope
            if (body := with_body(source, frame.f_lineno)) is not None:
                yield code_use(source, *body), scope
        frame = frame.f_back


def _statement(frame: FrameType) -> Iterator[tuple[CodeUse, _Scope]]:
    """The statement of `timeit.Timer`, from the loop around it on."""
    caller = frame.f_back.f_locals if frame.f_back else {}
    lines = str(getattr(caller.get("self"), "src", "")).splitlines()
    loops = [number for number, line in enumerate(lines, 1) if _TIMEIT_LOOP in line]
    local = {**frame.f_locals, "_it": caller.get("number")}
    for loop in loops[:1]:
        yield code_use("\n".join(lines), loop, len(lines)), _Scope(local, frame.f_globals)


@attrs.frozen
class _Scope:
    """The names that a piece of code can use."""

    local: Mapping[str, Any]
    world: Mapping[str, Any]

    def get(self, dotted: str) -> Any:
        """The value of a dotted name; `_MISSING` if it is unknown."""
        root, *attributes = dotted.split(".")
        value = self.local.get(root, self.world.get(root, getattr(builtins, root, _MISSING)))
        for name in attributes:
            if isinstance(value, ModuleType):
                value = getattr(value, name, _MISSING)
            else:
                value = _attribute(value, name)
        return value


def _attribute(owner: Any, name: str) -> Any:
    """An attribute of an object, or a method of its class; no property of the script's is run."""
    found = getattr(owner, "__dict__", {}).get(name, _MISSING)
    method = getattr_static(type(owner), name, None) if found is _MISSING else None
    return MethodType(method, owner) if isinstance(method, FunctionType) else found


class _Finder:
    """Collects operations and their tensors."""

    def __init__(self, frames: UserFrames) -> None:
        self._frames = frames
        self._inputs: dict[int, torch.Tensor] = {}
        self._counts: list[int] = []
        self.names: dict[str, None] = {}
        self.tensors: dict[int, torch.Tensor] = {}

    def found(self, outputs: tuple[torch.Tensor, ...]) -> Operations:
        """Everything found.

        Args:
            outputs: tensors that were assigned.
        """
        others = [tensor for key, tensor in self.tensors.items() if key not in self._inputs]
        count = 0 if 0 in self._counts else max(self._counts)
        return Operations(
            tuple(self.names), tuple(self._inputs.values()), tuple(others), outputs, count
        )

    def add(self, code: CodeUse, scope: _Scope, count: int, depth: int) -> None:
        """Add what a piece of code uses.

        Args:
            code: its calls and operators.
            scope: its names.
            count: how often it ran; 0 if unknown.
            depth: of calls.
        """
        for use in code.uses:
            self._add_use(use, code, scope, count * _repetitions(use, scope), depth)

    def _add_use(self, use: Use, code: CodeUse, scope: _Scope, count: int, depth: int) -> None:
        receiver = "" if use.is_operator else use.name.rpartition(".")[0]
        owner = scope.get(receiver) if receiver else _MISSING
        function, bound = _unwrapped(_MISSING if use.is_operator else scope.get(use.name))
        given = list(_operands(use, scope, code.stored))
        if name := self._operation(use, function, owner, given):
            self.names[name] = None
            self._counts.append(count)
        elif depth < _MOST_DEPTH and self._is_followed(function):
            values = [*bound, *given[: len(given) - use.keywords]]
            self._follow(function, values, count, depth)
            return
        is_result = receiver.partition(".")[0] in code.stored
        is_method = isinstance(owner, torch.Tensor) and not is_result
        self._add_tensors([*([owner] if is_method else bound), *given])

    def _operation(self, use: Use, function: Any, owner: Any, operands: list[Any]) -> str:
        """The name of the operation that a use is; empty if it is none."""
        if use.is_operator:
            return use.name if any(isinstance(v, torch.Tensor) for v in operands) else ""
        is_method = isinstance(owner, torch.Tensor) or (
            owner is _MISSING and function is _MISSING and use.method in _METHODS
        )
        name = use.method if is_method else _name_in_torch(function)
        return "" if name in _NO_WORK else name

    def _add_tensors(self, values: list[Any]) -> None:
        """Add tensors that are given to something; the first is data."""
        for position, value in enumerate(values):
            for number, tensor in enumerate(_tensors(value)):
                self.tensors[id(tensor)] = tensor
                is_data = not isinstance(tensor, torch.nn.Parameter)
                if position == number == 0 and is_data:
                    self._inputs.setdefault(id(tensor), tensor)

    def _is_followed(self, function: Any) -> bool:
        is_function = isinstance(function, FunctionType)
        return is_function and self._frames.is_user_code(function.__code__)

    def _follow(self, function: FunctionType, values: list[Any], count: int, depth: int) -> None:
        """Add what a function of the script uses.

        Args:
            function: of the script.
            values: of its first parameters, as far as they are known.
            count: how often it ran; 0 if unknown.
            depth: of calls.
        """
        code = function.__code__
        use = function_use(source_of(code.co_filename), code.co_name, code.co_firstlineno)
        parameters = code.co_varnames[: code.co_argcount]
        known = dict.fromkeys(parameters, _MISSING) | dict(zip(parameters, values, strict=False))
        # A parameter that is assigned to has its first value where it is read first.
        use = attrs.evolve(use, stored=use.stored - set(parameters))
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        closure = {name: _content(cell) for name, cell in cells}
        self.add(use, _Scope(closure | known, function.__globals__), count, depth + 1)


def _unwrapped(function: Any) -> tuple[Any, list[Any]]:
    """A function without the `partial`, method or object around it, and what these give it."""
    given: list[Any] = []
    for _ in range(_MOST_DEPTH):
        if isinstance(function, functools.partial):
            function, given = function.func, [*function.args, *given]
        elif isinstance(function, MethodType):
            function, given = function.__func__, [function.__self__, *given]
        elif _is_decorated(function):
            function = function.__wrapped__
        elif isinstance(call := getattr_static(type(function), "__call__", None), FunctionType):
            function, given = call, [function, *given]
    return function, given


def _is_decorated(function: Any) -> bool:
    """Whether a function of the script is in a decorator such as `torch.no_grad()`."""
    is_function = isinstance(function, FunctionType)
    return is_function and "__wrapped__" in vars(function) and not _name_in_torch(function)


def _operands(use: Use, scope: _Scope, stored: frozenset[str]) -> Iterator[Any]:
    """The values that a use is given; `_MISSING` for what is unknown or assigned in this code."""
    for name in use.operands:
        root = name.lstrip("*").partition(".")[0]
        value = _MISSING if not root or root in stored else scope.get(name.lstrip("*"))
        if name.startswith("*") and isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return _MISSING


def _repetitions(use: Use, scope: _Scope) -> int:
    """How often loops repeat a use; 0 if unknown."""
    count = 1
    for given in use.ranges:
        value = scope.get(given) if isinstance(given, str) else given
        count *= _length(value)
    return count


def _length(value: Any) -> int:
    """How often a loop over this many, or over these, runs; 0 if unknown."""
    if isinstance(value, int):
        return value
    return len(value) if isinstance(value, (list, tuple, dict, range)) else 0


def _name_in_torch(function: Any) -> str:
    """The name of a function of torch; empty if it is none."""
    name = getattr(function, "__name__", "") if callable(function) else ""
    short = name.partition("_")[2]  # `torch.fft.fft` calls itself `fft_fft`
    known = (getattr(space, n, None) for space in _NAMESPACES for n in (name, short) if n)
    is_torch = any(one is function for one in known)
    return name if is_torch and not isinstance(function, type) else ""


def _tensors_of(names: frozenset[str], scope: _Scope) -> Iterator[torch.Tensor]:
    for name in sorted(names):
        yield from _tensors(scope.local.get(name))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a value, or in a container of them."""
    if isinstance(value, torch.Tensor):
        yield value
    elif type(value) in (list, tuple):
        for part in value[:8]:
            yield from _tensors(part)
