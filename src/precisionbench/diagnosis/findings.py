"""What a diagnosis is made of: frozen data."""

from __future__ import annotations

from enum import Enum

import attrs

from precisionbench.statistics import Interval

DOCS = "docs/causes/"


class FindingStatus(str, Enum):
    """How sure a finding is."""

    CONFIRMED = "confirmed"
    SUSPECTED = "suspected"
    RULED_OUT = "ruled_out"


@attrs.frozen
class Number:
    """A figure that a finding rests on.

    Attributes:
        name: what it is.
        value: the figure.
        unit: `s`, `share`, `count`, `ratio`, `FLOP/s`, `byte` or empty.
    """

    name: str
    value: float
    unit: str


@attrs.frozen
class Finding:
    """A cause that was found in a row, or tried and ruled out.

    Attributes:
        cause: its name in the catalogue, e.g. `layout-conversions`.
        row: the row it was found in.
        title: the cause in a few words.
        status: how sure it is.
        factor: how many times as fast the row would be without it, with its interval; None where
            nothing tells. Estimated while it is suspected, measured where it is confirmed.
        evidence: the figures.
        remedy: what to do, in a sentence.
        experiment: what proved it or ruled it out; empty where nothing was tried.
        reason: why it has its status.
        proposed: the experiment that could prove it; empty where there is none.
        costs_time: whether it makes the row slower; others make a figure wrong.
        alternatives: other experiments that could tell something of it, where they are asked for.
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
        """The page that explains the cause."""
        return f"{DOCS}{self.cause}.md"


@attrs.frozen
class ExperimentResult:
    """An experiment that was made: a row with one thing changed, measured beside it.

    Attributes:
        experiment: its name.
        cause: the cause that it is for.
        row: the row that was changed.
        speedup: of the changed row over the row as it was; None where it could not be measured.
        failure: why not.
    """

    experiment: str
    cause: str
    row: str
    speedup: Interval | None
    failure: str = ""


@attrs.frozen
class Indicator:
    """One thing that says in which precision a row ran.

    Attributes:
        name: what it is.
        says: what it says, in words.
        against: whether it contradicts the label; None where it says nothing of it.
    """

    name: str
    says: str
    against: bool | None


@attrs.frozen
class Label:
    """Whether a row is what its name says.

    Attributes:
        row: the row.
        claim: the precision that its name claims; empty where it claims none.
        verdict: `true`, `false`, `partly` (part of the work ran in another precision) or
            `unknown`.
        ran: the precision that it ran in, in words; empty where nothing tells.
        witnesses: what says so.
    """

    row: str
    claim: str
    verdict: str
    ran: str
    witnesses: tuple[Indicator, ...]

    @property
    def is_wrong(self) -> bool:
        """Whether it is false in part or in whole."""
        return self.verdict in ("false", "partly")

    @property
    def sentence(self) -> str:
        """The label's verdict for a reader."""
        against = "; ".join(w.says for w in self.witnesses if w.against)
        if self.verdict == "false":
            return f"{self.row} is labelled {self.claim} and ran {self.ran}: {against}"
        if self.verdict == "partly":
            return f"{self.row} is labelled {self.claim} and ran partly {self.ran}: {against}"
        return f"{self.row}: nothing tells whether it ran {self.claim}"


@attrs.frozen
class Ceiling:
    """What half precision could bring at most.

    Attributes:
        best: the largest speed-up over the float32 row, between what is usual and what the
            device's peaks allow; None where something needed is not known.
        brought: the speed-up that the fastest half row brought; None without one.
        row: that row; empty without one.
        shares: of the float32 row's time, by what could become of it.
        reason: why there is no `best`; empty where there is.
    """

    best: Interval | None
    brought: Interval | None
    row: str
    shares: tuple[Number, ...]
    reason: str = ""


@attrs.frozen
class LayerPair:
    """A layer in the reference row and in another one.

    Attributes:
        path: the layer.
        kind: its class.
        row: the other row.
        reference_s: its kernels' time in the reference row.
        time_s: in the other.
        kernel: the longest kernel in the other row.
        dtype: of its operands there.
        obstacles: what keeps tensor cores from being used well.
        error: relative L2 error against float64 in the other row; None where not known.
        reference_error: in the reference row.
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
        """How many times as fast it is in the other row."""
        return self.reference_s / self.time_s if self.time_s else float("inf")


@attrs.frozen
class Accuracy:
    """Whether a row's output is near enough to float64's.

    Attributes:
        row: the row.
        verdict: `fine`, `inaccurate`, `non_finite`, `unstable` (not even equal to itself) or
            `unknown`.
        error: relative L2 error of the output against float64; None where not known.
        bound: the error allowed.
        layer: the first layer that has non-finite elements, or adds most of the error.
        reason: why, in a sentence.
        keep: layers that would best be kept in float32, where the output is inaccurate.
        keep_s: about what that would cost in a call.
        top1: share of items of the reference's class; None where that would say nothing.
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


@attrs.frozen
class RooflinePoint:
    """A category of a row's time against the device's peaks.

    Attributes:
        category: of time.
        time_s: seconds in a call.
        share: of the row's busy time.
        flop_rate: FLOP/s; None where not counted.
        of_peak: its share of the peak of the precision that it ran in; None where not known.
        byte_rate: byte/s of what must at least be moved; None where not known.
        of_bandwidth: its share of the device's bandwidth; None where not known.
    """

    category: str
    time_s: float
    share: float
    flop_rate: float | None
    of_peak: float | None
    byte_rate: float | None
    of_bandwidth: float | None


@attrs.frozen
class Answer:
    """One of the questions that everybody asks.

    Attributes:
        question: in plain words.
        answer: in plain words, with its figures.
    """

    question: str
    answer: str


@attrs.frozen
class DiagnosisData:
    """Why the rows of a comparison are as fast as they are.

    Attributes:
        labels: whether each row is what its name says.
        ceiling: what half precision could bring.
        findings: causes, the weightiest first.
        layers: the layers of the reference row beside each other row's.
        precisions: whether each row's output is near enough.
        roofs: by row, where the time goes against the device's peaks.
        answers: to the questions that everybody asks.
        notes: what a reader must know of the diagnosis itself.
    """

    labels: tuple[Label, ...]
    ceiling: Ceiling
    findings: tuple[Finding, ...]
    layers: tuple[LayerPair, ...]
    precisions: tuple[Accuracy, ...]
    roofs: dict[str, tuple[RooflinePoint, ...]]
    answers: tuple[Answer, ...]
    notes: tuple[str, ...] = ()
