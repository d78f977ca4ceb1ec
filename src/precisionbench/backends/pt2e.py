"""PyTorch 2 Export quantisation: INT8 on an x86 CPU, calibrated, and compiled by TorchInductor."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import attrs
import torch
from torch import fx, nn

from precisionbench._internal.importing import installed_version
from precisionbench.backends.base import Backend, Prepared, cast_model, names, unrecorded
from precisionbench.backends.calibration import calibration_batches
from precisionbench.backends.compile import Compile
from precisionbench.backends.flat_model import FlatModel, flattened
from precisionbench.backends.pt2e_layers import converted_weights
from precisionbench.backends.pt2e_sums import protect_inputs
from precisionbench.backends.rungs import Capabilities, Rung, Stage, TuningOptions
from precisionbench.backends.stored_weights import summary, warn_of_float_layers
from precisionbench.backends.torchao_import import import_torchao, quiet
from precisionbench.errors import (
    FOREIGN_ERRORS,
    BackendUnavailableError,
    PreparationError,
    SpecError,
    one_line,
)
from precisionbench.results.claims import Claims
from precisionbench.results.dtypes import FLOAT32, INT8
from precisionbench.torchtools.global_state import functions_restored
from precisionbench.torchtools.tensors import Inputs, walk

_X86 = ("x86_64", "amd64", "i386", "i686")


@attrs.frozen
class Pt2e(Backend):
    """INT8 by torchao's PT2E flow with the x86 Inductor quantiser, on a CPU.

    Convolutions and linear layers are quantised, with their activations, by calibration data. What
    is left out computes in float32. The label shows whether the kernels multiply in INT8, or
    dequantise and multiply in float32.

    Attributes:
        calibration: `package.module:function` that gives the calibration batches.
        calibration_data: the batches themselves: a sequence of tensors or tuples of tensors, each
            of the shapes of the benchmark's own inputs.
    """

    name: ClassVar[str] = "pt2e"
    left_out: ClassVar[str] = "PT2E was left out"
    calibration: str | None = attrs.field(default=None, metadata=names("code"))
    calibration_data: Sequence[Any] | None = unrecorded()

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.memory_format != "contiguous":
            raise SpecError(
                "pt2e: the exported model reads contiguous memory, so channels_last has no effect",
                "leave memory_format out; TorchInductor chooses its own layouts",
            )

    def check_available(self) -> None:
        """Raise if torchao, a C++ compiler or an x86 CPU is missing.

        Raises:
            BackendUnavailableError: which of these, and how to get it.
        """
        if platform.machine().lower() not in _X86:
            raise BackendUnavailableError(
                f"an x86 CPU, for its INT8 kernels (this is {platform.machine()})",
                "use the backend torchao",
            )
        import_torchao()
        Compile().check_available()

    def claims(self) -> Claims:
        """INT8; see `Backend.claims`."""
        return Claims(
            dtype=INT8,
            weights=INT8,
            attention=FLOAT32,
            engine="torch.compile",
            framework="PT2E compiled",
            sparsity="dense",
            frozen_weights=True,
            packages=("torchao",),
            covered_options=(),
        )

    @classmethod
    def ladder_rungs(cls, capabilities: Capabilities) -> Iterable[Rung]:
        """INT8, on a CPU only; see `Backend.ladder_rungs`."""
        if capabilities.device == "cpu" and "compile" not in capabilities.missing:
            yield Rung(Stage.ENGINE)

    @classmethod
    def tuning_options(cls, capabilities: Capabilities) -> TuningOptions | None:
        """INT8, on a CPU only; see `Backend.tuning_options`."""
        if capabilities.device != "cpu" or "compile" in capabilities.missing:
            return None
        return TuningOptions(Stage.ENGINE, typical_build_s=20)

    @contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        """Export, calibrate, quantise and compile the model; see `Backend.prepare`."""
        device = inputs.tensors()[0][1].device
        if device.type != "cpu":
            raise BackendUnavailableError(
                f"inputs on the CPU (they are on {device})",
                "choose the device 'cpu', or use the backend torchao",
            )
        flat = flattened(cast_model(model, torch.float32), inputs.to(torch.float32))
        with functions_restored():
            quantised, batches = self._quantised(flat)
        weights = summary(converted_weights(quantised, "model"), INT8)
        warn_of_float_layers(weights, INT8)
        compiler = Compile(freezing=True, grad_mode=self.grad_mode)
        with ExitStack() as stack:
            with quiet():
                prepared = stack.enter_context(compiler.prepare(quantised, Inputs(flat.inputs, {})))
            details = {
                "torchao": installed_version("torchao"),
                "calibration_batches": batches,
                **weights,
            }
            call: Callable[[], Any] = prepared.call
            yield attrs.evolve(
                prepared,
                call=lambda: flat.rebuilt(call()),
                details={**details, **prepared.details},
            )

    def _quantised(self, flat: FlatModel) -> tuple[fx.GraphModule, int]:
        """The model with its quantisation, and the number of calibration batches."""
        batches = calibration_batches(
            self.name, self.calibration, self.calibration_data, flat.inputs
        )
        try:
            with torch.no_grad(), quiet():
                return _converted(flat, batches), len(batches)
        except FOREIGN_ERRORS as exc:
            raise PreparationError(
                f"PT2E cannot quantise the model ({one_line(exc)})",
                "change what the message names, or use the backend torchao or openvino",
            ) from exc


def _converted(flat: FlatModel, batches: Sequence[tuple[Any, ...]]) -> fx.GraphModule:
    pt2e = import_torchao("torchao.quantization.pt2e")
    steps = import_torchao("torchao.quantization.pt2e.quantize_pt2e")
    x86 = import_torchao("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    narrow = import_torchao("torchao.utils").should_reduce_range(torch.device("cpu"))
    # Without `strict`, the quantiser cannot tell apart the layers of a residual block.
    exported = torch.export.export(flat.module, flat.inputs, strict=True).module()
    quantiser = x86.X86InductorQuantizer()
    quantiser.set_global(x86.get_default_x86_inductor_quantization_config(reduce_range=narrow))
    observed = steps.prepare_pt2e(exported, quantiser)
    for batch in batches:
        observed(*(tensor for _, tensor in walk(batch)))
    converted: fx.GraphModule = steps.convert_pt2e(observed)
    pt2e.move_exported_model_to_eval(converted)
    protect_inputs(converted)
    # These register the patterns by which TorchInductor finds the INT8 kernels.
    import_torchao("torchao.quantization.pt2e.inductor_passes.x86")
    return converted
