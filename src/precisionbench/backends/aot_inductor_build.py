"""Builds of AOTInductor: export, compilation to a package, and the dtypes of what was compiled."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import fx

from precisionbench.backends.engine_layers import EngineLayer
from precisionbench.backends.flat_model import FlatModel
from precisionbench.backends.inductor import build_error, cache_folder_named, inner, own_counters
from precisionbench.errors import FOREIGN_ERRORS, PreparationError, one_line
from precisionbench.results.dtypes import dtype_name
from precisionbench.results.evidence import Tensor
from precisionbench.torchtools.failing_module import failing_module
from precisionbench.torchtools.global_state import functions_restored

WHAT = "AOTInductor"
_TUNED = "max-autotune-no-cudagraphs"
# How torch.export and `FlatModel` name what is around the user's model.
_AROUND = ("_export_root.", "model")


@attrs.frozen
class Build:
    """What is known of a package that was compiled.

    Attributes:
        weights: names of the program's weights and other constants, before it was compiled.
        layers: the matmuls, convolutions and attentions of the program that was compiled, without
            times.
        tuned: how many operations had their kernel chosen by timing several.
    """

    weights: frozenset[str]
    layers: tuple[EngineLayer, ...]
    tuned: int


def exported(model: FlatModel) -> torch.export.ExportedProgram:
    """The program of a model, with the shapes of its inputs.

    Args:
        model: with its inputs.

    Raises:
        PreparationError: in which module torch.export failed, and why.
    """
    with functions_restored(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces changes of its own interface
        try:
            return torch.export.export(model.module, model.inputs, strict=False)
        except FOREIGN_ERRORS as exc:
            raise PreparationError(
                f"torch.export cannot export the model{_place(exc)} ({one_line(exc)})",
                "change what the message names, or use the backend compile, which leaves to Python "
                "what it cannot compile",
            ) from exc


def _place(exc: BaseException) -> str:
    """The user's module in which an export failed, as a part of a sentence."""
    where = failing_module(exc)
    if where is None:
        return ""
    path = where.path
    for name in _AROUND:
        path = path.removeprefix(name)
    return f", in {attrs.evolve(where, path=path.lstrip('.'))}"


def build(
    program: torch.export.ExportedProgram,
    package: Path,
    *,
    freezing: bool,
    max_autotune: bool,
    metadata: Mapping[str, str],
) -> Build:
    """Compile a program to a package.

    Args:
        program: what was exported.
        package: file to write; the generated code is written to the folder `code` beside it.
        freezing: treat the weights as constants.
        max_autotune: choose kernels by timing them.
        metadata: texts to keep in the package.

    Raises:
        PreparationError: AOTInductor cannot compile it.
        BackendUnavailableError: there is no working C++ compiler.
    """
    with cache_folder_named(WHAT):
        import torch._inductor.config

    layers: list[EngineLayer] = []
    configs = {
        **(torch._inductor.list_mode_options(_TUNED) if max_autotune else {}),
        "freezing": freezing,
        "post_grad_custom_pre_pass": _layers_to(layers),
        "aot_inductor.metadata": dict(metadata),
    }
    # Without a folder of its own, torch writes the code and the weights to its cache for good,
    # under a name that depends on the code alone.
    folder = {"aot_inductor.output_path": str(package.parent / "code")}
    with ExitStack() as stack:
        stack.enter_context(functions_restored())
        stack.enter_context(torch.no_grad())  # weights are frozen only without gradients
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # torch advises settings that a row sets on purpose
        stack.enter_context(torch._inductor.config.patch(folder))
        counters = stack.enter_context(own_counters())
        try:
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(package), inductor_configs=configs
            )
        except FOREIGN_ERRORS as exc:
            raise _explained(exc) from exc
        tuned = int(counters["inductor"]["select_algorithm_autotune"])
    return Build(frozenset({*program.state_dict, *program.constants}), tuple(layers), tuned)


def _explained(exc: BaseException) -> Exception:
    if (error := build_error(exc, WHAT)) is not None:
        return error
    return PreparationError(
        f"{WHAT} cannot compile the model ({one_line(inner(exc))})",
        "change what the message names, leave freezing and max_autotune out, or use the backend "
        "compile",
    )


def _layers_to(found: list[EngineLayer]) -> Callable[[fx.Graph], None]:
    """A pass of TorchInductor that changes nothing, and notes the graph that becomes code.

    It is the graph after weights were frozen and packed, and before operations are fused.
    """

    def note(graph: fx.Graph) -> None:
        found.extend(layers_of(graph))

    return note


def layers_of(graph: fx.Graph) -> Iterator[EngineLayer]:
    """The matmuls, convolutions, attentions and recurrent layers of a graph of TorchInductor.

    Args:
        graph: whose nodes have a tensor, or several, as `meta["val"]`.
    """
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        given = (_tensors(arg) for arg in (*node.args, *node.kwargs.values()))
        layer = EngineLayer(
            name=_path(node),
            kind=str(schema.name).rpartition("::")[2],
            inputs=tuple(tensor for tensors in given for tensor in tensors),
            outputs=_tensors(node),
            place=WHAT,
            time_s=0.0,
        )
        if layer.is_matrix:
            yield layer


def _tensors(argument: Any) -> tuple[Tensor, ...]:
    """The tensors of an argument of a node; a size that depends on values leaves the shape open."""
    value = argument.meta.get("val") if isinstance(argument, fx.Node) else None
    values = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(
        Tensor(_shape(tensor), dtype_name(tensor.dtype))
        for tensor in values
        if isinstance(tensor, torch.Tensor)
    )


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    sizes = tuple(tensor.shape)
    return sizes if all(isinstance(size, int) for size in sizes) else ()


def _path(node: fx.Node) -> str:
    """The module of the user's model that a node is of; empty where it is not known."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return path.removeprefix(_AROUND[1]).lstrip(".")
