"""What is seen of calls on a real GPU, and what the diagnosis makes of it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from statistics import median
from typing import Any

import attrs
import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.diagnosis.facts import facts_of
from precisionbench.diagnosis.findings import FindingStatus, MadeExperiments
from precisionbench.measure.rows import plan
from precisionbench.probes.float64_reference import layer_outputs
from precisionbench.results import Block, ComparisonData
from precisionbench.workflows.experiment_runs import OPTIONS

pytestmark = pytest.mark.gpu

FRESH = "half:cudnn_benchmark=true"  # the same code where there are no convolutions
INLINE = {"device": "cuda", "launcher": "inline", "budget_s": 30, "seed": 0}


def convolutions(channels: int, groups: int = 1, size: int = 56, batch: int = 64):
    parts: list[nn.Module] = []
    for _ in range(4):
        parts += [nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False), nn.ReLU()]
    return nn.Sequential(*parts), torch.randn(batch, channels, size, size)


def products(width: int = 4096):
    parts = [nn.Linear(width, width, bias=False) for _ in range(3)]
    return nn.Sequential(*parts), torch.randn(width, width)


def test_comparing_layers_waits_for_the_gpu_once_however_many_there_are():
    """Beside builds of other processes, BERT-base had 1760 of them in each of four calls."""
    model, x = nn.Sequential(*[nn.Linear(64, 64) for _ in range(50)]).cuda(), torch.rand(4, 64)
    on_gpu = x.cuda()
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            found = layer_outputs(lambda: model(on_gpu), model, 4)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [one for one in caught if "synchronizing CUDA operation" in str(one.message)]
    assert len(found) == 101
    assert len(waits) <= 2


@pytest.fixture(scope="module")
def three():
    return pb.compare(*products(), backends=["eager:precision=tf32", "half"], **INLINE)


def test_kernels_add_up_to_the_devices_time(three):
    for row in three:
        facts = facts_of(three.data, row)
        assert facts.busy_s == pytest.approx(row.device_s, rel=0.1)
        assert row.evidence.launches >= 3


def test_each_precision_is_recognised(three):
    labels = {label.row: label for label in pb.diagnose(three).labels}
    assert {label.verdict for label in labels.values()} == {"true"}
    assert labels["eager:precision=tf32"].ran == "in TF32"
    assert labels["half"].ran == "in float16"


def test_large_matmuls_have_no_findings(three):
    assert pb.diagnose(three).findings == ()


def test_the_speedup_of_half_is_within_its_ceiling(three):
    ceiling = pb.diagnose(three).ceiling
    assert ceiling.best.low <= ceiling.brought.value <= ceiling.best.high


def test_a_float32_row_that_switches_to_tf32_has_a_false_label():
    from precisionbench.backends import Backend, Prepared

    class Claims(Backend):
        name = "claims"
        precision: str = "fp32"

        def prepare(self, model, inputs):
            import contextlib

            @contextlib.contextmanager
            def prepared():
                torch.backends.cuda.matmul.allow_tf32 = True
                yield Prepared(inputs.bind(model), model)
                torch.backends.cuda.matmul.allow_tf32 = False

            return prepared()

    import attrs

    claims = attrs.frozen(Claims)
    found = pb.compare(*products(), backends=[claims()], reference=claims(), **INLINE)
    (label,) = pb.diagnose(found).labels
    assert (label.claim, label.verdict, label.ran) == ("float32", "false", "in TF32")
    assert "False labels" in str(found)


@pytest.mark.parametrize(
    ("workload", "cause"),
    [
        (convolutions(128), "layout-conversions"),
        (convolutions(50), "tensor-core-obstacles"),
        (convolutions(256, groups=32), "tensor-core-obstacles"),
    ],
)
def test_a_planted_cause_is_found(workload, cause):
    found = pb.compare(*workload, backends=["half"], **INLINE)
    assert cause in {f.cause for f in pb.diagnose(found).findings if f.row == "half"}


def test_an_experiment_with_channels_last_confirms_layout_conversions():
    model, images = convolutions(128)
    found = pb.compare(model, images, backends=["half"], **INLINE)
    diagnosis = pb.diagnose(found, workload=(model, images), experiments=["channels-last"])
    (finding,) = (f for f in diagnosis.findings if f.cause == "layout-conversions")
    assert finding.status is FindingStatus.CONFIRMED
    assert finding.factor.low > 1


def test_synchronizations_and_copies_in_a_call_are_found():
    class Waits(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(1024, 1024)

        def forward(self, x):
            x = self.body(x)
            return self.body(x.cpu().to(x.device)) * x.max().item()

    found = pb.compare(Waits(), torch.randn(4096, 1024), backends=["half"], **INLINE)
    causes = {f.cause for f in pb.diagnose(found).findings if f.row == "half"}
    assert {"waits-inside", "host-copies"} <= causes


def test_a_diagnosis_with_experiments_takes_less_than_a_minute():
    begun_s = time.monotonic()
    rows = [
        "eager:precision=tf32",
        "half",
        "half:dtype=bfloat16",
        "half:memory_format=channels_last",
    ]
    found = pb.compare(
        "torchvision:resnet50", backends=rows, batch_size=100, device="cuda", evidence=True
    )
    measured_s = time.monotonic() - begun_s
    diagnosis = pb.diagnose(found, "torchvision:resnet50", "auto")
    print(f"{measured_s:.0f} s, then {time.monotonic() - begun_s - measured_s:.0f} s")
    print(found, diagnosis, sep="\n\n")
    assert any(f.status is FindingStatus.CONFIRMED for f in diagnosis.findings)
    assert time.monotonic() - begun_s - measured_s <= 60


def test_kept_workers_are_as_fast_as_fresh_ones():
    """Launch-bound calls show best whether passes or a profile have left something behind.

    A host's mood changes their latency by half between two blocks, so the fastest blocks of the
    same rounds are compared.
    """
    seen: list[ComparisonData] = []

    def experimenter(_: object, __: object, measure: Any, ___: object) -> MadeExperiments:
        rows = plan(["half", FRESH], "half")[0]
        seen.append(measure(rows, attrs.evolve(OPTIONS, budget_s=4.0), None))
        return MadeExperiments()

    model = nn.Sequential(*[layer for _ in range(8) for layer in (nn.Linear(64, 64), nn.ReLU())])
    pb.compare(model, torch.rand(1, 64), backends=["half"], device="cuda", experiments=experimenter)
    (again,) = seen
    assert again.failures == ()
    kept, fresh = (
        {row.backend: row.measurement.blocks for row in again.results}[name]
        for name in ("half", FRESH)
    )
    assert len({block.replica for block in kept}) == 2
    assert fastest(kept) == pytest.approx(fastest(fresh), rel=0.1)


def fastest(blocks: Sequence[Block]) -> float:
    return min(median(block.samples) for block in blocks)


def test_experiments_of_a_comparison_add_less_than_ten_seconds():
    begun_s: list[float] = []

    def timed(*arguments: Any) -> MadeExperiments:
        begun_s.append(time.monotonic())
        made = pb.Experiments("auto")(*arguments)
        begun_s.append(time.monotonic())
        return made

    rows = ["half", "half:memory_format=channels_last"]
    found = pb.compare(
        "torchvision:resnet50", backends=rows, batch_size=100, device="cuda", experiments=timed
    )
    diagnosis = pb.diagnose(found)
    print(f"{begun_s[1] - begun_s[0]:.1f} s", diagnosis, sep="\n\n")
    (layout,) = (
        f for f in diagnosis.findings if (f.cause, f.row) == ("layout-conversions", "half")
    )
    assert layout.reason.endswith("measured in row half:memory_format=channels_last")
    assert begun_s[1] - begun_s[0] <= 10
