"""Write docs/published-claims.md from the published numbers: `python docs/claims_page.py`.

A test compares the page with what this script writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

PAGE = Path(__file__).resolve().parent / "published-claims.md"
HEAD = """\
# Contradicted published numbers

`precisionbench published --check` compares every published number with its device, with the other
rows of its source, and with itself. This page has its verdicts on the {count} numbers of this
library. These numbers stay in the library, so that a reader who finds one of them elsewhere finds
the reason, too. The [gap ledger](gap.md) takes no factor from a number that is labelled doubtful.

- **impossible**: the device cannot do it.
- **unlikely**: two figures of the source contradict each other. At least one of them is wrong, or
  was measured in another way.

A number without a verdict is not proven: most sources do not state enough to contradict them.

This page is generated. Run `python docs/claims_page.py` after a change of the numbers or the check.
"""
EXPLAINED = {
    "peak": "The rate needs more operations per second than the device's peak in this precision.",
    "arithmetic": "The device has no arithmetic in the precision of the label. Weights can be "
    "stored in it, but the computation runs in another precision.",
    "gain": "The rate exceeds that of a higher precision by more than a lower one can give.",
    "copied": "Two rows of a source have the same value in all digits, and differ in the model, "
    "the device or another condition.",
    "timing": "Offline is slower than one query at a time, or a query of 8 samples takes no longer "
    "than one of a single sample, or the rate and the time of a call give another batch size.",
    "accuracy": "The engine of the lower precision has lost more than a tenth of the accuracy, so "
    "it does not do the same work.",
}
DOUBTFUL = """\
## Labelled doubtful

The field `doubt` of these numbers has a reason that was found when they were selected.
"""


def page() -> str:
    """The page, from the numbers of this library only."""
    from precisionbench.diagnosis.claims_check import KINDS, contradictions
    from precisionbench.published.search import bundled

    records = bundled()
    found = contradictions(records)
    parts = [HEAD.format(count=len(records))]
    for kind, title in KINDS.items():
        rows = [
            (record.id, one.verdict, one.sentence)
            for record in records
            for one in found.get(record.id, ())
            if one.kind == kind
        ]
        parts.append(f"## {title[0].upper()}{title[1:]}\n\n{EXPLAINED[kind]}\n")
        parts.append(_table(("number", "verdict", "reason"), rows))
    doubtful = [(record.id, record.doubt) for record in records if record.doubt]
    parts.append(DOUBTFUL)
    parts.append(_table(("number", "reason"), doubtful))
    return "\n".join(parts)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "".join(_lines(heads, rows)) if rows else "None.\n"


def _lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    from precisionbench.safe_text import markdown, markdown_code

    yield f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}\n"
    for id, *cells in rows:
        yield f"| {' | '.join([markdown_code(id), *map(markdown, cells)])} |\n"


if __name__ == "__main__":
    os.environ["PRECISIONBENCH_DATA_DIR"] = ""
    PAGE.write_text(page(), encoding="utf-8")
