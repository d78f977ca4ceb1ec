"""Ladders, and whether their rungs are what pairs measured by themselves say.

    python benchmarks/ladders.py climb FOLDER --batch 1 100 256 [--to ID]
    python benchmarks/ladders.py pairs FOLDER --batch 256
    python benchmarks/ladders.py models FOLDER
    python benchmarks/ladders.py report FOLDER

`climb` times ladders of ResNet-50. `pairs` measures each rung of a ladder once more, as a pair of
its own in fresh processes, and the first row against the last: factors taken from one run multiply
to the whole by construction and would prove nothing. `models` climbs with four models of other
kinds. Each writes to the folder as it goes; `report` needs no GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import precisionbench as pb
from precisionbench.analysis.speedups import per_item_ratio
from precisionbench.diagnosis.gap.states import shortest_path
from precisionbench.workflows.ladder import Ladder

RESNET = "torchvision:resnet50"
_WHOLE = 0.05  # the product of the pairs against first over last


class Block(nn.Module):
    """A block of a language model: tokens in, one vector each out."""

    def __init__(self, width: int = 1024) -> None:
        super().__init__()
        self.words = nn.Embedding(32000, width)
        self.norm, self.other = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 16, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.words(tokens)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.other(x))  # type: ignore[no-any-return]


def language_model() -> Any:
    """A block with its tokens."""
    return Block(), torch.randint(0, 32000, (16, 512))


MODELS: dict[str, tuple[Any, int | None]] = {
    "mobilenet": ("torchvision:mobilenet_v3_large", 128),
    "vit": ("torchvision:vit_b_16", 32),
    "language-model": (language_model, None),
    "segmentation": ("torchvision:deeplabv3_resnet50", 8),
}


def climb(folder: Path, batches: list[int], to: str | None, start: str) -> None:
    """One ladder for each batch."""
    for batch in batches:
        _timed(folder, f"resnet50-{batch}", RESNET, batch_size=batch, to=to, start=start)


def models(folder: Path) -> None:
    """Four models of other kinds, with less time each."""
    for name, (model, batch) in MODELS.items():
        _timed(folder, name, model, batch_size=batch, replicas=1, budget_s=15.0)


def _timed(folder: Path, name: str, model: Any, **options: Any) -> None:
    begun_s = time.monotonic()
    found = pb.ladder(model, seed=0, **options)
    took_s = time.monotonic() - begun_s
    found.save(folder / f"{name}.json", overwrite=True)
    (folder / f"{name}.s").write_text(f"{took_s:.1f}")
    print(f"{name}: {took_s:.1f} s", found, found.comparison, sep="\n\n", flush=True)


def pairs(folder: Path, batches: list[int], start: str) -> None:
    """Each rung as a pair of its own; what is done is written down at once."""
    for batch in batches:
        found = Ladder.of(pb.load(folder / f"resnet50-{batch}.json"), start)
        told: list[dict[str, Any]] = []
        for before, after in [*_transitions(found), (found.start, found.top)]:
            pair = pb.compare(
                RESNET, backends=[before, after], reference=before, batch_size=batch, seed=1,
                replicas=2, budget_s=8, evidence=False, build_together=True,
            )  # fmt: skip
            ratio = per_item_ratio(pair.data, before, after)
            told.append({"before": before, "after": after,
                         "value": ratio.value, "low": ratio.low, "high": ratio.high})  # fmt: skip
            print(before, after, ratio, flush=True)
            (folder / f"pairs-{batch}.json").write_text(json.dumps(told, indent=1))


def _transitions(found: Ladder) -> list[tuple[str, str]]:
    rows = found.comparison.results
    return [(one.before, one.after) for one in shortest_path(rows, found.start, found.top)]


def report(folder: Path, start: str) -> str:
    """Seconds, factors, and how the pairs agree."""
    lines = ["| ladder | seconds | from | to | factor |", "|---|---:|---:|---:|---:|"]
    for file in sorted(folder.glob("*.s")):
        found = Ladder.of(pb.load(file.with_suffix(".json")), start)
        data = found.comparison.data
        whole = per_item_ratio(data, found.start, found.top)
        cells = (file.stem, file.read_text(), found.start, found.top, f"{whole.value:.3g}")
        lines.append(f"| {' | '.join(cells)} |")
    for file in sorted(folder.glob("pairs-*.json")):
        lines += ["", *_agreement(folder, file, start)]
    return "\n".join(lines)


def _agreement(folder: Path, file: Path, start: str) -> list[str]:
    batch = file.stem.partition("-")[2]
    found = Ladder.of(pb.load(folder / f"resnet50-{batch}.json"), start)
    told = json.loads(file.read_text())
    ends = {"before": found.start, "after": found.top}
    rungs = [pair for pair in told if not ends.items() <= pair.items()]
    direct = next((pair["value"] for pair in told if ends.items() <= pair.items()), None)
    where = "as a pair of their own"
    if direct is None:
        direct = per_item_ratio(found.comparison.data, found.start, found.top).value
        where = "in the ladder's own rounds"
    lines = [f"batch {batch}", "", "| rung | ladder | pair | agree |", "|---|---|---|---|"]
    for pair in rungs:
        mine = per_item_ratio(found.comparison.data, pair["before"], pair["after"])
        agree = mine.low <= pair["high"] and pair["low"] <= mine.high
        lines.append(
            f"| {pair['before']} to {pair['after']} | {mine.value:.3f} ({mine.low:.3f} to "
            f"{mine.high:.3f}) | {pair['value']:.3f} ({pair['low']:.3f} to {pair['high']:.3f}) | "
            f"{'yes' if agree else 'no'} |"
        )
    product = math.prod(pair["value"] for pair in rungs)
    off = product / direct - 1
    lines += ["", f"product of the pairs {product:.3f}, first against last {where} {direct:.3f}: "
              f"{off:+.1%} ({'within' if abs(off) <= _WHOLE else 'beyond'} 5 %)"]  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["climb", "pairs", "models", "report"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 100, 256])
    parser.add_argument("--to", help="id of a published number")
    parser.add_argument("--start", default="eager")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.what == "climb":
        climb(options.folder, options.batch, options.to, options.start)
    elif options.what == "pairs":
        pairs(options.folder, options.batch, options.start)
    elif options.what == "models":
        models(options.folder)
    else:
        print(report(options.folder, options.start))


if __name__ == "__main__":
    main()
