"""What a row is made of, and the way from one measured row to another by single changes."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence

import attrs

from precisionbench.diagnosis.labels import claim_of
from precisionbench.results import BackendResult

State = Mapping[str, str]

_ENGINES = {
    "eager": "eager PyTorch",
    "half": "eager PyTorch",
    "compile": "torch.compile",
    "torch2trt": "TensorRT",
}
_GRAPH_MODES = ("reduce-overhead", "max-autotune")
# Options that a state tells by other names, or that are no step anybody would take.
_TOLD = {
    *("dtype", "precision", "mode", "freezing", "cuda_graph", "memory_format"),
    *("fold_batch_norm", "opt_level", "grad_mode", "dynamic"),
    *("fullgraph", "batch_size"),
}
PRECISION, ENGINE, LAYOUT, BATCH = "precision", "engine", "memory format", "batch"


def state_of(row: BackendResult) -> State:
    """What a row is made of, by names of what can change.

    Args:
        row: of a comparison.
    """
    options = row.options
    mode = str(options.get("mode", "default"))
    graph = bool(options.get("cuda_graph")) or mode in _GRAPH_MODES
    state = {
        PRECISION: claim_of(row) or str(options.get("opt_level") or "mixed"),
        ENGINE: _ENGINES.get(row.name, row.name),
        LAYOUT: str(options.get("memory_format", "contiguous")),
        "batch norm": "folded" if options.get("fold_batch_norm") else "as it is",
        "weights": "frozen" if options.get("freezing") else "variables",
        "launches": "CUDA graph" if graph else "one by one",
        "autotuning": "on" if mode.startswith("max-autotune") else "off",
        BATCH: str(row.batch_size),
    }
    rest = {n: str(v) for n, v in options.items() if n not in _TOLD and v not in (None, False)}
    return {**state, **rest}


def changes(before: State, after: State) -> tuple[str, ...]:
    """What differs between two states, each as `precision: float32 to float16`.

    Args:
        before: of one row.
        after: of another.
    """
    return tuple(f"{name}: {a} to {b}" for name, (a, b) in _different(before, after).items())


def _different(before: State, after: State) -> dict[str, tuple[str, str]]:
    names = [*before, *(name for name in after if name not in before)]
    pairs = {name: (before.get(name, _NONE), after.get(name, _NONE)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


_NONE = "off"  # an option that only one of the backends has, or that is off


@attrs.frozen
class Hop:
    """From one row to the next.

    Attributes:
        before: name of a row.
        after: name of the next.
        changes: what differs.
    """

    before: str
    after: str
    changes: tuple[str, ...]


def route(rows: Sequence[BackendResult], start: str, goal: str) -> tuple[Hop, ...]:
    """The way through measured rows that changes as little as can be at each step.

    A hop of k changes costs k squared, so that single changes win (Dijkstra's algorithm); of
    equal ways the one through earlier rows is taken.

    Args:
        rows: of one comparison.
        start: name of a row.
        goal: name of another.
    """
    states = {row.backend: state_of(row) for row in rows}
    queue: list[tuple[int, tuple[int, ...], str]] = [(0, (), start)]
    order = {name: place for place, name in enumerate(states)}
    done: set[str] = set()
    while queue:
        cost, path, name = heapq.heappop(queue)
        if name == goal:
            return tuple(_hops(states, [start, *(rows[i].backend for i in path)]))
        if name in done:
            continue
        done.add(name)
        for other, state in states.items():
            k = len(_different(states[name], state))
            if other not in done:
                heapq.heappush(queue, (cost + max(1, k) ** 2, (*path, order[other]), other))
    return ()


def _hops(states: Mapping[str, State], names: Sequence[str]) -> Iterator[Hop]:
    for before, after in itertools.pairwise(names):
        yield Hop(before, after, changes(states[before], states[after]))
