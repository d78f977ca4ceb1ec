"""The file of a tuning result, and files that are damaged, hostile, or something else."""

from __future__ import annotations

import json
import random

import pytest

import precisionbench as pb
from hostile_text import replaced
from made_up_results import comparison_data
from made_up_tuning import tuning_data, with_metric
from pages import HOSTILE
from precisionbench.errors import ResultFormatError
from precisionbench.results import json_format, tuning_format
from precisionbench.results.tuning_format import as_document, from_json, is_tuning, to_json


@pytest.mark.parametrize("data", [tuning_data(), with_metric(), tuning_data(notes=HOSTILE)])
def test_a_result_is_read_as_it_was_written(data):
    assert from_json(to_json(data)) == data
    assert is_tuning(to_json(data))


def test_a_file_is_loaded(tmp_path):
    file = tmp_path / "tuned.json"
    file.write_text(to_json(tuning_data()))
    assert tuning_format.load(file) == tuning_data()


def test_the_file_names_its_format_and_that_of_its_final_rounds():
    document = json.loads(to_json(tuning_data()))
    assert list(document)[:2] == ["format", "version"]
    assert (document["format"], document["version"]) == ("precisionbench.tuning", 1)
    assert document["final"]["format"] == "precisionbench.comparison"


def test_a_comparison_and_a_tuning_result_are_not_mistaken_for_each_other(tmp_path):
    file = tmp_path / "tuned.json"
    file.write_text(to_json(tuning_data()))
    with pytest.raises(ResultFormatError, match=r"tuning result: pb\.load_tuned reads it"):
        pb.load(file)
    comparison = json_format.to_json(comparison_data())
    assert not is_tuning(comparison)
    with pytest.raises(ResultFormatError, match=r"is a comparison, not a tuning.*pb\.load reads"):
        from_json(comparison)


DAMAGED = {
    "no JSON": ("{", "is not complete JSON"),
    "a list": ("[]", "is not a tuning result"),
    "another file": ('{"a": 1}', "its 'format' is not 'precisionbench.tuning'"),
    "infinite": ('{"format": NaN}', "NaN is not JSON"),
}


@pytest.mark.parametrize(("text", "message"), DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_result_is_refused(text, message):
    with pytest.raises(ResultFormatError, match=message):
        from_json(text, "file.json")


@pytest.mark.parametrize("text", ["", "PK"])
def test_what_is_no_json_names_what_writes_such_a_file(tmp_path, text):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(ResultFormatError, match=r"give a file that Tuned\.save\(\) or"):
        pb.load_tuned(tmp_path / "file.json")


def changed(path: str, value: object) -> str:
    """The text of a result with one value replaced; `None` as a value removes its key."""
    document = json.loads(to_json(tuning_data()))
    *steps, last = path.split(".")
    node = document
    for step in steps:
        node = node[int(step) if step.isdecimal() else step]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return json.dumps(document)


WRONG = (
    ("version", 2, "has format version 2"),
    ("version", True, "has format version True"),
    ("final", None, "must have final"),
    ("final.version", 99, "the final comparison in .* has format version 99"),
    ("final.format", "precisionbench.tuning", "the final comparison in .* is not a precisionb"),
    ("final.results.0.batch_size", "x", r"final\.results\[0\]\.batch_size must be a whole number"),
    ("final.environment.gpu.compute_capability", "x", "compute_capability must be two numbers"),
    ("final.reference", "half", "reference is not that of the final comparison"),
    ("best", "compile:mode=none", "best is 'compile:mode=none', which is none of the trials"),
    ("best", 3, "best must be text"),
    ("trials.1.outcome", "winner", r"trials\[1\]\.outcome must be one of best, finalist"),
    ("trials.1.accuracy.verdict", "fine", r"trials\[1\]\.accuracy\.verdict must be one of within"),
    ("trials.1.accuracy.loss.low", 5, r"trials\[1\]\.accuracy\.loss must be within"),
    ("trials.1.speedup.low", 0, r"trials\[1\]\.speedup must be within"),
    ("trials.1.speedup.low", -1, r"trials\[1\]\.speedup must be within"),
    ("trials.1.speedup.high", 1e300, r"trials\[1\]\.speedup must be within"),
    ("trials.1.speedup.value", 0, r"trials\[1\]\.speedup must be within"),
    ("trials.1.build_s", -1, r"trials\[1\]\.build_s must be a number from 0"),
    ("trials.1.spec", None, r"trials\[1\] must have spec"),
    ("bound.limit", -1, r"bound\.limit must be 0 or more"),
    ("budget_s", "long", r"budget_s must be a number"),
    ("target.versions", [], r"target\.versions must be an object"),
    ("notes", "one", "must be a list, and is .one."),
)


@pytest.mark.parametrize(("path", "value", "message"), WRONG)
def test_a_wrong_value_is_named(path, value, message):
    with pytest.raises(ResultFormatError, match=message):
        from_json(changed(path, value), "file.json")


def test_a_damaged_file_is_never_another_error():
    text, draw = to_json(tuning_data()), random.Random(0)
    for _ in range(150):
        start = draw.randrange(len(text))
        piece = draw.choice(["", "null", "-1", '"x"', "[]", "1e999", "{}", "\x00"])
        try:
            from_json(text[:start] + piece + text[start + draw.randrange(12) :])
        except ResultFormatError:
            continue


def test_hostile_text_is_kept_as_it_is():
    data = replaced(tuning_data(), lambda text: f"{text}{HOSTILE[2]}\x1b[2J")
    found = json.loads(json.dumps(as_document(data)))
    assert found["choice"].endswith("\x1b[2J")
