"""Two saved runs held against each other: what may be compared, and what may be said."""

from __future__ import annotations

import json
import math
import random

import attrs
import pytest
from click.testing import CliRunner

import precisionbench as pb
from precisionbench.cli import main
from precisionbench.comparability import mismatches
from precisionbench.differences import SESSION_SPREAD, difference
from precisionbench.errors import IncomparableError
from precisionbench.report.changes import to_text
from precisionbench.results import Block, ComparisonData, Passes, Verdict
from test_storage import comparison_data

SESSIONS = 100
WRONG = (Verdict.FASTER, Verdict.SLOWER)


def run(
    seed: int,
    speed: float = 1.0,
    spread: float = 0.003,
    sessions: int = 1,
    machine: float = 1.0,
    replicas: int = 3,
    **changes: object,
) -> ComparisonData:
    """A run of `eager` and `half` of which `half` is `speed` times as fast as usual."""
    draw = random.Random(seed)
    data = comparison_data(schedule="rounds", created=f"2026-11-25T12:00:{seed % 60:02}+00:00")
    times = {"eager": 0.010 / machine, "half": 0.004 / speed / machine}
    results = tuple(
        attrs.evolve(
            row,
            measurement=attrs.evolve(
                row.measurement,
                blocks=tuple(blocks(draw, times[row.backend], spread, sessions, replicas)),
            ),
        )
        for row in data.results
    )
    return attrs.evolve(data, results=results, **changes)


def blocks(draw: random.Random, call_s: float, spread: float, sessions: int, replicas: int):
    for session in range(sessions):
        shift = draw.gauss(0, SESSION_SPREAD)
        for replica in range(replicas):
            level = call_s * math.exp(shift + draw.gauss(0, spread))
            for round_ in range(12):
                samples = tuple(level * math.exp(draw.gauss(0, 1e-3)) for _ in range(5))
                yield Block(round_, replica, replica, samples, session)


def verdict(old: ComparisonData, new: ComparisonData, row: str = "half") -> Verdict:
    return {c.backend: c.speedup.verdict for c in difference(old, new).rows}[row]


def test_two_runs_of_the_same_are_not_told_apart():
    found = [difference(run(2 * seed), run(2 * seed + 1)) for seed in range(SESSIONS)]
    changes = [change.speedup for one in found for change in one.rows]
    assert sum(change.verdict in WRONG for change in changes) <= 0.05 * SESSIONS
    assert sum(not change.low <= 1 <= change.high for change in changes) <= 0.07 * SESSIONS


@pytest.mark.parametrize("sessions", [1, 3])
def test_a_real_change_is_found_and_has_the_right_size(sessions):
    found = [
        difference(run(2 * s, sessions=sessions), run(2 * s + 1, 0.97, sessions=sessions))
        for s in range(20)
    ]
    changes = [{c.backend: c.speedup for c in one.rows} for one in found]
    assert sum(change["half"].verdict is Verdict.SLOWER for change in changes) >= 19
    assert sum(change["half"].low <= 0.97 <= change["half"].high for change in changes) >= 18
    assert sum(change["eager"].verdict in WRONG for change in changes) <= 1


def test_a_run_against_itself_has_changed_by_nothing():
    data = run(1)
    (eager, half) = difference(data, data).rows
    assert (eager.speedup.value, half.speedup.value) == (1.0, 1.0)
    assert eager.speedup.verdict not in WRONG


def test_one_process_each_says_nothing_where_nobody_knows_what_processes_differ_by():
    old, new = run(1, replicas=1), run(2, 0.9, replicas=1)
    (_, half) = difference(old, new).rows
    assert half.speedup.verdict is Verdict.INCONCLUSIVE
    assert half.speedup.reason == "one_process"
    known = [attrs.evolve(data, noise_floor=0.0025) for data in (old, new)]
    assert verdict(*known) is Verdict.SLOWER


def test_where_everything_changed_alike_the_machine_is_named():
    found = difference(run(1), run(2, machine=0.9))
    assert any("all rows became slower by the same" in note for note in found.notes)
    assert not difference(run(1), run(2)).notes


def test_rows_that_came_went_or_fail_now_are_named():
    old, new = run(1), run(2)
    without = attrs.evolve(new, results=new.results[:1])
    assert "half was measured before and is not in the newer run" in difference(old, without).notes
    assert "only in the newer run: half" in difference(without, old).notes
    failure = attrs.evolve(new.failures[0], backend="half", name="half", reason="it broke")
    failing = attrs.evolve(without, failures=(failure,))
    assert "half was measured before and fails now: it broke" in difference(old, failing).notes


def test_what_else_became_worse_is_said_with_the_row():
    old, new = run(1), run(2)
    eager, half = new.results
    agreement = half.agreement
    worse = attrs.evolve(
        half,
        agreement=attrs.evolve(
            agreement,
            tensors=(attrs.evolve(agreement.tensors[0], relative_l2=0.1, nonfinite_count=2),),
        ),
        passes=Passes(peak_allocated_bytes=2 << 30),
    )
    before = attrs.evolve(old.results[1], passes=Passes(peak_allocated_bytes=1 << 30))
    found = difference(
        attrs.evolve(old, results=(old.results[0], before)),
        attrs.evolve(new, results=(eager, worse)),
    )
    assert found.rows[1].notes == (
        "its error against the reference grew from 1.0e-03 to 1.0e-01",
        "its output has 2 non-finite elements, 0 before",
        "its peak memory grew from 1,024 MiB to 2,048 MiB",
    )


# --- what may be compared -------------------------------------------------------------------------


def with_environment(**changes: object) -> ComparisonData:
    data = run(2)
    return attrs.evolve(data, environment=attrs.evolve(data.environment, **changes))


def with_gpu(**changes: object) -> ComparisonData:
    gpu = attrs.evolve(run(2).environment.gpu, **changes)
    return with_environment(gpu=gpu)


def with_workload(**changes: object) -> ComparisonData:
    data = run(2)
    return attrs.evolve(data, workload=attrs.evolve(data.workload, **changes))


def with_half(**changes: object) -> ComparisonData:
    data = run(2)
    return attrs.evolve(data, results=(data.results[0], attrs.evolve(data.results[1], **changes)))


@pytest.mark.parametrize(
    ("new", "field"),
    [
        (with_gpu(name="NVIDIA Other"), "GPU"),
        (with_gpu(multiprocessors=66), "multiprocessors"),
        (with_gpu(driver="2"), "driver"),
        (with_gpu(power_limit_w=350.0), "power limit"),
        (with_environment(gpu=None), "GPU"),
        (with_environment(power_mode="MODE_15W"), "power mode"),
        (with_environment(torch="2.15.0"), "torch"),
        (with_environment(cudnn="9.20.0"), "cuDNN"),
        (with_environment(threads=1), "threads"),
        (with_environment(python="3.12.1"), "Python"),
        (with_workload(batch_size=8), "batch size"),
        (with_workload(model="Other"), "model"),
        (with_workload(parameters=21), "parameters"),
        (attrs.evolve(run(2), schedule="sequential"), "way of measuring"),
        (with_half(flags={"cudnn.enabled": False}), "torch's settings in half: cudnn.enabled"),
        (with_half(options={"dtype": "bfloat16"}), "options of half: dtype"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_runs_that_are_not_alike_are_refused_with_what_differs(new, field):
    old = run(1)
    old = attrs.evolve(
        old,
        results=(old.results[0], attrs.evolve(old.results[1], flags={"cudnn.enabled": True})),
    )
    assert field in [found.field for found in mismatches(old, new)]
    with pytest.raises(IncomparableError, match="--force"):
        pb.Comparison(new).against(pb.Comparison(old))
    forced = pb.Comparison(new).against(pb.Comparison(old), force=True)
    assert to_text(forced).startswith("NOT LIKE WITH LIKE: the runs differ in")


def test_what_cannot_change_times_is_no_obstacle():
    new = with_environment(packages={"numpy": "3"}, python="3.11.9")
    assert not mismatches(attrs.evolve(run(1), seed=5), new)


def test_packages_count_where_a_row_or_the_model_uses_them():
    old, new = run(1), with_environment(packages={"numpy": "2", "torchvision": "0.30"})
    assert not mismatches(old, new)
    model = [
        attrs.evolve(d, workload=attrs.evolve(d.workload, model="torchvision:resnet50"))
        for d in (old, new)
    ]
    assert [found.field for found in mismatches(*model)] == ["torchvision"]


def test_a_long_list_of_what_differs_is_cut():
    new = with_environment(gpu=None, torch="1", cuda="1", cudnn="1", cpu="x", threads=9)
    new = attrs.evolve(new, workload=attrs.evolve(new.workload, batch_size=1, model="x"))
    with pytest.raises(IncomparableError, match=r"and \d more"):
        pb.Comparison(new).against(pb.Comparison(run(1)))


# --- what people see ------------------------------------------------------------------------------


def saved(tmp_path, name: str, data: ComparisonData) -> str:
    file = tmp_path / name
    pb.Comparison(data).save(file)
    return str(file)


def invoke(*args: str):
    return CliRunner().invoke(main, ["diff", *args])


def test_the_command_shows_each_row_with_its_verdict(tmp_path):
    old, new = saved(tmp_path, "old.json", run(1)), saved(tmp_path, "new.json", run(2, 0.9))
    found = invoke(old, new)
    assert found.exit_code == 0
    lines = {line.split()[0]: line for line in found.stdout.splitlines() if line.strip()}
    assert lines["half"].endswith("slower")
    assert "0.90" in lines["half"]
    assert max(map(len, found.stdout.splitlines())) <= 80


def test_in_ci_a_slower_row_ends_with_one(tmp_path):
    old, new = saved(tmp_path, "old.json", run(1)), saved(tmp_path, "new.json", run(2, 0.9))
    found = invoke(old, new, "--fail-if-slower")
    assert found.exit_code == 1
    assert "slower than before: half" in found.stderr
    assert invoke(new, old, "--fail-if-slower").exit_code == 0


def test_as_json_nothing_else_is_on_standard_output(tmp_path):
    old, new = saved(tmp_path, "old.json", run(1)), saved(tmp_path, "new.json", run(2, 0.9))
    document = json.loads(invoke(old, new, "--json").stdout)
    assert document["format"] == "precisionbench.difference"
    assert document["rows"][1]["speedup"]["verdict"] == "slower"


def test_refused_runs_end_with_two_and_force_compares_them(tmp_path):
    other = with_environment(torch="2.15.0")
    old, new = saved(tmp_path, "old.json", run(1)), saved(tmp_path, "new.json", other)
    found = invoke(old, new)
    assert found.exit_code == 2
    assert "torch (2.14.1 before, 2.15.0 now)" in found.stderr
    assert invoke(old, new, "--force").exit_code == 0


def test_runs_without_a_common_row_are_told_so():
    data = run(2)
    only = attrs.evolve(data, results=(data.results[1],), failures=(), reference="half")
    other = attrs.evolve(data, results=(data.results[0],), failures=())
    text = to_text(difference(other, only))
    assert "no row was measured in both runs" in text


def test_sessions_stand_for_themselves_where_both_runs_have_several():
    """Processes alone would not know of a session's own shift."""
    old, new = run(1, sessions=3, spread=0.0), run(2, sessions=3, spread=0.0)
    (eager, _) = difference(old, new).rows
    assert eager.speedup.high - eager.speedup.low > SESSION_SPREAD
