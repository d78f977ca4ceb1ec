"""How long the first calls may take of a row that the user has not asked for."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs

from precisionbench.errors import SlowCallError
from precisionbench.measure.worker.protocol import FIRST_CALL
from precisionbench.report.formatting import time_text

# A row that takes this many times as long as the reference is not useful, and its calls would use
# up the time of all rows.
_MOST_TIMES = 10.0
# A model can compile in its first call, also in the row that it is compared with.
_MOST_TIMES_FIRST = 3.0
# Besides computing, a first call starts threads and loads kernels, which takes up to a second on a
# busy machine.
_LEAST_S = 2.0
# On a GPU it chooses kernels, too: 2.3 s for MobileNetV3 in float32 and channels_last on an idle
# H200, whose further calls take 9 ms.
_LEAST_GPU_S = 10.0
# Shorter calls cost little, and on a busy machine other processes delay them by as much.
_LEAST_WARM_S = 0.25


class SlowFirstCallError(SlowCallError):
    """The first call of a row did not end in time; the row is left out, and no failure."""


@attrs.frozen
class FirstCallLimit:
    """How long the first call of a row may take.

    Attributes:
        reference: name of the row that it is compared with.
        reference_call_s: about how long a call of that row takes.
        reference_first_call_s: how long its first call took.
        together: how many rows are called side by side, which makes the calls of each longer.
        device_type: such as `cuda`.
    """

    reference: str
    reference_call_s: float
    reference_first_call_s: float = 0.0
    together: int = 1
    device_type: str = "cpu"

    @property
    def limit_s(self) -> float:
        """Seconds in which the first call must end."""
        by_call_s = max(_LEAST_S, _MOST_TIMES * self.reference_call_s)
        by_first_s = _MOST_TIMES_FIRST * self.reference_first_call_s
        least_s = 0.0 if self.device_type == "cpu" else _LEAST_GPU_S
        return max(least_s, max(by_call_s, by_first_s) * self.together)

    def error(self) -> SlowFirstCallError:
        """The error of a call that takes longer."""
        return SlowFirstCallError(
            f"a call takes more than {time_text(self.limit_s)} "
            f"({self.reference}: {time_text(self.reference_call_s)})",
            "name the row to measure it anyway",
        )

    def check_step(self) -> Callable[[str], None]:
        """A callback for the steps of preparing in this process, where no call can be ended.

        Returns:
            It raises `SlowFirstCallError` once the first call has ended too late.
        """
        begun_s: list[float] = []

        def on_step(step: str) -> None:
            if begun_s and time.monotonic() - begun_s.pop() > self.limit_s:
                raise self.error()
            if step == FIRST_CALL:
                begun_s.append(time.monotonic())

        return on_step


@attrs.frozen
class WarmCallLimit:
    """How long a call of a row may take that neither compiles nor takes memory from the device.

    Attributes:
        leader: name of the row that it is compared with.
        leader_call_s: about how long a call of that row takes, for as many items.
        together: how many rows are prepared side by side, which makes the calls of each longer.
    """

    leader: str
    leader_call_s: float
    together: int = 1

    def check(self, call_s: float) -> None:
        """Refuse a row whose calls take too long.

        Args:
            call_s: the shortest of its warm calls, in seconds.

        Raises:
            SlowCallError: it is beyond the limit.
        """
        times = _MOST_TIMES * self.together
        if call_s > max(_LEAST_WARM_S, times * self.leader_call_s):
            raise SlowCallError(
                f"a call takes {time_text(call_s)}, more than {times:.0f} times as long as "
                f"one of {self.leader} ({time_text(self.leader_call_s)})"
            )
