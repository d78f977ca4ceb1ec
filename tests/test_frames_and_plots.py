"""Results as pandas data frames and matplotlib plots, which are imported when they are needed."""

from __future__ import annotations

import subprocess
import sys
import types
from typing import Any

import attrs
import pytest

import precisionbench as pb
from made_up_tuning import tuning_data
from precisionbench.comparison import Comparison
from precisionbench.doctor.examine import Examination
from precisionbench.errors import MissingPackageError, PrecisionBenchError, SpecError
from precisionbench.report.run_diff import RunDiff
from precisionbench.scriptcheck.check import Check
from precisionbench.workflows.ladder import Ladder
from test_display import MLPERF, failing, resnet, results

# --- data frames --------------------------------------------------------------------------------


@attrs.frozen
class Frame:
    """A double of `pandas.DataFrame`, which takes rows as mappings."""

    data: list[dict[str, Any]]
    columns: list[str] | None = None


@pytest.fixture
def pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("pandas")
    module.DataFrame = Frame  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", module)


def test_a_comparison_is_a_frame_of_its_rows(pandas):
    frame = failing().to_dataframe()
    assert [row["backend"] for row in frame.data] == ["eager", "half", "apex-amp"]
    assert frame.columns == failing().to_csv().splitlines()[0].split(",")
    assert frame.data[1]["speedup"] == failing().speedup("half").value
    assert frame.data[2]["failure"] == "needs Apex"


def test_an_interval_is_three_columns(pandas):
    found = pb.explain_gap(resnet(), "eager", MLPERF)
    first, *_ = found.to_dataframe().data
    assert first == {
        "name": "precision: float32 to float16",
        "kind": "measured",
        "factor": found.factors[0].factor.value,
        "factor_low": found.factors[0].factor.low,
        "factor_high": found.factors[0].factor.high,
        "source": found.factors[0].source,
        "reason": "",
        "is_confirmed": found.factors[0].is_confirmed,
    }


def test_every_table_is_a_frame(pandas):
    assert len(resnet().under_rules("half").to_dataframe().data) == 17
    assert len(Ladder.of(resnet(), "eager").to_dataframe().data) == 2
    assert len(of_class(RunDiff).to_dataframe().data) == 5
    examination = of_class(Examination)
    assert len(examination.to_dataframe().data) == len(examination.checks)
    assert of_class(Check).to_dataframe().data[0]["gate"] == "synchronisation"


def test_a_tuning_result_is_a_frame_of_its_trials(pandas):
    frame = pb.Tuned(tuning_data()).to_dataframe()
    assert [row["spec"] for row in frame.data] == [one.spec for one in tuning_data().trials]
    assert {"outcome", "speedup_low", "loss", "latency_s", "energy_j"} <= set(frame.columns)


def of_class(kind: type) -> Any:
    return next(one for one in results() if isinstance(one, kind))


@pytest.mark.uncounted
@pytest.mark.parametrize("table", ["findings", "labels", "layers", "precisions", "answers"])
def test_a_diagnosis_has_several_tables(pandas, table):
    found = pb.diagnose(resnet())
    assert len(found.to_dataframe(table).data) == len(getattr(found, table)) > 0


def test_an_unknown_table_is_refused(pandas):
    with pytest.raises(SpecError, match="did you mean 'layers'"):
        pb.diagnose(resnet()).to_dataframe("layer")


@pytest.mark.parametrize(
    ("package", "method"), [("pandas", "to_dataframe"), ("matplotlib", "plot")]
)
def test_a_missing_package_is_named_with_a_command(monkeypatch, package, method):
    for name in (package, "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=f"pip install {package}`$"):
        getattr(resnet(), method)()


def test_a_package_that_is_broken_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "pandas.py").write_text("import a_module_that_pandas_lacks")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_pandas_lacks"):
        resnet().to_dataframe()


@pytest.mark.slow  # a process of its own
def test_neither_package_is_imported_before_it_is_needed():
    code = """
import sys, precisionbench.workflows.ladder
print({"pandas", "matplotlib", "IPython"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_pandas_itself_makes_the_frame():
    pytest.importorskip("pandas")
    frame = resnet().to_dataframe()
    assert frame.set_index("backend").loc["half", "speedup"] == resnet().speedup("half").value
    assert pb.diagnose(resnet()).to_dataframe().loc[0, "cause"] == "layout-conversions"


# --- plots --------------------------------------------------------------------------------------


class Axes:
    """A double of matplotlib's axes: keeps what is drawn, with the arguments that the real have."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float, float]] = []
        self.bars: list[tuple[float, float]] = []
        self.lines: list[tuple[list[float], list[float]]] = []
        self.texts: list[str] = []
        self.names: list[str] = []
        self.scales: dict[str, str] = {}
        self.legends: list[str] = []

    def errorbar(self, x, y, *, xerr, fmt, capsize, color):
        ((below,), (above,)) = xerr
        self.points.append((x[0] - below, x[0], x[0] + above))

    def barh(self, y, width, *, left, color, label):
        self.bars.append((left[0], left[0] + width[0]))
        self.legends += [label] if label else []

    def plot(self, x, y, *, color, linewidth=1):
        assert len(x) == len(y)
        self.lines.append((x, y))

    def scatter(self, x, y, *, label):
        self.points += zip(x, y, [0.0] * len(x), strict=True)
        self.legends.append(label)

    def annotate(self, text, xy, *, ha, va):
        self.texts.append(text)

    def axvline(self, x, *, color, linestyle, linewidth):
        assert x == 1

    def set_yticks(self, ticks, *, labels):
        assert len(ticks) == len(labels)
        self.names = labels

    def invert_yaxis(self):
        """Names from top to bottom."""

    def legend(self):
        """Labels of what was drawn."""

    def set_xscale(self, value):
        self.scales["x"] = value

    def set_yscale(self, value):
        self.scales["y"] = value

    def set_xlabel(self, text):
        self.texts.append(text)

    set_ylabel = set_title = set_xlabel


def test_speed_ups_are_points_with_their_intervals():
    axes = Axes()
    assert resnet().plot(ax=axes) is axes
    found = resnet().speedup("half")
    assert axes.points[1] == pytest.approx((found.low, found.value, found.high))
    assert axes.names == [
        "eager:precision=tf32",
        "half",
        "half:memory_format=channels_last",
        "half:dtype=bfloat16",
    ]


def test_without_axes_a_figure_is_made(monkeypatch):
    axes = Axes()
    pyplot = types.ModuleType("matplotlib.pyplot")
    pyplot.subplots = lambda layout: ("figure", axes)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "matplotlib", types.ModuleType("matplotlib"))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", pyplot)
    assert resnet().plot() is axes


def test_a_name_is_no_formula_in_a_plot():
    row = attrs.evolve(failing().results[1], backend="half:x=$a^2$")
    found = Comparison(attrs.evolve(failing().data, results=(failing().results[0], row)))
    axes = found.plot(ax=Axes())
    assert axes.names == [r"half:x=\$a^2\$"]


@pytest.mark.parametrize("kind", [pb.explain_gap, Ladder.of])
def test_a_waterfall_begins_each_bar_where_the_one_before_ends(kind):
    found = kind(resnet(), "eager", MLPERF)
    axes = found.plot(Axes())
    for (_, end), (begin, _) in zip(axes.bars[:-2], axes.bars[1:-1], strict=True):
        assert begin == end
    gap = pb.explain_gap(resnet(), "eager", MLPERF).gap
    assert axes.bars[-1] == (1.0, pytest.approx(gap))
    assert axes.scales == {"x": "log"}
    assert axes.legends == ["measured", "derived", "assumed", "unexplained"]
    assert axes.names[-1] == f"total: {gap:.3g}x"


def test_a_ladder_without_a_gap_draws_its_rungs():
    axes = Ladder.of(resnet(), "eager").plot(Axes())
    assert len(axes.bars) == 3


def test_a_roofline_has_the_roofs_of_the_device():
    axes = resnet().plot("roofline", ax=Axes())
    bandwidth = 3.35e12
    assert len(axes.lines) == 3
    for (low, ridge, _), (start, peak, _) in axes.lines:
        assert start / low == pytest.approx(peak / ridge) == pytest.approx(bandwidth, rel=0.05)
    assert "half" in axes.legends
    assert axes.scales == {"x": "log", "y": "log"}


def test_what_is_not_known_is_not_drawn():
    with pytest.raises(PrecisionBenchError, match=r"no FLOP/s of layers are known; compare with"):
        failing().plot("roofline", ax=Axes())
    alone = attrs.evolve(failing().data, results=failing().results[:1])
    with pytest.raises(PrecisionBenchError, match="no speed-up was measured"):
        Comparison(alone).plot(ax=Axes())
    with pytest.raises(SpecError, match="there is no plot 'roof'; did you mean 'roofline'"):
        failing().plot("roof")


def test_matplotlib_itself_draws_every_plot():
    figures = pytest.importorskip("matplotlib.figure")
    for draw in (
        resnet().plot,
        lambda ax: resnet().plot("roofline", ax),
        pb.explain_gap(resnet(), "eager", MLPERF).plot,
    ):
        figure = figures.Figure(layout="constrained")
        assert draw(ax=figure.subplots()).figure is figure
        figure.canvas.draw()
