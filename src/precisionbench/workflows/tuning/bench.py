"""What a search asks of the machine: prepare configurations, judge their outputs, time them."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from precisionbench.errors import PrecisionBenchError
from precisionbench.measure.options import Options
from precisionbench.measure.worker.first_call_limit import WarmCallLimit
from precisionbench.results import ComparisonData
from precisionbench.results.tuning import Accuracy

Judged = Generator[Accuracy | PrecisionBenchError, None, None]


class Bench(Protocol):
    """What a search needs; a test hands in its own.

    Attributes:
        slots: how many configurations are built side by side.
        ahead: how many of them can be built while others are measured; 0 for none.
        judges: how many configurations are judged at the same time.
        limit: the largest error, or drop of the metric, of an accurate configuration.
        start_s: seconds that starting a process took the last time, besides building it.
    """

    @property
    def slots(self) -> int:
        """How many configurations are built side by side."""
        ...

    @property
    def ahead(self) -> int:
        """How many configurations can be built while others are measured; 0 for none."""
        ...

    @property
    def judges(self) -> int:
        """How many configurations are judged at the same time."""
        ...

    @property
    def limit(self) -> float:
        """The largest error, or drop of the metric, of an accurate configuration."""
        ...

    @property
    def start_s(self) -> float:
        """Seconds that starting a process took the last time, besides building it."""
        ...

    def build_ahead(self, specs: Sequence[str], limits: Mapping[str, WarmCallLimit]) -> None:
        """Begin to prepare a process of each configuration; `open` takes it."""
        ...

    def is_built(self, spec: str) -> bool:
        """Whether a configuration that is built ahead is ready, or has failed."""
        ...

    def wait_built(self, end_s: float) -> None:
        """Wait until one of those that are built ahead is ready, or until a time."""
        ...

    def open(
        self,
        specs: Sequence[str],
        end_s: float,
        limits: Mapping[str, WarmCallLimit] = MappingProxyType({}),
    ) -> Mapping[str, PrecisionBenchError]:
        """Prepare one more process of each configuration; gives the errors of those that failed."""
        ...

    def processes(self, spec: str) -> int:
        """How many processes of a configuration are open."""
        ...

    def build_s(self, spec: str) -> float:
        """Seconds that preparing an open configuration took."""
        ...

    def call_s(self, spec: str) -> float:
        """About how many seconds a call of an open configuration takes, by its first calls."""
        ...

    def item_s(self, spec: str) -> float:
        """About how many seconds an item takes in an open configuration, by its first calls."""
        ...

    def accuracy(self, spec: str) -> Accuracy:
        """How accurate an open configuration is."""
        ...

    def accuracies(self, specs: Sequence[str]) -> Judged:
        """How accurate each of some open configurations is, in their order; or why it failed.

        What is still judged when it is closed is ended.
        """
        ...

    def worst_layers(self, spec: str, limit_s: float) -> Sequence[str] | None:
        """Paths of the layers of an open configuration that add most error, the worst first.

        None where this takes longer than `limit_s`; the configuration is then ended.
        """
        ...

    def recheck(self, spec: str) -> Accuracy | PrecisionBenchError | None:
        """What an open configuration computes now, where it is not accurate in each process."""
        ...

    def has_room_for_more(self, specs: Sequence[str]) -> bool:
        """Whether the device easily holds one more process of each, and few enough are there."""
        ...

    def measure(self, specs: Sequence[str], options: Options) -> ComparisonData:
        """Measure open configurations in common rounds; the first is the reference."""
        ...

    def close(self, specs: Sequence[str]) -> None:
        """End the processes of configurations that are not needed any more."""
        ...
