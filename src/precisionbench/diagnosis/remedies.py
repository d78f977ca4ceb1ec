"""What to do about an output that is inaccurate or infinite, as far as the row can take it."""

from __future__ import annotations

from collections.abc import Sequence

from precisionbench.errors import SpecError
from precisionbench.results import BackendResult
from precisionbench.results.claims import EAGER
from precisionbench.results.dtypes import BFLOAT16, FLOAT16, FLOAT32, INT8, TF32
from precisionbench.results.earlier_claims import claims_of
from precisionbench.spec_syntax import spec_text, split_spec, value_text

_LAYERS = "fp32_layers"
_HALF = (FLOAT16, BFLOAT16)
_LARGEST_FLOAT16 = 65504.0


def in_float32(row: BackendResult, layers: Sequence[str]) -> str:
    """How to keep layers of a row with 16 bits in float32; empty where it has no layers to keep.

    Args:
        row: with 16 bits.
        layers: paths of modules.
    """
    paths = [path for path in layers if path]
    if not paths:
        return ""
    names = ", ".join(paths)
    claims = claims_of(row)
    is_half = claims.engine == EAGER and not claims.weights  # a quantised row has no such option
    if _LAYERS in row.options or is_half:
        return f"keep {names} in float32 ({_spec(row, paths)})"
    if claims.mixed:
        return f"disable autocast around {names} in the model's code"
    dtype = claims.dtype
    option = "" if dtype == FLOAT16 else f"dtype={dtype},"
    return (
        f"keep {names} in float32 in the model's code (half:{option}{_LAYERS}={'+'.join(paths)} "
        "measures that in eager PyTorch)"
    )


def keeps_layers(row: BackendResult) -> bool:
    """Whether layers of a row can stay in float32: it has 16 bits.

    Args:
        row: of a comparison.
    """
    return claims_of(row).dtype in _HALF


def _spec(row: BackendResult, paths: Sequence[str]) -> str:
    """The spec of a row in which more layers stay in float32."""
    try:
        name, options = split_spec(row.backend.partition("#")[0])
    except SpecError:  # the user's name for the row
        name, options = "", {}
    if name != row.name:
        options = {"dtype": value_text(row.options["dtype"])} if "dtype" in row.options else {}
    kept = [path for path in str(row.options.get(_LAYERS) or "").split("+") if path]
    return spec_text(row.name, {**options, _LAYERS: "+".join([*kept, *paths])})


def for_inaccurate(row: BackendResult, layers: Sequence[str], *, base_is_accurate: bool) -> str:
    """What makes an inaccurate row more accurate.

    Args:
        row: whose output is outside its tolerance.
        layers: in which its error grows most.
        base_is_accurate: whether the same model in float32 is accurate, as far as it is known.
    """
    dtype = claims_of(row).dtype
    where = f" in {layers[0]}" if layers and layers[0] else ""
    if dtype == FLOAT32 or not (base_is_accurate or dtype not in (*_HALF, TF32)):
        return (
            f"float32 itself is inaccurate here: compute the critical part{where} in float64, or "
            "change its formula, such as a difference of large numbers"
        )
    if dtype == TF32:
        return "use float32 without TF32"
    if dtype == INT8:
        return "calibrate with more representative inputs, or use FP16/BF16"
    return in_float32(row, layers) if dtype in _HALF else ""


def for_overflow(row: BackendResult, layer: str, dtype: str, largest: float | None) -> str:
    """What avoids values out of range.

    Args:
        row: in which they are.
        layer: path of the module.
        dtype: of the results.
        largest: magnitude of the module's output in float64; None where it is not known.
    """
    if dtype != FLOAT16:
        return f"scale the values down: they are beyond the range of {dtype}"
    fits = largest is None or largest <= _LARGEST_FLOAT16
    keep = in_float32(row, [layer]) if fits else ""
    return "use bfloat16, which has float32's range" + (f", or {keep}" if keep else "")
