"""Prepared backends on a GPU are given other inputs: also in CUDA graphs and compiled models."""

from __future__ import annotations

import gc
import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from precisionbench.backends.discovery import make
from precisionbench.measure.worker.local import InlineLauncher
from precisionbench.measure.worker.prepared_call import prepared_call
from precisionbench.model.workload import resolve
from precisionbench.probes.event_timing_checks import synchronizations
from precisionbench.torchtools.global_state import Settings, compilations

pytestmark = pytest.mark.gpu
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton to compile for a GPU"
)
SPECS = [
    "eager",
    "eager:precision=tf32",
    "eager:fold_batch_norm=true,cuda_graph=true",
    "half",
    "half:memory_format=channels_last",
    "half:memory_format=channels_last,cuda_graph=true",
    "half:dtype=bfloat16,grad_mode=no_grad",
    "autocast",
    "autocast:cuda_graph=true",
    pytest.param("compile:dtype=float16,freezing=true", marks=needs_triton),
    pytest.param("compile:dtype=float16,cuda_graph=true", marks=needs_triton),
    pytest.param("compile:dtype=float16,mode=reduce-overhead", marks=needs_triton),
]
TOLERANCE = 2e-2


@pytest.fixture
def model() -> nn.Module:
    """Its output is as large as what its input changes."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 8, 3, padding=1, bias=False),
    ]
    return nn.Sequential(*layers).eval().cuda()


@pytest.fixture
def batches() -> list[torch.Tensor]:
    """The first is what the backend is prepared with; on a GPU."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 3, 32, 32, generator=generator).cuda() for _ in range(4)]


def expected(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(batch).float().cpu()


def error(output: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((output.detach().float().cpu() - wanted).norm() / wanted.norm()).item()


def allocated_bytes() -> int:
    """Without cuBLAS's workspaces, of which each stream has its own."""
    torch.cuda.synchronize()
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    return torch.cuda.memory_allocated()


@pytest.mark.parametrize("spec", SPECS)
def test_a_session_computes_other_inputs_and_then_its_own_again(model, batches, spec, tmp_path):
    first, *others = batches
    assert error(expected(model, first), expected(model, others[0])) > 10 * TOLERANCE
    launcher = InlineLauncher.on_device_of(resolve(model, first, seed=0))
    with launcher.open(make(spec)) as session:
        outputs = [session.outputs_of(saved(tmp_path, batch))[""] for batch in others]
        session.check_steady()
        assert not session.closing().warnings
    for output, batch in zip(outputs, others, strict=True):
        assert error(output, expected(model, batch)) < TOLERANCE


def saved(folder: Path, batch: torch.Tensor) -> str:
    file = folder / "inputs.pt"
    torch.save([batch.cpu()], file)
    return str(file)


@pytest.mark.parametrize("spec", SPECS)
def test_a_prepared_call_gives_copies_and_leaves_the_callers_settings_alone(model, batches, spec):
    wanted = [expected(model, batch) for batch in batches]
    before, stream = Settings.now("cpu", "cuda"), torch.cuda.current_stream()
    with prepared_call(make(spec), model, batches[0]) as fast:
        outputs = [fast(batch) for batch in batches]
        outputs += [fast(batch.cpu()) for batch in batches]
        assert Settings.now("cpu", "cuda") == before
        assert torch.cuda.current_stream() == stream
    assert Settings.now("cpu", "cuda") == before
    for output, one in zip(outputs, 2 * wanted, strict=True):
        assert output.is_cuda
        assert error(output, one) < TOLERANCE


@pytest.mark.parametrize(
    "spec",
    [
        "half",
        "half:cuda_graph=true",
        pytest.param("compile:dtype=float16,mode=reduce-overhead", marks=needs_triton),
    ],
)
def test_calls_keep_the_order_of_the_callers_stream(model, batches, spec):
    """The input is computed late on the caller's stream, and the output is read there at once."""
    wanted = [expected(model, batch) for batch in batches]
    large = torch.rand(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    own = torch.cuda.Stream()
    with prepared_call(make(spec), model, batches[0]) as fast, torch.cuda.stream(own):
        read = []
        for batch in batches:
            late = torch.zeros_like(batch)
            for _ in range(20):
                large = large @ large / large.norm()
            late += batch
            read.append(fast(late) + 0)
            late.zero_()
        own.synchronize()
    for output, one in zip(read, wanted, strict=True):
        assert error(output, one) < TOLERANCE


@pytest.mark.parametrize("spec", ["half", "half:cuda_graph=true"])
def test_a_call_does_not_wait_for_the_gpu(model, batches, spec):
    with prepared_call(make(spec), model, batches[0]) as fast:
        fast(batches[0])
        assert not synchronizations(lambda: fast(batches[1]))


@needs_triton
def test_calls_with_other_values_compile_nothing(model, batches):
    spec = "compile:dtype=float16,mode=reduce-overhead"
    with prepared_call(make(spec), model, batches[0]) as fast:
        before = compilations()
        for batch in batches:
            fast(batch)
        assert compilations() == before


@pytest.mark.parametrize("spec", ["half", "autocast", "half:cuda_graph=true"])
def test_its_memory_is_free_after_the_context(model, batches, spec):
    before = allocated_bytes()
    with prepared_call(make(spec), model, batches[0]) as fast:
        fast(batches[1])
        assert allocated_bytes() > before
    assert allocated_bytes() == before
    assert fast is not None  # which a user may keep
