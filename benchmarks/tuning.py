"""Whether `tune` finds what a person finds by hand, in time, and keeps its bound on fresh inputs.

python benchmarks/tuning.py result.json [--model resnet50 ...] [--budget 120] [--tiny]

Each model is tuned; then its winner and what a person would try by hand (half, channels_last,
compile with and without freezing, reduce-overhead, max-autotune-no-cudagraphs, a CUDA graph) are
measured in common rounds, by `compare`. The record holds the seconds, the winner's speed over the
best by hand, its error on inputs that the search has not seen, and what became of each
configuration. Weights are random; models need torchvision, and BERT and GPT-2 transformers. A model
takes the budget, and then about as long for the builds and rounds by hand.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

import precisionbench as pb
from precisionbench.system import environment

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
DTYPE = "float16" if ON_GPU else "bfloat16"
MAX_ERROR = 1e-2
FRESH = 5
BY_HAND_S = 60.0  # to measure what a person would try, once it is built


@attrs.frozen
class Case:
    """A model to tune.

    Attributes:
        build: makes the model.
        shape: of its inputs, without the batch.
        batch: items in a call.
        tokens: for inputs that are indices, how many there are.
        max_error: the bound; larger for models of many layers, whose bfloat16 error is larger.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch: int
    tokens: int = 0
    max_error: float = MAX_ERROR

    def inputs(self, batch: int) -> torch.Tensor:
        """Random inputs."""
        if self.tokens:
            return torch.randint(self.tokens, (batch, *self.shape))
        return torch.randn(batch, *self.shape)


class Overflowing(nn.Module):
    """Overflows in half: its activations reach 1e5 between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(512, 512), nn.Linear(512, 512)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both layers, with a factor between them."""
        found: torch.Tensor = self.down(self.up(x) * 3e5) * 1e-5
        return found


class FirstOutput(nn.Module):
    """A model of transformers, or an LSTM, whose first output is what counts."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The first output."""
        found: torch.Tensor = self.model(x)[0]
        return found


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        found: nn.Module = torchvision.models.get_model(name, weights=None)
        return found

    return build


def _deeplab() -> nn.Module:
    from torchvision.models import segmentation

    model = segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None)

    class Out(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.model(x)["out"]
            return found

    return Out()


def _bert() -> nn.Module:
    transformers: Any = importlib.import_module("transformers")
    return FirstOutput(transformers.BertModel(transformers.BertConfig()))


def _gpt2() -> nn.Module:
    transformers: Any = importlib.import_module("transformers")
    config = transformers.GPT2Config(n_layer=1, use_cache=False)
    return FirstOutput(transformers.GPT2Model(config))


def _lstm() -> nn.Module:
    return FirstOutput(nn.LSTM(256, 512, num_layers=2, batch_first=True))


def _narrow() -> nn.Module:
    return nn.Sequential(*[part for _ in range(4) for part in (nn.Linear(16, 16), nn.ReLU())])


IMAGE = (3, 224, 224)
CASES = {
    "resnet50": Case(_torchvision("resnet50"), IMAGE, 256),
    "mobilenet_v3": Case(_torchvision("mobilenet_v3_large"), IMAGE, 128),
    "efficientnet_b0": Case(_torchvision("efficientnet_b0"), IMAGE, 128),
    "convnext_tiny": Case(_torchvision("convnext_tiny"), IMAGE, 64),
    "vit_b_16": Case(_torchvision("vit_b_16"), IMAGE, 64),
    "swin_t": Case(_torchvision("swin_t"), IMAGE, 64),
    "deeplabv3": Case(_deeplab, (3, 520, 520), 8),
    "bert_base": Case(_bert, (128,), 32, tokens=30000),
    "gpt2_block": Case(_gpt2, (512,), 16, tokens=50000),
    "lstm": Case(_lstm, (64, 256), 64),
    # Their answers are bfloat16 or mixed rows, and "stay in float32".
    "overflowing": Case(lambda: Overflowing(), (512,), 512),
    "narrow": Case(_narrow, (16,), 4),
}
LAYOUT = "memory_format=channels_last"


def by_hand(has_images: bool) -> list[str]:
    """What a person would try."""
    layout = f",{LAYOUT}" if has_images else ""
    half, compiled = f"half:dtype={DTYPE}", f"compile:dtype={DTYPE}{layout}"
    rows = [half, f"{half}{layout}", compiled, f"{compiled},freezing=true"]
    if ON_GPU:
        rows += [
            f"{half}{layout},cuda_graph=true",
            f"{compiled},freezing=true,mode=reduce-overhead",
            f"{compiled},freezing=true,mode=max-autotune-no-cudagraphs",
        ]
    return list(dict.fromkeys(rows))


def fresh_errors(best: pb.Tuned, model: nn.Module, case: Case, inputs: torch.Tensor) -> list[float]:
    """Relative L2 errors on inputs that the search has not seen."""
    batches = [case.inputs(len(inputs)) for _ in range(FRESH)]
    with best.prepare(model, inputs, device=DEVICE) as fast:
        found = [fast(batch.to(DEVICE)).double().cpu() for batch in batches]
    double = model.double().to(DEVICE)
    errors = []
    with torch.inference_mode():
        for batch, own in zip(batches, found, strict=True):
            wide = batch if case.tokens else batch.double()
            expected = double(wide.to(DEVICE)).cpu()
            errors.append(float((own - expected).norm() / expected.norm()))
    return errors


def tried(name: str, case: Case, budget_s: float, batch: int) -> dict[str, Any]:
    """Tune one model, and hold the winner against what a person would try."""
    torch.manual_seed(0)
    model, inputs = case.build().eval(), case.inputs(batch)
    begun_s = time.perf_counter()
    best = pb.tune(
        model, inputs, max_error=case.max_error, budget_s=budget_s, device=DEVICE, journal=None
    )
    elapsed_s = time.perf_counter() - begun_s
    rows = list(dict.fromkeys([best.spec, *by_hand(len(case.shape) == 3)]))
    hand = pb.compare(
        model, inputs, backends=rows, device=DEVICE, evidence=False, passes=False,
        build_together=True, budget_s=BY_HAND_S, on_progress=None,
    )  # fmt: skip
    by_hand_s = time.perf_counter() - begun_s - elapsed_s
    accurate = [row for row in hand if _is_accurate(row, case.max_error)]
    fastest = min(accurate, key=lambda row: row.latency.value)
    errors = fresh_errors(best, model, case, inputs)
    print(best, flush=True)
    return {
        "model": name,
        "batch": batch,
        "elapsed_s": elapsed_s,
        "best": best.spec,
        "choice": best.data.choice,
        "speedup": attrs.astuple(best.speedup),
        "error": best.error and attrs.astuple(best.error),
        "items_per_s": (one := hand[best.spec].throughput) and one.value,
        "best_by_hand": fastest.backend,
        "share_of_best_by_hand": fastest.latency.value / hand[best.spec].latency.value,
        "fresh_errors": errors,
        "bound_kept": max(errors) <= case.max_error,
        "by_hand_s": by_hand_s,
        "trials": [attrs.asdict(trial) for trial in best.trials],
        "left_out": [attrs.astuple(one) for one in best.left_out],
        "notes": list(best.data.notes),
    }


def _is_accurate(row: Any, max_error: float) -> bool:
    found = row.agreement
    error = found.relative_l2 if found else None
    return row.backend == "eager" or (
        error is not None and error <= max_error and not found.nonfinite_count
    )


def main() -> None:
    """Try the models, and write the record after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("--model", action="append", choices=list(CASES))
    parser.add_argument("--budget", type=float, default=120.0)
    parser.add_argument("--tiny", action="store_true", help="a batch of 2, to try the script")
    given = parser.parse_args()
    where = environment.capture(DEVICE, ["torchvision", "transformers"])
    record: dict[str, Any] = {"environment": attrs.asdict(where), "cases": []}
    for name in given.model or CASES:
        case = CASES[name]
        try:
            found = tried(name, case, given.budget, 2 if given.tiny else case.batch)
        except Exception as exc:  # the other models are of use without this one
            found = {"model": name, "failure": f"{type(exc).__name__}: {exc}"}
        record["cases"].append(found)
        print(json.dumps(found), flush=True)
        given.result.write_text(json.dumps(record, indent=1, default=str))


if __name__ == "__main__":
    main()
