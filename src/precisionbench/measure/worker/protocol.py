"""What the Runner needs of a prepared backend, wherever it lives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs

from precisionbench.results.evidence import Evidence
from precisionbench.results.records import Json, Passes


@attrs.frozen
class Opening:
    """What a prepared says of itself once it is ready.

    Attributes:
        clock: name of the clock that times it.
        resolution_s: the smallest step of that clock.
        min_sample_s: the shortest sample that it times well.
        build_s: time that `prepare` took.
        first_call_s: time of the first call.
        warmup_calls: calls made after it, until nothing compiled and allocated any more.
        call_s: about how long a call takes.
        flags: torch's settings while it runs.
        details: what the engine chose.
        labels: what keeps CUDA events from timing it.
        cores_busy: CPU seconds of this process for each second of a call; 0 where not told.
        batch_size: items that one call serves; None where it is not known.
    """

    clock: str
    resolution_s: float
    min_sample_s: float
    build_s: float
    first_call_s: float
    warmup_calls: int
    call_s: float
    flags: Mapping[str, Json]
    details: Mapping[str, Json]
    labels: tuple[str, ...] = ()
    cores_busy: float = 0.0
    batch_size: int | None = None


@attrs.frozen
class Closing:
    """What is known of a prepared once it has been closed.

    Attributes:
        warnings: what a reader of the row must know.
        log: what was printed by others.
    """

    warnings: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


class PreparedBackend(Protocol):
    """A prepared backend that is timed block by block.

    Attributes:
        opening: what it said of itself.
    """

    @property
    def opening(self) -> Opening:
        """What it said of itself."""
        ...

    @property
    def output(self) -> Mapping[str, Any]:
        """The tensors of the first call's output by their paths, on the CPU."""
        ...

    def block(self, samples: int, calls_per_sample: int, settle_calls: int) -> tuple[float, ...]:
        """Time one block; see `Timer.block`."""
        ...

    def check_steady(self) -> None:
        """Note it where the output has changed since the first call."""
        ...

    def passes(self, call_s: float, capture: bool) -> Passes:
        """Everything about a call that is not its latency."""
        ...

    def truth(self, path: str) -> None:
        """Write what the model's layers give in float64 to a file."""
        ...

    def evidence(self, call_s: float, truth_path: str | None) -> Evidence:
        """What runs in a call, and how far each layer's output is from float64's."""
        ...

    def closing(self) -> Closing:
        """What is known once it has been closed."""
        ...
