"""How long the report of 8 backends of a 1,000-layer model takes, and how large it is.

    python benchmarks/report_of_many_layers.py

The goal is 3 s and 5 MB. It needs no GPU.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from pathlib import Path

import precisionbench as pb

# the comparison that the tests draw, too
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
large = importlib.import_module("pages").large

_GOAL_S, _GOAL_BYTES = 3.0, 5_000_000


def main() -> None:
    comparison = pb.Comparison(large())
    with tempfile.TemporaryDirectory() as folder:
        comparison.to_html(Path(folder) / "warm.html")  # imports are not counted
        begun_s = time.perf_counter()
        comparison.to_html(Path(folder) / "report.html")
        took_s = time.perf_counter() - begun_s
        size_bytes = (Path(folder) / "report.html").stat().st_size
    print(f"{took_s:.2f} s (goal {_GOAL_S:.0f}), {size_bytes / 1e6:.2f} MB (goal 5)")
    sys.exit(took_s > _GOAL_S or size_bytes > _GOAL_BYTES)


if __name__ == "__main__":
    main()
