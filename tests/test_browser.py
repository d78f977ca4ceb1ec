"""The report as a browser shows it: Chromium, without a window."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import precisionbench as pb
from made_up_results import recorded
from made_up_studies import everything
from pages import LEDGER, RECORDED, hostile, large
from precisionbench.report.html import page as page_module
from precisionbench.results import json_format

pytestmark = pytest.mark.browser
# Browsers that distributions install; else playwright's own is taken.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium; without one, tests are skipped with the reason."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = os.environ.get("PRECISIONBENCH_CHROMIUM") or next(
        filter(None, map(shutil.which, NAMES)), None
    )
    with playwright.sync_playwright() as driver:
        try:
            found = driver.chromium.launch(executable_path=path)
        except playwright.Error as exc:
            pytest.skip(
                f"needs a Chromium (playwright install chromium): {str(exc).splitlines()[0]}"
            )
        yield found
        found.close()


class Shown:
    """A page in the browser, with its errors and requests."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": DESK, **options})
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *_: object) -> None:
        self.context.close()
        assert self.complaints == []
        assert [
            url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))
        ] == []
        assert len([url for url in self.requests if url.startswith("file:")]) == 1


SCENES = {
    **{name: lambda name=name: recorded(name) for name in RECORDED},
    "hostile": hostile,
    "large": lambda: large(8, 200),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    found = {}
    for name, make in SCENES.items():
        found[name] = folder / f"{name}.html"
        pb.Comparison(make()).to_html(found[name], ledger=LEDGER)
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("name", SCENES)
def test_the_page_has_no_errors_and_no_horizontal_scrolling(browser, files, name, viewport, scheme):
    with Shown(browser, files[name], viewport=viewport, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        assert page.title() != "owned"
        assert page.locator("h1").is_visible()


@pytest.mark.parametrize("name", SCENES)
def test_everything_fits_a_phone_or_scrolls_by_itself(browser, files, name):
    with Shown(browser, files[name], viewport=PHONE) as page:
        wide = page.evaluate(
            """() => [...document.querySelectorAll("main *, header *")]
                .filter((e) => !e.closest(".scroll, .skip, svg, .summary thead"))
                .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
                .map((e) => e.outerHTML.slice(0, 80))"""
        )
        assert wide == []


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_the_report_of_a_study_fits_the_screen_and_its_verdicts_one_line(
    browser, tmp_path, viewport
):
    pb.load_study(*everything()).to_html(tmp_path / "study.html")
    with Shown(browser, tmp_path / "study.html", viewport=viewport) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        heights = page.locator("tbody tr:has(td.verdict)").evaluate_all(
            "e => e.map((e) => e.offsetHeight)"
        )
        assert max(heights) < 1.5 * min(heights)


def column(page: Any, number: int) -> list[str]:
    """The visible cells of a column of the layer table."""
    rows = page.locator(f"#layer-table tbody tr:not([hidden]) > :nth-child({number})")
    return [text.strip() for text in rows.all_inner_texts()]


def seconds(texts: list[str]) -> list[float]:
    units = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
    return [float(text.split()[0]) * units[text.split()[1]] for text in texts]


def test_layers_are_sorted_by_a_click_and_by_keyboard(browser, files):
    with Shown(browser, files["channels-50"]) as page:
        time = page.get_by_role("button", name="time", exact=True)
        time.click()
        assert seconds(column(page, 4)) == sorted(seconds(column(page, 4)))
        assert page.locator("#layer-table th[aria-sort]").get_attribute("aria-sort") == "ascending"
        time.press("Enter")
        assert seconds(column(page, 4)) == sorted(seconds(column(page, 4)), reverse=True)
        assert page.locator("#layer-table th[aria-sort]").get_attribute("aria-sort") == "descending"
        page.get_by_role("button", name="class").click()
        assert column(page, 2) == ["Conv2d"] * 6 + ["ReLU"] * 6


def test_unknown_values_are_sorted_last_in_both_directions(browser, files):
    with Shown(browser, files["channels-50"]) as page:
        for _ in range(2):
            page.get_by_role("button", name="dtype").click()
            assert column(page, 8) == ["float16"] * 6 + [""] * 6


def test_layers_can_be_searched(browser, files):
    with Shown(browser, files["channels-50"]) as page:
        page.locator("#layer-search").fill("relu")
        assert set(column(page, 2)) == {"ReLU"}
        assert page.locator("#layer-count").inner_text() == "6 of 12 shown"
        page.get_by_role("button", name="layer", exact=True).click()
        page.locator("#layer-search").fill("no such layer")
        assert column(page, 1) == []
        page.locator("#layer-search").fill("")
        assert len(column(page, 1)) == 12


def test_layers_can_be_filtered_by_backend(browser, files):
    with Shown(browser, files["large"]) as page:
        page.locator("#layer-row").select_option(label="half:variant=3")
        assert set(column(page, 3)) == {"half:variant=3"}
        assert page.locator("#layer-count").inner_text() == "200 of 1400 shown"


def test_the_bars_of_the_waterfall_are_as_long_as_the_ledgers_factors(browser, files):
    with Shown(browser, files["channels-50"]) as page:
        bars = page.locator("#waterfall rect.bar").evaluate_all(
            "bars => bars.map((b) => [b.dataset.kind, b.getBoundingClientRect().x, "
            "b.getBoundingClientRect().width])"
        )
        labels = page.locator("#waterfall bdi").all_inner_texts()
    assert labels == [*(row[0] for row in LEDGER), "together"]
    assert [kind for kind, _, _ in bars] == [*(row[1] for row in LEDGER), "total"]
    factors = [*(row[2] for row in LEDGER), math.prod(row[2] for row in LEDGER)]
    unit = bars[-1][2] / math.log(factors[-1])
    for (_, _, width), factor in zip(bars, factors, strict=True):
        assert width == pytest.approx(unit * abs(math.log(factor)), abs=1)
    assert bars[0][1] == pytest.approx(bars[-1][1], abs=1)


def saved(page: Any, folder: Path) -> dict[str, Any]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as JSON").click()
    assert download.value.suggested_filename == "precisionbench.json"
    download.value.save_as(folder / "saved.json")
    return json.loads((folder / "saved.json").read_text())


def test_saved_data_of_the_page_can_be_loaded(browser, files, tmp_path):
    with Shown(browser, files["channels-50"]) as page:
        saved(page, tmp_path)
    assert pb.load(tmp_path / "saved.json") == pb.Comparison(recorded("channels-50"))


def test_packed_data_is_unpacked_when_it_is_saved(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "MAX_PLAIN_CHARACTERS", 10)
    data = hostile()
    pb.Comparison(data).to_html(tmp_path / "r.html")
    with Shown(browser, tmp_path / "r.html") as page:
        assert saved(page, tmp_path) == json_format.as_document(data)


def test_the_page_works_without_scripts(browser, files):
    with Shown(browser, files["channels-50"], java_script_enabled=False) as page:
        assert page.locator("#layer-table tbody tr").count() == 12
        assert not page.locator("#layer-search").is_visible()
        assert not page.locator("#download").is_visible()
        assert page.get_by_text("Saving it needs JavaScript").is_visible()


CONTRAST = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (numbers(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const text = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const svg = e.closest("svg");
    if (!text || !e.getClientRects().length || e.closest("title, script, style")) continue;
    const rect = svg && e.parentElement.querySelector("rect, circle");
    const ground = rect && /in-part|middle/.test(e.getAttribute("class")) && e.parentElement !== svg
      ? getComputedStyle(rect).fill : behind(svg ? svg.parentElement : e);
    const style = getComputedStyle(e);
    const [a, b] = [light(svg ? style.fill : style.color), light(ground)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([e.outerHTML.slice(0, 90), ratio.toFixed(2)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["autocast", "channels-50", "large"])
def test_all_text_has_enough_contrast(browser, files, name, scheme):
    """WCAG 2.2, 1.4.3: a contrast of 4.5 at least."""
    with Shown(browser, files[name], color_scheme=scheme) as page:
        assert page.evaluate(CONTRAST) == []


def test_the_colour_scheme_is_that_of_the_system(browser, files):
    grounds = []
    for scheme in ("light", "dark"):
        with Shown(browser, files["depthwise"], color_scheme=scheme) as page:
            grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(255, 255, 255)", "rgb(15, 20, 25)"]


def test_the_printed_page_is_light_unfolded_and_without_buttons(browser, files, tmp_path):
    with Shown(browser, files["channels-50"], color_scheme="dark") as page:
        page.pdf(path=tmp_path / "r.pdf", prefer_css_page_size=True)
        assert (tmp_path / "r.pdf").stat().st_size > 10_000
        page.emulate_media(media="print")
        assert (
            page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        opened = page.locator("details").evaluate_all("found => found.map((e) => e.open)")
        assert opened == [False, False], "as before printing"
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        opened = page.locator("details").evaluate_all("found => found.map((e) => e.open)")
        assert opened == [True, True]
        assert not page.locator("#download").is_visible()
        assert not page.locator("nav").is_visible()


def test_of_many_layers_the_first_of_the_selected_backend_are_printed(browser, files):
    with Shown(browser, files["large"]) as page:
        page.locator("#layer-row").select_option(label="half:variant=3")
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        printed = page.locator("#layer-table tbody tr:visible")
        assert printed.count() == 40
        shown = printed.evaluate_all("found => found.map((e) => e.dataset.row)")
        selected = page.locator("#layer-row").input_value()
        assert set(shown) == {selected}


def test_without_scripts_the_layers_of_the_fastest_backend_are_printed(browser, files):
    with Shown(browser, files["large"], java_script_enabled=False) as page:
        page.emulate_media(media="print")
        assert page.locator("#layer-table tbody tr:visible").count() == 40
        assert page.locator("#layer-table tbody tr:visible[data-row='0']").count() == 40


def test_the_layer_table_opens_on_the_fastest_backend(browser, files):
    with Shown(browser, files["large"]) as page:
        assert page.locator("#layer-row option:checked").inner_text() == "half:variant=7"
        assert page.locator("#layer-count").inner_text() == "200 of 1400 shown"
        assert not page.get_by_role("button", name="backend").is_visible()
        page.locator("#layer-row").select_option(label="all")
        assert page.locator("#layer-count").inner_text() == "1400 of 1400 shown"
        assert page.get_by_role("button", name="backend").is_visible()


@pytest.mark.parametrize("name", SCENES)
def test_layers_are_read_on_a_phone_without_scrolling_sideways(browser, files, name):
    with Shown(browser, files[name], viewport=PHONE) as page:
        table = page.locator("#layer-table")
        assert table.evaluate("e => e.scrollWidth <= e.parentElement.clientWidth")
        row = page.locator("#layer-table tbody tr:visible").first
        assert row.evaluate(
            """e => [...e.cells].every((c) => c.getBoundingClientRect().right <= innerWidth)"""
        )
        assert page.get_by_role("button", name="time", exact=True).is_visible()


NUMBERS_THAT_OVERLAP = """() => {
  const boxes = [...document.querySelectorAll(".roofline .point circle")]
    .map((e) => e.getBoundingClientRect());
  return boxes.filter((a, i) => boxes.some((b, j) => i < j &&
    Math.hypot(a.x - b.x, a.y - b.y) < a.width - 0.5)).length;
}"""


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("name", ["channels-50", "large"])
def test_no_number_of_the_roofline_hides_another(browser, files, name, viewport):
    with Shown(browser, files[name], viewport=viewport) as page:
        assert page.locator(".roofline .point").count() > 1
        assert page.evaluate(NUMBERS_THAT_OVERLAP) == 0


def test_everything_can_be_reached_by_keyboard(browser, files):
    with Shown(browser, files["channels-50"]) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
        seen = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            seen.add(
                page.evaluate("document.activeElement.id || document.activeElement.textContent")
            )
        assert {"layer-search", "layer-row", "download", "time", "error"} <= seen
