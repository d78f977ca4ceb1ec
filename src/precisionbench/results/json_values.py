"""JSON values: any value as one, and JSON text as values of bounded size."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from enum import Enum
from typing import Any

Json = Any  # what json.loads returns: dict, list, str, int, float, bool, None

# Bounds of JSON text from a file. Eight rows of a model of a thousand layers are a million keys and
# values, and what is written here is a dozen levels deep, but for a backend's own details.
_MOST_VALUES = 10_000_000
_MOST_LEVELS = 100
_KEY = re.compile(r'"\s*:')
_MOST_DIGITS = 308  # every whole number fits into a float then
_MOST_SHOWN = 60  # characters of a value in an error


def as_json(value: object) -> Json:
    """Convert a value to JSON types; keys and values that JSON does not have become text.

    Args:
        value: any value. JSON has no infinity and no NaN, so these become text, too, and so do
            whole numbers that no float can hold.
    """
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return as_json(value.value)
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) >= 10**_MOST_DIGITS:
        return hex(value)  # str() refuses numbers of thousands of digits
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def parse_json(text: str) -> Json:
    """The value of JSON text from a file that anybody may have written.

    Its numbers are finite, its keys are unique, and neither its depth nor the number of its values
    is out of proportion.

    Args:
        text: the JSON text.

    Raises:
        ValueError: it is not such JSON; with the reason.
    """
    check_count(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except RecursionError:
        raise ValueError(f"it is nested more than {_MOST_LEVELS} levels deep") from None
    except MemoryError:
        raise ValueError("there is too little memory for what it holds") from None
    check_depth(value)
    return value


def check_count(text: str) -> None:
    """Refuse JSON text whose values would take far more memory than the text does.

    Args:
        text: the JSON text, or lines of it.

    Raises:
        ValueError: it has too many values and keys, or lines.
    """
    values, keys = sum(map(text.count, ",[{")), text.count(":")
    if values + keys > _MOST_VALUES:  # names of kernels have colons, too
        keys = sum(1 for _ in _KEY.finditer(text))
    if max(values + keys, text.count("\n") // 2) > _MOST_VALUES:
        raise ValueError(f"it holds more than {_MOST_VALUES:,} values and keys")


def check_depth(value: Json) -> None:
    """Refuse a value that is nested too deep for functions that call themselves.

    Args:
        value: JSON, or a document of TOML.

    Raises:
        ValueError: it is.
    """
    level = [[value]]
    for _ in range(_MOST_LEVELS):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise ValueError(f"it is nested more than {_MOST_LEVELS} levels deep")


def _children(node: Json) -> list[Json]:
    inside = node.values() if isinstance(node, dict) else node
    return [child for child in inside if isinstance(child, (dict, list))]


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {described(twice)} stands twice in one object")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {described(text)} is too large")
    return number


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"the number {described(text)} is too large")
    return int(text)


def described(value: Json) -> str:
    """A value from a file for use within a sentence.

    Args:
        value: JSON.
    """
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 10**_MOST_DIGITS:
        return f"a number of more than {_MOST_DIGITS} digits"
    text = repr(value[:_MOST_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
