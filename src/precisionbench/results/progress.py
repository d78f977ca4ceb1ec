"""Progress of a run, as passed to `on_progress`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import attrs

from precisionbench.display import Shown
from precisionbench.statistics import Interval


@attrs.frozen(repr=False)
class Progress(Shown):
    """The argument of `on_progress`, which is called between measurements and never within one.

    Attributes:
        backend: the row; empty where it concerns all rows.
        stage: for a row `preparing`, `measuring` (`launcher="inline"`), `finishing` (measuring
            memory and energy), `examining` (profiling), `done`,
            `left_out` (a default row whose calls take too long), or `failed` (at once; a row that
            keeps finished rounds is `done` later); for all rows
            `starting`, `warming_up`, `measuring` (after each round), `interrupted` (called while
            the first Ctrl-C is handled, so return soon), `looking` (a measurement of `examine`
            itself) or `searching` (a step of `tune`).
        position: position of the row in the run, from 1; while all rows are measured, the number
            of finished rounds; while `tune` searches, the number of decided configurations.
        total: number of rows; while all rows are measured, the maximum number of rounds; while
            `tune` searches, the number of configurations.
        message: the reason why a row failed or was left out.
        remaining_s: estimated seconds until the whole comparison ends, from starting to the last
            profile. It is available from the first call on, and is corrected during the run.
            Experiments are not included; in their phase it is the time until they end. None where
            it is not known (a measurement of `examine` itself, or experiments in kept workers
            before their rounds).
        step: current step of the stage, such as `first call`; may be empty.
        phase: the larger task that the rows are measured for, such as `experiments`; empty for a
            comparison.
        speedups: speed-ups over the reference by row, each with its own 95 % interval; empty while
            there are too few rounds. The intervals of the result are wider, because they are
            simultaneous.
        elapsed_s: seconds since the run began.
    """

    backend: str
    stage: str
    position: int
    total: int
    message: str = ""
    remaining_s: float | None = None
    step: str = ""
    phase: str = ""
    speedups: Mapping[str, Interval] = attrs.field(factory=dict)
    elapsed_s: float = 0.0


OnProgress = Callable[[Progress], object]
OnProgressOption = OnProgress | Literal["auto"] | None


def in_phase(on_progress: OnProgress | None, phase: str) -> OnProgress | None:
    """A callback that adds the name of a phase.

    Args:
        on_progress: the callback of the larger task.
        phase: name of the part.
    """
    if on_progress is None:
        return None
    return lambda progress: on_progress(attrs.evolve(progress, phase=phase))
