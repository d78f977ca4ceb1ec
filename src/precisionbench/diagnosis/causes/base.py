"""A cause of slow or wrong figures: a rule that detects it, and the experiment that proves it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

import attrs

from precisionbench.analysis.speedups import per_item_ratio, speedup_over
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Finding, FindingStatus, Label, Number
from precisionbench.diagnosis.labels import HALF
from precisionbench.diagnosis.quantised import EIGHT_BITS, FLOATS, Quantisation
from precisionbench.results import ComparisonData, Speedup
from precisionbench.results.claims import EAGER, Claims
from precisionbench.results.dtypes import TF32
from precisionbench.results.earlier_claims import claims_of
from precisionbench.statistics import Interval


@attrs.frozen(slots=False)
class CauseContext:
    """The input of a cause's rule.

    Attributes:
        data: the comparison.
        facts: of the row.
        label: whether the row ran in the precision that it claims.
        base: facts of the reference row; None where it failed.
        speedup: of the row over the reference; None for the reference itself.
        rows: facts of all rows, by name.
    """

    data: ComparisonData
    facts: Facts
    label: Label
    base: Facts | None
    speedup: Speedup | None
    rows: Mapping[str, Facts]

    @property
    def claims(self) -> Claims:
        """What the row's backend claims."""
        return claims_of(self.facts.row)

    @property
    def claims_half(self) -> bool:
        """Whether the row claims to compute in 16 bits."""
        return self.label.claim in HALF

    @property
    def has_half_kernels(self) -> bool:
        """Whether it claims 16 bits, ran on a GPU, and its kernels are known."""
        return self.claims_half and self.facts.on_gpu and self.facts.busy_s > 0

    @property
    def claims_8_bits(self) -> bool:
        """Whether the row claims to multiply in 8 bits."""
        return self.label.claim in EIGHT_BITS

    @property
    def quantisation(self) -> Quantisation | None:
        """The row's quantised operations; None where it has none and does not claim 8 bits."""
        found = self.facts.quantisation
        return found if found.found or self.claims_8_bits else None

    @property
    def is_quantised(self) -> bool:
        """Whether the row claims to multiply in 8 bits, or to store quantised weights."""
        return self.claims_8_bits or bool(self.claims.weights)

    @property
    def is_eager(self) -> bool:
        """Whether a compiler or an engine could still fuse the row's operations."""
        return self.claims.engine in (EAGER, "torchao")

    @cached_property
    def in_floats(self) -> Facts | None:
        """The fastest row in floats that a quantised row can be compared with.

        These are the reference, and rows of the same engine or of eager PyTorch. None where the
        model itself is quantised, so that no row is in floats.
        """
        if self.base is None or self.base is self.facts or self.base.quantisation.found:
            return None
        return self._fastest(facts for facts in self.rows.values() if self._is_rival(facts))

    @cached_property
    def in_floats_of_engine(self) -> Facts | None:
        """The fastest of these rows that is of the same engine and was profiled, or `in_floats`.

        What it spends besides multiplying, such as the checks of `torch.compile`, is the engine's.
        """
        engine = self.claims.engine
        own = [f for f in self.rows.values() if self._is_rival(f) and f.busy_s]
        own = [facts for facts in own if claims_of(facts.row).engine == engine]
        return (self._fastest(own) or self.in_floats) if self.in_floats else None

    def _fastest(self, rows: Iterable[Facts]) -> Facts | None:
        return min(rows, key=lambda facts: facts.row.latency.value, default=None)

    def _is_rival(self, other: Facts) -> bool:
        claims, own = claims_of(other.row), self.facts
        if other is self.base:
            return True
        return (
            other is not own
            and claims.dtype in (*FLOATS, TF32)
            and not claims.weights
            and claims.engine in (EAGER, self.claims.engine)
            and other.row.batch_size == own.row.batch_size
        )

    def _ratio_over(self, other: Facts) -> Interval:
        return per_item_ratio(self.data, other.row.backend, self.facts.row.backend)

    @cached_property
    def gain_of_8_bits(self) -> float | None:
        """Speed-up of a quantised row over the fastest row in floats; None without such a row."""
        return self._ratio_over(self.in_floats).value if self.in_floats else None

    @property
    def gains_from_8_bits(self) -> bool:
        """Whether a quantised row is faster than in floats by a practical margin."""
        return (self.gain_of_8_bits or 0.0) >= PRACTICAL_GAIN

    @property
    def is_inconclusive(self) -> bool:
        """Whether the row's times do not show if it is slow.

        How they were measured (in one process, or not interleaved) does not matter, because that
        does not affect what kernels show. Of a quantised row, which should be much faster than in
        floats, an interval that excludes a practical gain is enough.
        """
        speedup = self.speedup
        if self.is_quantised and self.in_floats:
            names = self.in_floats.row.backend, self.facts.row.backend
            speedup = speedup_over(self.data, *names)
            if speedup.reason == "includes_1" and speedup.high < PRACTICAL_GAIN:
                return False
        return speedup is not None and speedup.reason in _UNDECIDED


# A quantised row that gains less than this factor is not called faster.
PRACTICAL_GAIN = 1.1
# Reasons for which the times themselves are inconclusive.
_UNDECIDED = (
    "includes_1",
    "too_few_rounds",
    "no_shared_rounds",
    "processes_differ",
    "ratio_changes",
)


@attrs.frozen
class Cause:
    """A known cause, with its rule and its remedy.

    Attributes:
        name: of the cause and of its page in `docs/causes`.
        title: in a few words.
        remedy: what to do, in a sentence.
        detect: the rule; returns a match for a row, or None.
        experiment: name of the experiment that could confirm it, as in
            `precisionbench.workflows.experiments`; empty if there is none, or if its own figures
            confirm it.
        flatters: whether it makes a row appear faster than it is.
        costs_time: whether it makes a row slower; others make a figure wrong.
        alternatives: other experiments for it, which run on request.
    """

    name: str
    title: str
    remedy: str
    detect: Callable[[CauseContext], CauseMatch | None]
    experiment: str = ""
    flatters: bool = False
    costs_time: bool = True
    alternatives: tuple[str, ...] = ()

    def finding(self, context: CauseContext) -> Finding | None:
        """The finding where the cause is detected in a row; else None."""
        match = self.detect(context)
        if match is None:
            return None
        return Finding(
            cause=self.name,
            row=context.facts.row.backend,
            title=self.title,
            status=FindingStatus.CONFIRMED if match.proof else FindingStatus.SUSPECTED,
            factor=match.factor,
            evidence=match.numbers,
            remedy=match.remedy or self.remedy,
            experiment=match.proof,
            reason=match.reason,
            proposed="" if match.proof or match.untestable else self.experiment,
            alternatives=() if match.proof else self.alternatives,
            costs_time=self.costs_time and not self.flatters,
        )


@attrs.frozen
class CauseMatch:
    """A cause detected in a row.

    Attributes:
        numbers: the figures.
        factor: speed-up of the row without the cause.
        proof: the experiment that confirms it and was measured already; empty without one.
        remedy: a more specific remedy than the cause's own; empty without one.
        reason: a detail that the figures do not show; empty without one.
        untestable: whether the cause's experiment cannot be run here.
    """

    numbers: tuple[Number, ...]
    factor: Interval | None = None
    proof: str = ""
    remedy: str = ""
    reason: str = ""
    untestable: bool = False


_NEARLY_ALL = 0.99


def without(share: float) -> Interval:
    """The largest speed-up that removing a share of the time can give."""
    share = min(share, _NEARLY_ALL)
    return Interval(1 / (1 - share), 1.0, 1 / (1 - share))
