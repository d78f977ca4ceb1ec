"""The comparison as Markdown, for a pull request or a page."""

from __future__ import annotations

from precisionbench.analysis.speedups import speedups
from precisionbench.report import rows
from precisionbench.report.disturbances import disturbance_text
from precisionbench.report.headline import headline
from precisionbench.report.sweeps import sweep_sentences
from precisionbench.results import ComparisonData
from precisionbench.safe_text import markdown, markdown_code


def to_markdown(data: ComparisonData) -> str:
    """The comparison as GitHub-flavoured Markdown.

    Args:
        data: the comparison.
    """
    lines = [f"**{markdown(headline(data))}**", ""]
    lines += [markdown(rows.title(data)), "", markdown(rows.versions(data)), ""]
    if disturbed := disturbance_text(data):
        lines += [f"**Disturbed:** {markdown(disturbed)}", ""]
    if wrong := rows.wrong_labels(data):
        lines += ["False labels:", "", *(f"- {markdown(text)}" for text in wrong), ""]
    if data.results:
        lines += [*_table(data), "", markdown(rows.legend(data)), ""]
    sweeps = [([name], text) for name, text in sweep_sentences(data)]
    failures = [([name], text) for name, text in rows.failed(data)]
    if unavailable := rows.unavailable(data):
        failures.append(([], unavailable))
    for heading, items in (
        ("Batch sizes", sweeps),
        ("Notes", rows.notes(data)),
        ("Could not run", failures),
    ):
        if items:
            lines += [f"{heading}:", ""]
            lines += [f"- {_prefix(names)}{markdown(text)}" for names, text in items] + [""]
    return "\n".join(lines)


def _table(data: ComparisonData) -> list[str]:
    headings = (
        *("latency", "±", rows.throughput_unit(data)),
        *("speed-up", "95 % CI", "verdict", "relative L2 error"),
    )
    lines = [f"| backend | {' | '.join(headings)} |", "|---" + "|---:" * len(headings) + "|"]
    found = speedups(data)
    for row in data.results:
        speedup = found.get(row.backend)
        text = rows.row_text(data, row, speedup)
        cells = (
            *(text.latency, text.width, text.throughput, text.speedup),
            *(rows.interval_text(data, row, speedup), rows.verdict_text(data, row, speedup)),
            text.agreement,
        )
        lines.append(f"| {codes([text.backend])} | {' | '.join(map(markdown, cells))} |")
    return lines


def _prefix(names: list[str]) -> str:
    return f"{codes(names)}: " if names else ""


def codes(names: list[str]) -> str:
    """Names of rows as code."""
    return ", ".join(map(markdown_code, names))
