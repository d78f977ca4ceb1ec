"""Finds the operations of torch that a script has timed without calling a module.

It reads the source of the timed lines and resolves the names there in the frame that has just
computed the time: nothing is done while the clock runs. Functions of the script that are called
there are followed.
"""

from __future__ import annotations

import builtins
import functools
import linecache
from collections.abc import Iterator, Mapping
from types import FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import attrs
import torch

from precisionbench.scriptcheck.code_use import CodeUse, Use, code_use, with_body
from precisionbench.scriptcheck.frames import TIMEIT, Line, UserFrames

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
    start: Line, end: Line, frame: FrameType, frames: UserFrames
) -> Operations | None:
    """The operations between two readings.

    Args:
        start: the line of the first reading.
        end: the line of the second.
        frame: that has computed their difference.
        frames: which frames are the user's.

    Returns:
        The operations; None if none were found.
    """
    region = _region(start, end, frame, frames)
    if region is None:
        return None
    code, scope = region
    finder = _Finder(frames)
    finder.add(code, scope, 1, 0)
    if not finder.names or not finder.tensors:
        return None
    return finder.found(tuple(_tensors_of(code.stored, scope)))


def _region(
    start: Line, end: Line, frame: FrameType | None, frames: UserFrames
) -> tuple[CodeUse, _Scope] | None:
    """What the timed lines use, and the names there.

    Those between the readings, if one frame has read both; else the readings are in a context
    manager, and the lines are the body of the `with` statement.
    """
    while frame is not None:
        file = frame.f_code.co_filename
        if file == TIMEIT:
            return _statement(frame)
        if frames.contains(frame):
            lines = {line for _, _, line in frame.f_code.co_lines() if line}
            has_both = file == start[0] == end[0] and {start[1], end[1]} <= lines
            source = "".join(linecache.getlines(file))
            body = (start[1], end[1]) if has_both else with_body(source, frame.f_lineno)
            if body is not None:
                return code_use(source, *body), _Scope(frame.f_locals, frame.f_globals)
        frame = frame.f_back
    return None


def _statement(frame: FrameType) -> tuple[CodeUse, _Scope] | None:
    """The statement of `timeit.Timer`, from the loop around it on."""
    caller = frame.f_back.f_locals if frame.f_back else {}
    lines = str(getattr(caller.get("self"), "src", "")).splitlines()
    loops = [number for number, line in enumerate(lines, 1) if _TIMEIT_LOOP in line]
    if not loops:
        return None
    local = {**frame.f_locals, "_it": caller.get("number")}
    return code_use("\n".join(lines), loops[0], len(lines)), _Scope(local, frame.f_globals)


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
            else:  # no descriptor of the script's may run
                value = getattr(value, "__dict__", {}).get(name, _MISSING)
        return value


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
        operands = [scope.get(name) if name else _MISSING for name in use.operands]
        owner = scope.get(receiver) if receiver else _MISSING
        function = _MISSING if use.is_operator else scope.get(use.name)
        if name := self._operation(use, function, owner, operands):
            self.names[name] = None
            self._counts.append(count)
        values = [owner, *operands] if isinstance(owner, torch.Tensor) else operands
        names = [receiver, *use.operands] if isinstance(owner, torch.Tensor) else use.operands
        self._add_tensors(values, names, code.stored)
        if depth < _MOST_DEPTH and not name:
            self._follow(function, count, depth)

    def _operation(self, use: Use, function: Any, owner: Any, operands: list[Any]) -> str:
        """The name of the operation that a use is; empty if it is none."""
        if use.is_operator:
            return use.name if any(isinstance(v, torch.Tensor) for v in operands) else ""
        is_method = isinstance(owner, torch.Tensor) or (
            owner is _MISSING and function is _MISSING and hasattr(torch.Tensor, use.method)
        )
        name = use.method if is_method else _name_in_torch(function)
        return "" if name in _NO_WORK else name

    def _add_tensors(self, values: list[Any], names: Any, stored: frozenset[str]) -> None:
        """Add tensors that are not results of the same code; the first is data."""
        for position, (value, name) in enumerate(zip(values, names, strict=True)):
            if name.partition(".")[0] in stored:
                continue
            for tensor in _tensors(value):
                self.tensors[id(tensor)] = tensor
                if position == 0 and not isinstance(tensor, torch.nn.Parameter):
                    self._inputs.setdefault(id(tensor), tensor)
                    position = 1  # of a tuple, only the first

    def _follow(self, function: Any, count: int, depth: int) -> None:
        """Add what a function of the script uses."""
        while isinstance(function, (functools.partial, MethodType)):
            if isinstance(function, functools.partial):
                self._add_tensors(list(function.args), ["?"] * len(function.args), frozenset())
                function = function.func
            else:
                function = function.__func__
            if name := _name_in_torch(function):
                self.names[name] = None
                self._counts.append(count)
        if not isinstance(function, FunctionType) or not self._frames.is_user_code(
            function.__code__
        ):
            return
        code = function.__code__
        lines = [line for _, _, line in code.co_lines() if line]
        use = code_use("".join(linecache.getlines(code.co_filename)), min(lines), max(lines))
        self.add(use, _Scope(_closure(function), function.__globals__), count, depth + 1)


def _closure(function: FunctionType) -> dict[str, Any]:
    """The names that a function has from where it was defined, and its parameters, unknown."""
    code = function.__code__
    parameters = dict.fromkeys(code.co_varnames[: code.co_argcount], _MISSING)
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    return {**parameters, **{name: _content(cell) for name, cell in cells}}


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
    is_torch = any(getattr(space, name, None) is function for space in _NAMESPACES if name)
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
