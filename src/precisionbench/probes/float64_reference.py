"""The numerical error of each layer's output, against the same model in float64."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import nn

from precisionbench.backends.base import cast_model
from precisionbench.backends.batch_norm_folding import is_folded
from precisionbench.errors import FOREIGN_ERRORS, PreparationError
from precisionbench.model.inputs import may_index_items
from precisionbench.model.workload import Workload
from precisionbench.probes.layers import Forward, wrapped
from precisionbench.results.evidence import LayerError
from precisionbench.system.memory import free_device_bytes
from precisionbench.torchtools.agreement import relative_l2, sum_of_squares
from precisionbench.torchtools.cast_on_use import cast_on_use
from precisionbench.torchtools.casts_within import (
    AttentionMasksCast,
    CastsTo16Bits,
    every_cast_to_float64,
    with_attributes_cast,
)
from precisionbench.torchtools.global_state import foreign_functions, threads
from precisionbench.torchtools.tensors import is_plain, walk
from precisionbench.torchtools.timer import Call

# Elements of an output that are compared; a few thousand give a relative error to a few per cent.
_SAMPLES, _FEWEST_SAMPLES = 1 << 14, 1 << 10
_SAMPLES_IN_ALL = 1 << 23  # of all layers together, 64 MiB in float64
# Items of a batch that are compared: they do not depend on each other.
ITEMS = 2
_FIRST_ELEMENTS = 256
_SAME_ERROR = 1e-6
_LARGE_BYTES = 1 << 28  # of weights
_SMALL_SHARE = 1 / 32  # of the memory that is free on a GPU: weights of which are not large
_INPUT = " (input)"  # after the path of a layer whose input is compared as well


@attrs.frozen
class LayerOutput:
    """A sample of a layer's output.

    Attributes:
        shape: of the items compared.
        values: some of their elements in float64.
        max_abs: the largest finite magnitude of the whole batch.
        nonfinite_count: elements of the items compared that are infinite or NaN.
        nonfinite_in_all: of the whole batch.
        first: the first elements of the first item.
        step: one of `step` elements of the items compared is in `values`.
    """

    shape: tuple[int, ...]
    values: torch.Tensor
    max_abs: float
    nonfinite_count: int
    nonfinite_in_all: int
    first: torch.Tensor
    step: int


@attrs.frozen
class _Sample:
    """A sample of a layer's output where the model runs.

    Attributes:
        shape: as in `LayerOutput`, and so is `step`.
        parts: one-dimensional tensors in float64: what `LayerOutput` has of `values` and `first`,
            and one element each for `max_abs`, `nonfinite_count` and `nonfinite_in_all`.
        step: as in `LayerOutput`.
    """

    shape: tuple[int, ...]
    parts: tuple[torch.Tensor, ...]
    step: int

    def read(self, parts: Iterable[torch.Tensor]) -> LayerOutput:
        """The sample on the host.

        Args:
            parts: on the host, in the order of `self.parts`.
        """
        values, first, largest, nonfinite, nonfinite_in_all = parts
        return LayerOutput(
            self.shape,
            values,
            float(largest),
            int(nonfinite),
            int(nonfinite_in_all),
            first,
            self.step,
        )


LayerOutputs = Mapping[str, LayerOutput]
Outputs = Callable[[Workload, nn.Module], LayerOutputs]


def needs_every_item(outputs: LayerOutputs) -> bool:
    """Whether items that are not compared have infinite or NaN elements.

    Only float64 of the whole batch shows if they have them for another reason than rounding, such
    as an item of which a mask leaves nothing.

    Args:
        outputs: of a call in another dtype.
    """
    return any(
        one.nonfinite_in_all > one.nonfinite_count
        for path, one in outputs.items()
        if not path.endswith(_INPUT)
    )


def layer_outputs_in_float64(
    workload: Workload, large_bytes: int | None = None, *, every_item: bool = False
) -> LayerOutputs:
    """Every module's output, and the model's own under an empty path, computed in float64.

    Large models are cast one weight at a time, so that this takes one copy of the model and the
    largest weight in float64; those whose code works with its weights in other ways are cast as a
    whole, and so are small ones: tensors that cast let torch import libraries for seconds. Where
    that fails, because the model itself casts to another dtype, or where it casts to 16 bits, its
    own casts give float64, too.

    Args:
        workload: of its batch two items are taken, or all where they depend on each other.
        large_bytes: of weights; a model that has as many is cast one weight at a time. None depends
            on the memory that is free.
        every_item: take the whole batch in any case.

    Raises:
        PreparationError: torch is patched in this process, so its float64 may be wrong.
    """
    if patched := foreign_functions():
        raise PreparationError(f"torch is patched in this process ({patched[0]} and others)")
    outputs = _computed if every_item else _outputs
    model = workload.make_model()
    if large_bytes is None:
        large_bytes = large_bytes_on(workload.device)
    if sum(p.numel() * p.element_size() for p in model.parameters()) >= large_bytes:
        with contextlib.suppress(*FOREIGN_ERRORS):  # of code that writes to its weights, say
            return outputs(workload, cast_on_use(model, torch.float64, _cast_whole))
        model = workload.make_model()
    casts = CastsTo16Bits()
    try:
        with casts:
            found = outputs(workload, _cast_whole(model))
    except FOREIGN_ERRORS as exc:
        if (wider := _with_wider_casts(workload, outputs)) is not None:
            return wider
        raise exc from None
    wider = _with_wider_casts(workload, outputs) if casts.found else None
    return found if wider is None else wider


def large_bytes_on(device: torch.device) -> int:
    """Bytes of weights from which on a model is cast one weight at a time.

    Args:
        device: where the model runs.
    """
    free_bytes = free_device_bytes(device) or 0
    return max(_LARGE_BYTES, int(_SMALL_SHARE * free_bytes))


def _with_wider_casts(workload: Workload, outputs: Outputs) -> LayerOutputs | None:
    """The same where the model's own casts give float64; None where that fails."""
    with contextlib.suppress(*FOREIGN_ERRORS), every_cast_to_float64():
        return outputs(workload, with_attributes_cast(_cast_whole(workload.make_model())))
    return None


def _cast_whole(model: nn.Module) -> nn.Module:
    return cast_model(model, torch.float64)


def _outputs(workload: Workload, model: nn.Module) -> LayerOutputs:
    batch = workload.info.batch_size
    if batch is not None and batch > ITEMS:
        found = _of_items(workload, model)
        if found is not None:
            return found
    return _computed(workload, model)


def _computed(workload: Workload, model: nn.Module) -> LayerOutputs:
    inputs = workload.make_inputs().to(torch.float64)
    # Within a session, gradients are off in its own way already.
    with torch.no_grad(), AttentionMasksCast():
        return layer_outputs(inputs.bind(model), model, workload.info.batch_size)


def _of_items(workload: Workload, model: nn.Module) -> LayerOutputs | None:
    """Of a few items; None where items depend on each other, or a small batch does not run."""
    if may_index_items(workload.inputs, workload.info.batch_size or 0, 1):
        return None
    try:
        alone, found = (_computed(workload.with_batch(n), model) for n in (1, ITEMS))
    except FOREIGN_ERRORS:
        return None
    one, some = alone.get(""), found.get("")
    if one is None or some is None:  # integers, such as classes: there is nothing to compare
        return found
    if one.shape[1:] != some.shape[1:] or some.shape[:1] != (ITEMS,):
        return None
    same = torch.allclose(one.first, some.first, rtol=_SAME_ERROR, atol=_SAME_ERROR, equal_nan=True)
    return found if same else None


def layer_outputs(
    call: Callable[[], Any],
    module: nn.Module | None,
    batch: int | None,
    like: LayerOutputs | None = None,
) -> LayerOutputs:
    """The output of every module in a call, and of the call itself under an empty path.

    Of modules without parts the input is there as well, so that what is wrong with an output can
    be distinguished from what was wrong before.

    Args:
        call: one forward pass.
        module: the model behind it; None where its layers cannot be observed.
        batch: the first dimension of a tensor that holds more items than are compared.
        like: outputs to compare them with: others are passed over, and the same elements are taken.
    """
    found: dict[str, _Sample] = {}
    most = _samples_each(module)

    def sample(path: str, output: Any) -> None:
        if like is None:
            _sample(found, path, output, batch, lambda count: math.ceil(count / most))
        elif path in like:
            _sample(found, path, output, batch, lambda _: like[path].step)

    def wrap(path: str, part: nn.Module, forward: Forward) -> Forward:
        has_parts = next(part.children(), None) is not None

        def sampled(*args: Any, **kwargs: Any) -> Any:
            if not has_parts and path not in found:
                sample(path + _INPUT, (args, kwargs))
            output = forward(*args, **kwargs)
            if path not in found:
                sample(path, output)
            return output

        return sampled

    with wrapped(module, wrap):
        output = call()
    found.pop("", None)  # a plugin's call may do more than its module
    sample("", output)
    return _on_host(found)


def _samples_each(module: nn.Module | None) -> int:
    """How many elements of each output are compared: fewer where there are very many layers."""
    parts = 2 * sum(1 for _ in module.modules()) if module is not None else 1
    return min(_SAMPLES, max(_FEWEST_SAMPLES, _SAMPLES_IN_ALL // parts))


def _sample(
    found: dict[str, _Sample],
    path: str,
    output: Any,
    batch: int | None,
    step_for: Callable[[int], int],
) -> None:
    """Copy elements at once, as the next layer may work in place; read scalars only later.

    In few operations, each of which is a kernel on a GPU.
    """
    numbers = (t for _, t in walk(output) if t.is_floating_point() or t.is_complex())
    tensor = next(numbers, None)
    if tensor is None or not is_plain(tensor) or not tensor.numel():
        return
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    magnitudes = tensor.abs()
    is_nonfinite = ~(magnitudes < math.inf)
    largest = magnitudes.masked_fill_(is_nonfinite, 0).amax()
    nonfinite_in_all = nonfinite = is_nonfinite.sum(dtype=torch.float64)
    if batch is not None and tensor.dim() and tensor.shape[0] == batch > ITEMS:
        tensor = tensor[:ITEMS]
        nonfinite = is_nonfinite[:ITEMS].sum(dtype=torch.float64)
    flat = tensor.reshape(-1)
    step = step_for(flat.numel())
    items = tensor.shape[0] if tensor.dim() else 1
    first = flat[: min(_FIRST_ELEMENTS, flat.numel() // items)]
    copies = (part.to(torch.float64, copy=True) for part in (flat[::step], first))
    scalars = (one.double().reshape(1) for one in (largest, nonfinite, nonfinite_in_all))
    found[path] = _Sample(tuple(tensor.shape), (*copies, *scalars), step)


def _on_host(samples: Mapping[str, _Sample]) -> LayerOutputs:
    """Read the samples of all layers, with one transfer from each device.

    A transfer from a GPU waits for the time slices of the other processes that use it.

    Args:
        samples: by the paths of their layers.
    """
    host = torch.device("cpu")  # Apex O1 makes .cpu() cast to float32
    parts = [part for sample in samples.values() for part in sample.parts]
    read: dict[torch.device, Iterator[torch.Tensor]] = {}
    for device in {part.device for part in parts}:
        own = [part for part in parts if part.device == device]
        read[device] = iter(torch.cat(own).to(host).split([part.numel() for part in own]))
    return {
        path: sample.read([next(read[part.device]) for part in sample.parts])
        for path, sample in samples.items()
    }


def layer_errors(
    call: Call, module: nn.Module | None, batch: int | None, expected: LayerOutputs
) -> tuple[LayerError, ...]:
    """The error of each module's output, and of the call's own, against float64; in order.

    Args:
        call: one forward pass.
        module: the model behind it; None where its layers cannot be observed.
        batch: items in the call.
        expected: from `layer_outputs_in_float64`; modules that are missing there, or of other
            shapes, are left out, and so are those with a folded batch norm, whose outputs differ
            by design.
    """
    outputs = layer_outputs(call, module, batch, expected)
    folded = {path for path, part in module.named_modules() if is_folded(part)} if module else ()
    compared = [
        path
        for path, own in outputs.items()
        if path in expected and expected[path].shape == own.shape and path not in folded
    ]
    with threads(1):  # others wait for each other; see `compare_tensors`
        found = {path: _error(path, outputs[path], expected[path]) for path in compared}
    inputs = {path: found.pop(path).relative_l2 for path in list(found) if path.endswith(_INPUT)}
    return tuple(
        attrs.evolve(error, input_relative_l2=inputs.get(path + _INPUT))
        for path, error in found.items()
    )


def _new_nonfinite(own: LayerOutput, reference: LayerOutput) -> int:
    """In the whole batch only where float64 has none, or is of the whole batch as well.

    Masks put infinities into every item, or NaN into some of them.
    """
    if reference.nonfinite_in_all in (0, own.nonfinite_in_all):
        return own.nonfinite_in_all - reference.nonfinite_in_all
    if reference.nonfinite_in_all > reference.nonfinite_count:
        return max(0, own.nonfinite_in_all - reference.nonfinite_in_all)
    return max(0, own.nonfinite_count - reference.nonfinite_count)


def _error(path: str, own: LayerOutput, reference: LayerOutput) -> LayerError:
    finite = own.values.isfinite() & reference.values.isfinite()
    mine, theirs = own.values[finite], reference.values[finite]
    return LayerError(
        path=path,
        relative_l2=relative_l2(sum_of_squares(mine - theirs), sum_of_squares(theirs)),
        max_abs=own.max_abs,
        nonfinite_count=_new_nonfinite(own, reference),
        reference_max_abs=reference.max_abs,
    )
