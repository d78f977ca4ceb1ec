"""How much work something is: lines of Python that run are counted, because times are noisy."""

from __future__ import annotations

import sys
from collections.abc import Callable

TWICE = 2.3  # twice, with something for what is sorted


def lines_run(action: Callable[[], object]) -> int:
    """How many lines of Python an action runs."""
    count = 0

    def trace(_frame, event, _argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count
