"""Records as data frames; pandas is imported when one is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Any

import attrs

from precisionbench.errors import MissingPackageError

if TYPE_CHECKING:
    import pandas as pd


def dataframe(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """A data frame of rows.

    Args:
        rows: cells by column.
        columns: their order; None is that of the rows.

    Returns:
        One line for each row.

    Raises:
        MissingPackageError: pandas is not installed.
    """
    pandas = optional_package("pandas", "a data frame")
    order = None if columns is None else list(columns)
    made: pd.DataFrame = pandas.DataFrame(list(rows), columns=order)
    return made


def optional_package(name: str, purpose: str) -> Any:
    """Import a module of a package that this library does not require.

    Args:
        name: such as `matplotlib.pyplot`.
        purpose: what needs it, as a noun phrase.

    Returns:
        The module.

    Raises:
        MissingPackageError: the package is not installed.
    """
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != package:
            raise  # the package is there, and lacks one of its own requirements
        raise MissingPackageError(
            f"{purpose} requires {package}, which is not installed", f"run `pip install {package}`"
        ) from exc


def cells(record: Any) -> dict[str, Any]:
    """The fields of a record as cells of a data frame.

    A nested record becomes a cell for each of its fields: `latency`, `latency_low` and
    `latency_high` of an interval. Texts in a sequence are joined by `; `; other sequences and
    mappings are counted.

    Args:
        record: an attrs object.
    """
    found: dict[str, Any] = {}
    for field in attrs.fields(type(record)):
        if field.repr:
            found |= _cells(field.name, getattr(record, field.name))
    return found


def _cells(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Enum):
        return {name: value.value}
    if attrs.has(type(value)):
        return {name if key == "value" else f"{name}_{key}": x for key, x in cells(value).items()}
    if isinstance(value, (tuple, list)):
        is_text = all(isinstance(item, str) for item in value)
        return {name: "; ".join(value) if is_text else len(value)}
    return {name: len(value) if isinstance(value, Mapping) else value}
