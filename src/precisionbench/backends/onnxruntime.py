"""ONNX Runtime: the model is exported to ONNX and run by an execution provider."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import nn

from precisionbench._internal.importing import import_engine, installed_version
from precisionbench._internal.temporary_folder import TemporaryFolder
from precisionbench.backends import engine_layers as layers_module
from precisionbench.backends.base import (
    Backend,
    Prepared,
    cast_model,
    check_tf32,
    names,
    require_cuda,
    unrecorded,
)
from precisionbench.backends.calibration import calibration_batches
from precisionbench.backends.flat_model import FlatModel, flattened
from precisionbench.backends.onnx_export import Exporter, default_exporter, export
from precisionbench.backends.onnxruntime_quantisation import INSTALL_ONNX, quantise
from precisionbench.backends.onnxruntime_session import (
    GPU_PACKAGE,
    bound_call,
    chosen_provider,
    open_session,
    profiled_layers,
    provider_name,
)
from precisionbench.backends.rungs import Capabilities, Rung, Stage, TuningOptions
from precisionbench.errors import BackendUnavailableError, SpecError
from precisionbench.results.claims import Claims
from precisionbench.results.dtypes import LONG_NAMES, TF32
from precisionbench.results.json_values import Json
from precisionbench.torchtools.tensors import Inputs, walk

Provider = Literal["cpu", "cuda", "tensorrt", "tensorrt-rtx"]
_INSTALL = "pip install 'precisionbench[onnxruntime]'"


@attrs.frozen
class OnnxRuntime(Backend):
    """ONNX Runtime, by any of its execution providers, with static shapes.

    Attributes:
        precision: of the exported model: `fp32`; `fp16` for weights, inputs and outputs; `int8` by
            ONNX Runtime's static quantiser.
        provider: that runs the model; none is `cuda` or `cpu`, by the device of the inputs. What it
            cannot run, ONNX Runtime gives to another one; the details and the label show it.
        tf32: allow TF32 where CUDA computes in float32 (the provider's own default is on).
        exporter: of torch; none is `dynamo` where onnxscript is installed, else `torchscript`.
        calibration: `package.module:function` that gives the INT8 calibration batches.
        calibration_data: the batches themselves: a sequence of tensors or tuples of tensors, each
            of the shapes of the benchmark's own inputs.
    """

    name: ClassVar[str] = "onnxruntime"
    left_out: ClassVar[str] = "ONNX Runtime was left out"
    imports: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    provider: Provider | None = None
    tf32: bool = False
    exporter: Exporter | None = None
    calibration: str | None = attrs.field(default=None, metadata=names("code"))
    calibration_data: Sequence[Any] | None = unrecorded()

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for is_wrong, reason, remedy in self._checks():
            if is_wrong:
                raise SpecError(f"{self.name}: {reason}", remedy)

    def _checks(self) -> Iterator[tuple[bool, str, str]]:
        """Conditions that exclude each other: whether, why, and the remedy."""
        yield (
            self.memory_format != "contiguous",
            "the exported model reads contiguous memory, so channels_last would have no effect",
            "leave memory_format out; ONNX Runtime chooses its own layouts",
        )
        yield (
            self.tf32 and (self.precision != "fp32" or self.provider not in (None, "cuda")),
            "tf32 is an option of float32 with provider=cuda",
            "leave tf32 out, or use precision=fp32 and provider=cuda",
        )
        yield (
            self.precision != "int8" and (self.calibration or self.calibration_data) is not None,
            "only INT8 is calibrated",
            "use precision=int8",
        )

    def check_available(self) -> None:
        """Raise if ONNX Runtime, the provider or what the export needs is missing.

        Raises:
            BackendUnavailableError: which of these, and how to get it.
        """
        ort = _import_onnxruntime()
        import_engine("onnx", "onnx for the export", INSTALL_ONNX)
        if self.exporter == "dynamo":
            import_engine("onnxscript", "onnxscript for exporter=dynamo", "pip install onnxscript")
        if self.tf32:
            check_tf32()
        if self.provider:
            provider_name(ort, self.provider)

    def claims(self) -> Claims:
        """The precision of the exported model; see `Backend.claims`."""
        return Claims(
            dtype=TF32 if self.tf32 else LONG_NAMES[self.precision],
            engine="ONNX Runtime",
            framework="ONNX Runtime",
            sparsity="dense",
            frozen_weights=True,
            packages=("onnxruntime", GPU_PACKAGE),
            covered_options=("precision", "tf32"),
        )

    @classmethod
    def ladder_rungs(cls, capabilities: Capabilities) -> Iterable[Rung]:
        """Half on a GPU; float32 and INT8 on a CPU; see `Backend.ladder_rungs`."""
        if capabilities.device == "cpu":
            yield Rung(Stage.ENGINE)
            yield Rung(Stage.ENGINE, {"precision": "int8"})
        elif capabilities.device == "cuda" and installed_version(GPU_PACKAGE):
            yield Rung(Stage.ENGINE, {"precision": "fp16"})

    @classmethod
    def tuning_options(cls, capabilities: Capabilities) -> TuningOptions | None:
        """Half on a GPU; float32 and INT8 on a CPU; see `Backend.tuning_options`."""
        if capabilities.device == "cpu":
            return TuningOptions(Stage.ENGINE, [{}, {"precision": "int8"}], typical_build_s=4)
        if capabilities.device == "cuda" and installed_version(GPU_PACKAGE):
            return TuningOptions(Stage.ENGINE, [{"precision": "fp16"}], typical_build_s=4)
        return None

    @contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        """Export the model and open a session; see `Backend.prepare`."""
        ort = _import_onnxruntime()
        device = inputs.tensors()[0][1].device
        provider = self._provider(inputs)
        chosen = chosen_provider(ort, provider, device, self.precision, self.tf32)
        dtype = torch.float16 if self.precision == "fp16" else torch.float32
        flat = flattened(cast_model(model, dtype), inputs.to(dtype))
        with TemporaryFolder() as folder:
            file, about = self._exported(flat, folder / "model.onnx", provider)
            session = open_session(ort, file, chosen)
            call = bound_call(ort, session, flat, device)
            layers = profiled_layers(session, call)
        layers_module.warn_of_other_precision(layers, LONG_NAMES[self.precision])
        layers_module.warn_of_other_place(layers, chosen.name)
        details: dict[str, Json] = {
            "onnxruntime": str(ort.__version__),
            "provider": chosen.name,
            **about,
            **layers_module.summary(layers),
        }
        operations = tuple(layer.as_operation(self.name) for layer in layers)
        yield Prepared(
            call, details=details, engine_operations=operations, inputs=Inputs(flat.inputs)
        )

    def _provider(self, inputs: Inputs) -> str:
        """The provider that is asked for, or that of the inputs' device.

        Raises:
            BackendUnavailableError: the inputs are on another device.
        """
        device = inputs.tensors()[0][1].device
        provider = self.provider or ("cuda" if device.type == "cuda" else "cpu")
        if provider != "cpu" or self.tf32:
            require_cuda(inputs)
        elif device.type != "cpu":
            raise BackendUnavailableError(
                f"inputs on the CPU for provider=cpu (they are on {device})",
                "choose the device 'cpu', or leave provider out",
            )
        return provider

    def _exported(self, flat: FlatModel, file: Path, provider: str) -> tuple[Path, dict[str, Json]]:
        """The file to run, and how it was made."""
        exporter = self.exporter or default_exporter()
        export(flat, file, exporter)
        if self.precision != "int8":
            return file, {"exporter": exporter, "calibration_batches": None}
        batches = [
            [tensor for _, tensor in walk(batch)]
            for batch in calibration_batches(
                self.name, self.calibration, self.calibration_data, flat.inputs
            )
        ]
        about: dict[str, Json] = {"exporter": exporter, "calibration_batches": len(batches)}
        return quantise(file, batches, unsigned=provider == "cpu"), about


def _import_onnxruntime() -> Any:
    return import_engine("onnxruntime", "ONNX Runtime", _INSTALL)
