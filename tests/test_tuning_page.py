"""The HTML report of a tuning result, and its plots."""

from __future__ import annotations

import json
import math

import attrs
import pytest
from hypothesis import given, settings

from hostile_text import assert_html, texts
from made_up_tuning import error, final, tuning_data, with_metric
from pages import HOSTILE, Page
from precisionbench._version import DOCS_URL
from precisionbench.errors import PrecisionBenchError
from precisionbench.report.html.numbered_points import FRAME
from precisionbench.report.html.scatter_plot import (
    BEST_TONE,
    FRONT_TONE,
    OTHER_TONE,
    scatter_plot,
)
from precisionbench.report.html.tuning_page import to_html
from precisionbench.report.plots import plot_tuning
from precisionbench.report.tuning_texts import choice, course, headline
from precisionbench.results import Interval, tuning_format
from precisionbench.results.tuning import Accuracy, Trial, TuningData
from test_tuning_report import hostile

CHANNELS_LAST = "half:memory_format=channels_last"
SCENES = {
    "error": tuning_data(),
    "metric": with_metric(),
    "few rounds": tuning_data(final=final(rounds=2)),
    "no losses": tuning_data(
        trials=tuple(attrs.evolve(one, accuracy=None) for one in tuning_data().trials)
    ),
    "nothing else": tuning_data(left_out=(), notes=(), trials=tuning_data().trials[2:3]),
    "hostile": hostile(" ".join(HOSTILE)),
}


@pytest.fixture(params=SCENES, scope="module")
def scene(request) -> tuple[TuningData, Page]:
    data = SCENES[request.param]
    return data, Page(to_html(data))


def test_the_page_is_well_formed_and_makes_no_requests(scene):
    _, page = scene
    assert page.faults == []
    for tag, attributes in page.elements:
        assert "src" not in attributes
        target = attributes.get("href", "#")
        assert target[:1] == "#" or target.startswith(("data:,", DOCS_URL)), tag
    policy = next(one for one in page.all("meta") if one.get("http-equiv"))["content"]
    assert policy.startswith("default-src 'none'")


def test_the_page_holds_the_whole_result(scene):
    data, page = scene
    document = json.dumps(json.loads(page.texts["script"][0]))
    assert tuning_format.from_json(document) == data


def test_each_link_within_the_page_has_its_target(scene):
    _, page = scene
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    targets = {one["href"][1:] for one in page.all("a") if one.get("href", "").startswith("#")}
    assert targets <= ids


def test_the_page_has_the_choice_the_front_and_every_trial():
    text = " ".join(Page(to_html(tuning_data())).text.split())
    for part in (headline, choice, course):
        assert part(tuning_data()) in text
    for piece in (
        "2.500 ms",
        "470 MB",
        "2.4e-02 (2.2e-02 to 2.6e-02)",
        "2.10x (2.00 to 2.20)",
        "PreparationError: no compiler was found",
        "requires an NVIDIA GPU; run on a machine that has one",
        "the accuracy was measured on 1 batch",
        "relative L2 error at most 1.0e-02, on 1 batch, against float64",
        "NVIDIA Test, compute capability 9.0",
    ):
        assert piece in text


def test_without_losses_there_is_no_plot():
    text = to_html(SCENES["no losses"])
    assert 'id="plot"' not in text
    assert 'id="plot"' in to_html(tuning_data())


@settings(max_examples=15)
@given(texts)
def test_no_text_becomes_markup(text):
    assert_html(to_html(hostile(text or "word")), to_html(hostile("word")))


# --- the plot of speed against error ------------------------------------------------------------


def numbers(data: TuningData) -> dict[str, int]:
    specs = [row.backend for row in data.final.results] + [one.spec for one in data.trials]
    return {spec: place for place, spec in enumerate(dict.fromkeys(specs), start=1)}


def plotted(data: TuningData):
    return scatter_plot(data, numbers(data))


def test_every_timed_configuration_with_an_error_is_a_point():
    found = plotted(tuning_data())
    tones = {point.spec: point.tone for point in found.points}
    assert tones == {
        CHANNELS_LAST: BEST_TONE,
        "half": FRONT_TONE,
        "eager": FRONT_TONE,
        "autocast": OTHER_TONE,
    }
    assert {p.spec: p.number for p in found.points} == {
        spec: numbers(tuning_data())[spec] for spec in tones
    }


def test_faster_is_higher_and_less_accurate_is_further_right():
    found = {point.spec: point for point in plotted(tuning_data()).points}
    assert found[CHANNELS_LAST].y < found["half"].y < found["autocast"].y < found["eager"].y
    assert found["eager"].x < found["autocast"].x < found["half"].x < found[CHANNELS_LAST].x
    for point in found.values():
        assert point.high_y <= point.y <= point.low_y


def test_the_bound_is_right_of_what_is_accurate():
    found = plotted(tuning_data())
    assert found.is_log
    assert all(point.x < found.limit_x <= FRAME.right for point in found.points)
    assert found.x_title == "relative L2 error"


def test_a_metric_that_is_better_than_the_references_has_an_even_axis():
    better = Accuracy(Interval(-0.001, -0.003, 0.001), "within")
    trials = [attrs.evolve(one, accuracy=better) for one in with_metric().trials[1:3]]
    data = attrs.evolve(with_metric(), trials=tuple(trials))
    found = plotted(data)
    assert not found.is_log
    places = {point.spec: point.x for point in found.points}
    assert places["half"] < places["eager"] < found.limit_x
    assert len(found.x_ticks) > 1


@pytest.mark.parametrize("loss", [0.0, -1e29, 1e29, 1e300, 5e-324])
@pytest.mark.parametrize("speedup", [1e-100, 1e100])
def test_extreme_figures_of_a_file_have_a_place(loss, speedup):
    extreme = Trial(
        "compile",
        "slower",
        "",
        Accuracy(Interval(loss, loss, loss), "within"),
        Interval(speedup, 1e-100, 1e100),
    )
    found = plotted(tuning_data(trials=(*tuning_data().trials[:3], extreme)))
    for point in found.points:
        assert FRAME.left <= point.x <= FRAME.right
        assert FRAME.top <= point.y <= FRAME.bottom
    for tick in (*found.x_ticks, *found.y_ticks):
        assert math.isfinite(tick.at)


# --- matplotlib ---------------------------------------------------------------------------------


class Axes:
    """A double of matplotlib's axes: keeps what is drawn, with the arguments that the real have."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []
        self.lines: list[float] = []
        self.texts: list[str] = []
        self.scale = "linear"

    def errorbar(self, x, y, *, yerr, fmt, capsize, color):
        ((below,), (above,)) = yerr
        assert min(below, above) >= 0
        self.points.append((x[0], y[0]))

    def annotate(self, text, xy, *, xytext, textcoords):
        self.texts.append(text)

    def axhline(self, y, *, color, linestyle, linewidth):
        self.lines.append(y)

    axvline = axhline

    def set_xscale(self, value):
        self.scale = value

    def set_xlabel(self, text):
        self.texts.append(text)

    set_ylabel = set_title = set_xlabel


def test_matplotlib_gets_each_timed_configuration():
    axes = Axes()
    assert plot_tuning(tuning_data(), axes) is axes
    assert [x for x, _ in axes.points] == [9.1e-4, 9e-4, 5e-7, 8e-4]
    assert axes.lines == [1.0, 1e-2]
    assert axes.scale == "log"
    assert axes.texts[-3:] == [
        "relative L2 error",
        "speed-up over eager, 95 % CI",
        "Net, batch 4 on NVIDIA Test",
    ]


def test_names_are_no_formulas_and_a_zero_loss_has_an_even_axis():
    trial = Trial("compile:x=$a^2$", "slower", "", error(0.0), Interval(1.5, 1.4, 1.6))
    axes = Axes()
    plot_tuning(tuning_data(trials=(*tuning_data().trials, trial)), axes)
    assert r"compile:x=\$a^2\$" in axes.texts
    assert axes.scale == "linear"


def test_without_any_timed_configuration_there_is_nothing_to_draw():
    with pytest.raises(PrecisionBenchError, match="no configuration has a speed-up and an error"):
        plot_tuning(SCENES["no losses"], Axes())


def test_matplotlib_itself_draws_it():
    figures = pytest.importorskip("matplotlib.figure")
    figure = figures.Figure(layout="constrained")
    assert plot_tuning(tuning_data(), figure.subplots()).figure is figure
    figure.canvas.draw()
