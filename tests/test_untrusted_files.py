"""Names in a result file are data: what an experiment builds of them without the user's trust."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from made_up_results import recorded
from precisionbench.backends import discovery
from precisionbench.backends.from_files import from_file, named_by_options
from precisionbench.cli import main
from precisionbench.comparison import Comparison
from precisionbench.errors import MeasurementError, UntrustedSpecError
from precisionbench.model.workload import resolve
from precisionbench.workflows.experiment_runs import Experiments

EVIL = "torch2trt:precision=int8,calibration=evil_calibration:batches"
OURS = ("apex-amp", "autocast", "compile", "eager", "half", "torch2trt")


@pytest.mark.parametrize(
    "spec",
    [
        "eager:precision=tf32",
        "half:dtype=bfloat16,memory_format=channels_last,fp32_layers=head+stem.0",
        "compile:mode=max-autotune,freezing=true,batch_size=8",
        "torch2trt:precision=int8,dla_core=1,workspace_bytes=1024",
    ],
)
def test_fixed_values_and_numbers_are_harmless(spec):
    assert from_file(spec) == discovery.make(spec)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (EVIL, "code by calibration='evil_calibration:batches'"),
        ("torch2trt:engine_cache=/tmp/x", "a folder by engine_cache='/tmp/x'"),
    ],
)
def test_code_and_folders_of_a_file_are_refused_with_the_way_out(spec, named):
    with pytest.raises(UntrustedSpecError, match="--trust, or trust=True in Python") as caught:
        from_file(spec)
    assert f"the file names {named} of 'torch2trt'" in caught.value.reason
    assert from_file(spec, trust=True) == discovery.make(spec)


def test_only_these_options_of_ours_name_something():
    found = {name: named_by_options(discovery.load(name)) for name in OURS}
    assert {name: options for name, options in found.items() if options} == {
        "torch2trt": {"engine_cache": "a folder", "calibration": "code"}
    }


PLUGIN = """
from pathlib import Path
from typing import ClassVar, Literal

import attrs

from precisionbench.backends import Backend

Path({mark!r}).touch()

@attrs.frozen
class Plugin(Backend):
    name: ClassVar[str] = "stranger"
    level: Literal["a", "b"] = "a"
    text: str = "plain"

    def prepare(self, model, inputs):
        raise NotImplementedError
"""


def test_a_plugin_that_a_file_names_is_not_even_imported(install, tmp_path):
    mark = tmp_path / "imported"
    install("stranger-plugin", PLUGIN.format(mark=str(mark)), stranger="Plugin")
    with pytest.raises(UntrustedSpecError, match="the plugin 'stranger', whose code"):
        from_file("stranger:level=b")
    assert not mark.exists()
    assert from_file("stranger:level=b", trust=True).level == "b"
    assert mark.exists()


def test_an_open_option_of_a_plugin_counts_as_naming_something(install, tmp_path):
    install("stranger-plugin", PLUGIN.format(mark=str(tmp_path / "imported")), stranger="Plugin")
    assert named_by_options(discovery.load("stranger")) == {"text": "something"}


class Narrow(nn.Module):
    def forward(self, images):
        return images


def loaded(spec: str) -> Comparison:
    """A recorded result of which both rows wait for launches; the second has this spec."""
    data = recorded("small-launches")
    eager, half = data.results
    return Comparison(attrs.evolve(data, results=(eager, attrs.evolve(half, backend=spec))))


def rows_measured(comparison: Comparison, trust: bool) -> tuple[list[str], dict[str, str]]:
    """Names of the rows that an experiment would measure, and why it is not made on others."""
    names: list[str] = []

    def measure(rows, options, on_progress):
        names.extend(row.name for row in rows)
        raise MeasurementError("nothing is measured here")

    workload = resolve(Narrow(), torch.zeros(1, 3, 8, 8), device="cpu")
    made = Experiments(["cuda-graph"], trust=trust)(comparison, workload, measure)
    return names, {one.row: one.failure for one in made.results}


def test_an_experiment_is_not_made_on_a_row_whose_file_names_code():
    names, failures = rows_measured(loaded(EVIL), trust=False)
    assert not any("torch2trt" in name for name in names)
    assert "eager" in " ".join(names), "the other rows are measured"
    assert "names code by calibration='evil_calibration:batches'" in failures[EVIL]


def test_it_is_made_where_the_user_trusts_the_file():
    names, _ = rows_measured(loaded(EVIL), trust=True)
    assert any("torch2trt" in name for name in names)


def test_it_is_made_with_a_backend_that_the_user_gives():
    comparison = loaded(EVIL)
    comparison.backends[EVIL] = discovery.make(EVIL)
    names, _ = rows_measured(comparison, trust=False)
    assert any("torch2trt" in name for name in names)


def test_trust_without_a_model_is_bad_usage(tmp_path: Path):
    file = tmp_path / "r.json"
    loaded("half").save(file)
    done = CliRunner().invoke(main, ["explain", str(file), "--trust"])
    assert done.exit_code == 2
    assert "--trust is for experiments" in done.output
