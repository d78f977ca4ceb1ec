"""Configures TensorRT engines, and describes what was built.

Only this module and `torch2trt.py` use TensorRT; it is imported inside functions and given
as `trt`, because most machines have none.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from precisionbench._internal.files import reason_of, remedy_for, write_whole
from precisionbench._internal.importing import import_engine
from precisionbench._internal.paths import quoted
from precisionbench.errors import BackendUnavailableError, PrecisionBenchWarning, one_line
from precisionbench.results.json_values import Json

# Words of the inspector's "Format/Datatype": up to TensorRT 9 a sentence ("Channel major FP16
# format where channel % 8 == 0"), from 10 on a type ("Half").
_DATATYPES = {
    "fp16": ("fp16", "half"),
    "bf16": ("bf16", "bfloat16"),
    "int8": ("int8",),
    "fp8": ("fp8",),
    "int32": ("int32",),
    "int64": ("int64",),
    "fp32": ("fp32", "float"),
}


def import_tensorrt() -> Any:
    """TensorRT's Python package, of a version that torch2trt 0.5.0 works with.

    Raises:
        BackendUnavailableError: it is missing, broken, older than 8, or 11 and newer.
    """
    trt = import_engine(
        "tensorrt",
        "TensorRT 8 to 10 for Python",
        "pip install 'tensorrt<11' (on a Jetson: it is part of JetPack; make the virtual "
        "environment with --system-site-packages)",
    )
    major = int(str(trt.__version__).partition(".")[0])
    if major < 8:
        raise BackendUnavailableError(
            f"TensorRT 8 to 10 ({trt.__version__} is installed)",
            "upgrade it (on a Jetson: with JetPack)",
        )
    if major >= 11:
        raise BackendUnavailableError(
            f"TensorRT 8 to 10 ({trt.__version__} is installed; 11 removed the precision flags "
            "and calibrators that torch2trt uses)",
            "pip install 'tensorrt<11'",
        )
    return trt


@cache
def message_recorder(trt: Any) -> Any:
    """A TensorRT logger that keeps messages in `warnings` and `errors`, not on the terminal.

    TensorRT keeps the first logger that a process gives it, so there is one for all engines.
    """

    class Recorder(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.warnings: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.ERROR):
                self.errors.append(message)
            elif int(severity) == int(trt.ILogger.WARNING):
                self.warnings.append(message)

        def clear(self) -> None:
            self.warnings.clear()
            self.errors.clear()

        def __enter__(self) -> Recorder:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    return Recorder()


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute within the context, and restore it afterwards."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def configured_builds(
    trt: Any, tf32: bool, workspace_bytes: int, dla_core: int | None
) -> Iterator[None]:
    """Set what torch2trt does not let one set, on every builder config made meanwhile.

    torch2trt makes its own config: TF32 on (TensorRT's default), profiling verbosity that hides
    every layer's precision, the workspace ignored from TensorRT 10 on, and warnings hidden. It
    loads what it built on DLA core 0, whichever was asked for, and it leaves the ONNX exporter to
    torch's default, which from torch 2.9 on is one that it cannot use.
    """
    create: Callable[[Any], Any] = trt.Builder.create_builder_config

    def create_configured(builder: Any) -> Any:
        config = create(builder)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if not tf32 and hasattr(trt.BuilderFlag, "TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)
        if hasattr(config, "set_memory_pool_limit"):
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
        return config

    recorder, make_runtime = message_recorder(trt), trt.Runtime
    with (
        replaced(trt, "Logger", lambda *_: recorder),
        replaced(trt, "Runtime", lambda logger: _on_dla(make_runtime(logger), dla_core)),
        replaced(trt.Builder, "create_builder_config", create_configured),
        replaced(torch.onnx, "export", partial(torch.onnx.export, dynamo=False)),
    ):
        yield


def _on_dla(runtime: Any, dla_core: int | None) -> Any:
    if dla_core is not None:
        runtime.DLA_core = dla_core
    return runtime


def describe_engine(trt: Any, engine: Any) -> dict[str, Json]:
    """The properties that an engine reports.

    Args:
        trt: the `tensorrt` module.
        engine: an ICudaEngine.

    Returns:
        `engine_bytes`, `layers`, `reformat_layers` and `layer_precision` (how many layers write
        each type), the last three `unavailable: ...` where the inspector does not report them.
    """
    details: dict[str, Json] = {"engine_bytes": int(engine.serialize().nbytes)}
    try:
        text = engine.create_engine_inspector().get_engine_information(
            trt.LayerInformationFormat.JSON
        )
        return {**details, **summarise_layers(json.loads(text)["Layers"])}
    except Exception as exc:  # an engine's self-description must not fail its measurement
        reason = f"unavailable: {one_line(exc)}"
        return {
            **details,
            **dict.fromkeys(("layers", "reformat_layers", "layer_precision"), reason),
        }


def summarise_layers(layers: list[Any]) -> dict[str, Json]:
    """Count layers, reformats and output types in what the engine inspector gave.

    Args:
        layers: its "Layers": dicts at verbosity DETAILED, bare names below.
    """
    if not all(isinstance(layer, Mapping) for layer in layers):
        names = [str(layer) for layer in layers]
        return {
            "layers": len(names),
            "reformat_layers": sum("reformat" in name.lower() for name in names),
            "layer_precision": "unavailable: the engine was built without detailed verbosity",
        }
    return {
        "layers": len(layers),
        "reformat_layers": sum(_is_reformat(layer) for layer in layers),
        "layer_precision": dict(Counter(_precision(layer) for layer in layers)),
    }


def _is_reformat(layer: Mapping[str, Any]) -> bool:
    return str(layer.get("LayerType", "")).lower() == "reformat"


def _precision(layer: Mapping[str, Any]) -> str:
    outputs = layer.get("Outputs") or [{}]
    text = str(outputs[0].get("Format/Datatype", "")).lower()
    return next(
        (name for name, words in _DATATYPES.items() if any(w in text for w in words)), "unknown"
    )


def cache_key(parts: Mapping[str, Json], model: nn.Module) -> str:
    """The name of a saved engine: engines fit one GPU, version, shape, option set and model.

    Args:
        parts: everything besides the model that the engine depends on.
        model: its structure and every weight enter the key. The code of its `forward` cannot.

    Returns:
        40 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    digest.update(repr(model).encode())
    # Not state_dict(), which leaves out buffers that are not persistent.
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()[:40]


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """A tensor's raw content."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy().tobytes()


def save_engine(file: Path, engine: Any) -> None:
    """Write an engine whole or not at all; where that fails, the row is measured without.

    Args:
        file: in a folder that exists.
        engine: what TensorRT has built.
    """
    try:
        write_whole(file, bytes(engine.serialize()), overwrite=True)
    except OSError as exc:
        remedy = remedy_for(exc, "choose another engine_cache")
        warnings.warn(
            f"the engine could not be saved in {quoted(file.parent)} ({reason_of(exc)}); {remedy}",
            PrecisionBenchWarning,
            stacklevel=2,
        )


def load_engine(trt: Any, file: Path, dla_core: int | None) -> Any | None:
    """The engine of a file; None where there is none or TensorRT refuses it.

    Args:
        trt: the `tensorrt` module.
        file: what `save_engine` wrote.
        dla_core: where it is to run; None is the GPU.
    """
    if not file.is_file():
        return None
    runtime = _on_dla(trt.Runtime(message_recorder(trt)), dla_core)
    return runtime.deserialize_cuda_engine(file.read_bytes())
