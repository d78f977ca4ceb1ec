"""Causes of dtypes and settings: where they are found, and look-alikes in which they are not."""

from __future__ import annotations

import attrs
import pytest
import torch
from torch import nn

from made_up_results import CAST, CLEAN, HALF_CONV, comparison, conv, evidence, findings, layer
from made_up_results import other as pointwise
from precisionbench.backends import Inputs
from precisionbench.backends.eager import Eager
from precisionbench.diagnosis.causes.torch_settings import CAUSE as SETTINGS
from precisionbench.errors import PreparationError
from precisionbench.results import ComparisonData
from precisionbench.results.evidence import Kernel, Layer, Operation, Tensor
from precisionbench.system.default_threads import default_threads
from precisionbench.torchtools.global_state import flags_restored, read_flags, set_flags
from precisionbench.workflows.default_settings import DEFAULTS, DefaultSettings
from precisionbench.workflows.model_edits import cast_constants

HALF_LAYER = layer(dtype="float16")


def operation(name: str, *inputs: Tensor, at: str = "conv", time_s: float = 0.1e-3, parents=()):
    return Operation(name, at, inputs, 1.0, time_s, (Kernel(CAST, 1.0, time_s),), parents)


def half_row(*operations: Operation, layers: tuple[Layer, ...] = (HALF_LAYER,)) -> ComparisonData:
    seen = evidence(conv(0.2e-3, "float16", HALF_CONV), *operations, layers=layers)
    return comparison(CLEAN["base"], seen)


# casts of weights

CODES = Tensor((1024, 1024), "int8")
HALF = Tensor((1024, 1024), "float16")


def holding(*buffers: Tensor) -> tuple[Layer, ...]:
    return (attrs.evolve(HALF_LAYER, buffers=buffers),)


def cast(source: Tensor, result: str = "float16") -> Operation:
    return operation("aten::copy_", Tensor(source.shape, result), source)


@pytest.mark.parametrize(
    ("buffer", "casting"),
    [
        (CODES, cast(CODES)),
        # two codes in a byte, which are unpacked before they are cast
        (Tensor((512, 1024), "uint8"), cast(Tensor((1024, 1024), "uint8"))),
        # a transposed view
        (Tensor((512, 1024), "float32"), cast(Tensor((1024, 512), "float32"))),
        # a product with a scale, which casts without an operation of its own
        (CODES, operation("aten::mul", CODES, Tensor((1024, 1), "float16"))),
    ],
    ids=["codes", "packed", "transposed", "scaled"],
)
def test_weights_in_buffers_are_cast_in_every_call(buffer, casting):
    (found,) = findings(half_row(casting, layers=holding(buffer)), "recast-weights")
    assert found.evidence[-1].value == pytest.approx(0.1 / 0.35, rel=0.01)


def test_casting_codes_once_is_no_experiment_that_half_could_make():
    (found,) = findings(half_row(cast(CODES), layers=holding(CODES)), "recast-weights")
    assert found.proposed == ""
    assert "stored as integers" in found.reason
    (floats,) = findings(
        half_row(cast(Tensor((64, 64), "float32")), layers=holding(Tensor((64, 64), "float32"))),
        "recast-weights",
    )
    assert floats.proposed == "cast-once"


@pytest.mark.parametrize(
    ("buffer", "other"),
    [
        # position ids are looked up, not cast
        (
            Tensor((1, 4096), "int64"),
            operation("aten::embedding", HALF, Tensor((1, 4096), "int64")),
        ),
        # int8 activations of another size
        (CODES, cast(Tensor((32, 1024), "int8"))),
        # codes that stay integers
        (CODES, cast(CODES, "int32")),
        # a cast of 1 % of the call
        (CODES, attrs.evolve(cast(CODES), time_s=4e-6, kernels=(Kernel(CAST, 1.0, 4e-6),))),
    ],
    ids=["positions", "activations", "integers", "short"],
)
def test_other_uses_of_integers_are_no_casts_of_weights(buffer, other):
    assert findings(half_row(other, layers=holding(buffer)), "recast-weights") == []


# wider dtypes


def test_float64_in_a_float32_row_is_found_with_its_share():
    seen = evidence(conv(0.5e-3), pointwise("aten::mul", CAST, 0.5e-3, ("float32", "float64")))
    (found,) = findings(comparison(seen, CLEAN["half"]), "wider-dtype")
    assert found.row == "eager"
    assert found.evidence[0].name == "time in float64 operations"
    assert found.evidence[0].value == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize(
    ("default", "remedy"),
    [
        ("float64", "remove torch.set_default_dtype(torch.float64)"),
        ("float32", "create constants in the dtype"),
    ],
)
def test_a_default_dtype_that_forward_has_set_is_named(default, remedy):
    seen = evidence(conv(0.5e-3), pointwise("aten::add", CAST, 0.5e-3, ("float32", "float64")))
    row = {"flags": {"default_dtype": default}}
    (found,) = findings(comparison(seen, CLEAN["half"], base_row=row), "wider-dtype")
    assert found.remedy.startswith(remedy)


X, WIDE = Tensor((32, 64), "float16"), Tensor((32, 64), "float32")
TO = ("aten::_to_copy", "aten::to")
MATH = "aten::_scaled_dot_product_attention_math"


@pytest.mark.parametrize(
    "operations",
    [
        # an RMS norm that computes in float32 on purpose
        (
            operation("aten::copy_", WIDE, X),
            operation("aten::mul", WIDE, WIDE),
            operation("aten::copy_", X, WIDE),
        ),
        # a number, or a tensor without dimensions, does not promote
        (operation("aten::mul", X, Tensor((), "float64")),),
        (operation("aten::mul", X, Tensor((), "float32")),),
        # the sum in `mean` on a CPU
        (operation("aten::sum", X, Tensor((32, 1), "float32")),),
        # normalisation with float32 weights gives 16 bits
        (operation("aten::native_layer_norm", X, Tensor((64,), "float32")),),
        # sums on a CPU into a float32 result, which `aten::mean` chose
        (
            operation("aten::copy_", WIDE, X, parents=(*TO, "aten::sum", "aten::mean")),
            operation("aten::sum", X, Tensor((32, 1), "float32"), parents=("aten::mean",)),
        ),
        # the math kernel of attention computes in float32
        (
            operation("aten::copy_", WIDE, X, parents=(*TO, MATH)),
            operation("aten::add", WIDE, X, parents=(MATH,)),
        ),
        # additions to a float32 tensor
        (operation("aten::add_", WIDE, X),),
    ],
    ids=[
        "rms-norm",
        "python-number",
        "scalar-tensor",
        "sum",
        "norm",
        "mean",
        "attention",
        "in-place",
    ],
)
def test_float32_on_purpose_is_no_promotion(operations):
    assert findings(half_row(*operations), "wider-dtype") == []


def test_a_cast_of_the_promoting_operation_itself_is_part_of_its_cost():
    cast = operation("aten::copy_", WIDE, X, parents=(*TO, "aten::mul"))
    (found,) = findings(half_row(cast, operation("aten::mul", X, WIDE)), "wider-dtype")
    assert found.evidence[1].value == 2


def test_float64_in_a_half_row_is_found():
    mixed = operation("aten::mul", X, Tensor((64,), "float64"))
    (found,) = findings(half_row(mixed), "wider-dtype")
    assert found.evidence[0].name == "time in float64 operations"


def test_a_narrower_dtype_saves_half_of_an_operation_and_all_of_a_cast():
    seen = evidence(conv(0.5e-3), pointwise("aten::mul", CAST, 0.5e-3, ("float32", "float64")))
    (found,) = findings(comparison(seen, CLEAN["half"]), "wider-dtype")
    assert found.factor.value == pytest.approx(1 / 0.75, rel=0.03)


def test_a_cast_in_the_models_own_code_is_to_be_removed():
    x, wide = Tensor((32, 64), "float32"), Tensor((32, 64), "float64")
    operations = (operation("aten::copy_", wide, x, parents=TO), operation("aten::mul", wide, wide))
    (found,) = findings(comparison(evidence(*operations), CLEAN["half"]), "wider-dtype")
    assert "a cast to float64" in found.reason
    assert found.remedy.startswith("remove the cast to float64")
    assert not found.proposed


def test_the_call_of_a_scripted_model_promotes_nothing():
    forward = operation("forward", X, WIDE)
    assert findings(half_row(forward, layers=()), "wider-dtype") == []


def test_autocast_of_a_scripted_model_promotes_by_design():
    scripted = operation("aten::_autocast_to_reduced_precision", X, WIDE)
    mixed = operation("aten::add", X, WIDE)
    assert findings(half_row(scripted, mixed, layers=()), "wider-dtype") == []


def test_autocast_promotes_by_design():
    mixed = operation("aten::add", X, WIDE)
    assert findings(half_row(mixed, layers=(layer(),)), "wider-dtype") == []
    assert findings(half_row(mixed), "wider-dtype")


def test_tensors_that_are_attributes_become_buffers_that_rows_cast():
    model = nn.Module()
    model.window = torch.ones(4, dtype=torch.float64)
    edited, _ = cast_constants(model, Inputs((torch.ones(4),)))
    assert {name: one.dtype for name, one in edited.named_buffers()} == {"window": torch.float32}
    with pytest.raises(PreparationError, match="no module has a floating-point tensor"):
        cast_constants(nn.Linear(2, 2), Inputs((torch.ones(2),)))


# settings of torch


def with_flags(flags: dict, *operations: Operation, on_gpu: bool = True, threads=None):
    seen = evidence(*operations) if operations else CLEAN["base"]
    data = comparison(seen, CLEAN["half"], base_row={"flags": flags})
    environment = attrs.evolve(data.environment, default_threads=threads)
    if not on_gpu:
        environment = attrs.evolve(environment, gpu=None)
    return attrs.evolve(data, environment=environment)


LARGE = Tensor((512, 1024), "float32")
FUSED_OFF = {f"cuda.{kind}_sdp": False for kind in ("flash", "mem_efficient", "cudnn")}
MATH = operation(
    "aten::bmm", LARGE, LARGE, time_s=1e-3, parents=("aten::_scaled_dot_product_attention_math",)
)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (with_flags({"cudnn.deterministic": True}), "cudnn.deterministic = True"),
        (with_flags({"cudnn.enabled": False, "cudnn.deterministic": True}), "cudnn.enabled"),
        (
            with_flags(
                {"deterministic_algorithms": "warn"},
                operation("aten::index_put_", LARGE, time_s=1e-3, parents=("aten::index_add_",)),
            ),
            "use_deterministic_algorithms",
        ),
        (with_flags(FUSED_OFF, MATH), "all fused attention backends off"),
        (
            with_flags(
                {"cuda.preferred_linalg_library": "magma"},
                operation("aten::linalg_eigh", LARGE, time_s=1e-3),
            ),
            "preferred_linalg_library('magma')",
        ),
        (with_flags({"mkldnn.enabled": False}, on_gpu=False), "mkldnn.enabled = False"),
        (with_flags({"num_threads": 1}, on_gpu=False, threads=8), "set_num_threads(1), 8 by"),
    ],
    ids=["deterministic", "cudnn", "index-add", "attention", "linalg", "mkldnn", "threads"],
)
def test_a_setting_that_affects_what_ran_is_named(data, text):
    (found,) = findings(data, SETTINGS.name)
    assert found.row == "eager"
    assert text in found.reason
    assert found.proposed == "default-settings"
    assert 0.9 < found.evidence[0].value <= 1


MATMUL = operation("aten::mm", LARGE, Tensor((1024, 512), "float32"), time_s=1e-3)


@pytest.mark.parametrize(
    "data",
    [
        with_flags(read_flags()),
        # what ran has only one algorithm
        with_flags({"cudnn.deterministic": True, "deterministic_algorithms": "on"}, MATMUL),
        # one fused kernel was left, and ran
        with_flags({"cuda.flash_sdp": False}, MATH),
        # settings of the other device
        with_flags({"mkldnn.enabled": False, "num_threads": 1}, threads=8),
        with_flags({"cudnn.enabled": False}, on_gpu=False),
        # as many threads as by default, or a file that does not name it
        with_flags({"num_threads": 1}, on_gpu=False, threads=1),
        with_flags({"num_threads": 1}, on_gpu=False),
        # too few elements for a second thread
        with_flags(
            {"num_threads": 1},
            operation("aten::mul", Tensor((64, 64), "float32"), time_s=1e-3),
            on_gpu=False,
            threads=8,
        ),
    ],
    ids=["defaults", "matmul", "flash-off", "cpu", "gpu", "all-threads", "unknown", "small"],
)
def test_a_setting_that_changes_no_kernel_is_no_finding(data):
    assert findings(data, SETTINGS.name) == []


def test_more_threads_save_at_most_their_number():
    (found,) = findings(
        with_flags({"num_threads": 4}, MATMUL, on_gpu=False, threads=8), SETTINGS.name
    )
    assert found.factor.high == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize(("inner", "is_found"), [(65536, True), (512, False)])
def test_sums_in_full_precision_matter_where_a_matmul_is_split(inner, is_found):
    flags = {"cuda.matmul.allow_fp16_reduced_precision_reduction": False}
    x, weight = Tensor((256, inner), "float16"), Tensor((inner, 256), "float16")
    seen = evidence(operation("aten::mm", x, weight), layers=(HALF_LAYER,))
    data = comparison(CLEAN["base"], seen, half_row={"flags": flags})
    assert bool(findings(data, SETTINGS.name)) == is_found


def test_the_experiment_runs_a_row_with_default_settings_and_restores_them():
    model, inputs = nn.Linear(2, 2), Inputs((torch.ones(1, 2),))
    with flags_restored():
        set_flags({"mkldnn.enabled": False, "deterministic_algorithms": "warn"})
        changed = DefaultSettings("eager", "default-settings", backend=Eager())
        with changed.prepare(model, inputs):
            flags = read_flags()
            assert {name: flags[name] for name in DEFAULTS if name in flags} == {
                name: value for name, value in DEFAULTS.items() if name in flags
            }
        after = read_flags()
        assert after["mkldnn.enabled"] is False
        assert after["deterministic_algorithms"] == "warn"


def test_default_threads_are_those_of_the_variable_or_of_the_control_group(tmp_path):
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("100000 100000\n")
    assert default_threads({"OMP_NUM_THREADS": "3"}, tmp_path) == 3
    assert default_threads({}, tmp_path) == 1
    (group / "cpu.max").write_text("max 100000\n")
    assert default_threads({}, tmp_path) >= 1
