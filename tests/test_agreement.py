from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from precisionbench.torchtools import agreement
from precisionbench.torchtools.agreement import compare_outputs, cpu_copies, differs
from precisionbench.torchtools.global_state import threads


def only(output, reference):
    (tensor,) = compare_outputs(output, reference).tensors
    return tensor


def test_equal_outputs_agree_completely():
    x = torch.rand(3, 4)
    tensor = only(x, x.clone())
    assert (tensor.relative_l2, tensor.max_abs_error, tensor.nonfinite_count) == (0, 0, 0)
    assert tensor.cosine == pytest.approx(1)
    assert tensor.batch_centred_relative_l2 == 0


@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 2**31), st.sampled_from([3, 1 << 22]))
@settings(deadline=None)
def test_values_equal_their_textbook_formulas(batch, width, seed, chunk):
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(batch, width, generator=generator, dtype=torch.float64)
    output = reference + 0.1 * torch.randn(batch, width, generator=generator, dtype=torch.float64)
    before, agreement._CHUNK_ELEMENTS = agreement._CHUNK_ELEMENTS, chunk
    try:
        tensor = only(output, reference)
    finally:
        agreement._CHUNK_ELEMENTS = before
    error = output - reference
    assert tensor.relative_l2 == pytest.approx(float(error.norm() / reference.norm()))
    assert tensor.cosine == pytest.approx(
        float((output * reference).sum() / (output.norm() * reference.norm()))
    )
    assert tensor.max_abs_error == pytest.approx(float(error.abs().max()))
    if batch > 1:
        centred = (error - error.mean(0)).norm() / (reference - reference.mean(0)).norm()
        assert tensor.batch_centred_relative_l2 == pytest.approx(float(centred))
    else:
        assert tensor.batch_centred_relative_l2 is None


class ThreadsOfOperations(TorchDispatchMode):
    """Keeps with how many threads each operation may compute."""

    def __init__(self):
        super().__init__()
        self.threads: dict[str, set[int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().partition("::")[2].partition(".")[0]
        self.threads.setdefault(name, set()).add(torch.get_num_threads())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("shape", [(4, 3, 50_000), (40_000, 8)])
def test_one_thread_compares_as_several_wait_for_each_other_on_a_busy_host(shape):
    reference = torch.rand(shape)
    output = reference.half()
    with threads(3):
        with ThreadsOfOperations() as operations:
            compare_outputs(output, reference)
        assert torch.get_num_threads() == 3
    assert "sum" in operations.threads
    assert set().union(*operations.threads.values()) == {1}
    assert operations.threads.keys().isdisjoint({"dot", "vdot", "mm", "bmm"})  # with own threads


def test_the_centred_error_shows_what_a_common_offset_hides():
    """As in a random ResNet: every image gets nearly the same output."""
    reference = 1000 + torch.randn(8, 10, dtype=torch.float64)
    output = reference + 0.3 * torch.randn(8, 10, dtype=torch.float64)
    tensor = only(output, reference)
    assert tensor.cosine > 0.99999
    assert tensor.relative_l2 < 1e-3
    assert tensor.batch_centred_relative_l2 > 0.1


def test_nonfinite_elements_are_counted_and_left_out_of_the_values():
    reference = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    output = torch.tensor([[1.0, math.inf, math.nan, 4.0]])
    tensor = only(output, reference)
    assert tensor.nonfinite_count == 2
    assert tensor.relative_l2 == 0


def test_infinities_that_the_reference_has_too_are_not_counted():
    mask = torch.tensor([[0.0, -math.inf, math.nan]])
    assert only(mask, mask.clone()).nonfinite_count == 0


def test_an_output_without_finite_elements_has_no_values():
    tensor = only(torch.full((2, 2), math.nan), torch.ones(2, 2))
    assert tensor.nonfinite_count == 4
    assert (tensor.relative_l2, tensor.cosine, tensor.max_abs_error) == (None, None, None)


def test_a_zero_reference_gives_no_infinite_error():
    zero = torch.zeros(2, 2)
    assert only(zero, zero).relative_l2 == 0
    assert only(zero, zero).cosine is None, "a zero vector has no direction"
    assert only(torch.ones(2, 2), zero).relative_l2 is None
    assert only(torch.ones(2, 2), zero).cosine is None


def test_an_error_against_a_zero_reference_is_reported():
    good, zero = torch.ones(2, 2), torch.zeros(2, 2)
    result = compare_outputs([good, good * 7], [good, zero])
    assert result.relative_l2 == 0
    assert result.caveats == (
        "output[1] is zero everywhere in the reference and differs by up to 7.0e+00 in this row",
    )
    assert differs(result, 1.0)


def test_agreement_of_zeros_only_is_reported_as_meaningless():
    """torchvision's vit_b_16 has a head of zeros until it is trained."""
    good, zero = torch.ones(2, 2), torch.zeros(2, 2)
    (caveat,) = compare_outputs([zero, zero], [zero, zero]).caveats
    assert caveat.startswith("the output is zero everywhere, in this row and in the reference")
    assert compare_outputs([zero, good], [zero, good]).caveats == ()


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(torch.tensor(3.0), id="scalar"),
        pytest.param(torch.tensor([1, 2, 3]), id="int64"),
        pytest.param(torch.tensor([True, False]), id="bool"),
        pytest.param(torch.tensor([1 + 2j, 3j]), id="complex"),
        pytest.param(
            torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last), id="channels_last"
        ),
        pytest.param(torch.rand(3).to(torch.bfloat16), id="bfloat16"),
        pytest.param(torch.empty(0, 3), id="empty"),
    ],
)
def test_every_kind_of_tensor_agrees_with_itself(tensor):
    result = compare_outputs(cpu_copies(tensor), cpu_copies(tensor))
    assert result.problems == ()
    assert result.relative_l2 in (0, None if not tensor.numel() else 0)


def test_tensors_are_matched_by_path_and_the_worst_one_counts():
    x = torch.ones(2, 3)
    result = compare_outputs({"a": x * 1.1, "b": [x]}, {"b": [x], "a": x})
    assert [tensor.path for tensor in result.tensors] == ["['a']", "['b'][0]"]
    assert result.relative_l2 == pytest.approx(0.1)
    assert result.max_abs_error == pytest.approx(0.1)
    assert result.cosine == pytest.approx(1)
    assert result.batch_centred_relative_l2 == 0 or result.batch_centred_relative_l2 is None


def test_tensors_that_cannot_be_compared_are_problems():
    result = compare_outputs(
        {"boxes": torch.ones(3, 4), "new": torch.ones(1)},
        {"boxes": torch.ones(5, 4), "old": torch.ones(1)},
    )
    assert result.problems == (
        "output['old'] is missing",
        "output['new'] is not in the reference",
        "output['boxes'] has shape (3, 4), the reference's (5, 4)",
    )
    assert result.relative_l2 is None


@pytest.mark.filterwarnings("ignore:.*nested:UserWarning", "ignore:.*deprecated:UserWarning")
@pytest.mark.parametrize("kind", ["sparse", "quantized", "nested"])
def test_tensors_of_every_layout_are_compared(kind):
    def stored(value: float) -> torch.Tensor:
        x = torch.eye(3) * value
        if kind == "sparse":
            return x.to_sparse()
        if kind == "quantized":
            return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)
        return torch.nested.nested_tensor([x, x[:2]])

    tensor = only(stored(1.5), stored(1.0))
    assert tensor.relative_l2 == pytest.approx(0.5)


def test_a_tensor_whose_elements_cannot_be_read_is_a_problem():
    meta = torch.ones(3, device="meta")
    (problem,) = compare_outputs([meta], [meta]).problems
    assert problem.startswith("output[0] cannot be compared (")


def test_values_that_overflow_are_a_problem():
    huge = torch.full((2, 2), 1e200, dtype=torch.float64)
    (problem,) = compare_outputs(huge, -huge).problems
    assert "cannot be compared (OverflowError: its squares do not fit into float64)" in problem


@pytest.mark.parametrize(
    ("error", "reference"), [(1.0, 1e-310), (math.inf, math.inf), (0.0, math.nan), (1.0, 0.0)]
)
def test_an_error_that_no_file_can_hold_is_none(error, reference):
    assert agreement.relative_l2(error, reference) is None


def test_an_output_without_tensors_is_reported():
    (caveat,) = compare_outputs("text", None).caveats
    assert caveat == "the output holds no tensor, so there is nothing to compare"
    assert not differs(compare_outputs("text", None), 0)


def test_cpu_copies_share_no_memory():
    x = torch.ones(2)
    copy = cpu_copies([x])
    x.zero_()
    assert copy["[0]"].sum() == 2


def test_top_1_is_given_only_where_it_is_meaningful():
    reference = torch.eye(4)
    own = reference.clone()
    own[0] = own[1]
    assert compare_outputs(own, reference).top1 == 0.75
    same = torch.tensor([[1.0, 0.0], [2.0, 0.0]])  # one class for all items
    assert compare_outputs(same, same).top1 is None
    assert compare_outputs(torch.ones(3), torch.ones(3)).top1 is None
