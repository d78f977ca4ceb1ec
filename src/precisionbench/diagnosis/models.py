"""Properties of known models by name: variant, shape of an input item, and FLOPs."""

from __future__ import annotations

from precisionbench.published.search import model_key
from precisionbench.reference_data.model_flops import ItemFlops, entries
from precisionbench.results import WorkloadInfo


def item_flops(model: str, variant: str = "", input: str | None = None) -> tuple[ItemFlops, ...]:
    """FLOPs per item of a model: one for each variant that matches, none for an unknown model.

    Args:
        model: name of the model, in any spelling that `published.find` accepts.
        variant: such as `v1.5`.
        input: shape of one item, such as `3x224x224`; None matches any.
    """
    wanted, written = model_key(model)
    variant = variant or written
    return tuple(
        entry.flops
        for entry in entries()
        if model_key(entry.name)[0] == wanted
        and entry.variant in (variant or entry.variant, "")
        and entry.input == (input or entry.input)
    )


def least_flops(workload: WorkloadInfo) -> float | None:
    """Minimum FLOPs per item of any variant; None where the model is not known.

    Args:
        workload: the model and its inputs.
    """
    input = input_of(workload)
    if input is None or not workload.model.startswith("torchvision:"):
        return None
    found = item_flops(workload.model, variant_of(workload.model) or "", input)
    return min((flops.least for flops in found), default=None)


def variant_of(model: str) -> str | None:
    """The variant of a model; torchvision's ResNets are v1.5 (stride in the 3x3 convolution).

    Args:
        model: name of the model.
    """
    key, variant = model_key(model)
    if variant or not model.startswith("torchvision:"):
        return variant or None
    return "v1.5" if key in ("resnet50", "resnet101", "resnet152") else None


def input_of(workload: WorkloadInfo) -> str | None:
    """The shape of one item of the input; None where there are several input tensors.

    Args:
        workload: the model and its inputs.
    """
    if len(workload.inputs) != 1:
        return None
    shape, batch = workload.inputs[0].shape, workload.batch_size
    item = shape[1:] if shape and shape[0] == batch else shape
    if "int" in workload.inputs[0].dtype and len(item) == 1:
        return f"sequence {item[0]}"
    return "x".join(map(str, item)) or None
