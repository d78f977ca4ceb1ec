"""Plots of results on matplotlib's axes; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from precisionbench import safe_text
from precisionbench.analysis.history import LATENCY, History
from precisionbench.analysis.speedups import speedups
from precisionbench.analysis.sweep import Sweep
from precisionbench.diagnosis.facts import Facts, facts_of_rows
from precisionbench.diagnosis.gap.ledger import Factor, Kind
from precisionbench.diagnosis.layer_classes import layer_classes
from precisionbench.display.frames import optional_package
from precisionbench.errors import PrecisionBenchError, RowNotFoundError, did_you_mean
from precisionbench.report import rows
from precisionbench.report import tuning_texts as texts
from precisionbench.report.html.scatter_plot import BEST_TONE, FRONT_TONE, OTHER_TONE, timed
from precisionbench.report.plain import broken
from precisionbench.report.references import reference_text
from precisionbench.report.study_words import date_text, sweep_title
from precisionbench.results import ComparisonData
from precisionbench.results.tuning import TuningData
from precisionbench.statistics import Interval, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME_WIDTH = 32  # columns of a label
_COLOURS = {Verdict.FASTER: "tab:green", Verdict.SLOWER: "tab:red"}
_KIND_COLOURS = {
    Kind.MEASURED: "tab:blue",
    Kind.DERIVED: "tab:cyan",
    Kind.ASSUMED: "tab:orange",
    Kind.UNEXPLAINED: "tab:gray",
}
_TUNING_COLOURS = {BEST_TONE: "tab:green", FRONT_TONE: "tab:blue", OTHER_TONE: "tab:gray"}
_PEAKS = ("fp32", "tf32", "fp16", "bf16")


def plot_speedups(data: ComparisonData, ax: Axes | None = None) -> Axes:
    """Speed-ups over the reference with their intervals, one line for each row.

    Args:
        data: the comparison.
        ax: axes to draw on; None makes a new figure.

    Raises:
        MissingPackageError: matplotlib is not installed.
        PrecisionBenchError: there is no speed-up.
    """
    found = {name: one for name, one in speedups(data).items() if not data.is_reference(name)}
    if not found:
        raise PrecisionBenchError(
            "no speed-up was measured", "compare a second row with a reference that can run"
        )
    drawn = _axes(ax)
    for place, one in enumerate(found.values()):
        ends = [[one.value - one.low], [one.high - one.value]]
        colour = _COLOURS.get(one.verdict, "tab:gray")
        drawn.errorbar([one.value], [place], xerr=ends, fmt="o", capsize=4, color=colour)
    drawn.axvline(1.0, color="gray", linestyle="--", linewidth=1)
    _name_rows(drawn, found)
    drawn.set_xlabel(_label(f"speed-up over {reference_text(data)}, 95 % CI"))
    drawn.set_title(_label(rows.title(data)))
    return drawn


def plot_waterfall(factors: Iterable[Factor], title: str, ax: Axes | None = None) -> Axes:
    """Factors as bars of which each begins where the one before ends, on a logarithmic axis.

    Args:
        factors: in order.
        title: of the plot.
        ax: axes to draw on; None makes a new figure.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    drawn = _axes(ax)
    names, labelled, start = [], set[Kind](), 1.0
    for place, one in enumerate(factors):
        end = start * one.factor.value
        label = "" if one.kind in labelled else one.kind.value
        colour = _KIND_COLOURS[one.kind]
        drawn.barh([place], [end - start], left=[start], color=colour, label=label)
        drawn.plot([start * one.factor.low, start * one.factor.high], [place] * 2, color="black")
        labelled.add(one.kind)
        names.append(one.name)
        start = end
    drawn.barh([len(names)], [start - 1.0], left=[1.0], color="black", label="")
    drawn.set_xscale("log")
    _name_rows(drawn, [*names, f"total: {start:.3g}x"])
    drawn.set_xlabel("times the rate at the start (log scale)")
    drawn.set_title(_label(title))
    if labelled:
        drawn.legend()
    return drawn


def plot_roofline(data: ComparisonData, ax: Axes | None = None) -> Axes:
    """The rates of each row's classes of layers, below the peaks of the device.

    Args:
        data: the comparison.
        ax: axes to draw on; None makes a new figure.

    Raises:
        MissingPackageError: matplotlib is not installed.
        PrecisionBenchError: the peaks of the device are not known, or no row was profiled.
    """
    facts = facts_of_rows(data)
    found = {name: layer_classes(one) for name, one in facts.items()}
    intensities = [one.intensity for classes in found.values() for one in classes]
    if not intensities:
        raise PrecisionBenchError(
            "no FLOP/s of layers are known", "compare with profiling on an NVIDIA GPU"
        )
    peaks, bandwidth = _roofs(facts)
    drawn = _axes(ax)
    for name, classes in found.items():
        x, y = [one.intensity for one in classes], [one.flop_rate for one in classes]
        drawn.scatter(x, y, label=_label(name))
    _draw_roofs(drawn, peaks, bandwidth, intensities)
    drawn.set_xscale("log")
    drawn.set_yscale("log")
    drawn.set_xlabel("arithmetic intensity (FLOP/byte)")
    drawn.set_ylabel("FLOP/s")
    drawn.set_title(_label(rows.title(data)))
    drawn.legend()
    return drawn


def plot_tuning(data: TuningData, ax: Axes | None = None) -> Axes:
    """Speed against error of the configurations that a search has timed.

    Args:
        data: the result of `tune`.
        ax: axes to draw on; None makes a new figure.

    Raises:
        MissingPackageError: matplotlib is not installed.
        PrecisionBenchError: no configuration has a speed-up and an error.
    """
    found = timed(data)
    if not found:
        raise PrecisionBenchError(
            "no configuration has a speed-up and an error", "tune with a larger budget"
        )
    drawn = _axes(ax)
    for one in found:
        ends = [[one.speedup.value - one.speedup.low], [one.speedup.high - one.speedup.value]]
        x, y = one.loss.value, one.speedup.value
        drawn.errorbar([x], [y], yerr=ends, fmt="o", capsize=4, color=_TUNING_COLOURS[one.tone])
        drawn.annotate(_label(one.spec), (x, y), xytext=(5, 5), textcoords="offset points")
    drawn.axhline(1.0, color="gray", linestyle="--", linewidth=1)
    drawn.axvline(data.bound.limit, color="tab:red", linestyle="--", linewidth=1)
    if min(data.bound.limit, *(one.loss.value for one in found)) > 0:
        drawn.set_xscale("log")
    drawn.set_xlabel(_label(texts.loss_name(data)))
    drawn.set_ylabel(_label(f"speed-up over {data.reference}, 95 % CI"))
    drawn.set_title(_label(rows.title(data.final)))
    return drawn


def plot_sweep(sweep: Sweep, ax: Axes | None = None) -> Axes:
    """Throughput by batch size on logarithmic axes, with intervals; crossovers are marked.

    Args:
        sweep: over batch sizes.
        ax: axes to draw on; None makes a new figure.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    drawn = _axes(ax)
    for place, row in enumerate(sweep.rows):
        colour = f"C{place}"
        sizes = [float(point.batch_size) for point in row.points]
        rates = [point.throughput for point in row.points]
        _draw_intervals(drawn, sizes, rates, colour)
        drawn.plot(sizes, [one.value for one in rates], color=colour, label=_label(row.backend))
        if row.crossover is not None and row.crossover.at.value is not None:
            drawn.axvline(row.crossover.at.value, color=colour, linestyle="--", linewidth=1)
    drawn.set_xscale("log")
    drawn.set_yscale("log")
    drawn.set_xlabel("batch size (log scale)")
    drawn.set_ylabel("items/s (log scale)")
    drawn.set_title(_label(sweep_title(sweep)))
    drawn.legend()
    return drawn


def plot_history(history: History, backend: str, ax: Axes | None = None) -> Axes:
    """The latency of a row over the runs of its history; changes are marked.

    Args:
        history: of a cell.
        backend: the row.
        ax: axes to draw on; None makes a new figure.

    Raises:
        MissingPackageError: matplotlib is not installed.
        RowNotFoundError: the history has no such row.
    """
    rows = {one.backend: one for one in history.series if one.of == LATENCY}
    if backend not in rows:
        raise RowNotFoundError(f"the history has no row {backend!r}", did_you_mean(backend, rows))
    series, drawn = rows[backend], _axes(ax)
    places = [float(place) for place in range(len(series.points))]
    _draw_intervals(drawn, places, [point.value for point in series.points], "tab:blue")
    dates = [point.created for point in series.points]
    for change in series.changes:
        place = dates.index(change.first_after) - 0.5
        colour = _COLOURS.get(change.ratio.verdict, "tab:gray")
        drawn.axvline(place, color=colour, linestyle="--", linewidth=1)
    drawn.set_xticks(places, labels=[_label(date_text(date)) for date in dates], rotation=90)
    drawn.set_ylabel("latency (s)")
    drawn.set_title(_label(f"{backend}: {history.cell.title}"))
    return drawn


def _draw_intervals(
    ax: Axes, places: Sequence[float], values: Sequence[Interval], colour: str
) -> None:
    ends = [[one.value - one.low for one in values], [one.high - one.value for one in values]]
    heights = [one.value for one in values]
    ax.errorbar(places, heights, yerr=ends, fmt="o", capsize=4, color=colour)


def _roofs(facts: Mapping[str, Facts]) -> tuple[dict[float, list[str]], float]:
    """Names of precisions by their peak in FLOP/s, and the bandwidth in byte/s."""
    device = next(iter(facts.values())).device
    known = device.peaks if device else {}
    peaks: dict[float, list[str]] = {}
    for name in _PEAKS:
        if name in known:
            peaks.setdefault(known[name].value, []).append(name)
    if not peaks or "bandwidth" not in known:
        raise PrecisionBenchError(
            "the peaks of the device are not known", "plot('speedups') needs none"
        )
    return peaks, known["bandwidth"].value


def _draw_roofs(
    ax: Axes, peaks: Mapping[float, list[str]], bandwidth: float, intensities: list[float]
) -> None:
    low = min(intensities) / 2
    high = 2 * max([*intensities, *(peak / bandwidth for peak in peaks)])
    for peak, names in peaks.items():
        ridge = peak / bandwidth
        ax.plot([low, ridge, high], [low * bandwidth, peak, peak], color="gray", linewidth=1)
        ax.annotate(", ".join(names), (high, peak), ha="right", va="bottom")


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    pyplot = optional_package("matplotlib.pyplot", "a plot")
    made: Axes = pyplot.subplots(layout="constrained")[1]
    return made


def _name_rows(ax: Axes, names: Iterable[str]) -> None:
    labels = [safe_text.plot(broken(safe_text.line(name), _NAME_WIDTH)) for name in names]
    ax.set_yticks(list(range(len(labels))), labels=labels)
    ax.invert_yaxis()


def _label(text: str) -> str:
    return safe_text.plot(safe_text.line(text))
