"""Published numbers: the file that comes with the library, how they are found, what is refused."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

import precisionbench as pb
from precisionbench import published
from precisionbench.cli import main
from precisionbench.errors import PublishedDataError, RecordNotFoundError, SpecError
from precisionbench.published.imports.names import device_name
from precisionbench.published.reader import parse
from precisionbench.published.record import CONDITIONS, METRICS, STATUSES
from precisionbench.reference_data.peaks import devices_named

ALL = published.everything()
# Devices whose peaks are not known here, of which numbers were published all the same.
WITHOUT_PEAKS = {"GH200 96GB", "H100 NVL 94GB"}


def test_every_record_states_each_condition_or_names_it_as_unknown():
    for record in ALL:
        for condition in CONDITIONS:
            told = getattr(record, condition) is not None
            assert told != (condition in record.unknown), (record, condition)


def test_every_record_names_its_device_as_imported_ones_do():
    for device in {record.device for record in ALL} - WITHOUT_PEAKS:
        assert devices_named(device) or device_name(device).endswith(device.partition("x ")[2]), (
            device
        )


def test_every_record_has_a_source():
    for record in ALL:
        assert re.fullmatch(r"https?://\S+", record.source_url), record
        assert record.date == "" or "2018" <= record.date[:4] <= "2026", record


def test_the_founding_rows_are_as_they_were_reported():
    found = published.find(device="agx xavier", model="resnet50", batch=100)
    assert [record.value for record in found] == [308, 310, 310, 308, 309]
    assert all(record.id.startswith("founding-agxxavier-resnet50-b100-") for record in found)
    assert {record.status for record in found} == {"reported"}
    assert all("not measured here" in record.notes for record in found)
    assert "doubtful" in found[-1].precision_note


def test_a_source_that_could_not_be_read_is_unverified():
    record = published.get("nvidia-blog-agx-xavier-resnet50")
    assert record.value == 1941
    assert record.status == "unverified"
    assert "page itself was not available" in record.notes
    assert record.engines == "not known"


@pytest.mark.parametrize(
    ("id", "per_accelerator"),
    [
        ("mlperf-v0.7-t4-resnet50-offline", 6036),
        ("mlperf-v3.0-a100-sxm4-80gb-resnet50-offline", 42379),
        ("mlperf-v4.1-h200-resnet50-offline", 94620),
        ("mlperf-v4.1-dell-h200-resnet50-offline", 96029),
        ("mlperf-v0.7-dividiti-agx-xavier-resnet50-offline", 1301),
    ],
)
def test_a_rate_is_given_per_accelerator(id, per_accelerator):
    assert published.get(id).value_per_accelerator == pytest.approx(per_accelerator, abs=1)


@pytest.mark.parametrize("name", ["agx xavier", "Jetson AGX Xavier (MAXN)", "jetson-agx-xavier"])
@pytest.mark.parametrize("model", ["resnet50", "torchvision:resnet50", "ResNet-50"])
def test_devices_and_models_are_found_by_any_of_their_names(name, model):
    found = pb.published.find(device=name, model=model)
    assert found == published.find(device="jetson-agx-xavier", model="resnet50")
    assert len(found) > 20


def test_a_search_for_a_variant_excludes_records_without_one():
    wanted = published.find(device="agx xavier", model="ResNet-50 v1.5")
    assert {record.variant for record in wanted} == {"v1.5"}
    assert len(wanted) < len(published.find(device="agx xavier", model="resnet50"))


def test_a_device_does_not_match_records_of_similarly_named_devices():
    some = published.find(device="a100-sxm4-80gb")
    every = published.find(device="A100")
    assert {record.device for record in some} == {"a100-sxm4-80gb"}
    assert {"A100 40GB", "a100-sxm4-80gb", "a100-pcie-40gb"} <= {r.device for r in every}


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ({"device": "agx xaver"}, "agx xavier"),
        ({"model": "resnet51"}, "resnet50"),
        ({"precision": "int9"}, "int8"),
        ({"metric": "ofline"}, "offline"),
    ],
)
def test_unknown_names_are_an_error_with_suggestions(asked, near):
    with pytest.raises(SpecError, match=f"did you mean '{near}'"):
        published.find(**asked)


def test_an_unknown_id_is_an_error_with_suggestions():
    with pytest.raises(RecordNotFoundError, match="mlperf-v4.1-h200-resnet50-offline"):
        published.get("mlperf-v4.1-h200-resnet50-ofline")


FILE = """\
[source.mine]
title = "My own measurements"
url = "https://example.org/numbers"
date = "2026-11"

[source.mine.shared]
device = "jetson-agx-xavier"
model = "resnet50"
metric = "wall-synchronised"
status = "reported"
confidence = "high"

[[record]]
id = "mine-1"
source = "mine"
input = "3x224x224"
precision = "fp16"
batch = 8
gpus = 1
dlas = 0
value = 250.5
unit = "images/s"
unknown = ["sparsity", "power_mode", "software"]
"""


@pytest.fixture
def written(tmp_path) -> Callable[[str], Path]:
    def write(text: str, name: str = "mine.toml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_a_record_has_the_shared_fields_of_its_source(written):
    (record,) = published.read(written(FILE))
    assert (record.device, record.value, record.date) == ("jetson-agx-xavier", 250.5, "2026-11")
    assert record.source_url == "https://example.org/numbers"
    assert record.power_mode is None
    assert record.unknown == ("sparsity", "power_mode", "software")


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ('unit = "images/s"', 'unit = "image/s"', 22, "unit is 'image/s'.*did you mean 'images/s'"),
        ("batch = 8\n", "", 13, "the condition batch is missing.*unknown"),
        ("batch = 8", "batchs = 8", 18, "no field 'batchs'; did you mean 'batch'|batchs"),
        ("batch = 8", 'batch = "8"', 18, "batch is '8', and must be a whole number"),
        ("batch = 8", "batch = true", 18, "batch is True"),
        ("batch = 8", "batch = 0", 18, "batch is 0"),
        ("250.5", "-250.5", 21, "value is -250.5, and must be a number above 0"),
        ("250.5", "nan", 21, "value is nan"),
        ("250.5", "inf", 21, "value is inf"),
        ("250.5", "0", 21, "value is 0"),
        ("value = 250.5\n", "", 13, "value is missing"),
        ('unit = "images/s"\n', "", 13, "unit is missing"),
        ('source = "mine"\ninput', 'source = "mein"\ninput', 15, "no .source.mein.*'mine'"),
        ('precision = "fp16"', 'precision = "half"', 17, "precision is 'half'"),
        (
            '"fp16"',
            '"fp16"\nsparsity = "dense"',
            18,
            "sparsity is given and also listed as unknown",
        ),
        ('"power_mode"', '"power"', 23, "unknown lists 'power'"),
        ('["sparsity"', '[["sparsity"]', 23, "unknown lists"),
        ('id = "mine-1"', 'id = "Mine 1"', 14, "id is 'Mine 1'"),
        ('"https://example.org/numbers"', '"example.org"', 3, "url is 'example.org'"),
        ('"2026-11"', '"2026-13"', 4, "date is '2026-13'"),
        ('"2026-11"', "2026-11-01", 4, "must be text"),
        ('title = "My own measurements"\n', "", 1, "title is missing"),
        ("[[record]]", "[[records]]", 13, "no field 'records'"),
        ('metric = "wall-synchronised"', 'metric = "wall"', 9, "metric is 'wall'"),
        ('status = "reported"', 'status = "reported"\nvalue = 3', 11, "no field 'value'"),
        ("250.5", "250.5.5", 21, "is not valid TOML"),
    ],
)
def test_errors_name_the_line(written, old, new, line, reason):
    assert old in FILE
    with pytest.raises(PublishedDataError, match=reason) as refused:
        published.read(written(FILE.replace(old, new)))
    assert re.search(rf"line {line}\b", str(refused.value)), refused.value
    assert "mine.toml" in str(refused.value)


def test_a_duplicate_id_is_an_error_with_the_line_of_the_second(written):
    twice = FILE + FILE[FILE.index("[[record]]") :]
    with pytest.raises(PublishedDataError, match="line 25: the id 'mine-1' is used twice"):
        published.read(written(twice))


def test_an_error_without_a_known_line_names_none(written):
    text = "record = [{id = 'mine-1', source = 'mine'}]\n" + FILE[: FILE.index("[[record]]")]
    with pytest.raises(PublishedDataError, match=r"mine\.toml: value is missing"):
        published.read(written(text))


@pytest.mark.parametrize("text", ["record = 3", "source = 3", "[source]\nmine = 3", "record = [3]"])
def test_a_file_with_another_structure_is_an_error(written, text):
    with pytest.raises(PublishedDataError, match=r"mine\.toml"):
        published.read(written(text))


def test_an_unreadable_file_is_an_error(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "none.toml", tmp_path, tmp_path / "binary"):
        with pytest.raises(PublishedDataError, match="cannot be read"):
            published.read(path)


def test_a_users_records_are_found_together_with_the_bundled_ones(written, monkeypatch):
    path = written(FILE)
    (mine,) = published.find(device="agx xavier", batch=8, precision="float16", file=path)
    assert mine.id == "mine-1"
    monkeypatch.setenv("PRECISIONBENCH_PUBLISHED", str(path))
    assert published.get("mine-1") == mine
    assert published.get("mine-1", file=path) == mine  # the same file twice is no duplicate


def test_a_users_record_cannot_replace_a_bundled_one(written):
    taken = FILE.replace("mine-1", "nvidia-blog-agx-xavier-resnet50")
    with pytest.raises(PublishedDataError, match=r"is already used in published\.toml"):
        published.find(file=written(taken))


def test_a_users_record_can_name_any_device_and_model(written):
    text = FILE.replace("jetson-agx-xavier", "Toaster 3000").replace('"resnet50"', '"my-net"')
    (mine,) = published.find(device="toaster-3000", model="my_net", file=written(text))
    assert mine.id == "mine-1"


def entry(value: str) -> EntryPoint:
    return EntryPoint("mine", value, published.search.GROUP)


@pytest.mark.parametrize("value", ["their_numbers:PATH", "their_numbers:path"])
def test_a_package_adds_records_by_an_entry_point(written, monkeypatch, tmp_path, value):
    path = written(FILE)
    code = f"PATH = {str(path)!r}\ndef path():\n    return PATH\n"
    written(code, "their_numbers.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_numbers", raising=False)
    monkeypatch.setattr(published.search, "entry_points", lambda group: [entry(value)] * 2)
    assert published.get("mine-1").origin == str(path)


def test_a_package_whose_records_cannot_be_loaded_is_named(monkeypatch):
    entries = [entry("no_such_module_of_numbers:PATH")]
    monkeypatch.setattr(published.search, "entry_points", lambda group: entries)
    with pytest.raises(PublishedDataError, match="'mine' of a package cannot be loaded"):
        published.find()


names = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), min_size=1).filter(
    lambda text: text.strip() and text.isprintable()
)


@settings(deadline=None)
@given(
    value=st.floats(1e-6, 1e12),
    batch=st.none() | st.integers(1, 10**6),
    gpus=st.integers(1, 64),
    model=names,
    notes=names,
)
def test_a_written_record_is_read_back(value, batch, gpus, model, notes):
    text = FILE.replace("value = 250.5", f"value = {value!r}").replace("gpus = 1", f"gpus = {gpus}")
    text = text.replace('model = "resnet50"', f"model = {json.dumps(model, ensure_ascii=False)}")
    text += f"notes = {json.dumps(notes, ensure_ascii=False)}\n"
    if batch is None:
        text = text.replace("batch = 8\n", "").replace('unknown = ["', 'unknown = ["batch", "')
    else:
        text = text.replace("batch = 8", f"batch = {batch}")
    (record,) = parse(text, "generated")
    assert (record.value, record.batch, record.gpus) == (value, batch, gpus)
    assert (record.model, record.notes) == (model, notes)
    assert record.value_per_accelerator == pytest.approx(value / gpus)
    assert ("batch" in record.unknown) == (batch is None)


@settings(deadline=None, max_examples=300)
@given(
    st.integers(0, len(FILE)),
    st.integers(0, 12),
    st.sampled_from(
        ["", "3", "true", "[]", "{}", '"', "\n", "[3]", "[[record]]", "x = 1\n", "nan"]
    ),
)
def test_a_damaged_file_is_read_or_is_a_published_data_error(start, length, put):
    with contextlib.suppress(PublishedDataError):
        parse(FILE[:start] + put + FILE[start + length :], "damaged")


@pytest.mark.parametrize(
    "old",
    [
        "My own",
        "resnet50",
        "wall-",
        "reported",
        "high",
        "mine-1",
        "mine",
        "3x2",
        "fp16",
        "sparsity",
    ],
)
@pytest.mark.parametrize("value", ["3", "true", "[]", "{ a = 1 }", "[[1], {}]", "1979-05-27"])
def test_a_value_of_another_type_is_an_error(old, value):
    line = next(line for line in FILE.splitlines() if "=" in line and old in line.partition("=")[2])
    text = FILE.replace(line, f"{line.partition('=')[0]}= {value}")
    with pytest.raises(PublishedDataError):
        parse(text, "another kind")


@settings(deadline=None)
@given(st.sampled_from(ALL), st.sampled_from(["items", "img/s", "FPS", "", "MS", "images"]))
def test_an_unknown_unit_is_an_error(record, unit):
    with pytest.raises(PublishedDataError, match="unit"):
        parse(FILE.replace("images/s", unit), record.id)


def test_a_latency_is_converted_to_a_rate_if_its_batch_is_known():
    record = published.get("mlperf-v0.5-agx-xavier-resnet50-single-stream")
    assert record.unit == "ms"
    assert record.value_per_accelerator == record.value
    assert record.items_per_s == pytest.approx(1000 / record.value)
    assert attrs.evolve(record, batch=None).items_per_s is None


@pytest.mark.parametrize(
    ("gpus", "dlas", "text"),
    [
        (1, 0, "GPU"),
        (1, 2, "GPU + 2 DLAs"),
        (0, 1, "DLA"),
        (8, 0, "8 GPUs"),
        (1, None, "GPU + DLAs not known"),
        (None, None, "not known"),
    ],
)
def test_engines_are_described_in_words(gpus, dlas, text):
    assert attrs.evolve(ALL[0], gpus=gpus, dlas=dlas).engines == text


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["published", *args])


def test_the_command_lists_ids_that_can_be_copied_in_80_columns():
    done = run("--device", "agx xavier", "--model", "resnet50")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert "  nvidia-blog-agx-xavier-resnet50  unverified" in lines
    assert "  mlperf-v0.7-agx-xavier-resnet50-offline" in lines
    assert any(re.search(r"2,075 samples/s +int8 +batch 64\+32 +GPU \+ 2 DLAs", x) for x in lines)
    assert max(map(len, run().stdout.splitlines())) <= 80


def test_the_command_shows_all_fields_of_a_record():
    done = run("--id", "mlperf-v4.1-h200-resnet50-offline")
    assert "94,620 samples/s of each of 8" in done.stdout
    assert "198fc46799b3328b36ee4bcbdebfa2db5a8e6183/closed/NVIDIA/results" in done.stdout
    assert "possible" in done.stdout


def test_the_command_prints_json_with_derived_figures():
    document = json.loads(run("--id", "mlperf-v4.1-h200-resnet50-offline", "--json").stdout)
    (record,) = document["records"]
    assert document["format"] == "precisionbench.published"
    assert (record["value_per_accelerator"], record["n_accelerators"]) == (94620, 8)
    assert record["judgements"][0]["verdict"] == "possible"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--id", "mlperf-v4.1-h200-resnet50"], "did you mean 'mlperf-v4.1-h200-resnet50-offline'"),
        (["--device", "h201"], "did you mean 'h200'"),
        (["--model", "resnet51"], "did you mean 'resnet50'"),
        (["--id", "x", "--model", "resnet50"], "--id names one record"),
        (["--file", "no.toml"], "no.toml cannot be read"),
    ],
)
def test_the_command_exits_with_2_and_suggests_names(args, said):
    done = run(*args)
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--device", "h200", "--model", "resnet50", "--precision", "fp32"], "numbers in int8"),
        (["--device", "t4", "--model", "vgg16"], "for other models: 3d-unet-99.9, bert-"),
        (["--device", "tx2", "--model", "vgg16"], "on other devices: jetson-agx-xavier"),
    ],
)
def test_without_a_match_the_command_lists_what_exists(args, said):
    done = run(*args)
    assert done.exit_code == 0
    assert said in done.stdout


def test_the_example_in_the_documentation_is_read():
    page = Path(__file__).parents[1] / "docs" / "published.md"
    if not page.exists():
        pytest.skip("the tests stand alone, without the repository")
    example = re.search(r"```toml\n(\[source\..*?)```", page.read_text(), re.DOTALL)
    (record,) = parse(example[1], "the example")
    assert (record.id, record.value) == ("our-lab-agx-xavier-resnet50-b8-fp16", 250.5)


def test_the_documentation_names_every_metric_and_status():
    page = Path(__file__).parents[1] / "docs" / "published.md"
    if not page.exists():
        pytest.skip("the tests stand alone, without the repository")
    text = page.read_text()
    assert all(f"`{metric}`" in text for metric in METRICS)
    assert all(f"**{status}**" in text for status in STATUSES)
