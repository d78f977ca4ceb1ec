"""Results at a prompt and in notebooks: `repr`, `str` and HTML."""

from __future__ import annotations

import builtins
import enum
import importlib
import inspect
import pickle
import pkgutil
import sys
import tempfile
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import precisionbench as pb
from made_up_results import comparison_data, recorded
from made_up_studies import everything, sweep_results
from made_up_tuning import tuning_data
from precisionbench.analysis.batch_sweeps import BatchSweep
from precisionbench.analysis.saturation import Saturation
from precisionbench.analysis.tuning import front
from precisionbench.backends import Backend, discovery
from precisionbench.comparison import Comparison
from precisionbench.diagnosis.findings import ExperimentResult, MadeExperiments
from precisionbench.display import Records
from precisionbench.doctor.examine import Examination
from precisionbench.results import Interval, StudyRun
from precisionbench.results.claims import Claims
from precisionbench.results.conditions import CpuUse, RoundConditions
from precisionbench.results.evidence import Copy, Denormals, Overflow
from precisionbench.results.json_format import unstructured
from precisionbench.results.progress import Progress
from precisionbench.results.tuning import CalibrationRecord
from precisionbench.scriptcheck.check import Check
from precisionbench.statistics.periodic import Periodic
from precisionbench.studies.cells import cells_of, name_of
from precisionbench.studies.definition import define
from precisionbench.studies.job import Outcome
from precisionbench.studies.store import Store
from precisionbench.torchtools.timer import Clock
from precisionbench.workflows.ladder import Ladder
from test_doctor import healthy
from test_safe_text import plain_check

pytestmark = pytest.mark.uncounted

TOOLS = (Clock, pb.Stopwatch, pb.TimedCall, pb.Timer)
MLPERF = "mlperf-v4.1-h200-resnet50-offline"


@cache
def resnet() -> Comparison:
    """ResNet-50 in five rows, profiled on an H100."""
    return Comparison(recorded("resnet50-five"))


def failing() -> Comparison:
    """Two rows, and one that cannot run."""
    return Comparison(comparison_data(schedule="rounds"))


def call_time() -> pb.CallTime:
    """Times of one row."""
    data = resnet().data
    row = next(row for row in data.results if row.backend == data.reference)
    return pb.CallTime(attrs.evolve(data, results=(row,), failures=()))


@cache
def results() -> tuple[Any, ...]:
    """What the public functions return."""
    found = resnet()
    experiments = ExperimentResult("channels-last", "layout-conversions", "half", None, "no memory")
    row = found.results[0]
    profile = attrs.evolve(
        row.evidence,
        copies=(Copy("HtoD", "pageable", 1.0, 1e-5, 4096.0),),
        overflows=(Overflow("norm", "pow", "float16", 3, 0.9),),
        denormals=(Denormals("0", 0.5),),
    )
    made = attrs.evolve(row, evidence=profile, claims=Claims("float16", framework="PyTorch eager"))
    return (
        found,
        failing(),
        call_time(),
        pb.diagnose(found),
        pb.explain_gap(found, "eager", MLPERF),
        Ladder.of(found, "eager"),
        Ladder.of(found, "eager", MLPERF),
        found.against(attrs_changed(found), force=True),
        found.best(),
        found.under_rules("half"),
        found.observations("half"),
        found.speedup("half"),
        Examination(healthy()),
        Check(**attrs.asdict(plain_check(), recurse=False)),
        Records([discovery.describe("half")]),
        pb.published.everything(),
        pb.published.ImportResult(
            pb.published.Import("mine-0a", "mine.csv", "2026-11-29", "0a", ()),
            3,
            {"no rate": 1},
        ),
        pb.Experiments(),
        Progress("half", "measuring", 3, 12, speedups={"half": Interval(2.1, 2.0, 2.2)}),
        MadeExperiments((experiments,), ("one was left out",)),
        made,
        RoundConditions(0, 3, cpu=CpuUse(1.0, 2, 1.5, 1.0)),
        Periodic(3, 2.0, 0.25),
        *of_a_study(),
        *of_studies(),
        BatchSweep(
            "half",
            {1: "half:batch_size=1", 8: "half:batch_size=8"},
            {1: Interval(100.0, 99.0, 101.0), 8: Interval(700.0, 690.0, 710.0)},
            Saturation(8, 8, 8, 8),
        ),
        pb.Tuned(tuning_data()),
        tuning_data(),
        *front(tuning_data()),
        CalibrationRecord(2, "8f14e45f"),
    )


def of_a_study() -> tuple[Any, ...]:
    """A study with a measured cell and one that failed."""
    definition = define(models=["net"], batch_sizes=[1, 2], devices=["h100"], effort="quick")
    one, two = cells_of(definition, "h100")
    store = Store(Path(tempfile.mkdtemp()))
    store.define(definition)
    store.save(name_of(one, definition), comparison_data(study=StudyRun(one, 1.5)))
    store.save_failure(name_of(two, definition), StudyRun(two, 0.5), "it does not fit")
    outcome = Outcome(name_of(two, definition), two, "failed", "it does not fit", 0.5)
    study = pb.Study(store.folder, [outcome])
    return study, study.cells(), study.status()


def of_studies() -> tuple[Any, ...]:
    """Studies put together, and the difference of two."""
    return pb.load_study(*everything()), pb.load_study(*sweep_results()).diff(sweep_results()[0])


def attrs_changed(found: Comparison) -> Comparison:
    """The same run with another driver, so that the two are not comparable."""
    gpu = attrs.evolve(found.data.environment.gpu, driver="1.2")
    environment = attrs.evolve(found.data.environment, gpu=gpu)
    return Comparison(attrs.evolve(found.data, environment=environment))


# --- every public class -------------------------------------------------------------------------


@cache
def names() -> dict[str, Any]:
    """The names in annotations, which are those of the modules of the library."""
    found: dict[str, Any] = {"Any": Any}
    for module in pkgutil.walk_packages(pb.__path__, "precisionbench."):
        if module.name != "precisionbench.__main__":
            found = {**vars(importlib.import_module(module.name)), **found}
    return found


def hints(annotated: Any) -> Iterator[Any]:
    """The types in the annotations of a class or of what a function returns."""
    own = getattr(annotated, "__annotations__", {})
    wanted = own if isinstance(annotated, type) else {"return": own.get("return")}
    for name, hint in wanted.items():
        if isinstance(hint, str) and not name.startswith("_"):
            space = {**names(), **vars(sys.modules[annotated.__module__])}
            try:
                yield eval(hint, space)
            except NameError:  # it is imported for type checkers only
                assert any(word in hint for word in ("DataFrame", "Axes", "LedgerRow")), hint


def classes_in(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and hint.__module__.startswith("precisionbench."):
        yield hint
    for argument in typing.get_args(hint):
        yield from classes_in(argument)


def members(kind: type) -> Iterator[Any]:
    """What has annotations of what a class holds and returns."""
    for base in kind.__mro__:
        yield base
        for name, member in vars(base).items():
            function = getattr(member, "fget", None) or getattr(member, "func", member)
            if not name.startswith("_") and inspect.isfunction(function):
                yield function


def is_result(kind: type) -> bool:
    """Whether results hold it; backends are what they were made from, and tools measure them."""
    return kind not in TOOLS and not issubclass(kind, (Backend, enum.Enum, BaseException))


@cache
def public_classes() -> frozenset[type]:
    """Classes of what public functions return, of its fields, and of what its methods return."""
    public = [getattr(pb, name) for name in pb.__all__]
    public += [getattr(pb.published, name) for name in pb.published.__all__]
    public += [getattr(pb.results, name) for name in pb.results.__all__]
    found: set[type] = set()
    seen: list[Any] = [one for one in public if callable(one)]
    while seen:
        one = seen.pop()
        if not isinstance(one, type):
            seen += [kind for hint in hints(one) for kind in classes_in(hint)]
        elif one not in found and is_result(one):
            found.add(one)
            held = [
                kind
                for member in members(one)
                for hint in hints(member)
                for kind in classes_in(hint)
            ]
            seen += held
    return frozenset(found)


def held_by(one: Any) -> Iterator[Any]:
    """An object and all that it holds, and gives by its properties."""
    if isinstance(one, (str, bytes, enum.Enum)):
        return
    if isinstance(one, Mapping):
        one = tuple(one.values())
    if isinstance(one, (tuple, list)):
        if isinstance(one, Records):
            yield one
        for item in one:
            yield from held_by(item)
    elif type(one).__module__.startswith("precisionbench."):
        yield one
        for name in [name for name in dir(one) if not name.startswith("_")]:
            if not callable(getattr(type(one), name, None)):
                yield from held_by(getattr(one, name))


@cache
def instances() -> dict[type, list[Any]]:
    found: dict[type, list[Any]] = {}
    for one in held_by(results()):
        found.setdefault(type(one), []).append(one)
    return found


def test_the_public_classes_are_found():
    found = {kind.__name__ for kind in public_classes()}
    expected = "Comparison BackendResult Speedup Diagnosis Finding GapLedger Factor Ladder Check"
    assert found >= {*expected.split(), "RunDiff", "RowChange", "BackendInfo", "Examination"}
    assert found >= {"Statement", "Record", "Interval", "Progress", "BestRow", "Environment"}


@pytest.mark.parametrize("kind", sorted(public_classes(), key=lambda kind: kind.__name__))
def test_every_public_object_is_short_at_a_prompt(kind):
    found = [one for known, ones in instances().items() if issubclass(known, kind) for one in ones]
    assert found, f"results() has no {kind.__name__}: add one"
    for one in found[:: 1 + len(found) // 200]:  # of thousands of operations and kernels, some
        lines = repr(one).splitlines()
        assert 1 <= len(lines) <= 10
        assert len(repr(one)) < 2000
        assert max(map(len, lines)) <= 130
        assert str(one)


@pytest.mark.parametrize("kind", sorted(public_classes(), key=lambda kind: kind.__name__))
def test_every_public_object_is_a_fragment_of_html_in_a_notebook(kind):
    one = next(
        one for known, ones in instances().items() if issubclass(known, kind) for one in ones
    )
    fragment = one._repr_html_().strip()
    assert fragment.startswith("<div")
    assert fragment.endswith("</div>")
    for loading in ("<script", "src=", "href=", "color:", "background"):
        assert loading not in fragment, "it loads nothing, and takes the notebook's colours"


# --- records ------------------------------------------------------------------------------------


def test_a_record_shows_its_fields_without_defaults():
    assert repr(Interval(2.0, 1.5, 2.123456789)) == "Interval(value=2, low=1.5, high=2.12346)"
    assert repr(pb.results.Preparation(1.5, 0.25, 3)) == (
        "Preparation(build_s=1.5, first_call_s=0.25, warmup_calls=3)"
    )


def test_many_items_are_counted_and_long_texts_are_cut():
    shown = repr(resnet().data)
    assert "results=<5 BackendResult>" in shown
    assert "environment=<Environment>" in shown
    failure = attrs.evolve(failing().failures[0], reason="x" * 500)
    assert f"'{'x' * 89}…'" in repr(failure)


def test_str_has_whole_texts_and_a_line_for_each_record():
    finding = pb.diagnose(resnet()).findings[0]
    assert f"  remedy: {finding.remedy}\n" in str(finding)
    assert str(finding).count("\n    Number(") == len(finding.evidence)


def test_an_interval_and_a_speed_up_are_sentences():
    assert str(Interval(2.0, 1.5, 2.1234)) == "2 (1.5 to 2.123)"
    assert str(resnet().speedup("half")) == "2.88x (2.86 to 2.91), faster"


def test_a_text_that_imitates_markup_is_escaped():
    failure = attrs.evolve(failing().failures[0], reason="<b>\x1b[2J</b>")
    assert "&lt;b&gt;�[2J&lt;/b&gt;" in failure._repr_html_()
    assert "\x1b" not in repr(failure) + str(failure)


def test_records_are_a_table_of_aligned_columns():
    title, head, first, *_ = repr(resnet().under_rules("half")).splitlines()
    assert title == "17 records (Statement)"
    assert head.split() == ["rule", "figure", "value", "unit"]
    assert first.startswith("  precisionbench  ")
    assert first.index("latency") == head.index("figure")


def test_records_stay_a_tuple():
    records = resnet().under_rules("half")
    assert records == tuple(records)
    assert pickle.loads(pickle.dumps(records)) == records
    assert [one["rule"] for one in unstructured(records)] == [one.rule for one in records]
    assert repr(Records()) == str(Records()) == "0 records"


def test_more_rows_than_ten_lines_are_counted():
    shown = repr(pb.published.everything()).splitlines()
    assert len(shown) == 10
    assert shown[-1].endswith("more lines; print() shows all")


# --- results ------------------------------------------------------------------------------------


def test_a_comparison_shows_the_result_and_its_rows():
    title, headline, *rows = repr(resnet()).splitlines()
    assert title == "torchvision:resnet50, batch 100 on NVIDIA H100 80GB HBM3"
    assert headline.startswith("half:memory_format=channels_last is ")
    assert [row.split()[0] for row in rows[-5:]] == [row.backend for row in resnet().results]
    assert repr(failing()).endswith("not measured: apex-amp")


def test_a_diagnosis_shows_confirmed_causes_first():
    title, first, *_ = repr(pb.diagnose(resnet())).splitlines()
    assert title == "Diagnosis of 5 rows: 1 confirmed, 5 suspected"
    assert first.startswith("  confirmed, 1.48x (1.47 to 1.49): layout conversions")


def test_a_notebook_unfolds_the_text_of_a_diagnosis():
    found = pb.diagnose(resnet())
    assert found._repr_html_().count("<details>") == 1
    assert "Ten questions" not in repr(found)
    assert "Ten questions" in found._repr_html_()


def test_a_difference_prints_its_table():
    found = resnet().against(attrs_changed(resnet()), force=True)
    assert "not comparable" in repr(found)
    assert "half:dtype=bfloat16" in str(found)


# --- in Jupyter ---------------------------------------------------------------------------------


class ZMQInteractiveShell(InteractiveShell):
    """A shell with the name by which libraries know Jupyter's."""


@pytest.fixture
def jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = ZMQInteractiveShell.instance()
    monkeypatch.setattr(shell, "display_pub", CapturingDisplayPublisher())
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    yield shell
    ZMQInteractiveShell.clear_instance()


@pytest.mark.parametrize("number", range(7))
def test_text_in_jupyter_is_the_text_elsewhere(jupyter, monkeypatch, number):
    one = results()[number]
    inside = str(one), f"{one}", repr(one)
    assert jupyter.display_pub.outputs == []
    monkeypatch.delattr(builtins, "get_ipython")
    assert inside == (str(one), str(one), repr(one))
    assert inside[0]


def test_a_cell_that_ends_in_a_comparison_displays_its_table(jupyter):
    jupyter.push({"found": resnet()})
    with capture_output() as printed:
        outcome = jupyter.run_cell("print(found); found")
    assert outcome.success
    assert str(resnet()) in printed.stdout
    formats, _ = jupyter.display_formatter.format(outcome.result)
    assert "<table" in formats["text/html"]
    assert formats["text/plain"] == repr(resnet())
