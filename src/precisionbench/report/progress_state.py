"""What displays of progress show: the step in words, and the time, with a smoothed estimate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import attrs

from precisionbench._internal.interval_text import span
from precisionbench.report.formatting import significant, supported_digits
from precisionbench.results.progress import Progress
from precisionbench.statistics import Interval

# Stages in which nothing is timed, so that a thread may update the elapsed time.
UNTIMED_STAGES = ("starting", "preparing", "examining")
# Weight of a new estimate of the end against earlier ones of the same stage.
_NEW_WEIGHT = 0.3
# A bar waits where it is instead of moving back by up to this share of its length. It moves back by
# more: an estimate that was so wrong must not leave a full bar for minutes.
_MAX_STEP_BACK = 0.3
_EXCEEDED_BY_S = 1.0  # from here on a run takes longer than estimated
_ENDINGS = {"done": "done", "failed": "failed", "left_out": "left out"}
_STAGES = {"finishing": "measuring memory and energy", "examining": "profiling"}


@attrs.frozen
class DisplayState:
    """The state of a display of a run; times are of the display's clock, in seconds.

    Attributes:
        began_s: when the run began, or the display before its first run.
        step_s: when the current step began.
        ends_s: estimated end of the run; None where it is unknown.
        share: share of the bar that is full, from 0 to 1.
        latest: the current step; None before the first.
        speedups: the latest ones, by row.
    """

    began_s: float
    step_s: float
    ends_s: float | None = None
    share: float = 0.0
    latest: Progress | None = None
    speedups: Mapping[str, Interval] = attrs.field(factory=dict)

    def after(self, progress: Progress, now_s: float) -> DisplayState:
        """The state after a step.

        Args:
            progress: as `on_progress` receives it.
            now_s: the present time.
        """
        if self._is_another_run(progress):
            begin = DisplayState(now_s - progress.elapsed_s, now_s)
            return begin.after(progress, now_s)
        ends_s = self._new_end_s(progress, now_s)
        return DisplayState(
            began_s=self.began_s,
            step_s=now_s,
            ends_s=ends_s,
            share=self._new_share(ends_s, now_s),
            latest=progress,
            speedups=progress.speedups or self.speedups,
        )

    def _is_another_run(self, progress: Progress) -> bool:
        before = self.latest
        return before is not None and (
            progress.phase != before.phase or progress.elapsed_s < before.elapsed_s
        )

    def _new_end_s(self, progress: Progress, now_s: float) -> float | None:
        """The new estimate, smoothed within a stage; the old one where nothing new is known."""
        if not progress.remaining_s:
            return self.ends_s
        new_s = now_s + progress.remaining_s
        is_same_stage = self.latest is not None and self.latest.stage == progress.stage
        if self.ends_s is None or not is_same_stage:
            return new_s
        return self.ends_s + _NEW_WEIGHT * (new_s - self.ends_s)

    def _new_share(self, ends_s: float | None, now_s: float) -> float:
        if ends_s is None:
            return self.share
        passed_s, left_s = now_s - self.began_s, max(0.0, ends_s - now_s)
        share = passed_s / (passed_s + left_s) if passed_s > 0 else 0.0
        return self.share if 0 < self.share - share <= _MAX_STEP_BACK else share

    def share_at(self, now_s: float) -> float:
        """Share of the bar that is full, from 0 to 1.

        Args:
            now_s: the present time.
        """
        return self._new_share(self.ends_s, now_s)


def stage_text(progress: Progress | None) -> str:
    """The current step in one line.

    Args:
        progress: as `on_progress` receives it; None before the first step.
    """
    if progress is None:
        return "starting"
    phase = f"{progress.phase}: " if progress.phase else ""
    return f"{phase}{_row_text(progress) if progress.backend else _run_text(progress)}"


def _row_text(progress: Progress) -> str:
    where = f"[{progress.position}/{progress.total}] {progress.backend}"
    if ending := _ENDINGS.get(progress.stage):
        return f"{where} {ending}{f': {progress.message}' if progress.message else ''}"
    step = f", {progress.step}" if progress.step else ""
    return f"{where}: {_STAGES.get(progress.stage, progress.stage)}{step}"


def _run_text(progress: Progress) -> str:
    if progress.stage == "starting":
        return f"starting {progress.total} worker process{'es' if progress.total != 1 else ''}"
    if progress.stage == "looking":
        return f"measuring {progress.step}"
    if progress.stage == "searching":
        return f"[{progress.position}/{progress.total}] {progress.step}"
    if progress.stage == "warming_up":
        return "warming up"
    if progress.stage == "interrupted":
        return "stopping; finished rounds are kept (Ctrl-C again: stop now)"
    return f"measuring, round {progress.position}"


def times_text(state: DisplayState, now_s: float) -> str:
    """Elapsed and remaining time of a run.

    Args:
        state: of the display.
        now_s: the present time.
    """
    elapsed = f"{clock_text(now_s - state.began_s)} elapsed"
    if state.ends_s is None:
        return elapsed
    left_s = state.ends_s - now_s
    if left_s <= -_EXCEEDED_BY_S:
        return f"{elapsed}, longer than estimated"
    return f"{elapsed}, about {clock_text(max(1.0, left_s))} left"


def clock_text(seconds: float) -> str:
    """A duration as `0:42` or `1:02:03`.

    Args:
        seconds: the duration.
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def speedups_text(speedups: Mapping[str, Interval]) -> str:
    """Speed-ups with their intervals in one line.

    Args:
        speedups: over the reference, by row.
    """
    return ", ".join(f"{name} {value} ({ends})" for name, value, ends in ratio_texts(speedups))


def ratio_texts(speedups: Mapping[str, Interval]) -> Iterator[tuple[str, str, str]]:
    """Speed-ups in words.

    Args:
        speedups: over the reference, by row.

    Returns:
        Name, value and interval of each.
    """
    for name, found in speedups.items():
        digits = min(3, supported_digits(found))
        text = partial(significant, digits=digits)
        yield name, f"{text(found.value)}x", span(found, text)
