"""A cache for functions of one large object that cannot be hashed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")


def cached_by_identity(function: Callable[[A], R]) -> Callable[[A], R]:
    """Compute a function once per object and drop the value together with the object.

    `functools.cache` hashes its argument and keeps it alive; a comparison holds dictionaries, so it
    has no hash, and its samples can take megabytes.

    Args:
        function: pure function of one immutable object that supports weak references.
    """
    values: dict[int, R] = {}

    @wraps(function)
    def cached(argument: A) -> R:
        key = id(argument)
        if key not in values:
            values[key] = function(argument)
            weakref.finalize(argument, values.pop, key, None).atexit = False
        return values[key]

    return cached
