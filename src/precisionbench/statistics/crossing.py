"""Where a noisy curve that rises crosses 0, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from precisionbench.display import Shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DRAWS = 2000
_SEED = 0
_TAILS = (0.025, 0.975)
_LEAST_ERROR = 1e-9


@attrs.frozen(repr=False)
class Crossing(Shown):
    """Where a curve crosses 0, with its 95 % interval.

    Attributes:
        value: the estimate; None if the curve crosses 0 at none of the measured places.
        low: lower end; None if it may be below the smallest measured place.
        high: upper end; None if it may be above the largest measured place.
    """

    value: float | None
    low: float | None
    high: float | None


def crossing(places: Sequence[float], values: Sequence[float], errors: Sequence[float]) -> Crossing:
    """Where a curve that does not fall crosses 0 from below.

    The curve is the isotonic regression of the values, weighted by their errors (min-max formula,
    Robertson, Wright & Dykstra, Order Restricted Statistical Inference, 1988), linear between the
    places. The interval has the quantiles of crossings of curves with normal noise added (a
    parametric bootstrap with a fixed seed).

    Args:
        places: increasing.
        values: at each place.
        errors: standard error of each value.

    Returns:
        The crossing, within the measured places only.
    """
    import numpy as np

    x, y = np.asarray(places, dtype=float), np.asarray(values, dtype=float)
    sd = np.maximum(np.asarray(errors, dtype=float), _LEAST_ERROR)
    noise = np.random.default_rng(_SEED).standard_normal((_DRAWS, len(x))) * sd
    found = _crossings(x, _isotonic(np.vstack([y, y + noise]), 1 / sd**2))
    low, high = np.quantile(found[1:], _TAILS, method="nearest")
    return Crossing(*(float(one) if np.isfinite(one) else None for one in (found[0], low, high)))


def _isotonic(table: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The isotonic regression of each row of a table."""
    import numpy as np

    count = table.shape[1]
    sums = np.cumsum(np.pad(table * weights, ((0, 0), (1, 0))), axis=1)
    totals = np.cumsum(np.pad(weights, (1, 0)))
    start, end = np.triu_indices(count)
    averages = np.full((len(table), count, count), np.inf)
    averages[:, start, end] = (sums[:, end + 1] - sums[:, start]) / (
        totals[end + 1] - totals[start]
    )
    least = np.minimum.accumulate(averages[:, :, ::-1], axis=2)[:, :, ::-1]
    before = np.arange(count)[:, None] <= np.arange(count)[None, :]
    fitted: NDArray[np.float64] = np.where(before, least, -np.inf).max(axis=1)
    return fitted


def _crossings(x: NDArray[np.float64], curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where each curve crosses 0; infinite where it does so beyond the places."""
    import numpy as np

    above = curves > 0
    first = above.argmax(axis=1)
    inside = above.any(axis=1) & (first > 0)
    rows, k = np.arange(len(curves))[inside], first[inside]
    lower, upper = curves[rows, k - 1], curves[rows, k]
    found = np.where(above.any(axis=1), -np.inf, np.inf)
    found[inside] = x[k - 1] + (x[k] - x[k - 1]) * -lower / (upper - lower)
    return found
