"""How often recorded sessions of equal rows are called different, if they end by today's stop rule.

    python benchmarks/replayed_sessions.py docs/records/h100-same-code.json

The record (of `benchmarks/false_alarms.py`) keeps the median of every block. Each session is given
to the stop rule round by round, and judged by the rounds up to where it would have ended.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs

from precisionbench.analysis.speedups import ratio_of
from precisionbench.measure.schedule import RowState, Schedule
from precisionbench.measure.stopping import StopRule
from precisionbench.measure.worker.protocol import Opening
from precisionbench.results import Block
from precisionbench.results.latency import known_noise_floor
from precisionbench.statistics import Interval, verdicts

FLOOR = known_noise_floor("cuda")


@attrs.frozen
class Judged:
    """A session as far as it would have been measured.

    Attributes:
        ended_by: what ended it; `record` where the record has no more rounds.
        rounds: that it took.
        interval: of the ratio of the two rows.
        verdict: on it.
    """

    ended_by: str
    rounds: int
    interval: Interval
    verdict: str


def replayed(blocks: dict[str, list[list[Any]]]) -> Judged:
    """Measure a recorded session again, round by round.

    Args:
        blocks: of both rows: round, position, replica, and seconds per call.
    """
    base, other = blocks
    row_states = [_row_state(name, own) for name, own in blocks.items()]
    rule = StopRule(Schedule(1e9, base, random.Random(0), noise_floor=FLOOR))
    rounds = sorted({block[0] for own in blocks.values() for block in own})
    ended_by, done = "record", 0
    for done, number in enumerate(rounds, 1):
        for row_state in row_states:
            own = (block for block in blocks[row_state.name] if block[0] == number)
            row_state.blocks += [Block(r, place, replica, (s,)) for r, place, replica, s in own]
        if reason := rule.look(row_states, done).reason:
            ended_by = reason
            break
    taken = {row_state.name: row_state.blocks for row_state in row_states}
    comparison = {other: partial(ratio_of, taken, base, other, noise_floor=FLOOR)}
    ((interval, verdict, _),) = verdicts(comparison).values()
    return Judged(ended_by, done, interval, verdict.value)


def _row_state(name: str, blocks: list[list[Any]]) -> RowState:
    call_s = statistics.median(seconds for *_, seconds in blocks)
    opening = Opening("cuda_events", 5e-7, 5e-4, 0.0, 0.0, 0, call_s, {}, {})
    replicas = len({replica for _, _, replica, _ in blocks})
    prepared: list[Any] = [SimpleNamespace(opening=opening) for _ in range(replicas)]
    return RowState(name, prepared, samples=5, warmup_calls=[0] * replicas)


def by_arm(record: list[dict[str, Any]]) -> Iterator[tuple[str, list[Judged]]]:
    """All sessions of each batch and number of cores."""
    arms = collections.defaultdict(list)
    for one in record:
        cores = one["cores"] or "all"
        arms[f"batch {one['batch']}, {cores} cores"].append(replayed(one["blocks"]))
    yield from arms.items()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("record", type=Path)
    for arm, sessions in by_arm(json.loads(parser.parse_args().record.read_text())):
        false = sum(one.verdict in ("faster", "slower") for one in sessions)
        excluded = sum(one.interval.excludes_1 for one in sessions)
        rounds = statistics.median(one.rounds for one in sessions)
        width = statistics.median(one.interval.relative_half_width for one in sessions)
        ends = dict(collections.Counter(one.ended_by for one in sessions))
        print(
            f"{arm}: {len(sessions)} sessions, faster or slower in {false}, interval excludes 1 in "
            f"{excluded}; {rounds:.0f} rounds, half-width {width:.2%} (medians); ended by {ends}"
        )


if __name__ == "__main__":
    main()
