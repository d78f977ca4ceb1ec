"""The result of `tune`: what was tried, what became of it, and the final comparison."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from precisionbench.display import Shown
from precisionbench.results.comparison_data import ComparisonData
from precisionbench.statistics import Interval

RELATIVE_L2 = "relative L2 error"

# What became of a configuration.
BEST = "best"
FINALIST = "finalist"  # measured to the end, and not chosen
SLOWER = "slower"
INACCURATE = "inaccurate"
FAILED = "failed"
NOT_FINISHED = "not finished"  # the budget or the user ended the search first
OUTCOMES = (BEST, FINALIST, SLOWER, INACCURATE, FAILED, NOT_FINISHED)

# In the reason of a failure: the user's metric raised, which may be at fault itself.
METRIC_FAILED = "failed for its outputs"
# In the reason of a failure, which may come from another process: killed (9), perhaps for its
# memory, a full disk, or a folder that cannot be used.
_OF_THE_MOMENT = re.compile(
    r"\b(?:signal 9|OSError|PermissionError|ConnectionError|TimeoutError|MemoryError"
    r"|No space left on device|Read-only file system|did not answer within)\b"
)

# What is known of whether a configuration is accurate enough.
WITHIN = "within"
BEYOND = "beyond"
UNCLEAR = "unclear"


@attrs.frozen(repr=False)
class AccuracyBound(Shown):
    """How accurate a configuration has to be.

    Attributes:
        measure: `relative L2 error`, against the model in float64; or the name of the metric.
        limit: the largest error; or the largest drop of the metric below the reference's.
        higher_is_better: of the metric; false where a lower value is better.
        batches: how many batches of inputs the accuracy is measured on.
        reference: what the error or the drop is measured against, such as `float64`.
    """

    measure: str
    limit: float
    higher_is_better: bool = True
    batches: int = 1
    reference: str = "float64"

    @property
    def is_metric(self) -> bool:
        """Whether it is a bound on the drop of a metric."""
        return self.measure != RELATIVE_L2


@attrs.frozen(repr=False)
class Accuracy(Shown):
    """How accurate a configuration is.

    Attributes:
        loss: the relative L2 error, with the interval that an error on other inputs of the same
            kind is in; or how much the metric is worse than the reference's, with its interval.
            None where it has no number, because of `reason`.
        verdict: `within` the bound, `beyond` it, or `unclear`.
        reason: of the verdict; empty where the loss says it.
        metric: the metric of this configuration; None for an error.
    """

    loss: Interval | None
    verdict: str
    reason: str = ""
    metric: float | None = None


@attrs.frozen(repr=False)
class Trial(Shown):
    """What became of one configuration.

    Attributes:
        spec: its canonical spec.
        outcome: one of `OUTCOMES`.
        reason: why, in a few words.
        accuracy: None where it was not measured.
        speedup: over the reference, with its 95 % interval; None where it was not timed.
        measured_in: `screening` or `final` rounds; empty where it was not timed.
        build_s: seconds that preparing it took; None where that failed or did not end.
        from_journal: whether an earlier run measured it.
        error_layers: the layers in which the error of an inaccurate half row grows most, the worst
            first; empty where that was not looked for.
        slower_than: the configuration that a slower one was dropped for; a later search tries it
            again where that one does not take part. Empty for other outcomes.
    """

    spec: str
    outcome: str
    reason: str = ""
    accuracy: Accuracy | None = None
    speedup: Interval | None = None
    measured_in: str = ""
    build_s: float | None = None
    from_journal: bool = False
    error_layers: tuple[str, ...] = ()
    slower_than: str = ""

    @property
    def is_accurate(self) -> bool:
        """Whether its outputs were judged, and are within the bound."""
        return self.accuracy is not None and self.accuracy.verdict == WITHIN

    @property
    def loss(self) -> Interval | None:
        """Its error, or how much worse its metric is; None where it has no number."""
        return self.accuracy.loss if self.accuracy else None

    @property
    def may_pass(self) -> bool:
        """Whether it failed by something of the moment, so that a later search tries it again."""
        of_the_moment = self.outcome == FAILED and _OF_THE_MOMENT.search(self.reason) is not None
        return of_the_moment or self.failed_in_metric

    @property
    def failed_in_metric(self) -> bool:
        """Whether the user's metric raised for its outputs."""
        return self.outcome == FAILED and METRIC_FAILED in self.reason


@attrs.frozen(repr=False)
class LeftOut(Shown):
    """Configurations that were not tried.

    Attributes:
        what: a spec, or a name of the group.
        reason: why, in a few words.
    """

    what: str
    reason: str


@attrs.frozen(repr=False)
class Target(Shown):
    """What a configuration was tuned for.

    Attributes:
        device: name of the GPU or the CPU.
        compute_capability: of the GPU; empty on a CPU.
        versions: of Python, torch and the packages that the configuration uses, by name.
        architecture: identifies the names, shapes and dtypes of the model's tensors, its code, and
            the options of torch's layers in it.
        weights: identifies the values of its tensors, and others that it holds or reads.
    """

    device: str
    compute_capability: str
    versions: Mapping[str, str]
    architecture: str
    weights: str


@attrs.frozen(repr=False)
class CalibrationRecord(Shown):
    """The user's data that INT8 configurations were calibrated with.

    Attributes:
        batches: how many.
        values: identifies the values of their tensors.
    """

    batches: int
    values: str


@attrs.frozen(repr=False)
class TuningData(Shown):
    """The result of `tune`.

    Attributes:
        best: spec of the configuration that was chosen.
        choice: why it was chosen, in one sentence.
        reference: spec of the row that speed-ups are over.
        bound: how accurate a configuration has to be.
        trials: what became of each configuration, in the order in which they were tried.
        left_out: what was not tried.
        target: what it was tuned for.
        final: the final rounds of the finalists and the reference.
        budget_s: seconds that the search was given.
        elapsed_s: seconds that it took, earlier runs of the same journal not counted.
        ended_by: `finished`, `budget` or `interrupted`.
        notes: what qualifies the result.
        calibration: what INT8 configurations were calibrated with; None where that was the inputs.
    """

    best: str
    choice: str
    reference: str
    bound: AccuracyBound
    trials: tuple[Trial, ...]
    left_out: tuple[LeftOut, ...]
    target: Target
    final: ComparisonData
    budget_s: float
    elapsed_s: float
    ended_by: str = "finished"
    notes: tuple[str, ...] = ()
    calibration: CalibrationRecord | None = None
