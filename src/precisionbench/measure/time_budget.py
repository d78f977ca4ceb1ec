"""How the budget is shared between the rounds and what is done with the rows after them.

The budget bounds all that comes after the rows are prepared: warm-up, rounds, passes and profile.
The rounds get what the others are not expected to need, and half of it at least. What then has no
time is left out in the order of `ORDER`, and one note says so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import attrs

from precisionbench.measure.schedule import RowState
from precisionbench.probes.profiler import profiled_calls
from precisionbench.results.passes import PASSES

PROFILE = "profile"
# What is left out first comes first; the passes in the order of `PASSES`.
ORDER = (*PASSES[:3], PROFILE, *PASSES[3:])
_SHOWN_AS = {
    PROFILE: "profiling",
    "graph": "CUDA-graph replay",
    "device": "device time",
    "wall": "wall and enqueue time",
}
# Of each pass of a row on a GPU: seconds at most, seconds besides its calls, and calls at most;
# it makes 3 calls at least (probes/run_all.py). Elsewhere there are no passes.
_PASS_S: Mapping[str, tuple[float, float, int]] = {
    "energy": (0.0, 0.5, 0),
    "transfers": (0.25, 0.1, 50),
    "graph": (0.2, 0.05, 50),
    "device": (0.2, 0.05, 100),  # half of them are spin kernels of that length
    "wall": (0.2, 0.01, 200),
}
_PASS_CALLS = 3
# Of the profile: seconds for each row, and the calls it makes besides those that are profiled.
_PROFILE_S = {"cuda": 0.5}
_PROFILE_ELSEWHERE_S = 0.3
_OTHER_CALLS = 6
LEAST_ROUNDS_SHARE = 0.5
_SLACK = 0.2  # share of the budget by which estimates may be exceeded before anything is left out


def seconds_after_rounds(
    calls_s: Sequence[float],
    device_type: str,
    passes: Collection[str] = PASSES,
    profile: bool = True,
) -> dict[str, float]:
    """About how long each of `ORDER` takes, for these rows together.

    Args:
        calls_s: duration of a call of each row.
        device_type: such as `cuda`.
        passes: those that are wanted.
        profile: whether the rows are to be profiled.
    """
    found: dict[str, float] = {}
    if device_type == "cuda":
        found = {name: sum(_pass_s(name, call_s) for call_s in calls_s) for name in passes}
    if profile:
        found[PROFILE] = sum(_profile_s(call_s, device_type) for call_s in calls_s)
    return {name: found[name] for name in ORDER if name in found}


def _pass_s(name: str, call_s: float) -> float:
    most_s, besides_s, most_calls = _PASS_S[name]
    return max(_PASS_CALLS * call_s, besides_s + min(most_s, most_calls * call_s))


def _profile_s(call_s: float, device_type: str) -> float:
    calls = profiled_calls(call_s) + _OTHER_CALLS
    return _PROFILE_S.get(device_type, _PROFILE_ELSEWHERE_S) + calls * call_s


def without_time(planned: Mapping[str, float], left_s: float) -> tuple[str, ...]:
    """What is to be left out so that the rest fits, in the order of `ORDER`.

    Args:
        planned: seconds of each.
        left_s: seconds that there are.
    """
    names = [name for name in ORDER if name in planned]
    out = 0
    while out < len(names) and sum(planned[name] for name in names[out:]) > left_s:
        out += 1
    return tuple(names[:out])


@attrs.define
class TimeBudget:
    """The budget of one session, from the beginning of its warm-up.

    Attributes:
        budget_s: seconds in all.
        device_type: such as `cuda`.
        passes: those that are wanted.
        profile: whether the rows are to be profiled.
        now: a clock, in seconds.
        share: which part of the user's budget it is.
        begun_s: when it began, on that clock.
        left_out: seconds of what has been left out, by name.
    """

    budget_s: float
    device_type: str
    passes: Collection[str] = PASSES
    profile: bool = True
    now: Callable[[], float] = time.monotonic
    share: float = 1.0
    begun_s: float = attrs.field(init=False)
    left_out: dict[str, float] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.begun_s = self.now()

    @property
    def left_s(self) -> float:
        """Seconds that are left; negative once the budget is used up."""
        return self.begun_s + self.budget_s - self.now()

    @property
    def is_over(self) -> bool:
        """Whether the budget is used up, by more than estimates may be off."""
        return self.left_s + _SLACK * self.budget_s < 0

    def planned(self, row_states: Sequence[RowState]) -> dict[str, float]:
        """Seconds of each thing that is done with rows after their rounds.

        Args:
            row_states: of the rows.
        """
        calls_s = [row_state.mean_call_s for row_state in row_states if row_state.error is None]
        return seconds_after_rounds(calls_s, self.device_type, self.passes, self.profile)

    def rounds_s(self, row_states: Sequence[RowState]) -> float:
        """Seconds for warm-up and rounds.

        Args:
            row_states: of all rows.
        """
        reserved_s = sum(self.planned(row_states).values())
        return max(self.budget_s - reserved_s, LEAST_ROUNDS_SHARE * self.budget_s)

    def leave_out(
        self, to_come: Sequence[RowState], row_states: Sequence[RowState]
    ) -> Collection[str]:
        """What there is no time for; once left out, it is left out of all later rows, too.

        Args:
            to_come: the rows that still have no passes.
            row_states: all rows, which are profiled after that.
        """
        planned = self.planned(to_come)
        if PROFILE in planned:
            planned[PROFILE] = self.planned(row_states)[PROFILE]
        return self._leave_out(planned, self.left_s + _SLACK * self.budget_s)

    def leave_out_of(self, row_states: Sequence[RowState], left_s: float) -> Collection[str]:
        """What of these rows does not fit in a time of their own.

        Args:
            row_states: of the rows.
            left_s: seconds that there are for them.
        """
        return self._leave_out(self.planned(row_states), left_s)

    def _leave_out(self, planned: Mapping[str, float], left_s: float) -> Collection[str]:
        for name in without_time(planned, left_s):
            self.left_out.setdefault(name, planned[name])
        return self.left_out.keys()

    def leave_out_profile(self, calls_s: Sequence[float]) -> None:
        """Leave out the profile of some rows, because the others have used up the time.

        Args:
            calls_s: duration of a call of each of them.
        """
        planned = seconds_after_rounds(calls_s, self.device_type, passes=())
        self.left_out[PROFILE] = planned[PROFILE]

    def note(self) -> str:
        """What has been left out, and a budget that is enough; empty where nothing has."""
        if not self.left_out:
            return ""
        names = [_SHOWN_AS.get(name, name) for name in ORDER if name in self.left_out]
        missing_s = sum(self.left_out.values())
        spent_s = self.now() - self.begun_s
        enough_s = _round_up((max(spent_s, self.budget_s) + missing_s) / self.share)
        return (
            f"the budget of {self.budget_s / self.share:.3g} s left no time for {_listed(names)}; "
            f"a budget of {enough_s} s is enough"
        )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _round_up(seconds: float) -> int:
    """Whole seconds, in steps of five from ten on."""
    return math.ceil(seconds) if seconds <= 10 else 5 * math.ceil(seconds / 5)
