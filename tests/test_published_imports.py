"""Imported numbers: MLPerf's and timm's files, what is refused, and where they are kept."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

import precisionbench as pb
from precisionbench import published
from precisionbench.cli import main
from precisionbench.errors import PublishedDataError
from precisionbench.published.imports import mlperf, timm
from precisionbench.published.imports.names import device_name, precision_name
from test_published import FILE

# Rows as in the summary_results.json of MLPerf Inference v5.1, with made-up values.
ROW = {
    "ID": "9.1-0001",
    "Submitter": "NVIDIA",
    "Availability": "available",
    "Category": "closed",
    "Suite": "datacenter",
    "System": "H200 system",
    "Platform": "H200-SXM-141GBx8_TRT",
    "UsedModel": "resnet50",
    "Model": "resnet",
    "Scenario": "Offline",
    "Accuracy": "acc: 76.078",
    "Nodes": 1,
    "Processor": "Intel(R) Xeon(R) Platinum 8480C",
    "host_processors_per_node": 2,
    "Accelerator": "NVIDIA H200-SXM-141GB",
    "a#": 8,
    "Location": "closed/NVIDIA/results/H200-SXM-141GBx8_TRT/resnet50/Offline",
    "Software": "TensorRT 10.2.0, CUDA 12.4",
    "version": "v9.1",
    "has_power": False,
    "weight_data_types": "int8",
    "Details": "https://github.com/mlcommons/inference_results_v9.1/tree/main/closed/NVIDIA",
    "Performance_Result": 700000.5,
    "Performance_Units": "Samples/s",
}
TABLE = """\
model,infer_img_size,infer_samples_per_sec,infer_step_time,infer_batch_size,param_count,infer_gmacs,infer_macts
resnet50,224,1234.5,829.49,1024,25.56,4.11,11.11
vit_base_patch16_224,224,321.25,3187.55,1024,86.57,16.87,16.49
resnet50,288,,,1024,25.56,6.8,18.4
"""
NAME = "benchmark-infer-amp-nchw-pt291-cu130-5090-dynamo.csv"


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PRECISIONBENCH_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data/published"


@pytest.fixture
def write(tmp_path):
    def write(content: object, name: str = "summary_results.json") -> Path:
        file = tmp_path / name
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    return write


def one(**changes: object) -> published.Record:
    """The record of a row of MLPerf."""
    (record,) = mlperf.parse([{**ROW, **changes}], "file").records
    return record


def test_a_row_of_mlperf():
    record = one()
    assert record.id == "mlperf-v9.1-nvidia-h200-sxmx8-resnet50-offline"
    assert (record.device, record.gpus, record.dlas) == ("h200-sxm", 8, 0)
    assert (record.model, record.variant, record.input) == ("resnet50", "v1.5", "3x224x224")
    assert (record.precision, record.metric, record.unit) == ("int8", "offline", "samples/s")
    assert record.value_per_accelerator == pytest.approx(87500.0625)
    assert (record.accuracy, record.framework) == ("acc: 76.078", "TensorRT")
    assert (record.status, record.confidence) == ("cited", "high")
    assert record.source_url == ROW["Details"]
    assert record.unknown == ("batch", "sparsity", "power_mode")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"Scenario": "Server", "Performance_Units": "Queries/s"}, ("server", "samples/s", None)),
        (
            {"Scenario": "SingleStream", "Performance_Units": "Latency (ms)"},
            ("single-stream", "ms", 1),
        ),
        (
            {"Scenario": "MultiStream", "Performance_Units": "Latency (ms)"},
            ("multi-stream", "ms", 8),
        ),
        (
            {"Scenario": "Interactive", "Performance_Units": "Tokens/s"},
            ("interactive", "tokens/s", None),
        ),
    ],
)
def test_scenarios_and_units_of_mlperf(changes, expected):
    record = one(**changes)
    assert (record.metric, record.unit, record.batch) == expected


@pytest.mark.parametrize(
    ("stated", "precision", "note"),
    [
        ("INT8", "int8", "INT8"),
        ("bfloat16", "bf16", "bfloat16"),
        ("fp8,fp16,int8", "mixed", "fp8,fp16,int8"),
        ({"unet": "fp8", "vae": "int8"}, "mixed", "unet: fp8, vae: int8"),
        ("UINT4", "int4", "UINT4"),
        ("posit", None, "posit"),
        ("", None, ""),
    ],
)
def test_data_types_of_weights(stated, precision, note):
    record = one(weight_data_types=stated)
    assert record.precision == precision
    assert record.precision_note.endswith(note)
    assert ("precision" in record.unknown) == (precision is None)


def test_a_system_without_accelerators_is_one_cpu_device():
    record = one(Accelerator="", **{"a#": 0})
    assert record.device == "2x Intel Xeon Platinum 8480C"
    assert (record.gpus, record.dlas, record.engines) == (0, 0, "CPU")
    assert record.value_per_accelerator == record.value


def test_a_submission_before_review_is_reported():
    assert one(Details="https://github.com/x/submissions_inference_9.1").status == "reported"
    assert one(Details="not an address").source_url == ""


def test_queries_of_a_language_model_are_doubtful_where_others_are_in_tokens():
    model = {"UsedModel": "llama3.1-8b", "Accuracy": ""}
    offline = {**ROW, **model, "Performance_Units": "Tokens/s"}
    queries = {**ROW, **model, "Scenario": "Interactive", "Performance_Units": "Queries/s"}
    records = mlperf.parse([offline, queries], "file").records
    assert [record.unit for record in records] == ["tokens/s", "tokens/s"]
    assert [bool(record.doubt) for record in records] == [False, True]


def test_rows_without_a_usable_number_are_counted():
    rows = [
        ROW,
        ROW,
        {**ROW, "Nodes": 4},
        {**ROW, "Performance_Units": "Watts"},
        {**ROW, "Scenario": "Training"},
        {**ROW, "Performance_Result": None},
    ]
    parsed = mlperf.parse(rows, "file")
    assert len(parsed.records) == 1
    assert parsed.left_out == {
        "the same row twice": 1,
        "a result of several nodes": 1,
        "unit 'Watts'": 1,
        "scenario 'Training'": 1,
        "no result": 1,
    }


def test_different_rows_have_different_ids():
    rows = [ROW, {**ROW, "Performance_Result": 5.5}, {**ROW, "Platform": "another"}]
    ids = [record.id for record in mlperf.parse(rows, "file").records]
    assert ids == [ids[0], f"{ids[0]}-2", f"{ids[0]}-3"]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({}, "is not a list of MLPerf's results"),
        ([], "is not a list"),
        ([3], "row 1: it is 3, and must be an object"),
        ([{**ROW, "Performance_Result": "many"}], "row 1: Performance_Result is 'many'"),
        ([{**ROW, "Performance_Result": -1.0}], "row 1: value is -1.0"),
        ([{**ROW, "a#": [8]}], "row 1: a# is a list"),
        ([ROW, {"Submitter": "x"}], "row 2: Platform is missing"),
        ([{**ROW, "Nodes": 2}], "no number to import .1 x a result of several nodes"),
    ],
)
def test_wrong_rows_of_mlperf_are_an_error_in_one_sentence(rows, reason):
    with pytest.raises(PublishedDataError, match=reason) as refused:
        mlperf.parse(rows, "summary.json")
    assert "summary.json" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_table_of_timm():
    parsed = timm.parse(TABLE, NAME, None, None)
    first, second = parsed.records
    assert parsed.left_out == {"no rate": 1}
    assert first.id == "timm-rtx-5090-mixed-nchw-compile-2.9.1-resnet50-224"
    assert second.id == "timm-rtx-5090-mixed-nchw-compile-2.9.1-vit-base-patch16-224"
    assert (first.device, first.gpus, first.input) == ("rtx-5090", 1, "3x224x224")
    assert (first.precision, first.precision_note) == ("mixed", "stated as amp")
    assert (first.value, first.batch, first.gmacs) == (1234.5, 1024, 4.11)
    assert first.latency_s == pytest.approx(0.82949)
    assert (first.framework, first.software) == ("PyTorch compiled", "torch 2.9.1, CUDA 13.0")
    assert (first.metric, first.status) == ("wall-synchronised", "cited")
    assert first.source_url.endswith(NAME)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv",
            ("Intel Core i9-10940X", "fp32", "torch 2.4.0", 0, True),
        ),
        (
            "benchmark-infer-amp-nhwc-pt113-cu117-rtx3090.csv",
            ("rtx-3090", "mixed", "torch 1.13, CUDA 11.7", 1, False),
        ),
        (
            "benchmark-infer-amp_bf16-nchw-pt291-cu130-pro6000maxq-dynamo.csv",
            ("RTX PRO 6000 Max-Q", "mixed", "torch 2.9.1, CUDA 13.0", 1, True),
        ),
    ],
)
def test_the_name_of_a_table_states_its_conditions(name, expected):
    found = timm.conditions_of(name, None, None)
    stated = (found.device, found.precision, found.software, found.gpus, found.compiled)
    assert stated == expected


def test_a_table_of_another_name_needs_the_device_and_the_precision():
    with pytest.raises(
        PublishedDataError, match=r"'mine.csv' does not state .*both the option device"
    ):
        timm.parse(TABLE, "mine.csv", "H200", None)
    record, _ = timm.parse(TABLE, "mine.csv", "H200", "bfloat16").records
    assert (record.device, record.precision, record.status) == ("h200-sxm", "bf16", "reported")
    assert {"software"} <= set(record.unknown)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("1234.5", "fast", "line 2: infer_samples_per_sec is 'fast'"),
        ("1234.5", "-3", "line 2: infer_samples_per_sec is '-3'"),
        ("1234.5", "nan", "line 2: infer_samples_per_sec is 'nan'"),
        ("1234.5", "inf", "line 2: infer_samples_per_sec is 'inf'"),
        ("829.49,1024", "829.49,", "line 2: infer_batch_size is ''"),
        ("infer_batch_size", "batch", "has no column infer_batch_size"),
        ("resnet50,224,1234.5", '"resnet50,224,1234.5', "not a table of comma-separated values"),
    ],
)
def test_wrong_tables_are_an_error_in_one_sentence(old, new, reason):
    with pytest.raises(PublishedDataError, match=reason) as refused:
        timm.parse(TABLE.replace(old, new, 1), NAME, None, None)
    assert "\n" not in str(refused.value)


@settings(deadline=None, max_examples=200)
@given(
    st.integers(0, len(TABLE)),
    st.integers(0, 20),
    st.sampled_from(["", '"', "\n", ",", "\0", "1e999", "\ud800", "-", ",,,,,,,,,,"]),
)
def test_a_damaged_table_is_read_or_is_an_error(start, length, put):
    with contextlib.suppress(PublishedDataError):
        timm.parse(TABLE[:start] + put + TABLE[start + length :], NAME, None, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([*ROW]), JSON)
def test_a_field_of_another_kind_is_read_or_is_an_error(field, value):
    with contextlib.suppress(PublishedDataError):
        mlperf.parse([{**ROW, field: value}], "file")


@pytest.mark.parametrize(
    ("stated", "name"),
    [
        ("NVIDIA H200-SXM-141GB", "h200-sxm"),
        ("NVIDIA H200-NVL-141GB", "H200 NVL 141GB"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA L40S", "l40s"),
        ("AMD Instinct MI325X 256GB HBM3e", "AMD Instinct MI325X"),
        ("13th Gen Intel(R) Core(TM) i9-13900K", "Intel Core i9-13900K"),
        ("AMD Ryzen 9 7950X 16-Core Processor", "AMD Ryzen 9 7950X"),
        ("\x1b[31mNVIDIA X1\x00", "X1"),
        ("x" * 500, "x" * 80),
    ],
)
def test_devices_have_the_names_of_this_library(stated, name):
    found = device_name(stated)
    assert found == name or (name == "X1" and "\x1b" not in found and "X1" in found)


def test_an_unknown_precision_has_no_name():
    assert precision_name("amp") == "mixed"
    assert precision_name("fp64") is None


def test_imported_numbers_are_found_like_the_others(write, data_folder):
    file = write([ROW, {**ROW, "Nodes": 2}])
    result = pb.published.import_file(file)
    assert (len(result.done.records), result.known) == (1, 0)
    assert result.left_out == {"a result of several nodes": 1}
    (record,) = [r for r in pb.published.find("h200", "resnet50") if r.imported_from]
    assert record.imported_from == str(file)
    assert record == pb.published.get("mlperf-v9.1-nvidia-h200-sxmx8-resnet50-offline")
    assert [path.stem for path in data_folder.iterdir()] == [result.done.name]
    assert pb.published.imports() == (result.done,)


def test_the_same_numbers_are_imported_once(write):
    first = pb.published.import_file(write([ROW]))
    copy = write([{**ROW, "Notes": "changed"}], "copy.json")
    for again in (write([ROW]), copy):
        result = pb.published.import_file(again)
        assert (result.done, result.known) == (None, 1)
    more = pb.published.import_file(write([ROW, {**ROW, "Performance_Result": 5.5}], "more.json"))
    assert (len(more.done.records), more.known) == (1, 1)
    assert more.done.records[0].id == f"{first.done.records[0].id}-2"


def test_numbers_of_this_library_are_not_imported_again(write):
    known = pb.published.get("timm-rtx-5090-mixed-nchw-eager-2.9.1-resnet50-224")
    name = "benchmark-infer-amp-nchw-pt291-cu130-5090.csv"
    table = TABLE.replace("1234.5", repr(known.value)).replace("829.49", "161.077")
    result = pb.published.import_file(write(table, name))
    assert (len(result.done.records), result.known) == (1, 1)


def test_a_file_of_this_library_is_imported(write):
    result = pb.published.import_file(write(FILE, "mine.toml"))
    assert pb.published.get("mine-1").imported_from.endswith("mine.toml")
    assert len(result.done.records) == 1


def test_an_import_is_removed_by_its_name(write, data_folder):
    done = pb.published.import_file(write([ROW])).done
    with pytest.raises(PublishedDataError, match=f"no import 'x'.*{done.name}"):
        pb.published.remove_import("x")
    pb.published.remove_import(done.name)
    assert pb.published.imports() == ()
    assert list(data_folder.iterdir()) == []


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "", "*"])
def test_nothing_else_is_removed(write, data_folder, name):
    pb.published.import_file(write([ROW]))
    outside = data_folder.parent / "outside.json"
    outside.touch()
    with pytest.raises(PublishedDataError, match="there is no import"):
        pb.published.remove_import(name)
    assert outside.exists()
    assert len(pb.published.imports()) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-5],
        lambda text: "[]",
        lambda text: text.replace('"precisionbench.imported"', '"another"'),
        lambda text: text.replace('"version": 1', '"version": 9'),
        lambda text: text.replace("700000.5", "-1"),
        lambda text: text.replace('"records"', '"recordings"'),
        lambda text: text.replace('"model"', '"modell"'),
    ],
)
def test_a_damaged_import_is_named_and_can_be_removed(write, data_folder, damage):
    name = pb.published.import_file(write([ROW])).done.name
    stored = data_folder / f"{name}.json"
    stored.write_text(damage(stored.read_text()))
    with pytest.raises(PublishedDataError, match=f"--remove {name}"):
        pb.published.find()
    pb.published.remove_import(name)
    assert pb.published.find()


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        ("", "empty.json", "is of no known format"),
        ("[1, 2", "cut.json", "is not valid JSON"),
        ('[{"a": 1, "a": 2}]', "twice.json", "is not valid JSON"),
        ("[" * 100_000, "deep.json", "is not valid JSON"),
        ("hello", "text.txt", "is of no known format"),
        ("model,train_samples_per_sec\nresnet50,3\n", "t.csv", "is a training benchmark"),
    ],
)
def test_other_files_are_an_error_in_one_sentence(write, content, name, reason):
    with pytest.raises(PublishedDataError, match=f"{name} {reason}") as refused:
        pb.published.import_file(write(content, name))
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "binary", "/dev/zero"):
        with pytest.raises(PublishedDataError, match="cannot be read"):
            pb.published.import_file(path)


def test_without_a_folder_nothing_is_kept(write, monkeypatch):
    monkeypatch.setenv("PRECISIONBENCH_DATA_DIR", "")
    with pytest.raises(PublishedDataError, match="PRECISIONBENCH_DATA_DIR is empty"):
        pb.published.import_file(write([ROW]))
    assert pb.published.imports() == ()


def run(*args: object) -> Result:
    return CliRunner().invoke(main, ["published", *map(str, args)])


def test_the_command_imports_lists_and_removes(write, data_folder):
    done = run("--import", write([ROW, ROW]))
    assert done.exit_code == 0
    assert "Imported 1 number from " in done.stdout
    assert "Left out 1 row: the same row twice." in done.stdout
    assert f"Kept in {data_folder}" in done.stdout
    assert "Left out 1 number that is known already." in run("--import", write([ROW])).stdout
    (name,) = [path.stem for path in data_folder.iterdir()]
    listed = run("--imports").stdout
    assert name in listed
    assert f"1 import in {data_folder}" in listed
    listing = run("--device", "h200", "--model", "resnet50").stdout
    assert "imported from summary_results.json" in listing
    assert f"Removed {name}." in run("--remove", name).stdout
    assert "imported" not in run("--device", "h200", "--model", "resnet50").stdout


def test_the_command_takes_the_conditions_of_a_table(write):
    file = write(TABLE, "mine.csv")
    assert run("--import", file).exit_code == 2
    done = run("--import", file, "--device", "h200", "--precision", "bf16")
    assert "Imported 2 numbers" in done.stdout


@pytest.mark.parametrize(
    "args",
    [
        ["--import", "x", "--json"],
        ["--imports", "--remove", "x"],
        ["--imports", "--device", "h200"],
        ["--import", "x", "--model", "resnet50"],
        ["--remove", "x", "--check"],
    ],
)
def test_options_that_do_not_go_together(args):
    done = run(*args)
    assert done.exit_code == 2
    assert "give one of them only" in done.stderr


def test_hostile_text_is_shown_harmlessly(write):
    evil = "\x1b[2J evil\u202e\r\n"
    row = {**ROW, "Submitter": evil, "System": evil, "Software": evil, "Accelerator": evil}
    id = pb.published.import_file(write([row])).done.records[0].id
    for args in ((), ("--id", id), ("--check",), ("--imports",)):
        done = run(*args)
        assert done.exit_code == 0
        assert not {"\x1b", "\u202e", "\r"} & set(done.stdout)


def test_a_ledger_says_that_its_number_was_imported(write):
    from precisionbench.diagnosis.gap.explained import gap_of
    from test_gap import SQUARE
    from test_gap import run as measured

    pb.published.import_file(write([ROW]))
    record = attrs.evolve(
        pb.published.get("mlperf-v9.1-nvidia-h200-sxmx8-resnet50-offline"), doubt="a reason"
    )
    gap = gap_of(measured(*SQUARE), "eager", "eager", record, pb.published.everything())
    assert "[cited, doubtful, imported]" in gap.published.source
    assert any(note.startswith("the published number was imported from") for note in gap.notes)
    assert "the published number is doubtful: a reason" in gap.notes
