from __future__ import annotations

import json

import pytest

import precisionbench as pb
from made_up_results import comparison_data
from precisionbench import results
from precisionbench.errors import OutputExistsError, ResultFormatError
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
    "of no number": (text_with_samples("[NaN]"), "NaN is not JSON"),
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
    "code": ("__import__('os').abort()", "is not JSON"),
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
