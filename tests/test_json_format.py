from __future__ import annotations

import json
import os
import stat

import pytest

import precisionbench as pb
from made_up_results import comparison_data
from precisionbench import results
from precisionbench.errors import OutputError, OutputExistsError, ResultFormatError
from precisionbench.results import json_format


def test_what_is_saved_is_what_is_loaded(tmp_path):
    comparison = pb.Comparison(comparison_data())
    comparison.save(tmp_path / "r.json")
    assert pb.load(tmp_path / "r.json") == comparison
    assert json_format.from_json(json_format.to_json(comparison.data)) == comparison.data


def test_raw_samples_are_kept_and_derived_figures_are_not():
    document = json.loads(json_format.to_json(comparison_data()))
    assert document["results"][0]["measurement"]["blocks"][0]["samples"] == [0.010, 0.0101, 0.0099]
    assert "latency" not in document["results"][0]
    assert (document["format"], document["version"]) == ("precisionbench.comparison", 3)


def test_an_existing_file_is_not_overwritten_by_default(tmp_path):
    file = tmp_path / "r.json"
    file.write_text("mine")
    comparison = pb.Comparison(comparison_data())
    with pytest.raises(OutputExistsError, match="exists; choose another name"):
        comparison.save(file)
    assert file.read_text() == "mine"
    comparison.save(file, overwrite=True)
    assert pb.load(file) == comparison


def test_a_file_created_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    file = tmp_path / "r.json"
    monkeypatch.setattr(json_format, "check_writable", lambda *_: None)
    file.write_text("somebody else's")
    with pytest.raises(OutputExistsError):
        json_format.write(file, "ours")
    assert file.read_text() == "somebody else's"
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.json"]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OutputError, match="could not be written .*No space left"):
        json_format.write(tmp_path / "r.json", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_hard_links_is_supported(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    json_format.write(tmp_path / "r.json", "text")
    assert (tmp_path / "r.json").read_text() == "text"


def test_other_errors_of_a_link_are_reported(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", broken)
    with pytest.raises(OutputError, match="Input/output error"):
        json_format.write(tmp_path / "r.json", "text")


def test_a_saved_file_has_the_permissions_of_the_umask(tmp_path):
    json_format.write(tmp_path / "r.json", "text")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "r.json").stat().st_mode) == 0o666 & ~mask


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path):
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    json_format.write(link, "new", overwrite=True)
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_or_a_device_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(OutputError, match="is a device or a pipe; give the name of a file"):
            json_format.write(place, "text", overwrite=True)


@pytest.mark.parametrize(
    ("place", "message"),
    [("missing/r.json", "there is no folder"), (".", "is a folder")],
)
def test_an_unwritable_path_is_an_error_before_measuring(tmp_path, place, message):
    with pytest.raises(OutputError, match=message):
        json_format.check_writable(tmp_path / place, overwrite=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_an_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="may not be written to"):
        json_format.check_writable(tmp_path / "r.json", overwrite=False)


def test_a_folder_without_permission_is_an_error_for_root_too(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="may not be written to"):
        json_format.check_writable(tmp_path / "r.json", overwrite=False)


def text_of(**changes) -> str:
    document = json.loads(json_format.to_json(comparison_data()))
    return json.dumps({**document, **changes})


def text_with_blocks(blocks: str) -> str:
    good = text_of()
    document = json.loads(good)
    document["results"][0]["measurement"]["blocks"] = "BLOCKS"
    return json.dumps(document).replace('"BLOCKS"', blocks)


def text_with_samples(samples: str) -> str:
    block = f'{{"round": 0, "position": 0, "replica": 0, "samples": {samples}}}'
    return text_with_blocks(f"[{block}]")


BAD_FILES = {
    "of no blocks": (text_with_blocks("[]"), "a measurement needs blocks with samples"),
    "of an empty block": (text_with_samples("[]"), "a measurement needs blocks with samples"),
    "of no time": (text_with_samples("[0.0]"), "a sample must be a time above 0"),
    "of negative time": (text_with_samples("[-1.0]"), "a sample must be a time above 0"),
    "of endless time": (text_with_samples("[1e99]"), "a sample must be a time above 0"),
    "of infinite time": (text_with_samples("[1e999]"), "the number '1e999' is too large"),
    "of a vanishing time": (text_with_samples("[1e-300]"), "a sample must be a time above 0"),
    "of a truth for a version": (text_of(version=True), "has format version True"),
    "of no number": (text_with_samples("[NaN]"), "NaN is no JSON"),
    "of unknown reference": (text_of(reference="x"), "the reference 'x' is none of the rows"),
    "of twins": (text_of(failures=[], results=2 * json.loads(text_of())["results"]), "same name"),
    "nested without end": ("[" * 100_000, "is nested more than 100 levels deep"),
    "truncated": (text_of()[:500], "is not complete JSON"),
    "not ours": ('{"a": 1}', "its 'format' is not 'precisionbench.comparison'"),
    "a list": ("[1]", "holds JSON but no precisionbench result"),
    "too new": (text_of(version=4), "has format version 4, and this precisionbench reads up to 3"),
    "old and damaged": (text_of(version=1, results=[{}]), "damaged .* of format version 1"),
    "without version": (text_of(version=None), "has format version None"),
    "damaged": (text_of(results=[{"backend": "eager"}]), "is a damaged precisionbench result"),
    "of a wrong type": (text_of(seed="x"), "is a damaged precisionbench result"),
    "not text": ("\xff\xfe", None),
    "code": ("__import__('os').abort()", "is not complete JSON"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_damaged_or_foreign_file_is_refused_in_one_sentence(tmp_path, case):
    text, message = BAD_FILES[case]
    file = tmp_path / "r.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ResultFormatError, match=message or "cannot be read as text") as caught:
        pb.load(file)
    assert "r.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_version_1_is_read_as_one_replica_per_row():
    document = json.loads(text_of(version=1))
    for row in document["results"]:
        measured = row["measurement"]
        measured |= {"build_s": 1.0, "first_call_s": 2.0, "warmup_calls": 3}
        del measured["preparations"]
        measured["blocks"] = [[0.1, 0.2], [0.3]]
    measured = json_format.from_json(json.dumps(document)).results[0].measurement
    assert (measured.build_s, measured.first_call_s, measured.warmup_calls) == (1.0, 2.0, 3)
    assert measured.rounds == ((0.1, 0.2), (0.3,))


def test_a_missing_file_is_an_error_with_a_suggestion(tmp_path):
    with pytest.raises(ResultFormatError, match="there is no file .*; check the path"):
        pb.load(tmp_path / "r.json")
    (tmp_path / "result.json").write_text("")
    with pytest.raises(ResultFormatError, match=r"did you mean 'result.json'\?"):
        pb.load(tmp_path / "resul.json")


def test_every_name_that_results_offers_exists():
    assert all(hasattr(results, name) for name in results.__all__)
