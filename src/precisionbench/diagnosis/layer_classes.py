"""Classes of layers with matrix operations, as points in a roofline plot."""

from __future__ import annotations

import attrs

from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.parts import BYTES
from precisionbench.diagnosis.work import MatrixWork


@attrs.frozen
class LayerClass:
    """All layers of one class in a row, together.

    Attributes:
        kind: the class, e.g. `Conv2d`; the operation's name where it ran in no module.
        count: number of operations.
        time_s: seconds of a call in GEMM/conv kernels.
        flops: FLOPs of a call.
        bytes: bytes that a call must move at least: operands and results.
    """

    kind: str
    count: int
    time_s: float
    flops: float
    bytes: float

    @property
    def flop_rate(self) -> float:
        """Achieved FLOP/s."""
        return self.flops / self.time_s

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, FLOP/byte."""
        return self.flops / self.bytes


def layer_classes(facts: Facts) -> tuple[LayerClass, ...]:
    """The classes of a row's layers whose FLOPs and bytes are known, the longest first.

    A roofline plot (Williams, Waterman and Patterson 2009, doi 10.1145/1498765.1498785) shows their
    rate over their arithmetic intensity.

    Args:
        facts: of the row.
    """
    kinds = {layer.path: layer.kind for layer in facts.evidence.layers}
    groups: dict[str, list[MatrixWork]] = {}
    for work in facts.work:
        if work.flops and work.time_s and work.elements:
            kind = kinds.get(work.operation.layer) or work.operation.short_name
            groups.setdefault(kind, []).append(work)
    found = [
        LayerClass(
            kind,
            len(works),
            sum(work.time_s for work in works),
            sum(work.flops or 0.0 for work in works),
            sum(work.elements * _bytes_each(work) for work in works),
        )
        for kind, works in groups.items()
    ]
    return tuple(sorted(found, key=lambda one: -one.time_s))


def _bytes_each(work: MatrixWork) -> float:
    sizes = [BYTES.get(tensor.dtype, 4) for tensor in work.operation.inputs]
    return sum(sizes) / len(sizes) if sizes else 4.0
