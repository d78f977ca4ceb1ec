"""Blocks grouped by the round or by the replica that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from precisionbench.results.records import Block

Key = tuple[int, int]


def by_round(blocks: Iterable[Block]) -> dict[Key, list[Block]]:
    """The blocks of each (session, round), in the order given.

    Args:
        blocks: of one row or of several.
    """
    return _grouped(blocks, lambda block: (block.session, block.round))


def by_replica(blocks: Iterable[Block]) -> dict[Key, list[Block]]:
    """The blocks of each (session, replica), in the order given.

    Args:
        blocks: of one row.
    """
    return _grouped(blocks, lambda block: (block.session, block.replica))


def samples_by_round(blocks: Iterable[Block]) -> tuple[tuple[float, ...], ...]:
    """The samples of each round, of all replicas together, in seconds per call.

    Args:
        blocks: of one row.
    """
    return tuple(
        tuple(sample for block in group for sample in block.samples)
        for group in by_round(blocks).values()
    )


def _grouped(blocks: Iterable[Block], key: Callable[[Block], Key]) -> dict[Key, list[Block]]:
    groups: dict[Key, list[Block]] = {}
    for block in blocks:
        groups.setdefault(key(block), []).append(block)
    return groups
