"""torchao on a real GPU: INT8, INT4 and FP8, alone and compiled, and their labels."""

from __future__ import annotations

import importlib.util
import itertools

import pytest
import torch
from torch import nn

import precisionbench as pb
from engine_rows import Prepares
from precisionbench.backends.torchao import TorchAo
from precisionbench.errors import PrecisionBenchWarning

pytestmark = [pytest.mark.gpu, pytest.mark.torchao, pytest.mark.slow]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton to compile for a GPU"
)
SIZE = 2048


def has_float8() -> bool:
    return torch.cuda.get_device_capability() >= (8, 9)


def perceptron(*sizes: int) -> nn.Sequential:
    torch.manual_seed(0)
    pairs = itertools.pairwise(sizes)
    return nn.Sequential(*(nn.Linear(*pair) for pair in pairs)).eval().cuda()


def skip_without(precision: str) -> None:
    if precision == "float8" and not has_float8():
        pytest.skip("needs compute capability 8.9 for FP8")


PRECISIONS = {
    "int8-dynamic": ("int8", 0.05),
    "int8-weight-only": ("int8", 0.05),
    "int4-weight-only": ("int4", 0.2),
    "float8": ("float8", 0.1),
}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_layers_are_quantised_and_the_output_is_within_tolerance(precision):
    skip_without(precision)
    stored, tolerance = PRECISIONS[precision]
    model, x = perceptron(SIZE, SIZE, SIZE), torch.rand(256, SIZE, device="cuda")
    expected = model(x)
    with Prepares(TorchAo(precision), model, x) as found:
        output = found.call().float()
        assert (output - expected).norm() / expected.norm() < tolerance
        assert found.prepared.details["weight_shares"] == {stored: 1.0}


def test_layers_of_sizes_that_the_kernels_refuse_stay_in_floating_point():
    precision = "float8" if has_float8() else "int8-dynamic"
    model, x = perceptron(SIZE, 1001), torch.rand(256, SIZE, device="cuda")
    warned = pytest.warns(PrecisionBenchWarning, match="did not quantise")
    with warned, Prepares(TorchAo(precision), model, x) as found:
        found.call()


@needs_triton
def test_a_compiled_call_neither_waits_nor_copies_to_the_host():
    """In eager mode int8-dynamic does both: torchao's `safe_int_mm` formats its input as text."""
    model, x = perceptron(SIZE, SIZE), torch.rand(256, SIZE, device="cuda")
    with Prepares(TorchAo(compile=True), model, x) as found, torch.inference_mode():
        found.call()
        with torch.profiler.profile(acc_events=True) as profile:
            found.call()
            torch.cuda.synchronize()
    names = [event.name for event in profile.events()]
    assert not any("Memcpy DtoH" in name for name in names)


@needs_triton
def test_labels_in_a_comparison_with_half_and_compile():
    rows = [
        "half:dtype=bfloat16",
        "compile:dtype=bfloat16",
        TorchAo(),
        TorchAo(compile=True),
        TorchAo("int8-weight-only"),  # compiled it takes 0.15 s for each layer (docs/backends.md)
        TorchAo("int4-weight-only", compile=True),
    ]
    if has_float8():
        rows += [TorchAo("float8"), TorchAo("float8", compile=True)]
    comparison = pb.compare(
        perceptron(SIZE, 4 * SIZE, SIZE, 4 * SIZE, SIZE),
        torch.rand(1024, SIZE),
        backends=rows,
        device="cuda",
        budget_s=60,
        replicas=1,
    )
    assert comparison.failures == ()
    for label in pb.diagnose(comparison).labels:
        # The operands of a fused Triton kernel are those of all that is fused in it.
        allowed = ("true", "partly", "unknown") if "compile=true" in label.row else ("true",)
        assert label.verdict in allowed, label.sentence
