"""TensorRT, or TensorRT for RTX, through Torch-TensorRT 2.10 or newer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import nn

from precisionbench._internal.importing import import_engine
from precisionbench._internal.temporary_folder import TemporaryFolder
from precisionbench.backends.base import Backend, Prepared, cast_model, check_tf32, require_cuda
from precisionbench.backends.engine_layers import warn_of_other_precision
from precisionbench.backends.flat_model import FlatModel, flattened
from precisionbench.backends.rungs import Capabilities, Rung, Stage, TuningOptions
from precisionbench.backends.torch_tensorrt_build import (
    PACKAGES,
    compiled,
    warn_of_operators_left,
)
from precisionbench.errors import BackendUnavailableError, PreparationError, SpecError
from precisionbench.results.claims import TENSORRT, Claims
from precisionbench.results.dtypes import LONG_NAMES, TF32
from precisionbench.results.json_values import Json
from precisionbench.torchtools.global_state import functions_restored
from precisionbench.torchtools.tensors import Inputs

_INSTALL = "pip install 'precisionbench[torch-tensorrt]', in an environment with torch for CUDA"
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Where engines of TensorRT for RTX 1.7 run: its own message on a GPU of compute capability 9.0.
_RTX_CAPABILITIES = ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
# The oldest version in which networks are always strongly typed, as this backend takes for granted.
_OLDEST = (2, 10)


@attrs.frozen
class TorchTensorRT(Backend):
    """TensorRT through Torch-TensorRT: engines for exactly these input shapes.

    Networks are strongly typed: an engine computes in the dtypes of the model that it is given, so
    the model is cast. What TensorRT cannot convert runs in PyTorch; the details and the label show
    it.

    Attributes:
        precision: of the model that is compiled: weights, inputs and outputs are cast to it.
        autocast: leave weights, inputs and outputs in float32, and let Torch-TensorRT choose which
            operators compute in `precision`.
        tf32: allow TF32 where the engine computes in float32 (TensorRT's own default is on).
        workspace_bytes: scratch memory that tactics may use; none is all of the GPU's memory.
        min_block_size: operators that a part of the model needs to become an engine; smaller ones
            run in PyTorch.
        require_full_compilation: fail where an operator would run in PyTorch.
    """

    name: ClassVar[str] = "torch-tensorrt"
    left_out: ClassVar[str] = "Torch-TensorRT was left out"
    imports: ClassVar[tuple[str, ...]] = ("torch_tensorrt",)
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    autocast: bool = False
    tf32: bool = False
    workspace_bytes: int | None = None
    min_block_size: int = 5
    require_full_compilation: bool = False

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for is_wrong, reason, remedy in self._checks():
            if is_wrong:
                raise SpecError(f"{self.name}: {reason}", remedy)

    def _checks(self) -> Iterator[tuple[bool, str, str]]:
        """Conditions that exclude each other or are out of range: whether, why, and the remedy."""
        yield (
            self.memory_format != "contiguous",
            "the engine reads contiguous memory, so channels_last would only add a copy",
            "leave memory_format out; TensorRT chooses its own layouts",
        )
        yield (
            self.autocast and self.precision == "fp32",
            "autocast needs a 16-bit precision",
            "add precision=fp16 or precision=bf16",
        )
        yield (
            self.tf32 and self.precision != "fp32",
            "tf32 is a precision of float32",
            "leave tf32 out, or use precision=fp32",
        )
        yield (
            self.workspace_bytes is not None and self.workspace_bytes <= 0,
            f"workspace_bytes is {self.workspace_bytes}",
            "give a number of bytes above 0, or leave it out",
        )
        yield (
            self.min_block_size < 1,
            f"min_block_size is {self.min_block_size}",
            "give 1 or more operators",
        )

    def check_available(self) -> None:
        """Raise if Torch-TensorRT, a CUDA GPU or one that it supports is missing.

        Raises:
            BackendUnavailableError: which of these, and how to get it.
        """
        if importlib.util.find_spec("torch_tensorrt") and not torch.cuda.is_available():
            # Without a driver its import fails, and the error does not say why.
            raise BackendUnavailableError("a CUDA GPU", "run it on a CUDA GPU")
        check_supported(import_torch_tensorrt(), torch.cuda.get_device_capability())
        if self.tf32:
            check_tf32()

    def claims(self) -> Claims:
        """The precision of the compiled model; see `Backend.claims`."""
        return Claims(
            dtype=TF32 if self.tf32 else LONG_NAMES[self.precision],
            mixed=self.autocast,
            engine=TENSORRT,
            framework="TensorRT via Torch-TensorRT",
            sparsity="dense",
            frozen_weights=True,
            packages=(*PACKAGES, "tensorrt", "tensorrt-rtx"),
            covered_options=("precision", "autocast", "tf32"),
        )

    @classmethod
    def ladder_rungs(cls, capabilities: Capabilities) -> Iterable[Rung]:
        """Half, on a GPU where it is installed; see `Backend.ladder_rungs`."""
        if capabilities.device == "cuda" and importlib.util.find_spec("torch_tensorrt"):
            yield Rung(Stage.ENGINE, {"precision": "fp16"})

    @classmethod
    def tuning_options(cls, capabilities: Capabilities) -> TuningOptions | None:
        """Half, on a GPU; see `Backend.tuning_options`."""
        if capabilities.device != "cuda":
            return None
        return TuningOptions(Stage.ENGINE, [{"precision": "fp16"}], typical_build_s=40)

    @contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        """Compile the model; see `Backend.prepare`."""
        require_cuda(inputs)
        torch_tensorrt = import_torch_tensorrt()
        device = inputs.tensors()[0][1].device
        check_supported(torch_tensorrt, torch.cuda.get_device_capability(device))
        flat = flattened(*cast_for(self, model, inputs))
        with TemporaryFolder() as folder, functions_restored():
            options = self.compile_options() | {
                "device": device,
                # TensorRT's own file of timings would let a row depend on earlier runs.
                "timing_cache_path": str(folder / "timings.bin"),
            }
            found = compiled(torch_tensorrt, flat, options)
        warn_of_operators_left(found)
        warn_of_other_precision(found.report.layers, LONG_NAMES[self.precision])
        details: dict[str, Json] = {
            "torch_tensorrt": str(torch_tensorrt.__version__),
            "tensorrt": _tensorrt_version(torch_tensorrt),
            **found.details,
        }
        call, operations = _call(found.module, flat), found.operations(self.name)
        yield Prepared(call, None, details, operations, inputs=Inputs(flat.inputs))

    def compile_options(self) -> dict[str, Any]:
        """The arguments of `torch_tensorrt.dynamo.compile` that this backend's options decide.

        Never `enabled_precisions`: Torch-TensorRT takes it and drops it.
        """
        options: dict[str, Any] = {
            "disable_tf32": not self.tf32,
            "workspace_size": self.workspace_bytes or 0,
            "min_block_size": self.min_block_size,
            "require_full_compilation": self.require_full_compilation,
        }
        if self.autocast:
            options["enable_autocast"] = True
            options["autocast_low_precision_type"] = _DTYPES[self.precision]
        return options


def cast_for(backend: TorchTensorRT, model: nn.Module, inputs: Inputs) -> tuple[nn.Module, Inputs]:
    """The model and its inputs in the dtype that is compiled.

    Args:
        backend: that compiles them.
        model: the model; it is cast in place.
        inputs: its arguments.
    """
    dtype = torch.float32 if backend.autocast else _DTYPES[backend.precision]
    return cast_model(model, dtype), inputs.to(dtype)


def import_torch_tensorrt() -> Any:
    """The package `torch_tensorrt`, of a version whose networks are strongly typed.

    Raises:
        BackendUnavailableError: it is missing, broken or too old.
    """
    found = import_engine("torch_tensorrt", "Torch-TensorRT 2.10 or newer", _INSTALL)
    version = tuple(int(part) for part in str(found.__version__).split(".")[:2])
    if version < _OLDEST:
        raise BackendUnavailableError(
            f"Torch-TensorRT 2.10 or newer ({found.__version__} is installed; its networks are not "
            "strongly typed)",
            _INSTALL,
        )
    return found


def check_supported(torch_tensorrt: Any, capability: tuple[int, int]) -> None:
    """Raise if this build of Torch-TensorRT has no engines for a GPU.

    Args:
        torch_tensorrt: the package.
        capability: compute capability of the GPU.

    Raises:
        BackendUnavailableError: it is a build for TensorRT for RTX, which does not run there.
    """
    if _is_for_rtx(torch_tensorrt) and capability not in _RTX_CAPABILITIES:
        known = ", ".join(f"{major}.{minor}" for major, minor in _RTX_CAPABILITIES)
        raise BackendUnavailableError(
            f"a GPU of compute capability {known} for TensorRT for RTX (this one has "
            f"{capability[0]}.{capability[1]})",
            "pip uninstall -y torch-tensorrt-rtx && pip install torch-tensorrt",
        )


def _is_for_rtx(torch_tensorrt: Any) -> bool:
    return bool(getattr(torch_tensorrt.ENABLED_FEATURES, "tensorrt_rtx", False))


def _tensorrt_version(torch_tensorrt: Any) -> str:
    """TensorRT's version, with a word where it is TensorRT for RTX."""
    version = str(import_engine("tensorrt", "TensorRT", _INSTALL).__version__)
    return f"{version} (RTX)" if _is_for_rtx(torch_tensorrt) else version


def _call(module: nn.Module, flat: FlatModel) -> Callable[[], object]:
    """A call that gives what the model gives.

    Raises:
        PreparationError: the compiled model gives another number of tensors.
    """
    given = _sequence(module(*flat.inputs))
    if len(given) != len(flat.outputs):
        raise PreparationError(
            f"the compiled model gives {len(given)} tensors where the model gives "
            f"{len(flat.outputs)}",
            "use the backend torch2trt",
        )
    if isinstance(flat.expected, torch.Tensor):
        return lambda: _sequence(module(*flat.inputs))[0]
    return lambda: flat.rebuilt(_sequence(module(*flat.inputs)))


def _sequence(output: Any) -> list[torch.Tensor]:
    return [output] if isinstance(output, torch.Tensor) else list(output)
