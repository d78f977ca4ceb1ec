"""A diagnosis whose rows have the names that users gave them, for texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import attrs

from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import (
    Accuracy,
    DiagnosisData,
    ExperimentResult,
    Finding,
    Label,
    LayerPair,
)
from precisionbench.results import ComparisonData

_OfRow = TypeVar("_OfRow", Accuracy, ExperimentResult, Finding, Label, LayerPair)


def row_labels_of(data: ComparisonData) -> dict[str, str]:
    """The labels of the rows that have one, by row; of rows that failed, too.

    It is empty where a label is also the name of another row, as a damaged file may have it.

    Args:
        data: the comparison.
    """
    measured = [(row.backend, row.label) for row in data.results]
    rows = [*measured, *((row.backend, row.label) for row in data.failures)]
    shown = {label or name for name, label in rows}
    return {name: label for name, label in rows if label} if len(shown) == len(rows) else {}


def by_label(diagnosis: DiagnosisData) -> DiagnosisData:
    """The same diagnosis with the label of a row, where it has one, as its name.

    Args:
        diagnosis: of a comparison.
    """
    names = diagnosis.row_labels
    if not names:
        return diagnosis
    return attrs.evolve(
        diagnosis,
        labels=renamed(diagnosis.labels, names),
        findings=renamed(diagnosis.findings, names),
        layers=renamed(diagnosis.layers, names),
        precisions=renamed(diagnosis.precisions, names),
    )


def data_by_label(data: ComparisonData) -> ComparisonData:
    """The same comparison with the label of a row, where it has one, as its name.

    Args:
        data: the comparison.
    """
    names = row_labels_of(data)
    if not names:
        return data
    results = (attrs.evolve(one, backend=one.label or one.backend) for one in data.results)
    failures = (attrs.evolve(one, backend=one.label or one.backend) for one in data.failures)
    return attrs.evolve(
        data,
        results=tuple(results),
        failures=tuple(failures),
        reference=names.get(data.reference, data.reference),
        references={
            names.get(row, row): names.get(base, base) for row, base in data.references.items()
        },
    )


def renamed(records: Iterable[_OfRow], names: Mapping[str, str]) -> tuple[_OfRow, ...]:
    """Records of rows with other names for the rows.

    Args:
        records: each with its `row`.
        names: the new names, by row; other rows keep theirs.
    """
    return tuple(attrs.evolve(one, row=names.get(one.row, one.row)) for one in records)


def renamed_facts(rows: Mapping[str, Facts], names: Mapping[str, str]) -> dict[str, Facts]:
    """Facts of rows with other names for the rows.

    Args:
        rows: facts by row.
        names: the new names, by row; other rows keep theirs.
    """
    return {names.get(name, name): _renamed(facts, names) for name, facts in rows.items()}


def _renamed(facts: Facts, names: Mapping[str, str]) -> Facts:
    name = names.get(facts.row.backend)
    return facts if name is None else attrs.evolve(facts, row=attrs.evolve(facts.row, backend=name))
