"""The plugin for AOTInductor: what it refuses anywhere, and real packages on a CPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import torch
from torch import nn

import precisionbench as pb
from engine_rows import Row, engine_label, gpu_label, prepared
from odd_model import odd_model
from precisionbench.backends.aot_inductor import AotInductor
from precisionbench.backends.aot_inductor_build import exported, layers_of
from precisionbench.backends.aot_inductor_package import check_place, keep, key_of
from precisionbench.backends.base import options_of
from precisionbench.backends.flat_model import flattened
from precisionbench.backends.rungs import Capabilities
from precisionbench.errors import (
    BackendUnavailableError,
    OutputError,
    PrecisionBenchWarning,
    PreparationError,
    SpecError,
)
from precisionbench.results.claims import Claims
from precisionbench.results.evidence import Operation, Tensor
from precisionbench.torchtools.global_state import Functions
from precisionbench.torchtools.tensors import Inputs, walk
from small_transformer import small_transformer

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="AOTInductor needs a C++ compiler"
)


@attrs.frozen
class Mislabelled(AotInductor):
    """Claims float16 and runs the float32 model."""

    name: ClassVar[str] = "mislabelled"

    def claims(self):
        return Claims("float16", engine="AOTInductor")


@attrs.frozen
class Built:
    """A package of the odd model that was measured and kept, and what the build changed."""

    row: Row
    file: Path
    functions: list[str]
    environment: dict[str, str]
    folder: list[Path]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """One real build for several tests, because the C++ compiler takes seconds."""
    work, file = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("kept") / "odd.pt2"
    model, args = odd_model()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        functions, environment = Functions.now(), dict(os.environ)
        row = prepared(AotInductor(package_path=file), model, *args)
        changed = dict(set(os.environ.items()) ^ set(environment.items()))
        yield Built(row, file, functions.changes(), changed, list(work.iterdir()))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"package_path": "model.zip"}, r"ends with .pt2"),
        ({"precision": "int8"}, "precision cannot be 'int8'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, reason):
    with pytest.raises(SpecError, match=reason):
        AotInductor(**options)


def test_without_a_compiler_it_says_how_to_get_one(monkeypatch, cnn, images):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendUnavailableError, match=r"'no-such-compiler' .* apt install g\+\+"):
        AotInductor().check_available()
    with pytest.raises(BackendUnavailableError, match=r"'no-such-compiler' .* apt install g\+\+"):
        prepared(AotInductor(), cnn.eval(), images)


def test_tf32_needs_inputs_on_a_gpu(cnn, images):
    with pytest.raises(BackendUnavailableError, match="a CUDA device"):
        prepared(AotInductor("tf32"), cnn.eval(), images)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", "float32"), ("tf32", "tf32"), ("fp16", "float16"), ("bf16", "bfloat16")],
)
def test_a_row_claims_its_precision(precision, dtype):
    assert AotInductor(precision).claims().dtype == dtype


def test_the_ladder_measures_16_bits_frozen_on_a_cpu_and_on_a_gpu():
    def options(device: str, **more: Any) -> list[dict[str, Any]]:
        rungs = AotInductor.ladder_rungs(Capabilities(device, **more))
        return [dict(rung.options) for rung in rungs]

    assert options("cpu") == [{"precision": "bf16", "freezing": True}]
    assert options("cuda", has_images=True) == [
        {"precision": "fp16", "memory_format": "channels_last", "freezing": True}
    ]
    assert options("mps") == []


class Branches(nn.Module):
    """Its code depends on values."""

    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


@needs_compiler
@pytest.mark.slow
def test_a_module_that_cannot_be_exported_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Branches())).eval()
    with pytest.raises(
        PreparationError, match=r"model, in 1.0 \(Branches\) .*; .*the backend comp"
    ):
        prepared(AotInductor(), model, torch.rand(2, 4))


class TwoTypes(nn.Module):
    """A convolution in float16, and one layer that casts to float32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3).half(), nn.Linear(8, 4)

    def forward(self, x):
        found = self.conv(x)
        return self.head(found.mean((2, 3)).float()), x[x > 0] * 2


def test_layers_are_read_from_the_graph_with_their_modules_and_dtypes():
    program = torch.export.export(TwoTypes(), (torch.rand(2, 3, 8, 8).half(),), strict=False)
    found = list(layers_of(program.run_decompositions({}).graph))
    assert [(layer.kind, layer.name, layer.dtype) for layer in found] == [
        ("conv2d", "conv", "float16"),
        ("linear", "head", "float32"),
    ]
    assert found[0].inputs[1] == Tensor((8, 3, 3, 3), "float16")
    assert found[1].outputs == (Tensor((2, 4), "float32"),)


def test_attention_is_among_the_layers():
    model, args, kwargs = small_transformer()
    program = torch.export.export(model, args, kwargs, strict=False)
    names = [layer.name for layer in layers_of(program.run_decompositions({}).graph)]
    assert names == ["projections", "", "mixed", "head"]


@pytest.mark.slow  # the C++ compiler
@needs_compiler
def test_arguments_and_results_of_any_structure(built):
    model, args = odd_model()
    assert type(built.row.output) is tuple
    assert list(built.row.output[2]) == ["again", "positive", "largest"]
    for (_, got), (_, want) in zip(walk(built.row.output), walk(model(*args)), strict=True):
        assert got.dtype == want.dtype
        assert torch.allclose(got, want, atol=1e-6)


@pytest.mark.slow  # the C++ compiler
@needs_compiler
def test_the_label_is_verified_by_the_program_that_was_compiled(built):
    (layer,) = built.row.prepared.engine_operations
    assert (layer.name, layer.layer) == ("aot-inductor::addmm", "linear")
    assert built.row.details["layer_precision"] == {"float32": 1}
    label = engine_label(AotInductor(), built.row)
    assert (label.verdict, label.ran) == ("true", "in float32")


@pytest.mark.slow  # the C++ compiler
@needs_compiler
def test_a_package_that_claims_float16_and_runs_float32_is_a_false_label(built):
    label = engine_label(Mislabelled(), built.row)
    assert (label.verdict, label.ran) == ("false", "in float32")
    (layer,) = built.row.prepared.engine_operations
    assert gpu_label(Mislabelled(), (layer,), {})[1].verdict == "false"


def linear(dtype: str) -> Operation:
    tensors = tuple(Tensor(shape, dtype) for shape in ((8,), (4, 8), (8, 8)))
    return Operation("aot-inductor::addmm", f"in_{dtype}", tensors, 1.0, 0.0)


def test_one_layer_of_many_in_another_precision_makes_the_label_partly_true():
    layers = (*[linear("float16")] * 3, linear("float32"))
    assert gpu_label(AotInductor("fp16"), layers, {})[1].verdict == "partly"


@pytest.mark.slow  # the C++ compiler
@needs_compiler
def test_the_package_that_was_measured_can_be_deployed(built):
    model, args = odd_model()
    tensors = [tensor for _, tensor in walk(args)]
    found = torch._inductor.aoti_load_package(str(built.file))(*tensors)
    assert torch.allclose(found[1], model(*args)[1], atol=1e-6)
    assert built.row.details["package_bytes"] == built.file.stat().st_size


@pytest.mark.slow  # the C++ compiler
@needs_compiler
def test_nothing_is_left_behind(built):
    assert built.functions == []
    assert built.environment == {}
    assert built.folder == []
    assert torch._inductor.config.aot_inductor.output_path == ""


@pytest.mark.slow  # the C++ compiler
@needs_compiler
@pytest.mark.parametrize("other", ["options", "weights", "no package"])
def test_a_file_that_is_there_is_never_replaced(built, tmp_path, other):
    """It is refused before anything is compiled."""
    model, args = odd_model()
    backend = AotInductor(package_path=built.file)
    if other == "options":
        backend = attrs.evolve(backend, freezing=True)
    elif other == "weights":
        nn.init.zeros_(model.linear.bias)
    else:
        backend = attrs.evolve(backend, package_path=tmp_path / "mine.pt2")
        (tmp_path / "mine.pt2").write_text("mine")
    before = Path(backend.package_path).read_bytes()
    with pytest.raises(PreparationError, match="exists, and was not built of this model"):
        prepared(backend, model, *args)
    assert Path(backend.package_path).read_bytes() == before


@needs_compiler
def test_a_folder_that_is_missing_is_named_before_anything_is_compiled(tmp_path):
    model, args = odd_model()
    with pytest.raises(OutputError, match="there is no folder '.*missing'; create it"):
        prepared(AotInductor(package_path=tmp_path / "missing" / "odd.pt2"), model, *args)


@pytest.mark.slow  # the C++ compiler
@needs_compiler
def test_another_replica_measures_the_package_that_the_first_one_kept(built, tmp_path):
    model, args = odd_model()
    flat = flattened(model, Inputs(args))
    options = {name: v for name, v in options_of(AotInductor()).items() if name != "package_path"}
    key = key_of(exported(flat), flat, options)
    other, before = tmp_path / "other.pt2", built.file.read_bytes()
    other.write_bytes(b"built once more")
    check_place(built.file, key)
    assert keep(other, built.file, key) == built.file
    assert built.file.read_bytes() == before


class NoWork(nn.Module):
    """Nothing to freeze, and no operation with several kernels."""

    def forward(self, x):
        return x.sin()


@needs_compiler
@pytest.mark.slow  # the C++ compiler
def test_options_that_changed_nothing_are_warned_of():
    backend = AotInductor(freezing=True, max_autotune=True)
    with (
        pytest.warns(PrecisionBenchWarning, match="freezing=true changed none of the weights"),
        pytest.warns(PrecisionBenchWarning, match="max_autotune=true chose no kernel"),
    ):
        found = prepared(backend, NoWork(), torch.rand(64))
    assert engine_label(backend, found).verdict == "unknown"


@needs_compiler
@pytest.mark.slow  # the C++ compiler
def test_rows_in_workers_beside_eager(cnn, images):
    backend = AotInductor("bf16", memory_format="channels_last", freezing=True)
    comparison = pb.compare(cnn, images, backends=[backend], device="cpu", budget_s=1, replicas=1)
    assert comparison.failures == ()
    row = comparison.results[1]
    assert row.agreement.relative_l2 < 3e-2
    assert row.details["changed_weights"] > 0  # the batch norm is folded
    assert row.details["layer_precision"] == {"bfloat16": 2}
    assert pb.diagnose(comparison).labels[1].verdict == "true"
