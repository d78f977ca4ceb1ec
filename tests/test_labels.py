"""Whether a row is what its name says: several witnesses, and what each can tell."""

from __future__ import annotations

import attrs
import pytest

from made_up_results import (
    CLEAN,
    FP32_CONV,
    HALF_CONV,
    TF32_CONV,
    comparison,
    conv,
    evidence,
    layer,
)
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.facts import facts_of
from precisionbench.diagnosis.findings import Label
from precisionbench.diagnosis.labels import label_of
from precisionbench.report.markdown import to_markdown
from precisionbench.report.text import to_text
from precisionbench.results import TensorInfo
from precisionbench.results.earlier_claims import claims_of
from precisionbench.results.evidence import Kernel, Operation, Tensor


def label(data, row: str) -> Label:
    return next(one for one in diagnosis_of(data).labels if one.row == row)


def test_rows_that_ran_as_claimed_are_true():
    data = comparison(**CLEAN)
    assert [label(data, row).verdict for row in ("eager", "half")] == ["true", "true"]


def test_a_float32_row_that_ran_in_half_is_false():
    """The founding case: Apex had patched the process."""
    leaked = evidence(conv(0.3e-3, "float16", HALF_CONV), foreign_functions=("torch.conv2d",))
    found = label(comparison(leaked, CLEAN["half"]), "eager")
    assert (found.verdict, found.ran) == ("false", "in float16")
    against = {witness.name for witness in found.witnesses if witness.against}
    assert {"operands", "kernels"} <= against
    assert "functions" in {witness.name for witness in found.witnesses}


def test_a_float32_row_that_ran_in_tf32_is_false():
    found = label(comparison(evidence(conv(kernel=TF32_CONV)), CLEAN["half"]), "eager")
    assert (found.verdict, found.ran) == ("false", "in TF32")


def test_a_half_row_that_computes_in_float32_is_false():
    found = label(comparison(CLEAN["base"], evidence(conv(0.9e-3))), "half")
    assert (found.verdict, found.ran) == ("false", "in float32")


def test_a_row_that_ran_partly_in_another_precision_is_partly_true():
    mixed = evidence(
        conv(0.2e-3, "float16", HALF_CONV), conv(0.1e-3, layer="head"), layers=(layer(),)
    )
    found = label(comparison(CLEAN["base"], mixed), "half")
    assert found.verdict == "partly"
    assert "67% of GEMM/conv time has float16 operands, the rest float32" in found.sentence


def test_a_rate_above_the_peak_is_impossible_whatever_the_kernel_names():
    """At 1x1, so that no fast algorithm can explain it."""
    x, weight = Tensor((4096, 4096), "float32"), Tensor((4096, 4096), "float32")
    product = Operation("aten::mm", "conv", (x, weight), 1.0, 1e-3)
    linear = attrs.evolve(layer(), kind="Linear", flops=2.0 * 4096**3)
    seen = evidence(product, layers=(linear,), flops=2.0 * 4096**3, counted=("aten.mm",))
    found = label(comparison(seen, CLEAN["half"]), "eager")  # 135 of 67 TFLOP/s
    assert found.verdict == "false"
    (rate,) = (witness for witness in found.witnesses if witness.name == "rate")
    assert rate.against
    assert "float32 peak 67 TFLOP/s" in rate.says


@pytest.mark.parametrize(
    ("side", "model", "verdict"),
    [
        (224, "torchvision:resnet50", "false"),
        (64, "torchvision:resnet50", "unknown"),
        (224, "my_models:resnet50", "unknown"),
    ],
)
def test_a_known_model_needs_no_counting_to_be_impossible(side, model, verdict):
    """32 images of 224 x 224 in a millisecond would take an H100 four times its float32 peak."""
    images = TensorInfo("[0]", (32, 3, side, side), "float32")
    data = comparison(evidence(), CLEAN["half"], base_row={"batch_size": 32})
    workload = attrs.evolve(data.workload, model=model, inputs=(images,), batch_size=32)
    found = label(attrs.evolve(data, workload=workload), "eager")
    assert found.verdict == verdict
    assert bool(found.ran) == (verdict == "false")


def test_a_fast_algorithm_for_small_convolutions_is_not_called_impossible():
    flops = layer().flops
    seen = evidence(conv(0.06e-3), flops=flops, counted=("aten.convolution",))
    data = comparison(seen, CLEAN["half"], times_s=(0.07e-3, 0.35e-3))
    rate = facts_of(data, data.results[0]).flop_rate
    assert rate > 67e12  # as one would count it
    assert label(data, "eager").verdict == "true"


def test_no_rate_is_computed_where_flops_are_partly_uncounted():
    seen = evidence(conv(0.5e-3), conv(0.5e-3, layer="other"), flops=1e9, counted=("aten.mm",))
    data = comparison(seen, CLEAN["half"])
    facts = facts_of(data, data.results[0])
    assert facts.counted_share == 0
    assert facts.flop_rate is None


def test_without_evidence_a_label_is_unknown():
    assert label(comparison(), "eager").verdict == "unknown"


def test_a_half_output_of_a_float32_row_is_an_indicator():
    seen = evidence(conv(), outputs=(Tensor((4, 10), "float16"),))
    found = label(comparison(seen, CLEAN["half"]), "eager")
    assert any(w.name == "output" and w.against for w in found.witnesses)


@pytest.mark.parametrize(
    ("name", "options", "claim"),
    [
        ("eager", {"precision": "fp32"}, "float32"),
        ("eager", {"precision": "tf32"}, "tf32"),
        ("half", {"dtype": "bfloat16"}, "bfloat16"),
        ("half", {"dtype": "bfloat16", "fp32_layers": "head"}, ""),
        ("apex-amp", {"opt_level": "O0"}, "float32"),
        ("apex-amp", {"opt_level": "O1"}, "float16"),
        ("torch2trt", {"precision": "int8"}, "int8"),
        ("torch2trt", {"precision": "fp16"}, "float16"),
        ("torch2trt", {}, ""),
        ("autocast", {"dtype": "bfloat16"}, "bfloat16"),
        ("compile", {"dtype": "float16", "precision": "fp32"}, "float16"),
        ("compile", {"dtype": "float32", "precision": "fp32"}, "float32"),
        ("compile", {"dtype": "float32", "precision": "tf32"}, "tf32"),
        ("someones", {"dtype": "bf16"}, "bfloat16"),
        ("someones", {"mode": "fast"}, ""),
    ],
)
def test_claimed_dtype_of_a_row_without_recorded_claims(name, options, claim):
    row = comparison().results[0]
    assert claims_of(attrs.evolve(row, name=name, options=options)).dtype == claim


def test_a_false_label_comes_first_in_the_table():
    leaked = evidence(conv(0.3e-3, "float16", HALF_CONV))
    data = comparison(leaked, CLEAN["half"])
    text = to_text(data)
    assert text.index("False labels") < text.index("backend")
    assert "eager is labelled float32 but ran in float16" in " ".join(text.split())
    assert "False labels:" in to_markdown(data)
    assert "False labels" not in to_text(comparison(**CLEAN))


def test_it_is_a_pure_function_of_the_facts():
    data = comparison(**CLEAN)
    facts = facts_of(data, data.results[0])
    assert label_of(facts) == label_of(facts)


def kernel_only(name: str, time_s: float = 1e-3) -> Operation:
    """What an engine launches by itself: no operation of torch, no operands."""
    return Operation("", "", (), 1.0, time_s, (Kernel(name, 1.0, time_s),))


FLASH = "void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 4, cutlass::half_t>"


def test_kernels_of_others_in_a_half_model_do_not_make_its_label_false():
    seen = evidence(conv(0.3e-3, "float16", HALF_CONV), kernel_only(FLASH), kernel_only("secret"))
    assert label(comparison(CLEAN["base"], seen), "half").verdict == "true"


@pytest.mark.parametrize(
    ("options", "kernel", "verdict"),
    [
        ({"precision": "fp16"}, HALF_CONV, "true"),
        ({"precision": "fp16"}, FP32_CONV, "false"),
        ({"precision": "int8"}, HALF_CONV, "false"),
        (
            {"precision": "int8"},
            "sm80_xmma_fprop_implicit_gemm_i8i8_i8i32_f32_tensor16x8x32",
            "true",
        ),
        ({"precision": "fp16"}, "a secret of theirs", "unknown"),
    ],
)
def test_engines_are_judged_by_their_kernels_names(options, kernel, verdict):
    row = {"name": "torch2trt", "options": options}
    seen = evidence(kernel_only(kernel), layers=())
    assert label(comparison(CLEAN["base"], seen, half_row=row), "half").verdict == verdict


def test_tf32_is_a_permission_that_depthwise_layers_cannot_use():
    seen = evidence(conv(0.3e-3, kernel=TF32_CONV), conv(0.6e-3, layer="dw", groups=64))
    data = comparison(seen, CLEAN["half"], base_row={"options": {"precision": "tf32"}})
    assert label(data, "eager").verdict == "true"


def test_a_rate_slightly_above_the_peak_is_not_impossible():
    x, weight = Tensor((4096, 4096), "float32"), Tensor((4096, 4096), "float32")
    flops = 2.0 * 4096**3
    product = Operation("aten::mm", "conv", (x, weight), 1.0, flops / 70e12)
    seen = evidence(product, flops=flops, counted=("aten.mm",))
    data = comparison(seen, CLEAN["half"], times_s=(flops / 70e12, 1e-3))  # of 67
    assert label(data, "eager").verdict == "true"


def test_no_rate_is_impossible_with_convolutions_of_unknown_flops():
    """One head over several levels of a pyramid: its FLOPs are shared out."""
    total = layer().flops
    two = (conv(0.05e-3), attrs.evolve(conv(0.05e-3), count=2.0))
    seen = evidence(*two, flops=3 * total, counted=("aten.convolution",),
                    layers=(attrs.evolve(layer(), flops=3 * total),))  # fmt: skip
    data = comparison(seen, CLEAN["half"], times_s=(0.11e-3, 1e-3))
    work = facts_of(data, data.results[0]).work
    assert [one.flops for one in work] == pytest.approx([total, 2 * total])
    assert label(data, "eager").verdict == "true"


def test_an_engines_rate_is_that_of_the_models_flops():
    x, weight = Tensor((4096, 4096), "float32"), Tensor((4096, 4096), "float32")
    flops = 2.0 * 4096**3
    product = Operation("aten::mm", "conv", (x, weight), 1.0, 3e-3)
    base = evidence(product, flops=flops, counted=("aten.mm",), layers=())
    row = {"name": "someones", "options": {"precision": "fp32"}}
    data = comparison(base, evidence(layers=()), times_s=(3e-3, 1e-3), half_row=row)
    found = label(data, "half")  # 137 of 67 TFLOP/s
    assert found.verdict == "false"
    assert "TFLOP/s, float32 peak 67 TFLOP/s" in found.sentence


def test_flops_of_a_row_of_another_batch_are_those_of_its_own_items():
    data = comparison(evidence(conv(), flops=64e9), evidence(), half_row={"batch_size": 1})
    data = attrs.evolve(
        data, results=(attrs.evolve(data.results[0], batch_size=32), data.results[1])
    )
    base, other = (facts_of(data, row) for row in data.results)
    assert other.model_flops == pytest.approx(base.min_flops / 32)
