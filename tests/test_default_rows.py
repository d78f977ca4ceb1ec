"""Which rows are measured where the user names none, and which of them are left out as too slow."""

from __future__ import annotations

import sysconfig
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import torch
from torch import nn

import precisionbench as pb
from made_up_results import comparison_data
from precisionbench.backends import Backend
from precisionbench.backends.inductor import has_toolchain
from precisionbench.cli.thresholds import exit_if_missed
from precisionbench.comparison import Comparison
from precisionbench.errors import RowNotFoundError, SpecError
from precisionbench.measure.compare import compare_with
from precisionbench.measure.options import Options
from precisionbench.measure.rows import DEFAULT_BACKENDS, default_backends, plan, plan_default
from precisionbench.measure.worker.first_call_limit import FirstCallLimit
from precisionbench.model.workload import resolve
from precisionbench.testing.thresholds import parse

LIMIT_S = FirstCallLimit("eager", 1e-5).limit_s
QUICK: dict[str, Any] = {"replicas": 1, "budget_s": 0.2, "evidence": False, "seed": 0}
ON_A_CPU = (
    "eager",
    "half:dtype=bfloat16",
    "half:dtype=bfloat16,memory_format=channels_last",
    "autocast:dtype=bfloat16",
    "compile",
    "half",
)


# Which rows there are


@pytest.mark.parametrize("device_type", ["cuda", "xpu"])
def test_a_gpu_has_the_same_rows_with_and_without_images_or_a_compiler(device_type):
    for has_images in (True, False):
        for found in (True, False):
            rows = default_backends(device_type, has_images, lambda _, found=found: found)
            assert rows == DEFAULT_BACKENDS


def test_a_cpu_has_bfloat16_first_and_no_row_that_needs_a_gpu():
    assert default_backends("cpu", can_compile=lambda _: True) == ON_A_CPU
    rows, _ = plan(ON_A_CPU)
    for row in rows:
        row.require_backend().check_available()


def test_layouts_are_compared_only_where_an_input_has_images(cnn, images):
    without = default_backends("cpu", has_images=False, can_compile=lambda _: True)
    assert set(ON_A_CPU) - set(without) == {"half:dtype=bfloat16,memory_format=channels_last"}
    assert resolve(cnn, images, device="cpu").info.has_images
    assert not resolve(nn.Linear(2, 2), torch.rand(3, 2), device="cpu").info.has_images


def test_compile_is_among_them_only_where_its_toolchain_is():
    without = default_backends("cpu", can_compile=lambda _: False)
    assert set(ON_A_CPU) - set(without) == {"compile"}


def test_the_toolchain_is_a_compiler_and_pythons_headers(monkeypatch, tmp_path):
    compiler = tmp_path / "compiler"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert not has_toolchain("cpu")
    (tmp_path / "Python.h").touch()
    assert has_toolchain("cpu")
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    assert not has_toolchain("cpu")


def test_the_reference_comes_first_on_a_cpu_and_is_never_left_out():
    rows, reference = plan_default("cpu", has_images=True, reference="half")
    assert rows[0].name == reference == "half"
    assert [row.may_be_left_out for row in rows] == [False] + [True] * (len(rows) - 1)


def test_no_row_that_the_user_names_and_none_on_a_gpu_may_be_left_out():
    named, _ = plan(ON_A_CPU)
    on_a_gpu, _ = plan_default("cuda", has_images=True)
    assert not any(row.may_be_left_out for row in (*named, *on_a_gpu))


def test_a_wrong_reference_is_refused_before_the_model_is_built():
    def never():
        raise AssertionError("was built")

    with pytest.raises(SpecError, match="has no option 'x'"):
        pb.compare(never, reference="eager:x=1", device="cpu")


# Rows that are too slow


@attrs.frozen
class SleepsAtFirst(Backend):
    """Sleeps in `prepare`, and in the first call."""

    name: ClassVar[str] = "sleeps"
    build_s: float = 0.0
    first_call_s: float = 0.0

    @contextmanager
    def prepare(self, model, inputs):
        time.sleep(self.build_s)
        left_s = [self.first_call_s]
        forward = inputs.bind(model)

        def call():
            time.sleep(left_s.pop() if left_s else 0.0)
            return forward()

        yield call


SLOW = SleepsAtFirst(first_call_s=60.0)


def compared(
    *backends: Backend, named: bool = False, journal: Path | None = None, **options: Any
) -> Comparison:
    """A comparison whose rows besides the reference the user has named, or has not."""
    rows, reference = plan(list(backends))
    marked = [
        attrs.evolve(row, may_be_left_out=not named and row.name != reference) for row in rows
    ]
    workload = resolve(nn.Linear(8, 8), torch.rand(2, 8), device="cpu")
    chosen = Options(**{**QUICK, **options})
    return compare_with(workload, marked, reference, chosen, journal=journal)


@pytest.mark.slow  # calls that take long
def test_a_row_whose_first_call_takes_too_long_is_left_out_with_a_note(tmp_path):
    begun_s = time.monotonic()
    journal = tmp_path / "journal"
    slow_build = SleepsAtFirst(build_s=LIMIT_S + 0.5)
    comparison = compared(SLOW, slow_build, journal=journal)
    assert time.monotonic() - begun_s < SLOW.first_call_s
    assert [row.backend for row in comparison] == ["eager", "sleeps:build_s=2.5"]
    assert not comparison.failures
    (note,) = comparison.data.notes
    assert note.startswith("sleeps:first_call_s=60.0 was left out: a call takes more than 2.0 s (")
    assert note.endswith("to measure it anyway, name it (-b sleeps:first_call_s=60.0)")
    assert not pb.load(journal).failures


@pytest.mark.slow  # calls that take long
def test_a_row_that_the_user_names_is_measured_however_long_its_first_call_takes():
    comparison = compared(SleepsAtFirst(first_call_s=LIMIT_S + 0.5), named=True)
    assert len(comparison) == 2
    assert not comparison.data.notes


@pytest.mark.slow  # calls that take long
def test_in_this_process_a_slow_row_is_left_out_once_its_first_call_has_ended():
    slow = SleepsAtFirst(first_call_s=LIMIT_S + 0.5)
    comparison = compared(slow, launcher="inline", replicas=None)
    assert [row.backend for row in comparison] == ["eager"]
    assert "was left out" in comparison.data.notes[0]
    assert not comparison.failures


def test_the_first_call_may_take_ten_times_as_long_as_the_references_and_two_seconds_at_least():
    assert FirstCallLimit("eager", 0.001).limit_s == 2.0
    assert FirstCallLimit("eager", 3.0).limit_s == 30.0


@pytest.mark.slow  # measures many rows
def test_all_default_rows_of_a_cpu_are_measured_where_their_calls_are_quick(
    cnn, images, monkeypatch
):
    monkeypatch.setenv("CXX", "no-such-compiler")  # compiling takes half a minute
    comparison = pb.compare(cnn, images, device="cpu", **QUICK)
    assert [row.backend for row in comparison] == [name for name in ON_A_CPU if name != "compile"]
    assert not comparison.failures


def test_a_threshold_of_a_row_that_was_left_out_is_missed(capsys):
    comparison = Comparison(comparison_data())
    thresholds = [parse("compile>=1.5")]
    with pytest.raises(SystemExit) as ended:
        exit_if_missed(thresholds, comparison, were_planned=True)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said == "compile was not measured; name it to measure it (-b compile)\n"
    with pytest.raises(RowNotFoundError):
        exit_if_missed(thresholds, comparison)
