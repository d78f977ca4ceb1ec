"""Blocks grouped by the round or by the replica that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from precisionbench.results.measurement import Block

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
RoundKey = tuple[int, int]
ReplicaKey = tuple[int, int]


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Items by a key; groups and their items keep the order given.

    Args:
        items: items to group.
        key: function from an item to the key of its group.
    """
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def by_round(blocks: Iterable[Block]) -> dict[RoundKey, list[Block]]:
    """The blocks of each (session, round), in the order given.

    Args:
        blocks: blocks of one row or of several.
    """
    return grouped(blocks, lambda block: block.round_key)


def by_replica(blocks: Iterable[Block]) -> dict[ReplicaKey, list[Block]]:
    """The blocks of each (session, replica), in the order given.

    Args:
        blocks: blocks of one row.
    """
    return grouped(blocks, lambda block: block.replica_key)


def samples_by_round(blocks: Iterable[Block]) -> tuple[tuple[float, ...], ...]:
    """The samples of each round, of all replicas together, in seconds per call.

    Args:
        blocks: blocks of one row.
    """
    return tuple(samples_of(group) for group in by_round(blocks).values())


def samples_of(blocks: Iterable[Block]) -> tuple[float, ...]:
    """All samples of some blocks, in seconds per call.

    Args:
        blocks: blocks of one row.
    """
    return tuple(sample for block in blocks for sample in block.samples)
