"""Thresholds: how they are written, and what is said of one that is missed."""

from __future__ import annotations

import re

import attrs
import pytest
from click.testing import CliRunner, Result

import precisionbench as pb
from made_up_results import comparison as scene
from made_up_results import comparison_data, conv, evidence
from precisionbench.cli import main
from precisionbench.errors import IncomparableError, RowNotFoundError, SpecError
from precisionbench.results import Agreement
from precisionbench.testing.thresholds import ErrorThreshold, SpeedupThreshold, parse
from test_run_diff import run


def measured(**changes) -> pb.Comparison:
    """`half` is 2.5 times as fast as `eager`, within about a percent."""
    return pb.Comparison(run(1, **changes))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("half>=1.5", SpeedupThreshold("half", 1.5)),
        ("  half  >=  1.5x ", SpeedupThreshold("half", 1.5)),
        (
            "half:memory_format=channels_last >= 1.2",
            SpeedupThreshold("half:memory_format=channels_last", 1.2),
        ),
        (
            "half:dtype=bfloat16,memory_format=channels_last>=2",
            SpeedupThreshold("half:dtype=bfloat16,memory_format=channels_last", 2.0),
        ),
        ("half#2>=0.99", SpeedupThreshold("half#2", 0.99)),
        ("half error<=0.01", ErrorThreshold("half", 0.01)),
        ("half:dtype=bfloat16  error <= 1e-2", ErrorThreshold("half:dtype=bfloat16", 0.01)),
    ],
)
def test_a_threshold_names_a_row_and_a_bound(text, wanted):
    assert parse(text) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "half", ">=1.5", "half>=", "half>=fast", "half>1.5", "half<=1.5", "half error>=x", "1.5"],
)
def test_an_invalid_threshold_is_answered_with_the_syntax(text):
    with pytest.raises(SpecError, match="write 'half>=1.5' for a speed-up"):
        parse(text)


@pytest.mark.parametrize("text", ["half>=0", "half>=-1", "half>=nan", "half>=inf"])
def test_a_bound_that_is_no_positive_number_is_refused(text):
    with pytest.raises(SpecError, match="give a speed-up above 0, such as 1.5"):
        parse(text)


def test_what_is_no_number_and_no_comparison_is_refused():
    with pytest.raises(SpecError, match="the threshold's bound is '2'; give a speed-up above 0"):
        pb.assert_speedup(pb.Comparison(comparison_data()), "half", at_least="2")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="the comparison is a NoneType; give what pb.compare"):
        pb.assert_speedup(None, "half", at_least=2)  # type: ignore[arg-type]


def test_the_lower_end_of_the_interval_is_tested():
    comparison = measured()
    found = comparison.speedup("half")
    pb.assert_speedup(comparison, "half", at_least=found.low)
    with pytest.raises(AssertionError, match="use a larger time budget|measure longer"):
        pb.assert_speedup(comparison, "half", at_least=found.value)


def test_the_message_has_value_interval_verdict_reason_and_remedy():
    with pytest.raises(AssertionError) as caught:
        pb.assert_speedup(measured(), "half", at_least=3)
    assert re.fullmatch(
        r"half measured 2\.\d+x eager \(2\.\d+ to 2\.\d+\), "
        r"faster: the CI excludes 1; the lower end, 2\.\d+, must reach 3; "
        r"diagnose the comparison to find what limits it .*",
        str(caught.value),
    )


@pytest.mark.parametrize(
    ("low", "said"), [(1.42, "1.42"), (1.4999, "1.4999"), (1.4999996, "1.4999996")]
)
def test_an_end_just_below_the_bound_is_not_rounded_up_to_it(monkeypatch, low, said):
    found = attrs.evolve(measured().speedup("half"), low=low)
    monkeypatch.setattr(pb.Comparison, "speedup", lambda *_: found)
    with pytest.raises(AssertionError, match=f"lower end, {said}, must reach 1.5"):
        pb.assert_speedup(measured(), "half", at_least=1.5)


def test_a_bound_may_be_below_1():
    pb.assert_speedup(measured(speed=0.4), "half", at_least=0.9)  # inconclusive


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schedule": "sequential", "replicas": 1}, "use the launcher 'process'"),
        ({"rounds": 5, "replicas": 1}, r"too few rounds: use a time budget of about [\d.]+ s"),
        ({"replicas": 1}, "run-to-run variance was not measured: use 2 or more replicas"),
    ],
)
def test_an_unreliable_interval_does_not_pass(changes, said):
    with pytest.raises(AssertionError, match=f"inconclusive: .*{said}"):
        pb.assert_speedup(measured(**changes), "half", at_least=1.1)


def test_few_rounds_of_several_processes_are_evidence():
    pb.assert_speedup(measured(rounds=2), "half", at_least=1.1)


def test_one_process_is_evidence_where_run_to_run_variance_is_known():
    pb.assert_speedup(measured(replicas=1, noise_floor=0.0025), "half", at_least=1.1)


def test_a_row_whose_label_is_false_does_not_pass():
    in_float32 = pb.Comparison(scene(evidence(conv()), evidence(conv())))
    with pytest.raises(AssertionError, match="half is labelled float16 but ran in float32"):
        pb.assert_speedup(in_float32, "half", at_least=1.5)


def test_a_failed_row_has_its_reason():
    with pytest.raises(AssertionError, match="apex-amp has no speed-up: .*needs Apex; get it"):
        pb.assert_speedup(pb.Comparison(comparison_data()), "apex-amp", at_least=1.5)
    with pytest.raises(AssertionError, match="apex-amp has no output: .*needs Apex; get it"):
        pb.assert_agrees(pb.Comparison(comparison_data()), "apex-amp", relative_l2=0.1)


def test_default_options_of_the_row_may_be_given():
    pb.assert_speedup(measured(), "half:dtype=float16", at_least=2)


@pytest.mark.parametrize("claim", [pb.assert_speedup, pb.assert_agrees])
def test_unknown_rows_and_the_reference_are_refused(claim):
    with pytest.raises(RowNotFoundError, match="'hlaf' is not measured; did you mean 'half'?"):
        claim(measured(), "hlaf", 1.5)
    with pytest.raises(SpecError, match="'eager' is the reference, and is compared with itself"):
        claim(measured(), "eager", 1.5)


def with_agreement(agreement: Agreement | None, **tensor) -> pb.Comparison:
    data = comparison_data()
    eager, half = data.results
    if agreement is not None and tensor:
        changed = attrs.evolve(agreement.tensors[0], **tensor)
        agreement = attrs.evolve(agreement, tensors=(changed,))
    return pb.Comparison(
        attrs.evolve(data, results=(eager, attrs.evolve(half, agreement=agreement)))
    )


def test_agreement_has_a_bound():
    comparison = pb.Comparison(comparison_data())  # its error is 1e-3
    pb.assert_agrees(comparison, "half", relative_l2=1e-3)
    with pytest.raises(AssertionError, match=r"half has a relative L2 error of 1.0e-03 .* 0.0009"):
        pb.assert_agrees(comparison, "half", relative_l2=9e-4)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        ({"nonfinite_count": 1200}, "infinite or NaN in 1,200 elements of the output"),
        ({"relative_l2": None}, "zero everywhere in the reference"),
    ],
)
def test_an_output_that_cannot_be_compared_does_not_agree(tensor, said):
    agreement = comparison_data().results[1].agreement
    with pytest.raises(AssertionError, match=said):
        pb.assert_agrees(with_agreement(agreement, **tensor), "half", relative_l2=10)


def test_without_the_references_output_nothing_agrees():
    with pytest.raises(AssertionError, match="cannot be compared with eager, which has no output"):
        pb.assert_agrees(with_agreement(None), "half", relative_l2=10)


def test_a_run_is_compared_with_an_older_one():
    old, new, slower = (
        pb.Comparison(run(seed, speed)) for seed, speed in ((1, 1), (2, 1), (3, 0.8))
    )
    assert len(pb.assert_not_slower(new, old).rows) == 2
    with pytest.raises(AssertionError) as caught:
        pb.assert_not_slower(slower, old)
    assert re.match(
        r"slower than on 2026-11-25T12:00:01\+00:00: half 0\.[78]\d*x "
        r"\(0\.\d+ to 0\.\d+\), slower: the CI excludes 1, "
        r"relative to the reference 0\.[78]\d*x "
        r".*, slower: the CI excludes 1; measure again",
        str(caught.value),
    )


def test_a_row_that_fails_now_does_not_pass():
    old, new = run(1), run(2)
    failure = attrs.evolve(new.failures[0], backend="half", name="half", reason="it broke")
    failing = attrs.evolve(new, results=new.results[:1], failures=(failure,))
    with pytest.raises(AssertionError, match="failing now: half; .*it broke"):
        pb.assert_not_slower(pb.Comparison(failing), pb.Comparison(old))


def test_runs_without_a_common_row_do_not_pass():
    old, new = run(1), run(2)
    others = tuple(attrs.evolve(row, backend=f"{row.backend}#2") for row in old.results)
    old = attrs.evolve(old, results=others, reference="eager#2")
    with pytest.raises(AssertionError, match="no row was measured in both runs"):
        pb.assert_not_slower(pb.Comparison(new), pb.Comparison(old))


def test_an_older_run_under_other_conditions_is_refused():
    old, new = run(1), run(2)
    other = attrs.evolve(old, environment=attrs.evolve(old.environment, torch="2.4.0"))
    with pytest.raises(IncomparableError, match=r"torch \(2.4.0 before, 2.14.1 now\)"):
        pb.assert_not_slower(pb.Comparison(new), pb.Comparison(other))


# --- the command line -------------------------------------------------------------------------


def show(tmp_path, *thresholds: str) -> Result:
    file = tmp_path / "r.json"
    measured().save(file, overwrite=True)
    options = [word for text in thresholds for word in ("--fail-under", text)]
    return CliRunner().invoke(main, ["show", str(file), *options])


def test_met_thresholds_are_exit_code_0(tmp_path):
    done = show(tmp_path, "half>=2", "half error<=0.01")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""


def test_each_missed_threshold_is_a_sentence_below_the_table(tmp_path):
    done = show(tmp_path, "half>=3", "half>=2", "half error<=0.0001")
    assert done.exit_code == 1
    assert [line.split(",")[0][:20] for line in done.stderr.splitlines()] == [
        "half measured 2.507x",
        "half has a relative ",
    ]
    assert "speed-up" in done.stdout


@pytest.mark.parametrize(
    ("threshold", "said"),
    [
        ("hlaf>=2", "did you mean 'half'?"),
        ("eager>=2", "is the reference"),
        ("half>2", "cannot be understood"),
        ("half:dtype>=2", "in the place of an option"),
    ],
)
def test_a_threshold_of_an_unknown_row_is_refused(tmp_path, threshold, said):
    done = show(tmp_path, threshold)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not done.stdout
    before = CliRunner().invoke(
        main, ["compare", "no_such:model", "-b", "half", "--fail-under", threshold]
    )
    assert before.exit_code == 2
    assert said in before.stderr  # not that there is no such model: nothing was looked at yet


def test_compare_exits_with_1_if_a_threshold_is_missed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thresholds_model.py").write_text(
        "import torch\ndef tiny(): return torch.nn.Linear(8, 8), torch.rand(2, 8)\n"
    )
    words = "compare thresholds_model:tiny -b half --device cpu --launcher inline --budget 0.4"
    done = CliRunner().invoke(
        main, [*words.split(), "-o", "r.json", "--fail-under", "half>=1000", "--json"]
    )
    assert done.exit_code == 1
    assert "rows were not interleaved" in done.stderr
    assert (tmp_path / "r.json").exists()  # what was measured is kept
