"""Cells of one model and device by batch size and by threads: crossover, saturation, scaling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import NormalDist

import attrs

from precisionbench.analysis.cells import measured_batch, measured_threads, named, newest
from precisionbench.analysis.crossover import Crossover, crossover
from precisionbench.analysis.run_diff import SESSION_SPREAD
from precisionbench.analysis.saturation import Saturation, saturation
from precisionbench.analysis.speedups import speedups
from precisionbench.display import Shown
from precisionbench.results import BackendResult, Speedup
from precisionbench.results.grouping import grouped
from precisionbench.results.study import Cell, CellResult
from precisionbench.statistics import Interval
from precisionbench.statistics.ratios import in_quadrature

_Z95 = NormalDist().inv_cdf(0.975)
# What two cells, which are measured at different times, can differ by at the same speed.
_BETWEEN_CELLS = _Z95 * math.sqrt(2) * SESSION_SPREAD


@attrs.frozen(repr=False)
class SweepPoint(Shown):
    """A row at one batch size.

    Attributes:
        batch_size: items per call.
        latency: of a call in seconds, with its 95 % CI.
        throughput: items per second.
        speedup: over the reference at the same batch size; None where the reference failed.
    """

    batch_size: int
    latency: Interval
    throughput: Interval
    speedup: Speedup | None


@attrs.frozen(repr=False)
class RowSweep(Shown):
    """A row at all batch sizes.

    Attributes:
        backend: the row.
        points: in the order of the batch size.
        crossover: None for the reference, and for fewer than two speed-ups.
        saturation: the batch size at which throughput stops growing; None for fewer than two
            points.
    """

    backend: str
    points: tuple[SweepPoint, ...]
    crossover: Crossover | None
    saturation: Saturation | None


@attrs.frozen(repr=False)
class Sweep(Shown):
    """One model on one device at several batch sizes.

    Attributes:
        cell: what all batch sizes have in common; its batch size is None.
        reference: the row that the others are compared with.
        rows: in the order of the comparisons.
        failures: batch sizes that were not measured, or rows of them, with the reasons.
    """

    cell: Cell
    reference: str
    rows: tuple[RowSweep, ...]
    failures: tuple[tuple[int, str], ...]


def sweeps(results: Iterable[CellResult]) -> tuple[Sweep, ...]:
    """The sweeps over batch sizes that a study holds: of two or more that were measured.

    Comparisons with several references, as of several models, are in none.

    Args:
        results: of all cells; of a cell that was measured several times, the newest counts.
    """
    single = [one for one in newest(named(results)) if not (one.data and one.data.references)]
    groups = _grouped(single, measured_batch, _without_batch)
    measured = [{size for size, one in group if one.data} for group in groups]
    pairs = zip(groups, measured, strict=True)
    return tuple(_sweep(group) for group, sizes in pairs if len(sizes) > 1)


def _without_batch(result: CellResult) -> Cell:
    return attrs.evolve(result.cell, batch_size=None)


def _without_threads(result: CellResult) -> Cell:
    return attrs.evolve(result.cell, threads=None)


def _grouped(
    results: Iterable[CellResult],
    number: Callable[[CellResult], int | None],
    others: Callable[[CellResult], Cell],
) -> list[list[tuple[int, CellResult]]]:
    """Cells that differ in one number only, with this number, in its order.

    Args:
        results: one for each cell.
        number: such as the batch size; cells without it are left out.
        others: what cells of one group have in common.
    """
    numbered = [(found, one) for one in results if (found := number(one)) is not None]
    groups = grouped(numbered, lambda pair: others(pair[1]))
    return [sorted(group, key=lambda pair: pair[0]) for group in groups.values()]


def _sweep(group: Sequence[tuple[int, CellResult]]) -> Sweep:
    found: dict[str, list[SweepPoint]] = {}
    failures: list[tuple[int, str]] = []
    references = [one.data.reference for _, one in group if one.data]
    for size, one in group:
        for name, point in _points(size, one):
            found.setdefault(name, []).append(point)
        failures += [(size, reason) for reason in _failures(one)]
    reference = references[0] if references else ""
    rows = tuple(_row(name, tuple(points), reference) for name, points in found.items())
    return Sweep(_without_batch(group[0][1]), reference, rows, tuple(failures))


def _points(size: int, result: CellResult) -> Iterable[tuple[str, SweepPoint]]:
    data = result.data
    if data is None:
        return
    found = speedups(data)
    for row in data.results:
        own = row.batch_size or size
        throughput = row.latency.inverse_of(own)
        yield row.backend, SweepPoint(own, row.latency, throughput, found.get(row.backend))


def _failures(result: CellResult) -> Iterable[str]:
    if result.data is None:
        yield result.failure or "not measured"
        return
    yield from (f"{one.backend}: {one.reason}" for one in result.data.failures)


def _row(name: str, points: tuple[SweepPoint, ...], reference: str) -> RowSweep:
    compared = [(point.batch_size, point.speedup) for point in points if point.speedup is not None]
    has_crossover = name != reference and len(compared) > 1
    return RowSweep(
        name,
        points,
        crossover(compared) if has_crossover else None,
        _saturation(points) if len(points) > 1 else None,
    )


# --- throughput -----------------------------------------------------------------------------------


def _saturation(points: Sequence[SweepPoint]) -> Saturation:
    """Where throughput stops growing; the intervals of all ratios are simultaneous."""
    rates = {point.batch_size: point.throughput for point in points}
    pairs = len(rates) * (len(rates) - 1) // 2
    wider = NormalDist().inv_cdf(1 - 0.025 / max(1, pairs)) / _Z95
    return saturation(sorted(rates), lambda small, large: _ratio(rates[large], rates[small], wider))


def _ratio(one: Interval, other: Interval, wider: float = 1.0) -> Interval:
    """The ratio of two rates of different cells, whose errors are independent.

    Args:
        one: rate above the line.
        other: rate below it.
        wider: factor by which the interval is wider than that of 95 %.
    """
    logs = [Interval(*map(math.log, (x.value, x.low, x.high))) for x in (one, other)]
    value = logs[0].value - logs[1].value
    down = math.hypot(logs[0].value - logs[0].low, logs[1].high - logs[1].value)
    up = math.hypot(logs[0].high - logs[0].value, logs[1].value - logs[1].low)
    found = in_quadrature(Interval(value, value - down, value + up), _BETWEEN_CELLS)
    ends = (value + wider * (end - value) for end in (found.low, found.high))
    return Interval(value, *ends).exp()


# --- threads --------------------------------------------------------------------------------------


@attrs.frozen(repr=False)
class ThreadPoint(Shown):
    """A row with one number of threads.

    Attributes:
        threads: that a call uses.
        latency: of a call in seconds, with its 95 % CI.
        speedup: latency with the fewest threads / this latency, with its 95 % CI.
        efficiency: the speed-up as a share of the factor by which the threads grew.
    """

    threads: int
    latency: Interval
    speedup: Interval
    efficiency: Interval


@attrs.frozen(repr=False)
class ThreadScaling(Shown):
    """One model on one device with several numbers of threads.

    Attributes:
        cell: what all of them have in common; its number of threads is None.
        rows: for each row, its points in the order of the threads.
    """

    cell: Cell
    rows: tuple[tuple[str, tuple[ThreadPoint, ...]], ...]


def thread_scaling(results: Iterable[CellResult]) -> tuple[ThreadScaling, ...]:
    """How the latency scales with threads, for each cell with two or more numbers of them.

    Args:
        results: of all cells; of a cell that was measured several times, the newest counts.
    """
    measured = [one for one in newest(named(results)) if one.data is not None]
    groups = _grouped(measured, measured_threads, _without_threads)
    return tuple(_scaling(group) for group in groups if len({count for count, _ in group}) > 1)


def _scaling(group: Sequence[tuple[int, CellResult]]) -> ThreadScaling:
    found: dict[str, list[tuple[int, BackendResult]]] = {}
    for threads, one in group:
        for row in one.data.results if one.data else ():
            found.setdefault(row.backend, []).append((threads, row))
    rows = tuple((name, tuple(_thread_points(rows))) for name, rows in found.items())
    return ThreadScaling(_without_threads(group[0][1]), rows)


def _thread_points(rows: Sequence[tuple[int, BackendResult]]) -> Iterable[ThreadPoint]:
    fewest, base = rows[0]
    for threads, row in rows:
        same = Interval(1.0, 1.0, 1.0)
        ratio = same if row is base else _ratio(base.latency, row.latency)
        yield ThreadPoint(threads, row.latency, ratio, ratio.scaled(fewest / threads))
