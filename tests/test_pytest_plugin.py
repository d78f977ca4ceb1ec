"""The pytest plugin, in runs of pytest of its own; what it measures is real, and small."""

from __future__ import annotations

import json
import re
from pathlib import Path

import attrs
import pytest
import torch

import precisionbench as pb
from precisionbench.errors import IncomparableError
from precisionbench.testing import baselines
from test_run_diff import run

pytest_plugins = ("pytester",)

HEAD = """
import os
import pytest
import torch
import precisionbench as pb

INLINE = {"budget_s": 0.2, "launcher": "inline", "evidence": False}

def tiny(precision_benchmark, **options):
    given = {**INLINE, "backends": ["eager"], "device": "cpu", **options}
    return precision_benchmark(torch.nn.Linear(8, 8), torch.rand(4, 8), **given)
"""
MEASURES = """
def test_it(precision_benchmark):
    tiny(precision_benchmark)"""
FAILS = f"""
{MEASURES}
    ok = "PASS" in os.environ
    assert ok
"""


@pytest.fixture(scope="module", autouse=True)
def everything_is_loaded(tmp_path_factory) -> None:
    """pytester forgets what a run in this process imports, and torch cannot be imported twice."""
    found = pb.compare(
        torch.nn.Linear(8, 8),
        torch.rand(4, 8),
        backends=["half"],
        device="cpu",
        launcher="inline",
        budget_s=1.0,  # enough rounds for a baseline, also on a busy machine
        evidence=False,
    )
    file = tmp_path_factory.mktemp("warm") / "b.json"
    for _ in range(2):
        str(found), baselines.check_baseline(found, file, save=True, overwrite=False)


@pytest.fixture
def nested(pytester):
    """Runs pytest on tests that begin with `HEAD`."""

    def nested(source: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_speed=HEAD + source)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-W", "error", *options)

    return nested


def text(done: pytest.RunResult) -> str:
    """What was printed, each run of blanks as one."""
    return " ".join(done.stdout.str().split())


def only_file(folder: str) -> Path:
    (file,) = Path(folder).iterdir()
    return file


# --- measuring ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_test_measures_and_its_table_is_shown_at_the_end(nested):
    done = nested(
        """
def test_it(precision_benchmark):
    comparison = tiny(precision_benchmark)
    assert isinstance(comparison, pb.Comparison)
    assert comparison["eager"].latency.value > 0
def test_that_measures_nothing(precision_benchmark): pass
"""
    )
    done.assert_outcomes(passed=2)
    after = text(done).partition("= precisionbench =")[2]
    assert "test_speed.py::test_it" in after
    assert "Linear, batch 4 on" in after
    assert "measures_nothing" not in after


def test_without_a_comparison_there_is_no_summary(nested):
    assert "= precisionbench =" not in text(nested("def test_it(): pass"))


@pytest.mark.slow
def test_a_failed_assertion_has_its_reason_and_the_table_is_shown(nested):
    done = nested(
        """
def test_it(precision_benchmark):
    pb.assert_speedup(tiny(precision_benchmark, backends=["half"]), "half", at_least=1.5)
"""
    )
    done.assert_outcomes(failed=1)
    assert "E AssertionError: half measured" in text(done)
    assert "rows were not interleaved" in text(done)
    assert "Linear, batch 4 on" in text(done)
    assert "def assert_speedup" not in done.stdout.str()  # the frame of the claim is the test's


@pytest.mark.parametrize(
    "source",
    [
        '@pytest.mark.precision_device("cuda:99")\n' + FAILS,
        'def test_it(precision_benchmark): tiny(precision_benchmark, device="cuda:99")',
    ],
)
def test_without_the_device_a_test_is_skipped_with_the_reason(nested, source):
    done = nested(source, "-rs")
    done.assert_outcomes(skipped=1)
    assert "the device 'cuda:99' cannot be used" in text(done)


def test_an_unknown_kind_of_device_is_an_error(nested):
    done = nested(
        """
def test_it(precision_benchmark): tiny(precision_benchmark, device="gpu")
@pytest.mark.precision_device
def test_other(precision_benchmark): tiny(precision_benchmark)
"""
    )
    done.assert_outcomes(failed=1, errors=1)
    assert "the device 'gpu' cannot be used" in text(done)
    assert 'write @pytest.mark.precision_device("cuda")' in text(done)


@pytest.mark.slow
def test_the_marked_device_is_used(nested):
    done = nested(
        """
@pytest.mark.precision_device("cpu")
def test_it(precision_benchmark):
    assert tiny(precision_benchmark, device=None).data.environment.device == "cpu"
"""
    )
    done.assert_outcomes(passed=1)


@pytest.mark.slow
def test_ctrl_c_ends_pytest_and_not_only_the_row(pytester):
    pytester.makepyfile(
        test_speed=HEAD
        + """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
pressed = []
def interrupt(progress):
    if not progress.backend and progress.position == 2 and not pressed:
        pressed.append(progress)
        os.kill(os.getpid(), signal.SIGINT)
def test_it(precision_benchmark):
    tiny(precision_benchmark, launcher="process", budget_s=20, replicas=1, on_progress=interrupt)
def test_next(): pass
"""
    )
    done = pytester.runpytest_subprocess()
    assert done.ret == pytest.ExitCode.INTERRUPTED, done.stdout.str()
    assert "passed" not in done.stdout.str()


# --- result files ---------------------------------------------------------------------------------


def test_comparisons_are_saved_also_if_the_test_fails(nested):
    done = nested(FAILS, "--precisionbench-output", "out/results")
    done.assert_outcomes(failed=1)
    file = only_file("out/results")
    assert file.name.startswith("test_speed.py-test_it-")
    assert pb.load(file)["eager"]


@pytest.mark.slow
def test_two_comparisons_of_one_test_have_a_file_each(nested):
    nested(f"{MEASURES}\n    tiny(precision_benchmark)", "--precisionbench-output", "out")
    names = sorted(file.name for file in Path("out").iterdir())
    assert [name.removesuffix(".json")[-2:] == "-2" for name in names] == [True, False]


def test_an_existing_result_is_kept_and_nothing_is_measured(nested):
    nested(MEASURES, "--precisionbench-output", "out")
    before = only_file("out").read_bytes()
    done = nested(MEASURES, "--precisionbench-output", "out")
    done.assert_outcomes(failed=1)
    assert "exists; choose another name" in text(done)
    assert "Linear, batch 4" not in text(done)
    assert only_file("out").read_bytes() == before
    nested(MEASURES, "--precisionbench-output", "out", "--precisionbench-overwrite")
    assert only_file("out").read_bytes() != before


@pytest.mark.parametrize("option", ["output", "baselines"])
def test_a_folder_that_cannot_be_made_is_an_error_before_measuring(nested, option):
    Path("file").touch()
    save = ("--precisionbench-save",) if option == "baselines" else ()
    done = nested(MEASURES, f"--precisionbench-{option}", "file/out", *save)
    done.assert_outcomes(failed=1)
    assert "file/out' cannot be made (Not a directory); choose another" in text(done)
    assert "Linear, batch 4" not in text(done)


@pytest.mark.slow
def test_a_test_that_is_run_again_replaces_its_own_result(nested, pytester):
    pytester.makeconftest(
        """
from _pytest.runner import runtestprotocol
def pytest_runtest_protocol(item, nextitem):  # as pytest-rerunfailures does
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    runtestprotocol(item, log=False, nextitem=nextitem)
    item._initrequest()
    runtestprotocol(item, log=True, nextitem=nextitem)
    return True
"""
    )
    nested(MEASURES, "--precisionbench-output", "out").assert_outcomes(passed=1)
    assert only_file("out")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--precisionbench-save"], "needs --precisionbench-baselines DIR"),
        (["--precisionbench-overwrite"], "needs --precisionbench-save or"),
        (
            ["--precisionbench-overwrite", "--precisionbench-baselines", "b"],
            "needs --precisionbench-save or",
        ),
    ],
)
def test_options_without_their_folder_are_refused(nested, options, said):
    done = nested(MEASURES, *options)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert said in done.stderr.str()


# --- baselines ------------------------------------------------------------------------------------

# Rows in worker processes, whose changes carry a verdict.
APART = """
def test_it(precision_benchmark):
    tiny(precision_benchmark, launcher="process", budget_s=0.6)
"""


@pytest.mark.slow
def test_a_missing_baseline_is_reported_and_saved_only_on_request_by_a_passing_test(
    nested, monkeypatch
):
    done = nested(FAILS, "--precisionbench-baselines", "b")
    done.assert_outcomes(failed=1)
    nested(FAILS, "--precisionbench-baselines", "b", "--precisionbench-save")
    assert not Path("b").exists()
    monkeypatch.setenv("PASS", "1")
    done = nested(FAILS, "--precisionbench-baselines", "b")
    done.assert_outcomes(passed=1)
    assert "there is no baseline" in text(done)
    done = nested(FAILS, "--precisionbench-baselines", "b", "--precisionbench-save")
    assert "saved as the baseline" in text(done)
    assert pb.load(only_file("b"))["eager"]


@pytest.mark.slow
def test_a_test_is_compared_with_its_baseline(nested):
    """The same code is taken for slower than it was where the baseline's times are wrong."""
    options = ("--precisionbench-baselines", "b", "--precisionbench-save")
    nested(APART, *options).assert_outcomes(passed=1)
    rewrite(only_file("b"), lambda sample: sample * 1e5)
    done = nested(APART, *options)
    done.assert_outcomes(passed=1)
    assert "no row is significantly slower than the baseline of" in text(done)
    rewrite(only_file("b"), lambda sample: sample * 1e-8)
    kept = only_file("b").read_bytes()
    done = nested(APART, *options)
    done.assert_outcomes(failed=1)
    assert re.search(r"slower than on .*: eager 0\.00.*\), slower: the CI excludes 1", text(done))
    assert only_file("b").read_bytes() == kept
    nested(APART, *options, "--precisionbench-overwrite").assert_outcomes(passed=1)
    assert only_file("b").read_bytes() != kept


def rewrite(file: Path, change) -> None:
    document = json.loads(file.read_text())
    for row in document["results"]:
        for block in row["measurement"]["blocks"]:
            block["samples"] = [change(sample) for sample in block["samples"]]
    file.write_text(json.dumps(document))


@pytest.mark.slow
def test_a_baseline_under_other_conditions_is_refused(nested):
    options = ("--precisionbench-baselines", "b", "--precisionbench-save")
    nested(MEASURES, *options)
    file = only_file("b")
    document = json.loads(file.read_text())
    document["environment"]["torch"] = "1.0"
    file.write_text(json.dumps(document))
    done = nested(MEASURES, *options)
    done.assert_outcomes(failed=1)
    assert "was measured under other conditions: the two runs differ in torch (1.0" in text(done)
    assert "make a new one with --precisionbench-save --precisionbench-overwrite" in text(done)
    assert "--force" not in text(done)


def test_the_result_of_a_baseline_is_a_sentence(tmp_path):
    file = tmp_path / "b.json"
    old, new, slower = (
        pb.Comparison(run(seed, speed)) for seed, speed in ((1, 1), (2, 1), (3, 0.8))
    )
    assert "there is no baseline" in baselines.check_baseline(
        old, file, save=False, overwrite=False
    )
    assert not file.exists()
    assert "saved as" in baselines.check_baseline(old, file, save=True, overwrite=False)
    for save in (False, True):
        said = baselines.check_baseline(new, file, save=save, overwrite=False)
        assert re.match(
            r"no row is significantly slower than the baseline of 2026.*: eager [01]\.\d+x", said
        )
        with pytest.raises(AssertionError, match="slower than on 2026"):
            baselines.check_baseline(slower, file, save=save, overwrite=False)
    other = attrs.evolve(new.data, environment=attrs.evolve(new.data.environment, cpu_cores=64))
    with pytest.raises(IncomparableError, match="CPU cores"):
        baselines.check_baseline(pb.Comparison(other), file, save=True, overwrite=False)
    assert pb.load(file) == old
    baselines.check_baseline(slower, file, save=True, overwrite=True)
    assert pb.load(file) == slower


@pytest.mark.slow
def test_a_run_of_too_few_rounds_does_not_become_a_baseline(tmp_path):
    file, data = tmp_path / "baselines" / "b.json", run(1, 1)

    def of_rounds(count: int) -> pb.Comparison:
        def shortened(row):
            blocks = tuple(block for block in row.measurement.blocks if block.round < count)
            return attrs.evolve(row, measurement=attrs.evolve(row.measurement, blocks=blocks))

        return pb.Comparison(attrs.evolve(data, results=tuple(map(shortened, data.results))))

    said = "this run cannot become the baseline: eager was measured in 2 rounds, and a comparison"
    with pytest.raises(IncomparableError, match=f"{said} needs at least 3; give a larger budget,"):
        baselines.check_baseline(of_rounds(2), file, save=True, overwrite=True)
    assert not file.parent.exists()
    assert "saved as" in baselines.check_baseline(of_rounds(3), file, save=True, overwrite=True)


def test_tests_of_similar_names_have_different_files():
    names = ["a.py::t[1/2]", "a.py::t[1:2]", "a.py::t[1-2]", "x/a.py::t" + "字" * 300]
    files = [baselines.file_name(name, number) for name in names for number in (1, 2)]
    assert len(set(files)) == len(files)
    assert all(re.fullmatch(r"[\w.-]+\.json", file) for file in files)
    assert max(len(file.encode()) for file in files) < 255


# --- the example ----------------------------------------------------------------------------------

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples/in_ci/test_precision.py"


@pytest.mark.slow
def test_the_example_runs_and_needs_a_gpu_for_one_half(pytester):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU; the test marked gpu runs the whole example")
    small = EXAMPLE.read_text().replace("budget_s=4", "budget_s=1, replicas=1")
    pytester.makepyfile(test_precision=small)
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-W", "error")
    done.assert_outcomes(passed=1, skipped=1)


@pytest.mark.slow
@pytest.mark.gpu
def test_the_example_passes_on_a_gpu(pytester):
    pytester.makepyfile(test_precision=EXAMPLE.read_text())
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=2)


@pytest.mark.skipif(not (ROOT / "docs").exists(), reason="the tests stand alone")
def test_the_tutorial_shows_the_example_word_for_word():
    page = (ROOT / "docs/tutorials/6-in-ci-with-pytest.md").read_text()
    page = page.partition("import textwrap")[0]  # then an example of a failure is printed
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert squeezed("".join(blocks)) in squeezed(EXAMPLE.read_text())


def squeezed(text: str) -> str:
    return "".join(text.split())


# --- beside others --------------------------------------------------------------------------------


@pytest.mark.slow
def test_workers_of_xdist_measure_one_at_a_time_and_the_summary_is_whole(pytester):
    pytester.makepyfile(
        test_speed=HEAD
        + """
import time
@pytest.mark.parametrize("number", [1, 2])
def test_it(precision_benchmark, number, request):
    times = []
    tiny(precision_benchmark, budget_s=1, on_progress=lambda _: times.append(time.time()))
    with open(request.config.rootpath / f"times{number}", "w") as file:
        print(os.environ["PYTEST_XDIST_WORKER"], times[0], times[-1], file=file)
"""
    )
    done = pytester.runpytest_subprocess("-n", "2", "-W", "error", "--precisionbench-output", "out")
    done.assert_outcomes(passed=2)
    (one, begun_s, ended_s), (two, *others) = (
        (pytester.path / f"times{number}").read_text().split() for number in (1, 2)
    )
    assert one != two
    assert float(others[0]) > float(ended_s) or float(others[1]) < float(begun_s)
    after = text(done).partition("= precisionbench =")[2]
    assert after.count("Linear, batch 4 on") == 2
    assert len(list((pytester.path / "out").iterdir())) == 2


@pytest.mark.slow
def test_loading_the_plugin_loads_nothing_heavy(pytester):
    pytester.makepyfile(
        """
import sys
def test_it(request):
    assert request.config.pluginmanager.hasplugin("precisionbench")
    ours = {name for name in sys.modules if name.startswith("precisionbench")}
    old_paths = {"precisionbench._internal", "precisionbench._internal.moved_modules"}
    package = {"precisionbench", "precisionbench._version", *old_paths}
    assert ours == {*package, "precisionbench.pytest_plugin"}
    heavy = {"torch", "numpy", "attr", "attrs", "cattrs", "rich", "click", "scipy", "filelock"}
    assert not heavy & set(sys.modules)
"""
    )
    pytester.runpytest_subprocess("-p", "no:xdist", "-p", "no:hypothesispytest").assert_outcomes(
        passed=1
    )


@pytest.mark.slow
def test_the_plugin_can_be_disabled(nested):
    done = nested(MEASURES, "-p", "no:precisionbench")
    done.assert_outcomes(errors=1)
    assert "fixture 'precision_benchmark' not found" in text(done)
