"""A failed call names the module in which it failed, what does not fit there, and what ran."""

from __future__ import annotations

import attrs
import pytest
import torch
from torch import nn

from made_up_results import CLEAN, comparison
from precisionbench.analysis.alternatives import with_alternatives
from precisionbench.backends.base import cast_model
from precisionbench.errors import ExecutionError, OutOfMemoryError
from precisionbench.measure.worker.guards import executing
from precisionbench.results import BackendFailure
from precisionbench.results.comparison_data import WRONG_DTYPE
from precisionbench.torchtools.failing_module import failing_module


class Float(nn.Module):
    def forward(self, x):
        return x.float() * 2


class Table(nn.Module):
    """A tensor that `model.to` leaves as it is."""

    def __init__(self, **options):
        super().__init__()
        self.table = torch.ones(16, 16, **options)

    def forward(self, x):
        return x @ self.table


class TwoDevices(Table):
    """Fails as torch does where one of the devices is a GPU."""

    def forward(self, x):
        raise RuntimeError("Expected all tensors to be on the same device, but found at least two")


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16, 16))

    def forward(self, x, *, mask):
        return (x * mask) @ self.weight


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = Head()

    def forward(self, x):
        return self.head(x, mask=torch.ones(16))


class Spectral(nn.Module):
    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.ones(9, dtype=torch.complex64))

    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(x) * self.filter)


class Cache:
    def __init__(self):
        self.keys = torch.ones(16, 16)


class Keyed(nn.Module):
    def forward(self, x):
        return self.matched(x, Cache())

    def matched(self, x, cache):
        return x @ cache.keys


class TooLarge(nn.Module):
    def forward(self, x):
        raise MemoryError


def failed(model: nn.Module, dtype=torch.bfloat16) -> ExecutionError:
    half, x = cast_model(model, dtype), torch.ones(4, 16, dtype=dtype)
    with pytest.raises(ExecutionError) as caught, executing(lambda: half(x)):
        half(x)
    return caught.value


def linear():
    return nn.Linear(16, 16)


class Remembered(nn.Module):
    def __init__(self):
        super().__init__()
        self.r = nn.LSTM(16, 16)

    def forward(self, x):
        state = torch.zeros(1, 16)  # float32
        return self.r(x, (state, state))[0]


class InNumpy(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.numpy())


class Filled(nn.Module):
    def forward(self, x):
        return x.masked_fill(x > 0, -1e9)


CASES = {
    "a quantised model": (
        nn.Sequential(torch.ao.nn.quantized.Quantize(1.0, 0, torch.quint8)),
        "of 0 (Quantize)",
        "keep 0 in float32 (half:dtype=bfloat16,fp32_layers=0), ",
    ),
    "a state made in forward": (
        Remembered(),
        "of r (LSTM), whose input is bfloat16, float32 and whose weights are bfloat16 (",
        "(half:dtype=bfloat16,fp32_layers=r), cast the input of r (LSTM) in the model",
    ),
    "NumPy": (nn.Sequential(InNumpy()), "of 0 (InNumpy) (", "NumPy has no bfloat16"),
    "after a cast": (
        nn.Sequential(linear(), Float(), linear()),
        "of 2 (Linear), whose input is float32 and whose weights are bfloat16 (RuntimeError",
        "(half:dtype=bfloat16,fp32_layers=2), cast the input of 2 (Linear) in the model",
    ),
    "in a nested module": (
        nn.Sequential(nn.Sequential(linear(), nn.Sequential(Float(), nn.Conv1d(4, 4, 1)))),
        "of 0.1.1 (Conv1d), whose input is float32 and whose weights are bfloat16 (",
        "(half:dtype=bfloat16,fp32_layers=0.1.1)",
    ),
    "a plain attribute": (
        nn.Sequential(linear(), Table()),
        "of 1 (Table), whose input is bfloat16 and whose attribute 'table' is float32 (",
        "register its attributes as buffers, or cast them in forward",
    ),
    "a mask given by name": (
        Masked(),
        "of head (Head), whose input is bfloat16, float32 and whose weights are bfloat16 (",
        "keep head in float32",
    ),
    "a cache made in forward": (
        nn.Sequential(Keyed()),
        "of 0 (Keyed) (",
        "compute it in float32 in",
    ),
    "complex weights": (
        nn.Sequential(linear(), Spectral()),
        "of 1 (Spectral), whose input is bfloat16 and whose weights are complex64 (",
        "keep 1 in float32 (half:dtype=bfloat16,fp32_layers=1)",
    ),
    "another device": (
        nn.Sequential(linear(), TwoDevices(device="meta")),
        "whose input is cpu and whose attribute 'table' is meta (",
        "register them as buffers",
    ),
}


@pytest.mark.filterwarnings("ignore:the model's complex weights")
@pytest.mark.parametrize(("model", "place", "remedy"), CASES.values(), ids=CASES)
def test_a_failure_names_the_module_and_what_does_not_fit(model, place, remedy):
    error = failed(model)
    assert error.reason.startswith("the model failed in forward of ")
    assert place in error.reason
    assert remedy in error.remedy


@pytest.mark.filterwarnings("ignore:the model's complex weights")
def test_modules_of_the_same_class_that_would_fail_next_are_kept_in_float32_as_well():
    error = failed(nn.Sequential(Spectral(), linear(), Spectral()))
    assert "keep 0, 2 in float32 (half:dtype=bfloat16,fp32_layers=0+2)" in error.remedy
    many = failed(nn.Sequential(*(Spectral() for _ in range(99))))
    assert (
        "keep 0 and 98 more of its class in float32 (half:dtype=bfloat16,fp32_layers=0)"
        in many.remedy
    )


def test_the_row_that_keeps_layers_in_float32_has_the_dtype_of_the_row_that_failed():
    error = failed(nn.Sequential(Float(), linear()), torch.float16)
    assert "(half:fp32_layers=1)" in error.remedy  # float16 is the default of half


def test_an_index_that_a_cast_has_rounded_is_named_as_such():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions = nn.Buffer(torch.arange(1000.0))
            self.table = nn.Embedding(1000, 16)

        def forward(self, x):
            return x + self.table(self.positions.long())

    error = failed(Positions())
    assert error.remedy.startswith(WRONG_DTYPE)
    assert "keep indices in integer tensors" in error.remedy


def test_a_number_out_of_range_is_named_as_such():
    error = failed(nn.Sequential(Filled()), torch.float16)
    assert error.remedy.startswith(WRONG_DTYPE)
    assert "use torch.finfo(x.dtype).min for masks, or bfloat16" in error.remedy


def test_an_error_in_the_models_own_forward_names_no_other_module():
    class Wrong(nn.Module):
        def forward(self, x):
            raise IndexError("off by one")

    assert failed(Wrong()).reason == "the model failed in forward (IndexError: off by one)"


def test_an_error_outside_of_modules_has_no_module():
    with pytest.raises(ValueError, match="x") as caught:
        int("x")
    assert failing_module(caught.value) is None


def test_running_out_of_memory_names_the_module():
    model = nn.Sequential(linear(), TooLarge())
    with (
        pytest.raises(OutOfMemoryError, match=r"memory, in forward of 1 \(TooLarge\) \("),
        executing(),
    ):
        model(torch.ones(4, 16))


def test_a_row_with_autocast_is_not_told_to_use_autocast():
    class Fixed(nn.Module):
        def forward(self, x):
            with torch.autocast("cpu", enabled=False):
                return x.bfloat16() @ torch.ones(16, 16)

    model, x = nn.Sequential(Fixed()), torch.ones(4, 16)
    with (
        pytest.raises(ExecutionError) as caught,
        torch.autocast("cpu", torch.bfloat16),
        executing(),
    ):
        model(x)
    assert caught.value.remedy.endswith("or disable autocast around it")


def test_a_float32_row_is_not_told_to_use_float32():
    error = failed(nn.Sequential(linear(), Table(dtype=torch.float64)), torch.float32)
    assert "in float32" not in error.remedy


@pytest.mark.slow  # it imports TorchDynamo
def test_a_compiled_model_is_called_without_compiling_to_find_the_module():
    model = nn.Sequential(linear(), Float(), linear()).bfloat16()
    compiled, x = torch.compile(model, backend="eager"), torch.ones(4, 16).bfloat16()
    with pytest.raises(ExecutionError) as caught, executing(lambda: compiled(x)):
        compiled(x)
    assert "of 2 (Linear), whose input is float32" in caught.value.reason


DTYPE = "an operation of the model does not take this dtype"


def failure(remedy: str) -> BackendFailure:
    return BackendFailure("half:dtype=bfloat16", "half", {}, "ExecutionError", "it failed", remedy)


def test_the_remedy_of_a_wrong_dtype_names_the_rows_with_16_bits_that_ran():
    found = comparison(**CLEAN).results
    one, other = with_alternatives(
        [failure(f"{DTYPE}: cast"), failure("else")],
        found,
    )
    assert one.remedy.endswith("cast; with FP16/BF16 half ran")
    assert other.remedy == "else"


def test_without_such_rows_none_is_named():
    found = comparison(**CLEAN).results[:1]
    (one,) = with_alternatives([failure(DTYPE)], found)
    assert one == failure(DTYPE)
    mixed = attrs.evolve(
        found[0], backend="a", name="half", options={"dtype": "bfloat16", "fp32_layers": "2"}
    )
    (one,) = with_alternatives([failure(DTYPE)], [mixed])
    assert one.remedy.endswith("a ran")
