"""The clock of a budget: it does not count the time of what has failed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import attrs


@attrs.define
class BudgetClock:
    """A clock that is set back by the time of each step that fails.

    A worker that hangs is waited for until its limit. That may be longer than the budget, and must
    not cost the other rows their rounds.

    Attributes:
        now: the clock behind it, in seconds.
        uncounted_s: seconds that were not counted so far.
    """

    now: Callable[[], float] = time.monotonic
    uncounted_s: float = attrs.field(default=0.0, init=False)

    def __call__(self) -> float:
        """Seconds, without those that are not counted."""
        return self.now() - self.uncounted_s

    @contextlib.contextmanager
    def uncounted_if_it_fails(self) -> Iterator[None]:
        """Do not count the time within where it ends in an exception."""
        begun_s = self()
        try:
            yield
        except BaseException:
            self.uncounted_s += self() - begun_s
            raise


def budget_clock(clock: Callable[[], float]) -> BudgetClock:
    """The clock itself where it is a budget's, else one with this clock behind it.

    Args:
        clock: in seconds.
    """
    return clock if isinstance(clock, BudgetClock) else BudgetClock(clock)
