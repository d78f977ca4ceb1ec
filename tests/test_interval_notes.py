"""What rows say of their intervals: why they are wide, and why two figures disagree."""

from __future__ import annotations

import math
import random
import re

import attrs
import pytest

import precisionbench as pb
from made_up_results import comparison_data
from precisionbench.analysis.interval_notes import interval_notes
from precisionbench.analysis.needed import budget_needed_s, replicas_needed, rounds_needed
from precisionbench.analysis.reasons import why
from precisionbench.analysis.speedups import speedups
from precisionbench.report.headline import headline
from precisionbench.results import Block, ComparisonData, Verdict

ROUNDS = 12


def run(rows: dict[str, list[Block]], ended_by: str = "target", **changes) -> ComparisonData:
    """A run of `eager` and `half` with these blocks."""
    data = comparison_data(schedule="rounds", failures=(), **changes)
    results = tuple(
        attrs.evolve(
            row,
            measurement=attrs.evolve(
                row.measurement, blocks=tuple(rows[row.backend]), ended_by=ended_by
            ),
        )
        for row in data.results
    )
    return attrs.evolve(data, results=results)


def blocks(draw: random.Random, level_s, replicas: int = 3, rounds=range(ROUNDS), noise=1e-3):
    """Blocks of one row, of which `level_s` gives the level in a round."""
    return [
        Block(r, i, i, tuple(level_s(r) * math.exp(draw.gauss(0, noise)) for _ in range(5)))
        for r in rounds
        for i in range(replicas)
    ]


def noted(data: ComparisonData, code: str, row: str = "half") -> str:
    """The text of a note with this code; empty if there is none."""
    return next((one.text for one in interval_notes(data)[row] if one.code == code), "")


# --- the speed-up beside the two latencies --------------------------------------------------------


def bimodal_run() -> ComparisonData:
    """Rounds are slow at random; `eager` has one slow block more than half of them, `half` less."""
    draw = random.Random(0)
    slow = [0, 3, 5, 8, 10]
    eager = blocks(draw, lambda r: 0.010 * (1.2 if r in (*slow, 2, 7) else 1.0))
    half = blocks(draw, lambda r: 0.008 * (1.2 if r in slow else 1.0))
    return run({"eager": eager, "half": half})


def drifting_run() -> ComparisonData:
    """Both rows become slower by 20 %, `eager` some rounds before `half`."""
    draw = random.Random(0)
    eager = blocks(draw, lambda r: 0.010 * (1.2 if r >= 5 else 1.0))
    half = blocks(draw, lambda r: 0.008 * (1.2 if r >= 7 else 1.0))
    return run({"eager": eager, "half": half})


def run_of_other_rounds() -> ComparisonData:
    """`half` failed after half of the rounds, and the device became slower after that."""
    draw = random.Random(0)
    eager = blocks(draw, lambda r: 0.010 * (1.2 if r >= 10 else 1.0), rounds=range(24))
    half = blocks(draw, lambda r: 0.008, rounds=range(10))
    return run({"eager": eager, "half": half})


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (bimodal_run, "the samples of eager and half are bimodal"),
        (drifting_run, "the throughput of eager and half changed during the run"),
        (run_of_other_rounds, "the rows were not measured in the same rounds"),
    ],
)
def test_a_row_says_why_its_speed_up_is_not_the_ratio_of_the_latencies(made, says):
    data = made()
    eager, half = data.results
    found = speedups(data)["half"]
    assert found.value == pytest.approx(1.25, rel=0.01)
    assert eager.latency.value / half.latency.value == pytest.approx(1.5, rel=0.01)
    text = noted(data, "differs_from_latencies")
    assert text.startswith("the latencies shown give 1.5x, the speed-up is 1.25x: ")
    assert says in text
    assert " ".join(text.split()) in " ".join(str(pb.Comparison(data)).split())
    assert text in pb.Comparison(data).to_markdown()
    assert any(text in note for note in pb.diagnose(pb.Comparison(data)).notes)


def test_a_steady_run_has_no_such_note():
    for seed in range(50):
        draw = random.Random(seed)
        rows = {"eager": blocks(draw, lambda r: 0.010), "half": blocks(draw, lambda r: 0.008)}
        assert interval_notes(run(rows)) == {"eager": (), "half": ()}


def test_a_shared_drift_has_no_such_note():
    draw = random.Random(0)

    def drift(round_: int) -> float:
        return 1 + 0.02 * round_

    rows = {
        "eager": blocks(draw, lambda r: 0.010 * drift(r)),
        "half": blocks(draw, lambda r: 0.008 * drift(r)),
    }
    assert noted(run(rows), "differs_from_latencies") == ""


# --- one process ----------------------------------------------------------------------------------


def one_process(**changes) -> ComparisonData:
    draw = random.Random(0)
    rows = {"eager": blocks(draw, lambda r: 0.010, 1), "half": blocks(draw, lambda r: 0.004, 1)}
    return run(rows, **changes)


def test_rows_of_one_process_say_that_run_to_run_variance_was_not_measured():
    text = noted(one_process(), "one_process", "eager")
    assert text.startswith("run-to-run variance was not measured (one process)")
    assert "speed-ups are inconclusive; use 2 or more replicas" in text
    assert speedups(one_process())["half"].reason == "one_process"


def test_with_a_known_noise_floor_they_say_so_and_have_a_verdict():
    data = one_process(noise_floor=0.0025)
    assert "the CI uses the noise floor of 0.25%" in noted(data, "one_process")
    assert speedups(data)["half"].verdict is Verdict.FASTER


def test_a_row_with_one_process_has_the_spread_of_the_other_rows():
    draw = random.Random(0)
    data = run(
        {"eager": blocks(draw, lambda r: 0.010, 3), "half": blocks(draw, lambda r: 0.004, 1)}
    )
    assert "the CI uses that of the other rows" in noted(data, "one_process")
    assert noted(data, "one_process", "eager") == ""
    assert speedups(data)["half"].verdict is Verdict.FASTER


# --- missing verdicts and what would give one -----------------------------------------------------


def few_rounds(**changes) -> ComparisonData:
    draw = random.Random(3)
    rows = {
        "eager": blocks(draw, lambda r: 1.0, 2, range(2), 0.08),
        "half": blocks(draw, lambda r: 0.93, 2, range(2), 0.08),
    }
    return run(rows, "budget", **changes)


def test_few_rounds_are_the_reason_of_a_verdict_with_the_budget_that_would_do():
    data = few_rounds(options={"budget_s": 45})
    found = speedups(data)["half"]
    needed_s = budget_needed_s(data, "half", found.interval)
    rounds = rounds_needed(tuple(row.measurement.blocks for row in data.results), found.interval)
    assert needed_s == pytest.approx(45 + (rounds - 2) * 19.3, rel=0.1)
    assert why(data, "half", found).startswith("too few rounds: use a time budget of about ")
    text = str(pb.Comparison(data))
    assert "  inconclusive (too few rounds)" in text
    assert "use a time budget of about " in " ".join(text.split())
    assert re.search(
        r"measured .*x eager \(range .*\); too few rounds: use a time budget of about",
        headline(data),
    )
    assert "95 % CI" not in headline(data)


@pytest.mark.parametrize("failed", ["half", "eager"])
def test_where_a_row_has_failed_no_budget_would_give_more_rounds(failed):
    data = few_rounds(options={"budget_s": 45})
    results = tuple(
        attrs.evolve(row, measurement=attrs.evolve(row.measurement, ended_by="failed"))
        if row.backend == failed
        else row
        for row in data.results
    )
    data = attrs.evolve(data, results=results)
    text = why(data, "half", speedups(data)["half"])
    assert text == f"too few rounds: {failed} failed during the run; see its warning"


def test_without_a_recorded_budget_it_follows_from_the_samples():
    data = few_rounds()
    found = speedups(data)["half"]
    rounds = rounds_needed(tuple(row.measurement.blocks for row in data.results), found.interval)
    assert budget_needed_s(data, "half", found.interval) == pytest.approx(
        rounds * 19.3 / 0.75, rel=0.1
    )


def test_an_interval_that_includes_1_is_the_reason_of_a_verdict():
    draw = random.Random(0)
    rows = {
        "eager": blocks(draw, lambda r: 1.0, 2, noise=0.2),
        "half": blocks(draw, lambda r: 1.0, 2, noise=0.2),
    }
    assert speedups(run(rows))["half"].reason == "includes_1"
    assert "inconclusive (CI includes 1)" in str(pb.Comparison(run(rows)))


@pytest.mark.uncounted
def test_the_rounds_that_would_do_give_a_verdict_in_most_sessions():
    clear, asked = 0, 0
    for seed in range(200):
        draw = random.Random(seed)
        first = session(draw, 2)
        found = speedups(first)["half"]
        needed = rounds_needed(tuple(r.measurement.blocks for r in first.results), found.interval)
        if found.reason != "too_few_rounds" or needed is None:
            continue
        asked += 1
        clear += speedups(session(draw, needed))["half"].verdict is not Verdict.INCONCLUSIVE
    assert asked > 50
    assert clear > 0.6 * asked


def session(draw: random.Random, rounds: int) -> ComparisonData:
    """Rows 6 % apart, with noise of 4 % within a process and none between them."""
    rows = {
        "eager": blocks(draw, lambda r: 1.0, 3, range(rounds), 0.08),
        "half": blocks(draw, lambda r: 0.94, 3, range(rounds), 0.08),
    }
    return run(rows, ended_by="budget")


def test_rounds_that_the_stop_rule_has_ended_were_enough():
    data = few_rounds()
    rows = [
        attrs.evolve(row, measurement=attrs.evolve(row.measurement, ended_by="process_level"))
        for row in data.results
    ]
    found = speedups(attrs.evolve(data, results=tuple(rows)))["half"]
    assert found.reason == "includes_1"


def test_where_processes_differ_more_of_them_are_what_would_do():
    levels = {"eager": (1.0, 1.1), "half": (0.9, 1.0)}
    rows = {
        name: [Block(r, i, i, (level,)) for r in range(2) for i, level in enumerate(found)]
        for name, found in levels.items()
    }
    data = run(rows)
    found = speedups(data)["half"]
    assert found.reason == "processes_differ"
    count = replicas_needed(data, "half", found.interval)
    assert 2 < count <= 16
    assert why(data, "half", found) == (f"run-to-run variance is too large: use {count} replicas")
    assert rounds_needed((rows["eager"], rows["half"]), found.interval) is None


# --- wide intervals -------------------------------------------------------------------------------


def test_a_wide_interval_says_whether_processes_or_blocks_are_the_reason():
    draw = random.Random(0)
    noisy = {name: blocks(draw, lambda r: 1.0, 2, noise=0.9) for name in ("eager", "half")}
    assert noted(run(noisy), "wide_interval").endswith(
        "wide CI: its latency varies within each process"
    )
    levels = {
        name: [Block(r, i, i, (1 + 0.3 * i,)) for r in range(ROUNDS) for i in range(2)]
        for name in ("eager", "half")
    }
    text = noted(run(levels), "wide_interval")
    assert "run-to-run variance of 20.4%" in text


def test_a_row_whose_processes_differ_more_than_others_names_its_own_difference():
    names = ("eager", "half")
    far = {
        name: [Block(r, i, i, (1 + step * i,)) for r in range(ROUNDS) for i in range(2)]
        for name, step in zip(names, (0.001, 0.3), strict=True)
    }
    data = run(far)
    others = [attrs.evolve(row, backend=f"other{n}") for n in range(4) for row in data.results[:1]]
    data = attrs.evolve(data, results=(*data.results, *others))
    assert noted(data, "wide_interval").endswith(
        "wide CI: its 2 processes differ by 30.0% (run-to-run variance)"
    )
