"""Parts of a comparison of several models or batch sizes, each with one model or one reference."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import attrs

from precisionbench._internal.identity_cache import cached_by_identity
from precisionbench.results.comparison_data import BackendFailure, BackendResult, ComparisonData
from precisionbench.results.json_values import Json

_Row = BackendResult | BackendFailure


def by_reference(data: ComparisonData) -> Mapping[str, ComparisonData]:
    """The comparison as one part for each reference, with the rows that are compared with it.

    Args:
        data: the comparison.

    Returns:
        Parts by the name of their reference, in the order of the rows.
    """
    return _by_reference(data) if data.references else {data.reference: data}


@cached_by_identity
def _by_reference(data: ComparisonData) -> Mapping[str, ComparisonData]:
    names = [row.backend for row in data.rows]
    references = dict.fromkeys(data.reference_of(name) for name in names)
    return {
        reference: _part(
            data,
            reference,
            [name for name in names if reference in (name, data.reference_of(name))],
        )
        for reference in references
    }


def _part(data: ComparisonData, reference: str, names: Collection[str]) -> ComparisonData:
    return attrs.evolve(
        data,
        results=tuple(row for row in data.results if row.backend in names),
        failures=tuple(row for row in data.failures if row.backend in names),
        reference=reference,
        references={},
    )


def by_model(data: ComparisonData) -> Mapping[str, ComparisonData]:
    """The comparison as one part for each model; the only part where there is one model.

    A row whose reference is of another model is compared with the row of its own model that has
    the same backend as the reference of the comparison.

    Args:
        data: the comparison.

    Returns:
        Parts by the name of their model.
    """
    return _by_model(data) if data.models else {"": data}


@cached_by_identity  # a comparison itself is never a value, which would keep it in the cache
def _by_model(data: ComparisonData) -> Mapping[str, ComparisonData]:
    measured = {row.model for row in data.rows}
    return {model: _of_model(data, model) for model in data.models if model in measured}


def _of_model(data: ComparisonData, model: str) -> ComparisonData:
    """The part of a model, as a comparison of one model that has no name."""
    rows = [row for row in data.rows if row.model == model]
    references = {row.backend: _own_reference(data, row, rows) for row in rows}
    return attrs.evolve(
        data,
        workload=data.models[model],
        models={},
        results=tuple(attrs.evolve(row, model="") for row in data.results if row.model == model),
        failures=tuple(attrs.evolve(row, model="") for row in data.failures if row.model == model),
        reference=references[rows[0].backend],
        references=references,
    )


def _own_reference(data: ComparisonData, row: _Row, rows: list[_Row]) -> str:
    """The row of the same model that a row is compared with in the part of its model."""
    given = data.reference_of(row.backend)
    if given != row.backend and given in [one.backend for one in rows]:
        return given
    base = next(one for one in data.rows if one.backend == data.reference)
    same = [one for one in rows if _options(one) == _options(base)]
    same.sort(key=lambda one: one.options.get("batch_size") != row.options.get("batch_size"))
    return (same or rows)[0].backend


def _options(row: _Row) -> tuple[str, dict[str, Json]]:
    """The backend of a row and its options, other than the batch size."""
    return row.name, {name: v for name, v in row.options.items() if name != "batch_size"}
