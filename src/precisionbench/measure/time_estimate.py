"""Estimated seconds until a comparison ends: a plan of all its parts, corrected by what is seen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

import attrs

from precisionbench.measure.options import Options
from precisionbench.measure.rows import Row
from precisionbench.measure.schedule import MIN_ROUNDS, MIN_ROUNDS_OF_REPLICAS, RowState
from precisionbench.measure.time_budget import PROFILE, TimeBudget, seconds_after_rounds
from precisionbench.results.claims import EAGER, TENSORRT
from precisionbench.results.progress import Progress

# What is expected before anything is seen, in seconds.
_START_S = 3.0
_PREPARE_S = {EAGER: 1.0, TENSORRT: 60.0}  # by engine, for each replica
_PREPARE_ELSEWHERE_S = 20.0  # engines that compile
_CALL_S = 0.02
_WARMUP_S = 0.5  # for each row
_BLOCK_S = 0.08  # shortest block, with what it takes besides its calls
_CALLS_OF_BLOCK = 4
_INLINE_ROW_S = 5.0

_BEFORE, _AFTER = ("starting", "preparing"), ("finishing", "examining")  # the rounds


@attrs.define
class _Part:
    """One thing that takes time: a phase, or a row's share of it.

    Attributes:
        phase: as `Progress.stage` names it; `inline` for all that concerns a row in this process.
        row: whose it is; empty for all rows.
        expected_s: seconds that it is expected to take.
        took_s: seconds that it took; 0 until it is over.
    """

    phase: str
    row: str
    expected_s: float
    took_s: float = 0.0


@attrs.define
class TimeEstimate:
    """The parts of a comparison in their order, and how long those to come should take.

    A part that has not begun should take as long as the last one of the same phase and row, or else
    as long as was expected, times how far the finished parts of its phase were off.

    Attributes:
        pending: the parts that have not begun.
        now: a clock, in seconds.
    """

    pending: list[_Part]
    now: Callable[[], float] = time.monotonic
    _current: _Part | None = attrs.field(default=None, init=False)
    _begun_s: float = attrs.field(default=0.0, init=False)
    _over: list[_Part] = attrs.field(factory=list, init=False)
    _keys: set[tuple[str, ...]] = attrs.field(factory=set, init=False)
    _end_s: float = attrs.field(default=math.inf, init=False)

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        device_type: str,
        options: Options,
        now: Callable[[], float] = time.monotonic,
    ) -> TimeEstimate:
        """The estimate before anything is known of the rows.

        Args:
            rows: to be measured.
            device_type: such as `cuda`.
            options: how to measure.
            now: a clock, in seconds.
        """
        if options.launcher == "inline":
            budget_s = options.total_budget_s(device_type, len(rows))
            row_s = min(budget_s / len(rows), _INLINE_ROW_S)
            return cls([_Part("inline", row.name, row_s) for row in rows], now)
        replicas, least = options.replicas_on(device_type), options.rounds.get("min_rounds")
        parts = [part for _ in range(options.sessions) for part in _session(rows, replicas, least)]
        finish = {
            row.name: seconds_after_rounds(
                [_CALL_S], device_type, options.pass_names, options.evidence
            )
            for row in rows
        }
        after_first = len(parts) // options.sessions
        parts[after_first:after_first] = _after_rounds(finish)
        return cls(parts, now)

    def plan_rounds(self, budget: TimeBudget, row_states: Sequence[RowState]) -> None:
        """Correct the plan once all rows are prepared, when the length of a call is known.

        Args:
            budget: which bounds the rest of the session.
            row_states: of the rows that are ready.
        """
        self._end_s = self.now() + budget.left_s
        finish = {row_state.name: budget.planned([row_state]) for row_state in row_states}
        replicas = [len(row_state.replicas) for row_state in row_states]
        least = MIN_ROUNDS_OF_REPLICAS if min(replicas) > 1 else MIN_ROUNDS
        known = {
            "warming_up": _WARMUP_S * len(row_states),
            "measuring": sum(
                least * count * max(_BLOCK_S, _CALLS_OF_BLOCK * row_state.mean_call_s)
                for count, row_state in zip(replicas, row_states, strict=True)
            ),
        }
        for part in self.pending:
            if part.phase in known:
                part.expected_s = known[part.phase]
            elif part.phase in _AFTER and part.row in finish:
                part.expected_s = _seconds(part.phase, finish[part.row])

    def only_rounds(self, seconds: float) -> None:
        """From now on there are only rounds, in which rows are restarted.

        Args:
            seconds: that they may take.
        """
        self.pending, self._current = [], _Part("restarts", "", seconds)
        self._begun_s, self._end_s = self.now(), math.inf

    def remaining_s(self, progress: Progress) -> float:
        """Estimated seconds until the end.

        Args:
            progress: what is reported now; its own `remaining_s` is that of the rounds.
        """
        self._follow(progress)
        left_s = sum(map(self._expected_s, self.pending))
        if progress.remaining_s is not None:
            left_s += progress.remaining_s
        elif self._current is not None:
            spent_s = self.now() - self._begun_s
            left_s += max(0.0, self._expected_s(self._current) - spent_s)
        if any(part.phase in _BEFORE for part in self.pending):  # of a later session
            return left_s
        return max(0.0, min(left_s, self._end_s - self.now()))

    def _follow(self, progress: Progress) -> None:
        """Find the part that is reported; what comes before its phase is over."""
        row = progress.backend
        if progress.stage in ("done", "failed", "left_out"):
            self.pending = [part for part in self.pending if part.row != row]
            if self._current is not None and self._current.row == row:
                self._finish()
            return
        process = progress.step.partition(",")[0] if progress.step.startswith("process ") else ""
        for phase in (progress.stage, "inline"):
            key = (phase, row, process)
            found = next((p for p in self.pending if (p.phase, p.row) == (phase, row)), None)
            is_new = key not in self._keys or self._is_another_session(phase)
            if found is not None and is_new:
                self._begin(found, key)

    def _is_another_session(self, phase: str) -> bool:
        before = self._current.phase if self._current is not None else phase
        return phase == "starting" != before

    def _begin(self, part: _Part, key: tuple[str, ...]) -> None:
        self._finish()
        if part.phase == "starting":
            self._keys.clear()
        first = next(i for i, other in enumerate(self.pending) if other.phase == part.phase)
        del self.pending[:first]
        self.pending.remove(part)
        self._keys.add(key)
        self._current, self._begun_s = part, self.now()

    def _finish(self) -> None:
        """The current part is over."""
        if self._current is not None:
            self._current.took_s = self.now() - self._begun_s
            self._over.append(self._current)
        self._current = None

    def _expected_s(self, part: _Part) -> float:
        over = [other for other in self._over if other.phase == part.phase]
        own = [other for other in over if other.row == part.row]
        if own:
            return own[-1].took_s
        expected_s = sum(other.expected_s for other in over)
        took_s = sum(other.took_s for other in over)
        return part.expected_s * (took_s / expected_s if expected_s else 1.0)


def _session(rows: Sequence[Row], replicas: int, min_rounds: int | None) -> Iterator[_Part]:
    """The parts of one session up to its last round."""
    yield _Part("starting", "", _START_S)
    for row in rows:
        engine = row.claims.engine if row.claims else ""
        seconds = _PREPARE_S.get(engine, _PREPARE_ELSEWHERE_S)
        yield from (_Part("preparing", row.name, seconds) for _ in range(replicas))
    yield _Part("warming_up", "", _WARMUP_S * len(rows))
    rounds = min_rounds or (MIN_ROUNDS if replicas == 1 else MIN_ROUNDS_OF_REPLICAS)
    yield _Part("measuring", "", rounds * len(rows) * replicas * _BLOCK_S)


def _after_rounds(seconds: dict[str, dict[str, float]]) -> Iterator[_Part]:
    """The parts after the rounds, from the seconds of each thing by row."""
    for phase in _AFTER:
        for row, known in seconds.items():
            if _seconds(phase, known):
                yield _Part(phase, row, _seconds(phase, known))


def _seconds(phase: str, known: dict[str, float]) -> float:
    profile_s = known.get(PROFILE, 0.0)
    return profile_s if phase == "examining" else sum(known.values()) - profile_s
