"""A backend is prepared, called for the first time, and undone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import ClassVar

import attrs
import pytest
import torch

from precisionbench.backends.eager import Eager
from precisionbench.backends.float64 import Float64
from precisionbench.measure.worker.opening import opened
from precisionbench.model.workload import resolve
from precisionbench.torchtools.timer import HostClock, Timer


def test_memory_taken_by_rows_built_at_the_same_time_is_not_attributed_to_a_row(cnn, images):
    workload = resolve(cnn, images, device="cpu", seed=0)
    with opened(Eager(), workload, Timer(HostClock(workload.device))) as one:
        disturbed = attrs.evolve(one, driver_bytes=1 << 30)
        assert disturbed.recalibrated().driver_bytes is None


def test_a_block_takes_no_longer_than_a_few_times_what_was_planned(cnn, images):
    """On a busy machine calls can become a hundred times as slow: one block took 25 s."""
    workload = resolve(cnn, images, device="cpu", seed=0)
    with opened(Eager(), workload, Timer(HostClock(workload.device))) as one:
        opening = attrs.evolve(one.opening, call_s=1e-4)
        slow = attrs.evolve(one, opening=opening, call=lambda: time.sleep(0.05))
        assert len(slow.block(500, 1, 0)) < 20


def test_a_row_of_which_only_the_output_is_needed_is_called_once(cnn, images):
    """The model in float64, which takes seconds for each call on some devices."""
    workload = resolve(cnn, images, device="cpu", seed=0)
    with opened(Float64(), workload, Timer(HostClock(workload.device))) as one:
        assert one.opening.warmup_calls == 0
        assert one.opening.call_s == one.opening.first_call_s
        assert {tensor.dtype for tensor in one.output.values()} == {torch.float64}


def test_in_float64_padding_is_computed_as_it_is_in_float32():
    """The fast path of nn.TransformerEncoder gives 0 at padding, and the other one does not."""
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 2).eval()
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[:, 4:] = True
    inputs = {"src": torch.rand(2, 6, 16), "src_key_padding_mask": padding}
    workload = resolve(model, inputs, device="cpu", seed=0)
    with opened(Float64(), workload, Timer(HostClock(workload.device))) as one:
        (output,) = one.output.values()
    with torch.inference_mode():
        expected = model(**inputs)
    assert (output - expected).norm() / expected.norm() < 1e-5


class Compiles(Eager):
    """Stands for a backend that compiles, which keeps one core busy."""

    tunes_by_timing: ClassVar[bool] = True


@pytest.mark.parametrize(
    ("backend", "begins_before"), [(Eager(), "building"), (Compiles(), "first call")]
)
def test_on_a_cpu_the_calls_of_one_process_at_a_time_are_made(cnn, images, backend, begins_before):
    """Threads of calls in several processes would wait for each other, without a core for each."""
    done = []

    @contextlib.contextmanager
    def turn() -> Iterator[None]:
        done.append("begin")
        yield
        done.append("end")

    workload = resolve(cnn, images, device="cpu", seed=0)
    with opened(backend, workload, Timer(HostClock(workload.device)), done.append, turn=turn):
        assert done[done.index("begin") + 1] == begins_before
        assert done[-2:] == ["warm-up calls", "end"]
