"""The ledger: factors whose product is exactly the gap, and what remains unexplained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

import attrs

from precisionbench.display import Shown
from precisionbench.errors import SpecError, did_you_mean
from precisionbench.statistics import Interval

# Above this share of the gap, a warning about what is unknown comes first.
_MOST_ASSUMED = 0.5


class Kind(str, Enum):
    """How a factor is known.

    `MEASURED`: here, in one run. `DERIVED`: from cited figures. `ASSUMED`: from figures of
    something else, or from an estimate. `UNEXPLAINED`: what remains.
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
        raise SpecError(f"{kind!r} is no kind of factor", known) from error


def _check_factor(factor: Factor, _: object, value: Interval) -> None:
    if not (0 < value.low <= value.value <= value.high < math.inf):
        raise SpecError(
            f"the factor {factor.name!r} cannot be {value.value} from {value.low} to {value.high}",
            "give a number above 0 that lies in its range",
        )


@attrs.frozen(repr=False)
class Factor(Shown):
    """One step from the measured rate towards the published one.

    Attributes:
        name: what changes, in a few words.
        kind: how it is known; a word such as `assumed` will do.
        factor: how many times the rate that makes; its range is an interval where it was measured.
        source: the experiment, the cited figures with their addresses, or the estimate.
        reason: in a sentence, what else there is to know.
        is_confirmed: whether an experiment or arithmetic has proved that this is so.

    Raises:
        SpecError: the factor is no number above 0, or lies outside its range; or there is no such
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
        name: whose rate it is.
        items_per_s: items per second, of one accelerator.
        source: where it comes from.
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
        claims: what arithmetic says of both numbers, in sentences.
        notes: what there is to know besides.
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
        """What the other factors leave of the gap, with its range."""
        return self.factors[-1]

    @property
    def rows(self) -> tuple[tuple[str, str, float, float, float], ...]:
        """The factors as label, kind, factor, low and high, as a chart takes them."""
        return tuple(
            (one.name, one.kind.value, one.factor.value, one.factor.low, one.factor.high)
            for one in self.factors
        )

    def share(self, *kinds: Kind) -> float:
        """Which share of the way some kinds of factors make, in logarithms, up and down alike.

        Args:
            kinds: which.

        Returns:
            Between 0 and 1; 0 where there is no gap.
        """
        whole = sum(abs(math.log(row.factor.value)) for row in self.factors)
        part = sum(abs(math.log(row.factor.value)) for row in self.factors if row.kind in kinds)
        return part / whole if whole else 0.0

    @property
    def warning(self) -> str:
        """What must be said first; empty where most of the gap is measured or derived."""
        assumed, unknown = self.share(Kind.ASSUMED), self.share(Kind.UNEXPLAINED)
        if assumed + unknown <= _MOST_ASSUMED:
            return ""
        return (
            f"MOST OF THIS IS NOT KNOWN: {assumed:.0%} of the gap is assumed and {unknown:.0%} is "
            "unexplained (in logarithms)."
        )


def ledger(
    measured: Rate,
    published: Rate,
    factors: Sequence[Factor],
    differences: Sequence[str] = (),
    claims: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> GapData:
    """Close a gap: what the factors leave of it is unexplained.

    Args:
        measured: the rate at the bottom.
        published: the rate at the top.
        factors: what is known of the way.
        differences: conditions that differ, in sentences.
        claims: what arithmetic says of both numbers.
        notes: what there is to know besides.

    Returns:
        The gap, with what remains as its last factor.

    Raises:
        SpecError: a factor is of the kind that only a remainder can be.
    """
    for row in factors:
        if row.kind is Kind.UNEXPLAINED:
            raise SpecError(
                f"the factor {row.name!r} is called unexplained",
                "leave it out: what the others leave of the gap is found by dividing",
            )
    rest = Factor(
        "unexplained",
        Kind.UNEXPLAINED,
        _remainder(measured, published, factors),
        "what the other factors leave of the gap",
    )
    return GapData(
        measured, published, (*factors, rest), tuple(differences), tuple(claims), tuple(notes)
    )


def _remainder(measured: Rate, published: Rate, factors: Sequence[Factor]) -> Interval:
    """Of a product of ranges: smallest where all the others are largest."""
    mine, theirs = measured.items_per_s, published.items_per_s
    known = [row.factor for row in factors]
    return Interval(
        theirs.value / mine.value / math.prod(one.value for one in known),
        theirs.low / mine.high / math.prod(one.high for one in known),
        theirs.high / mine.low / math.prod(one.low for one in known),
    )
