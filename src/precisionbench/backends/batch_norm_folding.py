"""Fold batch norms into the layers before them, for inference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import fx, nn

from precisionbench.errors import FOREIGN_ERRORS, PreparationError, one_line

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_AHEAD = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_MARK = "_precisionbench_folded"


def folded(model: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution or linear layer before it.

    In inference a batch norm multiplies and adds constants, which the weights and bias of the
    layer before it can hold (`torch.fx.experimental.optimization.fuse`).

    Args:
        model: a private copy in eval mode; its layers are used.

    Returns:
        The traced model, with one layer in place of each such pair.

    Raises:
        PreparationError: the model cannot be traced, or there is nothing to fold.
    """
    if not any(isinstance(module, _BATCH_NORMS) for module in model.modules()):
        raise PreparationError(
            "the model has no batch norm to fold", "leave fold_batch_norm out for it"
        )
    traced = _traced(model)
    _check_not_shared(traced)
    before = dict(traced.named_modules())
    fused = _fused(traced)
    layers = {path: m for path, m in fused.named_modules() if isinstance(m, _AHEAD)}
    changed = [layer for path, layer in layers.items() if before.get(path) is not layer]
    if not changed:
        raise PreparationError(
            "no batch norm of the model is the only user of a convolution or linear layer",
            "leave fold_batch_norm out for it",
        )
    for layer in changed:
        setattr(layer, _MARK, True)
    return fused


def is_folded(module: nn.Module) -> bool:
    """Whether a batch norm was folded into a layer, so that its output is that of both.

    Args:
        module: of a model.

    Returns:
        True for layers that `folded` changed.
    """
    return hasattr(module, _MARK)


def _traced(model: nn.Module) -> fx.GraphModule:
    try:
        return fx.symbolic_trace(model)
    except FOREIGN_ERRORS as exc:
        raise PreparationError(
            f"its batch norms cannot be folded, because torch.fx cannot trace it ({one_line(exc)})",
            "leave fold_batch_norm out, fold them in the model itself, or try "
            "'compile:freezing=true', which also folds them",
        ) from exc


def _fused(traced: fx.GraphModule) -> nn.Module:
    from torch.fx.experimental.optimization import fuse

    try:
        fused: nn.Module = fuse(traced, inplace=True, no_trace=True)
    except FOREIGN_ERRORS as exc:
        raise PreparationError(
            f"its batch norms cannot be folded ({one_line(exc)})", "leave fold_batch_norm out"
        ) from exc
    return fused


def _check_not_shared(traced: fx.GraphModule) -> None:
    """Raise where a layer runs twice: `fuse` would fold into it twice, and change the output."""
    runs = Counter(str(node.target) for node in traced.graph.nodes if node.op == "call_module")
    for ahead, norm in _pairs(traced):
        if max(runs[ahead], runs[norm]) > 1:
            raise PreparationError(
                f"the batch norm {norm!r} cannot be folded into {ahead!r}, because one of them "
                "runs more than once",
                "leave fold_batch_norm out for this model",
            )


def _pairs(traced: fx.GraphModule) -> Iterator[tuple[str, str]]:
    """Paths of layers and of the batch norms that take their output."""
    for node in traced.graph.nodes:
        source = next(iter(node.all_input_nodes), None)
        if source is None or {node.op, source.op} != {"call_module"}:
            continue
        ahead, norm = str(source.target), str(node.target)
        is_norm = isinstance(traced.get_submodule(norm), _BATCH_NORMS)
        if is_norm and isinstance(traced.get_submodule(ahead), _AHEAD):
            yield ahead, norm
