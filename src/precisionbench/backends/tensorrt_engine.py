"""What all backends that build TensorRT engines need: messages, verbosity, what an engine reports.

TensorRT is given as `trt`, because most machines have none; no module here imports it before use.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import attrs

from precisionbench.backends.engine_layers import EngineLayer
from precisionbench.backends.tensorrt_layers import has_types, layers_of
from precisionbench.errors import FOREIGN_ERRORS, one_line
from precisionbench.results.dtypes import SHORT_NAMES
from precisionbench.results.evidence import Operation
from precisionbench.results.json_values import Json

# Methods of a builder that build an engine from a network and a config, by versions of TensorRT.
_BUILDS = ("build_serialized_network", "build_engine_with_config", "build_engine")
_NO_DETAILS = "unavailable: the engine was built without detailed verbosity"


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
def detailed_builds(trt: Any) -> Iterator[None]:
    """Let every engine that is built meanwhile report its layers with their types.

    Below the verbosity DETAILED an engine reports the names of its layers only; both torch2trt and
    Torch-TensorRT build with less.

    Args:
        trt: the `tensorrt` module.
    """
    with contextlib.ExitStack() as stack:
        for name in _BUILDS:
            if name in vars(trt.Builder):
                build = _in_detail(trt, vars(trt.Builder)[name])
                stack.enter_context(replaced(trt.Builder, name, build))
        yield


def _in_detail(trt: Any, build: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    def build_in_detail(builder: Any, network: Any, config: Any) -> Any:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        return build(builder, network, config)

    return build_in_detail


@attrs.frozen
class Report:
    """What an engine reports of its layers.

    Attributes:
        layers: its layers; empty where it does not report them.
        missing: why their types are not known; empty where they are.
    """

    layers: Sequence[EngineLayer] = ()
    missing: str = ""

    @property
    def details(self) -> dict[str, Json]:
        """Details of a row: `layers`, `reformat_layers`, and `layer_precision` by outputs."""
        if not self.layers and self.missing:
            keys = ("layers", "reformat_layers", "layer_precision")
            return dict.fromkeys(keys, self.missing)
        return {
            "layers": len(self.layers),
            "reformat_layers": sum(layer.kind.lower() == "reformat" for layer in self.layers),
            "layer_precision": self.missing or dict(Counter(map(_written, self.layers))),
        }

    def operations(self, backend: str) -> tuple[Operation, ...]:
        """The layers as operations of a call; none where their types are not known.

        Args:
            backend: its name, the namespace of the operations' names.
        """
        layers = () if self.missing else self.layers
        return tuple(layer.as_operation(backend) for layer in layers)


def report_of(text: str) -> Report:
    """What an engine reports, from the JSON of its inspector.

    Args:
        text: that `get_engine_information` gives.
    """
    try:
        found = json.loads(text)["Layers"]
        layers = layers_of(found)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        return Report(missing=f"unavailable: {one_line(exc)}")
    return Report(layers, "" if has_types(found) else _NO_DETAILS)


def inspected(trt: Any, engine: Any) -> Report:
    """What an engine reports; its self-description must not fail its measurement.

    Args:
        trt: the `tensorrt` module.
        engine: an ICudaEngine.
    """
    try:
        inspector = engine.create_engine_inspector()
        return report_of(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    except FOREIGN_ERRORS as exc:
        return Report(missing=f"unavailable: {one_line(exc)}")


def engine_bytes(engine: Any) -> int:
    """The size of an engine.

    Args:
        engine: an ICudaEngine.
    """
    return int(engine.serialize().nbytes)


def _written(layer: EngineLayer) -> str:
    """The type that a layer writes, as a short name."""
    dtype = layer.outputs[0].dtype if layer.outputs else ""
    return SHORT_NAMES.get(dtype, dtype) or "unknown"
