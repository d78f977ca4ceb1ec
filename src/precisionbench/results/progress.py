"""How far a run is: what `on_progress` is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from precisionbench.statistics import Interval


@attrs.frozen
class Progress:
    """What `on_progress` is told, between measurements and never within one.

    Attributes:
        backend: the row; empty where it is about all rows together.
        stage: of a row `preparing`, `measuring` (`launcher="inline"`), `finishing` (memory, energy
            and other passes beside the latency), `examining` (the evidence), `done`, or
            `failed` (at once; a row that keeps finished rounds is `done` later); of all together
            `starting`, `warming_up`, `measuring` (after each round), `interrupted` (told from
            within the handling of the first Ctrl-C, so be brief) or `looking` (what `doctor`
            measures by itself).
        position: the row's place in the run, from 1; while all are measured, rounds finished.
        total: number of rows; while all are measured, the most rounds there can be.
        message: the reason, where it failed.
        remaining_s: about how many seconds of rounds are left, where that can be told.
        step: what is done just now within the stage, such as `first call`; may be empty.
        phase: what the rows are measured for, where that is part of something larger, such as
            `experiments`; empty for a comparison's own.
        speedups: over the reference by row, each with its own 95 % interval, as far as rounds tell
            it; empty before that. The result's are wider, because they hold together.
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


def in_phase(on_progress: OnProgress | None, phase: str) -> OnProgress | None:
    """A callback for part of something larger.

    Args:
        on_progress: the callback of the whole.
        phase: what the part is for.
    """
    if on_progress is None:
        return None
    return lambda progress: on_progress(attrs.evolve(progress, phase=phase))
