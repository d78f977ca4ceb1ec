"""The first line of every text and report: the answer, or why there is none."""

from __future__ import annotations

import math
import random
import re

import attrs

import precisionbench as pb
from made_up_results import CLEAN, HALF_CONV, comparison, comparison_data, conv, evidence, recorded
from precisionbench.report.headline import headline
from precisionbench.results import (
    Block,
    ComparisonData,
    CpuUse,
    Passes,
    RoundConditions,
)
from precisionbench.results.evidence import LayerError

ROUNDS = 20


def run(
    *, noise: float = 1e-3, rounds: int = ROUNDS, processes: int = 3, **speeds: float
) -> ComparisonData:
    """`eager` and these rows, in rounds, by how fast they are."""
    data, draw = comparison_data(schedule="rounds", failures=()), random.Random(0)
    eager, half = data.results

    def row(name: str, speed: float):
        blocks = tuple(
            Block(n, i, i, tuple(0.01 / speed * math.exp(draw.gauss(0, noise)) for _ in range(5)))
            for n in range(rounds)
            for i in range(processes)
        )
        measured = attrs.evolve(eager.measurement, blocks=blocks)
        kind = eager if name == "eager" else half
        return attrs.evolve(kind, backend=name, measurement=measured, warnings=())

    rows = [row("eager", 1.0), *(row(name, speed) for name, speed in speeds.items())]
    return attrs.evolve(data, results=tuple(rows))


def test_the_winner_is_named_with_its_interval():
    found = headline(run(half=2.5, other=1.5))
    assert found.startswith("half is fastest: 2.50x eager (95 % CI 2.49")
    assert found.endswith(").")


def test_a_row_that_is_as_fast_as_the_winner_is_named():
    assert headline(run(half=2.5, other=2.499)).endswith("is close.")
    assert "close" not in headline(run(half=2.5, other=1.5))


def test_an_inconclusive_row_never_wins():
    data = run(half=1.5, other=1.0)
    *others, other = data.results
    jumpy = tuple(
        attrs.evolve(block, samples=(0.001 if block.round % 2 else 0.1,) * 5)
        for block in other.measurement.blocks
    )
    wide = attrs.evolve(other, measurement=attrs.evolve(other.measurement, blocks=jumpy))
    data = attrs.evolve(data, results=(*others, wide))
    assert headline(data).startswith("half is fastest: 1.50x eager")


def test_the_output_of_the_winner_is_judged():
    good = (LayerError("", 5e-4, 1.0, 0, 1.0),)
    data = with_output(good)
    assert headline(data).endswith("output within tolerance.")


def with_output(errors: tuple[LayerError, ...]) -> ComparisonData:
    """`half` is faster, with these errors against float64."""
    base = attrs.evolve(CLEAN["base"], errors=(LayerError("", 1e-7, 1.0, 0, 1.0),))
    data = comparison(base, attrs.evolve(CLEAN["half"], errors=errors))
    return attrs.evolve(data, noise_floor=0.001)


def test_a_row_whose_output_is_wrong_does_not_win():
    bad = (LayerError("", 4e-1, 1.0, 0, 1.0),)
    found = headline(with_output(bad))
    assert found.startswith("half (2.92x) does not count: ")
    assert "fastest" not in found


def test_a_row_with_a_false_label_does_not_win():
    data = comparison(evidence(conv()), evidence(conv(0.3e-3)))  # half ran in float32
    found = headline(attrs.evolve(data, noise_floor=0.001))
    assert "does not count: half is labelled float16 but ran" in found


def test_a_tie_is_called_one():
    assert headline(run(half=1.001)).startswith("No row is faster than eager: half is 1.00x eager")


def test_where_all_rows_are_slower_the_reference_is_fastest():
    found = headline(run(half=0.5, other=0.7))
    assert found.startswith("eager is fastest: the next, other, is 0.700x eager (95 % CI 0.69")


def test_rows_of_one_comparison_that_decide_nothing_say_what_would_help():
    found = headline(run(half=1.03, noise=0.08, rounds=2, processes=2))
    assert found.startswith("Inconclusive: half measured 1.01x eager (95 % CI 0.9")
    assert "; the CI includes 1: use a time budget" in found
    assert re.search(r": use a time budget of about [0-9,.]+ s\.$", found)


def test_rows_that_were_measured_one_after_another_say_so():
    found = headline(recorded("channels-50"))
    assert found.endswith("rows were not interleaved: use the launcher 'process'.")


def test_a_contended_machine_is_the_reason():
    busy = [RoundConditions(n, n, cpu=CpuUse(1.0, 2, 2.0, 0.4)) for n in range(ROUNDS)]
    data = attrs.evolve(run(half=1.02, noise=0.2), conditions=tuple(busy))
    assert "the machine was busy (other processes used 1.6 of 2 CPU cores in all 20 rounds)" in (
        headline(data)
    )


def test_at_batch_1_a_cuda_graph_is_the_headline():
    found = headline(recorded("resnet50-batch1"))
    assert found.startswith("half is launch-bound: a CUDA graph would give 4.1x; without it, ")
    assert "half measured 0.733x eager (95 % CI 0.725 to 0.743)" in found


def test_a_winner_that_is_launch_bound_says_what_a_graph_would_give():
    slow = Passes(device_s=(0.1e-3,) * 5, enqueue_s=(0.36e-3,) * 5, graph_s=(0.1e-3,) * 5)
    half = evidence(conv(0.1e-3, "float16", HALF_CONV))
    data = attrs.evolve(comparison(CLEAN["base"], half, passes=(Passes(), slow)), noise_floor=0.001)
    found = headline(data)
    assert found.startswith("half is fastest: 2.92x eager")
    assert found.endswith("; launch-bound: a CUDA graph would give 3.5x.")


def test_a_failed_reference_leaves_no_speed_ups():
    data = comparison_data(reference="apex-amp")
    assert headline(data) == (
        "No speed-ups: the reference apex-amp could not be measured; half took 4.000 ms."
    )


def test_a_run_of_one_row_or_of_none_says_so():
    data = comparison_data()
    alone = attrs.evolve(data, results=data.results[:1])
    assert headline(alone) == "Only eager was measured (10.00 ms); no other row could run."
    assert headline(attrs.evolve(alone, failures=())) == (
        "Only eager was measured (10.00 ms); add a backend to compare it with."
    )
    assert (
        headline(attrs.evolve(data, results=(), reference="apex-amp"))
        == "No row could be measured."
    )


def test_it_is_the_first_line_of_every_text():
    data = run(half=2.5)
    text = pb.Comparison(data)
    assert str(text).splitlines()[0].startswith("half is fastest: 2.50x")
    assert text.to_markdown().startswith("**half is fastest: 2.50x")
    assert text._repr_html_().index("half is fastest") < text._repr_html_().index("Net, batch 4")
