"""Speed-ups and what may be said of them, on plain numbers."""

from __future__ import annotations

import math
import random

import attrs
import pytest

from made_up_results import comparison_data
from precisionbench.analysis.reasons import why
from precisionbench.analysis.run_diff import difference
from precisionbench.analysis.speedups import ratio_of, speedups
from precisionbench.analysis.variation import run_spread, shared_rounds, within_share
from precisionbench.report.text import to_text
from precisionbench.results import Block, ComparisonData
from precisionbench.statistics import (
    Interval,
    Spread,
    Verdict,
    pooled_spread,
    ratio_interval,
    verdict_of,
    verdicts,
)
from precisionbench.statistics.interaction import changing_ratios
from precisionbench.statistics.levels import levels
from precisionbench.statistics.ratios import level_interval


def test_twice_as_fast_is_a_ratio_of_two():
    found = ratio_interval([2.0] * 12, [1.0] * 12)
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_round_effects_cancel():
    drift = [1 + 0.1 * i for i in range(12)]
    found = ratio_interval([1.5 * d for d in drift], drift)
    assert found.high - found.low < 1e-9


def test_with_too_few_rounds_the_interval_is_the_range():
    found = ratio_interval([2.0, 4.0, 3.0], [1.0, 1.0, 1.0])
    assert (found.low, found.high) == pytest.approx((2.0, 4.0))


def test_the_noise_floor_widens_the_interval_of_one_process():
    found = ratio_interval([1.0] * 12, [1.0] * 12, noise_floor=0.0025)
    assert found.high - 1 == pytest.approx(1.96 * math.sqrt(2) * 0.0025, rel=0.01)


def test_differences_between_processes_widen_the_interval():
    base = [1.0] * 6 + [1.01] * 6 + [0.99] * 6
    found = ratio_interval(base, [1.0] * 18, groups=[0] * 6 + [1] * 6 + [2] * 6)
    assert found.low < 0.99
    assert found.high > 1.01


def shifted(rounds: int, delayed: int, processes: int = 3, noise: float = 0.0) -> list[Block]:
    """A row of which all processes take 1.6 times as long in the last rounds."""
    draw = random.Random(0)
    return [
        Block(r, i, i, ((1.6 if r >= rounds - delayed else 1.0) * math.exp(draw.gauss(0, noise)),))
        for r in range(rounds)
        for i in range(processes)
    ]


@pytest.mark.parametrize("delayed", [5, 7, 9])
def test_what_delays_all_processes_of_a_row_in_some_rounds_widens_the_interval(delayed):
    """Load of the host does, where launches limit one row and not the other."""
    rows = {"a": shifted(16, delayed, noise=0.01), "b": shifted(16, 0)}
    found = ratio_of(rows, "a", "b", 0.95)
    assert found.low < 1.3
    assert found.high > 1.25 * found.low
    steady = ratio_of({"a": shifted(16, 0, noise=0.01), "b": shifted(16, 0)}, "a", "b", 0.95)
    assert steady.relative_half_width < 0.02


def test_few_rounds_show_a_delay_of_all_processes_too():
    found = ratio_of({"a": shifted(4, 2, noise=0.01), "b": shifted(4, 0)}, "a", "b", 0.95)
    assert found.low < 1.05
    assert found.high > 1.55


def test_the_delay_of_one_process_in_a_round_does_not_count_as_one_of_all():
    """As load of the host delays a process of a row that launches nearly limit."""
    delayed = [
        attrs.evolve(b, samples=(1.6,)) if b.round == b.replica else b for b in shifted(8, 0)
    ]
    found = ratio_of({"a": delayed, "b": shifted(8, 0)}, "a", "b", 0.95)
    assert found.relative_half_width < 0.01


@pytest.mark.uncounted
def test_processes_that_vary_for_themselves_rarely_seem_to_be_delayed_together():
    draw, found = random.Random(0), 0
    for _ in range(500):
        base, other = (
            {(p, r): draw.gauss(0, 0.05) for p in range(3) for r in range(8)} for _ in range(2)
        )
        found += bool(changing_ratios([(base, other)]))
    assert found <= 12


@pytest.mark.parametrize("processes", [1, 2])
def test_what_delays_a_row_in_each_session_widens_the_interval_over_sessions(processes):
    blocks = [
        attrs.evolve(block, session=session)
        for session in range(3)
        for block in shifted(16, 7, processes, noise=0.01)
    ]
    steady = [attrs.evolve(block, samples=(1.0,)) for block in blocks]
    found = ratio_of({"a": blocks, "b": steady}, "a", "b", 0.95)
    assert found.high > 1.2 * found.low


@pytest.mark.uncounted
def test_sessions_with_other_numbers_of_processes_are_no_sign_of_a_change():
    draw, found = random.Random(0), 0
    for _ in range(300):
        sessions = [
            [{(p, r): draw.gauss(0, 0.05) for p in range(n) for r in range(rounds)} for _ in "ab"]
            for n, rounds in ((2, 20), (6, 5))
        ]
        found += bool(changing_ratios(sessions))
    assert found <= 9


@pytest.mark.uncounted
@pytest.mark.parametrize("rounds", [3, 4, 5])
def test_after_few_rounds_the_interval_of_a_changing_ratio_still_holds_its_mean(rounds):
    draw, held = random.Random(0), []
    for _ in range(300):
        delays = [draw.gauss(0, 0.2) for _ in range(rounds)]
        row = [
            Block(r, i, i, (math.exp(delays[r] + draw.gauss(0, 0.002)),))
            for r in range(rounds)
            for i in range(3)
        ]
        found = ratio_of({"a": row, "b": shifted(rounds, 0)}, "a", "b", 0.95)
        held.append(found.low <= 1 <= found.high)
    assert sum(held) >= 0.93 * len(held)


def compared(rows: dict[str, list[Block]]) -> ComparisonData:
    """A comparison of `eager` and `half` with these blocks."""
    data = comparison_data(schedule="rounds")
    measured = [
        attrs.evolve(
            row, measurement=attrs.evolve(row.measurement, blocks=tuple(rows[row.backend]))
        )
        for row in data.results
    ]
    return attrs.evolve(data, results=tuple(measured))


def test_a_speed_up_that_changed_says_so_instead_of_asking_for_more_processes():
    data = compared({"eager": shifted(12, 6, noise=0.001), "half": blocks([1.05] * 3)})
    found = speedups(data)["half"]
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "ratio_changes")
    assert why(data, "half", found).startswith("the speed-up changed during the run: use an idle")


def test_sessions_with_one_process_each_do_not_show_that_a_speed_up_changed():
    draw = random.Random(0)
    rows = {
        name: [
            Block(r, 0, 0, (math.exp(draw.gauss(0, 0.05)),), session)
            for session in range(3)
            for r in range(8)
        ]
        for name in ("eager", "half")
    }
    found = speedups(compared(rows))["half"]
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "includes_1")


def test_the_difference_of_two_runs_includes_what_changed_a_speed_up_during_them():
    before, now = (
        compared({"eager": shifted(16, count, noise=0.001), "half": blocks([0.5] * 3, 16)})
        for count in (7, 9)
    )
    relative = difference(before, now).rows[1].relative
    assert relative.low < 1.2 < 1.5 < relative.high


def test_what_delays_both_rows_alike_changes_no_ratio():
    rows = [{(p, r): (r >= 4) + 1e-3 * (p * r % 3) for p in range(3) for r in range(8)}] * 2
    assert changing_ratios([rows]) == []


def test_a_ratio_that_changes_in_each_session_is_found_over_all():
    def row(shift: float) -> dict[tuple[int, int], float]:
        return {(p, r): shift * (r % 2) + 0.01 * ((p + r) % 3) for p in range(2) for r in range(3)}

    assert len(changing_ratios([(row(0.5), row(0.0)), (row(0.5), row(0.0))])) == 6


@pytest.mark.parametrize(
    ("base", "other", "groups", "message"),
    [
        ([], [], None, "are not pairs"),
        ([1.0], [1.0, 2.0], None, "are not pairs"),
        ([0.0], [1.0], None, "positive"),
        ([1.0], [math.inf], None, "positive"),
        ([1.0], [1.0], [1, 2], "groups"),
    ],
)
def test_values_that_cannot_be_compared_are_an_error(base, other, groups, message):
    with pytest.raises(ValueError, match=message):
        ratio_interval(base, other, groups=groups)


def test_levels_use_complete_rounds_only():
    rows = [{("a", 0): 0.0, ("a", 1): 0.0}, {("b", 0): 1.0, ("b", 2): 9.0}]
    assert [next(iter(row.values())) for row in levels(rows)] == [-0.5, 0.5]
    with pytest.raises(ValueError, match="no round"):
        levels([{("a", 0): 0.0}, {("b", 1): 0.0}])


def test_the_pooled_spread_is_used_unless_the_pair_varies_far_more():
    quiet, loud = Spread(0.001, 20), Spread(0.01, 20)
    base, other = [0.0, 0.004, -0.004], [0.0, 0.004, -0.004]
    own = level_interval(base, other, 0.95)
    assert level_interval(base, other, 0.95, quiet) == own
    assert level_interval(base, other, 0.95, loud).high > own.high
    assert level_interval([0.0], [0.0], 0.95).high == 0.0


def test_the_pooled_spread_counts_the_degrees_of_freedom():
    assert pooled_spread([[1.0, 1.0, 1.0], [2.0, 4.0]]) == Spread(math.sqrt(2 / 3), 3)
    assert pooled_spread([[1.0]]) == Spread(0.0, 0)


@pytest.mark.parametrize(
    ("interval", "verdict", "reason"),
    [
        (Interval(1.5, 1.4, 1.6), Verdict.FASTER, "excludes_1"),
        (Interval(0.5, 0.4, 0.6), Verdict.SLOWER, "excludes_1"),
        (Interval(1.0, 0.995, 1.005), Verdict.EQUIVALENT, "within_margin"),
        (Interval(1.004, 1.001, 1.007), Verdict.EQUIVALENT, "within_margin"),
        (Interval(1.008, 1.001, 1.015), Verdict.DIFFERENT_BUT_SMALL, "small_effect"),
        (Interval(1.05, 0.9, 1.2), Verdict.INCONCLUSIVE, "includes_1"),
    ],
)
def test_the_first_verdict_that_holds(interval, verdict, reason):
    assert verdict_of(interval) == (verdict, reason)


def test_a_row_significant_by_holm_only_has_the_reason_holm():
    def clear(confidence: float) -> Interval:
        return Interval(2.0, 1.9, 2.1)

    def close(confidence: float) -> Interval:
        return Interval(1.05, 1.001 if confidence < 0.96 else 0.99, 1.1)

    found = verdicts({"clear": clear, "close": close})
    assert found["clear"][1:] == (Verdict.FASTER, "excludes_1")
    assert found["close"][1:] == (Verdict.FASTER, "holm")
    assert not found["close"][0].excludes_1  # the interval shown is the simultaneous one


def blocks(levels_s: list[float], rounds: int = 12, noise: float = 0.0) -> list[Block]:
    return [
        Block(r, i, i, (level * (1 + noise * (-1) ** r),))
        for r in range(rounds)
        for i, level in enumerate(levels_s)
    ]


def test_one_replica_counts_rounds_and_several_replicas_count_processes():
    one = ratio_of({"a": blocks([2.0]), "b": blocks([1.0])}, "a", "b", 0.95)
    several = {"a": blocks([2.0, 2.02, 1.98]), "b": blocks([1.0, 1.01, 0.99])}
    three = ratio_of(several, "a", "b", 0.95)
    assert one.relative_half_width < 1e-9
    assert three.value == pytest.approx(2.0, rel=1e-3)
    assert three.relative_half_width > 0.01
    assert run_spread(several).degrees == 4


def test_only_shared_rounds_are_counted():
    assert shared_rounds(blocks([1.0], 5), blocks([1.0], 9)) == 5


def test_the_share_of_noise_within_processes():
    assert within_share(blocks([1.0])) == 1.0
    assert within_share(blocks([1.0, 1.01, 0.99])) < 0.1
    assert within_share(blocks([1.0, 1.0001, 0.9999], noise=0.01)) == 1.0


# --- several sessions -----------------------------------------------------------------------------


def blocks_of(draw, ratio: float, sessions: int, count: int) -> list[Block]:
    """A row's blocks in several sessions of fresh processes that differ by 0.3 %."""
    found = []
    for session in range(sessions):
        for replica in range(count):
            level = 0.01 / ratio * math.exp(draw.gauss(0, 0.003))
            for round_ in range(6):
                samples = tuple(level * math.exp(draw.gauss(0, 3e-4)) for _ in range(3))
                found.append(Block(round_, replica, replica, samples, session))
    return found


@pytest.mark.uncounted
@pytest.mark.parametrize(
    ("sessions", "count", "rows"),
    [(2, 2, 2), (3, 2, 2), (3, 3, 2), (3, 2, 5), (3, 1, 2), (5, 1, 2)],
)
def test_several_sessions_keep_the_false_positive_rate(sessions, count, rows):
    excluded = 0
    for seed in range(300):
        draw = random.Random(seed)
        made = {str(i): blocks_of(draw, 1.0, sessions, count) for i in range(rows)}
        excluded += ratio_of(made, "0", "1", 0.95).excludes_1
    assert excluded / 300 <= 0.08


def test_sessions_without_a_row_are_left_out_of_its_ratio():
    draw = random.Random(0)
    rows = {"0": blocks_of(draw, 1.0, 2, 3), "1": blocks_of(draw, 2.0, 1, 3)}
    found = ratio_of(rows, "0", "1", 0.95)
    assert found.value == pytest.approx(2.0, rel=0.01)
    assert ratio_of(rows, "1", "0", 0.95).value == pytest.approx(0.5, rel=0.01)


def test_rows_without_a_shared_round_are_inconclusive():
    data = comparison_data(schedule="rounds")
    eager, half = data.results
    later = tuple(attrs.evolve(b, session=1) for b in half.measurement.blocks)
    half = attrs.evolve(half, measurement=attrs.evolve(half.measurement, blocks=later))
    found = speedups(attrs.evolve(data, results=(eager, half)))["half"]
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "no_shared_rounds")
    assert found.value == pytest.approx(2.5)
    assert "2.5" in to_text(attrs.evolve(data, results=(eager, half)))
