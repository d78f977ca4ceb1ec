"""The result of a search: what it chose, what became of the rest, and what qualifies it."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from precisionbench.measure.rows import plan
from precisionbench.results.tuning import (
    BEST,
    INACCURATE,
    UNCLEAR,
    Target,
    Trial,
    TuningData,
)
from precisionbench.workflows.tuning.journal import Journal
from precisionbench.workflows.tuning.search import Search
from precisionbench.workflows.tuning.space import Space
from precisionbench.workflows.tuning.worker_bench import WorkerBench


def outcome_of(
    search: Search,
    bench: WorkerBench,
    found: Space,
    memory: Journal,
    target: Target,
    elapsed_s: float,
) -> TuningData:
    """The result of a search.

    Args:
        search: that has ended.
        bench: what it ran on.
        found: what it could try.
        memory: its journal.
        target: what it was tuned for.
        elapsed_s: seconds that all took.
    """
    assert search.data is not None  # else it has raised
    best, choice = search.choice
    trials = [_marked(trial, best) for trial in search.trials.values()]
    return TuningData(
        best=best,
        choice=choice,
        reference=search.reference,
        bound=bench.judge.bound,
        trials=tuple(trials),
        left_out=(*found.left_out, *search.left_out),
        target=_used(target, best),
        final=search.data,
        budget_s=search.budget_s,
        elapsed_s=elapsed_s,
        ended_by=search.ended_by,
        notes=_notes(search, bench, memory),
        calibration=bench.calibration.record if bench.calibration else None,
    )


def _marked(trial: Trial, best: str) -> Trial:
    return attrs.evolve(trial, outcome=BEST, reason="") if trial.spec == best else trial


def _used(target: Target, best: str) -> Target:
    """The target with the versions of torch's parts, and of packages that the best row uses."""
    claims = plan([best], best)[0][0].claims
    names = {"torch", "cuda", "cudnn", *(claims.packages if claims else ())}
    versions = {name: text for name, text in target.versions.items() if name in names}
    return attrs.evolve(target, versions=versions)


def _notes(search: Search, bench: WorkerBench, memory: Journal) -> tuple[str, ...]:
    count = memory.damaged
    lines = f"{count} line{'s' * (count > 1)} of {memory.path} cannot be read"
    return (
        *dict.fromkeys([*bench.judge.notes, *bench.notes, *search.notes, *_on_metric(search)]),
        *_on_reference(search),
        *memory.notes,
        *([lines] if count else []),
    )


def _on_reference(search: Search) -> Iterator[str]:
    """A note where the reference itself is not accurate enough."""
    trial = search.trials[search.reference]
    if trial.outcome != INACCURATE:
        return
    unclear = trial.accuracy is not None and trial.accuracy.verdict == UNCLEAR
    if unclear:
        yield f"the reference {trial.spec} is not clearly within the bound; give a larger bound"
        return
    yield (
        f"the reference {trial.spec} is not within the bound itself; if its outputs differ "
        "from call to call, as with dropout, call model.eval(), and else give a larger bound"
    )


def _on_metric(search: Search) -> Iterator[str]:
    """A note where the metric raised for outputs of some configurations."""
    failed = [trial.spec for trial in search.trials.values() if trial.failed_in_metric]
    if failed:
        yield (
            f"the metric failed for the outputs of {', '.join(failed)}, and not for those of the "
            "reference; see the reasons: the outputs can be wrong, as NaN, or the metric"
        )
