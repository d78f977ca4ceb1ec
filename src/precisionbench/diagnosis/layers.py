"""The layers of the reference row beside those of another."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import LayerPair
from precisionbench.diagnosis.parts import Part


@attrs.define
class _Sum:
    time_s: float = 0.0
    longest_s: float = 0.0
    kernel: str = ""

    def add(self, part: Part) -> None:
        self.time_s += part.time_s
        if part.time_s > self.longest_s:
            self.longest_s, self.kernel = part.time_s, part.kernel or part.operation.name


def _times(facts: Facts) -> dict[str, _Sum]:
    found: dict[str, _Sum] = {}
    for part in facts.parts:
        found.setdefault(part.operation.layer, _Sum()).add(part)
    return found


def layer_pairs(base: Facts, other: Facts) -> tuple[LayerPair, ...]:
    """Each layer that took time in both rows, by what it would pay to make it faster.

    Args:
        base: the reference row.
        other: another row of the same model.

    Returns:
        The layers that take longest in the other row first.
    """
    ours, theirs = _times(other), _times(base)
    errors = {error.path: error.relative_l2 for error in other.evidence.errors}
    base_errors = {error.path: error.relative_l2 for error in base.evidence.errors}
    kinds = {layer.path: layer.kind for layer in base.evidence.layers}
    work = {one.operation.layer: one for one in other.work}
    pairs = [
        LayerPair(
            path=path,
            kind=kinds.get(path, ""),
            row=other.row.backend,
            reference_s=theirs[path].time_s,
            time_s=own.time_s,
            kernel=own.kernel,
            dtype=work[path].dtype if path in work else "",
            obstacles=work[path].obstacles if path in work else (),
            error=errors.get(path),
            reference_error=base_errors.get(path),
        )
        for path, own in ours.items()
        if path in theirs and own.time_s
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair.time_s))


def worth_float32(pairs: Sequence[LayerPair], most: int = 3) -> tuple[LayerPair, ...]:
    """The few layers that gain least from 16 bits for the error that they add.

    Args:
        pairs: of one row, with errors.
        most: how many at most.

    Returns:
        Layers in which the error grows most, with what keeping them in float32 would cost in time
        (`reference_s - time_s`).
    """
    grown: list[tuple[float, LayerPair]] = []
    by_path = {pair.path: pair for pair in pairs}
    before = 0.0
    for path in _in_order(pairs):
        pair = by_path[path]
        if pair.error is not None:
            grown.append((pair.error - before, pair))
            before = pair.error
    grown.sort(key=lambda item: -item[0])
    return tuple(pair for growth, pair in grown[:most] if growth > 0)


def _in_order(pairs: Sequence[LayerPair]) -> list[str]:
    return [pair.path for pair in pairs]
