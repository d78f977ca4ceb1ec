"""Several models in one comparison: rows, references, reports, diagnosis, files."""

from __future__ import annotations

import json
import random
from pathlib import Path

import attrs
import pytest
import torch
from torch import nn

import precisionbench as pb
from made_up_results import CLEAN, comparison, measurement
from precisionbench.analysis.groups import by_model, by_reference
from precisionbench.analysis.speedups import speedups
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.errors import ResultFormatError, RowNotFoundError, SpecError
from precisionbench.measure import interleaved
from precisionbench.measure.collector import Collector
from precisionbench.measure.matrix import Matrix
from precisionbench.measure.options import Options
from precisionbench.measure.planning import planned_rows
from precisionbench.model.workload import resolve
from precisionbench.report.csv_text import to_csv
from precisionbench.report.headline import headline
from precisionbench.report.html.page import table_html, to_html
from precisionbench.report.markdown import to_markdown
from precisionbench.report.references import compared_with
from precisionbench.report.text import to_text
from precisionbench.results import (
    BackendFailure,
    BackendResult,
    Block,
    ComparisonData,
    WorkloadInfo,
    json_format,
)
from precisionbench.results.journal import Journal
from precisionbench.results.journal import from_text as journal_of
from precisionbench.testing.thresholds import parse
from simulated_device import SimulatedDevice
from simulated_workers import SimulatedPool, simulated_system

RECORD = Path(__file__).parents[1] / "docs/records/h200-resnet50-batch100.json"
FAST = {"launcher": "inline", "budget_s": 0.05, "evidence": False, "on_progress": None}


def linear(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))


@pytest.fixture(scope="module")
def compared() -> pb.Comparison:
    """Two models that give outputs of the same shape, under two backends."""
    models = {"old": linear(16), "new": linear(8)}
    return pb.compare(models, torch.rand(4, 8), backends=["half:dtype=bfloat16"], **FAST)


# Measuring


def test_each_model_is_measured_under_each_backend_over_its_own_reference(compared):
    assert [row.backend for row in compared] == [
        "old/eager",
        "old/half:dtype=bfloat16",
        "new/eager",
        "new/half:dtype=bfloat16",
    ]
    assert [row.model for row in compared] == ["old", "old", "new", "new"]
    for row in compared:
        assert compared.data.reference_of(row.backend) == f"{row.model}/eager"
        assert row.name in ("eager", "half")
    assert compared["new/eager"].agreement.relative_l2 == 0.0
    assert 0 < compared["new/bf16"].agreement.relative_l2 < 0.1


def test_rows_are_found_by_model_and_spec_only(compared):
    assert compared["new/bf16"] is compared["new/half:dtype=bfloat16,batch_size=none"]
    with pytest.raises(RowNotFoundError, match="known: new/eager"):
        compared["bf16"]
    assert compared.best().backend in {row.backend for row in compared}


def test_models_have_their_own_description_and_the_whole_has_what_they_share(compared):
    models = compared.data.models
    assert {name: info.parameters for name, info in models.items()} == {"old": 212, "new": 108}
    assert compared.data.workload == WorkloadInfo("old, new", None, models["old"].inputs, 4)


def test_factories_bring_inputs_of_their_own():
    models = {"small": lambda: (nn.Linear(2, 2), torch.rand(3, 2)), "large": factory_of_large}
    found = pb.compare(models, backends=["eager"], **FAST)
    assert {row.backend: row.batch_size for row in found} == {"small/eager": 3, "large/eager": 5}
    assert "items/s" in str(found)


def factory_of_large():
    return nn.Linear(4, 4), torch.rand(5, 4)


def test_outputs_of_two_models_are_compared_only_where_their_shapes_agree():
    models = {"a": nn.Linear(8, 4), "b": nn.Linear(8, 4), "c": nn.Linear(8, 5)}
    found = pb.compare(models, torch.rand(2, 8), backends=["eager"], reference="a/eager", **FAST)
    assert found.data.references == {}
    assert found["b/eager"].agreement.relative_l2 > 0.1  # other weights
    assert found["c/eager"].agreement is None


@attrs.define
class NotingPool(SimulatedPool):
    """Notes the features of the model and the backend that each worker is given."""

    written: dict[Path, nn.Module] = attrs.field(factory=dict)
    started: list[tuple[int, str]] = attrs.field(factory=list)

    def write(self, name, value):
        self.written[Path(name)] = value
        return super().write(name, value)

    def start(self, workload, backend, with_model=False):
        model = self.written[workload].built()
        self.started.append((model.out_features, self.backends[backend]))
        return super().start(workload, backend, with_model)


def test_workers_load_the_model_of_their_row_and_all_share_the_rounds():
    pool = NotingPool(SimulatedDevice(random.Random(0)))
    planned = planned_rows(["half"], "eager", Matrix(("old", "new")))
    collector = Collector(planned.rows, planned.reference, 1, references=planned.references)
    workloads = {
        name: resolve(nn.Linear(2, width), torch.rand(1, 2), device="cpu", seed=0)
        for name, width in (("old", 2), ("new", 3))
    }
    system = simulated_system(worker_pool=lambda: pool)
    options = Options(effort="quick", budget_s=20.0, replicas=2)
    interleaved.measure(workloads, collector, options, system)
    assert pool.started == [
        *[(2, row) for row in ("eager", "half") for _ in range(2)],
        *[(3, row) for row in ("eager", "half") for _ in range(2)],
    ]
    rounds = [
        sorted({block.round for block in row.measurement.blocks})
        for row in collector.results.values()
    ]
    assert rounds == [list(range(6))] * 4
    assert collector.results["new/half"].agreement is not None


@pytest.mark.slow  # starts workers, which take seconds: the files that they load are real
def test_two_models_are_measured_in_processes_of_their_own():
    models = {"old": nn.Linear(8, 3), "new": nn.Linear(8, 5)}
    found = pb.compare(
        models,
        torch.rand(2, 8),
        backends=["eager"],
        effort="quick",
        budget_s=1,
        on_progress=None,
    )
    shapes = {row.model: row.agreement.tensors[0].shape for row in found}
    assert shapes == {"old": (2, 3), "new": (2, 5)}


# Names and references


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("eager", {"old/half": "old/eager", "new/half": "new/eager", "new/eager": "new/eager"}),
        ("old/eager", {"old/half": "old/eager", "new/half": "old/eager", "new/eager": "old/eager"}),
        ("half", {"old/half": "old/half", "new/half": "new/half", "new/eager": "new/half"}),
        ("old", {"old/half": "old/half", "new/half": "old/half", "new/eager": "old/eager"}),
    ],
)
def test_a_reference_is_of_each_model_or_of_all(reference, expected):
    planned = planned_rows(["eager", "half"], reference, Matrix(("old", "new")))
    found = {row.name: planned.references.get(row.name, planned.reference) for row in planned.rows}
    assert {name: found[name] for name in expected} == expected


def test_a_label_is_that_of_a_row_of_each_model():
    planned = planned_rows({"fast": "half"}, "fast", Matrix(("old", "new")))
    assert [row.label for row in planned.rows] == ["old/fast", "new/fast"]
    assert planned.all_references == {"old/half", "new/half"}


@pytest.mark.parametrize("name", ["", " old", "a/b", "a:b", "x,y", "x=1", "#2", "half", "fp16"])
def test_a_name_that_would_mean_something_else_in_a_rows_name_is_refused(name):
    with pytest.raises(SpecError, match="a model cannot have the name|also the name of a backend"):
        pb.compare({name: nn.Linear(1, 1)}, torch.rand(1, 1), **FAST)


def test_what_cannot_be_made_of_several_models_is_refused_in_a_sentence(compared):
    models, x = {"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)}, torch.rand(1, 1)
    with pytest.raises(SpecError, match="experiments are made on one model"):
        pb.compare(models, x, experiments=pb.Experiments("auto"), **FAST)
    with pytest.raises(SpecError, match="experiments are made on one model"):
        pb.explain(compared, (nn.Linear(1, 1), x), experiments="auto")
    with pytest.raises(SpecError, match="names the model 'c'; .*known: a, b"):
        pb.compare(models, x, reference="c/eager", **FAST)
    with pytest.raises(SpecError, match="there is no model"):
        pb.compare({}, x, **FAST)


# Results


def several(times_s: dict[str, float], references: dict[str, str] | None = None) -> ComparisonData:
    """Made-up rows `model/backend` of two replicas each, with small noise."""
    draw = random.Random(0)
    base = comparison()
    rows = tuple(
        BackendResult(
            name,
            name.partition("/")[2].partition(":")[0],
            {"batch_size": None},
            4,
            attrs.evolve(
                measurement(1.0),
                preparations=measurement(1.0).preparations * 2,
                blocks=tuple(
                    Block(n, i, i, tuple(s * draw.uniform(0.999, 1.001) for _ in range(5)))
                    for n in range(12)
                    for i in range(2)
                ),
            ),
            model=name.partition("/")[0],
        )
        for name, s in times_s.items()
    )
    models = {row.model: WorkloadInfo(f"mine:{row.model}", 7, (), 4) for row in rows}
    given = (
        {row.backend: f"{row.model}/eager" for row in rows} if references is None else references
    )
    return attrs.evolve(
        base,
        workload=WorkloadInfo.common(models),
        models=models,
        results=rows,
        failures=(),
        reference=rows[0].backend,
        references=given,
    )


OF_TWO = {"old/eager": 4e-3, "old/half": 2e-3, "new/eager": 3e-3, "new/half": 1e-3}
OVER_OLD = {name: f"old/{name.partition('/')[2]}" for name in OF_TWO}


def test_speed_ups_are_over_the_reference_of_each_row():
    found = speedups(several(OF_TWO))
    assert {name: round(one.value, 2) for name, one in found.items()} == {
        "old/eager": 1.0,
        "old/half": 2.0,
        "new/eager": 1.0,
        "new/half": 3.0,
    }
    assert found["new/eager"].reason == "reference"
    assert found["new/half"].verdict is pb.Verdict.FASTER
    over_old = speedups(several(OF_TWO, OVER_OLD))
    assert round(over_old["new/eager"].value, 2) == 1.33
    assert round(over_old["new/half"].value, 2) == 2.0


def test_a_row_whose_reference_failed_has_no_speed_up_and_the_others_have():
    data = several(OF_TWO)
    failed = BackendFailure("new/eager", "eager", {}, "ExecutionError", "broken", "", model="new")
    data = attrs.evolve(
        data,
        results=tuple(row for row in data.results if row.backend != "new/eager"),
        failures=(failed,),
    )
    assert set(speedups(data)) == {"old/eager", "old/half"}
    with pytest.raises(pb.errors.ExecutionError, match="new/eager: broken"):
        pb.Comparison(data).speedup("new/half")
    assert "new/half" in to_text(data)


def test_the_headline_has_a_sentence_for_each_model_and_one_on_both():
    text = headline(several(OF_TWO))
    assert "old/half is fastest: 2.00x old/eager (95 % CI " in text
    assert "new/half is fastest: 3.00x new/eager (95 % CI " in text
    assert "The fastest rows of old and new: new/half is 2.00x old/half (95 % CI " in text


@pytest.mark.parametrize(
    ("references", "expected"),
    [
        (None, "eager of the same model"),
        (OVER_OLD, "the same backend of old"),
        ({}, ""),
    ],
)
def test_what_rows_are_compared_with_is_a_sentence_of_the_legend(references, expected):
    data = several(OF_TWO, references)
    assert compared_with(data) == expected
    sentence = f"Each row is compared with {expected}."
    texts = [" ".join(to_text(data).split()), to_markdown(data), to_html(data), table_html(data)]
    assert [sentence in text for text in texts] == [bool(expected)] * 4


def test_the_table_separates_the_models_and_marks_every_reference():
    lines = to_text(several(OF_TWO)).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("old/eager")) :]
    assert [line.split()[0] if line else "" for line in table[:5]] == [
        "old/eager",
        "old/half",
        "",
        "new/eager",
        "new/half",
    ]
    assert [line for line in table if "1 (ref.)" in line] == [table[0], table[3]]
    assert "old (mine:old), new (mine:new), batch 4" in "\n".join(lines)


def test_csv_names_model_and_reference_of_each_row_only_where_there_are_several():
    header, first, *_ = to_csv(several(OF_TWO)).splitlines()
    assert header.endswith(",failure,model,reference")
    assert first.endswith(",,old,old/eager")
    assert to_csv(comparison()).splitlines()[0].endswith(",failure")
    frame = pb.Comparison(several(OF_TWO)).to_dataframe()
    assert list(frame["model"]) == ["old", "old", "new", "new"]


def test_a_threshold_is_over_the_reference_of_its_row():
    data = pb.Comparison(several(OF_TWO))
    assert parse("new/half>=2.9").missed_by(data) == ""
    assert "new/half measured 3.000x new/eager" in parse("new/half>=4").missed_by(data)
    with pytest.raises(SpecError, match="'new/eager' is the reference"):
        parse("new/eager>=1").missed_by(data)


def test_a_file_of_several_models_is_read_as_it_was_written():
    data = several(OF_TWO)
    assert json_format.from_json(json_format.to_json(data)) == data


def test_a_file_of_one_model_has_no_other_keys_than_before():
    document = json.loads(json_format.to_json(comparison()))
    assert document.keys().isdisjoint({"models", "references"})
    assert all("model" not in row for row in (*document["results"], *document["failures"]))


@pytest.mark.parametrize(
    "damage",
    [
        {"references": {"new/half": "nothing"}},
        {"models": {"old": {"model": "m", "parameters": 1, "inputs": [], "batch_size": 1}}},
        {"references": {"new/half": 3}},
    ],
)
def test_a_damaged_file_of_several_models_is_refused(damage):
    document = {**json.loads(json_format.to_json(several(OF_TWO))), **damage}
    with pytest.raises(ResultFormatError, match="is a damaged precisionbench result"):
        json_format.from_json(json.dumps(document))


def test_an_unfinished_journal_keeps_the_models_of_its_rows(tmp_path):
    data = several(OF_TWO)
    known = json_format.unstructured(data)
    header = {name: value for name, value in known.items() if name not in ("results", "failures")}
    planned = planned_rows(["half"], "eager", Matrix(("old", "new")))
    journal = Journal(tmp_path / "j", header, [row.identity for row in planned.rows])
    journal.add_row(data.results[0], 0)
    journal.add_block("old/eager", data.results[0].measurement.blocks[0])
    journal.close()
    found = journal_of((tmp_path / "j").read_text(), "j")
    assert [row.model for row in found.failures] == ["old", "new", "new"]
    assert found.reference_of("new/half") == "new/eager"


# Diagnosis and comparison of files


def two_of(data: ComparisonData, references: bool = True) -> ComparisonData:
    """The rows of a comparison twice, as those of two models."""
    infos = {name: attrs.evolve(data.workload, model=name) for name in ("old", "new")}
    rows = [
        attrs.evolve(row, backend=f"{name}/{row.backend}", model=name)
        for name in infos
        for row in (*data.results, *data.failures)
    ]
    return attrs.evolve(
        data,
        workload=WorkloadInfo.common(infos),
        models=infos,
        results=tuple(row for row in rows if isinstance(row, BackendResult)),
        failures=tuple(row for row in rows if isinstance(row, BackendFailure)),
        reference=f"old/{data.reference}",
        references={row.backend: f"{row.model}/{data.reference}" for row in rows}
        if references
        else {},
    )


@pytest.mark.parametrize("own_references", [True, False])
def test_each_model_is_diagnosed_as_if_it_were_alone(own_references):
    alone = comparison(**CLEAN)
    found, expected = diagnosis_of(two_of(alone, own_references)), diagnosis_of(alone)
    for name in ("old", "new"):
        assert [(one.row, one.verdict) for one in found.labels if one.row.startswith(name)] == [
            (f"{name}/{one.row}", one.verdict) for one in expected.labels
        ]
        assert [pair.path for pair in found.layers if pair.row.startswith(name)] == [
            pair.path for pair in expected.layers
        ]
        assert [one.cause for one in found.findings if one.row.startswith(name)] == [
            one.cause for one in expected.findings
        ]
    assert len(found.answers) == 2 * len(expected.answers)
    assert found.answers[0].topic == f"old: {expected.answers[0].topic}"


def test_parts_are_by_model_and_by_reference():
    over_old = several(OF_TWO, OVER_OLD)
    parts = {
        name: [row.backend for row in part.results] for name, part in by_reference(over_old).items()
    }
    assert parts == {
        "old/eager": ["old/eager", "new/eager"],
        "old/half": ["old/half", "new/half"],
    }
    models = by_model(over_old)
    assert models["new"].reference_of("new/half") == "new/eager"
    assert models["old"].reference_of("old/half") == "old/eager"
    alone = comparison()
    assert by_model(alone) == {"": alone}
    assert by_reference(alone) == {alone.reference: alone}


def test_a_gap_is_explained_for_the_rows_of_one_model():
    data = pb.load(RECORD).data
    several_data = pb.Comparison(two_of(data))
    names = [row.backend for row in data.results]
    found = pb.explain_gap(several_data, f"old/{names[0]}", "mlperf-v5.0-h200-resnet50-offline")
    assert found.factors
    with pytest.raises(SpecError, match="are of different models"):
        pb.explain_gap(
            several_data,
            f"old/{names[0]}",
            "mlperf-v5.0-h200-resnet50-offline",
            through=f"new/{names[-1]}",
        )


def test_two_runs_of_several_models_are_compared_row_by_row():
    old, new = several(OF_TWO), several({**OF_TWO, "new/half": 1.1e-3})
    found = pb.Comparison(new).diff(pb.Comparison(old))
    changes = {row.backend: round(row.speedup.value, 2) for row in found.rows}
    assert changes == {"old/eager": 1.0, "old/half": 1.0, "new/eager": 1.0, "new/half": 0.91}
    assert [row.backend for row in found.rows if row.relative] == ["old/half", "new/half"]
    other = attrs.evolve(new.models["new"], parameters=8)
    changed = attrs.evolve(new, models={**new.models, "new": other})
    with pytest.raises(pb.errors.IncomparableError, match=r"parameters of new \(7 before, 8 now\)"):
        pb.Comparison(changed).diff(pb.Comparison(old))


def test_names_of_models_in_a_file_of_others_are_shown_harmlessly():
    data = several(OF_TWO, OVER_OLD)
    evil = "<script>alert(1)</script>\x1b[31m"
    document = json_format.to_json(data).replace('"old', json.dumps(evil)[:-1])
    hostile = json_format.from_json(document)
    assert "<script>alert" not in to_html(hostile) + table_html(hostile)
    assert "\x1b" not in to_text(hostile) + to_markdown(hostile) + to_csv(hostile)
