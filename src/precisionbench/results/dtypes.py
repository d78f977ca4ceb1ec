"""Names of dtypes and of the precisions that matrix operations run in; torch is not needed.

A precision has a long name, which for all but TF32 is torch's name of the dtype (`float16`), and a
short one (`fp16`), which data sheets, peak rates and published numbers use.
"""

from __future__ import annotations

from collections.abc import Mapping

FLOAT64 = "float64"
FLOAT32, TF32, FLOAT16, BFLOAT16 = "float32", "tf32", "float16", "bfloat16"
FLOAT8, INT8, INT4 = "float8", "int8", "int4"

SHORT_NAMES: Mapping[str, str] = {
    FLOAT32: "fp32",
    TF32: "tf32",
    FLOAT16: "fp16",
    BFLOAT16: "bf16",
    FLOAT8: "fp8",
    INT8: "int8",
}
LONG_NAMES: Mapping[str, str] = {short: long for long, short in SHORT_NAMES.items()}
# Short names of the precisions that a matmul in PyTorch runs in.
MATMUL_PRECISIONS = tuple(SHORT_NAMES[name] for name in (FLOAT32, TF32, FLOAT16, BFLOAT16))

# Compute capability of Ampere, the first architecture with TF32 and with 2:4 sparsity: NVIDIA A100
# whitepaper (2020).
AMPERE = (8, 0)


def dtype_name(dtype: object) -> str:
    """The name of a torch dtype, e.g. `float16`.

    Args:
        dtype: a `torch.dtype`.
    """
    return str(dtype).removeprefix("torch.")


def compute_capability(text: str) -> tuple[int, ...]:
    """A compute capability as numbers that can be compared.

    Args:
        text: such as `9.0`.
    """
    return tuple(map(int, text.split(".")))
