"""The ladder: which rows are planned, and the table of their changes once they are measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import precisionbench as pb
from precisionbench import published
from precisionbench.backends import discovery
from precisionbench.backends.specs import canonical_spec
from precisionbench.cli import main
from precisionbench.diagnosis.gap.measured import has_finite_output, rows_reached, slowest
from precisionbench.diagnosis.gap.states import changes, state_of
from precisionbench.errors import (
    BackendNotFoundError,
    BackendUnavailableError,
    ExecutionError,
    IncomparableError,
    OutputError,
    RecordNotFoundError,
    RowNotFoundError,
    SpecError,
)
from precisionbench.measure import compare
from precisionbench.model.workload import resolve
from precisionbench.results import BackendFailure
from precisionbench.workflows.ladder import Ladder, ladder, plan_ladder
from precisionbench.workflows.ladder_rungs import Capabilities, rungs, stopped
from test_gap import EAGER, HALF, MLPERF, SQUARE, TOP, overflowing, row, run

NO_ENGINE = {"torch2trt": "it needs X", "aot-inductor": "it needs Y"}
CUDA = Capabilities("cuda", (9, 0), has_images=True, batch_size=100, missing=NO_ENGINE)
CPU = Capabilities("cpu", has_images=True, batch_size=4)


# The plan


def test_rows_on_a_gpu():
    assert rungs("eager", CUDA) == (
        "eager",
        "eager:precision=tf32",
        "half",
        "eager:memory_format=channels_last",
        "half:memory_format=channels_last",
        "compile:dtype=float16,memory_format=channels_last",
        "compile:dtype=float16,memory_format=channels_last,freezing=true",
        "compile:dtype=float16,memory_format=channels_last,freezing=true,mode=reduce-overhead",
        "torchao",
        "torchao:compile=true",
        "torchao:precision=float8,compile=true",
    )


def planned_states(specs: tuple[str, ...], batch_size: int) -> list[Any]:
    """The states of rows of these specs."""
    found = []
    for spec in specs:
        backend = discovery.make(spec)
        options = attrs.asdict(backend)
        batch = options["batch_size"] or batch_size
        row = attrs.evolve(EAGER, name=backend.name, options=options, batch_size=batch)
        found.append(state_of(attrs.evolve(row, claims=backend.claims())))
    return found


@pytest.mark.parametrize("batch", [None, 2048])
@pytest.mark.parametrize("start", ["eager", "half", "compile:dtype=float16"])
@pytest.mark.parametrize("capabilities", [CUDA, attrs.evolve(CUDA, missing={}), CPU])
def test_every_row_is_one_change_from_another_row(capabilities, start, batch):
    """TensorRT chooses its own layout, so that a change to TensorRT changes the layout as well."""
    specs = rungs(start, capabilities, batch)
    states = planned_states(specs, capabilities.batch_size)
    for spec, state in zip(specs[1:], states[1:], strict=True):
        fewest = min(len(changes(other, state)) for other in states if other is not state)
        assert fewest == 1, spec


def test_on_a_cpu_there_is_no_tf32_no_graph_and_no_float16():
    found = rungs("eager", CPU)
    assert "half:dtype=bfloat16" in found
    assert not any(word in spec for spec in found for word in ("tf32", "=float16", "reduce"))
    assert any("TensorRT, CUDA graphs and DLAs" in reason for reason in stopped("eager", CPU))


def test_an_old_gpu_has_no_tf32():
    volta = attrs.evolve(CUDA, capability=(7, 2))
    assert "eager:precision=tf32" not in rungs("eager", volta)


def test_only_images_have_a_memory_format():
    text = attrs.evolve(CUDA, has_images=False)
    assert not any("channels_last" in spec for spec in rungs("eager", text))
    assert "compile:dtype=float16,freezing=true,mode=reduce-overhead" in rungs("eager", text)


def test_missing_tensorrt_is_left_out_with_the_reason():
    assert not any(spec.startswith("torch2trt") for spec in rungs("eager", CUDA))
    without = attrs.evolve(CUDA, missing={"torch2trt": "it needs X"})
    assert "TensorRT was left out, and with it INT8 and DLAs: it needs X" in stopped(
        "eager", without
    )


def test_a_rung_that_takes_too_long_to_build_here_is_left_out_with_its_reason():
    here = attrs.evolve(CUDA, missing={"torch2trt": "it needs X"})
    assert not any(spec.startswith("aot-inductor") for spec in rungs("eager", here))
    (sentence,) = [text for text in stopped("eager", here) if text.startswith("AOTInductor")]
    assert "was left out: building its package takes longer than all other rows" in sentence
    on_cpu = attrs.evolve(CPU, missing={})
    assert any(spec.startswith("aot-inductor") for spec in rungs("eager", on_cpu))


def test_tensorrt_and_dlas_come_last():
    xavier = attrs.evolve(CUDA, missing={}, dlas=2)
    engines = [spec for spec in rungs("eager", xavier) if not spec.startswith("torchao")]
    assert tuple(engines[-4:]) == (
        "torch2trt:precision=fp16",
        "torch2trt:precision=int8",
        "torch2trt:precision=int8,dla_core=0",
        "torch2trt:precision=int8,dla_core=1",
    )
    assert not any("TensorRT" in text for text in stopped("eager", xavier))


def test_without_a_compiler_compiled_rows_are_left_out():
    bare = attrs.evolve(CPU, missing={"compile": "it needs a compiler"})
    assert not any(spec.startswith("compile") for spec in rungs("eager", bare))
    assert "compiled rows were left out: it needs a compiler" in stopped("eager", bare)


def test_the_published_batch_is_the_first_change_and_the_last():
    found = [spec for spec in rungs("eager", CUDA, 800) if "batch_size=800" in spec]
    assert found == [
        "eager:batch_size=800",
        "compile:dtype=float16,memory_format=channels_last,freezing=true,mode=reduce-overhead,"
        "batch_size=800",
    ]


def test_a_much_larger_batch_is_the_last_change_only():
    found = [spec for spec in rungs("eager", CUDA, 2048) if "batch_size=2048" in spec]
    assert len(found) == 1
    assert found[0].startswith("compile")

    reason = stopped("eager", CUDA, 2048)[0]
    assert reason.startswith("only the last row was measured at the published batch size 2048")
    assert "more than 8x the batch size 100" in reason


@pytest.mark.parametrize(
    ("capabilities", "batch"),
    [
        (CUDA, None),
        (CUDA, 100),
        (attrs.evolve(CUDA, batch_size=None), 2048),
        (CPU, 2048),
    ],
    ids=["none asked for", "the same", "of unknown batch", "on a CPU"],
)
def test_no_other_batch_is_measured(capabilities, batch):
    assert not any("batch_size" in spec for spec in rungs("eager", capabilities, batch))


def test_a_published_batch_that_is_left_out_has_a_reason():
    assert "the published batch size 2048 was left out" in stopped("eager", CPU, 2048)[0]
    assert not any("published batch" in reason for reason in stopped("eager", CUDA, 800))
    assert not any("published batch" in reason for reason in stopped("eager", CPU, 4))


def test_the_row_to_start_from_comes_first_once():
    assert rungs("half", CUDA)[0] == "half"
    assert rungs("half", CUDA).count("half") == 1
    graph = "half:cuda_graph=true"
    found = rungs(graph, CUDA, 800)
    assert found[0] == graph
    assert "half:cuda_graph=true,batch_size=800" in found
    assert rungs("eager:batch_size=8", CUDA, 800)[0] == "eager:batch_size=8"
    assert "eager:batch_size=800" in rungs("eager:batch_size=8", CUDA, 800)


# From measured rows


def test_a_measured_comparison_makes_a_ladder():
    found = Ladder.of(pb.Comparison(run(*SQUARE, row("autocast", 12e-3))), "eager", to=MLPERF)
    assert (found.start, found.top) == ("eager", TOP)
    product = math.prod(one.factor.value for one in found.rungs)
    assert product == pytest.approx(5, rel=1e-6)
    assert found.off == ("eager:memory_format=channels_last", "autocast")
    assert found.gap.measured.name == "eager, batch 100"
    assert found.gap.factors[:3] == found.rungs


def test_the_table_goes_from_start_to_top_with_the_other_rows_below():
    failure = BackendFailure("compile", "compile", {}, "PreparationError", "no compiler", "get one")
    data = run(EAGER, overflowing(HALF), *SQUARE[2:], failures=(failure,))
    text = str(Ladder.of(pb.Comparison(data), "eager", stopped=("TensorRT was left out",)))
    assert max(map(len, text.splitlines())) <= 80
    lines = " ".join(text.split())
    assert lines.startswith(f"{TOP} is fastest: 5x eager (")
    assert "16,667 items/s. torchvision:resnet50 on NVIDIA H200" in lines
    assert lines.index("3,333 eager") < lines.index("2,500 0.750x") < lines.index("16,667 6.67x")
    assert (
        "also tried: half, 10,000 items/s; its output is not finite where the reference's is."
    ) in lines
    assert "compile could not be measured: no compiler." in lines
    assert lines.endswith("TensorRT was left out.")


def test_each_change_has_its_rows_rate_and_the_product_is_next_to_the_direct_ratio():
    found = Ladder.of(pb.Comparison(run(*SQUARE)), "eager")
    lines = str(found).splitlines()
    rates = [line.split()[0] for line in lines if "by " not in line and "x  " in line]
    assert rates[0] == "10,000"
    assert rates[-1] == "16,667"
    assert rows_reached(found.comparison.data, "eager", TOP) == ("half", "", TOP)
    assert "the factors multiply to 5x." in " ".join(str(found).split())


def test_the_gap_comes_first():
    text = str(Ladder.of(pb.Comparison(run(*SQUARE)), "eager", to=MLPERF))
    assert text.startswith("items/s  factor")
    assert text.index("94,620") < text.index("torchvision:resnet50 on")


def test_no_faster_row_is_stated():
    found = Ladder.of(pb.Comparison(run(EAGER, row("half", 40e-3))), "eager")
    assert (found.top, found.rungs, found.off) == ("eager", (), ("half",))
    assert "No other row with a finite output is faster than eager." in str(found)


def test_two_orders_of_changes_are_explained():
    text = " ".join(str(Ladder.of(pb.Comparison(run(*SQUARE)), "eager")).split())
    assert "both together (precision and memory format): the factor of each depends" in text


def test_a_row_that_overflows_is_not_the_top():
    assert has_finite_output(EAGER)
    assert not has_finite_output(overflowing(HALF))
    assert has_finite_output(attrs.evolve(HALF, agreement=None)), "nothing is known against it"
    found = Ladder.of(pb.Comparison(run(EAGER, overflowing(HALF), row("autocast", 20e-3))), "eager")
    assert found.top == "autocast"


def test_a_saved_ladder_can_be_made_again(tmp_path):
    made = Ladder.of(pb.Comparison(run(*SQUARE)), "eager", to=MLPERF)
    made.save(tmp_path / "r.json")
    assert Ladder.of(pb.load(tmp_path / "r.json"), "eager", to=MLPERF) == made
    made.to_html(tmp_path / "r.html")
    assert 'id="gap"' in (tmp_path / "r.html").read_text()


def test_an_unknown_start_lists_the_known_rows():
    with pytest.raises(RowNotFoundError, match="half"):
        Ladder.of(pb.Comparison(run(*SQUARE)), "haft")


# Errors before anything is measured


class Tiny(nn.Module):
    """A model that is built quickly."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.conv(images))).mean((2, 3))


IMAGES = torch.rand(4, 3, 16, 16)
OF_SMALL_IMAGES = attrs.evolve(published.get(MLPERF), input="3x16x16")


@pytest.fixture
def unmeasured(monkeypatch):
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("it was measured")

    monkeypatch.setattr(compare, "compare_with", refused)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"to": "mlperf-v4.1-h200"}, RecordNotFoundError, "did you mean"),
        ({"start": "eagre"}, BackendNotFoundError, "eager"),
        ({"start": "eager:precision=fp99"}, SpecError, "fp99"),
        ({"start": "torch2trt"}, BackendUnavailableError, "requires"),
    ],
    ids=["id", "name", "option", "missing"],
)
def test_invalid_arguments_are_refused_before_measuring(unmeasured, options, error, said):
    with pytest.raises(error, match=said):
        ladder(Tiny(), IMAGES, device="cpu", **options)


def test_another_model_than_the_published_one_is_refused_before_measuring(unmeasured):
    pytest.importorskip("torchvision")
    with pytest.raises(IncomparableError, match="torchvision:squeezenet1_1 was measured"):
        ladder("torchvision:squeezenet1_1", device="cpu", to=MLPERF)


def test_another_input_than_the_published_one_is_refused_before_measuring(unmeasured):
    with pytest.raises(IncomparableError, match="Tiny was measured with inputs of 3x16x16"):
        ladder(Tiny(), IMAGES, device="cpu", to=MLPERF)


def test_a_published_latency_without_a_batch_is_refused_before_measuring(unmeasured):
    latency = attrs.evolve(OF_SMALL_IMAGES, unit="ms", batch=None)
    with pytest.raises(IncomparableError, match="is a latency of unknown batch size"):
        ladder(Tiny(), IMAGES, device="cpu", to=latency)


class Scalar(nn.Module):
    """A model whose input has no first dimension."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def test_an_unknown_batch_size_is_refused_before_measuring(unmeasured):
    with pytest.raises(
        IncomparableError, match=r"the batch size of Scalar is not known.*batch_size"
    ):
        ladder(Scalar(), torch.tensor(1.0), device="cpu", to=MLPERF)


@pytest.mark.slow  # measures a ladder
def test_one_row_written_in_two_ways_is_measured_once():
    """The options of a plan have another order than those of a spec."""
    start = canonical_spec(
        discovery.make("compile:dtype=bfloat16,freezing=true,memory_format=channels_last")
    )
    rows = plan_ladder(start, resolve(Tiny(), IMAGES, device="cpu"), None).rows
    assert rows[0] == start
    assert len(rows) == len(set(rows))
    assert sum(spec.startswith("compile") and "freezing" in spec for spec in rows) == 1


# Measured

QUICK: dict[str, Any] = {"device": "cpu", "budget_s": 0.2, "replicas": 1, "seed": 0}


def test_a_model_without_images_is_measured(uncompiled):
    lstm = nn.LSTM(8, 16, batch_first=True)
    stages: list[str] = []
    found = ladder(
        lstm,
        torch.rand(4, 6, 8),
        on_progress=lambda progress: stages.append(progress.stage),
        **QUICK,
    )
    assert [one.backend for one in found.comparison.results] == ["eager", "half:dtype=bfloat16"]
    assert found.comparison.data.schedule == "rounds"
    assert found.top in ("eager", "half:dtype=bfloat16")
    assert "compiled rows were left out: requires time; wait" in found.stopped
    assert "measuring" in stages


@pytest.mark.slow
def test_compiled_rows_are_measured_too():
    found = ladder(Tiny(), IMAGES, to=OF_SMALL_IMAGES, **QUICK)
    names = [one.backend for one in found.comparison.results]
    assert "compile:dtype=bfloat16,freezing=true,memory_format=channels_last" in names
    assert not found.comparison.failures
    product = math.prod(one.factor.value for one in found.gap.factors)
    assert product == pytest.approx(found.gap.gap, rel=1e-9)
    assert "not known whether Tiny is resnet50" in " ".join(found.gap.notes)
    assert any("published batch size 2048" in reason for reason in found.stopped)


@pytest.mark.slow
def test_a_transformer_is_measured():
    layer = nn.TransformerEncoderLayer(8, 1, 8, batch_first=True)
    found = ladder(layer, torch.rand(2, 5, 8), **QUICK)
    assert not found.comparison.failures
    assert not any("channels_last" in one.backend for one in found.comparison.results)
    assert str(found)


MODEL = """
import torch
def tiny(batch_size=4):
    layers = torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 8)
    return torch.nn.Sequential(*layers), torch.rand(batch_size, 3, 224, 224)
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ladder_models.py").write_text(MODEL)
    return tmp_path


def command(*args: str) -> Result:
    quick = ("--device", "cpu", "--budget", "0.2", "--replicas", "1", "--seed", "0")
    return CliRunner().invoke(main, ["ladder", *args, *quick])


@pytest.mark.slow
def test_the_command_prints_saves_and_draws_the_ladder(here, uncompiled):
    done = command(
        *("ladder_models:tiny", "--batch-size", "3", "--to", MLPERF, "--json"),
        *("-o", "r.json", "--html", "r.html"),
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["format"], document["version"]) == ("precisionbench.ladder", 1)
    assert document["start"] == "eager"
    assert document["gap"]["measured"]["name"] == "eager, batch 3"
    factors = [one["factor"]["value"] for one in document["gap"]["factors"]]
    assert math.prod(factors) == pytest.approx(document["gap"]["gap"], rel=1e-9)
    assert "eager done" in done.stderr
    assert pb.load("r.json").data.workload.batch_size == 3
    assert 'id="gap"' in Path("r.html").read_text()


class OnlyHalf(nn.Module):
    """A model that does not run in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype is torch.float32:
            raise ValueError("no float32 here")
        return self.layer(x)


def test_a_start_that_fails_is_replaced_by_another_row(uncompiled):
    found = ladder(OnlyHalf(), torch.rand(4, 8), **QUICK)
    assert (found.start, found.top) == ("half:dtype=bfloat16",) * 2
    assert found.stopped[0].startswith("eager could not be measured (the model failed in forward")
    assert found.stopped[0].endswith("the ladder starts with half:dtype=bfloat16")
    assert "starts with half" in " ".join(str(found).split())
    with pytest.raises(ExecutionError, match="no float32 here"):
        Ladder.of(found.comparison, "eager")


def test_the_row_that_replaces_the_start_is_the_slowest_with_a_finite_output():
    rows = run(overflowing(row("half", 90e-3)), row("autocast", 20e-3), row("compile", 5e-3))
    assert slowest(rows) == "autocast"


def test_the_command_prints_a_table(here, uncompiled):
    done = command("ladder_models:tiny", "--start", "half:dtype=bfloat16")
    assert done.exit_code == 0, done.output
    assert "ladder_models:tiny on " in done.stdout
    assert "TensorRT, CUDA graphs and DLAs were left out" in " ".join(done.stdout.split())


@pytest.fixture
def measured(monkeypatch) -> pb.Comparison:
    """The comparison of every ladder of this test; nothing is measured."""
    found = pb.Comparison(run(*SQUARE))
    monkeypatch.setattr(compare, "compare_with", lambda *_, **__: found)
    return found


@pytest.mark.slow  # measures a ladder
def test_a_ladder_that_cannot_be_saved_is_printed(here, measured, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(pb.Ladder, "save", full)
    done = command("ladder_models:tiny", "-o", "r.json")
    assert done.exit_code == 2
    assert "the disk is full" in done.stderr
    assert "torchvision:resnet50 on NVIDIA H200" in done.stdout


@pytest.mark.slow  # measures a ladder
def test_a_ladder_that_cannot_be_printed_is_saved(here, measured, monkeypatch):
    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(Ladder, "to_text", closed)
    assert command("ladder_models:tiny", "-o", "r.json").exit_code != 0
    assert pb.load("r.json") == measured


@pytest.mark.slow  # measures a ladder
def test_the_journal_of_a_ladder_is_removed_once_it_is_saved(here, measured, monkeypatch):
    journals: list[Path] = []

    def journaled(*_: object, journal: Path, **__: object) -> pb.Comparison:
        journals.append(journal)
        journal.write_text("{}")
        return measured

    monkeypatch.setattr(compare, "compare_with", journaled)
    assert command("ladder_models:tiny", "-o", "r.json").exit_code == 0
    assert journals == [Path("r.json.journal")]
    assert not journals[0].exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["ladder_models:tiny", "--to", "mlperf-v4.1-h200-resnet"], "did you mean"),
        (["ladder_models:tiny", "--start", "eagre"], "did you mean 'eager'"),
        (["ladder_models:tiny", "-o", "mine.json"], "'mine.json' exists"),
        (["ladder_models:tiny", "--html", "mine.json"], "'mine.json' exists"),
        (["ladder_models:tiny", "--html", "r", "-o", "./r"], "name the same file; give two"),
    ],
)
def test_bad_input_ends_the_command_before_measuring(here, unmeasured, args, said):
    (here / "mine.json").write_text("mine")
    done = command(*args)
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert (here / "mine.json").read_text() == "mine"
