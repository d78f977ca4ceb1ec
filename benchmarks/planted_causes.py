"""Models with a known cause planted in them, and clean ones: whether the diagnosis names it.

    python benchmarks/planted_causes.py FOLDER [--case NAME ...] [--device cuda]

Each case is measured and its result saved in the folder; then it is diagnosed, and the table says
which causes were found, which were missed, and which findings were wrong. Files that
are there already are diagnosed again without a GPU.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import attrs
import planted_compiled_models as compiled
import planted_models as models
import planted_quantised_models as quantised
import torch
from torch import nn

import precisionbench as pb
from precisionbench.backends import Backend, Prepared
from precisionbench.errors import PrecisionBenchError
from precisionbench.torchtools.global_state import flags_restored, set_flags
from precisionbench.torchtools.tensors import Inputs

Build = Any  # of a model with its inputs, or a name
Planted = dict[str, tuple[str, ...]]


@attrs.frozen
class Case:
    """A workload and what is wrong with it.

    Attributes:
        build: gives the model and its inputs.
        backends: beside the reference.
        planted: causes by row; a row that is not named has none.
        launcher: `process` where one row must not see the other.
        batch_size: for a name.
        false_labels: rows whose label is false.
        clean: whether it was built so that nothing is wrong with it. Models as they are have no
            such promise: what is found in them is judged by its figures.
        device: on which it is measured; empty for the one that is asked for.
        settings: torch's global settings, as `read_flags` names them, that are not at their
            defaults.
    """

    build: Build
    backends: tuple[Any, ...] = ("half",)
    planted: Planted = attrs.field(factory=dict)
    launcher: str = "inline"
    batch_size: int | None = None
    false_labels: tuple[str, ...] = ()
    clean: bool = False
    device: str = ""
    settings: dict[str, Any] = attrs.field(factory=dict)


# --- models ---------------------------------------------------------------------------------------


def matmuls(width: int = 4096, layers: int = 4, batch: int = 4096) -> Any:
    """Large GEMMs only: half precision gains most."""
    parts = [nn.Linear(width, width, bias=False) for _ in range(layers)]
    return nn.Sequential(*parts), torch.randn(batch, width)


def convolutions(channels: int, batch: int = 64, groups: int = 1, size: int = 56) -> Any:
    parts: list[nn.Module] = []
    for _ in range(6):
        parts += [nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False), nn.ReLU()]
    return nn.Sequential(*parts), torch.randn(batch, channels, size, size)


class Waiting(nn.Module):
    """Reads a number from the device in every call."""

    def __init__(self, waits: bool = True) -> None:
        super().__init__()
        self.body, self.scale, self.waits = nn.Linear(1024, 1024), 1.0, waits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(8):
            x = self.body(x)
            if self.waits:
                self.scale = float(x.abs().max().item())
        return x


class BrokenLoop(nn.Module):
    """TorchDynamo skips a function with a graph break in a loop, and compiles nothing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4096, 4096, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(4):
            x = self.body(x)
            print(end="")
        return x


class ThroughTheHost(nn.Module):
    """Sends a tensor over the host and back in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(64, 64, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        return self.body(x.cpu().to(x.device))  # type: ignore[no-any-return]


class Emptying(nn.Module):
    """Returns torch's cached memory to the driver in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4096, 4096)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.cuda.empty_cache()
        return self.body(x)  # type: ignore[no-any-return]


def transformer(batch: int = 32, length: int = 256, width: int = 1024, fast: bool = True) -> Any:
    layer = nn.TransformerEncoderLayer(width, 16, 4 * width, batch_first=True, norm_first=not fast)
    model = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    return model, torch.randn(batch, length, width)


def mlp(width: int = 4096, batch: int = 8192) -> Any:
    parts = [nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)]
    return nn.Sequential(*parts), torch.randn(batch, width)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.MultiheadAttention(2048, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output, _ = self.body(x, x, x, need_weights=False)
        return output  # type: ignore[no-any-return]


class LanguageModel(nn.Module):
    """Embedding, blocks, and a head over all words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(32000, 2048)
        layer = nn.TransformerEncoderLayer(2048, 16, 8192, batch_first=True, activation="gelu")
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(2048, 32000, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.words(tokens)))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LSTM(1024, 1024, num_layers=2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output, _ = self.body(x)
        return output  # type: ignore[no-any-return]


def normalised(channels: int = 256, batch: int = 64) -> Any:
    """Mostly batch norm and additions: bound by memory."""
    parts: list[nn.Module] = []
    for _ in range(8):
        parts += [nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(nn.Conv2d(channels, channels, 1), *parts), torch.randn(
        batch, channels, 56, 56
    )


class Float32Norm(nn.BatchNorm2d):
    """Normalises in float32 whatever it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, variance = self.get_buffer("running_mean"), self.get_buffer("running_var")
        weight, bias = self.weight.float(), self.bias.float()
        normal = nn.functional.batch_norm(x.float(), mean.float(), variance.float(), weight, bias)
        return normal.to(x.dtype)


def normalised_in_float32(channels: int = 256, batch: int = 64) -> Any:
    parts: list[nn.Module] = [nn.Conv2d(channels, channels, 1)]
    for _ in range(8):
        parts += [Float32Norm(channels), nn.ReLU()]
    return nn.Sequential(*parts), torch.randn(batch, channels, 56, 56)


class SquaringNorm(nn.Module):
    """Its squares exceed float16 where values are above 256; its output is finite."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(1, keepdim=True)
        return x / torch.sqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)


def normed() -> nn.Module:
    return nn.Sequential(SquaringNorm(), nn.Linear(1024, 1024))


class MaskedAttention(nn.Module):
    """Infinity and the smallest number in masks, as they are usual."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(1024, 3 * 1024)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.project(x).chunk(3, -1)
        scores = q @ k.transpose(1, 2) / 32
        for low in (float("-inf"), torch.finfo(scores.dtype).min):
            scores = scores + torch.full_like(scores[0], low).triu(1)
        return torch.softmax(scores, -1) @ v  # type: ignore[no-any-return]


class Growing(nn.Module):
    """Activations that pass 65504 in its third layer, or keep their size with `std` 1/32."""

    def __init__(self, std: float = 2.0) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(1024, 1024, bias=False) for _ in range(5))
        for part in self.parts:
            nn.init.normal_(part.get_parameter("weight"), std=std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            x = part(x)
        return x


@attrs.frozen
class Autocast(Backend):
    """A context for each call, under inference mode: weights are cast every time."""

    name: ClassVar[str] = "autocast-each-call"

    def prepare(self, model: nn.Module, inputs: Inputs) -> AbstractContextManager[Prepared]:
        @contextmanager
        def prepared() -> Iterator[Prepared]:
            call = inputs.bind(model)

            def cast() -> object:
                with torch.autocast("cuda", torch.float16):
                    return call()

            yield Prepared(cast, model)

        return prepared()


@attrs.frozen
class Mislabelled(Backend):
    """Its label is half, and it computes in float32."""

    name: ClassVar[str] = "half-by-name"
    dtype: str = "float16"

    def prepare(self, model: nn.Module, inputs: Inputs) -> AbstractContextManager[Prepared]:
        @contextmanager
        def prepared() -> Iterator[Prepared]:
            yield Prepared(inputs.bind(model), model)

        return prepared()


@attrs.frozen
class Float32ByName(Backend):
    """Says float32 and computes in TF32."""

    name: ClassVar[str] = "float32-by-name"
    precision: str = "fp32"

    def prepare(self, model: nn.Module, inputs: Inputs) -> AbstractContextManager[Prepared]:
        @contextmanager
        def prepared() -> Iterator[Prepared]:
            torch.backends.cuda.matmul.allow_tf32 = True
            yield Prepared(inputs.bind(model), model)
            torch.backends.cuda.matmul.allow_tf32 = False

        return prepared()


def zeros() -> Any:
    model, x = convolutions(64)
    return model, torch.zeros_like(x)


def _pictures(channels: int) -> torch.Tensor:
    return torch.randn(128, channels, 56, 56)


def wide(batch: int) -> Any:
    parts: list[nn.Module] = []
    for _ in range(30):
        parts += [nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(*parts), torch.randn(batch, 64)


CL = "half:memory_format=channels_last"
BF16 = "half:dtype=bfloat16"
NO_GRAD = "eager:grad_mode=no_grad"
ENGINE = "onnxruntime:precision=fp16,provider=cuda"
FALSE_LABEL = "a false label"
FIVE = ("eager:precision=tf32", "half", CL, "half:dtype=bfloat16")
RESNET = "torchvision:resnet50"
DEEPLAB = "torchvision:deeplabv3_resnet50"


def images(
    name: str, batch: int, *backends: str, planted: Planted | None = None, clean: bool = False
) -> Case:
    """One of torchvision's models."""
    rows = backends or (CL,)
    return Case(f"torchvision:{name}", rows, planted or {}, batch_size=batch, clean=clean)


def clean(build: Build, *backends: str) -> Case:
    """A workload with nothing wrong in it."""
    return Case(build, backends or ("half",), clean=True)


def in_both(build: Build, row: str, settings: dict[str, Any], device: str = "") -> Case:
    """A setting of torch that makes the reference and another row slower."""
    planted: Planted = {"eager": ("torch-settings",), row: ("torch-settings",)}
    return Case(build, (row,), planted, device=device, settings=settings)


def in_int8(
    way: quantised.Way,
    *causes: str,
    false_label: bool = False,
    width: int = 1024,
    batch: int = 256,
    pointwise: int = 0,
) -> Case:
    """Linear layers that are quantised in one way, on a CPU."""
    backend = quantised.Int8(way)
    row = f"int8:way={way}" if way != "dynamic" else "int8"
    return Case(
        lambda: quantised.linears(width, batch, pointwise=pointwise),
        (backend,),
        {row: causes} if causes else {},
        false_labels=(row,) if false_label else (),
        clean=not causes,
        device="cpu",
    )


def both(build: Build, cause: str) -> Case:
    """A cause in the reference and in half."""
    return Case(build, planted={"eager": (cause,), "half": (cause,)})


CASES = {
    # planted
    "nchw": Case(lambda: convolutions(128), ("half", CL), {"half": ("layout-conversions",)}),
    "grouped": Case(
        lambda: convolutions(256, groups=32), planted={"half": ("tensor-core-obstacles",)}
    ),
    "depthwise": Case(
        lambda: convolutions(256, groups=256), planted={"half": ("tensor-core-obstacles",)}
    ),
    "channels-50": Case(lambda: convolutions(50), planted={"half": ("tensor-core-obstacles",)}),
    "channels-25": Case(lambda: convolutions(25), planted={"half": ("tensor-core-obstacles",)}),
    "linear-1001": Case(
        lambda: matmuls(1001, batch=32768), planted={"half": ("tensor-core-obstacles",)}
    ),
    "autocast": Case(
        lambda: matmuls(2048, 8, 256), (Autocast(),), {"autocast-each-call": ("recast-weights",)}
    ),
    "recast": Case(
        lambda: matmuls(4096, 4, 1024),
        ("autocast:cache_enabled=false",),
        {"autocast:cache_enabled=false": ("recast-weights",)},
    ),
    "item": Case(
        lambda: (Waiting(), torch.randn(256, 1024)),
        planted={"eager": ("waits-inside",), "half": ("waits-inside",)},
    ),
    "host-copy": Case(
        lambda: (ThroughTheHost(), torch.randn(32, 64, 56, 56)), planted={"half": ("host-copies",)}
    ),
    "normalised": Case(normalised, planted={"half": ("memory-bound",)}),
    "overflow": Case(lambda: (Growing(), torch.randn(4096, 1024)), planted={"half": ("overflow",)}),
    "overflow-within": Case(
        lambda: (
            nn.Sequential(SquaringNorm(), nn.Linear(1024, 1024)),
            1000 * torch.randn(4096, 1024),
        ),
        planted={"half": ("overflow",)},
    ),
    "resnet152": images(
        "resnet152", 16, "half", planted={"half": ("overflow", "layout-conversions")}
    ),
    "zeros": Case(zeros, planted={"eager": ("constant-inputs",)}),
    "mislabelled": Case(matmuls, (Mislabelled(),), false_labels=("half-by-name",)),
    "uncompiled": Case(
        lambda: (BrokenLoop(), torch.randn(4096, 4096)),
        ("compile",),
        {"compile": ("graph-breaks",)},
        false_labels=("compile",),
    ),
    "small-launches": Case(
        lambda: wide(16), planted={"eager": ("launch-bound",), "half": ("launch-bound",)}
    ),
    "attention-written": both(models.attention, "attention-fallback"),
    "attention-mask": attrs.evolve(
        both(lambda: models.attention(50, "masked"), "attention-fallback"),
        false_labels=("half",),  # torch's math kernel of attention computes in float32
    ),
    "attention-weights": both(
        lambda: (models.AttentionWithWeights(), torch.randn(8, 1024, 512)), "attention-fallback"
    ),
    "lstm-steps": both(
        lambda: (models.Recurrent(256), torch.randn(512, 4, 256)), "recurrent-layers"
    ),
    "lstm-unpacked": both(
        lambda: (models.Recurrent(6144, packed=False), torch.randn(4, 64, 6144)),
        "recurrent-layers",
    ),
    "group-norm": Case(
        lambda: models.normalised_convolutions(models.group_norm),
        ("half", CL),
        {CL: ("norms-undo-channels-last",)},
    ),
    "every-tenth-call": both(lambda: (models.Uneven(), torch.randn(8192, 1024)), "uneven-calls"),
    "scatter": Case(models.added_by_index, planted={"half": ("half-scatter",)}),
    "denormals": Case(
        lambda: models.scaled_linear(1e-40),
        (NO_GRAD,),
        {"eager": ("denormals",), NO_GRAD: ("denormals",)},
        device="cpu",
    ),
    "tf32": Case(
        matmuls,
        (Float32ByName(),),
        {"float32-by-name": ("tf32-baseline",)},
        false_labels=("float32-by-name",),
    ),
    "allocations": Case(
        lambda: (Emptying(), torch.randn(4096, 4096)),
        # In half the output fits into a block that other tensors keep.
        planted={"eager": ("device-allocations",)},
    ),
    "norm-in-float32": Case(
        normalised_in_float32, planted={"half": ("batch-norm-in-float32", "memory-bound")}
    ),
    # compiled rows
    "graph-break": Case(compiled.broken, ("compile",), {"compile": ("graph-breaks",)}),
    "recompiles": Case(
        lambda: (compiled.Counting(), torch.randn(compiled.WIDTH, compiled.WIDTH)),
        ("compile",),
        {"compile": ("recompilation",)},
    ),
    "short-calls": Case(
        compiled.tiny,
        ("compile",),
        {
            "eager": ("launch-bound",),
            "compile": ("launch-bound", "short-compiled-calls"),
        },
    ),
    "graph-break-for-free": clean(lambda: compiled.broken(works=False), "compile"),
    "counts-in-a-buffer": clean(
        lambda: (compiled.Counting(False), torch.randn(compiled.WIDTH, compiled.WIDTH)), "compile"
    ),
    "long-compiled-calls": clean(
        lambda: (compiled.Pointwise(), torch.randn(4 * compiled.WIDTH, 4 * compiled.WIDTH)),
        "compile",
    ),
    # dtypes
    "float64-window": Case(
        lambda: (compiled.Windowed(), torch.randn(compiled.WIDTH, compiled.WIDTH)),
        (NO_GRAD,),
        {"eager": ("wider-dtype",), NO_GRAD: ("wider-dtype",)},
    ),
    "float32-ramp": Case(
        lambda: (compiled.Ramp(), torch.randn(compiled.WIDTH, compiled.WIDTH)),
        planted={"half": ("wider-dtype",)},
    ),
    "float32-window": clean(
        lambda: (
            compiled.Windowed(torch.float32),
            torch.randn(compiled.WIDTH, compiled.WIDTH),
        ),
        NO_GRAD,
    ),
    "ramp-in-own-dtype": clean(
        lambda: (compiled.Ramp(own_dtype=True), torch.randn(compiled.WIDTH, compiled.WIDTH))
    ),
    "int8-codes": Case(
        lambda: (compiled.Codes(), torch.randn(256, compiled.WIDTH)),
        planted={"eager": ("recast-weights",), "half": ("recast-weights",)},
    ),
    "int8-cast-once": clean(
        lambda: (compiled.Codes(cast_once=True), torch.randn(4096, compiled.WIDTH))
    ),
    # quantised rows, with torchao on a CPU
    "int8-reference": in_int8("pt2e", "reference-kernels", false_label=True),
    "int8-weight-only": in_int8("weight-only", "dequantised-weights", false_label=True),
    "int8-small": in_int8("dynamic-ao", "too-small-to-quantise", width=64, batch=4),
    "int8-first-layer": in_int8("first", "layers-in-float", false_label=True),
    "int8-pointwise": in_int8(
        "dynamic", "memory-bound-in-8-bits", width=64, batch=4096, pointwise=24
    ),
    "int8-large": in_int8("dynamic"),
    # torch's settings
    "cudnn-deterministic": in_both(lambda: convolutions(128), CL, {"cudnn.deterministic": True}),
    "cudnn-off": in_both(lambda: convolutions(128, batch=8), "half", {"cudnn.enabled": False}),
    "deterministic": in_both(compiled.added_by_index, "half", {"deterministic_algorithms": "warn"}),
    "no-fused-attention": attrs.evolve(
        in_both(
            compiled.attention,
            "half",
            {"cuda.flash_sdp": False, "cuda.mem_efficient_sdp": False, "cuda.cudnn_sdp": False},
        ),
        false_labels=("half",),  # without a fused kernel torch computes attention in float32
    ),
    "whole-sums": Case(
        compiled.long_reduction,
        planted={"half": ("torch-settings",)},
        settings={"cuda.matmul.allow_fp16_reduced_precision_reduction": False},
    ),
    "one-thread": in_both(compiled.cpu_matmuls, NO_GRAD, {"num_threads": 1}, device="cpu"),
    "mkldnn-off": in_both(
        lambda: convolutions(32, 4), NO_GRAD, {"mkldnn.enabled": False}, device="cpu"
    ),
    "deterministic-matmuls": attrs.evolve(
        clean(matmuls), settings={"deterministic_algorithms": "warn", "cudnn.deterministic": True}
    ),
    "whole-sums-of-large-matmuls": attrs.evolve(
        clean(matmuls),
        settings={"cuda.matmul.allow_fp16_reduced_precision_reduction": False},
    ),
    "all-threads": Case(compiled.cpu_matmuls, (NO_GRAD,), clean=True, device="cpu"),
    # engines
    "engine-on-the-cpu": Case(
        lambda: (models.Angles(torch.atan), torch.randn(4096, 4096)),
        (ENGINE,),
        {ENGINE: ("engine-on-the-cpu",)},
    ),
    "engine-on-the-gpu": clean(
        lambda: (models.Angles(torch.tanh), torch.randn(4096, 4096)), ENGINE
    ),
    # nothing is wrong
    "attention-fused": clean(lambda: models.attention(64, "fused")),
    "experts": clean(lambda: (models.MixtureOfExperts(), torch.randn(4096, 1024))),
    "attention-no-weights": clean(
        lambda: (models.AttentionWithWeights(need_weights=False), torch.randn(64, 1024, 512))
    ),
    "lstm-packed": clean(lambda: (models.Recurrent(2048), torch.randn(6, 1024, 2048))),
    "batch-norm-cl": clean(lambda: models.normalised_convolutions(nn.BatchNorm2d), CL),
    "even-calls": clean(lambda: (models.Uneven(None), torch.randn(32768, 1024))),
    "no-denormals": Case(lambda: models.scaled_linear(1.0), (NO_GRAD,), clean=True, device="cpu"),
    "matmuls": clean(matmuls, "eager:precision=tf32", "half", "half:dtype=bfloat16"),
    "compiled": clean(matmuls, "compile", "compile:dtype=float16"),
    "large-launches": clean(lambda: matmuls(8192, 2, 2048)),
    "cast-once": clean(lambda: matmuls(4096, 4, 1024), "autocast"),
    "linear-1024": clean(lambda: matmuls(1024, batch=32768)),
    "linear-2048": clean(lambda: matmuls(2048, 8, 16384)),
    "odd-batch": clean(lambda: matmuls(batch=4095)),
    "no-item": clean(lambda: (Waiting(waits=False), torch.randn(65536, 1024))),
    # without overflow; what else is found in them is judged by its figures
    "no-overflow-within": Case(lambda: (normed(), torch.randn(4096, 1024))),
    "masked-attention": both(
        lambda: (MaskedAttention(), torch.randn(8, 1024, 1024)), "attention-fallback"
    ),
    "no-overflow": clean(lambda: (Growing(1 / 32), torch.randn(32768, 1024))),
    "mlp": clean(mlp),
    "transformer": clean(transformer, "eager:precision=tf32", "half", "half:dtype=bfloat16"),
    "transformer-slow": clean(lambda: transformer(fast=False)),
    "attention": clean(lambda: (Attention(), torch.randn(8, 2048, 2048))),
    "language-model": clean(lambda: (LanguageModel(), torch.randint(0, 32000, (8, 1024)))),
    "lstm": clean(lambda: (Recurrent(), torch.randn(1024, 64, 1024))),
    "vit": images("vit_b_16", 64, "half", clean=True),
    "convs-cl": clean(lambda: convolutions(128), CL),
    "groups-of-all": clean(lambda: convolutions(256), CL),
    "channels-64": clean(lambda: convolutions(64), CL),
    "no-host-copy": clean(
        lambda: (nn.Conv2d(128, 128, 3, padding=1, bias=False), _pictures(128)), CL
    ),
    "deconvolution": clean(
        lambda: (nn.ConvTranspose2d(256, 128, 4, 2, 1, bias=False), _pictures(256)), CL
    ),
    "pointwise-convs": clean(
        lambda: (nn.Conv2d(1024, 1024, 1, bias=False), torch.randn(128, 1024, 28, 28)), CL
    ),
    "conv3d": clean(
        lambda: (nn.Conv3d(128, 128, 3, padding=1, bias=False), torch.randn(8, 128, 16, 56, 56)),
        CL,
    ),
    "weight-norm": Case(
        models.weight_normed,
        (BF16,),
        planted={"eager": ("recomputed-weights",), BF16: ("recomputed-weights",)},
        device="cpu",
    ),
    "no-weight-norm": Case(
        lambda: models.weight_normed(norm=False), (BF16,), clean=True, device="cpu"
    ),
    "norms-cpu": Case(models.normed_rows, (BF16,), {BF16: ("memory-bound",)}, device="cpu"),
    # models as they are; whether 16 bits are slower depends on the CPU
    "depthwise-cpu": Case(lambda: convolutions(32, 1, 32, 14), device="cpu"),
    "vgg-cl": images("vgg16", 64),
    "mobilenet-cl": images("mobilenet_v3_large", 64),
    "convnext-cl": images("convnext_tiny", 64),
    "regnet-cl": images("regnet_x_8gf", 32),
    "efficientnet-cl": images("efficientnet_v2_s", 32),
    "deeplab-cl": Case(DEEPLAB, (CL,), batch_size=8),
    "swin": images("swin_t", 64, "half"),
    # in processes of their own
    "resnet50-batch1": Case(
        RESNET,
        ("half",),
        {"eager": ("launch-bound",), "half": ("launch-bound",)},
        "process",
        batch_size=1,
    ),
    "apex": Case(
        lambda: matmuls(4096, 4, 1024),
        ("apex-amp:opt_level=O1", "apex-amp:opt_level=O3"),
        launcher="process",
        clean=True,  # Apex keeps cast weights from call to call
    ),
    "resnet50-five": Case(
        RESNET,
        FIVE,
        {
            "half": ("layout-conversions", "memory-bound"),
            "half:dtype=bfloat16": ("layout-conversions", "memory-bound"),
        },
        "process",
        batch_size=100,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--case", nargs="+", default=list(CASES), choices=CASES, metavar="NAME")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds for each row")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="keep small copies there")
    parser.add_argument("--again", action="store_true", help="measure nothing, diagnose the files")
    options = parser.parse_args()
    for folder in filter(None, (options.folder, options.record)):
        folder.mkdir(parents=True, exist_ok=True)
    failed = [name for name in options.case if not has_result(name, options)]
    print(report(options.folder, options.case))
    if failed:
        raise SystemExit(f"without a result: {', '.join(failed)}")


def has_result(name: str, options: argparse.Namespace) -> bool:
    """Measure a case that has no file yet, and record it; a failure is printed."""
    file = options.folder / f"{name}.json"
    if not file.exists() and not options.again:
        try:
            measure(name, file, options)
        except PrecisionBenchError as exc:
            print(f"{name}: {exc}", flush=True)
        except Exception:  # a faulty case must not end the others
            print(f"{name}:\n{traceback.format_exc()}", flush=True)
    if options.record and file.exists():
        record(file, options.record / f"{name}.json.gz")
    return bool(file.exists())


def record(file: Path, to: Path) -> None:
    """Keep a result small: five digits of each figure, and a few samples of each block."""
    whole = json.loads(file.read_text(), parse_float=lambda text: float(f"{float(text):.5g}"))
    for row in whole["results"]:
        for block in row["measurement"]["blocks"]:
            del block["samples"][_SAMPLES_KEPT:]
    to.write_bytes(gzip.compress(json.dumps(whole, separators=(",", ":")).encode(), mtime=0))


_SAMPLES_KEPT = 7


def report(folder: Path, names: list[str]) -> str:
    """Which planted causes were found, and what else was."""
    lines = ["| case | found | missed | also found |", "|---|---|---|---|"]
    found: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    clean: Counter[bool] = Counter()
    for name in names:
        file = folder / f"{name}.json"
        if not file.exists():
            continue
        seen, planted = accusations(pb.load(file)), _planted(CASES[name])
        cells = [_named(some) for some in (seen & planted, planted - seen, seen - planted)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        found.update(cause for _, cause in seen & planted)
        missed.update(cause for _, cause in planted - seen)
        if CASES[name].clean:
            clean[bool(seen)] += 1
    lines += ["", "| cause | found | missed |", "|---|---:|---:|"]
    lines += [f"| {cause} | {found[cause]} | {missed[cause]} |" for cause in sorted(found | missed)]
    total = found.total() + missed.total()
    lines += ["", f"{found.total()} of {total} planted causes found; "
              f"{clean[True]} of {clean.total()} clean cases accused"]  # fmt: skip
    return "\n".join(lines)


def accusations(comparison: pb.Comparison) -> set[tuple[str, str]]:
    """Rows with the causes found in them, and those whose label is false."""
    diagnosis = pb.diagnose(comparison)
    labels = {(one.row, FALSE_LABEL) for one in diagnosis.labels if one.verdict == "false"}
    return labels | {(finding.row, finding.cause) for finding in diagnosis.findings}


def _planted(case: Case) -> set[tuple[str, str]]:
    labels = {(row, FALSE_LABEL) for row in case.false_labels}
    return labels | {(row, cause) for row, causes in case.planted.items() for cause in causes}


def _named(pairs: set[tuple[str, str]]) -> str:
    return ", ".join(sorted(f"{cause} ({row})" for row, cause in pairs)) or "-"


def measure(name: str, file: Path, options: argparse.Namespace) -> None:
    case, begun_s = CASES[name], time.monotonic()
    with flags_restored():
        set_flags(case.settings)
        comparison = compared(case, options)
    comparison.save(file)
    print(f"{name}: {time.monotonic() - begun_s:.1f} s", comparison, sep="\n")
    for row in comparison:
        evidence = row.evidence
        unknown = "none" if evidence is None else dict(evidence.unknown)
        print(row.backend, unknown, row.warnings, flush=True)


def compared(case: Case, options: argparse.Namespace) -> pb.Comparison:
    rows = len(case.backends) + 1
    return pb.compare(
        case.build,
        backends=case.backends,
        device=case.device or options.device,
        batch_size=case.batch_size,
        launcher=case.launcher,
        budget_s=options.budget * rows,
        effort="quick",  # few rounds: the evidence decides, which the budget must have time for
        evidence=True,
        passes=True,
        seed=0,
        replicas=1 if case.launcher == "process" else None,
    )


if __name__ == "__main__":
    main()
