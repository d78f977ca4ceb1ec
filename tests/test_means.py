"""How often the intervals of means hold the mean, with few values."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from precisionbench.statistics.means import bootstrap_mean

DRAWS = 400
ITEMS = 32  # of a batch
COUNTS = (2, 3, 5, 8, 16)
# Shares of items that a configuration gets wrong, and right, that the reference does not.
SHARES = {"accuracy": (0.03, 0.02), "rare": (0.006, 0.001), "one-sided": (0.01, 0.0)}


def drawn(kind: str, count: int) -> tuple[np.ndarray, float]:
    """Drops of batches in many experiments, and the mean that they are drawn with."""
    rng = np.random.default_rng(count)
    if kind == "normal":
        return rng.normal(0.0, 1.0, (DRAWS, count)), 0.0
    if kind == "skewed":  # upwards: rare batches drop by much
        return rng.exponential(1.0, (DRAWS, count)), 1.0
    worse, better = SHARES[kind]
    items = rng.multinomial(ITEMS, [worse, better, 1 - worse - better], (DRAWS, count))
    return (items[..., 0] - items[..., 1]) / ITEMS, worse - better


@functools.cache
def coverage(kind: str, count: int) -> tuple[float, float]:
    """Shares of experiments in which the interval, and its upper end alone, hold the mean."""
    values, truth = drawn(kind, count)
    found = [bootstrap_mean(row.tolist()) for row in values]
    high = np.array([truth <= one.high for one in found])
    return float(np.mean(high & [one.low <= truth for one in found])), float(high.mean())


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    ("kind", "both", "upper"),
    [
        ("normal", 0.92, 0.95),
        ("skewed", 0.83, 0.85),  # the hardest: no method holds 95 % with few such values
    ],
)
def test_the_interval_holds_the_mean_with_few_batches(kind, count, both, upper):
    assert coverage(kind, count)[0] >= both
    assert coverage(kind, count)[1] >= upper


def test_the_interval_of_an_accuracy_holds_the_drop_with_several_batches():
    """Where the drops of all batches are zero, they show nothing of it; docs/tuning.md says so."""
    assert coverage("accuracy", 5)[1] >= 0.94
    assert coverage("one-sided", 16)[1] >= 0.94
    assert coverage("rare", 16)[1] >= 0.9


def test_equal_values_have_no_spread():
    found = bootstrap_mean([0.1] * 7)
    assert (found.low, found.value, found.high) == (found.value,) * 3


if __name__ == "__main__":  # the table of docs/tuning.md
    for kind in ("normal", "skewed", *SHARES):
        print(kind, *(" / ".join(f"{100 * one:.0f}" for one in coverage(kind, n)) for n in COUNTS))
