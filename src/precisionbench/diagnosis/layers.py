"""Layer-by-layer comparison of the reference row with another row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import LayerPair
from precisionbench.diagnosis.parts import Part
from precisionbench.results.evidence import LayerError


@attrs.define
class _LayerTime:
    """Time of a layer, with its longest kernel."""

    time_s: float = 0.0
    longest_s: float = 0.0
    kernel: str = ""

    def add(self, part: Part) -> None:
        self.time_s += part.time_s
        if part.time_s > self.longest_s:
            self.longest_s, self.kernel = part.time_s, part.kernel or part.operation.name


def _time_by_layer(facts: Facts) -> dict[str, _LayerTime]:
    found: dict[str, _LayerTime] = {}
    for part in facts.parts:
        found.setdefault(part.operation.layer, _LayerTime()).add(part)
    return found


def layer_pairs(base: Facts, other: Facts) -> tuple[LayerPair, ...]:
    """Each layer that took time in both rows, the slowest first.

    Args:
        base: the reference row.
        other: another row of the same model.

    Returns:
        The layers, sorted by their time in the other row. None where all time of that row belongs
        to the whole model, so that there is nothing to compare with a layer.
    """
    ours, theirs = _time_by_layer(other), _time_by_layer(base)
    if ours.keys() == {""} != theirs.keys():  # compiled code, whose kernels belong to no layer
        return ()
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
            obstacles=work[path].obstacles if path in work and other.on_gpu else (),
            error=errors.get(path),
            reference_error=base_errors.get(path),
        )
        for path, own in ours.items()
        if path in theirs and own.time_s
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair.time_s))


def error_growth(errors: Iterable[LayerError]) -> list[tuple[float, str]]:
    """The increase of the error in each layer, and in the code around it, with the path.

    Where the error of a layer's input is known, what was added before is of the module that calls
    the layer, and else of the layer.

    Args:
        errors: errors of modules in order; the model's own is ignored.

    Returns:
        Increases with paths; an empty path is the model's own forward, or that of a module which
        holds all layers, as in a wrapper.
    """
    observed = [one for one in errors if one.path]
    grown: list[tuple[float, str]] = []
    last = most = 0.0
    for one in observed:
        if one.relative_l2 is None:
            continue
        if one.input_relative_l2 is not None:
            last = one.input_relative_l2
            grown.append((last - most, one.path.rpartition(".")[0]))
        grown.append((one.relative_l2 - last, one.path))
        last = one.relative_l2
        most = max(most, last)
    whole = _holding_all([one.path for one in observed])
    return [(growth, "" if path in whole else path) for growth, path in grown]


def _holding_all(paths: Sequence[str]) -> set[str]:
    """The modules of which all others are parts."""
    parts = [path.split(".") for path in paths]
    holding = {".".join(some[:count]) for some in parts for count in range(1, len(some))}
    layers = [path for path in paths if path not in holding]
    return {path for path in holding if all(layer.startswith(f"{path}.") for layer in layers)}


def layers_of_growth(errors: Sequence[LayerError], most: int = 3) -> tuple[str, ...]:
    """The modules in which the error grows most, the worst first.

    They have no parts of their own, unless the error grows in their own code. There are none where
    it grows most in the model's own forward, of which no layer can be kept in float32.

    Args:
        errors: errors of modules in order.
        most: maximum number of layers.
    """
    parents = {error.path.rpartition(".")[0] for error in errors if error.path}
    growth = error_growth([error for error in errors if error.path not in parents])
    grown = sorted((pair for pair in growth if pair[0] > 0), reverse=True)
    paths = list(dict.fromkeys(path for _, path in grown))
    return () if paths[:1] == [""] else tuple([path for path in paths if path][:most])


def layers_to_keep_in_float32(
    base: Facts, other: Facts, most: int = 3
) -> tuple[tuple[str, ...], float]:
    """The layers in which a row's error grows most, and the time that float32 would add there.

    Args:
        base: the reference row, in float32.
        other: a row with fewer bits.
        most: maximum number of layers.

    Returns:
        Their paths, and the seconds per call that float32 would add.
    """
    paths = layers_of_growth(other.evidence.errors, most)
    ours, theirs = _time_by_layer(other), _time_by_layer(base)
    cost_s = sum(theirs[p].time_s - ours[p].time_s for p in paths if p in ours and p in theirs)
    return paths, max(0.0, cost_s)
