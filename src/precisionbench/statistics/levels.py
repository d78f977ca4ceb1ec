"""Levels of replicas that were measured in common rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any


def levels(rows: Sequence[Mapping[Any, float]]) -> list[dict[Hashable, float]]:
    """For each row, each replica's level: the median over rounds of its difference from the round.

    Only rounds in which every replica of every row was measured count, so that round effects such
    as drift cancel.

    Args:
        rows: for each, log values by (replica, round).

    Raises:
        ValueError: no round is complete.
    """
    import numpy as np

    table = np.concatenate(complete_tables(rows))
    medians = iter(np.median(table - table.mean(axis=0), axis=1).tolist())
    return [{replica: next(medians) for replica in _replicas(row)} for row in rows]


def complete_tables(rows: Sequence[Mapping[Any, float]]) -> list[Any]:
    """Each row's values as an array of replicas x rounds in which every replica was measured.

    Args:
        rows: as for `levels`.

    Raises:
        ValueError: no round is complete.
    """
    import numpy as np

    shared = _complete_rounds(rows)
    if not shared:
        raise ValueError("no round contains every replica")
    return [np.array([[row[p, r] for r in shared] for p in _replicas(row)]) for row in rows]


def _replicas(row: Mapping[Any, float]) -> list[Hashable]:
    return list(dict.fromkeys(replica for replica, _ in row))


def has_complete_round(rows: Sequence[Mapping[Any, float]]) -> bool:
    """Whether there is a round in which every replica of every row was measured.

    Args:
        rows: as for `levels`.
    """
    return bool(_complete_rounds(rows))


def _complete_rounds(rows: Sequence[Mapping[Any, float]]) -> list[Hashable]:
    wanted = [len(_replicas(row)) for row in rows]
    measured = [Counter(r for _, r in row) for row in rows]
    return [
        r
        for r in measured[0]
        if all(times[r] == count for times, count in zip(measured, wanted, strict=True))
    ]
