"""A backend that is prepared in this process and called as the model is."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, ClassVar

import attrs
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from odd_model import odd_model
from precisionbench.backends import Backend, Inputs, Prepared
from precisionbench.backends.discovery import make
from precisionbench.errors import (
    ExecutionError,
    PrecisionBenchWarning,
    PreparationError,
    WorkloadError,
)
from precisionbench.measure.worker.prepared_call import prepared_call
from precisionbench.torchtools.global_state import Settings, compilations
from precisionbench.torchtools.tensors import walk
from small_transformer import small_transformer
from test_autocast import CASTS


@attrs.frozen
class Watches(Backend):
    """Notes torch's settings in each call, and sets some for as long as it is prepared."""

    name: ClassVar[str] = "watches"
    seen: list[Any] = attrs.field(factory=list, eq=False, metadata={"recorded": False})

    @contextmanager
    def prepare(self, model, inputs):
        threads = torch.get_num_threads()
        torch.set_num_threads(threads + 1)
        with torch.autocast("cpu", torch.bfloat16):
            yield Prepared(lambda: self._noted(inputs.bind(model)()), inputs=inputs)
        self.seen.append("end")
        torch.set_num_threads(threads)

    def _noted(self, output: object) -> object:
        self.seen.append((Settings.now("cpu"), torch.is_inference_mode_enabled()))
        return output


def settings_changed_by_the_caller() -> None:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")


@pytest.fixture(autouse=True)
def settings_restored():
    with Settings.now("cpu").applied():
        yield


def test_it_is_called_as_the_model_and_gives_its_structure():
    model, args = odd_model()
    new = ({"x": [torch.rand(4, 8)]}, torch.rand(3), 2.0)
    with prepared_call(make("eager"), model, args, device="cpu") as fast:
        x, y, rest = fast(*new)
    with torch.no_grad():
        expected = model(*new)
    assert x is not new[0]["x"][0]
    assert list(rest) == ["again", "positive", "largest"]
    for (_, got), (_, want) in zip(walk((x, y, rest)), walk(expected), strict=True):
        assert torch.allclose(got, want)


def test_keyword_arguments_in_any_order_and_outputs_for_training():
    model, (tokens,), kwargs = small_transformer()
    inputs = {"tokens": tokens, **kwargs}
    with prepared_call(make("eager"), model, inputs, device="cpu") as fast:
        output = fast(scale=kwargs["scale"] * 2, tokens=tokens)["hidden"]
    assert torch.allclose(output, model(tokens, scale=kwargs["scale"] * 2)["hidden"])
    weight = torch.ones(32, requires_grad=True)
    (output * weight).sum().backward()  # which torch refuses for tensors of inference_mode
    assert weight.grad is not None


def test_outputs_are_copies_and_the_callers_tensors_stay(cnn, images):
    class ReturnsItsInput(nn.Module):
        def forward(self, x):
            return x.mul_(2)

    with prepared_call(make("eager"), ReturnsItsInput(), images, device="cpu") as fast:
        ones, twos = torch.ones_like(images), torch.full_like(images, 2)
        first, second = fast(ones), fast(twos)
    assert (first == 2).all()
    assert (second == 4).all()
    assert (ones == 1).all()


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((torch.ones(2, 4),), {"scale": 2.0}, "shape 2x4 where the prepared call reads 3x4"),
        ((torch.ones(3, 4),), {"scale": 3.0}, "scale has 3.0 where the model was prepared with 2"),
        ((torch.ones(3, 4), 2.0), {}, "the call has the arguments 0, 1"),
        (([torch.ones(3, 4)],), {"scale": 2.0}, r"0, scale \(tensors: \[0\]\[0\]\)"),
        ((torch.ones(3, 4),), {}, "the argument 0, and the model was prepared with the arguments"),
        ((), {}, "the call has no arguments, and the model was prepared with"),
        ((torch.ones(3, 4) * 1j,), {"scale": 2.0}, "complex64 where the prepared call reads float"),
    ],
)
def test_other_arguments_are_refused(args, kwargs, message):
    class Scaled(nn.Module):
        def forward(self, x, *, scale):
            return x * scale

    inputs = Inputs((torch.rand(3, 4),), {"scale": 2.0})
    with prepared_call(make("eager"), Scaled(), inputs, device="cpu") as fast:
        with pytest.raises(WorkloadError, match=message):
            fast(*args, **kwargs)
        assert torch.equal(fast(torch.ones(3, 4), scale=2.0), torch.full((3, 4), 2.0))


def test_the_callers_settings_hold_between_calls_and_the_measured_ones_in_each(cnn, images):
    backend, before = Watches(), Settings.now("cpu")
    with prepared_call(backend, cnn, images, device="cpu") as fast:
        assert Settings.now("cpu") == before
        fast(images)
        assert Settings.now("cpu") == before
        settings_changed_by_the_caller()
        changed = Settings.now("cpu")
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            fast(images)
        assert Settings.now("cpu") == changed
        assert changed != before
        assert torch.is_grad_enabled()
    first, *others = backend.seen
    measured, inference = first
    assert inference
    assert measured.autocast["cpu"] == (True, torch.bfloat16)
    assert measured.flags["float32_matmul_precision"] == "highest"
    assert measured.flags["num_threads"] == before.flags["num_threads"] + 1
    assert others == [first, first, "end"]
    assert Settings.now("cpu") == changed  # also after the plugin has put its own back


def test_the_measured_settings_hold_between_calls_where_that_is_asked_for(cnn, images):
    backend, before = Watches(), Settings.now("cpu")
    with prepared_call(backend, cnn, images, device="cpu", hold_settings=True) as fast:
        fast(images)
        assert Settings.now("cpu") == fast.conditions.settings != before
        assert not torch.is_inference_mode_enabled()
    assert backend.seen[1] == backend.seen[0]
    assert Settings.now("cpu") == before


def test_a_call_in_another_thread_has_the_same_settings(cnn, images):
    backend = Watches()
    with prepared_call(backend, cnn, images, device="cpu") as fast:
        outputs: list[Any] = []
        thread = threading.Thread(target=lambda: outputs.append(fast(images)))
        thread.start()
        thread.join()
        assert torch.equal(outputs[0], fast(images))
    settings = [(seen[0].autocast, seen[1]) for seen in backend.seen[:-1]]
    assert settings == 3 * settings[:1]


class Casts(TorchDispatchMode):
    """Counts casts of tensors."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in CASTS
        return function(*args, **(kwargs or {}))


def casts_in(fast: Callable[..., Any], *args: torch.Tensor) -> int:
    """How many casts a call makes."""
    with Casts() as casts:
        fast(*args)
    return casts.count


WEIGHTS = ("conv.weight", "conv.bias", "head.weight", "head.bias")  # that autocast casts


def test_weights_that_autocast_has_cast_are_kept_and_a_callers_are_not(cnn, images):
    spec, own = "autocast:dtype=bfloat16", nn.Linear(4, 4)
    with prepared_call(make(spec), cnn, images, device="cpu") as fast:
        first, of_inputs = fast(images), casts_in(fast, images)
        assert first.dtype == torch.bfloat16
        for scale in (1.0, 2.0):  # of weights that change, as in training
            with torch.no_grad():
                own.weight.fill_(scale)
                own.bias.zero_()
            with torch.autocast("cpu", torch.bfloat16):
                assert own(torch.ones(1, 4))[0, 0] == 4 * scale
        assert torch.equal(fast(images), first)
    assert not torch.is_autocast_enabled("cpu")
    with prepared_call(make(f"{spec},cache_enabled=false"), cnn, images, device="cpu") as fast:
        assert casts_in(fast, images) == of_inputs + len(WEIGHTS)


def test_after_the_context_it_refuses_to_compute(cnn, images):
    with prepared_call(make("eager"), cnn, images, device="cpu") as fast:
        pass
    with pytest.raises(PreparationError, match="after the context in which it was prepared"):
        fast(images)


@attrs.frozen
class Tracks(Watches):
    """Notes the private model that it was given, without keeping it."""

    name: ClassVar[str] = "tracks"

    @contextmanager
    def prepare(self, model, inputs):
        self.seen.append(weakref.ref(model))
        yield Prepared(inputs.bind(model), model, inputs=inputs)


def test_after_the_context_the_model_is_freed(cnn, images):
    with prepared_call(Tracks(seen := []), cnn, images, device="cpu") as fast:
        fast(images)
    (private,) = seen
    assert private() is None
    assert fast is not None  # which a user may keep


def test_the_batch_is_that_of_the_backend(cnn, images):
    with prepared_call(make("eager:batch_size=2"), cnn, images, device="cpu") as fast:
        assert torch.allclose(fast(images[2:]), cnn.eval()(images[2:]), atol=1e-6)
        with pytest.raises(WorkloadError, match="drop the last, smaller batch"):
            fast(images)


def test_a_warning_of_the_backend_is_the_users(images):
    spec = "half:dtype=bfloat16,memory_format=channels_last"
    with (
        pytest.warns(PrecisionBenchWarning, match="channels_last has no effect"),
        prepared_call(make(spec), nn.Linear(16, 2), images[0], device="cpu") as fast,
    ):
        assert fast(images[0]).dtype == torch.bfloat16


@attrs.frozen
class Fails(Watches):
    """Fails in its calls."""

    name: ClassVar[str] = "fails"

    def _noted(self, output: object) -> object:
        raise ValueError("no luck")


@attrs.frozen
class SaysNothing(Watches):
    """Does not say what its calls read."""

    name: ClassVar[str] = "says-nothing"

    @contextmanager
    def prepare(self, model, inputs):
        with Watches.prepare(self, model, inputs) as prepared:
            yield prepared.call


@pytest.mark.parametrize(
    ("backend", "error", "message"),
    [
        (Fails(), ExecutionError, "no luck"),
        (SaysNothing(), PreparationError, "does not say which tensors they read"),
        (make("eager:cuda_graph=true"), PreparationError, "requires a CUDA GPU"),
        (make("eager:fold_batch_norm=true"), PreparationError, "no batch norm to fold"),
    ],
)
def test_where_it_cannot_be_prepared_everything_is_as_before(images, backend, error, message):
    before = Settings.now("cpu")
    with (
        pytest.raises(error, match=message),
        prepared_call(backend, nn.Linear(16, 2), images, device="cpu"),
    ):
        pytest.fail("it was prepared")
    assert Settings.now("cpu") == before
    if isinstance(backend, Watches):
        assert backend.seen[-1:] == ["end"]


class Lazy(nn.Module):
    """Computes its output when that is read."""

    def forward(self, x):
        yield x


class Odd:
    """An output that cannot be copied."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x, self.lock = x, threading.Lock()


class GivesOdd(nn.Module):
    """Gives an output that cannot be copied."""

    def forward(self, x):
        return Odd(x)


def test_an_output_that_is_computed_later_is_an_error(images):
    with (
        pytest.raises(ExecutionError, match="returned a generator"),
        prepared_call(make("eager"), Lazy(), images, device="cpu"),
    ):
        pytest.fail("it was prepared")


def test_an_output_that_cannot_be_copied_is_an_error(images):
    with (
        prepared_call(make("eager"), GivesOdd(), images, device="cpu") as fast,
        pytest.raises(ExecutionError, match=r"output \(Odd\) holds an object that cannot"),
    ):
        fast(images)


@pytest.mark.slow
def test_a_compiled_model_is_not_compiled_again_by_calls_with_other_values(cnn, images):
    with prepared_call(make("compile:dtype=bfloat16"), cnn, images, device="cpu") as fast:
        before = compilations()
        settings_changed_by_the_caller()
        found = fast(images * 2)
        assert compilations() == before
    expected = cnn.eval()(images * 2)
    assert (found.float() - expected).norm() / expected.norm() < 3e-2


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param("onnxruntime:exporter=torchscript", marks=pytest.mark.onnxruntime),
        pytest.param("openvino", marks=pytest.mark.openvino),
    ],
)
def test_an_engine_is_called_as_the_model(cnn, images, spec):
    with prepared_call(make(spec), cnn, images, device="cpu") as fast:
        first, second = fast(images * 2), fast(images * 3)
    assert torch.allclose(first, cnn.eval()(images * 2), atol=1e-5)
    assert torch.allclose(second, cnn(images * 3), atol=1e-5)
