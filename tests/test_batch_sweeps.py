"""Several batch sizes in one comparison, and the one at which throughput stops growing."""

from __future__ import annotations

import random

import attrs
import pytest
import torch
from torch import nn

import precisionbench as pb
from made_up_results import comparison, measurement
from precisionbench.analysis.batch_sweeps import batch_sweeps
from precisionbench.errors import SpecError
from precisionbench.measure.matrix import Matrix
from precisionbench.measure.planning import batch_sizes_of, planned_rows
from precisionbench.report.headline import headline
from precisionbench.report.html.page import table_html, to_html
from precisionbench.report.markdown import to_markdown
from precisionbench.report.sweeps import sweep_sentences
from precisionbench.report.text import to_text
from precisionbench.results import BackendResult, Block, ComparisonData
from precisionbench.spec_syntax import without_batch

FAST = {"launcher": "inline", "budget_s": 0.05, "evidence": False, "on_progress": None}


def sweep(
    rates: dict[str, dict[int, float]], noise: float = 1e-3, references: bool = True
) -> ComparisonData:
    """Made-up rows with these items per second by batch size, of two replicas each."""
    draw = random.Random(0)
    rows = []
    for backend, by_size in rates.items():
        for size, rate in by_size.items():
            blocks = tuple(
                Block(n, i, i, tuple(size / rate * draw.gauss(1, noise) for _ in range(5)))
                for n in range(12)
                for i in range(2)
            )
            one = measurement(1.0)
            taken = attrs.evolve(one, preparations=one.preparations * 2, blocks=blocks)
            name, options = f"{backend}:batch_size={size}", {"batch_size": size}
            rows.append(BackendResult(name, backend, options, size, taken))
    bases = {row.backend: f"eager:batch_size={row.batch_size}" for row in rows}
    return attrs.evolve(
        comparison(),
        results=tuple(rows),
        failures=(),
        reference=rows[0].backend,
        references=bases if references else {},
        schedule="rounds",
    )


# Measuring


def test_each_backend_is_measured_at_each_batch_over_the_reference_of_the_same_batch():
    found = pb.compare(
        nn.Linear(8, 8), torch.rand(4, 8), backends=["bf16"], batch_size=[8, 1], **FAST
    )
    rows = {row.backend: (row.batch_size, found.data.reference_of(row.backend)) for row in found}
    assert rows == {
        "eager:batch_size=1": (1, "eager:batch_size=1"),
        "eager:batch_size=8": (8, "eager:batch_size=8"),
        "half:dtype=bfloat16,batch_size=1": (1, "eager:batch_size=1"),
        "half:dtype=bfloat16,batch_size=8": (8, "eager:batch_size=8"),
    }
    assert [one.backend for one in found.batch_sweeps()] == ["eager", "half:dtype=bfloat16"]
    assert "Sequential" not in str(found)
    assert "Linear, batches 1, 8 on" in str(found)


def test_a_function_that_makes_its_batch_makes_the_largest_one():
    asked = []

    def build(batch_size: int = 3):
        asked.append(batch_size)
        return nn.Linear(2, 2), torch.rand(batch_size, 2)

    found = pb.compare(build, backends=["eager"], batch_size=(1, 6), **FAST)
    assert set(asked) == {6}
    assert [row.batch_size for row in found] == [1, 6]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("eager", {"half:batch_size=8": "eager:batch_size=8"}),
        ("eager:batch_size=1", {"half:batch_size=8": "eager:batch_size=1"}),
        ("half", {"eager:batch_size=8": "half:batch_size=8"}),
    ],
)
def test_a_reference_is_of_each_batch_or_of_all(reference, expected):
    planned = planned_rows(["eager", "half"], reference, Matrix(batch_sizes=(1, 8)))
    found = {row.name: planned.references.get(row.name, planned.reference) for row in planned.rows}
    assert {name: found[name] for name in expected} == expected


def test_models_and_batches_are_both_measured():
    planned = planned_rows({"fast": "half"}, "old", Matrix(("old", "new"), (1, 8)))
    assert [(row.name, row.label) for row in planned.rows] == [
        ("old/half:batch_size=1", "old/fast-1"),
        ("old/half:batch_size=8", "old/fast-8"),
        ("new/half:batch_size=1", "new/fast-1"),
        ("new/half:batch_size=8", "new/fast-8"),
    ]
    assert planned.references["new/half:batch_size=8"] == "old/half:batch_size=8"


@pytest.mark.parametrize(
    ("backends", "reference", "message"),
    [
        (["half:batch_size=2"], "eager", "has a batch size of its own"),
        (["half"], "eager:batch_size=2", "batch size 2, which is not measured"),
    ],
)
def test_batch_sizes_that_exclude_each_other_are_refused(backends, reference, message):
    with pytest.raises(SpecError, match=message):
        planned_rows(backends, reference, Matrix(batch_sizes=(1, 8)))


def test_batch_sizes_are_whole_numbers():
    assert batch_sizes_of([8, 1, 8]) == (1, 8)
    assert batch_sizes_of(8) == batch_sizes_of(None) == ()
    for wrong in ([], [0], ["x"], [1.5]):
        with pytest.raises(pb.errors.PrecisionBenchError, match="batch_size"):
            batch_sizes_of(wrong)


# Where throughput stops growing


@pytest.mark.parametrize(
    ("rates", "stops_at"),
    [
        ({1: 100, 8: 700, 32: 1000, 64: 1030, 128: 1020}, 32),
        ({1: 100, 8: 700, 32: 1000}, 32),
        ({1: 100, 8: 99, 32: 98}, 1),
        ({1: 100, 8: 103, 32: 107}, 8),  # no step of 5 %, but together more
        ({1: 100, 8: 90, 32: 120}, 32),  # it grows again
    ],
)
def test_throughput_stops_growing_where_no_larger_batch_gives_over_5_percent_more(rates, stops_at):
    (found,) = batch_sweeps(sweep({"eager": rates}))
    at = found.saturation
    assert (at.low, at.batch_size, at.high) == (stops_at,) * 3
    assert at.grows_to_the_end == (stops_at == max(rates))
    assert found.rows[1] == "eager:batch_size=1"


def test_where_times_vary_the_batch_has_an_interval():
    (found,) = batch_sweeps(sweep({"eager": {1: 100, 8: 900, 32: 1000, 64: 1010}}, noise=0.3))
    at = found.saturation
    assert at.low < at.high
    assert at.low <= at.batch_size <= at.high


def test_rows_of_one_batch_are_no_sweep():
    assert batch_sweeps(comparison()) == ()
    assert "Batch sizes" not in to_text(comparison())


def test_the_sentence_names_batch_throughput_and_what_is_not_known():
    grows = {1: 100.0, 8: 700.0, 32: 1000.0}
    stops = {1: 100.0, 8: 1000.0, 32: 1010.0}
    _, (_, first), (_, second) = sweep_sentences(sweep({"eager": grows, "half": stops}))
    assert first.startswith("throughput grows up to batch 32, the largest measured (1,000 items")
    assert second.startswith("throughput stops growing at batch 8 (1,00")
    assert second.endswith("no larger batch gives more than 5 % more")
    ((_, noisy),) = sweep_sentences(sweep({"eager": {1: 100, 8: 900, 32: 1000}}, noise=0.3))
    assert noisy.endswith("; above batch 8, growth of more than 5 % is inconclusive")


def test_the_crossover_is_that_of_a_study_of_the_same_batches():
    rates = {"eager": {1: 100, 4: 350, 8: 500}, "half": {1: 60, 4: 200, 8: 900}}
    eager, half = batch_sweeps(sweep(rates))
    assert (eager.reference, eager.crossover) == ("", None)
    assert (half.reference, half.crossover.kind) == ("eager", "between")
    assert (half.crossover.above, half.crossover.batch_size) == (4, 8)
    assert half.speedups[8].value == pytest.approx(1.8, rel=0.01)
    (about, text), *_ = sweep_sentences(sweep(rates))
    assert about == "half"
    assert text.startswith("faster than eager from batch 8 on (crossover between 4 and 8; interpol")
    assert text.endswith(", 1.80x at batch 8")
    slow = {"eager": rates["eager"], "half": {1: 60, 4: 200, 8: 300}}
    assert sweep_sentences(sweep(slow))[0] == (
        "half",
        "not faster than eager at batch 8, the largest measured",
    )


def test_rows_whose_reference_has_another_batch_size_have_no_crossover():
    rates = {"eager": {1: 100, 8: 500}, "half": {1: 60, 8: 900}}
    found = batch_sweeps(sweep(rates, references=False))
    assert [(one.reference, one.crossover) for one in found] == [("", None)] * 2


def test_every_report_has_the_sentence_and_the_headline_is_on_the_best_batch():
    data = sweep({"eager": {1: 100, 8: 700}, "half": {1: 90, 8: 1400}})
    assert headline(data).startswith("half:batch_size=8 is fastest: 2.00x eager:batch_size=8")
    for text in (
        " ".join(to_text(data).split()),
        to_markdown(data),
        to_html(data),
        table_html(data),
    ):
        assert "faster than eager from batch 8 on" in text
        assert "throughput grows up to batch 8, the largest measured" in text
        assert "Each row is compared with eager at the same batch size." in text
    lines = to_text(data).splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("eager:batch_size=8"))
    assert not lines[place + 1].strip()
    assert lines[place + 2].startswith("half:batch_size=1")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("half:batch_size=8", "half"),
        ("new/half:dtype=bfloat16,batch_size=8#2", "new/half:dtype=bfloat16#2"),
        ("half:dtype=bfloat16", "half:dtype=bfloat16"),
        ("no spec: at all", "no spec: at all"),
    ],
)
def test_a_name_without_its_batch(name, expected):
    assert without_batch(name) == expected


# Threads


def test_threads_are_set_for_the_row_only_and_recorded():
    before = torch.get_num_threads()
    seen = []

    class Noting(nn.Linear):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            return super().forward(x)

    rows = ["eager:threads=3"]
    found = pb.compare(
        lambda: (Noting(2, 2), torch.rand(1, 2)), backends=rows, reference=rows[0], **FAST
    )
    assert set(seen) == {3}
    assert found[rows[0]].flags["num_threads"] == 3
    assert found[rows[0]].options["threads"] == 3
    assert torch.get_num_threads() == before


def test_threads_of_a_comparison_are_those_of_every_row_without_its_own():
    before, rows = torch.get_num_threads(), ["eager", "eager:threads=3"]
    model, inputs = nn.Linear(2, 2), torch.rand(1, 2)
    found = pb.compare(model, inputs, backends=rows, device="cpu", threads=2, **FAST)
    assert [found[row].flags["num_threads"] for row in rows] == [2, 3]
    assert found.data.environment.threads == found.data.options["threads"] == 2
    assert torch.get_num_threads() == before


def test_a_number_of_threads_is_1_or_more():
    with pytest.raises(SpecError, match="eager: threads cannot be 0; give 1 or more"):
        pb.compare(nn.Linear(1, 1), torch.rand(1, 1), backends=["eager:threads=0"], **FAST)
