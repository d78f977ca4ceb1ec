"""What identifies a metric and the data of a user, so that `tune` knows whether they changed."""

from __future__ import annotations

import functools
import threading

import pytest
import torch

from precisionbench.model import fingerprint


def constant(value):
    def metric(outputs, batch):
        return value

    return metric


class Metric:
    def __init__(self, value):
        self.value = value

    def __call__(self, outputs, batch):
        return self.value


def with_helper(helper):
    """A metric of a module in which it calls a function of this name."""
    namespace = {"__name__": "metrics"}
    exec(f"def helper(x): return {helper}\ndef metric(o, b): return helper(o)", namespace)
    return namespace["metric"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda o, b: 1.0, lambda o, b: 2.0),
        (lambda o, b: o.mean(), lambda o, b: o.sum()),
        (constant(1.0), constant(2.0)),
        (constant(torch.ones(2)), constant(torch.zeros(2))),
        (functools.partial(max, 1), functools.partial(max, 2)),
        (functools.partial(constant(1), 1), functools.partial(constant(2), 1)),
        (Metric(1.0), Metric(2.0)),
        (Metric(1.0).__call__, Metric(2.0).__call__),
        (with_helper("x"), with_helper("x + 1")),
        (constant(threading.Lock()), constant(threading.Lock())),  # what it holds is not known
    ],
)
def test_metrics_that_do_something_else_differ(one, other):
    assert fingerprint.code(one) != fingerprint.code(other)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lambda o, b: b in {"a", "b", "c"},
        lambda: constant(torch.ones(2)),
        lambda: Metric(1.0),
        lambda: with_helper("x"),
        lambda: functools.partial(max, 1),
        lambda: len,
    ],
)
def test_a_metric_that_is_defined_again_is_the_same(make):
    assert fingerprint.code(make()) == fingerprint.code(make())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((torch.ones(2), torch.zeros(2)), (torch.ones(2), torch.ones(2))),
        ((torch.ones(2), ["a"]), (torch.ones(2), ["b"])),
        ({"x": torch.ones(2), "y": 1}, {"x": torch.ones(2), "y": 2}),
    ],
)
def test_batches_with_other_labels_differ(one, other):
    assert fingerprint.batch(one) != fingerprint.batch(other)
    assert fingerprint.batch(one) == fingerprint.batch(one)
