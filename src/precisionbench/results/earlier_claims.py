"""Claims of rows in files that were written before results recorded them.

Outside of `backends/` this is the only module that names the built-in backends, as they were then.
`tests/test_recorded_claims.py` holds it together with what the backends say today.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from precisionbench.results.claims import EAGER, TENSORRT, Claims, claims_from_options
from precisionbench.results.comparison_data import BackendResult
from precisionbench.results.dtypes import FLOAT16, FLOAT32, LONG_NAMES, TF32

_PYTORCH = {"framework": "PyTorch eager", "sparsity": "dense"}
# What is true of all rows of a backend.
_CONSTANT: Mapping[str, Mapping[str, Any]] = {
    "eager": {**_PYTORCH, "engine": EAGER, "covered_options": ("precision",)},
    "half": {**_PYTORCH, "engine": EAGER, "covered_options": ("dtype", "fp32_layers")},
    "autocast": {**_PYTORCH, "mixed": True, "covered_options": ("dtype",)},
    "apex-amp": {
        **_PYTORCH,
        "patches_torch": True,
        "packages": ("apex",),
        "covered_options": ("opt_level",),
    },
    "compile": {
        "engine": "torch.compile",
        "framework": "PyTorch compiled",
        "sparsity": "dense",
        "covered_options": ("dtype", "mode", "freezing", "precision"),
    },
    "torch2trt": {
        "engine": TENSORRT,
        "framework": "TensorRT via torch2trt",
        "sparsity": "dense",
        "packages": ("torch2trt", "tensorrt"),
        "covered_options": ("precision", "tf32", "engine_cache", "dla_core"),
    },
}
_APEX_DTYPES = {"O0": FLOAT32, "O1": FLOAT16, "O2": FLOAT16, "O3": FLOAT16}


def claims_of(row: BackendResult) -> Claims:
    """The claims of a row: as recorded, or else what its backend claimed at that time.

    Args:
        row: of a comparison.

    Returns:
        The claims.
    """
    return row.claims or earlier_claims(row.name, row.options)


def earlier_claims(name: str, options: Mapping[str, Any]) -> Claims:
    """The claims of a row that recorded none.

    Args:
        name: of its backend.
        options: of the row, defaults included.

    Returns:
        What the built-in backend of that name claims; of any other, what its options say.
    """
    claims = claims_from_options(options)
    if name not in _CONSTANT:
        return claims
    return attrs.evolve(claims, **_CONSTANT[name], **_precision_of(name, options))


def _precision_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a backend's own options mean where their usual meaning is another."""
    if name == "eager" or (name == "compile" and options.get("dtype") == FLOAT32):
        return {"dtype": TF32 if options.get("precision") == TF32 else FLOAT32}
    if name == "apex-amp":
        level = options.get("opt_level")
        dtype = _APEX_DTYPES.get(str(level), "")
        mixed = level in ("O1", "O2")
        return {"dtype": dtype, "precision": f"mixed {dtype} ({level})" if mixed else ""}
    if name == "torch2trt":
        dtype = LONG_NAMES.get(str(options.get("precision")), "")
        return {"dtype": TF32 if dtype == FLOAT32 and options.get("tf32") else dtype}
    return {}
