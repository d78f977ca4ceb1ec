"""`compare()` end to end, on a CPU."""

from __future__ import annotations

import dataclasses
import itertools
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.backends import Backend, Inputs, Prepared
from precisionbench.errors import (
    BackendUnavailableError,
    ExecutionError,
    OutOfMemoryError,
    PrecisionBenchWarning,
    PreparationError,
    SpecError,
    StateLeakError,
    WorkloadError,
)
from precisionbench.measure import compare
from precisionbench.measure.rounds import run_rounds
from precisionbench.measure.schedule import RowState, Schedule
from precisionbench.measure.stopping import few_rounds_warnings
from precisionbench.measure.worker import guards
from precisionbench.measure.worker.protocol import Opening
from precisionbench.model.workload import Workload
from precisionbench.results import Measurement
from precisionbench.torchtools.global_state import Functions, functions_restored, read_flags
from precisionbench.torchtools.timer import Timer
from test_timer import FakeClock

QUICK: dict[str, Any] = {
    "device": "cpu",
    "launcher": "inline",
    "budget_s": 0.05,
    "seed": 0,
    "evidence": False,  # what it sees: test_evidence.py
}


@attrs.frozen
class Base(Backend):
    """A backend of this test; each subclass breaks or does one thing."""

    name: ClassVar[str] = "mine"

    def prepare(self, model: nn.Module, inputs: Inputs) -> Any:
        return self.steps(model, inputs)

    @contextmanager
    def steps(self, model, inputs):
        yield inputs.bind(model)


def run(backend: Backend, model: nn.Module, inputs: Any, **options: Any) -> pb.Comparison:
    return pb.compare(model, inputs, backends=[backend], **{**QUICK, **options})


def failure(backend: Backend, model: nn.Module, inputs: Any) -> Any:
    comparison = run(backend, model, inputs)
    assert [row.backend for row in comparison.results] == ["eager"], "the others are measured"
    return comparison.failures[0]


def test_a_row_has_every_figure(cnn, images):
    options = {**QUICK, "budget_s": 0.5}
    comparison = pb.compare(cnn, images, backends=["half:dtype=bfloat16"], **options)
    row = comparison["half:dtype=bfloat16"]
    assert 0 < row.latency.low <= row.latency.value <= row.latency.high
    assert row.throughput.value == pytest.approx(4 / row.latency.value)
    assert 1e-5 < row.agreement.relative_l2 < 0.1
    assert comparison.speedup("half:dtype=bfloat16").reason == "not_interleaved"
    assert row.measurement.clock == "host"
    assert row.measurement.build_s > 0
    assert row.measurement.first_call_s > 0
    assert row.measurement.warmup_calls >= 3
    assert row.flags["grad_mode"] == "inference_mode"
    assert row.options["dtype"] == "bfloat16"
    assert "eager" in str(comparison)


def test_the_environment_is_recorded(cnn, images):
    environment = pb.compare(cnn, images, backends=[], **QUICK).data.environment
    assert environment.torch == torch.__version__
    assert environment.device == "cpu"
    assert environment.threads == torch.get_num_threads()
    assert environment.packages["numpy"] == np.__version__
    assert environment.flags["default_dtype"] == "float32"


def test_the_reference_is_added_in_front_where_it_is_missing(cnn, images):
    comparison = pb.compare(cnn, images, backends=["half"], **QUICK)
    assert [row.backend for row in comparison.results] == ["eager", "half"]


def test_rows_are_measured_and_shown_in_the_order_asked_for(cnn, images):
    seen: list[str] = []
    comparison = pb.compare(
        cnn,
        images,
        backends=["half", "eager:memory_format=channels_last", "eager"],
        on_progress=lambda progress: seen.append(f"{progress.backend} {progress.stage}"),
        **QUICK,
    )
    assert [row.backend for row in comparison.results] == [
        "half",
        "eager:memory_format=channels_last",
        "eager",
    ]
    assert seen[:3] == ["half preparing", "half measuring", "half done"]
    assert seen[-3:] == ["eager preparing", "eager measuring", "eager done"]
    assert 0 < comparison["half"].agreement.relative_l2 < 1e-2, "compared once eager was there"
    assert comparison["eager"].agreement.relative_l2 == 0


def test_a_comparison_of_a_backend_with_itself_has_two_rows(cnn, images):
    comparison = pb.compare(cnn, images, backends=["half", "half"], reference="half", **QUICK)
    assert [row.backend for row in comparison.results] == ["half", "half#2"]
    assert comparison["half#2"].agreement.relative_l2 == 0
    assert comparison["half:dtype=float16"].backend == "half"


def test_the_seed_makes_weights_and_inputs_repeatable():
    def factory() -> tuple[nn.Module, torch.Tensor]:
        return nn.Linear(8, 8), torch.rand(2, 8)

    def error(seed: int | None) -> tuple[float, int]:
        options = {**QUICK, "seed": seed}
        comparison = pb.compare(factory, backends=["half:dtype=bfloat16"], **options)
        return comparison.results[1].agreement.relative_l2, comparison.data.seed

    first = error(5)
    assert first == error(5) == error(np.int64(5))
    assert first[0] != error(6)[0]
    assert error(None)[1] != error(None)[1]


@pytest.mark.parametrize("grad_mode", ["inference_mode", "no_grad"])
def test_gradients_are_off_in_the_way_asked_for(images, grad_mode):
    seen = set()

    class Looks(nn.Module):
        def forward(self, x):
            seen.add((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
            return x

    pb.compare(
        Looks(),
        images,
        backends=[f"eager:grad_mode={grad_mode}"],
        reference=f"eager:grad_mode={grad_mode}",
        **QUICK,
    )
    assert seen == {(False, grad_mode == "inference_mode")}


def test_channels_last_reaches_model_and_input(images):
    seen = set()

    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            layout = torch.channels_last
            seen.add(
                (
                    x.is_contiguous(memory_format=layout),
                    self.conv.weight.is_contiguous(memory_format=layout),
                )
            )
            return self.conv(x)

    pb.compare(Looks(), images, backends=[], reference="eager:memory_format=channels_last", **QUICK)
    assert seen == {(True, True)}


def test_contiguous_is_contiguous_even_for_a_model_in_channels_last(images):
    strides = set()

    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x):
            strides.add((x.stride(), self.conv.weight.stride()))
            return self.conv(x)

    layout = torch.channels_last
    pb.compare(
        Looks().to(memory_format=layout), images.to(memory_format=layout), backends=[], **QUICK
    )
    assert strides == {((768, 256, 16, 1), (3, 1, 1, 1))}


def test_channels_last_without_images_says_that_it_changes_nothing():
    spec = "eager:memory_format=channels_last"
    comparison = pb.compare(nn.Linear(4, 4), torch.rand(2, 4), backends=[spec], **QUICK)
    assert comparison[spec].warnings[0].startswith("channels_last has no effect")
    assert "channels_last has no effect" in str(comparison)


def test_fp32_is_fp32_even_for_a_model_in_another_dtype(images):
    comparison = pb.compare(
        nn.Conv2d(3, 4, 3).to(torch.bfloat16), images.to(torch.bfloat16), backends=[], **QUICK
    )
    assert comparison["eager"].details == {"cast_from": ["bfloat16"]}


def test_tf32_on_a_cpu_is_a_row_that_could_not_run(cnn, images):
    comparison = pb.compare(cnn, images, backends=["eager:precision=tf32"], **QUICK)
    with pytest.raises(BackendUnavailableError, match="compute capability 8.0|CUDA device"):
        comparison["eager:precision=tf32"]


# A comparison changes neither the model nor torch's state.


def test_the_model_is_never_changed(cnn, images):
    cnn.train()
    before = {name: tensor.clone() for name, tensor in cnn.state_dict().items()}
    image = images.clone()
    pb.compare(
        cnn,
        images,
        backends=["half", "half:dtype=bfloat16,memory_format=channels_last"],
        **QUICK,
    )
    after = cnn.state_dict()
    assert cnn.training
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32, torch.int64}
    assert cnn.conv.weight.is_contiguous()
    assert not cnn._forward_hooks
    assert torch.equal(image, images)


def test_torch_and_every_random_state_are_as_before(cnn, images):
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    flags, functions = read_flags(), Functions.now()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    pb.compare(lambda: nn.Conv2d(3, 4, 3), images, backends=["half"], **QUICK)
    assert read_flags() == flags
    assert functions.changes() == []
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()
    assert torch.is_grad_enabled()


def test_a_comparison_prints_nothing_and_warns_of_nothing(cnn, images, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pb.compare(cnn, images, backends=["half"], **QUICK)
    assert capfd.readouterr() == ("", "")


def test_autocast_around_a_comparison_changes_no_row(images):
    seen = set()

    class Looks(nn.Module):
        def forward(self, x):
            seen.add((x @ x.mT).dtype)
            return x * 1

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.rand(2, 2).matmul(torch.rand(2, 2)).dtype == torch.bfloat16
        pb.compare(Looks(), images, backends=[], **QUICK)
        assert torch.is_autocast_enabled("cpu")
    assert seen == {torch.float32}


def test_the_model_gets_copies_of_all_inputs(images):
    class Cache:
        def __init__(self):
            self.entries = []

    class Writes(nn.Module):
        def forward(self, x, cache, array):
            cache.entries.append(1)
            array += 1
            return x * 1

    cache, array = Cache(), np.zeros(3)
    pb.compare(Writes(), (images, cache, array), backends=[], **QUICK)
    assert cache.entries == []
    assert (array == 0).all()


def test_complex_weights_keep_their_imaginary_parts(images):
    class Spectral(nn.Module):
        def __init__(self):
            super().__init__()
            self.filter = nn.Parameter(torch.full((16, 9), 1j, dtype=torch.complex128))

        def forward(self, x):
            assert self.filter.dtype == torch.complex64
            return torch.fft.irfft2(torch.fft.rfft2(x.float()) * self.filter)

    comparison = pb.compare(Spectral(), images, backends=["half"], **QUICK)
    assert comparison["half"].agreement.cosine == pytest.approx(1, abs=1e-3)
    assert comparison["half"].warnings[0].startswith("the model's complex weights stay complex64")
    assert comparison["eager"].details == {"cast_from": ["complex128"]}
    expected = torch.fft.irfft2(torch.fft.rfft2(images) * 1j)
    assert expected.abs().max() > 0.1, "the imaginary part matters here"


def test_comparisons_of_several_threads_run_one_after_another(cnn, images):
    events: list[str] = []

    def compare(name: str) -> None:
        def on_progress(progress: pb.Progress) -> None:
            events.append(f"{name} {progress.stage}")

        pb.compare(cnn, images, backends=["half"], on_progress=on_progress, **QUICK)

    threads = [threading.Thread(target=compare, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = ["preparing", "measuring", "done"] * 2
    first = events[0][0]
    second = "b" if first == "a" else "a"
    assert events == [f"{name} {stage}" for name in (first, second) for stage in whole]


def test_a_callback_may_compare_something_itself(cnn, images):
    inner = []

    def on_progress(progress: pb.Progress) -> None:
        if progress.stage == "done":
            inner.append(pb.compare(cnn, images, backends=[], **QUICK))

    assert len(pb.compare(cnn, images, backends=["half"], on_progress=on_progress, **QUICK)) == 2
    assert [len(comparison) for comparison in inner] == [1, 1]


def test_a_factory_that_returns_the_users_model_gets_it_copied(cnn, images):
    """Half casts what it is given: the user's weights must not be among that."""
    wrapped = [lambda: cnn, lambda: nn.Sequential(cnn), lambda: (cnn, images)]
    for factory in wrapped:
        comparison = pb.compare(factory, images, backends=["half", "eager"], **QUICK)
        assert {parameter.dtype for parameter in cnn.parameters()} == {torch.float32}
        assert comparison["eager"].details == {}, "it was given float32 weights"


def test_a_patch_made_while_building_the_model_is_a_warning_in_every_row(
    images,
):
    def factory():
        torch.nn.functional.gelu = lambda x: x
        torch.backends.cudnn.benchmark = True
        return nn.Conv2d(3, 4, 3)

    with functions_restored():
        comparison = pb.compare(factory, images, backends=["half"], **QUICK)
        for row in comparison:
            assert row.flags["cudnn.benchmark"] is False
            assert row.warnings[0].startswith(
                "importing or building the model or a plugin patched torch for the whole process "
                "(torch.nn.functional.gelu)"
            )
    assert len(comparison) == 2
    assert torch.backends.cudnn.benchmark is False


@pytest.mark.slow
def test_a_compiled_model_is_compiled_for_every_row(images):
    """TorchDynamo counts by code, and gives up after 8 compilations of the same forward."""
    seen = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x)

    def backend(module, example):
        seen.append(example)
        return module.forward

    compiled = torch.compile(Net(), backend=backend)
    rows = [
        f"{backend},memory_format={layout},grad_mode={mode}"
        for backend in ("eager:precision=fp32", "half:dtype=float16", "half:dtype=bfloat16")
        for layout in ("contiguous", "channels_last")
        for mode in ("inference_mode", "no_grad")
    ]
    comparison = pb.compare(compiled, images, backends=rows, **{**QUICK, "budget_s": 1.2})
    assert not comparison.failures
    assert len(seen) >= len(rows) > 8


def test_an_interruption_leaves_everything_as_it_was(cnn, images):
    flags, functions = read_flags(), Functions.now()

    def on_progress(progress: pb.Progress) -> None:
        if progress.stage == "measuring":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pb.compare(cnn, images, backends=["half"], on_progress=on_progress, **QUICK)
    assert read_flags() == flags
    assert functions.changes() == []
    assert not torch.is_inference_mode_enabled()


@pytest.fixture
def default_sigint() -> Iterator[None]:
    """Python's own handler of Ctrl-C is in force, as it is not in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c_at(row: str, stage: str) -> Callable[[pb.Progress], None]:
    def tell(progress: pb.Progress) -> None:
        if (progress.backend, progress.stage) == (row, stage):
            signal.raise_signal(signal.SIGINT)

    return tell


@pytest.mark.usefixtures("default_sigint")
@pytest.mark.parametrize("stage", ["preparing", "measuring"])
def test_a_first_ctrl_c_keeps_the_rows_that_were_measured_in_this_process(cnn, images, stage):
    rows = ["eager", "half", "autocast"]
    found = pb.compare(cnn, images, backends=rows, on_progress=ctrl_c_at("half", stage), **QUICK)
    assert [row.backend for row in found.results] == ["eager"]
    assert found["eager"].measurement.ended_by == "interrupted"
    assert {failure.reason for failure in found.failures} == {"interrupted before its first round"}
    assert len(found.failures) == 2


@pytest.mark.usefixtures("default_sigint")
def test_a_first_ctrl_c_while_a_row_is_undone_keeps_it(cnn, images):
    class Presses(Base):
        @contextmanager
        def steps(self, model, inputs):
            yield inputs.bind(model)
            signal.raise_signal(signal.SIGINT)

    found = run(Presses(), cnn, images, reference=Presses())
    assert [row.measurement.ended_by for row in found.results] == ["interrupted"]


@pytest.mark.usefixtures("default_sigint")
@pytest.mark.parametrize("stage", ["preparing", "measuring"])
def test_a_ctrl_c_before_the_first_round_of_all_is_raised(cnn, images, stage):
    with pytest.raises(KeyboardInterrupt):
        pb.compare(cnn, images, on_progress=ctrl_c_at("eager", stage), backends=["half"], **QUICK)


def test_a_callback_that_fails_is_not_called_again_and_a_note_says_so(cnn, images):
    called: list[pb.Progress] = []

    def on_progress(progress: pb.Progress) -> None:
        called.append(progress)
        raise ZeroDivisionError("oh")

    comparison = pb.compare(cnn, images, backends=["half"], on_progress=on_progress, **QUICK)
    assert len(called) == 1
    assert len(comparison.results) == 2
    assert any("on_progress failed (ZeroDivisionError: oh)" in n for n in comparison.data.notes)


def test_a_display_that_fails_at_the_end_costs_nothing(cnn, images, monkeypatch):
    @contextmanager
    def failing(_):
        yield None
        raise OSError("the terminal is gone")

    monkeypatch.setattr(compare, "shown", failing)
    comparison = pb.compare(cnn, images, backends=["half"], **QUICK)
    assert len(comparison.results) == 2
    assert (
        "precisionbench itself failed (OSError: the terminal is gone)" in comparison.data.notes[-1]
    )


# One backend that fails is a row with a reason; the others are measured.


def test_a_plugin_that_is_unavailable(cnn, images):
    class Missing(Base):
        def check_available(self):
            raise BackendUnavailableError("a flux capacitor", "build one")

    row = failure(Missing(), cnn, images)
    assert (row.error, row.reason, row.remedy) == (
        "BackendUnavailableError",
        "requires a flux capacitor",
        "build one",
    )


def test_a_plugin_whose_check_fails(cnn, images):
    class Faulty(Base):
        def check_available(self):
            raise KeyError("x")

    assert failure(Faulty(), cnn, images).reason == "its check_available failed (KeyError: 'x')"


@pytest.mark.parametrize("where", ["check", "prepare", "call"])
def test_a_plugin_that_exits_is_a_row_that_failed(cnn, images, where):
    class Exits(Base):
        def check_available(self):
            if where == "check":
                sys.exit("no licence")

        @contextmanager
        def steps(self, model, inputs):
            if where == "prepare":
                sys.exit("no licence")
            yield (lambda: sys.exit("no licence")) if where == "call" else inputs.bind(model)

    assert "SystemExit: no licence" in failure(Exits(), cnn, images).reason


def test_a_plugin_that_cannot_prepare(cnn, images):
    class Faulty(Base):
        @contextmanager
        def steps(self, model, inputs):
            raise OSError("no engine\nwith details")
            yield

    row = failure(Faulty(), cnn, images)
    assert row.error == "PreparationError"
    assert row.reason == "it could not prepare the model (OSError: no engine)"


def test_a_plugin_that_forgot_its_decorator(cnn, images):
    class Faulty(Base):
        def steps(self, model, inputs):
            yield inputs.bind(model)

    assert "decorate it with @contextlib.contextmanager" in failure(Faulty(), cnn, images).remedy


def test_a_plugin_that_yields_nothing_callable(cnn, images):
    class Faulty(Base):
        @contextmanager
        def steps(self, model, inputs):
            yield 3

    assert failure(Faulty(), cnn, images).reason == "its prepare yielded an int"


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_plugin_whose_cleanup_fails_keeps_its_row(cnn, images, error):
    class Faulty(Base):
        @contextmanager
        def steps(self, model, inputs):
            yield inputs.bind(model)
            raise error("stuck")

    row = run(Faulty(), cnn, images)["mine"]
    text = f"after the measurement: its cleanup failed ({error.__name__}: stuck)"
    assert text in row.warnings
    assert row.measurement.blocks


@pytest.mark.uncounted
@pytest.mark.parametrize(
    ("blocks", "calls"),
    [
        pytest.param(3, 0, id="rounds"),
        pytest.param(6, 0, id="last call", marks=pytest.mark.slow),
        pytest.param(6, 1, id="profile", marks=pytest.mark.slow),
    ],
)
def test_a_row_that_fails_late_keeps_its_rounds(cnn, images, tmp_path, blocks, calls):
    """In this process, too; in a worker: test_faults.py."""
    journal, late = tmp_path / "journal", itertools.count()

    class Faulty(Base):
        @contextmanager
        def steps(self, model, inputs):
            call = inputs.bind(model)

            def called():
                written = journal.read_text().count('"of": "mine"')
                if written >= blocks and next(late) >= calls:
                    raise ValueError("too late")
                return call()

            yield called

    options = {**QUICK, "effort": "quick", "budget_s": 6.0, "evidence": True}
    comparison = run(Faulty(), cnn, images, journal=journal, **options)
    row = comparison["mine"]
    assert len(row.measurement.rounds) == blocks
    assert (row.measurement.ended_by == "failed") is (blocks < 6)
    unknown = row.evidence.unknown.values() if row.evidence else ()
    assert any("ValueError: too late" in text for text in (*row.warnings, *unknown))
    assert comparison["eager"].evidence is not None


def test_a_plugin_that_leaves_torch_patched_is_named_and_undone(cnn, images):
    class Leaky(Base):
        @contextmanager
        def steps(self, model, inputs):
            torch.nn.functional.relu = lambda x: x
            torch.backends.cudnn.benchmark = True
            yield inputs.bind(model)

    with functions_restored() as functions:
        row = failure(Leaky(), cnn, images)
        assert row.error == StateLeakError.__name__
        assert "torch.nn.functional.relu" in row.reason
        assert functions.changes() == []
    assert torch.backends.cudnn.benchmark is False


def test_many_leaked_patches_are_summarized(cnn, images):
    class Leaky(Base):
        @contextmanager
        def steps(self, model, inputs):
            for name in ("relu", "gelu", "silu", "mish", "elu"):
                setattr(torch.nn.functional, name, None)
            yield lambda: 0

    with functions_restored():
        assert "and 2 more" in failure(Leaky(), cnn, images).reason


def test_cleanup_runs_even_when_the_call_fails(cnn, images):
    cleaned = []

    class Faulty(Base):
        @contextmanager
        def steps(self, model, inputs):
            yield lambda: 1 / 0
            cleaned.append(True)  # no try/finally: a plugin must not need one

    row = failure(Faulty(), cnn, images)
    assert row.error == "ExecutionError"
    assert cleaned == [True]


def test_a_call_that_fails_only_later_is_a_failure_too(cnn, images):
    calls = []

    class Faulty(Base):
        @contextmanager
        def steps(self, model, inputs):
            def call():
                calls.append(1)
                if len(calls) > 4:
                    raise RuntimeError("worn out")

            yield call

    assert "worn out" in failure(Faulty(), cnn, images).reason


class OnlyFloat(nn.Module):
    def forward(self, x):
        if x.dtype != torch.float32:
            raise RuntimeError("expected scalar type Float but found Half")
        return x


def test_a_model_that_takes_no_half_is_a_failure_with_a_remedy(images):
    comparison = pb.compare(OnlyFloat(), images, backends=["half"], **QUICK)
    assert comparison.failures[0].remedy.startswith("an operation of the model does not take")
    with pytest.raises(ExecutionError, match="half: the model failed in forward"):
        comparison["half"]


def test_a_model_that_fails_everywhere_raises_its_own_error_chained(images):
    class Broken(nn.Module):
        def forward(self, x):
            raise IndexError("off by one")

    with pytest.raises(ExecutionError) as caught:
        pb.compare(Broken(), images, backends=["half"], **QUICK)
    assert str(caught.value).startswith(
        "eager: the model failed in forward (IndexError: off by one); "
    )
    assert isinstance(caught.value.__cause__, IndexError)


def test_a_failed_row_raises_with_its_own_cause_while_it_is_at_hand(images, tmp_path):
    comparison = pb.compare(OnlyFloat(), images, backends=["half"], **QUICK)
    with pytest.raises(ExecutionError) as caught:
        comparison["half"]
    assert isinstance(caught.value.__cause__, RuntimeError)
    comparison.save(tmp_path / "r.json")
    with pytest.raises(ExecutionError) as caught:
        pb.load(tmp_path / "r.json")["half"]
    assert caught.value.__cause__ is None


def test_an_unavailable_reference_does_not_hide_another_rows_error(images):
    class Missing(Base):
        def check_available(self):
            raise BackendUnavailableError("a flux capacitor")

    class Broken(nn.Module):
        def forward(self, x):
            raise IndexError("off by one")

    with pytest.raises(ExecutionError, match="half: the model failed in forward"):
        pb.compare(Broken(), images, backends=["half"], reference=Missing(), **QUICK)


def test_a_forward_that_needs_gradients_fails_with_a_remedy(images):
    class Differentiates(nn.Module):
        def forward(self, x):
            return torch.autograd.grad((x * x).sum(), x)[0]

    with pytest.raises(ExecutionError, match="add grad_mode=no_grad to the spec"):
        pb.compare(Differentiates(), images, backends=[], **QUICK)


def test_a_reference_that_fails_leaves_the_others_measured(images):
    class OnlyHalf(nn.Module):
        def forward(self, x):
            if x.dtype != torch.float16:
                raise RuntimeError("half only")
            return x * 1

    comparison = pb.compare(OnlyHalf(), images, backends=["half"], **QUICK)
    assert [row.backend for row in comparison.results] == ["half"]
    assert comparison["half"].agreement is None
    with pytest.raises(ExecutionError, match="half only"):
        comparison.speedup("half")


class TakesMemory(nn.Module):
    """Fits up to so many items."""

    def __init__(self, items: int, error: Exception) -> None:
        super().__init__()
        self.items, self.error = items, error

    def forward(self, x):
        if len(x) > self.items:
            raise self.error
        return x


OUT_OF_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "cpu", "python"])
def test_the_error_for_a_batch_that_does_not_fit_names_one_that_does(error):
    with pytest.raises(OutOfMemoryError) as caught:
        pb.compare(TakesMemory(5, error), torch.rand(32, 3), backends=[], **QUICK)
    assert str(caught.value).startswith("eager: batch 32: it does not fit in memory (")
    assert str(caught.value).endswith("; batch 4 fits")
    assert isinstance(caught.value.__cause__, type(error))


def test_the_error_says_where_no_batch_fits():
    with pytest.raises(OutOfMemoryError, match="batch 1 does not fit either"):
        pb.compare(TakesMemory(0, MemoryError()), torch.rand(4, 3), backends=[], **QUICK)
    with pytest.raises(OutOfMemoryError, match="^eager: it does not fit .*use smaller inputs"):
        pb.compare(Unsized(), torch.tensor(1.0), backends=[], **QUICK)


def test_the_error_for_a_model_of_fixed_batch_size_does_not_say_that_none_fits():
    class OnlyFour(TakesMemory):
        def forward(self, x):
            if len(x) < 4:
                raise ValueError("4 items, please")
            return super().forward(x)

    with pytest.raises(OutOfMemoryError, match=r"use a smaller batch \(these inputs could not be"):
        pb.compare(OnlyFour(0, MemoryError()), torch.rand(4, 3), backends=[], **QUICK)


class Unsized(nn.Module):
    def forward(self, x):
        raise MemoryError


def test_preparation_may_run_out_of_memory_too(cnn, images):
    class Hungry(Base):
        @contextmanager
        def steps(self, model, inputs):
            if len(inputs.args[0]) > 2:
                raise MemoryError
            yield inputs.bind(model)

    row = failure(Hungry(), cnn, images)
    assert (row.error, row.remedy) == ("OutOfMemoryError", "batch 2 fits")


def test_after_a_lost_device_all_further_rows_fail(cnn, images, monkeypatch):
    """The real thing needs a GPU: test_gpu.py breaks one."""

    class Fatal(Base):
        @contextmanager
        def steps(self, model, inputs):
            monkeypatch.setattr(guards, "device_is_lost", lambda: True)
            yield lambda: 1 / 0

    comparison = pb.compare(cnn, images, backends=[Fatal(), "half"], **QUICK)
    assert [row.backend for row in comparison.results] == ["eager"]
    assert [row.error for row in comparison.failures] == ["DeviceError", "DeviceError"]
    assert comparison.failures[1].reason == "the device stopped responding in mine"


# What a plugin reports besides its times.


def test_a_plugins_warnings_are_shown_and_other_output_goes_to_the_log(cnn, images):
    class Chatty(Base):
        @contextmanager
        def steps(self, model, inputs):
            warnings.warn("mind the gap; step over it", PrecisionBenchWarning, stacklevel=1)
            warnings.warn("deprecated", FutureWarning, stacklevel=1)
            print("building")
            print("engine", file=sys.stderr)
            yield Prepared(inputs.bind(model), model, {"layers": 3, "path": object})

    comparison = run(Chatty(), cnn, images)
    row = comparison["mine"]
    assert row.warnings[0] == "mind the gap; step over it"
    assert row.log == ("building", "engine", "FutureWarning: deprecated")
    assert row.details == {"layers": 3, "path": "<class 'object'>"}
    assert "mine: mind the gap" in str(comparison)


def test_output_of_a_plugins_cleanup_is_kept(cnn, images, capfd):
    class Late(Base):
        @contextmanager
        def steps(self, model, inputs):
            yield inputs.bind(model)
            print("unloading")
            warnings.warn("the engine was slow to end", PrecisionBenchWarning, stacklevel=1)

    row = run(Late(), cnn, images)["mine"]
    assert row.log == ("unloading",)
    assert row.warnings[0] == "the engine was slow to end"
    assert capfd.readouterr() == ("", "")


def test_details_of_any_kind_are_kept_as_json(cnn, images):
    class Odd(Base):
        @contextmanager
        def steps(self, model, inputs):
            details = {(3, 3): float("nan"), "sizes": (1, 2), "deep": {"path": object}}
            yield Prepared(inputs.bind(model), model, details)

    comparison = run(Odd(), cnn, images)
    assert comparison["mine"].details == {
        "(3, 3)": "nan",
        "sizes": [1, 2],
        "deep": {"path": "<class 'object'>"},
    }
    assert "nan" in comparison.to_json()


@pytest.mark.parametrize("kind", ["no mapping", "holds itself"])
def test_details_that_cannot_be_kept_are_a_failure(cnn, images, kind):
    endless: dict[str, Any] = {}
    endless["itself"] = endless

    class Odd(Base):
        @contextmanager
        def steps(self, model, inputs):
            yield Prepared(inputs.bind(model), model, 5 if kind == "no mapping" else endless)

    assert failure(Odd(), cnn, images).reason.startswith("its details cannot be recorded (")


def test_output_of_a_factory_goes_to_the_log(images, capfd):
    def factory():
        print("building")
        return nn.Conv2d(3, 4, 3)

    comparison = pb.compare(factory, images, backends=[], **QUICK)
    assert comparison["eager"].log == ("building",)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["grows", "is random", "changes its inputs"])
def test_an_output_that_changes_from_call_to_call_is_noted(images, kind):
    class Unsteady(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            if kind == "grows":
                return x[:1].expand(self.calls, -1, -1, -1)
            return x + torch.rand_like(x) if kind == "is random" else x.add_(1)

    comparison = pb.compare(Unsteady(), images, backends=[], **QUICK)
    assert (
        comparison["eager"]
        .warnings[0]
        .startswith("the last call's output differs from the first's")
    )


def test_an_output_without_tensors_is_compared_with_nothing(images):
    class Silent(nn.Module):
        def forward(self, x):
            return None

    comparison = pb.compare(Silent(), images, backends=["half"], **QUICK)
    assert comparison["half"].agreement.caveats == (
        "the output holds no tensor, so there is nothing to compare",
    )
    assert "see notes" in str(comparison)
    assert not any("first's" in warning for warning in comparison["half"].warnings)


def test_an_output_that_is_a_generator_is_refused(images):
    class Lazy(nn.Module):
        def forward(self, x):
            return (row * 2 for row in x)

    with pytest.raises(ExecutionError, match="returned a generator, which computes only when"):
        pb.compare(Lazy(), images, backends=[], **QUICK)


def test_output_of_every_call_is_logged_once(images, capfd):
    class Talks(nn.Module):
        def forward(self, x):
            print("hello")
            warnings.warn("careful", UserWarning, stacklevel=1)
            return x * 1

    comparison = pb.compare(Talks(), images, backends=[], **QUICK)
    assert comparison["eager"].log == ("hello", "UserWarning: careful")
    assert capfd.readouterr() == ("", "")


def test_inputs_that_do_not_fit_in_memory_are_a_failure(cnn, images, monkeypatch):
    def full(self):
        if len(self.inputs.args[0]) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return self.inputs

    monkeypatch.setattr(Workload, "make_inputs", full)
    with pytest.raises(OutOfMemoryError, match="batch 1 fits"):
        pb.compare(cnn, images, backends=[], **QUICK)


# Arguments.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"launcher": "cloud"}, "there is no launcher 'cloud'"),
        ({"seed": -1}, "seed is -1; give a whole number from 0 to 2**63 - 1"),
        ({"seed": 2**63}, "seed is 9223372036854775808; give"),
        ({"seed": True}, "seed is True"),
        ({"on_progress": 5}, "on_progress is 5; give a function"),
        ({"budget_s": 0}, "budget_s is 0; give a number of seconds above 0"),
        ({"budget_s": float("inf")}, "budget_s is inf"),
        ({"budget_s": "1"}, "budget_s is '1'"),
        ({"backends": "half"}, "backends is 'half'; give a list"),
        ({"backends": 5}, "backends is 5; give a list of specs"),
        ({"backends": ["hlaf"]}, "did you mean 'half'"),
        ({"reference": "half:x=1"}, "has no option 'x'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_built(options, message):
    def never():
        raise AssertionError("was built")

    with pytest.raises(SpecError) as caught:
        pb.compare(never, **{**QUICK, **options})
    assert message in str(caught.value)


def test_a_bad_workload_is_refused_before_anything_is_measured(cnn):
    with pytest.raises(WorkloadError, match="did you mean the tuple"):
        pb.compare(cnn, [torch.rand(2, 3, 8, 8)], device="cpu")


def test_the_default_backends_are_valid_specs():
    rows, reference = compare.plan(compare.DEFAULT_BACKENDS)
    assert reference == "eager"
    assert [row.name for row in rows] == list(compare.DEFAULT_BACKENDS)


def test_a_slow_model_ends_with_the_budget_and_has_a_warning():
    class Slow(nn.Module):
        def forward(self, x):
            time.sleep(0.1)
            return x

    comparison = pb.compare(Slow(), torch.rand(2, 3), backends=[], **{**QUICK, "budget_s": 0.35})
    measurement = comparison["eager"].measurement
    assert measurement.ended_by == "budget"
    assert 1 <= len(measurement.blocks) < 6
    assert "the budget ended after" in comparison["eager"].warnings[0]


@pytest.fixture
def clock() -> FakeClock:
    """The clock of the calls and of the budget."""
    return FakeClock()


@attrs.frozen
class PreparedBackend:
    """A prepared backend whose calls take these times on a clock of the test's own."""

    clock: FakeClock
    durations_s: Iterator[float]
    call_s: float = 0.01

    @property
    def opening(self) -> Opening:
        return Opening("fake", 1e-9, 200e-6, 0.5, 3.0, 3, self.call_s, {}, {})

    def block(self, samples, calls_per_sample, settle_calls):
        call = lambda: self.clock.work(next(self.durations_s))()  # noqa: E731
        return Timer(self.clock).block(call, samples, calls_per_sample, settle_calls)


def measured(prepared: PreparedBackend, budget_s: float) -> Measurement:
    row_state = RowState("mine", [prepared])
    schedule = Schedule(budget_s, "mine", random.Random(0), now=lambda: prepared.clock.now_s)
    return row_state.measurement(run_rounds([row_state], schedule))


def test_a_steady_model_ends_when_its_interval_is_narrow(clock):
    measurement = measured(PreparedBackend(clock, itertools.repeat(0.01)), 8.0)
    assert measurement.ended_by == "target"
    assert 0.3 <= (measurement.warmup_calls - 3) * 0.01 < 0.5
    assert [len(block.samples) for block in measurement.blocks] == [5] * 12
    assert few_rounds_warnings(measurement) == ()


def test_a_steady_model_ends_with_the_budget_where_that_is_short(clock):
    measurement = measured(PreparedBackend(clock, itertools.repeat(0.01)), 0.1)
    assert measurement.ended_by == "budget"
    assert sum(len(block.samples) for block in measurement.blocks) * 0.01 <= 0.1


def test_a_noisy_model_ends_after_the_last_round(clock):
    draw = random.Random(0)
    durations = (draw.uniform(0.01, 0.05) for _ in itertools.count())
    measurement = measured(PreparedBackend(clock, durations), 90.0)
    assert measurement.ended_by == "rounds"
    assert len(measurement.blocks) == 100


def test_short_calls_are_measured_several_at_a_time(clock):
    measurement = measured(PreparedBackend(clock, itertools.repeat(50e-6), 50e-6), 8.0)
    assert measurement.calls_per_sample == 4
    assert measurement.blocks[0].samples[0] == pytest.approx(50e-6)


# Any model.


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...]


class Transformer(nn.Module):
    """Keyword inputs of integers, and a dict with a dataclass as output."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 50)

    def forward(self, *, input_ids, attention_mask=None):
        assert input_ids.dtype == torch.int64, "integers stay integers"
        hidden = self.encoder(self.embedding(input_ids), src_key_padding_mask=~attention_mask)
        return {"out": Output(self.head(hidden), (hidden,)), "loss": None}


def test_a_transformer_with_keyword_inputs_and_dict_output():
    inputs = {
        "input_ids": torch.randint(0, 50, (3, 7)),
        "attention_mask": torch.ones(3, 7, dtype=torch.bool),
    }
    comparison = pb.compare(Transformer(), inputs, backends=["half:dtype=bfloat16"], **QUICK)
    tensors = comparison["half:dtype=bfloat16"].agreement.tensors
    assert [tensor.path for tensor in tensors] == ["['out'].logits", "['out'].hidden[0]"]
    assert comparison.data.workload.batch_size == 3
    assert comparison.data.workload.inputs[0].dtype == "int64"


def test_an_lstm_with_tuple_output():
    lstm = nn.LSTM(8, 8, batch_first=True)
    comparison = pb.compare(lstm, torch.rand(3, 5, 8), backends=["half:dtype=bfloat16"], **QUICK)
    paths = [tensor.path for tensor in comparison.results[1].agreement.tensors]
    assert paths == ["[0]", "[1][0]", "[1][1]"]


@pytest.mark.slow
def test_a_detection_model_with_list_inputs():
    comparison = pb.compare(
        "torchvision:ssdlite320_mobilenet_v3_large",
        backends=["eager", "half:dtype=bfloat16"],
        batch_size=2,
        **{**QUICK, "budget_s": 1},
    )
    assert comparison.data.workload.batch_size == 2
    assert "[0]['boxes']" in [tensor.path for tensor in comparison["eager"].agreement.tensors]
    names = {row.backend for row in (*comparison.results, *comparison.failures)}
    assert names == {"eager", "half:dtype=bfloat16"}
    for failed in comparison.failures:  # torchvision's own operators take no bfloat16 on some CPUs
        assert failed.remedy.startswith("an operation of the model does not take this dtype")


@pytest.mark.slow
def test_a_cnn_by_name():
    name = "torchvision:shufflenet_v2_x0_5"
    comparison = pb.compare(name, batch_size=1, **{**QUICK, "budget_s": 2})
    assert comparison["half"].agreement.relative_l2 < 5e-3
    assert comparison.data.workload.model == name


def test_preparation_errors_of_a_plugin_are_kept_unchanged(cnn, images):
    class Own(Base):
        @contextmanager
        def steps(self, model, inputs):
            raise PreparationError("the moon is not full", "wait")
            yield

    row = failure(Own(), cnn, images)
    assert (row.reason, row.remedy) == ("the moon is not full", "wait")


def test_chosen_layers_of_a_half_model_stay_in_float32(images):
    seen = {}

    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

        def forward(self, x):
            y = self.body(x).mean((2, 3))
            seen["between"] = y.dtype
            return self.head(y)

    found = pb.compare(
        Looks(), images, backends=["half:dtype=bfloat16,fp32_layers=body+head"], **QUICK
    )
    assert seen["between"] is torch.bfloat16
    row = found.results[1]
    assert row.agreement.tensors[0].dtype == "bfloat16"
    assert row.agreement.relative_l2 < 1e-2


def test_weights_of_layers_that_stay_in_float32_are_not_rounded():
    from precisionbench.backends.fp32_layers import cast_but_for

    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)).eval()
    whole = [parameter.clone() for parameter in model[2].parameters()]
    changed = cast_but_for(model, "1+2", torch.bfloat16)
    assert all(map(torch.equal, changed[2].parameters(), whole))
    assert changed[1].running_var.dtype == torch.float32
    assert changed[0].weight.dtype == torch.bfloat16
    assert changed(torch.ones(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("paths", ["0+0.1", "0.1+0", "0+0"])
def test_a_layer_inside_another_one_that_stays_in_float32_gets_its_input_in_float32(paths):
    from precisionbench.backends.fp32_layers import cast_but_for

    block = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    changed = cast_but_for(nn.Sequential(block, nn.Linear(8, 8)), paths, torch.bfloat16)
    assert changed(torch.ones(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert all(parameter.dtype == torch.float32 for parameter in block.parameters())


def test_a_layer_that_does_not_exist_is_named(images):
    found = pb.compare(
        nn.Sequential(nn.Flatten()), images, backends=["half:fp32_layers=9"], **QUICK
    )
    assert "no module '9'" in found.failures[0].reason


@attrs.frozen
class Importing(Base):
    """Has its engine imported while the worker starts; the other module is not installed."""

    imports: ClassVar[tuple[str, ...]] = ("no_such_engine", "sched")

    def steps(self, model, inputs):
        assert "sched" in sys.modules
        return super().steps(model, inputs)


def test_a_worker_imports_the_engine_while_it_starts(cnn, images):
    options = {"launcher": "process", "replicas": 1, "effort": "quick"}
    assert "mine" in run(Importing(), cnn, images, **options)


@pytest.mark.slow  # measures rows twice
def test_rows_that_are_built_together_are_measured_like_others(cnn, images):
    found = pb.compare(
        cnn,
        images,
        backends=["eager", "half:dtype=bfloat16", "eager:grad_mode=no_grad"],
        device="cpu",
        replicas=2,
        budget_s=3,
        evidence=False,
        build_together=True,
    )
    assert [row.backend for row in found] == [
        "eager",
        "half:dtype=bfloat16",
        "eager:grad_mode=no_grad",
    ]
    assert {row.measurement.preparations[0].build_s > 0 for row in found} == {True}
    assert all(len({block.replica for block in row.measurement.blocks}) == 2 for row in found)
