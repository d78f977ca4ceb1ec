"""Engines of torch2trt: their builds, and a folder in which they are kept.

Only this module and `torch2trt.py` use TensorRT for torch2trt; it is given as `trt`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from precisionbench._internal.files import reason_of, remedy_for, write_whole
from precisionbench._internal.importing import import_engine
from precisionbench._internal.paths import quoted
from precisionbench.backends.tensorrt_engine import detailed_builds, message_recorder, replaced
from precisionbench.errors import BackendUnavailableError, PrecisionBenchWarning


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
        if not tf32 and hasattr(trt.BuilderFlag, "TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)
        if hasattr(config, "set_memory_pool_limit"):
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
        return config

    recorder, make_runtime = message_recorder(trt), trt.Runtime
    with (
        detailed_builds(trt),
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
