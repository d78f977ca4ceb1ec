"""The ledger: factors whose product is exactly the gap, and what remains unexplained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

import attrs

from precisionbench.display import Shown
from precisionbench.errors import SpecError, did_you_mean, kind_of
from precisionbench.statistics import Interval

# Above this share of the gap, a warning about the unknown part comes first.
_MOST_ASSUMED = 0.5


class Kind(str, Enum):
    """How a factor is known.

    `MEASURED`: here, in one run. `DERIVED`: from cited figures. `ASSUMED`: from figures of
    another device or from an estimate. `UNEXPLAINED`: the rest.
    """

    MEASURED = "measured"
    DERIVED = "derived"
    ASSUMED = "assumed"
    UNEXPLAINED = "unexplained"


def _kind(kind: Kind | str) -> Kind:
    try:
        return Kind(kind)
    except ValueError as error:
        known = did_you_mean(str(kind), [one.value for one in Kind])
        raise SpecError(f"there is no kind of factor {kind!r}", known) from error


def _check_factor(factor: Factor, _: object, value: Interval) -> None:
    if not isinstance(value, Interval):
        raise SpecError(
            f"the factor {factor.name!r} is {kind_of(value)}",
            "give pb.Interval(value, low, high)",
        )
    if not (0 < value.low <= value.value <= value.high < math.inf):
        raise SpecError(
            f"the factor {factor.name!r} cannot be {value.value} in {value.low} to {value.high}",
            "give a number above 0 that is within its range",
        )


@attrs.frozen(repr=False)
class Factor(Shown):
    """One step from the measured rate towards the published one.

    Attributes:
        name: what changes, in a few words.
        kind: how it is known; a string such as `assumed` is accepted.
        factor: rate after the change over the rate before; its range is a CI where it was measured.
        source: the experiment, the cited figures with their addresses, or the estimate.
        reason: further remarks, in a sentence.
        is_confirmed: whether an experiment or arithmetic confirms it.

    Raises:
        SpecError: the factor is not a number above 0, or is outside its range, or there is no such
            kind.
    """

    name: str
    kind: Kind = attrs.field(converter=_kind)
    factor: Interval = attrs.field(validator=_check_factor)
    source: str
    reason: str = ""
    is_confirmed: bool = False


@attrs.frozen(repr=False)
class Rate(Shown):
    """One end of the gap.

    Attributes:
        name: name of the row or the published number.
        items_per_s: items per second of one accelerator.
        source: source of the rate.
    """

    name: str
    items_per_s: Interval
    source: str


@attrs.frozen(repr=False)
class GapData(Shown):
    """Why a measured rate is not the published one.

    Attributes:
        measured: the rate at the bottom.
        published: the rate at the top.
        factors: the steps between them, the unexplained one last; their product is the gap.
        differences: every condition in which the two numbers differ or may differ, in sentences.
        claims: the plausibility of both numbers by the device's peaks, in sentences.
        notes: notes and warnings.
    """

    measured: Rate
    published: Rate
    factors: tuple[Factor, ...]
    differences: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def gap(self) -> float:
        """Published over measured."""
        return self.published.items_per_s.value / self.measured.items_per_s.value

    @property
    def unexplained(self) -> Factor:
        """The part of the gap that the other factors do not explain, with its range."""
        return self.factors[-1]

    @property
    def rows(self) -> tuple[tuple[str, str, float, float, float], ...]:
        """The factors as label, kind, factor, low and high, as a chart takes them."""
        return tuple(
            (one.name, one.kind.value, one.factor.value, one.factor.low, one.factor.high)
            for one in self.factors
        )

    def share(self, *kinds: Kind) -> float:
        """The share of the gap (log scale) of some kinds of factors, up or down.

        Args:
            kinds: the kinds of factors.

        Returns:
            Between 0 and 1; 0 where there is no gap.
        """
        whole = sum(abs(math.log(row.factor.value)) for row in self.factors)
        part = sum(abs(math.log(row.factor.value)) for row in self.factors if row.kind in kinds)
        return part / whole if whole else 0.0

    @property
    def warning(self) -> str:
        """A warning if most of the gap is assumed or unexplained; else empty."""
        assumed, unknown = self.share(Kind.ASSUMED), self.share(Kind.UNEXPLAINED)
        if assumed + unknown <= _MOST_ASSUMED:
            return ""
        return (
            f"Mostly assumed: {assumed:.0%} of the gap is assumed and {unknown:.0%} unexplained "
            "(log scale)."
        )


def ledger(
    measured: Rate,
    published: Rate,
    factors: Sequence[Factor],
    differences: Sequence[str] = (),
    claims: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> GapData:
    """Complete a ledger: the rest of the gap becomes its unexplained factor.

    Args:
        measured: the rate at the bottom.
        published: the rate at the top.
        factors: the known factors.
        differences: conditions that differ, in sentences.
        claims: the plausibility of both numbers, in sentences.
        notes: notes and warnings.

    Returns:
        The ledger, with the unexplained rest as its last factor.

    Raises:
        SpecError: a factor is of the kind `unexplained`.
    """
    for row in factors:
        if row.kind is Kind.UNEXPLAINED:
            raise SpecError(
                f"the factor {row.name!r} has the kind unexplained",
                "leave it out: the unexplained rest is computed from the other factors",
            )
    rest = Factor(
        "unexplained",
        Kind.UNEXPLAINED,
        _remainder(measured, published, factors),
        "the gap divided by the other factors",
    )
    return GapData(
        measured, published, (*factors, rest), tuple(differences), tuple(claims), tuple(notes)
    )


def _remainder(measured: Rate, published: Rate, factors: Sequence[Factor]) -> Interval:
    """The rest of a product of ranges: smallest where all the others are largest."""
    mine, theirs = measured.items_per_s, published.items_per_s
    known = [row.factor for row in factors]
    return Interval(
        theirs.value / mine.value / math.prod(one.value for one in known),
        theirs.low / mine.high / math.prod(one.high for one in known),
        theirs.high / mine.low / math.prod(one.low for one in known),
    )
