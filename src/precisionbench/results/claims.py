"""What a backend claims of a row: recorded with the result, and checked by the diagnosis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from precisionbench.display import Shown
from precisionbench.results.dtypes import FLOAT16, LONG_NAMES, MATMUL_PRECISIONS

# `Claims.engine` of rows that PyTorch runs operation by operation, and of those that TensorRT runs.
EAGER, TENSORRT = "eager PyTorch", "TensorRT"

# Options that backends without claims of their own may have, and that `claims_from_options` reads
# or that do not change what runs.
_COMMON_OPTIONS = (
    *("dtype", "precision", "mode", "freezing", "opt_level"),
    *("tf32", "engine_cache", "fp32_layers", "dla_core"),
)
_DTYPES = {"half": FLOAT16, **{short: LONG_NAMES[short] for short in MATMUL_PRECISIONS}}
_DTYPES |= {name: name for name in _DTYPES.values()}
# Modes of torch.compile that use CUDA graphs, and the optimisation levels of Apex that choose a
# dtype for each operation.
_GRAPH_MODES = ("reduce-overhead", "max-autotune")
_MIXED_LEVELS = ("O1", "O2")


@attrs.frozen(repr=False)
class Claims(Shown):
    """What a backend claims of a row.

    A claim is not a measurement: the diagnosis compares `dtype` with the kernels that ran. The
    other fields say how a row differs from eager PyTorch, for the ladder, the ledger of a gap and
    the comparison with published numbers.

    Attributes:
        dtype: in which matmuls and convolutions run: `float32`, `tf32`, `float16`, `bfloat16`,
            `int8`, `float64`, ...; empty where no single one is claimed, so that none is verified.
        weights: in which the weights of matmuls and convolutions are stored, such as `int4`, where
            a quantiser stores them; checked by the shares in `details["weight_shares"]`.
        attention: in which fused attention runs where the engine leaves it in another dtype, as
            quantisers of linear layers do; empty where `dtype` is that of attention, too.
        mixed: whether the engine chooses the dtype of each operation, as autocast does; `dtype` is
            then that of matmuls and convolutions.
        precision: what reports call the precision; empty for `dtype`, or `mixed` and `dtype`.
        engine: what runs the model, such as `eager PyTorch`, `torch.compile` or `TensorRT`; empty
            for the backend's name.
        framework: the same in the words of published numbers, such as `PyTorch eager`; empty for
            the backend's name.
        sparsity: `dense` where no structured-sparse kernel can run; None where that is not known.
        dlas: deep learning accelerators that it runs on.
        frozen_weights: whether the weights are constants of the compiled model.
        cuda_graphs: whether the engine launches CUDA graphs by itself (the option `cuda_graph` of
            every backend is recorded apart).
        autotuned: whether kernels are chosen by timing them.
        patches_torch: whether functions of torch are replaced while the row runs, by design.
        packages: distributions whose versions its times depend on, besides torch.
        covered_options: options whose effect the fields above state, or that change nothing of
            what runs; the other options count as changes of their own in the ledger of a gap.
    """

    dtype: str = ""
    mixed: bool = False
    precision: str = ""
    engine: str = ""
    framework: str = ""
    sparsity: str | None = None
    dlas: int = 0
    frozen_weights: bool = False
    cuda_graphs: bool = False
    autotuned: bool = False
    patches_torch: bool = False
    packages: tuple[str, ...] = ()
    covered_options: tuple[str, ...] = ("dtype", "precision")
    weights: str = ""
    attention: str = ""

    @property
    def precision_name(self) -> str:
        """The precision as reports call it; empty where none is claimed."""
        return self.precision or (f"mixed {self.dtype}" if self.mixed else self.dtype)

    @property
    def coarsest_dtype(self) -> str:
        """The dtype that limits the numerical error: of quantised weights, or else `dtype`."""
        return self.weights or self.dtype


def claims_from_options(options: Mapping[str, Any]) -> Claims:
    """What usual names of options say of a row whose backend makes no claims of its own.

    Args:
        options: of the row, defaults included.

    Returns:
        The claims; those that no option speaks of have their defaults.
    """
    layers, level = options.get("fp32_layers"), options.get("opt_level")
    mode = str(options.get("mode", "default"))
    mixed = level in _MIXED_LEVELS
    dtype = "" if layers else _dtype_of(options)
    precision = f"mixed {options.get('dtype')} ({layers} in float32)" if layers else ""
    return Claims(
        dtype=dtype,
        mixed=mixed,
        precision=f"mixed {dtype} ({level})" if mixed else precision,
        dlas=0 if options.get("dla_core") is None else 1,
        frozen_weights=bool(options.get("freezing")),
        cuda_graphs=mode in _GRAPH_MODES,
        autotuned=mode.startswith("max-autotune"),
        covered_options=_COMMON_OPTIONS,
    )


def _dtype_of(options: Mapping[str, Any]) -> str:
    named = (_DTYPES.get(str(options.get(name)), "") for name in ("dtype", "precision"))
    return next(filter(None, named), "")
