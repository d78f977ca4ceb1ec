"""Plots of results on matplotlib's axes; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from precisionbench import safe_text
from precisionbench.analysis.speedups import speedups
from precisionbench.diagnosis.facts import Facts, facts_of_rows
from precisionbench.diagnosis.gap.ledger import Factor, Kind
from precisionbench.diagnosis.layer_classes import layer_classes
from precisionbench.display.frames import optional_package
from precisionbench.errors import PrecisionBenchError
from precisionbench.report import rows
from precisionbench.report.plain import broken
from precisionbench.results import ComparisonData
from precisionbench.statistics import Verdict

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
    found = {name: one for name, one in speedups(data).items() if name != data.reference}
    if not found:
        raise PrecisionBenchError(
            "no speed-up was measured", "compare a second row with a reference that can run"
        )
    ax = _axes(ax)
    for place, one in enumerate(found.values()):
        ends = [[one.value - one.low], [one.high - one.value]]
        colour = _COLOURS.get(one.verdict, "tab:gray")
        ax.errorbar([one.value], [place], xerr=ends, fmt="o", capsize=4, color=colour)
    ax.axvline(1.0, color="gray", linestyle="--", linewidth=1)
    _name_rows(ax, found)
    ax.set_xlabel(_label(f"speed-up over {data.reference}, 95 % CI"))
    ax.set_title(_label(rows.title(data)))
    return ax


def plot_waterfall(factors: Iterable[Factor], title: str, ax: Axes | None = None) -> Axes:
    """Factors as bars of which each begins where the one before ends, on a logarithmic axis.

    Args:
        factors: in order.
        title: of the plot.
        ax: axes to draw on; None makes a new figure.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    ax = _axes(ax)
    names, labelled, start = [], set[Kind](), 1.0
    for place, one in enumerate(factors):
        end = start * one.factor.value
        label = "" if one.kind in labelled else one.kind.value
        colour = _KIND_COLOURS[one.kind]
        ax.barh([place], [end - start], left=[start], color=colour, label=label)
        ax.plot([start * one.factor.low, start * one.factor.high], [place] * 2, color="black")
        labelled.add(one.kind)
        names.append(one.name)
        start = end
    ax.barh([len(names)], [start - 1.0], left=[1.0], color="black", label="")
    ax.set_xscale("log")
    _name_rows(ax, [*names, f"total: {start:.3g}x"])
    ax.set_xlabel("times the rate at the start (log scale)")
    ax.set_title(_label(title))
    if labelled:
        ax.legend()
    return ax


def plot_roofline(data: ComparisonData, ax: Axes | None = None) -> Axes:
    """The rates of each row's classes of layers, below the peaks of the device.

    Args:
        data: the comparison.
        ax: axes to draw on; None makes a new figure.

    Raises:
        MissingPackageError: matplotlib is not installed.
        PrecisionBenchError: the peaks of the device are not known, or no row was profiled.
    """
    found = {name: layer_classes(facts) for name, facts in facts_of_rows(data).items()}
    intensities = [one.intensity for classes in found.values() for one in classes]
    if not intensities:
        raise PrecisionBenchError(
            "no FLOP/s of layers are known", "compare with evidence=True on an NVIDIA GPU"
        )
    peaks, bandwidth = _roofs(facts_of_rows(data))
    ax = _axes(ax)
    for name, classes in found.items():
        points = [one.intensity for one in classes], [one.flop_rate for one in classes]
        ax.scatter(*points, label=_label(name))
    _draw_roofs(ax, peaks, bandwidth, intensities)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("arithmetic intensity (FLOP/byte)")
    ax.set_ylabel("FLOP/s")
    ax.set_title(_label(rows.title(data)))
    ax.legend()
    return ax


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
            "the peaks of the device are not known", "docs/roofline needs a device of devices.toml"
        )
    return peaks, known["bandwidth"].value


def _draw_roofs(
    ax: Any, peaks: Mapping[float, list[str]], bandwidth: float, intensities: list[float]
) -> None:
    low = min(intensities) / 2
    high = 2 * max([*intensities, *(peak / bandwidth for peak in peaks)])
    for peak, names in peaks.items():
        ridge = peak / bandwidth
        ax.plot([low, ridge, high], [low * bandwidth, peak, peak], color="gray", linewidth=1)
        ax.annotate(", ".join(names), (high, peak), ha="right", va="bottom")


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    pyplot = optional_package("matplotlib.pyplot", "a plot")
    return pyplot.subplots(layout="constrained")[1]


def _name_rows(ax: Any, names: Iterable[str]) -> None:
    labels = [safe_text.plot(broken(safe_text.line(name), _NAME_WIDTH)) for name in names]
    ax.set_yticks(range(len(labels)), labels=labels)
    ax.invert_yaxis()


def _label(text: str) -> str:
    return safe_text.plot(safe_text.line(text))
