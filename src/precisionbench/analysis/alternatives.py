"""Rows that could be measured in place of one that failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from precisionbench.errors import some
from precisionbench.results.claims import Claims
from precisionbench.results.comparison_data import WRONG_DTYPE, BackendFailure, BackendResult
from precisionbench.results.dtypes import BFLOAT16, FLOAT16
from precisionbench.results.earlier_claims import claims_of


def with_alternatives(
    failures: Iterable[BackendFailure], results: Sequence[BackendResult]
) -> tuple[BackendFailure, ...]:
    """The failures; the remedy of those with a wrong dtype also names the rows that ran in 16 bits.

    Args:
        failures: of a comparison.
        results: its rows.
    """
    ran = [row.backend for row in results if _is_half(claims_of(row))]
    added = f"; with FP16/BF16 {some(ran)} ran" if ran else ""
    return tuple(
        attrs.evolve(failure, remedy=failure.remedy + added)
        if failure.remedy.startswith(WRONG_DTYPE)
        else failure
        for failure in failures
    )


def _is_half(claims: Claims) -> bool:
    return any(dtype in (claims.dtype, *claims.precision.split()) for dtype in (FLOAT16, BFLOAT16))
