"""AOTInductor on a real GPU: precision of kernels, labels, layouts and CUDA graphs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import attrs
import pytest
import torch

import precisionbench as pb
from engine_rows import Prepares
from precisionbench.backends.aot_inductor import AotInductor
from precisionbench.results.claims import Claims

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.uncounted,
    # of options that change nothing in so small a model, and torch's own about its interfaces
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler"),
    pytest.mark.skipif(
        shutil.which("nvcc") is None and not Path("/usr/local/cuda/include/cuda.h").exists(),
        reason="AOTInductor needs the headers of the CUDA toolkit",
    ),
]


@attrs.frozen
class Mislabelled(AotInductor):
    """Claims float16 and runs the float32 model."""

    name: ClassVar[str] = "mislabelled"

    def claims(self):
        return Claims("float16", engine="AOTInductor")


@pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [
        (AotInductor(), torch.float32, 1e-5),
        (AotInductor("fp16", freezing=True, memory_format="channels_last"), torch.float16, 5e-3),
        (AotInductor("bf16", max_autotune=True), torch.bfloat16, 3e-2),
    ],
    ids=["fp32", "fp16-frozen-channels_last", "bf16-tuned"],
)
def test_a_package_runs_in_the_precision_asked_for(cnn, images, backend, dtype, tolerance):
    expected = cnn.eval()(images).detach().cuda()  # of the CPU, which has no TF32
    with Prepares(backend, cnn.cuda(), images.cuda()) as found:
        output = found.call()
        torch.cuda.synchronize()
        assert output.dtype == dtype
        assert output.is_cuda
        assert (output.float() - expected).norm() / expected.norm() < tolerance
        assert set(found.prepared.details["layer_precision"]) == {str(dtype)[6:]}


def test_a_package_is_kept_and_runs_alone(cnn, images, tmp_path):
    model, x = cnn.eval().cuda(), images.cuda()
    file = tmp_path / "cnn.pt2"
    with Prepares(AotInductor("fp16", package_path=file), model, x) as found:
        measured = found.call().clone()
    (alone,) = torch._inductor.aoti_load_package(str(file))(x.half())
    assert torch.allclose(alone, measured, rtol=1e-3, atol=1e-3)


def test_labels_in_a_comparison():
    """Sizes at which tensor cores and TF32 are used."""
    model = torch.nn.Sequential(
        torch.nn.Linear(1024, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 1024)
    )
    comparison = pb.compare(
        model,
        torch.rand(512, 1024),
        backends=[
            AotInductor(),
            AotInductor("tf32"),
            AotInductor("fp16"),
            AotInductor("fp16", cuda_graph=True),
            Mislabelled(),
        ],
        device="cuda",
        budget_s=30,
        replicas=1,
    )
    assert comparison.failures == ()
    labels = {label.row: label.verdict for label in pb.diagnose(comparison).labels}
    assert labels["aot-inductor"] == "true"  # and no TF32 kernel
    assert labels["aot-inductor:precision=tf32"] == "true"
    assert labels["aot-inductor:precision=fp16"] == "true"
    assert labels["aot-inductor:precision=fp16,cuda_graph=true"] == "true"
    assert labels["mislabelled"] == "false"
