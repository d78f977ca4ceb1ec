"""The waterfall plot of a gap: bars of the factors whose product is the gap, between two rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import attrs

from precisionbench.diagnosis.gap.ledger import GapData, Rate
from precisionbench.errors import SpecError
from precisionbench.report.formatting import rate, significant
from precisionbench.report.html.scales import Scale, Tick

# Sources of a factor.
MEASURED, DERIVED, ASSUMED, UNEXPLAINED = "measured", "derived", "assumed", "unexplained"
KINDS = (MEASURED, DERIVED, ASSUMED, UNEXPLAINED)
TOTAL = "total"

# label, kind, factor, low, high
LedgerRow = tuple[str, str, float, float | None, float | None]
# Rows alone, or a whole ledger, which also knows the rates at both ends.
Ledger = GapData | Iterable[LedgerRow]


@attrs.frozen
class Bar:
    """One factor of the gap.

    Attributes:
        label: what it is.
        kind: source of the factor, or `total`.
        factor: how many times.
        text: the factor as text, with its range.
        at: where its bar starts, in percent.
        width: of its bar, in percent.
        low_at: where the range starts; None without a range.
        high_at: where it ends.
    """

    label: str
    kind: str
    factor: float
    text: str
    at: float
    width: float
    low_at: float | None
    high_at: float | None


@attrs.frozen
class Waterfall:
    """All factors on one logarithmic axis.

    Attributes:
        bars: in order; the last is the whole gap.
        ticks: of the axis.
        one_at: position of 1.
        warning: shown first; may be empty.
        start: the measured rate, with its name; empty if only factors are known.
        end: the published rate, with its name; empty if only factors are known.
    """

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    one_at: float
    warning: str
    start: str = ""
    end: str = ""


def waterfall(ledger: Ledger) -> Waterfall:
    """Draw a ledger.

    Args:
        ledger: as `explain_gap` returns it; or rows of (label, kind, factor, low, high), from one
            number to the other, where a kind is `measured`, `derived`, `assumed` or `unexplained`
            and low and high may be None.

    Returns:
        Each bar starts where the one before ended, on a logarithmic axis, so that equal lengths
        are equal factors.

    Raises:
        SpecError: a row is not of this form.
    """
    if isinstance(ledger, GapData):
        drawn = waterfall(ledger.rows)
        return attrs.evolve(drawn, start=_end(ledger.measured), end=_end(ledger.published))
    found = [_checked(row) for row in ledger]
    ends = [1.0]
    for row in found:
        ends.append(ends[-1] * row[2])
    scale = Scale.around([*ends, *_whiskers(found, ends)])
    bars = [_bar(row, start, scale) for row, start in zip(found, ends, strict=False)]
    bars.append(_bar(("together", TOTAL, ends[-1], None, None), 1.0, scale))
    return Waterfall(tuple(bars), scale.ticks(), scale.at(1.0), _warning(found))


def _end(found: Rate) -> str:
    return f"{rate(found.items_per_s.value)} items/s: {found.name}"


def _checked(row: Sequence[object]) -> LedgerRow:
    try:
        label, kind, factor, low, high = row
        kind = getattr(kind, "value", kind)  # of an enum
        numbers = [float(str(n)) for n in (factor, low, high) if n is not None]
        fit = kind in KINDS and factor is not None and all(map(_is_factor, numbers))
    except (TypeError, ValueError):
        fit = False
    if not fit:
        raise SpecError(
            f"{row!r} is not a row of a ledger",
            f"give (label, kind, factor, low, high) with a kind of {', '.join(KINDS)} and factors "
            "above 0",
        )
    return str(label), str(kind), float(str(factor)), _number(low), _number(high)


def _is_factor(number: float) -> bool:
    return math.isfinite(number) and number > 0


def _number(value: object) -> float | None:
    return None if value is None else float(str(value))


def _whiskers(found: Sequence[LedgerRow], starts: Sequence[float]) -> list[float]:
    pairs = zip(found, starts, strict=False)
    return [start * x for row, start in pairs for x in row[3:] if x is not None]


def _bar(row: LedgerRow, start: float, scale: Scale) -> Bar:
    label, kind, factor, low, high = row
    ends = sorted((scale.at(start), scale.at(start * factor)))
    text = f"{significant(factor, 3)}x"
    if low is not None and high is not None:
        text += f" ({significant(low, 3)} to {significant(high, 3)})"
    return Bar(
        label,
        kind,
        factor,
        text,
        ends[0],
        round(ends[1] - ends[0], 3),
        None if low is None else scale.at(start * low),
        None if high is None else scale.at(start * high),
    )


def _warning(found: Sequence[LedgerRow]) -> str:
    """A warning if most of the gap is assumed or unexplained."""
    sizes = {kind: sum(abs(math.log(r[2])) for r in found if r[1] == kind) for kind in KINDS}
    total = sum(sizes.values())
    unsure = sizes[ASSUMED] + sizes[UNEXPLAINED]
    if not total or unsure <= total / 2:
        return ""
    return f"{unsure / total:.0%} of this gap is assumed or unexplained, and not measured."
