"""Findings merged by cause: each cause once, with all rows in which it was found."""

from __future__ import annotations

from collections.abc import Iterable

from precisionbench._internal.interval_text import ends, span
from precisionbench.diagnosis.findings import Finding, FindingStatus

_LEAST_GAIN = 1.005  # smaller ones are not shown


def by_cause(findings: Iterable[Finding]) -> tuple[tuple[Finding, ...], ...]:
    """The findings of each cause, in the order of the most important one of each.

    Args:
        findings: of a diagnosis, the most important first.
    """
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.cause, []).append(finding)
    return tuple(map(tuple, groups.values()))


def gain_text(finding: Finding) -> str:
    """The speed-up of the row without the cause; empty where it is not known or tiny.

    Args:
        finding: of a diagnosis.
    """
    factor = finding.factor
    if factor is None or factor.value <= _LEAST_GAIN:
        return ""
    if finding.status is FindingStatus.SUSPECTED:
        return f"up to {ends(factor)[1]}x without it"
    return f"{factor.value:.3g}x without it ({span(factor)})"
