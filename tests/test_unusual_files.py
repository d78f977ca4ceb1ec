"""Files that are no results, or damaged ones: refused in a sentence, in bounded time and memory."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import precisionbench as pb
from made_up_results import RECORDED, comparison, comparison_data, conv, evidence
from precisionbench import published
from precisionbench.errors import PublishedDataError, ResultFormatError, SpecError
from precisionbench.results import journal, json_format
from precisionbench.results.json_values import as_json, parse_json
from work import TWICE, lines_run

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "docs" / "records"


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def sparse(path: Path, size_bytes: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return path


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


UNREADABLE = {
    "a pipe without a writer": (fifo, "it is a device or a pipe, not a file"),
    "an endless device": (lambda _: Path("/dev/zero"), "it is a device or a pipe, not a file"),
    "a folder": (lambda path: path.parent, "it is a folder"),
    "5 GB": (lambda path: sparse(path, 5 * 10**9), "it is larger than"),
    "a name with a null character": (
        lambda path: Path(f"{path}\0"),
        "(null character|character that no file name can have)",
    ),
    "a name that is too long": (lambda path: path.with_name("n" * 300), "too long"),
    "UTF-16": (lambda path: written(path, "{}".encode("utf-16")), "byte 0 is not UTF-8"),
    "a compressed file": (lambda path: written(path, gzip.compress(b"{}")), "byte 1 is not UTF-8"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_no_text_file_is_refused_at_once(tmp_path, case):
    make, sentence = UNREADABLE[case]
    path = make(tmp_path / "file")
    with pytest.raises(ResultFormatError, match=sentence):
        pb.load(path)
    with pytest.raises(PublishedDataError, match=sentence):
        published.read(path)


@pytest.mark.parametrize(
    "case", [case for case in UNREADABLE if "UTF" not in case and "compressed" not in case]
)
def test_a_script_to_check_is_a_file_too(tmp_path, case):
    make, sentence = UNREADABLE[case]
    with pytest.raises(SpecError, match=sentence):
        pb.check(str(make(tmp_path / "file")))


def test_a_file_of_proc_has_no_size_and_is_read_in_bounds():
    with pytest.raises(ResultFormatError, match="is not JSON"):
        pb.load("/proc/self/status")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    text = json_format.to_json(comparison_data())
    file = written(tmp_path / "r.json", text.encode("utf-8-sig"))
    assert pb.load(file).data == comparison_data()


TEXTS = {
    "nested without end": ("[" * 100_000, "nested more than 100 levels deep"),
    "nested too deep for an option": ('{"a":' * 200 + "1" + "}" * 200, "nested more than 100"),
    "too many values": (
        "[" + "{}," * 10_000_001 + "{}]",
        "holds more than 10,000,000 values and keys",
    ),
    "too many pairs": (
        '{"a":1,' + '"a":1,' * 5_000_000 + "}",
        "holds more than 10,000,000 values and keys",
    ),
    "a key twice": ('{"format": 1, "format": 2}', "the key 'format' stands twice"),
    "NaN": ('{"seed": NaN}', "NaN is not JSON"),
    "infinity": ('{"seed": -Infinity}', "-Infinity is not JSON"),
    "a large number": ('{"seed": 1e400}', "the number '1e400' is too large"),
    "a number of 400 digits": ('{"seed": 1' + "0" * 400 + "}", "the number '10000.* is too large"),
    "a number of 5,000 digits": ('{"seed": ' + "7" * 5000 + "}", "the number '7777.* is too large"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_json_beyond_any_result_is_refused_before_it_is_used(case):
    text, sentence = TEXTS[case]
    with pytest.raises(ResultFormatError, match=f"it is not a precisionbench result .*{sentence}"):
        json_format.from_json(text, "it")


def test_colons_in_names_are_no_keys():
    names = ["at::native" * 50] * 110_000
    assert parse_json(json.dumps({"kernels": names})) == {"kernels": names}


ROW = "results[1]."
BLOCK = f"{ROW}measurement.blocks[0]."
OPERATION = f"{ROW}evidence.operations[0]."
# A path in a result, a value that it cannot have, and what the error says of it.
WRONG: list[tuple[str, Any, str]] = [
    ("seed", 10**30, "must be a whole number from 0 to 9.22337e"),
    ("seed", -1, "must be a whole number from 0 to 9.22337e"),
    ("seed", 1.5, "must be a whole number .*, and is 1.5"),
    ("seed", True, "must be a whole number .*, and is True"),
    ("noise_floor", 300, "must be a number from 0 to 1, and is 300"),
    ("noise_floor", "Infinity", "must be a number from 0 to 1, and is 'Infinity'"),
    ("created", 3, "must be text, and is 3"),
    ("notes", "a note", "must be a list, and is 'a note'"),
    ("notes", ["a note", None], "must be text, and is None"),
    ("environment.flags", [["a", 1]], "must be an object, and is a list"),
    ("environment.packages", {"numpy": 2}, "must be text, and is 2"),
    (f"{ROW}measurement.calls_per_sample", 0, "must be a whole number from 1 to"),
    (f"{ROW}measurement.resolution_s", -1e-9, "must be a number from 0 to"),
    (f"{BLOCK}samples", {}, "must be a list, and is an object"),
    (f"{BLOCK}samples", [0.1, "0.1"], "must be a number .*, and is '0.1'"),
    (f"{BLOCK}samples", [2e-12], "a sample must be a time above 0"),
    (f"{BLOCK}round", -1, "must be a whole number from 0 to"),
    (f"{OPERATION}time_s", -1.0, "must be a number from 0 to"),
    (f"{OPERATION}time_s", 5e-324, "must be a number from 0 to"),
    (f"{OPERATION}inputs[0].shape", [2, -1], "must be a whole number from 0 to"),
    (f"{OPERATION}inputs[0].shape", [10**9] * 50, "a shape has fewer than 2"),
    (f"{ROW}evidence.flops", 10**200, "must be a number from 0 to"),
    ("workload.inputs[0].shape", [10**300], "must be a whole number from 0 to"),
    ("reference", "x" * 10_000, "the reference 'x+'?\\.\\.\\. is none of the rows"),
    ("workload.batch_size", 10**300, "a batch size cannot be 1e[+]300"),
]


def with_value(path: str, value: Any) -> str:
    """A result in which one value is another."""
    document = json.loads(json_format.to_json(comparison(evidence(conv()), evidence(conv()))))
    *way, last = path.replace("[", ".[").split(".")
    place = document
    for step in way:
        place = place[int(step[1:-1]) if step[0] == "[" else step]
    place[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(("path", "value", "sentence"), WRONG)
def test_a_wrong_value_is_named_with_its_path_and_what_was_expected(path, value, sentence):
    with pytest.raises(ResultFormatError, match=sentence) as caught:
        json_format.from_json(with_value(path, value), "old.json")
    where = path.rpartition(".")[0]
    of_record = ("sample must", "shape has", "batch size cannot", "the reference")
    place = where if any(text in sentence for text in of_record) else path
    assert f"old.json is a damaged precisionbench result ({place}" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_value_that_is_missing_is_named():
    text = with_value("results[0].measurement", {"clock": "host"})
    with pytest.raises(ResultFormatError, match=r"results\[0\]\.measurement must have res"):
        json_format.from_json(text, "it")


def test_the_first_of_many_wrong_values_ends_the_reading():
    text = with_value(f"{BLOCK}samples", ["x"] * 300_000)
    with pytest.raises(ResultFormatError, match=r"samples\[0\] must be a number"):
        json_format.from_json(text, "it")


def test_numbers_that_no_float_holds_are_recorded_as_text():
    options = as_json({"large": 10**5000, "usual": 2**64})
    assert options["usual"] == 2**64
    assert options["large"].startswith("0x")
    json_format.from_json(with_value("results[0].options", options))


@pytest.mark.uncounted
@pytest.mark.parametrize("file", sorted(RECORDED.rglob("*.gz")), ids=lambda file: file.name)
def test_every_recorded_result_is_read_and_written_as_it_was(file):
    data = json_format.from_json(gzip.decompress(file.read_bytes()).decode())
    assert json_format.from_json(json_format.to_json(data)) == data


def test_every_record_that_is_a_result_is_read():
    files = [file for file in RECORDS.glob("*.json") if json_format.FORMAT in file.read_text()]
    assert len(files) >= 5
    assert all(len(pb.load(file)) for file in files)


def test_a_published_file_with_hostile_values_is_refused_with_the_line(tmp_path):
    text = f'[source.mine]\ntitle = "t"\nurl = "https://a.b"\ndate = 0x{"f" * 5000}\n'
    with pytest.raises(PublishedDataError, match=r"line 4: date is a number of more than 308"):
        published.read(written(tmp_path / "p.toml", text))
    twice = f"[{'a' * 100_000}]\n" * 2
    with pytest.raises(PublishedDataError, match=r"is not valid TOML \(Can ?not declare .{,300}\)"):
        published.read(written(tmp_path / "p.toml", twice))
    deep = "[" + ".".join(["a"] * 5000) + "]\n"
    with pytest.raises(PublishedDataError, match="nested more than 100 levels deep"):
        published.read(written(tmp_path / "p.toml", deep))


@pytest.mark.uncounted
def test_many_tables_in_a_published_file_take_no_time(tmp_path):
    text = "".join(f'[source.s{n}]\ntitle = "t"\nurl = "https://a.b"\n' for n in range(20_000))
    assert published.read(written(tmp_path / "p.toml", text)) == ()


@pytest.fixture
def fuzz(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("fuzz_files")


# --- journals

HEADER = '{"format": "precisionbench.journal", "version": 3'
# What stands in place of a line of a journal, and what the error says.
LINES = [
    (1, f'["{HEADER}"]', "line 1: "),
    (1, HEADER + ', "rows": 3}', "line 1: "),
    (1, HEADER + ', "rows": [{"backend": "eager"}]}', "line 1: must have name, options"),
    (2, "3", "line 2: it must be an object, and is 3"),
    (2, "[]", "line 2: it must be an object, and is a list"),
    (2, '{"row": {}}', "line 2: KeyError: 'backend'"),
    (2, '{"row": {"backend": []}}', "line 2: "),
    (2, '{"failure": {"backend": "eager"}}', "line 2: must have name, options"),
    (2, '{"header": 3}', "line 2: "),
    (2, "[" * 100_000, "line 2: it is nested more than 100 levels deep"),
    (2, '{"conditions": NaN}', "line 2: NaN is not JSON"),
    (4, '{"of": "nobody", "block": {}}', "line 4: a block of the row 'nobody', which no line"),
    (4, '{"of": [], "block": {}}', "line 4: "),
    (4, '{"of": "eager", "block": {}}', "line 4: must have round, position, replica, samples"),
    (4, '{"of": "eager", "block": {"round": 0.5}}', "line 4: must have position"),
]


@pytest.mark.parametrize(("number", "line", "sentence"), LINES)
def test_a_damaged_line_of_a_journal_is_named(fuzz, tmp_path, number, line, sentence):
    text = fuzz.mutations.journal_text(json_format.to_json(comparison_data()))
    lines = text.splitlines()
    lines[number - 1] = line
    file = written(tmp_path / "run.journal", "\n".join(lines))
    with pytest.raises(ResultFormatError, match=sentence) as caught:
        pb.load(file)
    assert "run.journal" in str(caught.value)


def test_a_journal_of_many_rows_takes_as_much_work_as_it_has_lines(fuzz):
    whole = fuzz.mutations.journal_text(json_format.to_json(comparison_data()))
    header, *others = whole.splitlines()

    def journal_of(rows: int) -> str:
        names = [f"row{number}" for number in range(rows)]
        planned = [{"backend": name, "name": "eager", "options": {}} for name in names]
        first = json.loads(header)
        first["rows"] += planned
        left_out = [json.dumps({"left_out": name}) for name in names[::2]]
        return "\n".join([json.dumps(first), *others, *left_out])

    texts = [journal_of(rows) for rows in (200, 400)]
    assert len(journal.from_text(texts[0], "it").failures) == 101  # with one of its own
    few, many = (lines_run(partial(journal.from_text, text, "it")) for text in texts)
    assert many < TWICE * few


def test_a_line_of_a_journal_ends_with_a_line_feed_only(fuzz):
    text = fuzz.mutations.journal_text(json_format.to_json(comparison_data()))
    name = "one\u2028two\x85three"  # written as it is by another program
    renamed = text.replace('"model": "Net"', f'"model": "{name}"')
    assert renamed != text
    assert journal.from_text(renamed, "it").workload.model == name
    assert journal.from_text(renamed.replace("\n", "\r\n"), "it").workload.model == name


# --- mutated files


@pytest.mark.uncounted
@pytest.mark.parametrize("kind", ["result", "ladder", "journal", "published"])
def test_the_files_that_are_mutated_are_shown_as_they_are(fuzz, tmp_path, kind):
    base = next(base for base in fuzz.mutations.bases(small=True) if base.kind == kind)
    file = written(tmp_path / "file", base.text)
    fuzz.use(kind, file, file)


def test_a_failure_of_a_mutated_file_is_reported_with_its_place(fuzz, monkeypatch):
    def broken(*_: object) -> None:
        raise OverflowError("too large")

    monkeypatch.setattr(fuzz, "use", broken)
    what, outcome, where = fuzz.try_file(fuzz.mutations.bases(small=True), 1, 2)
    assert outcome == "OverflowError: too large"
    assert where.endswith("broken")
    assert what


def test_mutated_files_are_shown_or_refused(fuzz):
    """Thirty of the files that `benchmarks/fuzz_files.py` tries."""
    bases = fuzz.mutations.bases(small=True)
    outcomes = {fuzz.try_file(bases, 3, number)[1:] for number in range(30)}
    assert outcomes == {("shown", ""), ("refused", "")}


@pytest.mark.slow
def test_500_mutated_files_are_shown_or_refused():
    command = [sys.executable, ROOT / "benchmarks" / "fuzz_files.py", "--files", "500", "--small"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "500 files in" in done.stdout
