"""Conversion of any value to what JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

Json = Any  # what json.loads returns: dict, list, str, int, float, bool, None


def as_json(value: object) -> Json:
    """Convert a value to JSON types; keys and values that JSON does not have become text.

    Args:
        value: any value. JSON has no infinity and no NaN, so these become text, too.
    """
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return as_json(value.value)
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float, type(None))) else str(value)
