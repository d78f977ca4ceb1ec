"""What counts as a number in an argument: true and false do not."""

from __future__ import annotations

import numbers
from typing import Any


def whole_number(given: object, lowest: int) -> int | None:
    """A whole number below 2**63, numpy's too, as a plain int; None for anything else.

    Args:
        given: anything; True is not a number here.
        lowest: the smallest that is allowed.
    """
    if not isinstance(given, numbers.Integral) or isinstance(given, bool):
        return None
    return int(given) if lowest <= int(given) < 2**63 else None


def is_number(given: Any, lowest: float, below: float) -> bool:
    """Whether something is a number in a range.

    Args:
        given: anything; True is not a number here.
        lowest: the smallest that is allowed.
        below: all numbers from here on are refused.
    """
    is_plain = isinstance(given, (int, float)) and not isinstance(given, bool)
    return is_plain and lowest <= given < below
