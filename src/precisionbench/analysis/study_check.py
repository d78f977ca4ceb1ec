"""Whether a study became slower than an older one by more than a limit: the decision of a CI job.

A row fails if the whole interval of its change is beyond the limit. The intervals are simultaneous
over all rows and cells, so the rate of false alarms is that of the whole check.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

import attrs

from precisionbench.analysis.reasons import NO_VERDICTS
from precisionbench.analysis.study_diff import StudyDifference
from precisionbench.display import Shown
from precisionbench.results import Speedup
from precisionbench.results.study import Cell
from precisionbench.statistics.verdicts import ALPHA

LATENCY, SPEEDUP = "latency", "speed-up over the reference"
MEASURES = (LATENCY, SPEEDUP)


@attrs.frozen(repr=False)
class CheckedRow(Shown):
    """The change of one figure of a row.

    Attributes:
        cell: of the newer study.
        backend: the row.
        of: `latency` or `speed-up over the reference`.
        ratio: of the older and the newer figure; above 1 is faster now.
    """

    cell: Cell
    backend: str
    of: str
    ratio: Speedup


@attrs.frozen(repr=False)
class StudyCheck(Shown):
    """The result of a check.

    Attributes:
        limit: the slow-down that is allowed, as a share.
        count: number of figures that were compared.
        slower: figures that are slower by more than the limit.
        undecided: figures that may be; their intervals include the limit, or are not valid.
        failing: cells and rows that were measured before and fail now.
        false_alarm_rate: highest probability that a check fails although no figure is slower by
            more than the limit.
        found_from: slow-down from which on half of the checks fail, for the median row; None where
            nothing could be decided.
    """

    limit: float
    count: int
    slower: tuple[CheckedRow, ...]
    undecided: tuple[CheckedRow, ...]
    failing: tuple[str, ...]
    false_alarm_rate: float
    found_from: float | None

    @property
    def passes(self) -> bool:
        """Whether something was compared, nothing fails, and nothing is slower than allowed."""
        return bool(self.count) and not self.slower and not self.failing


def check_study(
    found: StudyDifference, limit: float, measures: tuple[str, ...] = MEASURES
) -> StudyCheck:
    """Decide whether a study became slower than an older one.

    Args:
        found: the difference of the two.
        limit: the slow-down that is allowed, as a share, such as 0.03.
        measures: figures that count; in a speed-up over the reference, drift of the machine
            cancels.
    """
    rows = [one for one in _rows(found) if one.of in measures]
    valid = [one for one in rows if one.ratio.reason not in NO_VERDICTS]
    slower = tuple(one for one in valid if one.ratio.high < 1 / (1 + limit))
    undecided = tuple(
        one
        for one in rows
        if one not in slower and (one not in valid or one.ratio.low < 1 / (1 + limit))
    )
    widths = [math.log(one.ratio.high / one.ratio.value) for one in valid]
    found_from = (1 + limit) * math.exp(median(widths)) - 1 if widths else None
    kinds = len({one.of for one in rows})
    return StudyCheck(
        limit, len(rows), slower, undecided, found.failing, kinds * ALPHA / 2, found_from
    )


def _rows(found: StudyDifference) -> Iterator[CheckedRow]:
    for cell, row in found.rows:
        yield CheckedRow(cell, row.backend, LATENCY, row.speedup)
        if row.relative is not None:
            yield CheckedRow(cell, row.backend, SPEEDUP, row.relative)
