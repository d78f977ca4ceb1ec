"""The time of one call of a function, as `time` gives it."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING

from precisionbench.comparison import ComparisonFiles
from precisionbench.display import Records, Result, dataframe
from precisionbench.errors import SpecError
from precisionbench.report import call_time as report
from precisionbench.results import BackendResult, Block, ComparisonData
from precisionbench.statistics import Interval

if TYPE_CHECKING:
    import pandas as pd


class CallTime(ComparisonFiles, Result):
    """The time of one call of a function: its interval, percentiles and raw samples.

    `save` writes a result file, which `load` reads as a comparison of one row:
    `CallTime(pb.load(path).data)`.

    Args:
        data: a comparison of one row.

    Raises:
        SpecError: it has not exactly one row.
    """

    def __init__(self, data: ComparisonData) -> None:
        if len(data.results) != 1:
            raise SpecError(
                f"a call time is of one row, and this comparison has {len(data.results)}",
                "read it with pb.load",
            )
        self.data = data

    def _measured_data(self) -> ComparisonData:
        return self.data

    @property
    def row(self) -> BackendResult:
        """The measured row."""
        return self.data.results[0]

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.row.backend

    @property
    def latency(self) -> Interval:
        """Seconds of one call, with the 95 % confidence interval; `covers` says what it includes.

        The value is the median; of several processes, the mean of their medians (log scale).
        """
        return self.row.latency

    @property
    def covers(self) -> str:
        """What the interval includes, in words."""
        return report.covers(self.data)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The raw blocks, in the order taken."""
        return Records(self.row.measurement.blocks)

    @property
    def samples(self) -> tuple[float, ...]:
        """All samples, in seconds per call, in the order taken."""
        return tuple(sample for block in self.blocks for sample in block.samples)

    @property
    def calls_per_sample(self) -> int:
        """How many calls a sample spans: more than one where a call is short for the clock."""
        return self.row.measurement.calls_per_sample

    @property
    def p50(self) -> float:
        """The median of the samples, in seconds."""
        return median(self.samples)

    @property
    def p90(self) -> float | None:
        """The 90th percentile of the samples, in seconds; None with fewer than 29 samples."""
        return report.percentile(self.row.measurement, 0.9)

    @property
    def p99(self) -> float | None:
        """The 99th percentile of the samples, in seconds; None with fewer than 299 samples."""
        return report.percentile(self.row.measurement, 0.99)

    @property
    def clock(self) -> str:
        """`cuda_events`, or `host`."""
        return self.row.measurement.clock

    @property
    def first_call_s(self) -> float:
        """Seconds of the first call, which may import, compile or load something."""
        return self.row.measurement.first_call_s

    @property
    def warnings(self) -> tuple[str, ...]:
        """What qualifies the time, a sentence each, such as that the machine was busy."""
        return report.warnings_of(self.data)

    def to_dataframe(self) -> pd.DataFrame:
        """The samples as a pandas data frame.

        Returns:
            One line for each sample, with the columns `round`, `process` and `call_s`.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        return dataframe(
            {"round": block.round, "process": block.replica, "call_s": sample}
            for block in self.blocks
            for sample in block.samples
        )

    def __str__(self) -> str:
        return report.to_text(self.data)

    def _summary(self) -> Iterator[str]:
        return report.summary(self.data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CallTime) and self.data == other.data

    __hash__ = None  # type: ignore[assignment]
