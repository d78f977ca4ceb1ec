"""What of TensorRT for RTX works without a GPU: the partitioner, the converters and the builder.

An engine is loaded by a driver only, so two things are replaced. `torch.cuda` says that there is a
GPU for which the builder can build. An engine that would be loaded is kept as its bytes, and
reports its layers as TensorRT's inspector does, read from the program in these bytes: each
operation with the types of its operands. Nothing of what was built is changed, and nothing runs.
"""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from precisionbench.backends import torch_tensorrt_build
from precisionbench.backends.flat_model import flattened
from precisionbench.backends.torch_tensorrt import TorchTensorRT, cast_for, import_torch_tensorrt
from precisionbench.backends.torch_tensorrt_build import Compiled
from precisionbench.torchtools.tensors import Inputs

_BYTES = 24 << 30
# Operations of the program in an engine, and the inspector's types of such layers.
_KINDS = {
    "corrltn": "Convolution",
    "fully_connected": "gemm",
    "runtime_fusion": "fusion",
    "function": "kgen",
}
_TYPES = {"half": "Half", "float": "Float", "bf16": "BFloat16", "int8": "Int8"}
_OPERATION = re.compile(rf"^  ({'|'.join(_KINDS)})=\{{ name=(\S+) ", re.MULTILINE)
_TENSOR = re.compile(
    r'^  (?:sub_)?tensor=\{.*? dims=\{ ([\d ]*)\}.*? name="([^"]*)".*? type=(\w+)', re.MULTILINE
)


def layers_in(engine: bytes) -> str:
    """The layers of an engine, in the form of the inspector."""
    program = engine.decode("latin1").split("header {")[1]
    tensors = {
        name: {"Dimensions": [int(size) for size in dims.split()], "Format/Datatype": _TYPES[kind]}
        for dims, name, kind in _TENSOR.findall(program)
        if kind in _TYPES
    }
    layers = [
        {
            "Name": found[2].strip('"'),
            "LayerType": _KINDS[found[1]],
            "Inputs": _named(program, found, "input", tensors),
            "Outputs": _named(program, found, "output", tensors),
        }
        for found in _OPERATION.finditer(program)
    ]
    return json.dumps({"Layers": layers})


def _named(program: str, found: re.Match[str], which: str, tensors: dict[str, Any]) -> list[Any]:
    line = program[found.start() : program.index("\n", found.start())]
    listed = re.search(rf" {which}(?:_args)?=\{{(.*?)\}}", line)
    names = re.findall(r'"([^"]*)"', listed[1]) if listed else []
    return [{"Name": name, **tensors[name]} for name in names if name in tensors]


class _Engine:
    """An engine that no driver has loaded."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data

    def get_aliased_input_tensor(self, _: str) -> None:
        return None


@contextmanager
def without_a_gpu() -> Iterator[Any]:
    """Within the context Torch-TensorRT builds engines on this machine; it gives the package."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "get_device_capability": (8, 6),
            "get_device_properties": types.SimpleNamespace(major=8, minor=6),
            "current_device": 0,
            "mem_get_info": (_BYTES, _BYTES),
            "synchronize": None,
        }.items():
            patch.setattr(torch.cuda, name, lambda *_, value=value: value)
        package = import_torch_tensorrt()
        trt: Any = sys.modules["tensorrt"]
        patch.setattr(trt.Runtime, "deserialize_cuda_engine", lambda _, data: _Engine(bytes(data)))
        module = package.dynamo.runtime.TorchTensorRTModule
        patch.setattr(module, "setup_engine", lambda _: None)
        patch.setattr(module, "set_output_tensors_as_unowned", lambda *_: None)
        patch.setattr(module, "get_layer_info", lambda self: layers_in(self.serialized_engine))
        compiler = sys.modules["torch_tensorrt.dynamo._compiler"]
        patch.setattr(compiler, "to_torch_device", lambda _: torch.device("cpu"))
        yield package


def built(backend: TorchTensorRT, model: nn.Module, *args: Any, **options: Any) -> Compiled:
    """The model, compiled by the real partitioner, converters and builder, but not loaded."""
    flat = flattened(*cast_for(backend, model.eval(), Inputs(args)))
    with without_a_gpu() as package:
        return torch_tensorrt_build.compiled(package, flat, backend.compile_options() | options)


def record(file: Path, model: Compiled) -> None:
    """Write what the engines report, for tests where there is no builder."""
    file.write_text(json.dumps([engine_json(engine) for engine in _engines(model)], indent=1))


def _engines(model: Compiled) -> list[Any]:
    return [part for part in model.module.modules() if hasattr(part, "serialized_engine")]


def engine_json(engine: Any) -> Any:
    return json.loads(layers_in(engine.serialized_engine))
