"""Why does a measured rate differ from a published one? The ledger of a saved result.

python examples/explain_gap.py [result.json [published id]]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import precisionbench as pb

RECORD = Path(__file__).parent.parent / "docs/records/h200-resnet50-batch100.json"


def main(result: str, published: str) -> None:
    comparison = pb.load(result)
    gap = pb.explain_gap(comparison, comparison.data.reference, published)
    print(gap)
    print()
    for one in gap.factors:
        print(f"{one.factor.value:6.3g}x  {one.kind.value:11}  {one.name}")
    print(f"{gap.gap:6.3g}x  total")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", nargs="?", default=str(RECORD))
    parser.add_argument("published", nargs="?", default="mlperf-v5.0-h200-resnet50-offline")
    given = parser.parse_args()
    main(given.result, given.published)
