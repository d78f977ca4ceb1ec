"""AOTInductor: the model is exported, compiled ahead of time to a package, and run from it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import nn

from precisionbench._internal.temporary_folder import TemporaryFolder
from precisionbench.backends import engine_layers as layers_module
from precisionbench.backends.aot_inductor_build import WHAT, Build, build, exported
from precisionbench.backends.aot_inductor_package import (
    KEY,
    call_of,
    check_place,
    keep,
    key_of,
    loaded,
)
from precisionbench.backends.base import (
    Backend,
    Prepared,
    cast_model,
    check_tf32,
    names,
    options_of,
    require_cuda,
)
from precisionbench.backends.flat_model import FlatModel, flattened
from precisionbench.backends.inductor import (
    check_compiler,
    check_tools,
    environment_restored,
)
from precisionbench.backends.rungs import CHANNELS_LAST, Capabilities, Rung, Stage, TuningOptions
from precisionbench.errors import PrecisionBenchWarning, SpecError
from precisionbench.results.claims import Claims
from precisionbench.results.dtypes import LONG_NAMES, TF32
from precisionbench.results.json_values import Json
from precisionbench.torchtools.global_state import fp32_precision
from precisionbench.torchtools.tensors import Inputs, arrange

_DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}

# On an H200 a package of ResNet-50 takes more than 70 s, and all other rows of the ladder 35 s.
_LONG_BUILD = (
    "building its package takes longer than all other rows on a GPU, and its kernels are those of "
    "torch.compile; name it in compare to measure it"
)


@attrs.frozen
class AotInductor(Backend):
    """AOTInductor: a package (`.pt2`) for exactly these shapes, as C++ and Python programs load it.

    Attributes:
        precision: weights, buffers and inputs are cast to it once, beforehand; `tf32` is float32
            with TF32 on.
        freezing: treat the weights as constants: fold batch norms into them, and choose and pack
            their layout.
        max_autotune: choose kernels by timing them.
        package_path: file in which the package that is measured is kept, for deployment. A file
            that is there already is never replaced.
    """

    name: ClassVar[str] = "aot-inductor"
    left_out: ClassVar[str] = "AOTInductor was left out"
    imports: ClassVar[tuple[str, ...]] = ("torch._dynamo", "torch._inductor.compile_fx")
    precision: Literal["fp32", "tf32", "fp16", "bf16"] = "fp32"
    freezing: bool = False
    max_autotune: bool = False
    package_path: Path | str | None = attrs.field(default=None, metadata=names("a file"))

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.package_path is not None and not str(self.package_path).endswith(".pt2"):
            raise SpecError(
                f"aot-inductor: package_path cannot be {str(self.package_path)!r}",
                "give a name that ends with .pt2, as torch requires it",
            )

    def check_available(self) -> None:
        """Raise if there is no C++ compiler, or TF32 is asked for and missing.

        Raises:
            BackendUnavailableError: what is missing.
        """
        if self.precision == "tf32":
            check_tf32()
        check_compiler()

    def claims(self) -> Claims:
        """The precision, and what freezing and tuning change; see `Backend.claims`."""
        return Claims(
            dtype=LONG_NAMES[self.precision],
            engine=WHAT,
            framework="PyTorch AOTInductor",
            sparsity="dense",
            frozen_weights=self.freezing,
            autotuned=self.max_autotune,
            covered_options=("precision", "freezing", "max_autotune", "package_path"),
        )

    @classmethod
    def ladder_rungs(cls, capabilities: Capabilities) -> Iterable[Rung]:
        """16 bits, frozen, on a CPU; see `Backend.ladder_rungs`."""
        if capabilities.device not in ("cpu", "cuda"):
            return
        on_gpu = capabilities.device == "cuda"
        options: dict[str, Any] = {"precision": "fp16" if on_gpu else "bf16"}
        options |= CHANNELS_LAST if capabilities.has_images else {}
        left_out = _LONG_BUILD if on_gpu else ""
        yield Rung(Stage.ENGINE, {**options, "freezing": True}, left_out)

    @classmethod
    def tuning_options(cls, capabilities: Capabilities) -> TuningOptions | None:
        """16 bits, frozen, and tuned kernels; see `Backend.tuning_options`."""
        if capabilities.device not in ("cpu", "cuda"):
            return None
        precision = "fp16" if capabilities.device == "cuda" else "bf16"
        return TuningOptions(
            Stage.ENGINE,
            [{"precision": precision, "freezing": True}],
            [{"max_autotune": True}],
            typical_build_s=100 if capabilities.device == "cuda" else 30,
        )

    @contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        """Export, compile, load and call the model; see `Backend.prepare`."""
        device = inputs.tensors()[0][1].device
        if self.precision == TF32:
            require_cuda(inputs)
        check_tools(device.type)
        check_compiler()
        dtype = _DTYPES[self.precision]
        with ExitStack() as stack:
            stack.enter_context(environment_restored())
            stack.enter_context(fp32_precision("tf32" if self.precision == TF32 else "ieee"))
            folder = stack.enter_context(TemporaryFolder())
            flat = self._flat(cast_model(model, dtype), inputs.to(dtype))
            file, built = self._built(flat, folder)
            compiled = loaded(file, device, alone=self.cuda_graph)
            call = call_of(compiled, flat)
            details = self._details(file, built, compiled)
            operations = tuple(layer.as_operation(self.name) for layer in built.layers)
            read = Inputs(flat.inputs)
            yield Prepared(call, details=details, engine_operations=operations, inputs=read)

    def _flat(self, model: nn.Module, inputs: Inputs) -> FlatModel:
        """The model with plain tensors as inputs, in the row's memory format."""
        flat = flattened(model, inputs)
        arranged = tuple(arrange(tensor, self.memory_format) for tensor in flat.inputs)
        return attrs.evolve(flat, inputs=arranged)

    def _built(self, flat: FlatModel, folder: Path) -> tuple[Path, Build]:
        """The package to measure, and what is known of it."""
        program = exported(flat)
        package, key = folder / "package.pt2", ""
        if self.package_path is not None:
            options = {name: v for name, v in options_of(self).items() if name != "package_path"}
            key = key_of(program, flat, options)
            check_place(self.package_path, key)
        built = build(
            program,
            package,
            freezing=self.freezing,
            max_autotune=self.max_autotune,
            metadata={KEY: key} if key else {},
        )
        return keep(package, self.package_path, key) if self.package_path else package, built

    def _details(self, file: Path, built: Build, compiled: Any) -> dict[str, Json]:
        """What the package has, with warnings of options that changed nothing."""
        changed = set(compiled.get_constant_fqns()) - built.weights
        layers_module.warn_of_other_precision(built.layers, _claimed(self.precision))
        if self.freezing and not changed:
            _warn("freezing=true changed none of the weights of this package")
        if self.max_autotune and not built.tuned:
            _warn("max_autotune=true chose no kernel by timing, because none had alternatives")
        return {
            "package_bytes": file.stat().st_size,
            "layer_precision": dict(Counter(layer.dtype for layer in built.layers)),
            "changed_weights": len(changed),
            "tuned_operations": built.tuned,
        }


def _claimed(precision: str) -> str:
    return "float32" if precision == TF32 else LONG_NAMES[precision]


def _warn(text: str) -> None:
    warnings.warn(text, PrecisionBenchWarning, stacklevel=3)
