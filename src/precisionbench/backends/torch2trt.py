"""TensorRT through NVIDIA's torch2trt 0.5.0."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import nn

from precisionbench._internal.files import make_folder
from precisionbench._internal.importing import import_engine, installed_version
from precisionbench.backends import torch2trt_engine as engines
from precisionbench.backends.base import (
    Backend,
    Prepared,
    cast_model,
    names,
    options_of,
    require_cuda,
    unrecorded,
)
from precisionbench.backends.calibration import calibration_batches
from precisionbench.backends.model_key import model_key, tensor_bytes
from precisionbench.backends.rungs import Capabilities, Rung, Stage, TuningOptions
from precisionbench.backends.tensorrt_engine import engine_bytes, inspected, message_recorder
from precisionbench.backends.torch2trt_arguments import (
    check_inputs,
    check_other_inputs,
    check_outputs,
    check_shapes,
    tensor_names,
    with_positional_arguments,
)
from precisionbench.errors import (
    BackendUnavailableError,
    PrecisionBenchWarning,
    PreparationError,
    SpecError,
    one_line,
    text_of,
)
from precisionbench.results.claims import TENSORRT, Claims
from precisionbench.results.dtypes import LONG_NAMES, TF32
from precisionbench.results.json_values import Json
from precisionbench.torchtools.agreement import compare_outputs, cpu_copies, differs
from precisionbench.torchtools.global_state import functions_restored
from precisionbench.torchtools.tensors import Inputs, walk

# torch2trt's own default is 32 MiB (1 << 25), too little for many convolution tactics.
_WORKSPACE_BYTES = 1 << 30
# A reloaded engine that is further off than this, even in INT8, is of another model: the key knows
# the weights but not the code of `forward`.
_OTHER_MODEL = 0.5
_REMEDY = "fix what it names, or try use_onnx=true, another precision or a smaller batch"
_INSTALL = (
    "install TensorRT 8 to 10, and the master branch of https://github.com/NVIDIA-AI-IOT/torch2trt"
)


@attrs.frozen
class Torch2trt(Backend):
    """TensorRT through torch2trt: a static engine for exactly these input shapes.

    Inputs and outputs stay float32; the precision is what TensorRT *may* use inside, and the
    details of the result record what it used.

    Attributes:
        precision: `fp32`; `fp16` allows half; `int8` allows INT8, and half where that is faster.
        tf32: allow TF32 where the engine computes in float32 (TensorRT's own default is on).
        workspace_bytes: scratch memory that tactics may use.
        use_onnx: convert through ONNX instead of torch2trt's own converters.
        dla_core: run on this DLA core, with layers that it cannot run on the GPU; None is the GPU.
        engine_cache: folder to keep built engines in; one that fits is loaded instead of built.
        calibration: `package.module:function` that gives the INT8 calibration batches.
        calibration_data: the batches themselves: a sequence of tensors or tuples of tensors, each
            of the shapes of the benchmark's own inputs.
    """

    name: ClassVar[str] = "torch2trt"
    left_out: ClassVar[str] = "TensorRT was left out, and with it INT8 and DLAs"
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    tf32: bool = False
    workspace_bytes: int = _WORKSPACE_BYTES
    use_onnx: bool = False
    dla_core: int | None = None
    engine_cache: Path | str | None = attrs.field(default=None, metadata=names("a folder"))
    calibration: str | None = attrs.field(default=None, metadata=names("code"))
    calibration_data: Sequence[Any] | None = unrecorded()

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for is_wrong, reason, remedy in self._checks():
            if is_wrong:
                raise SpecError(f"torch2trt: {reason}", remedy)

    @property
    def _is_calibrated(self) -> bool:
        return self.calibration is not None or self.calibration_data is not None

    def _checks(self) -> Iterator[tuple[bool, str, str]]:
        """Conditions that exclude each other or are out of range: whether, why, and the remedy."""
        yield (
            self.memory_format != "contiguous",
            "the engine reads its inputs as contiguous memory, so channels_last would only "
            "add a copy",
            "leave memory_format out; TensorRT chooses its own layouts",
        )
        yield (
            self.dla_core is not None and self.precision == "fp32",
            "a DLA computes in half or INT8 only",
            "add precision=fp16 or precision=int8",
        )
        yield (
            self._is_calibrated and self.precision != "int8",
            "only INT8 is calibrated",
            "use precision=int8",
        )
        yield (
            self.dla_core is not None and self.dla_core < 0,
            f"there is no DLA core {self.dla_core}",
            "count them from 0, or leave dla_core out to run on the GPU",
        )
        yield (
            self.workspace_bytes <= 0,
            f"workspace_bytes is {self.workspace_bytes}",
            "give a number of bytes above 0",
        )

    def check_available(self) -> None:
        """Raise if torch2trt, a TensorRT that it works with, ONNX or a CUDA GPU is missing.

        Raises:
            BackendUnavailableError: which of these, and how to get it.
        """
        _import_torch2trt()
        if self.use_onnx:
            for package in ("onnx", "onnx_graphsurgeon"):
                import_engine(package, f"{package} for use_onnx=true", f"pip install {package}")
        if not torch.cuda.is_available():
            raise BackendUnavailableError("a CUDA GPU", "run it on a CUDA GPU")

    def claims(self) -> Claims:
        """The precision that TensorRT may use; see `Backend.claims`."""
        return Claims(
            dtype=TF32 if self.precision == "fp32" and self.tf32 else LONG_NAMES[self.precision],
            engine=TENSORRT,
            framework="TensorRT via torch2trt",
            sparsity="dense",
            dlas=0 if self.dla_core is None else 1,
            packages=("torch2trt", "tensorrt"),
            covered_options=("precision", "tf32", "engine_cache", "dla_core"),
        )

    @classmethod
    def ladder_rungs(cls, capabilities: Capabilities) -> Iterable[Rung]:
        """Half, INT8, and INT8 on each DLA, on a GPU only; see `Backend.ladder_rungs`."""
        if capabilities.device != "cuda":
            return
        for precision in ("fp16", "int8"):
            yield Rung(Stage.ENGINE, {"precision": precision})
        for core in range(capabilities.dlas):
            yield Rung(Stage.ENGINE, {"precision": "int8", "dla_core": core})

    @classmethod
    def tuning_options(cls, capabilities: Capabilities) -> TuningOptions | None:
        """Half, and TF32; see `Backend.tuning_options`."""
        if capabilities.device != "cuda":
            return None
        return TuningOptions(
            Stage.ENGINE, [{"precision": "fp16"}, {"tf32": True}], typical_build_s=40
        )

    @contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        """Build or reload the engine; see `Backend.prepare`."""
        require_cuda(inputs)
        trt, torch2trt = _import_torch2trt()
        model, args = with_positional_arguments(
            cast_model(model, torch.float32), inputs.to(torch.float32)
        )
        check_inputs(torch2trt, args)
        with functions_restored(), torch.no_grad():
            expected = model(*args)
            check_outputs(torch2trt, expected)
            module, details = self._engine(trt, torch2trt, model, args, expected)
            output = _first_call(trt, module, args)
            check_shapes(output, expected)
            check_other_inputs(lambda *args: _first_call(trt, module, args), model, args, output)
        report = inspected(trt, module.engine)
        details |= report.details
        self._warn_of_fallback(details)
        read = Inputs(args)
        yield Prepared(
            read.bind(module), module, details, report.operations(self.name), inputs=read
        )

    def _engine(
        self, trt: Any, torch2trt: Any, model: nn.Module, args: tuple[Any, ...], expected: Any
    ) -> tuple[nn.Module, dict[str, Json]]:
        """The engine, reloaded or built, and how it was made."""
        message_recorder(trt).clear()
        batches = self._calibration_batches(args)
        file = self._cache_file(trt, model, args, batches)
        reloaded = self._reload(trt, torch2trt, file, args, expected) if file else None
        module = reloaded or self._build(trt, torch2trt, model, args, batches, expected)
        if file and not reloaded:
            engines.save_engine(file, module.engine)
        details: dict[str, Json] = {
            "tensorrt": str(trt.__version__),
            "torch2trt": installed_version("torch2trt"),
            "engine": "reloaded" if reloaded else "built",
            "calibration_batches": len(batches) if batches else None,
            "engine_bytes": engine_bytes(module.engine),
        }
        return module, details

    def _reload(
        self, trt: Any, torch2trt: Any, file: Path, args: tuple[Any, ...], expected: Any
    ) -> nn.Module | None:
        """The saved engine, unless there is none or it computes another model's output."""
        engine = engines.load_engine(trt, file, self.dla_core)
        if engine is None:
            return None
        module: nn.Module = torch2trt.TRTModule(
            engine,
            input_flattener=torch2trt.Flattener.from_value(args),
            output_flattener=torch2trt.Flattener.from_value(expected),
            **tensor_names(torch2trt, args, expected),
        )
        same = compare_outputs(cpu_copies(_first_call(trt, module, args)), cpu_copies(expected))
        return None if differs(same, _OTHER_MODEL) else module

    def _build(
        self,
        trt: Any,
        torch2trt: Any,
        model: nn.Module,
        args: tuple[Any, ...],
        batches: list[tuple[Any, ...]] | None,
        expected: Any,
    ) -> nn.Module:
        options = {**self._build_options(trt), **tensor_names(torch2trt, args, expected)}
        if batches is not None:
            options["int8_calib_dataset"] = torch2trt.ListDataset(batches)
        # torch2trt leaves its own attributes on the tensors it is given, so it gets new ones.
        fresh = Inputs(args).map(torch.Tensor.detach).args
        messages = message_recorder(trt)
        with engines.configured_builds(trt, self.tf32, self.workspace_bytes, self.dla_core):
            try:
                module: nn.Module = torch2trt.torch2trt(model, list(fresh), **options)
            except Exception as exc:
                raise _conversion_error(exc, messages) from exc
        if module.engine is None:  # TensorRT raises nothing when it fails
            raise PreparationError(
                f"TensorRT built no engine ({_last(messages) or 'it gives no reason'})", _REMEDY
            )
        for message in messages.warnings:
            print(f"TensorRT: {message}")  # into the row's log
        return module

    def _build_options(self, trt: Any) -> dict[str, Any]:
        """Arguments of `torch2trt.torch2trt` that this backend's options decide."""
        options: dict[str, Any] = {
            "fp16_mode": self.precision != "fp32",
            "int8_mode": self.precision == "int8",
            "max_workspace_size": self.workspace_bytes,
            "use_onnx": self.use_onnx,
            "keep_network": False,
        }
        if self.dla_core is None:
            return options
        _check_dla(trt, self.dla_core)
        return {
            **options,
            "default_device_type": trt.DeviceType.DLA,
            "dla_core": self.dla_core,
            "gpu_fallback": True,
        }

    def _calibration_batches(self, args: tuple[Any, ...]) -> list[tuple[Any, ...]] | None:
        """INT8 calibration batches on the inputs' device; None for other precisions."""
        if self.precision != "int8":
            return None
        return calibration_batches(self.name, self.calibration, self.calibration_data, args)

    def _cache_file(
        self,
        trt: Any,
        model: nn.Module,
        args: tuple[Any, ...],
        batches: list[tuple[Any, ...]] | None,
    ) -> Path | None:
        if self.engine_cache is None:
            return None
        data = hashlib.sha256()
        for _, tensor in walk(batches or []):
            data.update(tensor_bytes(tensor))
        options = {key: value for key, value in options_of(self).items() if key != "engine_cache"}
        parts: dict[str, Json] = {
            "gpu": _gpu(args),
            "tensorrt": str(trt.__version__),
            "torch2trt": installed_version("torch2trt"),
            "torch": str(torch.__version__),
            "inputs": [[list(tensor.shape), str(tensor.dtype)] for _, tensor in walk(args)],
            "options": options,
            "calibration": data.hexdigest() if batches else None,
        }
        return make_folder(self.engine_cache) / f"{model_key(parts, model)}.engine"

    def _warn_of_fallback(self, details: dict[str, Json]) -> None:
        counts = details["layer_precision"]
        wanted = {"fp16": ("fp16",), "int8": ("int8",)}.get(self.precision)
        if wanted and isinstance(counts, dict) and not any(counts.get(name) for name in wanted):
            warnings.warn(
                f"{self.precision} was allowed but no layer of the engine writes it "
                f"({counts}): TensorRT found other tactics faster, so this row is not "
                f"{self.precision}",
                PrecisionBenchWarning,
                stacklevel=2,
            )


def _import_torch2trt() -> tuple[Any, Any]:
    trt = engines.import_tensorrt()
    return trt, import_engine("torch2trt", "torch2trt", _INSTALL)


def _gpu(args: tuple[Any, ...]) -> list[Json]:
    device = next(tensor.device for _, tensor in walk(args))
    if device.type != "cuda":
        return [str(device)]
    return [torch.cuda.get_device_name(device), *torch.cuda.get_device_capability(device)]


def _check_dla(trt: Any, core: int) -> None:
    count = int(trt.Builder(message_recorder(trt)).num_DLA_cores)
    if core >= count:
        raise BackendUnavailableError(
            f"DLA core {core} (this device has {count} DLA cores)",
            "leave dla_core out to run on the GPU",
        )


def _first_call(trt: Any, module: nn.Module, args: tuple[Any, ...]) -> Any:
    """The engine's output; an engine that fails logs an error and gives memory as it was."""
    messages = message_recorder(trt)
    known = len(messages.errors)
    output = module(*args)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    if messages.errors[known:]:
        raise PreparationError(f"the engine does not run ({messages.errors[-1]})", _REMEDY)
    return output


def _last(messages: Any) -> str:
    """The last error that TensorRT logged, or else the last warning."""
    return next(iter((messages.errors or messages.warnings)[-1:]), "")


def _conversion_error(exc: Exception, recorder: Any) -> PreparationError:
    said = f"; TensorRT message: {_last(recorder)}" if _last(recorder) else ""
    if isinstance(exc, AttributeError) and "_trt" in text_of(exc):
        return PreparationError(
            f"torch2trt has no converter for an operation of this model ({one_line(exc)}){said}",
            "try use_onnx=true, or write a converter",
        )
    return PreparationError(
        f"torch2trt could not build the engine ({one_line(exc)}){said}", _REMEDY
    )
