"""Labels of rows on a CPU, where an operation that does the work also calls others."""

from __future__ import annotations

import attrs
import pytest

from made_up_results import comparison, evidence, on_a_cpu
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.facts import facts_of
from precisionbench.diagnosis.findings import Label
from precisionbench.results import ComparisonData
from precisionbench.results.claims import Claims
from precisionbench.results.evidence import Operation, Tensor

SHAPES = {"x": (64, 256), "w": (256, 256), "image": (2, 32, 32, 32), "kernel": (32, 32, 3, 3)}


def tensors(dtype: str, *shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(Tensor(shape, dtype) for shape in shapes)


def compared(*operations: Operation, dtype: str = "", **more) -> ComparisonData:
    """A float32 row, or one that claims another dtype, that ran these operations on a CPU."""
    row = {"claims": Claims(dtype)} if dtype else {}
    seen = evidence(*operations, layers=(), **more)
    return comparison(seen, evidence(), gpu=None, base_row=row)


def label(*operations: Operation, dtype: str = "", **more) -> Label:
    return diagnosis_of(compared(*operations, dtype=dtype, **more)).labels[0]


def linear(dtype: str, time_s: float = 1e-3) -> tuple[Operation, ...]:
    """A layer with bias: `linear` calls `addmm`, which multiplies after it has copied the bias."""
    x, w, bias = tensors(dtype, SHAPES["x"], SHAPES["w"], (256,))
    return (
        on_a_cpu("aten::linear", 0.01 * time_s, x, w, bias),
        on_a_cpu("aten::addmm", 0.8 * time_s, bias, x, w, parents=("aten::linear",)),
        on_a_cpu("aten::copy_", 0.19 * time_s, x, x, parents=("aten::addmm", "aten::linear")),
    )


def called(*names: str, dtype: str, shapes: tuple[tuple[int, ...], ...]) -> tuple[Operation, ...]:
    """Operations of which each calls the one before, with an `empty` in the innermost."""
    operands = tensors(dtype, *shapes)
    chain = [on_a_cpu("aten::empty", 1e-6, parents=names)]
    for depth, name in enumerate(names):
        time_s = 1e-5 if depth else 1e-3
        chain.append(on_a_cpu(name, time_s, *operands, parents=names[depth + 1 :]))
    return tuple(chain)


MATMUL = (SHAPES["x"], SHAPES["w"])
BATCHES = ((4, 64, 64), (4, 64, 64))
IMAGES = (SHAPES["image"], SHAPES["kernel"], (32,))
HEADS = ((2, 4, 64, 32),) * 3
CONVOLVED = ("aten::_convolution", "aten::convolution", "aten::conv2d")
TRANSPOSED = ("aten::_convolution", "aten::convolution", "aten::conv_transpose2d")
SLOW = ("aten::_slow_conv2d_forward", "aten::thnn_conv2d", *CONVOLVED)
FLASH = ("aten::_scaled_dot_product_flash_attention_for_cpu", "aten::scaled_dot_product_attention")
SEQUENCE = ((16, 8, 128), (512, 128), (512, 128))
# What a CPU runs, as torch's profiler records it, the innermost operation first.
WORK = {
    "mm": (("aten::mm", "aten::matmul"), MATMUL),
    "addmm": (("aten::addmm", "aten::linear"), ((256,), *MATMUL)),
    "activation": (("aten::_addmm_activation", "aten::_transformer_encoder_layer_fwd"), MATMUL),
    "bmm": (("aten::bmm", "aten::einsum"), BATCHES),
    "baddbmm": (("aten::baddbmm",), (BATCHES[0], *BATCHES)),
    "addbmm": (("aten::addmm_", "aten::addbmm"), (MATMUL[1], *MATMUL)),
    "mv": (("aten::addmv_", "aten::mv", "aten::matmul"), ((512,), (512, 512), (512,))),
    "oneDNN convolution": (("aten::mkldnn_convolution", *CONVOLVED), IMAGES),
    "other convolution": (SLOW, IMAGES),
    "depthwise": (("aten::mkldnn_convolution", *CONVOLVED), ((2, 32, 9, 9), (32, 1, 3, 3))),
    "transposed": (TRANSPOSED, IMAGES),
    "slow transposed": (("aten::slow_conv_transpose2d", *TRANSPOSED), IMAGES),
    "attention": (FLASH, HEADS),
    "lstm": (("aten::mkldnn_rnn_layer", "aten::lstm"), SEQUENCE),
    "compiled": (("mkldnn::_linear_pointwise",), MATMUL),
}


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize(
    ("dtype", "verdict"), [("float32", "true"), ("bfloat16", "false"), ("float64", "false")]
)
def test_matrix_work_is_seen_in_the_operation_that_does_it(work, dtype, verdict):
    names, shapes = WORK[work]
    found = label(*called(*names, dtype=dtype, shapes=shapes))
    assert (found.verdict, found.ran) == (verdict, f"in {dtype}")
    assert found.witnesses[0].name == "operands"


def test_an_operation_that_calls_others_is_counted_once():
    data = compared(*linear("float32"))
    (work,) = facts_of(data, data.results[0]).work
    assert (work.operation.name, work.time_s) == ("aten::addmm", 0.8e-3)


def test_time_of_a_normalisation_that_calls_others_is_its_own():
    operations = called(
        *("aten::native_batch_norm", "aten::_batch_norm_impl_index", "aten::batch_norm"),
        dtype="float32",
        shapes=(SHAPES["image"], (32,)),
    )
    data = compared(*operations)
    assert facts_of(data, data.results[0]).by_category["norm"] == 1e-3


def test_a_float64_part_makes_a_float32_label_false_or_partly_true():
    mostly = label(*linear("float32", 0.2e-3), *linear("float64", 1e-3))
    assert (mostly.verdict, mostly.ran) == ("false", "in float64")
    partly = label(*linear("float32", 1e-3), *linear("float64", 0.2e-3))
    assert partly.verdict == "partly"
    assert "83% of GEMM/conv time has float32 operands, the rest float64" in partly.sentence


def test_a_float64_input_that_is_cast_once_leaves_the_label_true():
    cast = on_a_cpu(
        "aten::copy_", 0.3e-3, Tensor((64, 256), "float32"), Tensor((64, 256), "float64")
    )
    assert label(cast, *linear("float32")).verdict == "true"


def quantised(name: str, time_s: float = 1e-3) -> tuple[Operation, ...]:
    """An operation with packed weights, of which the profiler sees the float32 input only."""
    return called(name, dtype="float32", shapes=(SHAPES["x"],))


@pytest.mark.parametrize(
    ("operations", "ran"),
    [
        (quantised("quantized::linear_dynamic"), "in int8"),
        (quantised("quantized::conv2d_relu"), "in int8"),
        (quantised("quantized::linear_dynamic_fp16"), "in float16"),
        (quantised("aten::quantized_lstm"), "in int8 or float16"),
        (called("aten::_int_mm", dtype="int8", shapes=MATMUL), "in int8"),
        (called("aten::mm", "aten::matmul", dtype="int64", shapes=MATMUL), "in int64"),
        (
            (
                on_a_cpu(
                    "onednn::qlinear_pointwise",
                    1e-3,
                    Tensor((64, 256), "uint8"),
                    Tensor((), "float32"),
                    Tensor((256, 256), "int8"),
                ),
            ),
            "in int8",
        ),
        (
            (
                on_a_cpu(
                    "aten::_weight_int8pack_mm",
                    1e-3,
                    *tensors("float32", (64, 256)),
                    *tensors("int8", (256, 256)),
                ),
            ),
            "in mixed precision",
        ),
    ],
)
def test_integer_work_makes_a_float32_label_false(operations, ran):
    found = label(*operations)
    assert (found.verdict, found.ran) == ("false", ran)


def test_a_row_that_claims_int8_is_right_with_quantised_operations():
    assert label(*quantised("quantized::linear_dynamic"), dtype="int8").verdict == "true"
    assert label(*linear("float32"), dtype="int8").verdict == "false"


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_packed_weights_of_either_kind_do_not_verify_a_label(dtype):
    packed = quantised("aten::quantized_lstm")
    found = label(*packed, dtype=dtype)
    assert found.verdict == "unknown"
    assert "packed weights of a recurrent layer are int8 or float16" in found.sentence
    assert label(*packed, *linear("float32", 9e-3), dtype=dtype).verdict == "false"


def test_a_partly_true_label_names_the_other_precision():
    found = label(*linear("float16", 3e-3), *linear("float32"), dtype="float16")
    assert found.sentence.startswith("eager is labelled float16 but ran partly in float32: ")


def test_a_quantised_layer_beside_a_float_one_makes_it_partly_true():
    found = label(*quantised("quantized::linear_dynamic"), *linear("float32", 3e-3))
    assert found.verdict == "partly"
    assert "the rest int8" in found.sentence


def test_emulated_quantisation_computes_in_float32():
    x = Tensor(SHAPES["x"], "float32")
    fake = on_a_cpu("aten::fake_quantize_per_tensor_affine_cachemask", 1e-3, x)
    assert label(fake, *linear("float32")).verdict == "true"


def test_complex_numbers_count_as_their_parts():
    single = called("aten::mm", dtype="complex64", shapes=MATMUL)
    double = called("aten::mm", dtype="complex128", shapes=MATMUL)
    assert label(*single).verdict == "true"
    assert (label(*double).verdict, label(*double).ran) == ("false", "in float64")


@pytest.mark.parametrize(
    "operation",
    [
        on_a_cpu("aten::embedding", 1e-3, *tensors("float32", (64, 16)), *tensors("int64", (8,))),
        on_a_cpu("aten::upsample_linear1d", 1e-3, *tensors("float64", (2, 3, 8))),
        on_a_cpu("aten::_convert_indices_from_coo_to_csr", 1e-3, *tensors("int64", (8, 8))),
        on_a_cpu("aten::sin", 1e-3, *tensors("float64", (64, 64))),
    ],
)
def test_without_matrix_work_a_label_is_not_verified_for_that_reason(operation):
    found = label(operation)
    assert found.verdict == "unknown"
    assert found.sentence == (
        "eager: label float32 not verified, because the profile recorded no matrix operation "
        "(matmul, convolution, attention)"
    )


def test_a_label_that_was_not_verified_says_why():
    assert "the row was not profiled" in diagnosis_of(comparison()).labels[0].sentence
    failed = label(unknown={"profile": "OutputError: disk full"})
    assert "the profile failed: OutputError: disk full" in failed.sentence
    kernels = attrs.evolve(linear("float32")[1], inputs=(), parents=())
    assert "neither operands nor kernel names" in label(kernels).sentence


def test_right_operands_do_not_verify_a_label_if_most_of_the_call_is_not_in_the_profile():
    small = linear("float32")  # 1 ms
    found = label(*small, profiled_s=10e-3, outside_s=9e-3)
    assert (found.verdict, found.ran) == ("unknown", "")
    assert "of a call's time is outside of PyTorch's operations (Python code" in found.sentence
    assert label(*small, profiled_s=1.5e-3, outside_s=0.5e-3).verdict == "true"


@pytest.mark.parametrize(("time_s", "verdict"), [(2e-3, "unknown"), (0.2e-3, "true")])
def test_a_long_operation_of_another_library_can_multiply_in_any_dtype(time_s, verdict):
    foreign = on_a_cpu("other::fused", time_s, *tensors("float32", *MATMUL))
    found = label(*linear("float32"), foreign, profiled_s=4e-3, outside_s=0.0)
    assert found.verdict == verdict
    assert ("other::fused" in found.sentence) == (verdict == "unknown")


def test_a_wrong_dtype_that_was_seen_stays_wrong_whatever_the_profile_does_not_show():
    assert label(*linear("bfloat16"), profiled_s=10e-3, outside_s=9e-3).verdict == "false"


def test_python_code_around_many_short_operations_leaves_the_label_true():
    short = attrs.evolve(linear("float32", 1e-3)[1], count=200.0, parents=())
    assert label(short, profiled_s=5e-3, outside_s=4e-3).verdict == "true"
