"""Findings as text, each cause once: the rows of a cause stand together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from precisionbench._internal.interval_text import ends, span
from precisionbench.diagnosis.findings import Finding, FindingStatus, Number
from precisionbench.report.formatting import scaled, time_text
from precisionbench.statistics import Interval

STATUS_WORDS = {
    FindingStatus.CONFIRMED: "confirmed",
    FindingStatus.SUSPECTED: "suspected",
    FindingStatus.RULED_OUT: "ruled out",
}
MAX_BRIEF = 3  # findings below a table
_MAX_SUSPECTED = 2  # suspected rows of a cause that have a line each
_LEAST_GAIN = 1.005  # smaller ones are not shown
# From here on the largest possible gain is no figure: it is the share of nearly all of the time.
_LARGE_GAIN = 10


def by_cause(findings: Iterable[Finding]) -> tuple[tuple[Finding, ...], ...]:
    """The findings of each cause, in the order of the most important one of each.

    Args:
        findings: of a diagnosis, the most important first.
    """
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.cause, []).append(finding)
    return tuple(map(tuple, groups.values()))


def brief(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """The most important findings that are not ruled out, for a few lines below a table.

    Args:
        findings: of a diagnosis, the most important first.

    Returns:
        (rows, sentence) of at most three causes.
    """
    live = [one for one in findings if one.status is not FindingStatus.RULED_OUT]
    return [(_rows(group), _brief(group)) for group in by_cause(live)[:MAX_BRIEF]]


def _rows(group: Sequence[Finding]) -> str:
    rows = list(dict.fromkeys(one.row for one in group))
    return rows[0] if len(rows) == 1 else f"in {len(rows)} rows"


def _brief(group: Sequence[Finding]) -> str:
    first = group[0]
    which = f" in {first.row}" if len(group) > 1 else ""
    gain = f", {gain_text(first)}" if gain_text(first) else ""
    remedy = first.remedy.partition(";")[0]  # `explain` has all of it
    return f"{first.title}, {STATUS_WORDS[first.status]}{which}{gain}; {remedy}"


def shown_gain(finding: Finding) -> Interval | None:
    """The speed-up of the row without the cause; None where it is not known or tiny.

    Args:
        finding: of a diagnosis.
    """
    factor = finding.factor
    return factor if factor is not None and factor.value > _LEAST_GAIN else None


def gain_text(finding: Finding) -> str:
    """The speed-up of the row without the cause; empty where it is not known or tiny.

    Args:
        finding: of a diagnosis.
    """
    factor = shown_gain(finding)
    if factor is None:
        return ""
    if finding.status is FindingStatus.SUSPECTED:
        return f"up to {_largest(factor)} without it"
    return f"{factor.value:.3g}x without it ({span(factor)})"


def _largest(factor: Interval) -> str:
    return f"{ends(factor)[1]}x" if factor.high < _LARGE_GAIN else f"{_LARGE_GAIN}x or more"


def paragraphs(findings: Iterable[Finding]) -> Iterator[list[str]]:
    """Every finding as lines, each cause once: title, rows with their figures, remedy, page.

    Args:
        findings: of a diagnosis, the most important first.
    """
    for group in by_cause(findings):
        first = group[0]
        remedies = dict.fromkeys(one.remedy for one in group if one.remedy)
        yield [
            f"{first.title[:1].upper()}{first.title[1:]}",
            *_row_texts(group),
            *([f"Remedy: {'; '.join(remedies)}"] if remedies else []),
            f"See {first.link}",
        ]


def _row_texts(group: Sequence[Finding]) -> Iterator[str]:
    """A line for each row; rows that are suspected after the first such one share a line."""
    suspected = [one for one in group if one.status is FindingStatus.SUSPECTED]
    others = suspected[1:] if len(suspected) > _MAX_SUSPECTED else []
    yield from (_row_text(one) for one in group if one not in others)
    if others:
        gains = [one for one in map(shown_gain, others) if one is not None]
        gains.sort(key=lambda gain: gain.high)
        texts = list(dict.fromkeys(_largest(gain) for gain in (*gains[:1], *gains[-1:])))
        gain = f", up to {' to '.join(texts)} without it" if texts else ""
        yield f"also suspected{gain}: {', '.join(one.row for one in others)}"


def _row_text(finding: Finding) -> str:
    by = f" ({finding.experiment})" if finding.experiment else ""
    gain = f", {gain_text(finding)}" if gain_text(finding) else ""
    figures = ", ".join(f"{number.name} {figure(number)}" for number in finding.evidence)
    reason = f" ({finding.reason})" if finding.reason else ""
    return f"{finding.row}: {STATUS_WORDS[finding.status]}{by}{gain}: {figures}{reason}"


def figure(number: Number) -> str:
    """A number with its unit, in a short form.

    Args:
        number: of a finding or a ceiling.
    """
    if number.unit == "share":
        return f"{number.value:.0%}"
    if number.unit == "s":
        return time_text(number.value)
    if number.unit == "ratio":
        return f"{number.value:.3g}x"
    if number.unit == "byte":
        return scaled(number.value, "B")
    if number.unit == "FLOP/s":
        return scaled(number.value, "FLOP/s")
    return f"{number.value:,.0f}" if number.value >= 1e6 else f"{number.value:,.6g}"
