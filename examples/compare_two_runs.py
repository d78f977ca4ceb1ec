"""Is the model slower than before? Compares a new run with a saved one."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch import nn

import precisionbench as pb


def main() -> None:
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    inputs = torch.rand(64, 256)
    saved = Path(tempfile.mkdtemp()) / "old.json"

    pb.compare(model, inputs, backends=["half:dtype=bfloat16"], budget_s=3).save(saved)

    # weeks later, with other code
    new = pb.compare(model, inputs, backends=["half:dtype=bfloat16"], budget_s=3)
    changes = new.diff(pb.load(saved))
    for row in changes.rows:
        found = row.speedup
        print(f"{row.backend}: {found.value:.3f}x [{found.low:.3f}, {found.high:.3f}] ", end="")
        print(f"{found.verdict.value} ({found.reason})")
    print("slower:", [row.backend for row in changes.slower] or "nothing")


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    main()
