"""Why is half precision not faster? Measure, diagnose, and confirm the causes by experiments.

python examples/why.py
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

import precisionbench as pb


def main() -> None:
    model = nn.Sequential(
        nn.Conv2d(16, 50, 3, padding=1),
        nn.BatchNorm2d(50),
        nn.ReLU(),
        nn.Conv2d(50, 50, 3, padding=1),
        nn.BatchNorm2d(50),
    )
    images = torch.rand(8, 16, 56, 56)
    comparison = pb.compare(model, images, backends=["half", "half:dtype=bfloat16"], budget_s=4)
    print(comparison)
    print()
    print(pb.explain(comparison, workload=(model, images), experiments="auto"))


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    main()
