"""The report as a page: what any parser can tell of it. A browser's view is in test_browser.py."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import re
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import precisionbench as pb
from made_up_results import CLEAN, HALF_CONV, comparison, comparison_data, conv, evidence, recorded
from pages import HOSTILE, LEDGER, RECORDED, Page, hostile, large, page
from precisionbench import safe_text
from precisionbench._version import DOCS_URL
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.findings import ExperimentResult
from precisionbench.errors import OutputExistsError, SpecError
from precisionbench.report.html import escaping
from precisionbench.report.html import page as page_module
from precisionbench.report.html.page import to_html
from precisionbench.results import json_format
from precisionbench.statistics import Interval

pytestmark = pytest.mark.uncounted


def without_rows():
    return attrs.evolve(comparison_data(), results=(), reference="apex-amp")


SCENES = {
    **{name: lambda name=name: recorded(name) for name in RECORDED},
    "plain": comparison_data,
    "clean": lambda: comparison(**CLEAN),
    "without evidence": lambda: comparison(),
    "without rows": without_rows,
    "without reference": lambda: attrs.evolve(comparison_data(), reference="apex-amp"),
    "hostile": hostile,
    "large": lambda: large(3, 60),
}


@pytest.fixture(params=SCENES, scope="module")
def any_page(request) -> Page:
    return page(SCENES[request.param](), ledger=LEDGER)


# --- what every page must be --------------------------------------------------------------------


def test_it_is_well_formed(any_page):
    assert any_page.faults == []
    assert any_page.elements[0][0] == "html"
    assert any_page.all("html")[0]["lang"] == "en"


def test_the_page_makes_no_requests(any_page):
    for tag, attributes in any_page.elements:
        for name in ("src", "srcset", "action", "formaction", "data", "poster", "xlink:href"):
            assert name not in attributes, tag
        target = attributes.get("href", "#")
        is_link = tag == "a" and target.startswith(DOCS_URL)  # which a click follows
        assert target.startswith("#") or is_link or (tag, target) == ("link", "data:,")
    styles = "".join(any_page.texts["style"])
    assert "url(" not in styles
    assert "@import" not in styles
    ours = any_page.texts["script"][1]
    assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|import\(|sendBeacon|https?:", ours)


def test_the_policy_allows_only_our_script(any_page):
    policy = any_page.all("meta")[1]["content"]
    assert policy.startswith("default-src 'none'")
    for tag, text in (
        ("script", any_page.texts["script"][1]),
        ("style", any_page.texts["style"][0]),
    ):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    for tag, attributes in any_page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag


def test_ids_are_unique_and_internal_links_have_targets(any_page):
    ids = [attributes["id"] for _, attributes in any_page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for link in any_page.all("a"):
        assert link["href"].startswith("https:") or link["href"][1:] in ids
    for _, attributes in any_page.elements:
        assert attributes.get("aria-labelledby", ids[0]) in ids


def test_headings_are_in_order(any_page):
    levels = [int(tag[1]) for tag, _ in any_page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_picture_has_a_description(any_page):
    for svg in any_page.all("svg"):
        hidden = svg.get("aria-hidden") == "true"
        assert hidden or (svg["role"] == "img" and svg["aria-label"])


def test_every_table_has_a_caption_and_its_headings_a_scope(any_page):
    assert len(any_page.all("caption")) == len(any_page.all("table"))
    for heading in any_page.all("th"):
        assert heading["scope"] in ("row", "col")


def test_every_field_has_a_label(any_page):
    pairs = zip(any_page.elements, any_page.parents, strict=True)
    for (tag, attributes), parents in pairs:
        if tag in ("input", "select"):
            assert "label" in parents or "aria-label" in attributes


@pytest.mark.parametrize("name", SCENES)
def test_the_page_embeds_all_data(name):
    data = SCENES[name]()
    assert json_format.as_document(page(data).data) == json_format.as_document(data)


def test_large_data_is_packed(monkeypatch):
    data = recorded("depthwise")
    monkeypatch.setattr(page_module, "MAX_PLAIN_CHARACTERS", 10_000)
    found = page(data)
    packed = found.texts["script"][0]
    text = gzip.decompress(base64.b64decode(packed)).decode()
    assert pb.Comparison(data) == pb.Comparison(json_format.from_json(text))
    assert found.all("script")[0]["type"] == "application/gzip"


# --- what it says -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_run_has_all_parts_in_order(name):
    found = page(recorded(name))
    ids = [attributes["id"] for tag, attributes in found.elements if tag == "section"]
    assert ids == [
        *("table", "speedups", "latencies", "roofline", "time", "layers", "agreement"),
        *("findings", "answers", "environment", "raw"),
    ]


def test_a_recorded_run_shows_its_findings():
    text = page(recorded("channels-50")).text
    assert "Inconclusive: half measured 2.77x eager (95 % CI 2.74 to 2.80)" in text
    assert "layout conversions around convolutions" in text
    assert "use memory_format=channels_last for the model and its inputs" in text
    assert "input channels 50 is not a multiple of 8" in text
    assert "fp16 and bf16 990 TFLOP/s" in text
    assert "7.04 mJ/item" in text
    assert "147 MB" in text


def test_links_to_the_documentation_are_absolute_addresses_of_its_pages():
    found = page(recorded("channels-50"))
    addresses = {a["href"] for a in found.all("a") if not a["href"].startswith("#")}
    assert f"{DOCS_URL}/causes/layout-conversions.html" in addresses
    assert f"{DOCS_URL}/report.html" in addresses
    docs = Path(__file__).parent.parent / "docs"
    for address in addresses if docs.exists() else ():
        page_path = address.removeprefix(f"{DOCS_URL}/").removesuffix(".html")
        assert (docs / f"{page_path}.md").exists(), address


def test_the_package_links_to_the_same_documentation():
    pyproject = Path(__file__).parent.parent / "pyproject.toml"
    if not pyproject.exists():
        pytest.skip("the tests stand alone, without the repository")
    assert f'Documentation = "{DOCS_URL}"' in pyproject.read_text()


def test_the_main_findings_stand_under_the_headline_merged_by_cause():
    text = to_html(recorded("resnet50-five"))
    top = Page(text[text.index('<ul class="top"') : text.index("<nav")])
    shown = " ".join("".join(top.texts["li"]).split())
    assert len(top.all("li")) == 2
    assert "in : 1.48x without it (1.47 to 1.49)" in shown
    assert "in : up to 2.4x without it" in shown
    assert top.texts["span"] == ["confirmed", "(3 rows in all)", "suspected", "(3 rows in all)"]
    assert [a["href"] for a in top.all("a")] == ["#cause-layout-conversions", "#cause-memory-bound"]


def test_each_cause_is_shown_once_with_all_its_rows():
    data = recorded("resnet50-five")
    found = page(data)
    causes = [one.cause for one in diagnosis_of(data).findings]
    assert len(causes) > len(set(causes))
    ids = [article["id"] for article in found.all("article")]
    assert sorted(ids) == sorted({f"cause-{cause}" for cause in causes})
    assert found.text.count("use memory_format=channels_last for the model") == 1


def test_nothing_is_said_to_be_found_where_nothing_was_looked_for():
    assert "Not checked: no row was profiled." in page(comparison()).text
    assert "No known cause was found." in page(comparison(**CLEAN)).text


def test_the_layer_table_opens_on_the_fastest_row():
    found = page(recorded("resnet50-five"))
    assert [o["value"] for o in found.all("option") if "selected" in o] == ["0"]
    index = [o["value"] for o in found.all("option")].index("0")
    assert found.texts["option"][index] == "half:memory_format=channels_last"
    rows = [tr["data-row"] for tr in found.all("tr") if "data-row" in tr]
    assert rows == sorted(rows)


def test_names_of_kernels_show_their_dtype_and_are_whole_in_tooltips():
    found = page(recorded("resnet50-five"))
    assert "max_pool_forward_nhwc<Half,int>" in "".join(found.text.split())
    titles = [attributes.get("title", "") for tag, attributes in found.elements if tag == "bdi"]
    assert any(title.startswith("void at::native::(anonymous") for title in titles)


def test_a_false_label_comes_before_the_verdict():
    text = to_html(comparison(evidence(conv(0.3e-3, "float16", HALF_CONV)), CLEAN["half"]))
    assert text.index("False labels") < text.index('id="verdict"')


def test_failures_have_their_reasons():
    text = page(comparison_data()).text
    assert "Could not run" in text
    assert "needs Apex; get it" in text


def test_a_diagnosis_with_experiments_is_shown():
    data = recorded("channels-50")
    trial = ExperimentResult("channels-last", "layout-conversions", "half", Interval(1.7, 1.6, 1.8))
    text = page(data, diagnosis=diagnosis_of(data, [trial])).text
    assert "1.7x without it (1.6 to 1.8)" in text
    assert "(experiment: channels-last)" in text


def test_the_gap_needs_a_ledger():
    data = recorded("depthwise")
    assert 'id="gap"' not in to_html(data)
    assert 'id="gap"' in to_html(data, ledger=LEDGER)
    assert "gap-end" not in re.sub(
        "<style>.*?</style>", "", to_html(data, ledger=LEDGER), flags=re.S
    )
    with pytest.raises(SpecError, match="is not a row of a ledger; give"):
        to_html(data, ledger=[("x", "guessed", 2.0, None, None)])


def test_the_gap_of_a_ledger_names_its_ends_with_their_rates():
    found = pb.Comparison(recorded("resnet50-five"))
    gap = pb.explain_gap(found, "eager", "mlperf-v4.1-h200-resnet50-offline")
    text = page(found.data, ledger=gap).text
    assert "2,996 items/s: eager, batch 100" in text
    assert "94,620 items/s: mlperf-v4.1-h200-resnet50-offline" in text


# --- names that are not ours --------------------------------------------------------------------


def test_hostile_names_are_escaped():
    found = page(hostile())
    clean = page(comparison(**CLEAN))
    kinds = {tag for tag, _ in found.elements}
    assert not kinds - {tag for tag, _ in clean.elements} - {"li", "ul", "article", "dd", "dt"}
    assert len(found.all("script")) == 2
    assert "<script>document.title='owned'</script>" in found.text
    assert "{{ 7*7 }}" in found.text
    assert "49" not in found.all("title")[0]


def test_control_characters_in_names_are_replaced():
    text = to_html(hostile())
    for character in "\u202e\u2066\x00\x07":
        assert character not in text
    assert "שלום.עולם.مرحبا" in text
    text.encode()  # no lone surrogate is left


def test_very_long_names_are_cut_except_in_the_data():
    data = hostile()
    found = page(data)
    longest = max(len(word) for word in found.text.split())
    assert longest <= 2 * escaping.MAX_NAME
    titles = [attributes.get("title", "") for _, attributes in found.elements]
    assert max(map(len, titles)) < 500
    assert any("10,001 characters, all in the data" in title for title in titles)
    assert any(HOSTILE[-1] in e.path for e in found.data.results[0].evidence.errors)


@given(
    st.text(st.characters(exclude_characters="…", exclude_categories=["Cs"])), st.integers(3, 80)
)
def test_a_shortened_name_keeps_its_ends_and_its_length(text, length):
    short = escaping.shortened(text, length)
    assert len(short) <= length
    whole = safe_text.lines(text)
    if len(whole) <= length:
        assert short == whole
    else:
        start, _, end = short.partition("…")
        assert whole.startswith(start)
        assert whole.endswith(end)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_a_name_that_may_break_is_the_same_name(text):
    found = Page(f"<p>{escaping.breakable(text)}</p>")
    assert "".join(found.texts.get("p", [])) == text
    assert {tag for tag, _ in found.elements} <= {"p", "wbr"}


@given(st.text())
def test_json_in_a_script_has_no_markup_and_is_the_same_json(text):
    shown = escaping.script_json({"name": text})
    assert not set("<>&") & set(shown)
    assert shown.isascii()
    assert json.loads(shown) == {"name": text}


# --- the size of it -----------------------------------------------------------------------------


@pytest.mark.slow  # a large report
@pytest.mark.uncounted
def test_eight_backends_of_a_thousand_layers_take_five_megabytes_at_most(tmp_path):
    """How long it takes is in `benchmarks/report_of_many_layers.py`."""
    found = pb.Comparison(large())
    found.to_html(tmp_path / "r.html")
    assert (tmp_path / "r.html").stat().st_size < 5e6
    assert "are in the data only" in (tmp_path / "r.html").read_text()


# --- files and notebooks ------------------------------------------------------------------------


def test_an_existing_report_is_not_overwritten(tmp_path):
    found = pb.Comparison(recorded("depthwise"))
    file = tmp_path / "report.html"
    found.to_html(file)
    first = file.read_text()
    with pytest.raises(OutputExistsError, match="exists"):
        found.to_html(file)
    found.to_html(file, overwrite=True, ledger=LEDGER)
    assert len(file.read_text()) > len(first)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_same_result_gives_the_same_report():
    assert to_html(recorded("autocast")) == to_html(recorded("autocast"))


def test_the_notebook_table_has_no_script():
    found = pb.Comparison(hostile())._repr_html_()
    shown = Page(found)
    assert shown.faults == []
    assert not {"script", "style", "svg", "img"} & {tag for tag, _ in shown.elements}
    plain = pb.Comparison(recorded("channels-50"))._repr_html_()
    assert "2.77x" in plain
    assert len(plain) < 5000


def test_the_files_of_the_page_come_with_the_package():
    folder = Path(page_module.__file__).parent / "templates"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("frame.html", "macros.html", "notebook.html", "page.html", "tuning.html"),
        *("report.js", "style.css"),
    }
