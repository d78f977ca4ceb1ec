"""What half precision and 8 bits could bring, agreement, and the layers side by side."""

from __future__ import annotations

import attrs
import pytest

from made_up_quantised import FAST, mm, packed, quantised, with_row
from made_up_results import CLEAN, HALF_CONV, NORM, comparison, conv, evidence, layer, other
from precisionbench.diagnosis.accuracy import error_bound
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.layers import layers_of_growth
from precisionbench.diagnosis.work import known_flops
from precisionbench.results import Agreement, TensorAgreement
from precisionbench.results.claims import Claims
from precisionbench.results.evidence import Kernel, LayerError, Operation, Tensor

CONV_ONLY = (layer(),)


def ceiling(*operations: Operation, times_s=(1.02e-3, 0.35e-3), layers=CONV_ONLY, **more):
    return diagnosis_of(
        comparison(evidence(*operations, layers=layers), CLEAN["half"], times_s=times_s, **more)
    ).ceiling


def test_matrix_work_on_tensor_cores_has_a_high_ceiling():
    found = ceiling(conv())
    assert found.best.low > 3
    assert found.brought.value == pytest.approx(1.02 / 0.35, rel=0.01)
    assert found.row == "half"


def test_memory_bound_time_halves_at_most_and_is_limited_by_bandwidth():
    norm = other("aten::native_batch_norm", NORM, 1e-3, ("float32",))
    found = ceiling(norm)
    assert found.best.low == pytest.approx(1.7)
    bytes_s = 2 * 32 * 64 * 56 * 56 * 2 / 3.35e12
    assert found.best.high == pytest.approx(1e-3 / bytes_s, rel=0.01)


def test_gpu_idle_time_stays():
    assert ceiling(conv(0.1e-3), times_s=(1e-3, 1e-3)).best.high < 1.2


def test_the_ceiling_is_never_below_one():
    tiny = conv(1e-9)
    assert ceiling(tiny, times_s=(1e-9, 1e-9)).best.low >= 1


def test_layers_of_unknown_flops_are_limited_by_the_peaks():
    x = Tensor((64, 128, 1024), "float32")
    lstm = Operation("aten::_cudnn_rnn", "conv", (x,), 1.0, 1e-3, (Kernel("lstm", 1.0, 1e-3),))
    found = ceiling(lstm, layers=(attrs.evolve(layer(), flops=None),))
    assert found.best.high == pytest.approx(990 / 67, rel=0.01)


def test_small_tensors_that_stay_in_the_cache_can_become_twice_as_fast():
    x, weight = Tensor((1, 2048), "float32"), Tensor((2048, 2048), "float32")
    fast = Operation("aten::mm", "conv", (x, weight), 1.0, 3e-6)  # 5.6 TB/s
    assert ceiling(fast, times_s=(3e-6, 1.5e-6)).best.high >= 2


def test_flops_of_attention_follow_from_its_shapes():
    query = Tensor((2, 8, 128, 64), "float32")
    seen = Operation("aten::_scaled_dot_product_flash_attention", "", (query,) * 3, 1.0, 1e-3)
    assert known_flops(seen) == 4 * 2 * 8 * 128 * 128 * 64


def test_an_unknown_device_has_no_ceiling_and_a_reason():
    gpu = attrs.evolve(comparison().environment.gpu, name="NVIDIA Future")
    found = ceiling(conv(), gpu=gpu)
    assert found.best is None
    assert "are not known" in found.reason


def test_a_comparison_without_float32_has_no_ceiling():
    data = comparison(None, CLEAN["half"])
    assert "no float32 row" in diagnosis_of(data).ceiling.reason


def test_a_ceiling_that_was_exceeded_is_not_known():
    found = ceiling(conv(1e-3, channels=2048), times_s=(1e-3, 1e-6))
    assert found.best is None
    assert found.reason.startswith("half measured ")
    assert "above the estimate of " in found.reason


def test_a_ceiling_is_never_below_what_was_brought():
    idle = ceiling(conv(0.1e-3), times_s=(1e-3, 1e-3)).best.high
    brought = 1.03 * idle
    found = ceiling(conv(0.1e-3), times_s=(1e-3, 1e-3 / brought))
    assert found.best.high == found.brought.value > idle


def test_shares_of_the_float32_row_add_up():
    norm = other("aten::native_batch_norm", NORM, 0.2e-3, ("float32",))
    found = ceiling(conv(0.8e-3), norm, times_s=(2e-3, 1e-3))
    assert sum(number.value for number in found.shares) == pytest.approx(1)


# --- 8 bits ---------------------------------------------------------------------------------------


def test_the_ceiling_of_8_bits_on_a_cpu_follows_from_its_flags():
    data = quantised(packed(0.35e-3), **FAST)
    best = diagnosis_of(data).ceiling_of_8_bits.best
    assert (best.low, best.high) == (pytest.approx(1.6), pytest.approx(4))
    without = diagnosis_of(quantised(packed(0.35e-3), flags=("avx2",), **FAST)).ceiling_of_8_bits
    assert "none of the flags" in without.reason


def test_the_ceiling_of_8_bits_is_over_the_float32_row_of_the_same_engine():
    """The engine alone is 10x as fast as PyTorch here, and int8 brings 2x more."""
    data = quantised(packed(0.05e-3), times_s=(1e-3, 0.05e-3))
    row = attrs.evolve(data.results[1], claims=Claims("int8", engine="OpenVINO"))
    data = attrs.evolve(data, results=(data.results[0], row))
    alone = diagnosis_of(data).ceiling_of_8_bits
    assert alone.best is None
    assert alone.reason.endswith("add a float32 row of that engine")
    claims = Claims("float32", engine="OpenVINO")
    data = with_row(data, "openvino", claims, evidence(mm(0.1e-3), layers=()), 0.1e-3)
    diagnosis = diagnosis_of(data)
    ceiling = diagnosis.ceiling_of_8_bits
    assert (ceiling.row, ceiling.over) == ("half", "openvino")
    assert ceiling.best.high == pytest.approx(4)
    assert ceiling.brought.value == pytest.approx(2, rel=0.01)
    (answer,) = (one for one in diagnosis.answers if one.topic == "half-precision ceiling")
    assert "at most 4x; half measured 2x over openvino." in answer.answer
    assert answer.short.endswith("INT8/FP8 at most 4x, measured 2x")


def test_a_row_that_did_not_run_in_8_bits_measures_nothing_of_their_ceiling():
    ceiling = diagnosis_of(quantised(mm(0.9e-3))).ceiling_of_8_bits
    assert (ceiling.row, ceiling.brought) == ("", None)


def test_a_gpus_ceiling_of_8_bits_is_above_that_of_16():
    found = diagnosis_of(comparison(evidence(conv(), layers=CONV_ONLY), evidence(layers=())))
    assert found.ceiling_of_8_bits.best.high > found.ceiling.best.high


# --- agreement ------------------------------------------------------------------------------------


def errors(*pairs: tuple[str, float]) -> tuple[LayerError, ...]:
    return tuple(LayerError(path, error, 1.0, 0, 1.0) for path, error in pairs)


def precision(base_errors, half_errors, **row):
    data = comparison(
        attrs.evolve(CLEAN["base"], errors=base_errors),
        attrs.evolve(CLEAN["half"], errors=half_errors),
        half_row=row,
    )
    return next(p for p in diagnosis_of(data).precisions if p.row == "half")


def test_a_small_error_is_fine():
    found = precision(errors(("", 1e-7)), errors(("a", 4e-4), ("", 5e-4)))
    assert (found.verdict, found.error) == ("fine", 5e-4)


def test_a_large_error_is_inaccurate_and_names_the_worst_layer():
    found = precision(
        errors(("", 1e-7)), errors(("a", 1e-3), ("b", 4e-2), ("c", 4.1e-2), ("", 4.1e-2))
    )
    assert (found.verdict, found.layer) == ("inaccurate", "b")


def test_an_error_that_grows_outside_of_all_layers_is_that_of_the_models_own_forward():
    small = (("a", 1e-7), ("b", 2e-7))
    found = precision(errors(*small, ("", 1e-7)), errors(("a", 3e-3), ("b", 2e-3), ("", 0.9)))
    assert found.layer == ""
    assert found.reason.endswith("it grows most in the model's own forward")


def test_a_side_branch_with_a_small_error_does_not_hide_the_layer_that_is_inaccurate():
    found = precision(errors(("", 1e-7)), errors(("a", 4e-2), ("mask", 0.0), ("", 4.1e-2)))
    assert found.layer == "a"


def test_the_error_of_a_float32_row_that_ran_in_16_bits_is_not_that_of_float32():
    cast = conv(1e-3, "bfloat16", HALF_CONV)
    base = evidence(cast, errors=errors(("a", 3e-3), ("", 3e-3)))
    half = evidence(cast, errors=errors(("a", 9e-2), ("", 9e-2)))
    found = {one.row: one for one in diagnosis_of(comparison(base, half)).precisions}
    assert found["eager"].remedy.startswith("this row did not run in float32 only")
    assert found["half"].remedy == "keep a in float32 (half:fp32_layers=a)"


def test_the_bound_grows_with_the_models_own_float32_error():
    assert error_bound("float16", 1e-7) == 5e-3
    assert error_bound("float16", 1e-5) == pytest.approx(2 * 1e-5 * 2**13)
    assert error_bound("", None) is None


def test_non_finite_and_unstable_outputs_have_their_own_verdicts():
    tensor = TensorAgreement("", (4, 5), "float16", None, None, None, None, 20)
    found = precision(errors(("", 1e-7)), errors(), agreement=Agreement((tensor,), ()))
    assert found.verdict == "non_finite"
    for text in ("differs from the first's", "is not the first's"):  # today, and in older files
        random = (f"the last call's output {text}: the model is random",)
        assert precision(errors(), errors(("", 1e-3)), warnings=random).verdict == "unstable"


def test_accuracy_is_unknown_without_a_comparison_with_float64():
    assert precision(errors(), errors()).verdict == "unknown"


# --- layers side by side --------------------------------------------------------------------------


def pairs():
    base = evidence(
        conv(1e-3, layer="a"), conv(0.2e-3, layer="b"), layers=(layer("a"), layer("b")),
        errors=errors(("a", 1e-7), ("b", 1e-7)),
    )  # fmt: skip
    half = evidence(
        conv(0.1e-3, "float16", HALF_CONV, layer="a"),
        conv(0.2e-3, "float16", HALF_CONV, layer="b", channels=50),
        layers=(layer("a"), layer("b", channels=50)),
        errors=errors(("a", 1e-3), ("b", 2e-2)),
    )
    return diagnosis_of(comparison(base, half)).layers


def test_layer_pairs_are_sorted_by_time():
    first, second = pairs()
    assert (first.path, second.path) == ("b", "a")
    assert second.ratio == pytest.approx(10)
    assert first.obstacles
    assert (first.error, first.reference_error) == (2e-2, 1e-7)


def own_code(*pairs: tuple[str, float, float]) -> tuple[LayerError, ...]:
    """Errors of layers with that of their inputs: (path, of the input, of the output)."""
    return tuple(LayerError(path, out, 1.0, 0, 1.0, given) for path, given, out in pairs)


def test_an_error_that_was_there_before_a_layer_is_not_of_the_layer():
    """A loop in forward between two layers: keeping the second in float32 would change nothing."""
    layers = own_code(("a", 1e-3, 3e-3), ("b", 5.4e-2, 5.4e-2))
    base = evidence(conv(1e-3, layer="a"), conv(1e-3, layer="b"), errors=errors(("", 1e-7)))
    half = evidence(
        conv(0.1e-3, "float16", HALF_CONV, layer="a"),
        conv(0.1e-3, "float16", HALF_CONV, layer="b"),
        errors=(*layers, *errors(("", 5.4e-2))),
    )
    found = diagnosis_of(comparison(base, half))
    (precision,) = (p for p in found.precisions if p.row == "half")
    assert "grows most in the model's own forward" in precision.reason
    assert precision.keep == ()
    assert precision.remedy.startswith("compute in float32 what the model's forward computes")


def test_the_code_of_a_module_that_has_parts_is_kept_in_float32_with_them():
    grown = own_code(("block.a", 0.0, 3e-3), ("block.b", 5e-2, 5.1e-2), ("c", 5.1e-2, 5.1e-2))
    assert layers_of_growth(grown) == ("block", "block.a", "block.b")


def test_an_inaccurate_row_gets_layers_to_keep_in_float32_with_their_cost():
    base = evidence(conv(1e-3, layer="a"), conv(0.5e-3, layer="b"), errors=errors(("", 1e-7)))
    half = evidence(
        conv(0.1e-3, "float16", HALF_CONV, layer="a"),
        conv(0.2e-3, "float16", HALF_CONV, layer="b"),
        errors=errors(("a", 1e-3), ("b", 4e-2), ("", 4e-2)),
    )
    found = diagnosis_of(comparison(base, half))
    (precision,) = (p for p in found.precisions if p.row == "half")
    assert precision.keep == ("b", "a")
    assert precision.keep_s == pytest.approx(1.2e-3)
    assert precision.remedy == "keep b, a in float32 (half:fp32_layers=b+a)"
    assert "b, a in float32 would add about 1.2 ms" in found.answers[-1].answer


def test_rates_are_given_as_shares_of_the_peaks():
    data = comparison(evidence(conv()), CLEAN["half"])
    roofs = diagnosis_of(data).roofs["eager"]
    (matrix,) = roofs
    assert matrix.flop_rate == pytest.approx(layer().flops / 1e-3)
    assert matrix.of_peak == pytest.approx(layer().flops / 1e-3 / 67e12)
    assert 0 < matrix.of_bandwidth < 1


def test_unknown_dtypes_have_a_default_size():
    odd = Operation("aten::add", "", (Tensor((4,), "strange"),), 1.0, 1e-5)
    assert diagnosis_of(comparison(evidence(odd, layers=()), CLEAN["half"])).roofs["eager"]


def test_the_reference_is_not_judged_by_its_own_error():
    data = comparison(
        attrs.evolve(CLEAN["base"], errors=errors(("", 4e-4))),
        attrs.evolve(CLEAN["half"], errors=errors(("", 0.9))),
    )
    verdicts = {p.row: p.verdict for p in diagnosis_of(data).precisions}
    assert verdicts == {"eager": "inaccurate", "half": "inaccurate"}


def test_a_float32_error_beyond_rounding_does_not_raise_the_bound():
    assert error_bound("float16", 1e-3) == 0.3
    data = comparison(
        attrs.evolve(CLEAN["base"], errors=errors(("", 0.5))),
        attrs.evolve(CLEAN["half"], errors=errors(("", 0.01))),
    )
    assert diagnosis_of(data).precisions[1].bound == 5e-3
