"""OpenVINO on a CPU, with the precision as its inference precision hint."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import nn

from precisionbench._internal.importing import import_engine
from precisionbench.backends import engine_layers as layers_module
from precisionbench.backends.base import Backend, Prepared, cast_model, names, unrecorded
from precisionbench.backends.calibration import calibration_batches
from precisionbench.backends.engine_layers import EngineLayer
from precisionbench.backends.flat_model import FlatModel, flattened
from precisionbench.backends.openvino_layers import layers_of, times_of
from precisionbench.backends.rungs import Capabilities, Rung, Stage, TuningOptions
from precisionbench.errors import (
    FOREIGN_ERRORS,
    BackendUnavailableError,
    PreparationError,
    SpecError,
    one_line,
    text_of,
)
from precisionbench.results.claims import Claims
from precisionbench.results.dtypes import LONG_NAMES
from precisionbench.results.json_values import Json
from precisionbench.torchtools.global_state import functions_restored
from precisionbench.torchtools.tensors import Inputs, walk

_INPUT_NAME = re.compile(r"tensors_(\d+)")
_INSTALL = "pip install 'precisionbench[openvino]'"
# What is not quantised computes in float32, and never in what the CPU's plugin would choose.
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
_DEVICE = "CPU"
_MOST_TEXT = 2000  # characters of an error


@attrs.frozen
class OpenVino(Backend):
    """OpenVINO on a CPU, with static shapes and weights as constants.

    Inputs and outputs stay float32; the precision is a hint to OpenVINO, which uses another one
    where the CPU lacks it. The details and the label show in which precision each layer ran.

    Attributes:
        precision: `fp32`, `bf16` or `fp16` as the inference precision hint; `int8` quantises the
            model by NNCF, and what it leaves out computes in float32.
        calibration: `package.module:function` that gives the INT8 calibration batches.
        calibration_data: the batches themselves: a sequence of tensors or tuples of tensors, each
            of the shapes of the benchmark's own inputs.
    """

    name: ClassVar[str] = "openvino"
    left_out: ClassVar[str] = "OpenVINO was left out"
    tunes_by_timing: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ("openvino",)
    precision: Literal["fp32", "bf16", "fp16", "int8"] = "fp32"
    calibration: str | None = attrs.field(default=None, metadata=names("code"))
    calibration_data: Sequence[Any] | None = unrecorded()

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.memory_format != "contiguous":
            raise SpecError(
                "openvino: the model reads contiguous memory, so channels_last has no effect",
                "leave memory_format out; OpenVINO chooses its own layouts",
            )
        if self.precision != "int8" and (self.calibration or self.calibration_data) is not None:
            raise SpecError("openvino: only INT8 is calibrated", "use precision=int8")

    def check_available(self) -> None:
        """Raise if OpenVINO is missing, or NNCF for INT8.

        Raises:
            BackendUnavailableError: which of these, and how to get it.
        """
        _import_openvino()
        if self.precision == "int8" and importlib.util.find_spec("nncf") is None:
            raise BackendUnavailableError("NNCF for precision=int8", _INSTALL)

    def claims(self) -> Claims:
        """The precision that is asked for; see `Backend.claims`."""
        return Claims(
            dtype=LONG_NAMES[self.precision],
            engine="OpenVINO",
            framework="OpenVINO",
            sparsity="dense",
            frozen_weights=True,
            packages=("openvino", "nncf"),
            covered_options=("precision",),
        )

    @classmethod
    def ladder_rungs(cls, capabilities: Capabilities) -> Iterable[Rung]:
        """bfloat16 and INT8, on a CPU only; see `Backend.ladder_rungs`."""
        if capabilities.device == "cpu":
            for precision in ("bf16", "int8"):
                yield Rung(Stage.ENGINE, {"precision": precision})

    @classmethod
    def tuning_options(cls, capabilities: Capabilities) -> TuningOptions | None:
        """Float32, bfloat16 and INT8, on a CPU only; see `Backend.tuning_options`."""
        if capabilities.device != "cpu":
            return None
        precisions = ("fp32", "bf16", "int8")
        return TuningOptions(
            Stage.ENGINE, [{"precision": name} for name in precisions], typical_build_s=4
        )

    @contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        """Convert and compile the model; see `Backend.prepare`."""
        _require_cpu(inputs)
        ov = _import_openvino()
        _core(ov)
        flat = flattened(cast_model(model, torch.float32), inputs.to(torch.float32))
        with _no_telemetry(), functions_restored():
            converted = _converted(ov, flat)
            converted, batches = self._quantised(converted, flat)
        compiled = self._compiled(ov, converted)
        layers = self._layers(ov, converted, compiled, flat)
        layers_module.warn_of_other_precision(layers, LONG_NAMES[self.precision])
        details: dict[str, Json] = {
            "openvino": str(ov.__version__),
            "inference_precision_hint": _HINTS[self.precision],
            "inference_precision": _property(compiled, "INFERENCE_PRECISION_HINT"),
            "calibration_batches": batches,
            **layers_module.summary(layers),
        }
        operations = tuple(layer.as_operation(self.name) for layer in layers)
        call, read = _call(ov, compiled, flat), Inputs(flat.inputs)
        yield Prepared(call, details=details, engine_operations=operations, inputs=read)

    def _quantised(self, converted: Any, flat: FlatModel) -> tuple[Any, int | None]:
        """The model as asked for, and the number of its calibration batches."""
        if self.precision != "int8":
            return converted, None
        batches = calibration_batches(
            self.name, self.calibration, self.calibration_data, flat.inputs
        )
        read = [_index(port) for port in converted.inputs]
        tensors = [[tensor.numpy() for _, tensor in walk(batch)] for batch in batches]
        arrays = [[batch[index] for index in read] for batch in tensors]
        nncf = import_engine("nncf", "NNCF for precision=int8", _INSTALL)
        try:
            quantised = nncf.quantize(converted, nncf.Dataset(arrays), subset_size=len(arrays))
        except FOREIGN_ERRORS as exc:
            raise PreparationError(
                f"NNCF cannot quantise the model ({one_line(exc)})", "use another precision"
            ) from exc
        return quantised, len(arrays)

    def _compiled(self, ov: Any, converted: Any, **more: Any) -> Any:
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # the workers of all rows share the same cores
            **more,
        }
        try:
            return _core(ov).compile_model(converted, _DEVICE, options)
        except FOREIGN_ERRORS as exc:
            raise PreparationError(
                f"OpenVINO cannot compile the model ({one_line(exc)})", "use another precision"
            ) from exc

    def _layers(self, ov: Any, converted: Any, compiled: Any, flat: FlatModel) -> list[EngineLayer]:
        """The layers of the model that is timed, with times from one that counts them."""
        counting = self._compiled(ov, converted, PERF_COUNT=True)
        times = times_of(counting, _call(ov, counting, flat))
        return layers_of(compiled.get_runtime_model(), times, _DEVICE)


def _import_openvino() -> Any:
    return import_engine("openvino", "OpenVINO", _INSTALL)


@functools.cache
def _core(ov: Any) -> Any:
    """OpenVINO's core, the same one until this process ends.

    Each core gives the thread that makes it a stack for signals. Of two, the one that is deleted
    first leaves the other's predecessor without memory, and one that another thread deletes, such
    as the garbage collector's, leaves its own: the next Ctrl-C is a segmentation fault (OpenVINO
    2026.4.1, class SigAltStackSetup of its CPU plugin).
    """
    return ov.Core()


def _require_cpu(inputs: Inputs) -> None:
    device = inputs.tensors()[0][1].device
    if device.type != "cpu":
        raise BackendUnavailableError(
            f"inputs on the CPU (they are on {device})", "choose the device 'cpu'"
        )


def _converted(ov: Any, flat: FlatModel) -> Any:
    """The model in OpenVINO's form, with the shapes of these inputs."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch and OpenVINO, about their own interfaces
            program = torch.export.export(flat.module, flat.inputs, strict=False)
            converted = ov.convert_model(program)
            shapes = [list(flat.inputs[_index(port)].shape) for port in converted.inputs]
            converted.reshape(dict(zip(converted.inputs, shapes, strict=True)))
    except FOREIGN_ERRORS as exc:
        raise PreparationError(
            f"OpenVINO cannot convert the model ({_last_line(exc)})",
            "change what the message names, or use the backend onnxruntime",
        ) from exc
    return converted


def _last_line(exc: BaseException) -> str:
    """The last line of an error, which in OpenVINO's names the operations; else its main line."""
    lines = [line.strip() for line in text_of(exc, _MOST_TEXT).splitlines() if line.strip()]
    return lines[-1] if len(lines) > 1 and lines[0].startswith("Check") else one_line(exc)


def _index(port: Any) -> int:
    """Which of the inputs a port of the model reads; unused inputs have none.

    torch.export names the arguments of `FlatModel.module` `tensors_0`, `tensors_1`, ... A port that
    the model casts at once has the name of the cast (`to_12`) as well.
    """
    names = (_INPUT_NAME.fullmatch(str(name)) for name in sorted(port.get_names()))
    return next(int(found[1]) for found in names if found)


def _call(ov: Any, compiled: Any, flat: FlatModel) -> Callable[[], object]:
    """A call that reads the inputs where they are; its output is where OpenVINO writes it."""
    request = compiled.create_infer_request()
    for place, port in enumerate(compiled.inputs):
        data = flat.inputs[_index(port)].numpy()
        request.set_input_tensor(place, ov.Tensor(data, shared_memory=True))
    request.infer()
    # Tensors of OpenVINO's own: where an output is an input, it would overwrite the input by ours.
    arrays = [request.get_output_tensor(place).data for place in range(len(compiled.outputs))]
    _check_shapes([array.shape for array in arrays], [tuple(t.shape) for t in flat.outputs])
    output = flat.rebuilt([torch.from_numpy(array) for array in arrays])

    def call() -> object:
        request.infer()
        return output

    return call


def _check_shapes(got: Sequence[tuple[int, ...]], want: Sequence[tuple[int, ...]]) -> None:
    """Raise where OpenVINO's outputs have other shapes, such as shapes that depend on values."""
    if got != want:
        raise PreparationError(
            f"OpenVINO's outputs have shapes {got} where the model's have {want}",
            "use the backend onnxruntime, or give outputs a shape that is the same in every call",
        )


def _property(compiled: Any, name: str) -> str:
    value = compiled.get_property(name)
    return str(value.get_type_name() if hasattr(value, "get_type_name") else value)


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Let OpenVINO and NNCF send no usage data, which they do not do where they see CI."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before
