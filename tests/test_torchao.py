"""The plugin for torchao: what it refuses anywhere, and real quantised layers on a CPU."""

from __future__ import annotations

import copy
import itertools
import logging
import sys
from contextlib import contextmanager
from typing import ClassVar

import attrs
import pytest
import torch
from torch import nn

import precisionbench as pb
from engine_rows import Prepares, profiled_label
from made_up_results import CLEAN, comparison
from precisionbench.backends import Prepared
from precisionbench.backends.rungs import Capabilities
from precisionbench.backends.stored_weights import stored_dtype
from precisionbench.backends.torchao import TorchAo
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.findings import Label
from precisionbench.diagnosis.remedies import in_float32
from precisionbench.errors import (
    BackendUnavailableError,
    PrecisionBenchWarning,
    SpecError,
)
from precisionbench.results.claims import Claims
from small_transformer import small_transformer

real = pytest.mark.torchao
WIDE = 768  # the width of a transformer whose linear layers take most of its time


@torch.no_grad()
def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def resnet() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A ResNet-18 with random weights, its input and its output in float32."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model, x = torchvision.models.resnet18(weights=None).eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        return model, x, model(x)


def perceptron(*sizes: int) -> nn.Sequential:
    torch.manual_seed(0)
    pairs = itertools.pairwise(sizes)
    return nn.Sequential(*(nn.Linear(*pair) for pair in pairs)).eval()


def label_of_weights(shares: dict[str, float] | None, names: list[str] | None = None) -> Label:
    """The label of a row that claims int8 weights, and that was not profiled."""
    details = {} if shares is None else {"weight_shares": shares, "float_layer_names": names or []}
    claims = Claims("bfloat16", weights="int8")
    row = {"claims": claims, "details": details}
    return diagnosis_of(comparison(CLEAN["base"], None, half_row=row, gpu=None)).labels[1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mode": "max-autotune"}, "compile=true"),
        ({"group_size": 32}, "no groups"),
        ({"precision": "int4-weight-only", "group_size": 48}, "group_size"),
        ({"precision": "int8"}, "precision"),
        ({"compile": True, "mode": "reduce-overhead", "cuda_graph": True}, "CUDA graphs"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, reason):
    with pytest.raises(SpecError, match=reason):
        TorchAo(**options)


def test_without_torchao_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'precisionbench\[torchao"):
        TorchAo().check_available()


@pytest.mark.parametrize(
    ("precision", "dtype", "weights", "name"),
    [
        ("int8-dynamic", "int8", "int8", "int8"),
        ("float8", "float8", "float8", "float8"),
        ("int8-weight-only", "bfloat16", "int8", "bfloat16, int8 weights"),
        ("int4-weight-only", "bfloat16", "int4", "bfloat16, int4 weights"),
    ],
)
def test_a_row_claims_what_its_products_and_its_weights_are_in(precision, dtype, weights, name):
    claims = TorchAo(precision).claims()
    assert (claims.dtype, claims.weights, claims.precision_name) == (dtype, weights, name)


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ({"int8": 1.0}, "unknown"),  # of the products: it was not profiled
        ({"int8": 0.8, "bfloat16": 0.2}, "partly"),
        ({"int8": 0.2, "bfloat16": 0.8}, "false"),
        ({"bfloat16": 1.0}, "false"),
        ({}, "false"),
        (None, "false"),
    ],
)
def test_the_label_of_quantised_weights_is_checked_by_the_weights_themselves(shares, verdict):
    assert label_of_weights(shares).verdict == verdict


def test_the_label_names_what_stayed_in_floating_point():
    sentence = label_of_weights({"int8": 0.8, "bfloat16": 0.2}, ["head"]).sentence
    assert "int8 weights but ran partly with 20% in bfloat16" in sentence
    assert "the first: head" in sentence


@pytest.mark.skipif(torch.cuda.is_available(), reason="says why there is none without a GPU")
@real
def test_float8_without_a_gpu_for_it_says_why_and_what_else():
    with pytest.raises(BackendUnavailableError, match="8.9") as refused:
        TorchAo("float8").check_available()
    assert "int8-dynamic" in str(refused.value)
    with (
        pytest.raises(BackendUnavailableError, match="the CPU"),
        Prepares(TorchAo("float8"), perceptron(32, 32), torch.rand(4, 32)),
    ):
        pass


@real
def test_float8_on_a_gpu_without_it_says_which_gpu_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: (8, 0))
    with pytest.raises(BackendUnavailableError, match=r"8\.9 or newer.*capability 8\.0\).*int8"):
        TorchAo("float8").check_available()


@real
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({}, 0.03),
        ({"dtype": "float32"}, 0.03),
        ({"precision": "int8-weight-only"}, 0.03),
    ],
)
def test_a_transformer_with_keyword_arguments_and_a_mapping(options, tolerance):
    model, args, kwargs = small_transformer(width=WIDE)
    expected = model(*args, **kwargs)["logits"]
    backend = TorchAo(**options)
    with Prepares(backend, model, *args, **kwargs) as found:
        assert 0 < relative_error(found.call()["logits"], expected) < tolerance
        assert found.prepared.details["weight_shares"] == {"int8": 1.0}
        assert found.prepared.details["float_layers"] == 0
        label = profiled_label(found)
    assert not label.engine  # all weights are in INT8
    assert label.verdict == "true"
    if backend.precision != "int8-weight-only":
        assert f"is left in {backend.dtype}, as claimed" in label.witnesses[-1].says


@real
def test_int4_weights_of_a_transformer_whose_head_the_kernels_refuse():
    model, args, kwargs = small_transformer(width=WIDE)
    expected = model(*args, **kwargs)["logits"]
    warned = pytest.warns(
        PrecisionBenchWarning, match=r"1 layer .* \(head\); head was refused: .*16"
    )
    with warned, Prepares(TorchAo("int4-weight-only"), model, *args, **kwargs) as found:
        assert 0 < relative_error(found.call()["logits"], expected) < 0.2
        details, label = found.prepared.details, profiled_label(found)
    assert (details["quantised_layers"], details["float_layer_names"]) == (2, ["head"])
    assert details["weight_shares"]["int4"] > 0.95
    assert label.verdict == "true"  # the head has less than 5 % of the weights


@real
@pytest.mark.parametrize("precision", ["int8-dynamic", "int8-weight-only", "int4-weight-only"])
def test_a_resnet_is_no_quantised_row_because_its_convolutions_stay_in_float(precision, resnet):
    model, x, expected = resnet
    warned = pytest.warns(
        PrecisionBenchWarning, match=r"2[01] layers with .* of the weights \(conv1, "
    )
    with warned, Prepares(TorchAo(precision), copy.deepcopy(model), x) as found:
        assert 0 < relative_error(found.call(), expected) < 0.1
        label = profiled_label(found)
    assert label.verdict == "false"
    assert "in bfloat16 (the first: conv1)" in label.sentence


@pytest.mark.parametrize(("device", "compiled"), [("cuda", False), ("cpu", None)])
def test_tune_compiles_int8_weights_only_where_the_compiled_kernel_is_fast(device, compiled):
    """On a GPU torch.compile calls a kernel without tensor cores."""
    offered = TorchAo.tuning_options(Capabilities(device, (9, 0)))
    (weight_only,) = [one for one in offered.then if one["precision"] == "int8-weight-only"]
    assert weight_only.get("compile") is compiled
    assert all(options["compile"] for options in offered.first)


@real
@pytest.mark.parametrize("precision", ["int8-dynamic", "int8-weight-only", "int4-weight-only"])
def test_products_of_linear_layers_run_as_the_label_says(precision):
    with Prepares(TorchAo(precision), perceptron(256, 512, 128), torch.rand(64, 256)) as found:
        label = profiled_label(found)
    assert (label.verdict, label.claim) == (
        "true",
        "int8" if precision == "int8-dynamic" else "bfloat16",
    )


@real
def test_a_model_of_convolutions_is_no_int8_row(cnn, images):
    model = nn.Sequential(*[part for part in cnn.modules() if isinstance(part, nn.Conv2d)][:1])
    with (
        pytest.warns(PrecisionBenchWarning, match="100% of the weights.*this row is not int8"),
        Prepares(TorchAo(), model, images) as found,
    ):
        label = profiled_label(found)
    assert (label.verdict, label.claim) == ("false", "int8")
    assert "with 100% in bfloat16" in label.ran


@real
def test_layers_that_a_kernel_refuses_stay_in_floating_point_and_are_named():
    backend = TorchAo("int4-weight-only", group_size=64)
    with (
        pytest.warns(PrecisionBenchWarning, match=r"did not quantise 1 layer .*\(1\)$"),
        Prepares(backend, perceptron(128, 96, 32), torch.rand(8, 128)) as found,
    ):
        details, label = found.prepared.details, profiled_label(found)
    assert details["float_layer_names"] == ["1"]
    assert details["weight_shares"] == {"int4": pytest.approx(0.8), "bfloat16": pytest.approx(0.2)}
    assert (label.verdict, label.engine) == ("partly", "int4 weights")


@real
def test_a_model_that_is_a_linear_layer_itself():
    x = torch.rand(8, 64)
    linear = perceptron(64, 32)[0]
    expected = linear(x)
    with Prepares(TorchAo(), linear, x) as found:
        assert relative_error(found.call(), expected) < 0.05
        assert found.prepared.details["quantised_layers"] == 1


@real
def test_multi_head_attention_runs_though_it_reads_its_weights_itself():
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
    x = torch.rand(2, 8, 32)
    expected = model(x)
    with (
        pytest.warns(PrecisionBenchWarning, match="self_attn"),
        Prepares(TorchAo(), model, x) as found,
        torch.inference_mode(),
    ):
        assert relative_error(found.call(), expected) < 0.05


@attrs.frozen
class Mislabelled(TorchAo):
    """Claims what its options say, records nothing, and leaves all in floating point."""

    name: ClassVar[str] = "mislabelled"

    @contextmanager
    def prepare(self, model, inputs):
        model = model.to(getattr(torch, self.dtype))
        yield Prepared(inputs.to(torch.bfloat16).bind(model), model)


@attrs.frozen
class Boastful(Mislabelled):
    """Says in its details that everything was quantised, too."""

    name: ClassVar[str] = "boastful"

    @contextmanager
    def prepare(self, model, inputs):
        with Mislabelled.prepare(self, model, inputs) as found:
            shares = {self.claims().weights: 1.0}
            yield attrs.evolve(found, details={"weight_shares": shares})


@pytest.mark.parametrize(
    "backend",
    [
        Mislabelled(),
        Mislabelled("int8-weight-only"),
        Mislabelled("int4-weight-only"),
        Mislabelled("float8"),
        Boastful(),
        Boastful("float8"),
    ],
)
def test_a_row_that_claims_few_bits_and_runs_in_floating_point_is_a_false_label(backend):
    with Prepares(backend, perceptron(256, 512, 128), torch.rand(64, 256)) as found:
        assert profiled_label(found).verdict == "false"


@real
def test_stored_dtypes_are_read_from_the_tensors():
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = perceptron(64, 64)
    assert stored_dtype(model[0].weight) == "float32"
    quantize_(model, Int8WeightOnlyConfig(set_inductor_config=False))
    assert stored_dtype(model[0].weight) == "int8"


@real
def test_settings_of_inductor_and_loggers_stay_as_they_were():
    import torch._inductor.config as inductor

    names = ("coordinate_descent_tuning", "force_fuse_int_mm_with_mul", "epilogue_fusion")
    before = [getattr(inductor, name) for name in names]
    level = logging.getLogger("torchao").level
    with Prepares(TorchAo(), perceptron(64, 64), torch.rand(8, 64)):
        pass
    assert [getattr(inductor, name) for name in names] == before
    assert logging.getLogger("torchao").level == level


@real
def test_a_model_that_torchao_refuses_as_a_whole_is_a_false_label_with_the_reason():
    backend = TorchAo("int4-weight-only", group_size=256)  # the kernels of a CPU have no such group
    with (
        pytest.warns(PrecisionBenchWarning, match="0 was refused: .*256.*; this row is not int4"),
        Prepares(backend, perceptron(256, 64), torch.rand(8, 256)) as found,
    ):
        assert profiled_label(found).verdict == "false"


@real
@pytest.mark.parametrize(
    "precision", ["int8-dynamic", pytest.param("int8-weight-only", marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_compiled_rows_are_quantised_and_compiled(precision):
    model, x = perceptron(256, 512, 128), torch.rand(64, 256)
    expected = model(x)
    with Prepares(TorchAo(precision, compile=True), model, x) as found:
        assert relative_error(found.call(), expected) < 0.05
        assert found.prepared.details["graphs"] == 1
        assert profiled_label(found).verdict == "true"


@real
@pytest.mark.slow
def test_rows_in_workers_beside_eager(capfd):
    comparison = pb.compare(
        perceptron(256, 512, 128),
        torch.rand(64, 256),
        backends=[TorchAo(), Mislabelled(), TorchAo("float8")],
        device="cpu",
        budget_s=2,  # so that there is time for profiles
        replicas=1,
    )
    labels = {label.row: label.verdict for label in pb.diagnose(comparison).labels}
    assert (labels["torchao"], labels["mislabelled"]) == ("true", "false")
    assert comparison["torchao"].agreement.relative_l2 < 0.05
    assert comparison["torchao"].evidence.unknown == {}
    assert [failure.backend for failure in comparison.failures] == ["torchao:precision=float8"]
    assert not any("register_constant" in line for line in comparison["torchao"].log)
    assert "register_constant" not in "".join(capfd.readouterr())


def test_layers_of_a_quantised_row_are_not_kept_in_float32_by_an_option_that_it_lacks():
    row = comparison(CLEAN["base"], None, gpu=None).results[1]
    row = attrs.evolve(row, name="torchao", options={}, claims=TorchAo("int8-weight-only").claims())
    assert "half:dtype=bfloat16,fp32_layers=head" in in_float32(row, ["head"])
