"""Two saved runs held against each other: what may be compared, and what may be said."""

from __future__ import annotations

import json
import math
import random
import re

import attrs
import pytest
from click.testing import CliRunner

import precisionbench as pb
from made_up_results import comparison_data
from precisionbench.analysis.comparable import mismatches
from precisionbench.analysis.run_diff import SESSION_SPREAD, difference
from precisionbench.cli import main
from precisionbench.errors import IncomparableError
from precisionbench.report.run_diff import to_text
from precisionbench.results import Block, ComparisonData, Passes, Verdict

SESSIONS = 100
WRONG = (Verdict.FASTER, Verdict.SLOWER)


def run(
    seed: int,
    speed: float = 1.0,
    spread: float = 0.003,
    sessions: int = 1,
    machine: float = 1.0,
    replicas: int = 3,
    rounds: int = 12,
    shift: float = SESSION_SPREAD,
    drift: float = 0.0,
    **changes: object,
) -> ComparisonData:
    """A run of `eager` and `half` of which `half` is `speed` times as fast as usual."""
    draw = random.Random(seed)
    shifts = [draw.gauss(0, shift) for _ in range(sessions)]
    data = comparison_data(schedule="rounds", created=f"2026-11-25T12:00:{seed % 60:02}+00:00")
    times = {"eager": 0.010 / machine, "half": 0.004 / speed / machine}
    rows = {
        name: list(blocks(draw, call_s, spread, shifts, replicas, rounds))
        for name, call_s in times.items()
    }
    if drift:
        drifting(rows, draw, drift)
    results = tuple(
        attrs.evolve(
            row, measurement=attrs.evolve(row.measurement, blocks=tuple(rows[row.backend]))
        )
        for row in data.results
    )
    return attrs.evolve(data, results=results, **changes)


def blocks(
    draw: random.Random,
    call_s: float,
    spread: float,
    shifts: list[float],
    replicas: int,
    rounds: int = 12,
):
    """Blocks of one row; what shifts a session or one of its rounds shifts every row of a run."""
    for session, shift in enumerate(shifts):
        for replica in range(replicas):
            level = call_s * math.exp(shift + draw.gauss(0, spread))
            for round_ in range(rounds):
                samples = tuple(level * math.exp(draw.gauss(0, 1e-3)) for _ in range(5))
                yield Block(round_, replica, replica, samples, session)


def drifting(rows: dict[str, list[Block]], draw: random.Random, drift: float) -> None:
    """Let all that runs in the same round be slower or faster by the same factor."""
    factors = [math.exp(draw.gauss(0, drift)) for _ in range(12)]
    for name in rows:
        rows[name] = [
            attrs.evolve(b, samples=tuple(x * factors[b.round] for x in b.samples))
            for b in rows[name]
        ]


def verdict(old: ComparisonData, new: ComparisonData, row: str = "half") -> Verdict:
    return {c.backend: c.speedup.verdict for c in difference(old, new).rows}[row]


@pytest.mark.uncounted
def test_two_runs_of_the_same_code_have_no_false_change():
    found = [difference(run(2 * seed), run(2 * seed + 1)) for seed in range(SESSIONS)]
    changes = [change.speedup for one in found for change in one.rows]
    assert sum(change.verdict in WRONG for change in changes) <= 0.05 * SESSIONS
    assert sum(not change.low <= 1 <= change.high for change in changes) <= 0.07 * SESSIONS


@pytest.mark.uncounted
def test_variation_between_rounds_widens_the_interval_between_sessions():
    """At batch 1 on an H100, sessions of the same code lay as far apart as their rounds."""
    found = [
        difference(*(run(2 * seed + i, shift=0.06, drift=0.06) for i in (0, 1)))
        for seed in range(SESSIONS)
    ]
    changes = [change for one in found for change in one.rows]
    assert sum(change.speedup.verdict in WRONG for change in changes) <= 0.05 * len(changes)
    relative = [change.relative for change in changes if change.relative]
    assert len(relative) == SESSIONS
    assert sum(one.verdict in WRONG for one in relative) <= 0.05 * SESSIONS
    widths = [one.high / one.low - 1 for one in relative]
    assert max(widths) < 0.05  # drift cancels there


def test_a_slower_speed_up_is_found_on_a_machine_that_drifts():
    found = [
        difference(run(2 * s, drift=0.06), run(2 * s + 1, 0.95, shift=0.06, drift=0.06))
        for s in range(20)
    ]
    relative = [one.rows[1].relative for one in found]
    assert sum(one.verdict is Verdict.SLOWER for one in relative) >= 19
    assert sum(one.low <= 0.95 <= one.high for one in relative) >= 18
    assert all(one.rows[1] in one.slower for one in found if one.rows[1].relative.high < 0.99)


@pytest.mark.uncounted
@pytest.mark.parametrize("sessions", [2, 3])
def test_shifts_of_whole_sessions_are_not_reported_as_changes(sessions):
    found = [
        difference(*(run(2 * s + i, shift=0.01, sessions=sessions) for i in (0, 1)))
        for s in range(SESSIONS)
    ]
    assert share_excluding(found) <= 0.07


def share_excluding(found) -> float:
    wrong = [any(not c.speedup.low <= 1 <= c.speedup.high for c in one.rows) for one in found]
    return sum(wrong) / len(wrong)


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


def test_a_run_against_itself_has_ratios_of_one():
    data = run(1)
    (eager, half) = difference(data, data).rows
    assert (eager.speedup.value, half.speedup.value) == (1.0, 1.0)
    assert eager.speedup.verdict not in WRONG


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"replicas": 1}, "one_process"),
        ({"replicas": 1, "noise_floor": 0.0025}, "one_process"),
        ({"rounds": 2}, "too_few_rounds"),
        ({"schedule": "sequential", "replicas": 1}, "not_interleaved"),
    ],
)
def test_runs_with_too_little_data_are_inconclusive(changes, reason):
    (_, half) = difference(run(1, **changes), run(2, 0.9, **changes)).rows
    assert half.speedup.verdict is Verdict.INCONCLUSIVE
    assert half.speedup.reason == reason


def test_rows_restarted_in_every_round_are_compared_by_process():
    """There each round is a process of its own, and there is no speed-up within a round."""
    data = [restarted(run(seed, speed, rounds=1, replicas=8)) for seed, speed in ((1, 1), (2, 0.9))]
    (_, half) = difference(*data).rows
    assert half.speedup.verdict is Verdict.SLOWER
    assert half.relative is None


def restarted(data: ComparisonData) -> ComparisonData:
    rows = tuple(
        attrs.evolve(
            row,
            measurement=attrs.evolve(
                row.measurement,
                blocks=tuple(attrs.evolve(b, round=b.replica) for b in row.measurement.blocks),
            ),
        )
        for row in data.results
    )
    return attrs.evolve(data, results=rows, schedule="restarts")


def test_different_calls_per_sample_widen_the_interval_of_short_calls():
    """A pair of events reads 2.7 us too much, shared by the calls of a sample."""
    one, three = (short(run(seed), calls) for seed, calls in ((1, 1), (2, 3)))
    (wide, _), (narrow, _) = difference(one, three).rows, difference(one, short(run(2), 1)).rows
    widths = [row.speedup.high / row.speedup.low for row in (wide, narrow)]
    assert widths[0] > widths[1] + 0.01


def short(data: ComparisonData, calls: int) -> ComparisonData:
    """The same run of calls of 200 us, with so many in a sample."""

    def shorter(row):
        factor = 200e-6 / row.latency.value
        found = tuple(
            attrs.evolve(b, samples=tuple(x * factor for x in b.samples))
            for b in row.measurement.blocks
        )
        return attrs.evolve(
            row,
            measurement=attrs.evolve(
                row.measurement, blocks=found, calls_per_sample=calls, clock="cuda_events"
            ),
        )

    return attrs.evolve(data, results=tuple(map(shorter, data.results)))


def test_a_common_change_of_all_rows_is_attributed_to_the_machine():
    found = difference(run(1), run(2, machine=0.9))
    assert any("all rows became slower by the same" in note for note in found.notes)
    assert not difference(run(1), run(2)).notes


def test_added_missing_and_failing_rows_are_noted():
    old, new = run(1), run(2)
    without = attrs.evolve(new, results=new.results[:1])
    assert "half was measured before and is not in the newer run" in difference(old, without).notes
    assert "only in the newer run: half" in difference(without, old).notes
    failure = attrs.evolve(new.failures[0], backend="half", name="half", reason="it broke")
    failing = attrs.evolve(without, failures=(failure,))
    found = difference(old, failing)
    assert "half was measured before and fails now: it broke" in found.notes
    assert found.broken == ("half",)


def test_larger_errors_and_memory_are_noted_with_the_row():
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
        "its output has 2 non-finite elements now, 0 before",
        "its peak memory grew from 1,024 MiB to 2,048 MiB",
    )


def with_error(data: ComparisonData, error: float | None, reference: str = "eager"):
    half = data.results[1]
    tensor = attrs.evolve(half.agreement.tensors[0], relative_l2=error)
    agreement = attrs.evolve(half.agreement, tensors=(tensor,))
    rows = (data.results[0], attrs.evolve(half, agreement=agreement))
    return attrs.evolve(data, results=rows, reference=reference)


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [(0.0, 0.9, True), (None, 0.9, True), (1e-3, 1.1e-3, False), (0.0, 1e-8, False)],
)
def test_a_larger_error_is_noted_from_any_earlier_error(before, now, told):
    found = difference(with_error(run(1), before), with_error(run(2), now))
    assert any("error against the reference" in note for note in found.rows[1].notes) == told


def test_errors_against_different_references_are_not_compared():
    found = difference(with_error(run(1), 1e-3), with_error(run(2), 0.9, "half"))
    assert not found.rows[1].notes
    assert "the reference was eager and is now half" in found.notes
    assert [row.relative for row in found.rows] == [None, None]


def test_another_board_of_the_same_model_is_a_note():
    found = difference(with_gpu(uuid="GPU-1"), with_gpu(uuid="GPU-2"))
    assert any("two boards of the same model" in note for note in found.notes)


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
        (attrs.evolve(run(2), schedule="sequential"), "schedule"),
        (attrs.evolve(run(2), precisionbench="9.0"), "precisionbench"),
        (with_half(flags={"cudnn.enabled": False}), "torch settings of half: cudnn.enabled"),
        (with_half(options={"dtype": "bfloat16"}), "options of half: dtype"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_incomparable_runs_are_refused_with_the_mismatch(new, field):
    old = run(1)
    old = attrs.evolve(
        old,
        results=(old.results[0], attrs.evolve(old.results[1], flags={"cudnn.enabled": True})),
    )
    assert field in [found.field for found in mismatches(old, new)]
    with pytest.raises(IncomparableError, match="--force"):
        pb.Comparison(new).against(pb.Comparison(old))
    forced = pb.Comparison(new).against(pb.Comparison(old), force=True)
    assert to_text(forced).startswith("CONDITIONS DIFFER:")


def test_differences_that_cannot_change_times_are_accepted():
    new = with_environment(packages={"numpy": "3"}, python="3.11.9")
    assert not mismatches(attrs.evolve(run(1), seed=5), new)


def test_packages_are_compared_if_a_row_or_the_model_uses_them():
    old, new = run(1), with_environment(packages={"numpy": "2", "torchvision": "0.30"})
    assert not mismatches(old, new)
    model = [
        attrs.evolve(d, workload=attrs.evolve(d.workload, model="torchvision:resnet50"))
        for d in (old, new)
    ]
    assert [found.field for found in mismatches(*model)] == ["torchvision"]


def test_packages_of_a_missing_row_are_not_compared():
    """What its backend depends on is no reason to refuse, and no reason to fail."""
    old = run(1)
    apex = attrs.evolve(old.results[1], backend="apex-amp", name="apex-amp")
    old = attrs.evolve(old, results=(*old.results, apex), failures=())
    old = attrs.evolve(old, environment=attrs.evolve(old.environment, packages={"apex": "0.1"}))
    assert not mismatches(old, run(2))
    assert [
        m.field for m in mismatches(old, attrs.evolve(old, environment=run(2).environment))
    ] == ["apex"]


def test_models_of_different_packages_are_incomparable():
    old = with_workload(model="torchvision:resnet50")
    assert "model" in [found.field for found in mismatches(old, run(2))]


def test_a_long_list_of_mismatches_is_cut():
    new = with_environment(gpu=None, torch="1", cuda="1", cudnn="1", cpu="x", threads=9)
    new = attrs.evolve(new, workload=attrs.evolve(new.workload, batch_size=1, model="x"))
    with pytest.raises(IncomparableError, match=r"and \d more"):
        pb.Comparison(new).against(pb.Comparison(run(1)))


# --- what people see ------------------------------------------------------------------------------


def saved(tmp_path, name: str, data: ComparisonData) -> str:
    file = tmp_path / name
    pb.Comparison(data).save(file)
    return str(file)


def test_the_older_run_may_be_the_path_of_its_file(tmp_path):
    old, new = run(1), pb.Comparison(run(2))
    path = saved(tmp_path, "old.json", old)
    assert new.diff(path) == new.diff(pb.Comparison(old)) == new.against(path)


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


def test_in_ci_a_row_that_fails_now_ends_with_one_and_so_does_nothing_to_compare(tmp_path):
    data = run(2)
    failure = attrs.evolve(data.failures[0], backend="half", name="half")
    broken = attrs.evolve(data, results=data.results[:1], failures=(failure,))
    only = attrs.evolve(data, results=(data.results[1],), failures=(), reference="half")
    files = [saved(tmp_path, f"{i}.json", d) for i, d in enumerate((run(1), broken, only))]
    found = invoke(files[0], files[1], "--fail-if-slower")
    assert (found.exit_code, "failing now: half" in found.stderr) == (1, True)
    found = invoke(files[1], files[2], "--fail-if-slower")
    assert (found.exit_code, "no row was measured in both" in found.stderr) == (1, True)


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


def test_runs_without_a_common_row_say_so():
    data = run(2)
    only = attrs.evolve(data, results=(data.results[1],), failures=(), reference="half")
    other = attrs.evolve(data, results=(data.results[0],), failures=())
    text = to_text(difference(other, only))
    assert "no row was measured in both runs" in text


def first_line(old: ComparisonData, new: ComparisonData) -> str:
    return to_text(difference(old, new), 200).splitlines()[0]


def test_the_first_line_is_what_changed():
    old = run(1)
    assert first_line(old, run(2, speed=0.5)).startswith("half is slower now: 0.4983x")
    assert first_line(old, run(2, speed=2.0)).startswith("No row is slower; half is faster now: ")
    assert first_line(old, old).startswith("No row is slower")
    assert re.search(
        r"is slower now: .* \(95 % CI [\d.]+ to [\d.]+\)", first_line(run(2), run(1, speed=0.5))
    )


def test_the_first_line_names_rows_that_fail_now():
    old = run(1)
    failure = attrs.evolve(old.failures[0], backend="half", name="half")
    broken = attrs.evolve(old, results=old.results[:1], failures=(failure,))
    assert first_line(old, broken) == "half failed in the newer run."
