"""`tune` on this machine's CPU, with real engines and planted ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Hashable
from pathlib import Path

import attrs
import pytest
import torch
from torch import nn

import precisionbench as pb
from made_up_tuning import tuning_data
from precisionbench.errors import IncomparableError, SpecError, WorkloadError
from precisionbench.measure import availability
from precisionbench.model.workload import resolve
from precisionbench.results.tuning import BEST, FAILED, FINALIST, INACCURATE, Target
from precisionbench.workflows.tuning.target import differences

pytestmark = pytest.mark.usefixtures("listed_once")

PLANTED = """
    import contextlib
    import itertools
    import os
    import time
    from typing import ClassVar

    import attrs
    import torch

    from precisionbench.backends import Backend, Prepared
    from precisionbench.backends import Stage, TuningOptions


    class Offered(Backend):
        @classmethod
        def tuning_options(cls, capabilities):
            return TuningOptions(Stage.PRECISION)


    @attrs.frozen
    class Zeros(Offered):
        '''Answers at once, and wrongly.'''

        name: ClassVar[str] = "zeros"

        @contextlib.contextmanager
        def prepare(self, model, inputs):
            output = torch.zeros_like(inputs.bind(model)())
            yield Prepared(lambda: output, inputs=inputs)


    @attrs.frozen
    class Later(Offered):
        '''Is right at first, and then answers at once, and wrongly.'''

        name: ClassVar[str] = "later"

        @contextlib.contextmanager
        def prepare(self, model, inputs):
            call, count = inputs.bind(model), itertools.count()
            zeros = torch.zeros_like(call())
            yield Prepared(lambda: call() if next(count) < 30 else zeros, inputs=inputs)


    @attrs.frozen
    class Second(Offered):
        '''Does the work once, which is right in the first process only.'''

        name: ClassVar[str] = "second"

        @contextlib.contextmanager
        def prepare(self, model, inputs):
            with open(os.environ["SECOND_PROCESSES"], "a+") as processes:
                processes.write(".")
                factor = 1.0 if processes.tell() == 1 else 1.3
            body, (x,) = model.body, inputs.args
            yield Prepared(lambda: body(x) * factor, inputs=inputs)


    @attrs.frozen
    class Cached(Offered):
        '''Gives the output of the inputs that it was prepared with.'''

        name: ClassVar[str] = "cached"

        @contextlib.contextmanager
        def prepare(self, model, inputs):
            output = inputs.bind(model)()
            yield lambda: output


    @attrs.frozen
    class Twin(Offered):
        '''The same work as eager.'''

        name: ClassVar[str] = "twin"
        memory_format = "contiguous"

        @contextlib.contextmanager
        def prepare(self, model, inputs):
            yield Prepared(inputs.bind(model), model, inputs=inputs)


    @attrs.frozen
    class Sleeper(Offered):
        '''The same work, after half a second.'''

        name: ClassVar[str] = "sleeper"

        @contextlib.contextmanager
        def prepare(self, model, inputs):
            call = inputs.bind(model)

            def slow():
                time.sleep(0.6)
                with open(os.environ["SLEEPER_CALLS"], "a") as calls:
                    calls.write(".")
                return call()

            yield Prepared(slow, model, inputs=inputs)
"""


class Mlp(nn.Module):
    """Large enough that calls of a millisecond are timed."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 8))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.body(features)


@pytest.fixture
def mlp() -> Mlp:
    torch.manual_seed(0)
    return Mlp().eval()


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(64, 512, generator=torch.Generator().manual_seed(1))


def test_what_is_inaccurate_or_slow_never_wins_and_a_tie_is_a_tie(
    install, mlp, features, tmp_path, monkeypatch
):
    install("planted", PLANTED, zeros="Zeros", twin="Twin", sleeper="Sleeper")
    calls = tmp_path / "calls"
    monkeypatch.setenv("SLEEPER_CALLS", str(calls))
    found = pb.tune(
        mlp, features, include=["zeros", "twin", "sleeper"], budget_s=30, device="cpu", journal=None
    )
    trials = {trial.spec: trial for trial in found.trials}
    assert trials["zeros"].outcome == INACCURATE
    assert trials["zeros"].speedup is None
    assert trials["twin"].outcome in (FINALIST, "slower")
    assert trials["sleeper"].outcome == "slower"
    assert "times as long as one of eager" in trials["sleeper"].reason
    assert calls.read_text() == ".."  # the first call, and a warm one
    assert found.spec == "eager"
    assert "no accurate configuration is" in found.data.choice


class Often(nn.Module):
    """Does its work six times, so that what does it once is certainly faster."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Mlp().body

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        for _ in range(5):
            self.body(features)
        return self.body(features)


def test_what_is_right_only_when_it_is_judged_never_wins(install, features, tmp_path, monkeypatch):
    install("planted", PLANTED, later="Later", second="Second", cached="Cached")
    monkeypatch.setenv("SECOND_PROCESSES", str(tmp_path / "processes"))
    torch.manual_seed(0)
    model, specs = Often().eval(), ["later", "second", "cached"]
    found = pb.tune(model, features, include=specs, budget_s=30, device="cpu", journal=None)
    trials = {trial.spec: trial for trial in found.trials}
    assert found.spec == "eager"
    assert trials["cached"].outcome == FAILED
    assert trials["cached"].reason.startswith("its calls cannot be given other inputs")
    for spec in ("later", "second"):
        assert trials[spec].outcome == INACCURATE
        assert "when it was judged again" in trials[spec].reason
    assert [point.spec for point in found.front if point.is_on_front] == ["eager"]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, list_once) -> pb.Tuned:
    torch.manual_seed(0)
    features = torch.randn(64, 512, generator=torch.Generator().manual_seed(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(availability, "list_backends", list_once)
        return pb.tune(
            Mlp().eval(),
            features,
            include=["eager", "half:dtype=bfloat16"],
            budget_s=25,
            device="cpu",
            journal=tmp_path_factory.mktemp("tune") / "journal.jsonl",
        )


def test_the_result_says_what_was_chosen_with_its_interval_and_error(tuned):
    assert tuned.spec in ("eager", "half:dtype=bfloat16")
    assert tuned.speedup.low <= tuned.speedup.value <= tuned.speedup.high
    assert tuned.error.value < 1e-2
    assert tuned.data.bound.reference == "float64"
    assert [trial.spec for trial in tuned.trials if trial.outcome == BEST] == [tuned.spec]
    assert tuned.spec in str(tuned)


def test_every_configuration_has_its_error_and_its_speed(tuned):
    bfloat16 = next(one for one in tuned.trials if one.spec == "half:dtype=bfloat16")
    assert 1e-4 < bfloat16.accuracy.loss.value < 1e-2
    assert bfloat16.speedup is not None


def test_it_is_read_again_from_its_file(tuned, tmp_path):
    tuned.save(tmp_path / "tuned.json")
    assert pb.load_tuned(tmp_path / "tuned.json").data == tuned.data


def test_the_tuned_configuration_runs_on_other_inputs(tuned, mlp):
    torch.manual_seed(0)
    model, other = Mlp().eval(), torch.randn(64, 512)
    with tuned.prepare(model) as fast:
        output = fast(other)
    with torch.inference_mode():
        expected = model(other)
    assert (output.float() - expected).norm() / expected.norm() < 1e-2


def test_without_arguments_it_prepares_the_model_that_was_tuned(tuned, features):
    with tuned.prepare() as fast:
        assert fast(features).shape == (64, 8)


def test_the_tuned_model_can_be_prepared_for_another_batch(tuned, features):
    with tuned.prepare(inputs=features[:8]) as fast:
        assert fast(features[8:16]).shape == (8, 8)


def test_a_result_is_not_hashable_as_a_comparison_is_not():
    for result in (found := pb.Tuned(tuning_data()), found.comparison):
        assert not isinstance(result, Hashable)
        with pytest.raises(TypeError, match=f"unhashable type: '{type(result).__name__}'"):
            hash(result)


BATCHED = pb.Tuned(tuning_data(best="eager:batch_size=16", reference="eager:batch_size=16"))


@pytest.mark.filterwarnings("ignore:the model:UserWarning")
def test_without_inputs_it_is_prepared_for_the_batch_that_was_tuned(features, mlp):
    workload = resolve(mlp, features[:4], device="cpu", seed=0)
    with attrs.evolve(BATCHED, workload=workload).prepare(device="cpu", force=True) as fast:
        assert fast(features[:16]).shape == (16, 8)
        with pytest.raises(WorkloadError):
            fast(features[:4])


@pytest.mark.filterwarnings("ignore:the model:UserWarning")
def test_inputs_of_another_batch_are_prepared_for_with_a_warning(features, mlp):
    with (
        pytest.warns(UserWarning, match="tuned for batches of 16 items, and these inputs hold 4"),
        BATCHED.prepare(mlp, features[:4], device="cpu", force=True) as fast,
    ):
        assert fast(features[:4]).shape == (4, 8)


@pytest.mark.slow  # a whole search
def test_another_batch_wins_by_its_items_per_second(mlp, features):
    found = pb.tune(
        mlp,
        features[:2],
        include=["eager"],
        batch_sizes=[1, 64],
        budget_s=20,
        device="cpu",
        journal=None,
    )
    assert found.spec == "eager:batch_size=64"
    assert found.speedup.low > 1.5
    assert "as fast per item as" in found.data.choice
    large = next(row for row in found.comparison if row.backend == found.spec)
    assert large.batch_size == 64
    assert "another batch are compared by items per second." in " ".join(str(found).split())
    with found.prepare() as fast:
        assert fast(features).shape == (64, 8)


def test_a_loaded_result_needs_the_model_and_its_inputs(tuned, tmp_path, features):
    tuned.save(tmp_path / "tuned.json")
    loaded = pb.load_tuned(tmp_path / "tuned.json")
    with pytest.raises(WorkloadError, match="no model is given"), loaded.prepare():
        pass
    torch.manual_seed(0)
    with loaded.prepare(Mlp().eval(), features, device="cpu") as fast:
        assert fast(features).shape == (64, 8)


def test_another_model_is_refused_unless_it_is_forced(tuned, features):
    other = nn.Linear(512, 8)
    refused = pytest.raises(IncomparableError, match="the model's tensors or code differ")
    with refused, tuned.prepare(other, features):
        pass
    with (
        pytest.warns(UserWarning, match="weights"),
        tuned.prepare(other, features, force=True) as fast,
    ):
        assert fast(features).shape == (64, 8)


@pytest.mark.slow
def test_a_second_run_on_the_same_thing_is_the_result_of_the_first(tuned, features):
    torch.manual_seed(0)
    begun_s = time.monotonic()
    again = pb.tune(
        Mlp().eval(),
        features,
        include=["eager", "half:dtype=bfloat16"],
        budget_s=25,
        device="cpu",
        journal=tuned.journal,
    )
    assert again.data.final == tuned.data.final
    assert "nothing has changed" in again.data.notes[-1]
    assert time.monotonic() - begun_s < 25


@pytest.mark.slow  # a whole search
@pytest.mark.onnxruntime
@pytest.mark.openvino
def test_engines_are_tried_beside_pytorch(cnn, images):
    engines = ["onnxruntime", "openvino:precision=fp32"]
    found = pb.tune(cnn, images, include=engines, budget_s=60, device="cpu", journal=None)
    outcomes = {trial.spec: trial.outcome for trial in found.trials}
    assert {spec.partition(":")[0] for spec in engines} <= outcomes.keys()
    assert set(outcomes.values()) <= {BEST, FINALIST, "slower", INACCURATE}, found.trials


KILLED = """
    import sys
    import torch
    import precisionbench as pb
    from test_tuning import Mlp

    torch.manual_seed(0)
    model = Mlp().eval()
    features = torch.randn(64, 512, generator=torch.Generator().manual_seed(1))
    pb.tune(model, features, max_error=1e-3, include=["eager", "half:dtype=bfloat16", "compile"],
            budget_s=60, device="cpu", journal=sys.argv[1])
"""


def ended_by(number: signal.Signals, folder: Path, journal: Path) -> str:
    """What a search says that a signal ends, once something is in its journal."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(KILLED))
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with subprocess.Popen(
        [sys.executable, script, journal],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not journal.exists() or '"inaccurate"' not in journal.read_text():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        return process.communicate()[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_run_that_is_terminated_says_where_it_is_kept(name, tmp_path):
    journal = tmp_path / "journal.jsonl"
    said = ended_by(signal.Signals[name], tmp_path, journal)
    assert said.endswith(
        f"ended by {name}; what was tried is kept in '{journal}'; the same again goes on\n"
    )


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path, features):
    journal = tmp_path / "journal.jsonl"
    ended_by(signal.SIGKILL, tmp_path, journal)
    torch.manual_seed(0)
    found = pb.tune(
        Mlp().eval(),
        features,
        max_error=1e-3,
        include=["eager", "half:dtype=bfloat16", "compile"],
        budget_s=60,
        device="cpu",
        journal=journal,
    )
    half = next(trial for trial in found.trials if trial.spec == "half:dtype=bfloat16")
    assert half.from_journal
    assert half.outcome == INACCURATE
    assert found.spec.startswith(("eager", "compile"))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"budget_s": 1}, SpecError, "budget_s is 1"),
        ({"batch_sizes": ["many"]}, SpecError, "batch_sizes holds 'many'"),
        ({"seed": "a"}, SpecError, "seed is 'a'; give a whole number"),
        ({"batch_sizes": 8}, SpecError, r"batch_sizes is 8; give a list: \[8\]"),
        ({"exclude": [3]}, SpecError, "exclude holds 3; give backends and specs"),
        ({"include": ["bf16"]}, SpecError, "'bf16'; bf16 stands for half:dtype=bfloat16"),
        ({"max_error": 0.1, "metric": print}, SpecError, "both max_error and metric"),
        ({"include": ["hlaf"]}, SpecError, "there is no backend 'hlaf'"),
    ],
)
def test_arguments_are_refused_before_anything_is_measured(mlp, features, arguments, error, words):
    with pytest.raises(error, match=words):
        pb.tune(mlp, features, device="cpu", journal=None, **arguments)


# The bench of workers, with the real thing in each of its steps


@pytest.mark.slow
def test_a_metric_on_data_bounds_the_drop(mlp, features):
    data = [(features.roll(shift, 0), torch.zeros(64)) for shift in range(4)]
    found = pb.tune(
        mlp,
        features,
        metric=lambda outputs, batch: outputs.float().mean() + len(batch),
        data=data,
        drop=0.05,
        include=["eager"],
        budget_s=12,
        device="cpu",
        journal=None,
    )
    assert found.spec == "eager"
    assert found.error.value == 0.0
    assert found.data.bound.batches == 4
    assert found.trials[0].accuracy.metric > 1


@pytest.mark.slow  # its search takes its budget
def test_layers_that_add_most_error_stay_in_float32(features):
    torch.manual_seed(0)
    found = pb.tune(
        Mlp().eval(),
        features,
        max_error=2e-3,
        include=["half:dtype=bfloat16"],
        budget_s=15,
        device="cpu",
        journal=None,
    )
    assert next(t for t in found.trials if t.spec == "half:dtype=bfloat16").outcome == INACCURATE
    assert [t for t in found.trials if "fp32_layers=" in t.spec]


def test_a_result_is_text_markdown_html_and_a_frame(tuned, tmp_path):
    assert tuned.spec in tuned.to_markdown()
    tuned.to_html(tmp_path / "tuned.html")
    assert tuned.spec in (tmp_path / "tuned.html").read_text()
    assert tuned.comparison.data == tuned.data.final
    assert tuned.as_data()["best"] == tuned.spec
    assert {point.spec for point in tuned.front} == {row.backend for row in tuned.comparison}
    assert tuned.left_out == tuned.data.left_out


def test_the_device_and_versions_that_were_tuned_for_are_named():
    tuned_for = Target("H200", "9.0", {"torch": "2.14", "openvino": "1"}, "a", "w")
    here = Target("Orin", "8.7", {"torch": "2.11"}, "a", "w")
    assert list(differences(tuned_for, here)) == [
        "the device is Orin and not H200",
        "torch is 2.11 and not 2.14",
        "openvino is not installed and not 1",
    ]
