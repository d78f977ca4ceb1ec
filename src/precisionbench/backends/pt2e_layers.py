"""Which layers of a model that PT2E has converted are quantised, read from its graph."""

from __future__ import annotations

from operator import attrgetter
from typing import cast

import torch
from torch import fx

from precisionbench.backends.stored_weights import StoredWeight
from precisionbench.results.dtypes import FLOAT32, INT8

_LAYERS = ("linear", "conv")  # how the operations of layers with weights begin


def converted_weights(model: fx.GraphModule, prefix: str) -> list[StoredWeight]:
    """The weights of convolutions and linear layers, each once.

    A layer is quantised where both its input and its weight are dequantised ahead of it, by which
    TorchInductor finds the layers that it replaces by INT8 kernels; the others are in float32.

    Args:
        model: converted, not compiled.
        prefix: path of the user's model in it.
    """
    found: dict[object, StoredWeight] = {}
    for node in filter(_is_layer, model.graph.nodes):
        operands = [cast("fx.Node", operand) for operand in node.args[:2]]
        is_quantised = all(_name(operand).startswith("dequantize") for operand in operands)
        weight, elements = _held(model, operands[1])
        if weight not in found or not is_quantised:  # else a layer that is called again
            dtype = INT8 if is_quantised else FLOAT32
            found[weight] = StoredWeight(_layer(node, prefix), elements, dtype)
    return list(found.values())


def _is_layer(node: fx.Node) -> bool:
    return _name(node).startswith(_LAYERS)


def _name(node: fx.Node) -> str:
    """The name of an operation without its namespace; empty for a parameter or an input."""
    return node.target._opname if isinstance(node.target, torch._ops.OpOverload) else ""


def _held(model: fx.GraphModule, weight: fx.Node) -> tuple[object, int]:
    """What a weight is ahead of any quantisation, and its number of elements."""
    while _name(weight).startswith(("quantize", "dequantize")):
        weight = cast("fx.Node", weight.args[0])
    if weight.op == "get_attr":  # a parameter, or its INT8 form
        return weight.target, attrgetter(str(weight.target))(model).numel()
    return weight, weight.meta["val"].numel()


def _layer(node: fx.Node, prefix: str) -> str:
    """The path of the layer in the user's model."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str([entry[0] for entry in stack.values()][-1]) if stack else node.name
    return "" if path == prefix else path.removeprefix(f"{prefix}.")
