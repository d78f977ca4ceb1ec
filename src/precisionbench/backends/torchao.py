"""torchao's quantisation of linear layers, in eager PyTorch or compiled."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import nn

from precisionbench._internal.importing import installed_version
from precisionbench.backends.base import Backend, Prepared, cast_model
from precisionbench.backends.compile import Compile, Mode
from precisionbench.backends.rungs import Capabilities, Rung, Stage, TuningOptions
from precisionbench.backends.stored_weights import stored_weights, summary, warn_of_float_layers
from precisionbench.backends.torchao_import import import_torchao, quiet
from precisionbench.errors import (
    FOREIGN_ERRORS,
    BackendUnavailableError,
    PreparationError,
    SpecError,
    one_line,
)
from precisionbench.results.claims import EAGER, Claims
from precisionbench.results.dtypes import FLOAT8, INT4, INT8
from precisionbench.torchtools.tensors import Inputs

# Compute capability of Ada, the first architecture with FP8 tensor cores: NVIDIA Ada GPU
# architecture whitepaper (2023).
_FIRST_WITH_FLOAT8 = (8, 9)
_INT4_CAPABILITY = (8, 0)
_GROUP_SIZE = 128
_STORED = {
    "int8-dynamic": INT8,
    "int8-weight-only": INT8,
    "int4-weight-only": INT4,
    "float8": FLOAT8,
}
_DYNAMIC = ("int8-dynamic", "float8")
# The kernels on a GPU need multiples of these as sizes of a layer; `torch._int_mm` also falls back
# to the CPU, in silence, where torchao calls it with others.
_MULTIPLES = {"int8-dynamic": 8, "float8": 16}
# Of what torchao sets for good where its configurations may (`recommended_inductor_config_setter`),
# what fuses the scales into the product. It also sets coordinate descent, for which a build on a
# GPU times the variants of each kernel; `mode=max-autotune` does that, too.
_INDUCTOR: dict[str, Any] = {"force_fuse_int_mm_with_mul": True}


@attrs.frozen
class TorchAo(Backend):
    """Linear layers quantised by torchao; everything else runs in `dtype`.

    Other layers, convolutions among them, are not quantised; for those on a CPU there is the
    backend `pt2e`. Layers whose sizes a kernel refuses stay in `dtype`, too. The details and the
    label show what was quantised and in what it ran.

    Attributes:
        precision: `int8-dynamic` and `float8` multiply in INT8 and FP8, and scale the activations
            in each call; `int8-weight-only` and `int4-weight-only` store the weights so and
            multiply in `dtype`.
        dtype: of everything that is not quantised; weights, buffers and inputs are cast once.
        compile: compile the quantised model by `torch.compile`, for which torchao is made.
        mode: as for `compile`.
        group_size: weights that share a scale, for `int4-weight-only`; by default 128.
    """

    name: ClassVar[str] = "torchao"
    left_out: ClassVar[str] = "torchao was left out"
    precision: Literal["int8-dynamic", "int8-weight-only", "int4-weight-only", "float8"] = (
        "int8-dynamic"
    )
    dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    compile: bool = False
    mode: Mode = "default"
    group_size: Literal[32, 64, 128, 256] | None = None

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.mode != "default" and not self.compile:
            raise SpecError(f"torchao: mode={self.mode} is for compiled rows", "add compile=true")
        if self.group_size is not None and self.precision != "int4-weight-only":
            raise SpecError(
                f"torchao: precision={self.precision} has no groups",
                "leave group_size out, or use precision=int4-weight-only",
            )
        if self.compile:
            self._compiler()  # which refuses what cannot be compiled

    def check_available(self) -> None:
        """Raise if torchao, a compiler or FP8 is missing.

        Raises:
            BackendUnavailableError: which of these, and how to get it.
        """
        import_torchao()
        if self.compile:
            self._compiler().check_available()
        if self.precision == FLOAT8:
            _check_float8()

    def claims(self) -> Claims:
        """What the products run in, and the dtype of the weights; see `Backend.claims`."""
        stored = _STORED[self.precision]
        is_dynamic = self.precision in _DYNAMIC
        return Claims(
            dtype=stored if is_dynamic else self.dtype,
            weights=stored,
            attention=self.dtype if is_dynamic else "",
            precision="" if is_dynamic else f"{self.dtype}, {stored} weights",
            engine="torch.compile" if self.compile else EAGER,
            framework="torchao compiled" if self.compile else "torchao",
            sparsity="dense",
            cuda_graphs=self.compile and self._compiler().claims().cuda_graphs,
            autotuned=self.compile and self._compiler().claims().autotuned,
            packages=("torchao",),
            covered_options=("dtype", "precision", "compile", "mode"),
        )

    @classmethod
    def ladder_rungs(cls, capabilities: Capabilities) -> Iterable[Rung]:
        """INT8, alone and compiled, and FP8 where the GPU has it; see `Backend.ladder_rungs`."""
        yield Rung(Stage.ENGINE)
        if "compile" in capabilities.missing:
            return
        yield Rung(Stage.ENGINE, {"compile": True})
        if capabilities.device == "cuda" and capabilities.capability >= _FIRST_WITH_FLOAT8:
            yield Rung(Stage.ENGINE, {"precision": FLOAT8, "compile": True})

    @classmethod
    def tuning_options(cls, capabilities: Capabilities) -> TuningOptions | None:
        """INT8, and FP8 where the GPU has it, compiled if possible; see `Backend`."""
        options: dict[str, Any] = {"compile": "compile" not in capabilities.missing}
        first = [options]
        weight_only: dict[str, Any] = {"precision": "int8-weight-only"}
        if capabilities.device == "cuda":
            # torch.compile (torch 2.10 and newer) replaces the conversion of the weights and the
            # matmul by `aten::_weight_int8pack_mm`, whose kernel has no tensor cores: on an H200
            # 148 ms for a layer of 4096 x 4096 and 4096 tokens, and 0.28 ms uncompiled.
            weight_only["compile"] = False
            if capabilities.capability >= _FIRST_WITH_FLOAT8:
                first.append({**options, "precision": FLOAT8})
        return TuningOptions(Stage.ENGINE, first, [weight_only], typical_build_s=15)

    @contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        """Cast, quantise, and compile if asked for; see `Backend.prepare`."""
        device = inputs.tensors()[0][1].device
        self._check_device(device)
        dtype = getattr(torch, self.dtype)
        model, inputs = cast_model(model, dtype), inputs.to(dtype)
        refused = self._quantise(model, device)
        stored = _STORED[self.precision]
        weights = summary(stored_weights(model), stored)
        warn_of_float_layers(weights, stored, refused)
        details = {"torchao": installed_version("torchao"), **weights}
        with ExitStack() as stack:
            prepared = Prepared(inputs.bind(model), model, inputs=inputs)
            if self.compile:
                prepared = stack.enter_context(self._compiled(model, inputs))
            yield attrs.evolve(prepared, details={**details, **prepared.details})

    def _compiler(self) -> Compile:
        return Compile(
            dtype=self.dtype,
            mode=self.mode,
            grad_mode=self.grad_mode,
            cuda_graph=self.cuda_graph,
            memory_format=self.memory_format,
        )

    @contextmanager
    def _compiled(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        import torch._inductor.config

        with ExitStack() as stack:
            stack.enter_context(torch._inductor.config.patch(_INDUCTOR))
            with quiet():
                compiled = stack.enter_context(self._compiler().prepare(model, inputs))
            yield compiled

    def _check_device(self, device: torch.device) -> None:
        """Refuse what this device has no kernels for."""
        if self.precision == FLOAT8:
            _check_float8(device)
        if self.precision != "int4-weight-only" or device.type != "cuda":
            return
        if torch.cuda.get_device_capability(device) < _INT4_CAPABILITY:
            raise BackendUnavailableError(
                "a GPU of compute capability 8.0 or newer, for int4 weights",
                "use precision=int8-weight-only",
            )
        if self.dtype != "bfloat16":
            raise PreparationError(
                f"the int4 kernels of a GPU multiply in bfloat16 only, and dtype is {self.dtype}",
                "use dtype=bfloat16, or precision=int8-weight-only",
            )

    def _quantise(self, model: nn.Module, device: torch.device) -> dict[str, str]:
        """Quantise the linear layers in place; give those that stay as they are, with the reason.

        What a kernel accepts depends on the device and the release, so each layer is tried.
        """
        quantize = import_torchao("torchao.quantization").quantize_
        config = self._config(device)
        multiple = _MULTIPLES.get(self.precision, 1) if device.type == "cuda" else 1
        layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and type(module) not in _NEVER
        }
        tried = {
            name: _refusal(quantize, config, layer, multiple) for name, layer in layers.items()
        }
        return {name: reason for name, reason in tried.items() if reason}

    def _config(self, device: torch.device) -> Any:
        """The configuration, which must not change the settings of TorchInductor for good."""
        ao = import_torchao("torchao.quantization")
        plain: dict[str, Any] = {"set_inductor_config": False}
        if self.precision == "int8-dynamic":
            narrow = importlib.import_module("torchao.utils").should_reduce_range(device)
            return ao.Int8DynamicActivationInt8WeightConfig(reduce_range=narrow, **plain)
        if self.precision == "int8-weight-only":
            return ao.Int8WeightOnlyConfig(**plain)
        if self.precision == FLOAT8:
            return ao.Float8DynamicActivationFloat8WeightConfig(**plain)
        plain["group_size"] = self.group_size or _GROUP_SIZE
        if device.type == "cuda":
            return ao.Int4WeightOnlyConfig(int4_packing_format="tile_packed_to_4d", **plain)
        return _config_of_int4_on_a_cpu(plain)


# The attention of `nn.MultiheadAttention` reads the weights of this layer itself.
_NEVER = (nn.modules.linear.NonDynamicallyQuantizableLinear,)


def _config_of_int4_on_a_cpu(options: Mapping[str, Any]) -> Any:
    """The configuration of INT4, which is one of the prototypes of torchao."""
    int4 = import_torchao("torchao.prototype.quantization.int4")
    return int4.PrototypeInt4WeightOnlyConfig(**options)


def _check_float8(device: torch.device | None = None) -> None:
    """Raise unless the device, or some device here, multiplies in FP8."""
    is_cuda = torch.cuda.is_available() if device is None else device.type == "cuda"
    found = torch.cuda.get_device_capability(device) if is_cuda else None
    if found is None or found < _FIRST_WITH_FLOAT8:
        here = "the CPU" if found is None else "compute capability {}.{}".format(*found)
        raise BackendUnavailableError(
            f"a GPU of compute capability 8.9 or newer, for FP8 (this is {here})",
            "use precision=int8-dynamic here",
        )


def _refusal(quantize: Any, config: Any, layer: nn.Linear, multiple: int) -> str:
    """Quantise a layer; why it was refused, or nothing."""
    if any(size % multiple for size in layer.weight.shape):
        sizes = " x ".join(map(str, layer.weight.shape))
        return f"the kernels need sizes that are multiples of {multiple}; the weights have {sizes}"
    holder = nn.ModuleList([layer])  # torchao quantises what is within another module
    try:
        with quiet():
            quantize(holder, config, filter_fn=lambda module, _: module is layer)
    except (MemoryError, torch.OutOfMemoryError):
        raise  # of the whole row
    except FOREIGN_ERRORS as exc:
        return one_line(exc)
    return ""
