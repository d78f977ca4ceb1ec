"""Estimated duration of experiments, by which `auto` chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from precisionbench.backends import Backend
from precisionbench.backends.specs import canonical_spec
from precisionbench.display import Shown
from precisionbench.results import BackendResult, ComparisonData

if TYPE_CHECKING:
    from precisionbench.workflows.experiments import Plan

# Default time budget of `auto` in seconds.
_BUDGET_S = {"cuda": 10.0}
_BUDGET_ELSEWHERE_S = 45.0
# Estimated build time where the comparison has no row that was built in the same way: torch.compile
# of a convolutional network.
_BUILD_S = {"compiled": 20.0}


@attrs.frozen
class _Pace:
    """Rough durations on a kind of device.

    Attributes:
        start_s: seconds to start all new processes, in parallel.
        row_s: seconds to load and prepare one new row in them.
        rounds_s: seconds of warm-up and rounds of one row.
    """

    start_s: float
    row_s: float
    rounds_s: float


_PACE = {"cuda": _Pace(start_s=2.0, row_s=0.5, rounds_s=1.0)}
_PACE_ELSEWHERE = _Pace(start_s=10.0, row_s=4.0, rounds_s=2.0)


@attrs.frozen(repr=False)
class Costs(Shown):
    """Estimates how long experiments take.

    Attributes:
        device_type: such as `cuda`.
        is_kept: whether workers of the unchanged rows still run.
        known_build_s: measured build time of rows by backend, in seconds.
    """

    device_type: str = "cpu"
    is_kept: bool = False
    known_build_s: Mapping[str, float] = attrs.field(factory=dict)

    @classmethod
    def of(cls, data: ComparisonData, is_kept: bool) -> Costs:
        """The costs of experiments on a comparison.

        Args:
            data: the comparison.
            is_kept: whether workers of its rows still run.
        """
        known: dict[str, float] = {}
        for row in data.results:
            known[row.name] = max(known.get(row.name, 0.0), _build_s(row))
        return cls(data.environment.device.partition(":")[0], is_kept, known)

    @property
    def budget_s(self) -> float:
        """Default time budget of `auto` in seconds."""
        return _BUDGET_S.get(self.device_type, _BUDGET_ELSEWHERE_S)

    @property
    def _pace(self) -> _Pace:
        return _PACE.get(self.device_type, _PACE_ELSEWHERE)

    def seconds(self, plans: Sequence[Plan]) -> float:
        """Estimated duration of these experiments together, in seconds.

        Args:
            plans: the experiments.
        """
        if not plans:
            return 0.0
        changed = {canonical_spec(plan.changed): plan for plan in plans}
        unchanged = {canonical_spec(plan.row): plan.row for plan in plans}
        unchanged = {spec: row for spec, row in unchanged.items() if spec not in changed}
        new = len(changed) + (0 if self.is_kept else len(unchanged))
        builds_s = [self._build_s(plan.changed, plan.name) for plan in changed.values()]
        if not self.is_kept:
            builds_s += [self._build_s(row) for row in unchanged.values()]
        pace = self._pace
        rounds_s = pace.rounds_s * (len(changed) + len(unchanged))
        return pace.start_s + pace.row_s * new + sum(builds_s) + rounds_s

    def rounds_s(self, rows: int) -> float:
        """Seconds for warm-up and rounds of a number of rows.

        Args:
            rows: number of rows.
        """
        return self._pace.rounds_s * rows

    def _build_s(self, backend: Backend, experiment: str = "") -> float:
        known = self.known_build_s.get(backend.name)
        return _BUILD_S.get(experiment, 0.0) if known is None else known


def _build_s(row: BackendResult) -> float:
    """Build time and first call of a row, in the slowest of its processes."""
    made = row.measurement.preparations
    return max((one.build_s + one.first_call_s for one in made), default=0.0)
