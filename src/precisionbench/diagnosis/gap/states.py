"""What a row is made of, and the way from one measured row to another by single changes."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence

import attrs

from precisionbench.diagnosis.labels import claim_of
from precisionbench.results.records import BackendResult, Json

State = Mapping[str, str]
_OFF = "off"

_ENGINES = {
    "eager": "eager PyTorch",
    "half": "eager PyTorch",
    "compile": "torch.compile",
    "torch2trt": "TensorRT",
}
_GRAPH_MODES = ("reduce-overhead", "max-autotune")
# Options that a state tells by other names, or that change nothing about what runs.
_TOLD = {
    *("dtype", "precision", "mode", "freezing", "cuda_graph", "memory_format"),
    *("fold_batch_norm", "opt_level", "batch_size", "tf32", "engine_cache"),
    *("fp32_layers", "dla_core"),
}
_OF_ENGINE = {"grad_mode"}  # autocast has its own
_MIXED_LEVELS = ("O1", "O2")  # of Apex
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
        PRECISION: _precision(row),
        ENGINE: _engine(row),
        LAYOUT: str(options.get("memory_format", "contiguous")),
        "batch norm": "folded" if options.get("fold_batch_norm") else "as it is",
        "weights": "frozen" if options.get("freezing") else "variables",
        "launches": "CUDA graph" if graph else "one by one",
        "autotuning": "on" if mode.startswith("max-autotune") else "off",
        BATCH: str(row.batch_size),
    }
    rest = {name: _value(value) for name, value in options.items() if name not in _TOLD}
    return {**state, **rest}


def _engine(row: BackendResult) -> str:
    name = _ENGINES.get(row.name, row.name)
    return name if row.options.get("dla_core") is None else f"{name} on a DLA"


def _precision(row: BackendResult) -> str:
    """The precision that a row claims; some engines choose one for each operation."""
    options, claim = row.options, claim_of(row)
    level = str(options.get("opt_level") or "")
    if level in _MIXED_LEVELS:
        return f"mixed {claim} ({level})"
    if layers := options.get("fp32_layers"):
        return f"mixed {options.get('dtype')} ({layers} in float32)"
    if row.name == "autocast":
        return f"mixed {claim}"
    return claim or "not told"


def _value(option: Json) -> str:
    return _OFF if option is None or option is False else str(option)


def changes(before: State, after: State) -> tuple[str, ...]:
    """What differs between two states, each as `precision: float32 to float16`.

    Args:
        before: of one row.
        after: of another.
    """
    return tuple(f"{name}: {a} to {b}" for name, (a, b) in _different(before, after).items())


def _different(before: State, after: State) -> dict[str, tuple[str, str]]:
    """An option that only one of two engines has comes and goes with the engine."""
    names = [*before, *(name for name in after if name not in before)]
    if before[ENGINE] != after[ENGINE]:
        common = before.keys() & after.keys() - _OF_ENGINE
        names = [name for name in names if name in common]
    pairs = {name: (before.get(name, _OFF), after.get(name, _OFF)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


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
