"""Measure, diagnose, and write an HTML report in one file.

python examples/html_report.py [report.html]
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

import precisionbench as pb


def main(file: str) -> None:
    model = nn.Sequential(nn.Conv2d(16, 50, 3), nn.BatchNorm2d(50), nn.ReLU(), nn.Conv2d(50, 50, 3))
    images = torch.rand(8, 16, 32, 32)
    comparison = pb.compare(model, images, backends=["half:dtype=bfloat16"], budget_s=3)
    print(comparison)

    # The report can also show a gap to a published number: its factors, and how each is known.
    gap = [
        (
            "another precision",
            "measured",
            comparison.speedup("half:dtype=bfloat16").value,
            None,
            None,
        ),
        ("a larger batch", "assumed", 1.2, 1.0, 1.5),
    ]
    comparison.to_html(file, overwrite=True, ledger=gap, diagnosis=pb.explain(comparison))
    print(f"open {file} in a browser")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", default="report.html")
    main(parser.parse_args().file)
