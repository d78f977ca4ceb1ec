"""Statistics on plain numbers: no torch, no devices.

`intervals` has values with confidence intervals, `ratios` the ratio of two backends' latencies,
`verdicts` the conclusions from them, `series` the properties of values over time, and
`early_stopping` LoadGen's bound on percentiles.
"""

from precisionbench.statistics.early_stopping import (
    early_stopping_estimate,
    early_stopping_minimum,
)
from precisionbench.statistics.intervals import (
    Interval,
    quantile_interval,
    tail_is_supported,
)
from precisionbench.statistics.ratios import (
    Spread,
    pooled_spread,
    ratio_interval,
    signed_rank_rank,
    unpaired_ratio_interval,
)
from precisionbench.statistics.series import (
    Modes,
    Steadiness,
    bimodality,
    carryover,
    drift,
    has_settled,
    outliers,
    steadiness,
)
from precisionbench.statistics.verdicts import Verdict, verdict_of, verdicts

__all__ = [
    "Interval",
    "Modes",
    "Spread",
    "Steadiness",
    "Verdict",
    "bimodality",
    "carryover",
    "drift",
    "early_stopping_estimate",
    "early_stopping_minimum",
    "has_settled",
    "outliers",
    "pooled_spread",
    "preload",
    "quantile_interval",
    "ratio_interval",
    "signed_rank_rank",
    "steadiness",
    "tail_is_supported",
    "unpaired_ratio_interval",
    "verdict_of",
    "verdicts",
]


def preload() -> None:
    """Import scipy and numpy in advance, which takes some tenths of a second."""
    import numpy as np  # noqa: F401
    from scipy import special  # noqa: F401
