"""The engines on a GPU: autocast's cache, compiled models, CUDA graphs, folded batch norms."""

from __future__ import annotations

import gc
import importlib.util

import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.backends.discovery import make
from precisionbench.errors import PreparationError
from precisionbench.measure.worker.local import InlineLauncher
from precisionbench.model.workload import resolve
from precisionbench.torchtools.global_state import Functions, compilations, read_flags
from test_autocast import WeightCasts

pytestmark = pytest.mark.gpu
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton to compile for a GPU"
)


class Cnn(nn.Module):
    """Eight convolutions with batch norms: many small kernels at batch 1."""

    def __init__(self, width: int = 64, depth: int = 8) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
        for _ in range(depth):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Tiny(nn.Module):
    """200 kernels of a microsecond each."""

    def forward(self, x):
        for _ in range(200):
            x = x + 1
        return x


class Synchronizes(nn.Module):
    def forward(self, x):
        return x * x.sum().item()


@pytest.fixture
def cnn() -> nn.Module:
    torch.manual_seed(0)
    return Cnn().eval().cuda()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)).cuda()


def opened(model: nn.Module, x: torch.Tensor, spec: str):
    return InlineLauncher.on_device_of(resolve(model, x, seed=0)).open(make(spec))


def latencies(model: nn.Module, x: torch.Tensor, *specs: str) -> dict[str, float]:
    found = pb.compare(model, x, backends=specs, budget_s=20.0 * len(specs), launcher="inline")
    assert not found.failures, found.failures
    return {row.backend: row.latency.value for row in found.results}


def allocated_bytes() -> int:
    """Without cuBLAS's workspaces, of which each stream has its own."""
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    return torch.cuda.memory_allocated()


@pytest.mark.parametrize(
    ("spec", "casts"),
    [
        ("autocast", 0),
        ("autocast:dtype=bfloat16", 0),
        ("autocast:cache_enabled=false", 20),
        ("autocast:grad_mode=inference_mode", 20),
    ],
)
def test_autocast_casts_no_weight_after_the_first_call(cnn, image, spec, casts):
    """Nine convolutions and a linear layer, each with weight and bias."""
    with opened(cnn, image, spec) as session:
        with WeightCasts(list(session.module.parameters())) as mode:
            session.call()
        assert mode.count == casts
        assert next(iter(session.output.values())).dtype in (torch.float16, torch.bfloat16)


def test_a_graph_of_an_autocast_row_casts_no_weights_and_agrees(cnn, image):
    with opened(cnn, image, "autocast") as plain:
        expected = plain.output[""]
        kernels = plain.evidence(1e-3, None).launches
    with opened(cnn, image, "autocast:cuda_graph=true") as session:
        torch.testing.assert_close(session.output[""], expected, rtol=1e-2, atol=1e-3)
        session.check_steady()
        found = session.evidence(1e-3, None)
    assert not session.closing().warnings
    assert found.graph_launches == 1
    assert kernels is not None


def test_a_graph_is_faster_than_200_launches_with_the_same_output():
    x = torch.rand(1024, device="cuda")
    with opened(Tiny(), x, "eager") as session:
        expected = session.output[""]
    with opened(Tiny(), x, "eager:cuda_graph=true") as session:
        assert torch.equal(session.output[""], expected)
        passes = session.passes(1e-4, capture=True)
    assert passes.unknown["graph"] == "the call is already a CUDA-graph replay"
    assert not passes.labels
    assert passes.device_s
    assert passes.enqueue_s
    assert passes.peak_allocated_bytes is None
    taken = latencies(Tiny(), x, "eager", "eager:cuda_graph=true")
    assert taken["eager:cuda_graph=true"] < 0.7 * taken["eager"]


def test_a_graph_with_a_cold_cache_is_slower_than_with_a_warm_one():
    model, x = nn.Linear(2048, 2048), torch.rand(8, 2048)
    cold = "half:l2_cache=cold,cuda_graph=true"
    taken = latencies(model.cuda(), x.cuda(), "half:cuda_graph=true", cold)
    assert taken[cold] > taken["half:cuda_graph=true"]


def test_a_call_that_synchronizes_is_refused_with_the_place():
    with pytest.raises(PreparationError) as caught:
        opened(Synchronizes(), torch.rand(8, device="cuda"), "eager:cuda_graph=true").__enter__()
    assert "synchronizes with the GPU (test_gpu_engines.py:" in str(caught.value)
    assert ".item()" in caught.value.remedy


class OnTheHost(nn.Module):
    """Asks the device for its memory in the middle: no capture survives that."""

    def forward(self, x):
        torch.cuda.current_stream().query()
        return x + 1


def test_a_call_that_cannot_be_captured_fails_without_affecting_others():
    """In a process of its own, which a broken capture may spoil."""
    model, x = OnTheHost().cuda(), torch.rand(8, device="cuda")
    found = pb.compare(
        model, x, backends=["eager:cuda_graph=true", "eager"], budget_s=20, replicas=1
    )
    assert [row.backend for row in found.results] == ["eager"]
    assert "cannot be captured as a CUDA graph" in found.failures[0].reason


class Elsewhere(nn.Module):
    """Does all its work on a stream that no capture sees."""

    def forward(self, x):
        with torch.cuda.stream(torch.cuda.default_stream()):
            return x + 1


def test_a_call_whose_work_is_on_another_stream_is_refused():
    x = torch.rand(8, device="cuda")
    found = pb.compare(
        Elsewhere().cuda(), x, backends=["eager:cuda_graph=true"], budget_s=20, replicas=1
    )
    (failure,) = found.failures
    assert failure.error == "PreparationError"
    assert "CUDA graph" in failure.reason


def test_folded_batch_norms_agree_and_launch_no_kernels(cnn, image):
    counts, outputs = [], []
    for spec in ("eager", "eager:fold_batch_norm=true"):
        with opened(cnn, image, spec) as session:
            outputs.append(session.output[""])
            counts.append(session.evidence(1e-3, None).launches)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)
    assert counts[1] <= counts[0] - 8


@needs_triton
def test_a_compiled_model_is_faster_at_batch_1_and_nothing_compiles_late(cnn, image):
    spec = "compile:mode=reduce-overhead"
    with opened(cnn, image, spec) as session:
        details, compiled = session.opening.details, compilations()
        assert details["cuda_graphs"] == "used", details
        assert (details["graphs"], details["recompilations"]) == (1, 0)
        session.block(20, 1, 0)
        session.passes(1e-4, capture=False)
        session.check_steady()
        found = session.evidence(1e-4, None)
        assert compilations() == compiled
    assert not session.closing().warnings
    assert found.graph_launches >= 1
    taken = latencies(cnn, image, "eager", spec)
    assert taken[spec] < taken["eager"]


@needs_triton
def test_the_reason_for_skipped_cuda_graphs_is_recorded(image):
    class FromTheHost(nn.Module):
        def forward(self, x):
            return x + torch.ones(1).to(x.device)

    with opened(FromTheHost(), image, "compile:mode=reduce-overhead") as session:
        assert session.opening.details["cuda_graphs"].startswith(("skipped", "used"))


@needs_triton
def test_freezing_folds_batch_norms_into_weights(cnn, image):
    found, outputs = [], []
    for spec in ("compile:dtype=float16", "compile:dtype=float16,freezing=true"):
        with opened(cnn, image, f"{spec},memory_format=channels_last") as session:
            outputs.append(session.output[""])
            found.append(session.evidence(1e-3, None))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=2e-2, atol=2e-3)
    assert found[1].launches <= found[0].launches


@needs_triton
def test_a_compiled_call_can_be_captured(cnn, image):
    spec = "compile:dtype=float16,cuda_graph=true"
    with opened(cnn, image, spec) as session:
        assert session.opening.labels == ()
        found = session.evidence(1e-4, None)
    assert found.graph_launches == 1
    assert found.foreign_functions == ()


@needs_triton
def test_torch_other_rows_and_memory_are_restored(cnn, image):
    with opened(cnn, image, "eager") as session:
        expected = session.output[""]
    flags, functions = read_flags(), Functions.now()
    taken = []  # what libraries keep once is no leak; what each row leaves behind would be
    for _ in range(2):
        for spec in (
            "autocast",
            "autocast:cuda_graph=true",
            "compile:mode=reduce-overhead,freezing=true",
            "half:fold_batch_norm=true,cuda_graph=true",
            "compile:precision=tf32",
        ):
            with opened(cnn, image, spec):
                pass
        taken.append(allocated_bytes())
    assert read_flags() == flags
    assert taken[1] <= taken[0] + (1 << 18)
    assert functions.changes() == []
    with opened(cnn, image, "eager") as session:
        assert torch.equal(session.output[""], expected)
