"""Records of a diagnosis: findings, labels, accuracy, rates and answers."""

from __future__ import annotations

from enum import Enum

import attrs

from precisionbench._version import DOCS_URL
from precisionbench.display import Shown
from precisionbench.statistics import Interval

# Verdicts of an `Accuracy` with which a row's output is out of tolerance.
UNSOUND_OUTPUTS = ("inaccurate", "non_finite", "unstable")


class FindingStatus(str, Enum):
    """Status of a finding."""

    CONFIRMED = "confirmed"
    SUSPECTED = "suspected"
    RULED_OUT = "ruled_out"


@attrs.frozen(repr=False)
class Number(Shown):
    """A figure that supports a finding.

    Attributes:
        name: name of the quantity.
        value: the value.
        unit: `s`, `share`, `count`, `ratio`, `FLOP/s`, `byte` or empty.
    """

    name: str
    value: float
    unit: str


@attrs.frozen(repr=False)
class Finding(Shown):
    """A cause that was detected in a row, or ruled out by an experiment.

    Attributes:
        cause: name of the cause, e.g. `layout-conversions`.
        row: the row.
        title: the cause in a few words.
        status: whether it is confirmed, suspected or ruled out.
        factor: speed-up of the row without the cause, with its interval; None where it is not
            known. Estimated while the cause is suspected, measured where it is confirmed.
        evidence: figures that support it.
        remedy: how to fix it, in a sentence; empty where an experiment ruled the cause out.
        experiment: the experiment that confirmed it or ruled it out; empty without one.
        reason: the reason for its status.
        proposed: the experiment that could confirm it; empty where there is none.
        costs_time: whether it makes the row slower; other causes make a figure wrong.
        alternatives: other experiments for it, which run on request.
    """

    cause: str
    row: str
    title: str
    status: FindingStatus
    factor: Interval | None
    evidence: tuple[Number, ...]
    remedy: str
    experiment: str = ""
    reason: str = ""
    proposed: str = ""
    costs_time: bool = True
    alternatives: tuple[str, ...] = ()

    @property
    def link(self) -> str:
        """Path of the documentation of the cause, in the source."""
        return f"docs/causes/{self.cause}.md"

    @property
    def address(self) -> str:
        """Address of the same page in the published documentation."""
        return f"{DOCS_URL}/causes/{self.cause}.html"


@attrs.frozen(repr=False)
class ExperimentResult(Shown):
    """The result of an experiment: a row with one change, measured together with the row itself.

    Attributes:
        experiment: name of the experiment.
        cause: the cause that it tests.
        row: the row that was changed.
        speedup: speed-up of the changed row over the row; None where it could not be measured.
        failure: why it could not be measured.
        measured_in: the row of the same comparison that is the row with that change already; empty
            where the experiment was run.
    """

    experiment: str
    cause: str
    row: str
    speedup: Interval | None
    failure: str = ""
    measured_in: str = ""


@attrs.frozen(repr=False)
class MadeExperiments(Shown):
    """The results of the experiments on a comparison.

    Attributes:
        results: of each experiment, also of those that could not be run.
        notes: which ones were run and left out, and why.
    """

    results: tuple[ExperimentResult, ...] = ()
    notes: tuple[str, ...] = ()


@attrs.frozen(repr=False)
class Indicator(Shown):
    """An indication of the precision that a row ran in.

    Attributes:
        name: name of the indicator.
        says: what it indicates, in words.
        against: whether it contradicts the label; None where it is neutral.
    """

    name: str
    says: str
    against: bool | None


@attrs.frozen(repr=False)
class Label(Shown):
    """Whether a row ran in the precision that it claims, and by the engine that it claims.

    Attributes:
        row: the row.
        claim: the precision that the row claims; empty where it claims none.
        verdict: `true`, `false`, `partly` (part of the work ran in another precision or without
            the engine) or `unknown`.
        ran: the precision that it ran in, or how it ran, in words; empty where it is not known.
        witnesses: indicators of the precision and the engine.
        engine: the engine, or the feature of it, that the row claims and that did not run it,
            completely or in part; empty where none was found missing.
        reason: why the precision is not known, for the verdict `unknown`; empty otherwise.
    """

    row: str
    claim: str
    verdict: str
    ran: str
    witnesses: tuple[Indicator, ...]
    engine: str = ""
    reason: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether it is false, completely or in part."""
        return self.verdict in ("false", "partly")

    @property
    def sentence(self) -> str:
        """The label's verdict as a sentence."""
        against = "; ".join(w.says for w in self.witnesses if w.against)
        labelled = self.engine or self.claim
        if self.verdict == "false":
            return f"{self.row} is labelled {labelled} but ran {self.ran}: {against}"
        if self.verdict == "partly":
            return f"{self.row} is labelled {labelled} but ran partly {self.ran}: {against}"
        reason = self.reason or "the precision was not recorded"
        return f"{self.row}: label {self.claim} not verified, because {reason}"


@attrs.frozen(repr=False)
class Ceiling(Shown):
    """The largest speed-up that half precision, or 8 bits, can reach.

    Attributes:
        best: the largest speed-up over the float32 row, between what is usual and what the
            device's peaks allow; None where it cannot be computed.
        brought: the speed-up of the fastest row in that precision; None without one.
        row: that row; empty without one.
        shares: shares of the float32 row's time, by their potential.
        reason: why `best` is None; empty otherwise.
        over: the float32 row of `best` and `brought`, where it is not the reference; else empty.
    """

    best: Interval | None
    brought: Interval | None
    row: str
    shares: tuple[Number, ...]
    reason: str = ""
    over: str = ""


@attrs.frozen(repr=False)
class LayerPair(Shown):
    """A layer in the reference row and in another row.

    Attributes:
        path: path of the layer.
        kind: class of the layer.
        row: the other row.
        reference_s: time of its kernels in the reference row, in seconds.
        time_s: time of its kernels in the other row, in seconds.
        kernel: the longest kernel in the other row.
        dtype: dtype of its operands in the other row.
        obstacles: what keeps tensor cores from being used efficiently.
        error: relative L2 error against float64 in the other row; None where it is not known.
        reference_error: the same in the reference row.
    """

    path: str
    kind: str
    row: str
    reference_s: float
    time_s: float
    kernel: str
    dtype: str
    obstacles: tuple[str, ...]
    error: float | None
    reference_error: float | None

    @property
    def ratio(self) -> float:
        """Speed-up of the layer in the other row."""
        return self.reference_s / self.time_s if self.time_s else float("inf")


@attrs.frozen(repr=False)
class Accuracy(Shown):
    """Whether a row's output matches float64 within tolerance.

    Attributes:
        row: the row.
        verdict: `fine`, `inaccurate`, `non_finite`, `unstable` (calls differ from each other) or
            `unknown`.
        error: relative L2 error of the output against float64; None where it is not known.
        bound: the tolerance.
        layer: the first layer with non-finite elements, or the one that adds most of the error.
        reason: the reason for the verdict, in a sentence.
        keep: layers to keep in float32, where the output is inaccurate.
        keep_s: estimated seconds per call that this would add.
        top1: share of items with the reference's top-1 class; None where it has no meaning.
        remedy: what makes the output more accurate, as far as this row can take it; may be empty.
    """

    row: str
    verdict: str
    error: float | None
    bound: float | None
    layer: str
    reason: str
    keep: tuple[str, ...] = ()
    keep_s: float = 0.0
    top1: float | None = None
    remedy: str = ""


@attrs.frozen(repr=False)
class RooflinePoint(Shown):
    """The rates that a row reaches in one category of its time.

    Attributes:
        category: category of time.
        time_s: seconds in a call.
        share: share of the time in kernels.
        flop_rate: FLOP/s; None where FLOPs were not counted.
        of_peak: share of the peak of the precision that it ran in; None where it is not known.
        byte_rate: byte/s of the least data that must be moved; None where it is not known.
        of_bandwidth: share of the device's bandwidth; None where it is not known.
    """

    category: str
    time_s: float
    share: float
    flop_rate: float | None
    of_peak: float | None
    byte_rate: float | None
    of_bandwidth: float | None


@attrs.frozen(repr=False)
class Answer(Shown):
    """The answer to a common question.

    Attributes:
        question: the question, in plain words.
        answer: the answer, in plain words, with figures.
        topic: the question in two or three words.
        short: the answer in a few words.
    """

    question: str
    answer: str
    topic: str
    short: str


@attrs.frozen(repr=False)
class DiagnosisData(Shown):
    """The diagnosis of a comparison: why its rows are as fast as they are.

    Attributes:
        labels: whether each row ran in the precision that it claims.
        ceiling: the largest speed-up that half precision can reach.
        findings: causes, the most important first.
        layers: the layers of the reference row with those of each other row.
        precisions: whether each row's output matches float64 within tolerance.
        roofs: by row, the rates that it reaches in each category of its time.
        answers: answers to common questions.
        notes: warnings that qualify the diagnosis.
        row_labels: the labels of the rows that have one, by row; texts use them.
        ceiling_of_8_bits: the largest speed-up that INT8 or FP8 can reach.
    """

    labels: tuple[Label, ...]
    ceiling: Ceiling
    findings: tuple[Finding, ...]
    layers: tuple[LayerPair, ...]
    precisions: tuple[Accuracy, ...]
    roofs: dict[str, tuple[RooflinePoint, ...]]
    answers: tuple[Answer, ...]
    notes: tuple[str, ...] = ()
    row_labels: dict[str, str] = attrs.field(factory=dict)
    ceiling_of_8_bits: Ceiling = Ceiling(None, None, "", (), "not computed")
