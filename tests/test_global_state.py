import random
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from precisionbench.torchtools.global_state import (
    Functions,
    autocast_off,
    cudnn_benchmark,
    flags_restored,
    fp32_precision,
    functions_restored,
    read_flags,
    rng_restored,
    seed_everything,
)

NEW_PRECISION = isinstance(getattr(torch.backends, "fp32_precision", None), str)


@pytest.fixture(autouse=True)
def flags_as_before():
    with flags_restored():
        yield


def precision_settings():
    """What a script may have done to the precision switches, old and new, in any order."""
    old = [
        lambda: torch.set_float32_matmul_precision("high"),
        lambda: torch.set_float32_matmul_precision("highest"),
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
        lambda: setattr(torch.backends.cudnn, "allow_tf32", True),
        lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    ]
    new = [
        lambda: setattr(torch.backends, "fp32_precision", "ieee"),
        lambda: setattr(torch.backends, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
        lambda: setattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32"),
    ]
    return st.lists(st.sampled_from(old + new * NEW_PRECISION), max_size=4)


@given(precision_settings(), st.sampled_from(["ieee", "tf32"]))
@settings(deadline=None, max_examples=200)
def test_the_fp32_precision_is_set_and_the_users_is_restored(steps, precision):
    with flags_restored(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in steps:
            step()
        before = read_flags()
        with fp32_precision(precision):
            during = read_flags()
        assert read_flags() == before
    for switch in ("cuda.matmul.allow_tf32", "cudnn.allow_tf32"):
        if switch in before:  # torch refuses to read it after some mixtures
            assert during[switch] is (precision == "tf32")
    if NEW_PRECISION:
        assert during["cuda.matmul.fp32_precision"] == precision
        assert during["cudnn.conv.fp32_precision"] == precision
        assert during["mkldnn.matmul.fp32_precision"] == "ieee"


def test_another_default_dtype_is_a_flag_and_no_patch_of_torch():
    """It rebinds a class of torch."""
    before = Functions.now()
    with flags_restored():
        torch.set_default_dtype(torch.float64)
        assert before.changes() == []
    assert torch.get_default_dtype() == torch.float32


def test_flags_are_restored_after_an_error():
    before = read_flags()

    def meddle() -> None:
        with flags_restored():
            torch.backends.cudnn.benchmark = not before["cudnn.benchmark"]
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.set_default_dtype(torch.float64)
            torch.set_default_device("meta")
            torch.set_grad_enabled(False)
            torch.backends.cuda.enable_math_sdp(False)
            torch.set_float32_matmul_precision("medium")
            torch.set_num_threads(before["num_threads"] + 1)
            raise KeyError

    with pytest.raises(KeyError):
        meddle()
    assert read_flags() == before


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_users_matmul_precision_is_restored(precision):
    torch.set_float32_matmul_precision(precision)
    with fp32_precision("ieee"):
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == precision


def test_a_surrounding_autocast_is_disabled_within_the_context():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with autocast_off("cpu"):
            assert torch.rand(2, 2).matmul(torch.rand(2, 2)).dtype == torch.float32
        assert torch.is_autocast_enabled("cpu")


def test_cudnn_benchmark_is_set_within_the_context():
    with cudnn_benchmark(True):
        assert torch.backends.cudnn.benchmark is True
    assert torch.backends.cudnn.benchmark is False


def test_every_random_generator_is_restored():
    with rng_restored():
        expected = torch.rand(1).item(), np.random.rand(), random.random()
    with rng_restored():
        seed_everything(5)
        assert (torch.rand(1).item(), np.random.rand(), random.random()) != expected
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected


def test_seeding_repeats_every_generator():
    def draw() -> tuple[float, ...]:
        seed_everything(2**40 + 3)
        return torch.rand(1).item(), np.random.rand(), random.random()

    with rng_restored():
        assert draw() == draw()


def test_without_patches_there_are_no_changes():
    functions = Functions.now()
    torch.nn.functional.relu(torch.ones(1))
    assert functions.changes() == []


def test_replaced_added_and_removed_functions_are_named_and_restored():
    original_relu, original_vf = torch.nn.functional.relu, torch.nn.modules.rnn._VF
    gelu = torch.nn.functional.gelu
    assert "__matmul__" not in vars(torch.Tensor)  # inherited
    with functions_restored() as functions:
        torch.nn.functional.relu = lambda x: x
        torch.Tensor.__matmul__ = lambda a, b: a
        torch.nn.modules.rnn._VF = object()  # a module, which Apex replaces by an object
        torch.nn.modules.rnn._rnn_impls["RNN_TANH"] = len
        torch.nn.Linear.forward = lambda self, x: x
        torch.nn.modules.batchnorm._BatchNorm.forward = lambda self, x: x
        torch.linalg.norm = len
        del torch.nn.functional.gelu
        assert set(functions.changes()) == {
            "torch.nn.functional.relu",
            "torch.nn.functional.gelu",
            "torch.Tensor.__matmul__",
            "torch.nn.modules.linear.Linear.forward",
            "torch.nn.modules.batchnorm._BatchNorm.forward",
            "torch.linalg.norm",
            "torch.nn.modules.rnn._VF",
            "torch.nn.modules.rnn._rnn_impls.RNN_TANH",
        }
    assert torch.nn.functional.relu is original_relu
    assert torch.nn.functional.gelu is gelu
    assert torch.nn.modules.rnn._VF is original_vf
    assert "__matmul__" not in vars(torch.Tensor)
    assert functions.changes() == []


def test_patches_of_torch_compile_are_not_reported_and_not_undone():
    functions = Functions.now()
    torch.compile(torch.nn.Linear(4, 4), backend="eager")(torch.rand(2, 4))
    patched = torch.nn.Module.__init__
    assert functions.changes() == []
    functions.restore()
    assert torch.nn.Module.__init__ is patched


def test_a_patch_with_the_name_of_the_original_is_reported():
    import functools

    relu = torch.nn.functional.relu
    with functions_restored() as functions:
        torch.nn.functional.relu = functools.wraps(relu)(lambda x: x)  # as Apex does
        assert functions.changes() == ["torch.nn.functional.relu"]


def test_a_key_added_to_a_table_is_removed():
    with functions_restored():
        torch.nn.modules.rnn._rnn_impls["NEW"] = len
    assert "NEW" not in torch.nn.modules.rnn._rnn_impls


def test_a_global_module_hook_is_reported_and_removed():
    with functions_restored() as functions:
        torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
        assert len(functions.changes()) == 1
        assert "_global_forward_hooks" in functions.changes()[0]
    assert not torch.nn.modules.module._global_forward_hooks


def test_an_imported_submodule_is_not_reported():
    functions = Functions.now()
    torch.a_module_of_this_test = random  # what importing torch.something does
    try:
        assert functions.changes() == []
    finally:
        del torch.a_module_of_this_test
