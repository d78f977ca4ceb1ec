"""What Torch-TensorRT makes of a model: its engines, and what it leaves to PyTorch.

Only this module and `torch_tensorrt.py` use Torch-TensorRT; the package is given as
`torch_tensorrt`.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import nn
from torch.fx import GraphModule, Node

from precisionbench.backends.engine_layers import EngineLayer
from precisionbench.backends.flat_model import FlatModel
from precisionbench.backends.tensorrt_engine import Report, detailed_builds, report_of
from precisionbench.backends.tensorrt_layers import PLACE
from precisionbench.errors import FOREIGN_ERRORS, PrecisionBenchWarning, PreparationError, one_line
from precisionbench.results.evidence import PYTORCH, Operation, Tensor
from precisionbench.results.json_values import Json
from precisionbench.torchtools.tensors import walk

# Distributions that bring `torch_tensorrt`, for TensorRT and for TensorRT for RTX.
PACKAGES = ("torch-tensorrt", "torch-tensorrt-rtx")
# What Torch-TensorRT says of `require_full_compilation`.
_NOT_FULL = "require_full_compilation"
_MOST_NAMED = 3


@attrs.frozen
class Compiled:
    """A compiled model.

    Attributes:
        module: takes and gives plain tensors.
        converted: the graphs that became engines.
        report: what the engines report of their layers.
    """

    module: nn.Module
    converted: Sequence[GraphModule]
    report: Report

    @property
    def engines(self) -> int:
        """How many engines the model became."""
        return len(self.converted)

    @property
    def left(self) -> list[EngineLayer]:
        """The operators that PyTorch runs."""
        found = self.module
        return [_layer(node) for node in operators(found)] if isinstance(found, GraphModule) else []

    @property
    def operators(self) -> dict[str, int]:
        """Operators of the model, by what runs them."""
        inside = sum(len(list(operators(graph))) for graph in self.converted)
        return {PLACE: inside, PYTORCH: len(self.left)}

    @property
    def details(self) -> dict[str, Json]:
        """Details of a row."""
        return {
            "provider": PLACE,
            "engines": self.engines,
            "operators": dict(self.operators),
            **self.report.details,
        }

    def operations(self, backend: str) -> tuple[Operation, ...]:
        """The layers of all engines and the operators of PyTorch, as operations of a call.

        Args:
            backend: its name, the namespace of the names of layers.
        """
        left = (layer.as_operation("aten") for layer in self.left)
        return (*self.report.operations(backend), *left)


def compiled(torch_tensorrt: Any, flat: FlatModel, options: Mapping[str, Any]) -> Compiled:
    """Compile a model.

    Args:
        torch_tensorrt: the package.
        flat: the model, on a GPU.
        options: of `torch_tensorrt.dynamo.compile`.

    Raises:
        PreparationError: the model cannot be exported or compiled.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and Torch-TensorRT, about their own interfaces
        program = _exported(flat)
        with detailed_builds(sys.modules["tensorrt"]), _converted_graphs() as converted:
            try:
                module = torch_tensorrt.dynamo.compile(program, arg_inputs=flat.inputs, **options)
            except FOREIGN_ERRORS as exc:
                raise _compilation_error(exc) from exc
    return Compiled(module, tuple(converted), _report(torch_tensorrt, module))


def _exported(flat: FlatModel) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(flat.module, flat.inputs, strict=False)
    except FOREIGN_ERRORS as exc:
        raise PreparationError(
            f"torch.export cannot export the model ({one_line(exc)})",
            "change what the message names, or use the backend torch2trt",
        ) from exc


@contextmanager
def _converted_graphs() -> Iterator[list[GraphModule]]:
    """The graphs that become engines within the context, in their order."""
    interpreter = importlib.import_module("torch_tensorrt.dynamo.conversion._TRTInterpreter")
    graphs: list[GraphModule] = []
    with interpreter.TRT_INTERPRETER_CALL_PRE_OBSERVER.add(graphs.append):
        yield graphs


def _compilation_error(exc: BaseException) -> PreparationError:
    if _NOT_FULL in str(exc):
        return PreparationError(
            "Torch-TensorRT cannot convert all operators of the model, which "
            f"{_NOT_FULL}=true asks for ({one_line(exc)})",
            f"leave {_NOT_FULL} out: the row then names the operators that PyTorch runs",
        )
    return PreparationError(
        f"Torch-TensorRT cannot compile the model ({one_line(exc)})",
        "fix what it names, or try another precision or a smaller batch",
    )


def _report(torch_tensorrt: Any, module: nn.Module) -> Report:
    """What all engines report together; nothing where one of them does not."""
    kind = torch_tensorrt.dynamo.runtime.TorchTensorRTModule
    found = [_report_of(engine) for engine in module.modules() if isinstance(engine, kind)]
    missing = next((report.missing for report in found if report.missing), "")
    return Report([layer for report in found for layer in report.layers], missing)


def _report_of(engine: Any) -> Report:
    try:
        return report_of(engine.get_layer_info())
    except FOREIGN_ERRORS as exc:  # an engine's self-description must not fail its measurement
        return Report(missing=f"unavailable: {one_line(exc)}")


def operators(module: GraphModule) -> Iterator[Node]:
    """The operators of a graph and of the graphs in it, in their order; engines are left out.

    Args:
        module: of torch.fx.
    """
    for node in module.graph.nodes:
        if node.op == "call_module":
            inner = module.get_submodule(str(node.target))
            if isinstance(inner, GraphModule):
                yield from operators(inner)
        elif node.op == "call_function" and hasattr(node.target, "overloadpacket"):
            yield node


def _layer(node: Node) -> EngineLayer:
    return EngineLayer(
        name=node.name,  # lowering loses the path of its module
        kind=str(node.target).split(".")[1],  # aten.linear.default
        inputs=_tensors([node.args, node.kwargs]),
        outputs=_tensors(node),
        place=PYTORCH,
        time_s=0.0,
    )


def _tensors(arguments: Any) -> tuple[Tensor, ...]:
    values = torch.fx.node.map_arg(arguments, lambda node: node.meta.get("val"))
    return tuple(
        Tensor(tuple(int(size) for size in tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for _, tensor in walk(values)
    )


def warn_of_operators_left(model: Compiled) -> None:
    """Warn where PyTorch runs operators of the model.

    Args:
        model: that was compiled.
    """
    if not model.left:
        return
    kinds = Counter(layer.kind for layer in model.left).most_common()
    named = ", ".join(f"{count} {kind}" for kind, count in kinds[:_MOST_NAMED])
    more = f" and {len(kinds) - _MOST_NAMED} other kinds" if len(kinds) > _MOST_NAMED else ""
    engines = f"{model.engines} engine{'' if model.engines == 1 else 's'}"
    warnings.warn(
        f"PyTorch runs {len(model.left)} of {sum(model.operators.values())} operators ({named}"
        f"{more}), beside {engines} of TensorRT",
        PrecisionBenchWarning,
        stacklevel=2,
    )
