"""Whether a configuration is accurate enough."""

from __future__ import annotations

import math

import pytest
import torch

from precisionbench.errors import SpecError, WorkloadError
from precisionbench.results.tuning import BEYOND, UNCLEAR, WITHIN
from precisionbench.statistics.means import bootstrap_mean, next_value
from precisionbench.torchtools.from_paths import from_paths
from precisionbench.torchtools.tensors import Inputs, walk
from precisionbench.workflows.tuning.accuracy import SHUFFLED, ErrorJudge, check_bound
from precisionbench.workflows.tuning.batches import inputs_of
from precisionbench.workflows.tuning.metric import metric_judge

GIVEN = Inputs((torch.arange(24.0).reshape(4, 6),), {})
EXPECTED = [{"": torch.full((4, 3), 2.0)} for _ in range(1 + SHUFFLED)]


def error_judge(max_error: float = 1e-2) -> ErrorJudge:
    return ErrorJudge.of(max_error, GIVEN, seed=0).with_reference(EXPECTED, "float64")


def outputs(*errors: float):
    return [{"": torch.full((4, 3), 2.0 * (1 + error))} for error in errors]


# Errors


def test_an_error_below_the_bound_on_all_inputs_is_within_it():
    found = error_judge().accuracy(outputs(1e-3, 1.1e-3, 0.9e-3, 1e-3))
    assert found.verdict == WITHIN
    assert found.loss.value == pytest.approx(1.1e-3, rel=1e-3)


def test_an_error_above_the_bound_on_any_input_is_beyond_it():
    assert error_judge().accuracy(outputs(1e-3, 1e-3, 1e-3, 0.02)).verdict == BEYOND


def test_outputs_after_a_failure_are_not_computed():
    def some():
        yield from outputs(0.5)
        raise AssertionError("a second output was asked for")

    assert error_judge().accuracy(some()).verdict == BEYOND


def test_an_error_that_other_inputs_could_lift_above_the_bound_is_unclear():
    found = error_judge().accuracy(outputs(9e-3, 3e-3, 6e-3, 9.5e-3))
    assert found.verdict == UNCLEAR
    assert found.loss.high > 1e-2
    assert "other inputs" in found.reason


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"": torch.full((4, 3), math.inf)}, "infinite or NaN"),
        ({"": torch.zeros(4, 2)}, "has shape"),
        ({"['a']": torch.zeros(4, 3)}, "is missing"),
    ],
)
def test_an_output_without_an_error_is_beyond_the_bound_with_the_reason(output, words):
    found = error_judge().accuracy([output] * 4)
    assert found.verdict == BEYOND
    assert found.loss is None
    assert words in found.reason


def test_shuffled_inputs_hold_the_values_of_each_item_in_another_order():
    judge = error_judge()
    given, *shuffled = (one[0] for one in judge.inputs)
    assert len(shuffled) == SHUFFLED
    for tensor in shuffled:
        assert not torch.equal(tensor, given)
        assert torch.equal(tensor.sort(dim=1).values, given)


def test_shuffled_inputs_are_the_same_for_the_same_seed():
    first, second = (ErrorJudge.of(1e-2, GIVEN, seed=3).inputs for _ in range(2))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))


def test_inputs_whose_reference_is_not_finite_are_dropped():
    expected = [*EXPECTED[:-1], {"": torch.full((4, 3), math.nan)}]
    judge = ErrorJudge.of(1e-2, GIVEN, seed=0).with_reference(expected, "float64")
    assert judge.bound.batches == len(judge.inputs) == SHUFFLED


MASKED = torch.tensor([2.0, 2.0, -math.inf]).expand(4, 3)
NAN = torch.full((4, 3), math.nan)


def masked_judge() -> ErrorJudge:
    return ErrorJudge.of(1e-2, GIVEN, seed=0).with_reference([{"": MASKED}] * 4, "float64")


def test_inputs_whose_reference_has_the_same_mask_are_kept():
    judge = masked_judge()
    assert judge.bound.batches == len(judge.inputs) == 1 + SHUFFLED
    assert not judge.notes
    assert judge.accuracy([{"": MASKED * 1.001}] * 4).verdict == WITHIN


def test_an_error_of_the_given_inputs_alone_is_noted():
    expected = [EXPECTED[0], *[{"": NAN}] * SHUFFLED]
    (note,) = ErrorJudge.of(1e-2, GIVEN, seed=0).with_reference(expected, "float64").notes
    assert "so the error is that of the given inputs only" in note


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (torch.full((4, 3), 2.0), "4 elements are finite where the reference is infinite or NaN"),
        (MASKED * -1, "4 elements are infinite or NaN in another way than in the reference"),
    ],
)
def test_elements_that_only_the_reference_masks_are_named(output, words):
    assert masked_judge().accuracy([{"": output}] * 4).reason == words


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({}, "the output of float64 holds no tensor; accuracy is judged by tensors, so let the"),
        ({"": torch.ones(0, 3)}, "all tensors in the output of float64 are empty, .* or metric"),
    ],
)
def test_a_reference_without_elements_is_refused_with_what_to_do(output, words):
    with pytest.raises(WorkloadError, match=words):
        ErrorJudge.of(1e-2, GIVEN, seed=0).with_reference([output] * 4, "float64")


def test_the_reference_is_named_in_the_bound():
    assert error_judge().bound.reference == "float64"


# Metrics


def top1(output, batch):
    return (output.argmax(1) == batch[1]).float().mean()


BATCHES = [(torch.ones(4, 6), torch.tensor([0, 1, 2, 0])) for _ in range(8)]
RIGHT = {"": torch.eye(3)[[0, 1, 2, 0]]}
ONE_WRONG = {"": torch.eye(3)[[0, 1, 2, 1]]}


def judge_of(metric=top1, drop=0.05, batches=BATCHES, higher=True):
    judge = metric_judge(metric, batches, drop, higher, GIVEN, from_paths)
    return judge.with_reference([RIGHT] * len(batches), "eager")


def test_the_same_metric_is_within_any_drop():
    found = judge_of(drop=0.0).accuracy([RIGHT] * 8)
    assert (found.verdict, found.metric) == (WITHIN, 1.0)
    assert (found.loss.low, found.loss.value, found.loss.high) == (0.0, 0.0, 0.0)


def test_a_metric_that_drops_too_far_is_beyond_the_bound():
    found = judge_of().accuracy([ONE_WRONG] * 8)
    assert found.verdict == BEYOND
    assert found.loss.value == pytest.approx(0.25)


def test_a_drop_whose_interval_reaches_over_the_bound_is_unclear():
    found = judge_of(drop=0.05).accuracy([RIGHT] * 7 + [ONE_WRONG])
    assert found.verdict == UNCLEAR
    assert "8 batches are too few" in found.reason


def test_a_single_batch_proves_nothing():
    found = judge_of(batches=BATCHES[:1]).accuracy([RIGHT])
    assert (found.verdict, found.loss) == (UNCLEAR, None)
    assert found.reason == "one batch does not show how far the drop varies"


def test_the_reference_is_within_any_bound_on_a_drop():
    found = judge_of(batches=BATCHES[:1], drop=0.0).of_reference
    assert (found.verdict, found.loss.value, found.metric) == (WITHIN, 0.0, 1.0)


def test_the_first_batches_are_enough_where_others_have_no_output():
    judge = metric_judge(top1, BATCHES, 0.3, True, GIVEN, from_paths)
    judge = judge.with_reference([RIGHT] * 3, "eager")
    assert (judge.bound.batches, len(judge.read.found), len(judge.inputs)) == (3, 3, 3)
    assert judge.accuracy([RIGHT] * 3).verdict == WITHIN


def test_a_metric_may_be_better_where_it_is_lower():
    def errors(output, batch):
        return 1 - top1(output, batch)

    judge = judge_of(errors, higher=False)
    assert judge.accuracy([ONE_WRONG] * 8).verdict == BEYOND
    assert judge.bound.measure == "errors"


def test_a_metric_that_is_no_number_is_beyond_the_bound():
    metrics = iter([1.0] * 9 + [math.nan] * 8)  # the first batch's is computed twice
    judge = metric_judge(lambda *_: next(metrics), BATCHES, 0.1, True, GIVEN, from_paths)
    found = judge.with_reference([RIGHT] * 8, "eager").accuracy([RIGHT] * 8)
    assert (found.verdict, found.loss, found.metric) == (BEYOND, None, None)  # as JSON has no NaN
    assert found.reason == "<lambda> is nan"


def test_a_metric_that_is_no_number_for_the_reference_is_an_error():
    judge = metric_judge(lambda *_: math.nan, BATCHES, 0.1, True, GIVEN, from_paths)
    with pytest.raises(WorkloadError, match="<lambda> is nan for batch 0 of data and eager; give"):
        judge.with_reference([RIGHT] * 8, "eager")


def broken():
    yield BATCHES[0]
    raise OSError("disk gone")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.ones(3, 4), "data is a Tensor, and no iterable of batches; give a list"),
        (5, "data is an int, and no iterable"),
        (broken, "data is a function, and no iterable"),
        (broken(), r"batch 1 of data cannot be read \(OSError: disk gone\); iterate over"),
        ([], "data has no batch"),
    ],
)
def test_data_that_cannot_be_read_is_named(data, message):
    with pytest.raises(WorkloadError, match=message):
        metric_judge(top1, data, 0.1, True, GIVEN, from_paths)


def test_a_metric_that_fails_is_named():
    with pytest.raises(WorkloadError, match=r"the metric top1 failed .*metric\(outputs, batch\)"):
        metric_judge(top1, [torch.ones(4, 6)], 0.1, True, GIVEN, from_paths).with_reference(
            [{"['logits']": torch.ones(1)}], "eager"
        )


@pytest.mark.parametrize(
    "batch",
    [
        torch.ones(4, 6),
        (torch.ones(4, 6), "labels"),
        [torch.ones(4, 6), torch.ones(4)],
    ],
)
def test_the_models_inputs_are_found_in_a_batch(batch):
    assert [tensor.shape for tensor in inputs_of(batch, GIVEN, 0)] == [(4, 6)]


def test_named_inputs_are_found_in_a_mapping():
    given = Inputs((), {"ids": torch.ones(2, 3), "mask": torch.ones(2, 3)})
    batch = {"labels": torch.ones(2), "mask": torch.zeros(2, 3), "ids": torch.ones(2, 3)}
    ids, mask = inputs_of(batch, given, 0)
    assert torch.equal(ids, batch["ids"])
    assert torch.equal(mask, batch["mask"])


def test_a_smaller_last_batch_is_refused_with_what_to_do():
    with pytest.raises(WorkloadError, match="batch 3 of data .*drop_last=True"):
        inputs_of(torch.ones(2, 6), GIVEN, 3)


def test_a_batch_without_the_inputs_is_refused():
    with pytest.raises(WorkloadError, match="does not hold the model's inputs"):
        inputs_of({"images": torch.ones(4, 6)}, Inputs((), {"x": torch.ones(4, 6)}), 0)


X = torch.ones(4, 6)


@pytest.mark.parametrize(
    ("batch", "given", "message"),
    [
        ({"x": X, "labels": X}, GIVEN, "a dict, .*by name, and inputs has them by position.*give"),
        ((X, X), Inputs((), {"x": X}), r"a tuple, .*give mappings with the names of inputs"),
        ((X, X), Inputs((X,), {"mask": X}), r"a tuple, .*inputs has mask by name\); give"),
        ((X.numpy(), X.numpy()), GIVEN, r"has 0 tensors .*tuned for 1; .*torch\.as_tensor"),
    ],
)
def test_a_batch_of_another_form_is_refused_with_the_form_that_is_needed(batch, given, message):
    with pytest.raises(WorkloadError, match=message):
        inputs_of(batch, given, 0)


def test_no_batch_is_refused():
    with pytest.raises(WorkloadError, match="data has no batch"):
        metric_judge(top1, [], 0.1, True, GIVEN, from_paths)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((1e-2, top1, BATCHES, 0.1), "both max_error and metric"),
        ((None, top1, None, 0.1), "metric needs data as well"),
        ((None, top1, None, None), "metric needs data and drop as well"),
        ((None, None, BATCHES, None), "data and drop belong to a metric"),
        ((None, "top1", BATCHES, 0.1), "metric is a str, and no function; give the function"),
        ((-1.0, None, None, None), "max_error is -1.0"),
        ((True, None, None, None), "max_error is True"),
        ((None, top1, BATCHES, "0.1"), "drop is '0.1'"),
    ],
)
def test_a_bound_that_is_incomplete_or_doubled_is_refused(given, words):
    with pytest.raises(SpecError, match=words):
        check_bound(*given)


# Statistics


def test_the_next_value_stays_below_the_upper_end():
    rng = torch.Generator().manual_seed(1)
    draws = (torch.randn(400, 5, generator=rng) * 0.3).exp()
    below = [float(row[-1]) <= next_value(row[:-1].tolist(), 0.95).high for row in draws]
    assert 0.92 <= sum(below) / len(below) <= 0.98


def test_the_mean_is_covered_by_the_bootstrap():
    rng = torch.Generator().manual_seed(2)
    draws = torch.rand(200, 40, generator=rng)
    found = [bootstrap_mean(row.tolist()) for row in draws]
    covered = sum(one.low <= 0.5 <= one.high for one in found) / len(found)
    assert 0.9 <= covered <= 0.99


def test_values_of_zero_have_no_logarithm_and_are_kept():
    assert next_value([0.0, 0.0]).high == 0.0
    assert next_value([0.0, 1e-3], 0.99).low == 0.0


# Outputs


@pytest.mark.parametrize(
    "output",
    [
        torch.ones(2),
        (torch.ones(1), torch.zeros(2)),
        {"logits": torch.ones(1), "states": (torch.zeros(1), torch.ones(2))},
        {"a]": torch.ones(1), "it's": [torch.ones(2)]},
    ],
)
def test_an_output_is_rebuilt_from_its_paths(output):
    rebuilt = from_paths(dict(walk(output)))
    assert [path for path, _ in walk(rebuilt)] == [path for path, _ in walk(output)]


def test_items_of_a_rebuilt_mapping_are_attributes_too():
    found = from_paths({"['logits']": torch.ones(1)})
    assert torch.equal(found.logits, found["logits"])
    with pytest.raises(AttributeError, match="has no 'loss'"):
        _ = found.loss
