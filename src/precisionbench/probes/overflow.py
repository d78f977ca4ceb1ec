"""Operations whose result exceeds the range of its dtype, wherever in a model they are.

The outputs of modules are not enough: infinity within a module can become a finite number again,
`x / inf` for example. Each operation that gives infinity or NaN is computed once more in float64
from the same operands. Only elements that are finite there exceed the range: those of a mask of
-inf, of a division by zero or of a logarithm of zero are infinite in float64, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from precisionbench.errors import FOREIGN_ERRORS
from precisionbench.probes.layers import Forward, wrapped
from precisionbench.results.dtypes import FLOAT16, dtype_name
from precisionbench.results.evidence import Evidence, Overflow
from precisionbench.torchtools.agreement import cpu_copies, relative_l2, sum_of_squares
from precisionbench.torchtools.global_state import dynamo_not_imported_by
from precisionbench.torchtools.tensors import cast, map_tensors, walk
from precisionbench.torchtools.timer import Call

# A larger error of a layer has causes other than the rounding of float16.
_USUAL_ERROR = 5e-3
_MOST_IN_FLOAT64 = 256  # operations of a call: infinity goes through all that follow
# Their results are memory as it was before.
_UNINITIALISED = ("empty", "new_empty", "resize", "set_")


def overflows_of(call: Call, module: nn.Module | None, evidence: Evidence) -> tuple[Overflow, ...]:
    """The operations of a call whose result exceeds the range of its dtype, in order.

    Args:
        call: one forward pass.
        module: the model behind it; None where its operations are not those of eager PyTorch.
        evidence: of the same row; nothing is computed where it has neither float16 nor a layer
            with a large error.
    """
    if module is None or not _is_possible(evidence):
        return ()
    before, found = _watched(call, module, clamp=False)
    if not found:
        return ()
    clamped, _ = _watched(call, module, clamp=True)
    change = _change(before, clamped)
    return tuple(attrs.evolve(one, output_change=change) for one in found)


def _is_possible(evidence: Evidence) -> bool:
    tensors = (tensor for layer in evidence.layers for tensor in (*layer.inputs, *layer.outputs))
    return any(tensor.dtype == FLOAT16 for tensor in tensors) or any(
        error.nonfinite_count or (error.relative_l2 or 0.0) > _USUAL_ERROR
        for error in evidence.errors
    )


def _watched(
    call: Call, module: nn.Module, *, clamp: bool
) -> tuple[dict[str, torch.Tensor], tuple[Overflow, ...]]:
    """The output of a call and its overflows; with `clamp`, those are the largest finite number."""
    stack = [""]
    watch = _Watch(lambda: stack[-1], clamp)

    def wrap(path: str, _: nn.Module, forward: Forward) -> Forward:
        def located(*args: Any, **kwargs: Any) -> Any:
            stack.append(path)
            try:
                return forward(*args, **kwargs)
            finally:
                stack.pop()

        return located

    with dynamo_not_imported_by(_Watch), wrapped(module, wrap), watch:
        output = call()
    return cpu_copies(output), tuple(watch.found.values())


class _Watch(TorchDispatchMode):
    """Counts the elements of results that exceed their dtype's range, by layer and operation.

    Args:
        layer: gives the path of the module that runs.
        clamp: whether to put the largest finite number in their place.
    """

    def __init__(self, layer: Callable[[], str], clamp: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._layer, self._clamp, self._left = layer, clamp, _MOST_IN_FLOAT64
        self.found: dict[tuple[str, str], Overflow] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        operands = (args, kwargs)
        if func._schema.is_mutable:  # they are not the same afterwards
            operands = map_tensors(torch.clone, operands)
        output = func(*args, **kwargs)
        if not (func.is_view or func._schema.name.split("::")[-1].startswith(_UNINITIALISED)):
            with contextlib.suppress(*FOREIGN_ERRORS):  # it may have no form in float64
                self._inspect(func, operands, output)
        return output

    def _inspect(self, func: Any, operands: tuple[Any, Any], output: Any) -> None:
        results = [tensor for _, tensor in walk(output)]
        if not self._left or all(map(_is_finite, results)):
            return
        self._left -= 1
        args, kwargs = map_tensors(lambda one: cast(one, torch.float64), operands)
        wider = func(*args, **{name: _widened(value) for name, value in kwargs.items()})
        for result, (_, true) in zip(results, walk(wider), strict=True):
            if _is_finite(result):
                continue
            beyond = ~result.isfinite() & true.isfinite()
            if count := int(beyond.sum()):
                self._add(func, result, count)
            if self._clamp and count:
                limit = torch.finfo(result.dtype).max
                result.copy_(
                    torch.where(beyond, true.clamp(-limit, limit).to(result.dtype), result)
                )

    def _add(self, func: Any, result: torch.Tensor, count: int) -> None:
        layer, name = self._layer(), func._schema.name.split("::")[-1].rstrip("_")
        new = Overflow(layer, name, dtype_name(result.dtype), 0)
        before = self.found.get((layer, name), new)
        self.found[layer, name] = attrs.evolve(before, count=before.count + count)


def _is_finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _widened(value: Any) -> Any:
    is_real = isinstance(value, torch.dtype) and value.is_floating_point
    return torch.float64 if is_real else value


def _change(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float | None:
    """The largest relative L2 change of an output tensor; None where none is finite."""
    changes = [change for change in _changes(before, after) if change is not None]
    return max(changes, default=None)


def _changes(
    before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]
) -> Iterator[float | None]:
    for path, tensor in before.items():
        other = after.get(path)
        if other is None or other.shape != tensor.shape or not tensor.is_floating_point():
            continue
        one, two = tensor.double(), other.double()
        finite = one.isfinite() & two.isfinite()
        difference = sum_of_squares((one - two)[finite])
        yield relative_l2(difference, sum_of_squares(two[finite])) if difference else 0.0
