"""The ranges of the numbers in a result file, by the names of their fields.

They are as wide as anything that can be measured, and narrow enough to compute with and to print.
"""

from __future__ import annotations

import sys

import attrs


@attrs.frozen
class Limit:
    """The range of a number.

    Attributes:
        low: the smallest value.
        high: the largest value.
        least: the smallest magnitude besides 0.
    """

    low: float
    high: float
    least: float = 1e-30

    def includes(self, value: float) -> bool:
        """Whether a number is in the range."""
        return self.low <= value <= self.high and (not value or abs(value) >= self.least)

    def __str__(self) -> str:
        return f"from {self.low:g} to {self.high:g}"


# Of a float that is not named below, such as an error of an output, and of a whole number.
ANY = Limit(-sys.float_info.max, sys.float_info.max, least=0.0)
_COUNT = Limit(0, 1e18)
_INDEX = Limit(0, 1e9)
_LIMITS = {
    "seed": Limit(0, 2**63 - 1),
    "calls_per_sample": Limit(1, 1e9),
    "noise_floor": Limit(0, 1),  # of a log: a factor of e between processes
    "input_zero_share": Limit(0, 1),
    "compiled_share": Limit(0, 1),
    "top1": Limit(0, 1),
    "flops": Limit(0, 1e30),
    "shape": Limit(0, 1e12),
    "busy_s": Limit(-1e12, 1e12),  # a difference of counters, some of which can go back
    "own_s": Limit(-1e12, 1e12),
    "temperature_c": Limit(-300, 1e4),
    **dict.fromkeys(("round", "position", "replica", "session"), _INDEX),
    **dict.fromkeys(("first_round", "last_round"), _INDEX),
    **dict.fromkeys(("count", "calls", "launches", "graph_launches", "host_waits"), _COUNT),
    **dict.fromkeys(("parameters", "memory_bytes"), _COUNT),
    **dict.fromkeys(("device_allocations", "nonfinite_count", "warmup_calls"), _COUNT),
    **dict.fromkeys(("cpu_cores", "cores", "threads", "shared_cores", "dlas"), Limit(0, 1e6)),
    "multiprocessors": Limit(0, 1e6),
}
# Of fields whose names end in a unit.
_UNITS = {
    "_s": Limit(0, 1e12),
    "_bytes": Limit(0, 2**63),
    "_hz": Limit(0, 1e15),
    "_w": Limit(0, 1e9),
    "_j": Limit(0, 1e15),
}


def limit_of(field: str) -> Limit:
    """The range of a field's numbers.

    Args:
        field: its name.
    """
    unit = f"_{field.rpartition('_')[2]}"
    return _LIMITS.get(field) or _UNITS.get(unit, ANY)
