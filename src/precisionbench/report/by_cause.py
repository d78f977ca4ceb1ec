"""Findings merged by cause: each cause once, with all rows in which it was found."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from precisionbench._internal.interval_text import ends, span
from precisionbench.diagnosis.findings import Finding, FindingStatus

_MIN_GAIN = 1.005
_ORDER = (FindingStatus.CONFIRMED, FindingStatus.SUSPECTED, FindingStatus.RULED_OUT)


@attrs.frozen
class FoundCause:
    """A cause in all rows in which it was found.

    Attributes:
        findings: one for each row: confirmed ones first, ruled out ones last.
    """

    findings: tuple[Finding, ...]

    @property
    def first(self) -> Finding:
        """The finding that gives the title, the status and the link."""
        return self.findings[0]

    @property
    def status(self) -> FindingStatus:
        """The strongest status of all rows."""
        return self.first.status

    @property
    def rows(self) -> tuple[str, ...]:
        """Rows in which it has this status."""
        return tuple(one.row for one in self.findings if one.status is self.status)

    @property
    def remedies(self) -> tuple[str, ...]:
        """Each remedy once."""
        return tuple(dict.fromkeys(one.remedy for one in self.findings))


def by_cause(findings: Iterable[Finding]) -> tuple[FoundCause, ...]:
    """Merge findings of the same cause; the order of causes stays.

    Args:
        findings: the most important first.
    """
    merged: dict[str, list[Finding]] = {}
    for finding in findings:
        merged.setdefault(finding.cause, []).append(finding)
    return tuple(
        FoundCause(tuple(sorted(found, key=lambda one: _ORDER.index(one.status))))
        for found in merged.values()
    )


def top_causes(causes: Iterable[FoundCause], most: int = 3) -> tuple[FoundCause, ...]:
    """The first causes that were not ruled out, confirmed ones before suspected ones.

    Args:
        causes: the most important first.
        most: how many at most.
    """
    open_ones = [one for one in causes if one.status is not FindingStatus.RULED_OUT]
    return tuple(sorted(open_ones, key=lambda one: _ORDER.index(one.status))[:most])


def gain(finding: Finding) -> str:
    """The speed-up of the row without the cause; empty if unknown.

    Args:
        finding: of one row.
    """
    factor = finding.factor
    if factor is None or factor.value <= _MIN_GAIN:
        return ""
    if finding.status is FindingStatus.SUSPECTED:
        return f"up to {ends(factor)[1]}x as fast without it"
    return f"{factor.value:.3g}x as fast without it ({span(factor)})"
