"""The texts of a tuning result in every report: words and rounding in one place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from precisionbench.analysis.reasons import NO_VERDICTS, reason_text
from precisionbench.analysis.speedups import speedups
from precisionbench.analysis.tuning import FrontPoint, front, loss_of, per_item, ratio_text
from precisionbench.report import formatting, rows
from precisionbench.results.tuning import (
    FAILED,
    FINALIST,
    INACCURATE,
    NOT_FINISHED,
    SLOWER,
    Trial,
    TuningData,
)
from precisionbench.statistics import Interval

# Several items with one sentence: the names, and the sentence.
Items = Sequence[tuple[Sequence[str], str]]

_HEADINGS = {
    SLOWER: "Slower",
    INACCURATE: "Inaccurate",
    FAILED: "Failed",
    NOT_FINISHED: "Not finished",
}
_ENDS = {
    "budget": "the budget ended the search, and a larger one tries the rest",
    "interrupted": "the search was interrupted",
}
_FRONT = (
    "A configuration is on the front if no other one is at least as good in speed, {loss}, memory "
    "and energy, and better in one of them."
)
COLUMNS = (
    "spec",
    "outcome",
    "reason",
    "measured_in",
    *("speedup", "speedup_low", "speedup_high"),
    *("loss", "loss_low", "loss_high"),
    "metric",
    *("latency_s", "throughput_per_s", "peak_memory_bytes", "energy_j"),
    "is_on_front",
    "build_s",
    "from_journal",
)


@attrs.frozen
class FrontText:
    """A configuration of the final rounds as text; what is not known is empty.

    Attributes:
        point: its figures.
        row: its latency, throughput and speed-up.
        interval: of the speed-up.
        doubt: its verdict, where it is neither faster nor slower.
        loss: its error, or the drop of its metric.
        memory: peak, with unit.
        energy: for an item, with unit.
        status: `best`, `front`, or empty.
    """

    point: FrontPoint
    row: rows.RowText
    interval: str
    doubt: str
    loss: str
    memory: str
    energy: str
    status: str


def front_texts(data: TuningData) -> tuple[FrontText, ...]:
    """The configurations of the final rounds, the fastest first.

    Args:
        data: the result.
    """
    found = {row.backend: row for row in data.final.results}
    speeds = speedups(data.final)
    return tuple(
        FrontText(
            point=point,
            row=rows.row_text(data.final, found[point.spec], speeds.get(point.spec)),
            interval=rows.interval_text(data.final, found[point.spec], speeds.get(point.spec)),
            doubt=rows.reservation(data.final, found[point.spec], speeds.get(point.spec)),
            loss="" if point.loss is None else _loss(data, point.loss.value),
            memory=rows.memory_text(found[point.spec]),
            energy=rows.energy_text(found[point.spec]),
            status="best" if point.spec == data.best else "front" * point.is_on_front,
        )
        for point in front(data)
    )


def headline(data: TuningData) -> str:
    """The best configuration with its speed-up and its accuracy, in one sentence."""
    loss = loss_of(data, data.best)
    accuracy = "" if loss is None else f"; {loss_text(data, loss)}, {bound_text(data)}"
    speedup = _speedup_of_best(data)
    if data.best == data.reference or speedup is None:
        what = ", the reference" if data.best == data.reference else ""
        return f"The result is {data.best}{what}{accuracy}."
    as_fast = f"as fast{per_item(data.final, data.best, data.reference)} as {data.reference}"
    return f"{data.best} is {ratio_text(speedup)} {as_fast}{accuracy}."


def _speedup_of_best(data: TuningData) -> Interval | None:
    """The speed-up in the final rounds; else in the screening."""
    found = speedups(data.final).get(data.best)
    if found is not None:
        return found.interval
    return next(trial.speedup for trial in data.trials if trial.spec == data.best)


def choice(data: TuningData) -> str:
    """Why the best configuration was chosen, as a sentence."""
    return f"{data.choice.rstrip('.')}."


def bound_text(data: TuningData) -> str:
    """The largest error or drop that is accepted, such as `at most 1.0e-02`."""
    return f"at most {_loss(data, data.bound.limit)}"


def loss_text(data: TuningData, loss: Interval) -> str:
    """An error or a drop with its interval and its name.

    Args:
        data: the result.
        loss: of one of its configurations.
    """
    return f"{loss_name(data)} {interval_of_loss(data, loss)}"


def interval_of_loss(data: TuningData, loss: Interval) -> str:
    """An error or a drop with its interval.

    Args:
        data: the result.
        loss: of one of its configurations.
    """
    low, high = _loss(data, loss.low), _loss(data, loss.high)
    return f"{_loss(data, loss.value)} ({low} to {high})"


def loss_name(data: TuningData) -> str:
    """What a configuration loses: `relative L2 error`, or `drop of` the metric."""
    return f"drop of {data.bound.measure}" if data.bound.is_metric else data.bound.measure


def loss_heading(data: TuningData) -> str:
    """The heading of the losses in a table."""
    return "drop" if data.bound.is_metric else "rel. error"


def _loss(data: TuningData, value: float) -> str:
    return f"{value:.2g}" if data.bound.is_metric else formatting.scientific(value)


def legend(data: TuningData) -> str:
    """The legend of the front."""
    words = _FRONT.format(loss="drop" if data.bound.is_metric else "error")
    return f"{rows.legend(data.final)} {words}"


def course(data: TuningData) -> str:
    """How many configurations were tried, and in which time."""
    count, tried = len(data.trials), sum(one.outcome != NOT_FINISHED for one in data.trials)
    share = f"{tried} of " if tried < count else ""
    earlier = sum(trial.from_journal for trial in data.trials)
    known = f" ({earlier} of them in an earlier run)" if earlier else ""
    ended = f"; {_ENDS[data.ended_by]}" if data.ended_by in _ENDS else ""
    words = f"{share}{count} configuration{'s' * (count != 1)} tried{known}"
    return f"{words} in {_seconds(data.elapsed_s)} of {_seconds(data.budget_s)}{ended}."


def _seconds(value: float) -> str:
    return f"{value:,.0f} s" if value >= 10 or not value else f"{value:.2g} s"


def not_chosen(data: TuningData) -> dict[str, Items]:
    """The configurations that lost, by heading, those with the same reason together."""
    found = {
        heading: grouped((one.spec, _why(data, one)) for one in data.trials if one.outcome == name)
        for name, heading in _HEADINGS.items()
    }
    return {heading: items for heading, items in found.items() if items}


def left_out(data: TuningData) -> Items:
    """What was not tried, those with the same reason together."""
    return grouped((one.what, one.reason) for one in data.left_out)


def notes(data: TuningData) -> Items:
    """Notes on the search, and those on the final rounds."""
    reasons = ((one.spec, one.reason) for one in data.trials if one.outcome == FINALIST)
    return [
        *(([], note) for note in data.notes),
        *grouped((spec, reason) for spec, reason in reasons if reason),
        *grouped(_without_verdict(data)),
        *rows.notes(data.final, without=NO_VERDICTS),
    ]


def _without_verdict(data: TuningData) -> Iterator[tuple[str, str]]:
    """Finalists whose speed-up is inconclusive whatever its interval; `tune` chooses the number of
    processes and rounds itself, by its budget."""
    for spec, found in speedups(data.final).items():
        if found.reason in NO_VERDICTS:
            reason = reason_text(found.reason)
            yield spec, f"speed-up inconclusive: {reason}; use a larger budget, or an idle machine"


def grouped(items: Iterable[tuple[str, str]]) -> Items:
    """Names by their sentence, each sentence once.

    Args:
        items: names and sentences.
    """
    names: dict[str, list[str]] = {}
    for name, sentence in items:
        names.setdefault(sentence, []).append(name)
    return [(found, sentence) for sentence, found in names.items()]


def _why(data: TuningData, trial: Trial) -> str:
    return "; ".join(filter(None, _reasons(data, trial))) or "no reason was recorded"


def _reasons(data: TuningData, trial: Trial) -> Iterator[str]:
    """The figures that decided, and the reason in words."""
    loss = trial.loss
    if trial.outcome == INACCURATE and loss is not None:
        yield f"{loss_text(data, loss)}, {bound_text(data)}"
    if trial.outcome == SLOWER and trial.speedup is not None:
        yield f"{ratio_text(trial.speedup)} in {trial.measured_in or 'screening'}"
    yield trial.reason


def trial_cells(data: TuningData) -> list[dict[str, object]]:
    """The cells of each trial by column; unknown values are left out.

    Args:
        data: the result.
    """
    points = {point.spec: point for point in front(data)}
    return [_trial_cells(trial, points.get(trial.spec)) for trial in data.trials]


def _trial_cells(trial: Trial, point: FrontPoint | None) -> dict[str, object]:
    accuracy = trial.accuracy
    loss = point.loss if point else trial.loss
    cells: dict[str, object] = {
        "spec": trial.spec,
        "outcome": trial.outcome,
        "reason": trial.reason,
        "measured_in": trial.measured_in,
        **_interval_cells("speedup", point.speedup if point else trial.speedup),
        **_interval_cells("loss", loss),
        "metric": accuracy.metric if accuracy else None,
        "build_s": trial.build_s,
        "from_journal": trial.from_journal,
    }
    return cells if point is None else {**cells, **_point_cells(point)}


def _interval_cells(name: str, found: Interval | None) -> dict[str, object]:
    if found is None:
        return {}
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _point_cells(point: FrontPoint) -> dict[str, object]:
    return {
        "latency_s": point.latency.value,
        "throughput_per_s": point.throughput.value if point.throughput else None,
        "peak_memory_bytes": point.memory_bytes,
        "energy_j": point.energy_j,
        "is_on_front": point.is_on_front,
    }
