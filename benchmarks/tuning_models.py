"""The models of `benchmarks/tuning.py`: random weights, and the batch in which each is tuned."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import nn

MAX_ERROR = 1e-2


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

    @property
    def has_images(self) -> bool:
        """Whether layouts matter."""
        return len(self.shape) == 3

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


def _with_statistics(name: str) -> Callable[[], nn.Module]:
    """Batch norms have statistics of random inputs; without, outputs are 1e-13, and 0 in half."""

    def build() -> nn.Module:
        model = _torchvision(name)().train()
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None  # the average of all batches, which is one
        with torch.no_grad():
            model(torch.randn(16, *IMAGE))
        return model

    return build


def _vit() -> nn.Module:
    """Its last layer is made with zeros, and an output of zeros has no relative error."""
    model: Any = _torchvision("vit_b_16")()
    nn.init.normal_(model.heads.head.weight, std=0.02)
    found: nn.Module = model
    return found


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
    "mobilenet_v3": Case(_with_statistics("mobilenet_v3_large"), IMAGE, 128, max_error=2e-2),
    "efficientnet_b0": Case(_with_statistics("efficientnet_b0"), IMAGE, 128, max_error=2e-2),
    "convnext_tiny": Case(_torchvision("convnext_tiny"), IMAGE, 64),
    "vit_b_16": Case(_vit, IMAGE, 64),
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
