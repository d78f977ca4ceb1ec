"""The comparison as Markdown, for a pull request or a page."""

from __future__ import annotations

from precisionbench.report import rows
from precisionbench.results import ComparisonData


def to_markdown(data: ComparisonData) -> str:
    """The comparison as GitHub-flavoured Markdown.

    Args:
        data: the comparison.
    """
    lines = [f"**{_escaped(rows.title(data))}**", "", _escaped(rows.versions(data)), ""]
    if data.results:
        lines += [*_table(data), "", rows.NO_VERDICT, ""]
    notes = [(f"{name}", text) for name, text in rows.notes(data)]
    failures = [(failure.backend, rows.failure_text(failure)) for failure in data.failures]
    for heading, items in (("Notes", notes), ("Could not run", failures)):
        if items:
            lines += [f"{heading}:", ""]
            lines += [f"- `{name}`: {_escaped(text)}" for name, text in items] + [""]
    return "\n".join(lines)


def _table(data: ComparisonData) -> list[str]:
    headings = ("latency", "±", rows.throughput_unit(data), "speed-up", "relative L2 error")
    lines = [f"| backend | {' | '.join(headings)} |", "|---" + "|---:" * len(headings) + "|"]
    for row in data.results:
        text = rows.row_text(data, row)
        cells = (text.latency, text.width, text.throughput, text.speedup, text.agreement)
        lines.append(f"| `{text.backend}` | {' | '.join(map(_escaped, cells))} |")
    return lines


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is; model names and errors are not ours."""
    for character in ("\\", "`", "*", "_", "|", "<", ">", "[", "]"):
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
