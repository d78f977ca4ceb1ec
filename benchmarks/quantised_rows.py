"""Half, compiled and quantised rows of a transformer-like model, with the label of each.

    python benchmarks/quantised_rows.py record.json [--budget 120] [--device cuda]
        [--width 4096] [--layers 8] [--tokens 4096] [--replicas 3]
        [--row SPEC ...]

The model is a stack of gated feed-forward blocks and projections, as in a language model, with
attention; its time is in large linear layers. It prints the table and the label of each row, and
saves the comparison as `record.json`, which `precisionbench show` and `explain` read.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

import precisionbench as pb

HEAD_SIZE = 128


class Block(nn.Module):
    """Attention and a gated feed-forward part, each with its own norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.second_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.projections, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gate, self.up = nn.Linear(width, 4 * width), nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        heads = self.projections(self.norm(x)).view(batch, length, 3, -1, HEAD_SIZE)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mixed(attended.transpose(1, 2).reshape(batch, length, width))
        y = self.second_norm(x)
        return torch.add(x, self.down(nn.functional.silu(self.gate(y)) * self.up(y)))


def rows(device: str) -> list[str]:
    half = "dtype=bfloat16"
    compiled = [
        f"torchao:precision={precision},compile=true"
        for precision in ("int8-dynamic", "int8-weight-only", "int4-weight-only")
    ]
    plain = [f"half:{half}", f"compile:{half}", "torchao"]
    if device == "cpu":
        return [*plain, *compiled, "pt2e"]
    return [*plain, *compiled, "torchao:precision=float8", "torchao:precision=float8,compile=true"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record")
    parser.add_argument("--budget", type=float, default=120.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--replicas", type=int, help="processes of each row")
    parser.add_argument("--row", action="append", help="instead of those of the device")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(options.width) for _ in range(options.layers))).eval()
    comparison = pb.compare(
        model,
        torch.randn(1, options.tokens, options.width),
        backends=options.row or rows(options.device),
        device=options.device,
        budget_s=options.budget,
        replicas=options.replicas,
        build_together=True,
    )
    comparison.save(options.record)
    print(comparison)
    for failure in comparison.failures:
        print(failure.backend, failure.reason, failure.remedy)
    for row in comparison.results:
        print(row.backend, row.details.get("weight_shares", ""), end=" ")
        print(row.agreement.relative_l2 if row.agreement else "")
    for label in pb.diagnose(comparison).labels:
        print(label.row, label.verdict, label.sentence if label.is_wrong else label.reason)


if __name__ == "__main__":
    main()
