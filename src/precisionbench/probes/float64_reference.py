"""How far each layer's output is from what the model gives in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import nn

from precisionbench.backends.base import cast_model
from precisionbench.backends.batch_norm_folding import is_folded
from precisionbench.errors import FOREIGN_ERRORS, PreparationError
from precisionbench.model.workload import Workload
from precisionbench.probes.layers import Forward, wrapped
from precisionbench.results.evidence import LayerError
from precisionbench.torchtools.agreement import relative_l2, sum_of_squares
from precisionbench.torchtools.global_state import foreign_functions
from precisionbench.torchtools.tensors import walk
from precisionbench.torchtools.timer import Call

# Elements of an output that are compared; a few thousand tell a relative error to a few per cent.
_SAMPLES = 1 << 14
# Items of a batch that are compared: they do not depend on each other.
ITEMS = 2
_FIRST = 256
_SAME = 1e-6


@attrs.frozen
class Seen:
    """A layer's output.

    Attributes:
        shape: of the items compared.
        values: samples of them in float64.
        max_abs: the largest finite magnitude of the whole batch.
        nonfinite_count: elements of the items compared that are infinite or NaN.
        nonfinite_in_all: of the whole batch.
        first: the beginning of the first item, as it is.
    """

    shape: tuple[int, ...]
    values: torch.Tensor
    max_abs: float
    nonfinite_count: int
    nonfinite_in_all: int
    first: torch.Tensor


Truth = Mapping[str, Seen]


def truth(workload: Workload) -> Truth:
    """Every module's output, and the model's own under an empty path, computed in float64.

    Args:
        workload: of its batch two items are taken, or all where they depend on each other.

    Raises:
        PreparationError: torch is patched in this process, so that it could not be trusted.
    """
    if patched := foreign_functions():
        raise PreparationError(f"torch is patched here ({patched[0]} and others)")
    model = cast_model(workload.make_model(), torch.float64)
    batch = workload.info.batch_size
    if batch is not None and batch > ITEMS:
        found = _of_items(workload, model)
        if found is not None:
            return found
    return _computed(workload, model)


def _computed(workload: Workload, model: nn.Module) -> Truth:
    inputs = workload.make_inputs().to(torch.float64)
    with torch.no_grad():  # within a session, gradients are off in its own way already
        return outputs_of(inputs.bind(model), model, workload.info.batch_size)


def _of_items(workload: Workload, model: nn.Module) -> Truth | None:
    """Of a few items; None where an item's output changes with the others, or few do not run."""
    try:
        alone, found = (_computed(workload.with_batch(n), model) for n in (1, ITEMS))
    except FOREIGN_ERRORS:
        return None
    one, some = alone.get(""), found.get("")
    if one is None or some is None:  # whole numbers, such as classes: nothing to compare anyway
        return found
    if one.shape[1:] != some.shape[1:] or some.shape[:1] != (ITEMS,):
        return None
    same = torch.allclose(one.first, some.first, rtol=_SAME, atol=_SAME, equal_nan=True)
    return found if same else None


def outputs_of(call: Callable[[], Any], module: nn.Module | None, batch: int | None) -> Truth:
    """What every module gives in a call, and the call itself.

    Args:
        call: one forward pass.
        module: the model behind it; None where there is none to look into.
        batch: the first dimension of a tensor that holds more items than are compared.
    """
    found: dict[str, tuple[Any, ...]] = {}

    def wrap(path: str, _: nn.Module, forward: Forward) -> Forward:
        def watched(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            if path not in found:
                _add(found, path, output, batch)
            return output

        return watched

    with wrapped(module, wrap):
        output = call()
    found.pop("", None)  # a plugin's call may do more than its module
    _add(found, "", output, batch)
    return {path: _seen(*parts) for path, parts in found.items()}


def _add(found: dict[str, tuple[Any, ...]], path: str, output: Any, batch: int | None) -> None:
    """Take samples at once, because the next layer may work in place; look at them later."""
    tensor = next((t for _, t in walk(output) if t.is_floating_point()), None)
    if tensor is None or not tensor.numel() or tensor.layout != torch.strided:
        return
    tensor = tensor.detach()
    finite = tensor.isfinite()
    largest = tensor.where(finite, 0).abs().amax()
    bad_in_all = (~finite).sum()
    if batch is not None and tensor.dim() and tensor.shape[0] == batch > ITEMS:
        tensor = tensor[:ITEMS]
    bad = (~tensor.isfinite()).sum()
    flat = tensor.reshape(-1)
    step = max(1, math.ceil(flat.numel() / _SAMPLES))
    items = tensor.shape[0] if tensor.dim() else 1
    first = flat[: min(_FIRST, flat.numel() // items)].double().clone()
    found[path] = (
        tuple(tensor.shape),
        flat[::step].double().clone(),
        largest,
        bad,
        bad_in_all,
        first,
    )


def _seen(
    shape: tuple[int, ...], values: Any, largest: Any, bad: Any, bad_in_all: Any, first: Any
) -> Seen:
    host = torch.device("cpu")  # Apex O1 makes .cpu() cast to float32
    return Seen(shape, values.to(host), float(largest), int(bad), int(bad_in_all), first.to(host))


def errors(
    call: Call, module: nn.Module | None, batch: int | None, expected: Truth
) -> tuple[LayerError, ...]:
    """How far each module's output, and the call's own, are from float64's, in order.

    Args:
        call: one forward pass.
        module: the model behind it; None where there is none to look into.
        batch: items in the call.
        expected: what `truth` gave; modules that are missing there, or of other shapes, are left
            out, and so are those that hold a folded batch norm, whose outputs are another thing.
    """
    seen = outputs_of(call, module, batch)
    other = {path for path, part in module.named_modules() if is_folded(part)} if module else ()
    return tuple(
        _error(path, own, expected[path])
        for path, own in seen.items()
        if path in expected and expected[path].shape == own.shape and path not in other
    )


def _new_nonfinite(own: Seen, reference: Seen) -> int:
    """In the whole batch only where float64 has none: masks put infinities into every item."""
    if reference.nonfinite_count == 0:
        return own.nonfinite_in_all
    return max(0, own.nonfinite_count - reference.nonfinite_count)


def _error(path: str, own: Seen, reference: Seen) -> LayerError:
    finite = own.values.isfinite() & reference.values.isfinite()
    mine, theirs = own.values[finite], reference.values[finite]
    return LayerError(
        path=path,
        relative_l2=relative_l2(sum_of_squares(mine - theirs), sum_of_squares(theirs)),
        max_abs=own.max_abs,
        nonfinite_count=_new_nonfinite(own, reference),
        reference_max_abs=reference.max_abs,
    )
