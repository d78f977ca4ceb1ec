"""A backend of one file is verified, ranked on the ladder and explained like a built-in one.

The plugin below is all that there is of it: nothing else in the library knows its name.
"""

from __future__ import annotations

import attrs
import pytest

import precisionbench as pb
from made_up_results import comparison, conv, evidence, layer
from precisionbench.analysis.comparable import mismatches
from precisionbench.backends import Capabilities, discovery
from precisionbench.backends.base import options_of
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.findings import Label
from precisionbench.diagnosis.gap.states import changes, state_of
from precisionbench.diagnosis.published_conditions import conditions_of
from precisionbench.results import ComparisonData, TensorInfo
from precisionbench.results.evidence import Evidence
from precisionbench.workflows.ladder import Ladder
from precisionbench.workflows.ladder_rungs import rungs, stopped

TOY = """
    from contextlib import contextmanager
    from typing import ClassVar, Literal

    import attrs
    import torch

    from precisionbench.backends import Backend, Claims, Prepared, Rung, Stage
    from precisionbench.backends.base import cast_model

    @attrs.frozen
    class Toy(Backend):
        "A toy engine that computes in the dtype that it says, or in another."
        name: ClassVar[str] = "toy"
        left_out: ClassVar[str] = "the toy engine was left out"
        runs: Literal["float64", "float32"] = "float64"
        steps: int = 1

        def claims(self):
            return Claims(
                dtype="float64",
                engine="a toy engine",
                framework="Toy",
                sparsity="dense",
                packages=("pluggy",),
                covered_options=("runs",),
            )

        @classmethod
        def ladder_rungs(cls, capabilities):
            yield Rung(Stage.ENGINE, {"steps": 2})

        @contextmanager
        def prepare(self, model, inputs):
            dtype = getattr(torch, self.runs)
            model = cast_model(model, dtype)
            yield Prepared(inputs.to(dtype).bind(model), model)
"""
BROKEN = (
    TOY
    + """
    @attrs.frozen
    class Silent(Toy):
        "One that breaks when it is asked what it claims."
        name: ClassVar[str] = "silent"

        def claims(self):
            raise SystemExit("no idea")

    @attrs.frozen
    class Wrong(Toy):
        "One that claims with a text."
        name: ClassVar[str] = "wrong"

        def claims(self):
            return "float64"
"""
)
RIGHT, MISLABELLED = "toy", "toy:runs=float32"
FLOAT64 = evidence(conv(dtype="float64", kernel="dgemm"), layers=(layer(dtype="float64"),))
FLOAT32 = evidence(conv())


@pytest.fixture
def toy(install):
    install("toy-plugin", TOY, toy="Toy")


def with_row_of(spec: str, ran: Evidence) -> ComparisonData:
    """An `eager` row and a faster one of a backend, with what was seen to run in both."""
    backend = discovery.make(spec)
    row = {
        "backend": spec,
        "name": backend.name,
        "options": options_of(backend),
        "claims": backend.claims(),
    }
    return comparison(FLOAT32, ran, half_row=row)


def label(data: ComparisonData, row: str) -> Label:
    return next(one for one in diagnosis_of(data).labels if one.row == row)


def test_its_label_is_verified(toy):
    found = label(with_row_of(RIGHT, FLOAT64), RIGHT)
    assert (found.claim, found.verdict, found.ran) == ("float64", "true", "in float64")


def test_its_label_is_false_where_it_runs_in_another_dtype(toy):
    found = label(with_row_of(MISLABELLED, FLOAT32), MISLABELLED)
    assert (found.claim, found.verdict, found.ran) == ("float64", "false", "in float32")


def test_its_claims_and_the_versions_of_its_packages_are_recorded(toy, cnn, images, tmp_path):
    measured = pb.compare(
        cnn, images, backends=[RIGHT], device="cpu", launcher="inline", budget_s=0.05
    )
    measured.save(tmp_path / "r.json")
    data = pb.load(tmp_path / "r.json").data
    assert data.results[1].claims == discovery.make(RIGHT).claims()
    assert "pluggy" in data.environment.packages
    other = attrs.evolve(data.environment, packages={"pluggy": "0"})
    found = mismatches(data, attrs.evolve(data, environment=other))
    assert [mismatch.field for mismatch in found] == ["pluggy"]


def test_it_has_its_rung_on_the_ladder(toy):
    here = Capabilities("cpu", batch_size=4)
    assert rungs("eager", here)[-1] == "toy:steps=2"
    missing = attrs.evolve(here, missing={"toy": "it needs a toolbox"})
    assert not any(spec.startswith("toy") for spec in rungs("eager", missing))
    assert "the toy engine was left out: it needs a toolbox" in stopped("eager", missing)


def test_it_is_a_step_of_a_measured_ladder(toy):
    data = with_row_of(RIGHT, FLOAT64)
    ladder = Ladder.of(pb.Comparison(data), "eager")
    assert ladder.top == RIGHT
    assert [rung.name for rung in ladder.rungs] == [STEP]


STEP = "precision: float32 to float64; engine: eager PyTorch to a toy engine"


def test_its_row_in_the_gap_ledger_is_named_by_its_claims(toy):
    data = with_row_of(RIGHT, FLOAT64)
    image = TensorInfo("0", (data.workload.batch_size or 1, 3, 224, 224), "float32")
    workload = attrs.evolve(data.workload, model="torchvision:resnet50", inputs=(image,))
    data = attrs.evolve(data, workload=workload)
    found = pb.explain_gap(
        pb.Comparison(data), "eager", "mlperf-v4.1-h200-resnet50-offline", through=RIGHT
    )
    assert found.factors[0].name == STEP
    assert conditions_of(data, data.results[1]).framework == "Toy"


def test_options_that_its_claims_do_not_cover_are_changes_of_their_own(toy):
    rows = [with_row_of(spec, FLOAT64).results[1] for spec in (RIGHT, "toy:steps=2", MISLABELLED)]
    first, second, third = map(state_of, rows)
    assert changes(first, second) == ("steps: 1 to 2",)
    assert changes(first, third) == ()


@pytest.mark.parametrize(("name", "said"), [("silent", "no idea"), ("wrong", "are float64")])
def test_claims_that_cannot_be_read_cost_their_own_row_only(install, cnn, images, name, said):
    install("broken-plugin", BROKEN, silent="Silent", wrong="Wrong")
    found = pb.compare(
        cnn, images, backends=[name], device="cpu", launcher="inline", budget_s=0.1, passes=False
    )
    assert [row.backend for row in found.results] == ["eager"]
    assert said in found.failures[0].reason


RUNGS = {
    "an exit": ("sys.exit('no idea')", "SystemExit: no idea"),
    "no end": ("itertools.cycle([Rung(Stage.ENGINE)])", "it has more than 100 rungs"),
    "no rungs": ("['toy']", "AttributeError"),
    "an unknown option": ("[Rung(Stage.ENGINE, {'speed': 9})]", "has no option 'speed'"),
}


@pytest.mark.parametrize("case", RUNGS)
def test_a_backend_whose_rungs_cannot_be_read_harms_no_other(install, case):
    code, said = RUNGS[case]
    faulty = f"""
    import itertools, sys

    @attrs.frozen
    class Faulty(Toy):
        name: ClassVar[str] = "faulty"

        @classmethod
        def ladder_rungs(cls, capabilities):
            return {code}
    """
    install("broken-plugin", TOY + faulty, faulty="Faulty", toy="Toy")
    capabilities = Capabilities("cpu")
    assert rungs("eager", capabilities)[-1] == "toy:steps=2"
    (sentence,) = [text for text in stopped("eager", capabilities) if "faulty" in text]
    assert sentence.startswith("faulty was left out: its ladder_rungs failed")
    assert said in sentence


def test_a_plugin_that_could_not_be_imported_is_not_imported_for_its_rungs(install):
    install("broken-plugin", "import os; os._exit(1)", broken="Backend")
    assert rungs("eager", Capabilities("cpu", broken=["broken"]))[0] == "eager"
