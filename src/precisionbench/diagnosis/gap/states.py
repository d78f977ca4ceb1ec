"""What can change between two rows, and the path from one measured row to another."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence

import attrs

from precisionbench.results import BackendResult
from precisionbench.results.claims import Claims
from precisionbench.results.earlier_claims import claims_of
from precisionbench.results.json_values import Json

State = Mapping[str, str]
_OFF = "off"

# Options of every backend that have other names in a state.
_COVERED = {"cuda_graph", "memory_format", "fold_batch_norm", "batch_size"}
# Options whose default depends on the engine: autocast has its own.
_OF_ENGINE = {"grad_mode"}
PRECISION, ENGINE, LAYOUT, BATCH = "precision", "engine", "memory format", "batch"


def state_of(row: BackendResult) -> State:
    """What defines a row, by names of what can change between rows.

    Args:
        row: of a comparison.

    Returns:
        Values as text by name, e.g. `precision` is `float16`.
    """
    options, claims = row.options, claims_of(row)
    graph = options.get("cuda_graph") or claims.cuda_graphs
    state = {
        PRECISION: claims.precision_name or "not stated",
        ENGINE: _engine(row, claims),
        LAYOUT: str(options.get("memory_format", "contiguous")),
        "batch norm": "folded" if options.get("fold_batch_norm") else "not folded",
        "weights": "frozen" if claims.frozen_weights else "variables",
        "launches": "CUDA graph" if graph else "one by one",
        "autotuning": "on" if claims.autotuned else "off",
        BATCH: str(row.batch_size),
    }
    covered = _COVERED.union(claims.covered_options)
    rest = {name: _value(value) for name, value in options.items() if name not in covered}
    return {**state, **rest}


def _engine(row: BackendResult, claims: Claims) -> str:
    name = claims.engine or row.name
    return f"{name} on a DLA" if claims.dlas else name


def _value(option: Json) -> str:
    return _OFF if option is None or option is False else str(option)


def changes(before: State, after: State) -> tuple[str, ...]:
    """What differs between two states.

    Args:
        before: of one row.
        after: of another.

    Returns:
        Each change as `precision: float32 to float16`.
    """
    return tuple(f"{name}: {a} to {b}" for name, (a, b) in _differences(before, after).items())


def _differences(before: State, after: State) -> dict[str, tuple[str, str]]:
    """Values before and after; options that only one of two engines has are part of its change."""
    names = [*before, *(name for name in after if name not in before)]
    if before[ENGINE] != after[ENGINE]:
        common = before.keys() & after.keys() - _OF_ENGINE
        names = [name for name in names if name in common]
    pairs = {name: (before.get(name, _OFF), after.get(name, _OFF)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@attrs.frozen
class Transition:
    """From one row to the next.

    Attributes:
        before: name of a row.
        after: name of the next.
        changes: what differs.
    """

    before: str
    after: str
    changes: tuple[str, ...]


def shortest_path(rows: Sequence[BackendResult], start: str, goal: str) -> tuple[Transition, ...]:
    """The path through measured rows with the fewest changes in each transition.

    A transition of k changes costs k squared, so that single changes are preferred (Dijkstra's
    algorithm); of equal paths the one through earlier rows is taken.

    Args:
        rows: of one comparison.
        start: name of a row.
        goal: name of another.

    Returns:
        The transitions in order; none where the two rows are the same.
    """
    states = {row.backend: state_of(row) for row in rows}
    queue: list[tuple[int, tuple[int, ...], str]] = [(0, (), start)]
    order = {name: place for place, name in enumerate(states)}
    done: set[str] = set()
    while queue:
        cost, path, name = heapq.heappop(queue)
        if name == goal:
            return tuple(_transitions(states, [start, *(rows[i].backend for i in path)]))
        if name in done:
            continue
        done.add(name)
        for other, state in states.items():
            k = len(_differences(states[name], state))
            if other not in done:
                heapq.heappush(queue, (cost + max(1, k) ** 2, (*path, order[other]), other))
    return ()


def _transitions(states: Mapping[str, State], names: Sequence[str]) -> Iterator[Transition]:
    for before, after in itertools.pairwise(names):
        yield Transition(before, after, changes(states[before], states[after]))
