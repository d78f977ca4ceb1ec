"""Which arguments a prepared call takes: only the values of tensors may differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from precisionbench.errors import WorkloadError
from precisionbench.torchtools.same_arguments import tensors_in_order
from precisionbench.torchtools.tensors import Inputs

ARRAY = np.zeros(3)


class Cache:
    """Keys and values of attention, of which there are none at first."""

    def __init__(self, *keys: torch.Tensor, size: int = 8) -> None:
        self.keys, self.size = list(keys), size


def given(*values: Any, **named: Any) -> Inputs:
    return Inputs((torch.ones(2), *values), named)


@pytest.mark.parametrize(
    ("value", "again"),
    [
        (None, None),
        (1.5, 1.5),
        (["a", True], ["a", True]),
        (ARRAY, ARRAY),
        (Cache(), Cache()),
        (Cache(torch.ones(1)), Cache(torch.zeros(1))),
    ],
)
def test_equal_values_are_taken(value, again):
    assert torch.equal(tensors_in_order(given(again), given(value))[0], torch.ones(2))


@pytest.mark.parametrize(
    ("value", "other", "message"),
    [
        (None, 0, "the argument 1 has 0 where the model was prepared with None"),
        (1, True, "has True where the model was prepared with 1"),
        (["a", "b"], ["a"], "has None where the model was prepared with 'b'"),
        (ARRAY, ARRAY.copy(), "has another ndarray"),
        (Cache(), Cache(size=16), "has another Cache"),
        (Cache(torch.ones(1)), Cache(torch.ones(1), torch.ones(1)), r"tensors: .*keys\[1\]"),
    ],
)
def test_other_values_are_refused(value, other, message):
    with pytest.raises(WorkloadError, match=message):
        tensors_in_order(given(other), given(value))


def test_tensors_are_in_the_order_of_the_known_arguments():
    one, two, three = (torch.full((2,), float(number)) for number in range(3))
    known = Inputs((), {"a": {"x": one, "y": two}, "b": three})
    found = tensors_in_order(Inputs((), {"b": two, "a": {"y": three, "x": one}}), known)
    assert [tensor[0].item() for tensor in found] == [0, 2, 1]
