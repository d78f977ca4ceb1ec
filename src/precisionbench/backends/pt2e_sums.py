"""Keeps TorchInductor from computing a sum in the memory of a model's input or parameter.

Where the output of a quantised layer is added to a tensor, oneDNN's kernel adds in place. In torch
2.14, TorchInductor also does so if that tensor is an input or a parameter of the model, so that
each call changes it. A subtraction of the negative has the same value, and is not fused.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from torch import fx

_ATEN = torch.ops.aten
_DIFFERENCES: dict[Any, Any] = {
    _ATEN.add.Tensor: _ATEN.sub.Tensor,
    _ATEN.add_.Tensor: _ATEN.sub_.Tensor,
}
# Operations that TorchInductor removes, as they do not change their input.
_UNCHANGED = ("alias", "clone", "contiguous", "detach", "dropout", "feature_dropout", "to")


def protect_inputs(model: fx.GraphModule) -> None:
    """Replace sums of an input or a parameter and another tensor, in place.

    Args:
        model: converted, not compiled.
    """
    for node in model.graph.nodes:
        if node.target in _DIFFERENCES and len(node.args) == len(node.all_input_nodes):
            _protect(model, node)
    model.recompile()


def _protect(model: fx.GraphModule, node: fx.Node) -> None:
    first, second = node.args
    if _is_held(model, second):
        pair = (first, second)
    elif node.target is _ATEN.add.Tensor and _is_held(model, first):
        pair = (second, first)
    else:
        return
    with model.graph.inserting_before(node):
        negative = model.graph.call_function(_ATEN.neg.default, (pair[1],))
    node.target, node.args = _DIFFERENCES[node.target], (pair[0], negative)


def _is_held(model: fx.GraphModule, node: Any) -> bool:
    """Whether a tensor of floats is an input or a parameter, or would become one."""
    while isinstance(node.target, torch._ops.OpOverload) and node.target._opname in _UNCHANGED:
        node = node.args[0]
    if node.op == "get_attr":
        return bool(attrgetter(node.target)(model).is_floating_point())
    return node.op == "placeholder" and bool(node.meta["val"].is_floating_point())
