"""`torch.compile`: all is compiled before it is timed, and belongs to its row alone."""

from __future__ import annotations

import gc
import os
import re
import shutil
import weakref

import pytest
import torch
from torch import nn

from precisionbench.backends import compile
from precisionbench.backends.compile import Compile
from precisionbench.backends.discovery import make
from precisionbench.backends.inductor import build_error
from precisionbench.errors import BackendUnavailableError, PreparationError, SpecError
from precisionbench.measure.worker.local import InlineLauncher
from precisionbench.model.workload import resolve
from precisionbench.probes.profiler import marks_compiled_graphs
from precisionbench.torchtools.global_state import Functions, compilations, read_flags
from precisionbench.torchtools.tensors import Inputs

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None,
    reason="TorchInductor needs a C++ compiler to compile for a CPU",
)


def opened(model: nn.Module, x: torch.Tensor, spec: str):
    workload = resolve(model, x, device="cpu", seed=0)
    return InlineLauncher.on_device_of(workload).open(make(spec))


@pytest.mark.uncounted
@needs_compiler
@pytest.mark.parametrize("grad_mode", ["inference_mode", "no_grad"])
def test_everything_is_compiled_before_the_first_call(cnn, images, grad_mode, tmp_path):
    with torch.no_grad():
        expected = cnn.eval()(images)
    with opened(cnn, images, f"compile:grad_mode={grad_mode}") as session:
        torch.testing.assert_close(session.output[""], expected, rtol=1e-4, atol=1e-5)
        details, compiled = session.opening.details, compilations()
        assert details["graphs"] == compiled == 1
        assert details["recompilations"] == details["graph_breaks"] == 0
        assert details["cuda_graphs"] == "not requested"
        assert session.opening.build_s > session.opening.first_call_s
        session.block(3, 1, 0)
        session.write_float64_reference(str(tmp_path / "truth.pt"))
        found = session.evidence(0.001, str(tmp_path / "truth.pt"))
        assert compilations() == compiled  # nothing has looked through it
    assert (found.layers, found.flops) == ((), None)
    assert [error.path for error in found.errors] == [""]
    assert found.errors[0].relative_l2 < 1e-5
    assert found.operations
    assert found.compiled_share > 0.95 if marks_compiled_graphs() else found.compiled_share is None


@pytest.mark.uncounted
@needs_compiler
def test_torch_is_restored_after_compiling(cnn, images):
    dynamo = torch._dynamo
    counters = dynamo.utils.counters
    before = read_flags(), dict(os.environ), {name: dict(c) for name, c in counters.items()}
    config = torch._inductor.config.freezing, torch._inductor.config.triton.cudagraphs
    limit, functions = dynamo.config.patch, Functions.now()
    with opened(cnn, images, "compile:mode=reduce-overhead,freezing=true") as session:
        assert session.opening.details["cuda_graphs"] == "skipped: not supported on cpu"
    after = read_flags(), dict(os.environ), {name: dict(c) for name, c in counters.items()}
    assert after == before
    assert config == (torch._inductor.config.freezing, torch._inductor.config.triton.cudagraphs)
    assert limit == dynamo.config.patch
    assert functions.changes() == []


@needs_compiler
def test_rows_of_one_model_do_not_run_each_others_code(cnn, images):
    """TorchDynamo would reuse it: all copies have one `forward`."""
    for spec in ("compile", "compile:freezing=true", "compile"):
        with opened(cnn, images, spec) as session:
            assert session.opening.details["graphs"] == 1


@needs_compiler
def test_a_callers_own_compiled_model_is_neither_used_nor_lost(cnn, images):
    compiled: list[torch.fx.GraphModule] = []

    def watched(graph, example_inputs):
        compiled.append(graph)
        return graph

    own = torch.compile(cnn.eval(), backend=watched)
    with torch.inference_mode():
        own(images)
    with opened(cnn, images, "compile") as session:
        assert session.opening.details["graphs"] == 1
    with torch.inference_mode():
        own(images)
    assert len(compiled) == 1


class OneLayer(nn.Module):
    """Compiled by nobody else in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.conv(x).relu()


@pytest.mark.uncounted
@needs_compiler
def test_compiled_weights_are_freed(images, monkeypatch):
    """TorchDynamo would keep compiled code for good, and frozen weights are part of it."""
    made: list[weakref.ref[nn.Module]] = []

    def watched(model: nn.Module, dtype: torch.dtype) -> nn.Module:
        made.append(weakref.ref(model.conv.weight))
        return model

    monkeypatch.setattr(compile, "cast_model", watched)
    for _ in range(2):
        with opened(OneLayer(), images, "compile:freezing=true"):
            assert made[-1]() is not None
        gc.collect()
        assert made[-1]() is None


@pytest.mark.uncounted
@needs_compiler
@pytest.mark.skipif(torch.__version__ < (2, 9), reason="torch 2.6 keeps some until a worker ends")
def test_frozen_weights_are_freed(images):
    """TorchInductor would keep them with the code that it generated."""

    def weights() -> int:
        gc.collect()
        kinds = (torch.Tensor, nn.Parameter)  # fake tensors hold no data
        return sum(type(found) in kinds and found.numel() > 0 for found in gc.get_objects())

    left = []
    for _ in range(2):
        with opened(OneLayer(), images, "compile:freezing=true"):
            pass
        left.append(weights())
    assert left[1] == left[0]


@needs_compiler
@pytest.mark.parametrize("freezing", [False, True])
def test_frozen_weights_are_constants(cnn, images, freezing):
    cnn.eval()
    prepare = Compile(freezing=freezing).prepare
    with prepare(cnn, Inputs((images,))) as prepared, torch.inference_mode():
        before = prepared.call().clone()
        for parameter in cnn.parameters():
            parameter.zero_()
        assert torch.equal(prepared.call(), before) is freezing


class Broken(nn.Module):
    """Two graphs, with Python between them."""

    def forward(self, x):
        x = x.relu()
        torch._dynamo.graph_break()
        return x * 2


class BreakInLoop(nn.Module):
    """TorchDynamo gives up such a function as a whole: it compiles nothing, and counts no break."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = torch.sin(x)
            if x.sum().item() > 1e9:
                x = x / 2
        return x


@needs_compiler
@pytest.mark.skipif(torch.__version__ < (2, 9), reason="torch 2.6 does not count them")
def test_a_function_that_was_skipped_is_recorded_with_the_reason(images):
    with opened(BreakInLoop(), images, "compile") as session:
        details = session.opening.details
    assert (details["graphs"], details["graph_breaks"], details["skipped_frames"]) == (0, 0, 1)
    assert details["skip_reasons"][0]


@needs_compiler
def test_graph_breaks_are_recorded_and_refused_by_fullgraph(images):
    with opened(Broken(), images, "compile") as session:
        details = session.opening.details
    assert (details["graphs"], details["graph_breaks"]) == (2, 1)
    assert details["graph_break_reasons"]
    assert not details["still_compiling"]
    assert details["recompile_reasons"] == []
    with pytest.raises(PreparationError, match="torch.compile failed") as caught:
        opened(Broken(), images, "compile:fullgraph=true").__enter__()
    assert caught.value.__cause__ is not None


@needs_compiler
def test_a_compiled_half_model_is_cast_once(cnn, images):
    spec = "compile:dtype=bfloat16,memory_format=channels_last"
    with opened(cnn, images, spec) as session:
        assert session.output[""].dtype == torch.bfloat16


def test_without_a_compiler_the_row_says_what_to_install(cnn, images, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendUnavailableError, match="no-such-compiler' was not found.; install"):
        opened(cnn, images, "compile").__enter__()


@needs_compiler
def test_a_cache_folder_that_cannot_be_made_is_named(cnn, images, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file/cache"))
    message = "free space in '.*file/cache', or set TORCHINDUCTOR_CACHE_DIR"
    with pytest.raises(PreparationError, match=message):
        opened(cnn, images, "compile").__enter__()


@pytest.mark.parametrize(
    ("output", "message", "remedy"),
    [
        (
            "a.cpp:1:2: error: 'x' was not declared",
            "C\\+\\+ compiler stopped .*'x' was not",
            "set CXX",
        ),
        (
            "utils_cuda.h:11:10: fatal error: cuda.h: No such file or directory\nstopped",
            "headers of CUDA.*cuda.h: No such file or directory\\)",
            "set CUDA_HOME",
        ),
    ],
)
def test_an_error_of_the_cpp_compiler_is_in_the_reason(output, message, remedy):
    from torch._inductor.exc import CppCompileError

    found = build_error(CppCompileError(["g++", "a.cpp"], output), "torch.compile")
    assert re.search(message, str(found))
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("compile:dtype=float16,precision=tf32", "precision=tf32 requires dtype=float32"),
        ("compile:mode=reduce-overhead,cuda_graph=true", "already uses CUDA graphs"),
        ("compile:mode=fast", "mode cannot be 'fast'; use 'default' or 'reduce-overhead'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(spec, message):
    with pytest.raises(SpecError, match=message):
        make(spec)


def test_a_cuda_graph_needs_a_gpu(cnn, images):
    with pytest.raises(PreparationError, match="requires a CUDA GPU.*; leave cuda_graph out"):
        opened(cnn, images, "eager:cuda_graph=true").__enter__()
