"""What the rows of a comparison with several references are compared with, in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from precisionbench.results import BackendFailure, BackendResult, ComparisonData
from precisionbench.spec_syntax import split_model, without_batch

_Row = BackendResult | BackendFailure


def compared_with(data: ComparisonData) -> str:
    """What rows are compared with, such as `eager of the same model`; empty with one reference.

    Args:
        data: the comparison.
    """
    rows = {row.backend: row for row in data.rows}
    pairs = [
        (row, rows[data.reference_of(name)])
        for name, row in rows.items()
        if not data.is_reference(name)
    ]
    if not data.references or not pairs:
        return ""
    return f"{_backend(pairs)}{_model(pairs)}{_batch(pairs)}"


def reference_text(data: ComparisonData) -> str:
    """The name of the reference, or what stands for several of them.

    Args:
        data: the comparison.
    """
    return compared_with(data) or data.reference


_Pairs = Sequence[tuple[_Row, _Row]]


def _backend(pairs: _Pairs) -> str:
    if all(_spec(row) == _spec(base) for row, base in pairs):
        return "the same backend"
    return _only(_spec(base) for _, base in pairs) or "its own reference"


def _model(pairs: _Pairs) -> str:
    if not any(row.model for row, _ in pairs):
        return ""
    if all(row.model == base.model for row, base in pairs):
        return " of the same model"
    only = _only(base.model for _, base in pairs)
    return f" of {only}" if only else ""


def _batch(pairs: _Pairs) -> str:
    sizes = [(row.options.get("batch_size"), base.options.get("batch_size")) for row, base in pairs]
    if len(set(sizes)) < 2:
        return ""
    if all(own == other for own, other in sizes):
        return " at the same batch size"
    only = _only(str(other) for _, other in sizes)
    return f" at batch {only}" if only else ""


def _only(texts: Iterable[str]) -> str:
    """The text that all are; empty where they differ."""
    found = set(texts)
    return found.pop() if len(found) == 1 else ""


def _spec(row: _Row) -> str:
    """The row's spec without the name of its model and without its batch size."""
    return split_model(without_batch(row.backend))[1]
