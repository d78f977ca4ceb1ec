"""Classification of GPU kernels by their names, with the rules in `data/kernels.toml`."""

from __future__ import annotations

import re
from functools import cache

import attrs

from precisionbench._internal.data_files import read_toml

UNKNOWN = "unknown"
TENSOR_CORE = "tensor_core"
CUDA_CORE = "cuda_core"


@attrs.frozen
class KernelClass:
    """The class of a kernel by its name.

    Attributes:
        kind: `product`, `convolution`, `attention`, `recurrent`, `layout`, `norm`, `copy`, `pool`,
            `reduction`, `pointwise` or `unknown`.
        unit: `tensor_core`, `cuda_core` or `unknown`; for matrix kernels only.
        dtype: dtype of its operands: `float32`, `tf32`, `float16`, `bfloat16`, `int8`, `float8` or
            `unknown`.
    """

    kind: str
    unit: str
    dtype: str


MATRIX_KINDS = ("product", "convolution", "attention", "recurrent")


@attrs.frozen
class _Rule:
    pattern: re.Pattern[str]
    unless: re.Pattern[str] | None
    answer: str

    def matches(self, name: str) -> bool:
        return bool(self.pattern.search(name)) and not (self.unless and self.unless.search(name))


@cache
def _rules() -> dict[str, tuple[_Rule, ...]]:
    return {
        question: tuple(
            _Rule(
                re.compile(rule["pattern"]),
                re.compile(rule["not"]) if "not" in rule else None,
                rule["is"],
            )
            for rule in rules
        )
        for question, rules in read_toml("kernels.toml").items()
    }


@cache
def classify(name: str) -> KernelClass:
    """Classify a kernel by its name.

    Args:
        name: the kernel's name in a profile.
    """
    kind, unit, dtype = (_answer(question, name) for question in ("kind", "unit", "dtype"))
    return KernelClass(kind, unit if kind in MATRIX_KINDS else UNKNOWN, dtype)


def _answer(question: str, name: str) -> str:
    return next((r.answer for r in _rules()[question] if r.matches(name)), UNKNOWN)
