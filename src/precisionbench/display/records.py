"""Records of one class as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from precisionbench.display import html, values
from precisionbench.display.frames import cells, dataframe
from precisionbench.display.shown import Result

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


class Records(tuple[T, ...]):
    """A tuple of records that is shown as a table, and can be made a data frame."""

    __slots__ = ()

    def to_dataframe(self) -> pd.DataFrame:
        """One line for each record, one column for each field.

        An interval takes three columns, such as `factor`, `factor_low` and `factor_high`.

        Returns:
            The data frame.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        return dataframe(map(cells, self))

    def __repr__(self) -> str:
        return values.bounded([_title(self), *(values.table(self) if self else ())])

    def __str__(self) -> str:
        return "\n\n".join(map(str, self)) or _title(self)

    def _repr_html_(self) -> str:
        """The table, for a notebook."""
        columns = values.columns(self) if self else {}
        return html.table([*columns], zip(*columns.values(), strict=True), _title(self))


class TableResult(Result):
    """Base of results that are a table, too; subclasses give its records in `_records`."""

    __slots__ = ()

    def _records(self) -> tuple[object, ...]:
        raise NotImplementedError

    def to_dataframe(self) -> pd.DataFrame:
        """The table as a pandas data frame.

        Returns:
            One line for each check, problem or row, or for each factor, the unexplained one last.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        return Records(self._records()).to_dataframe()


def _title(records: Sequence[Any]) -> str:
    kinds = " and ".join(dict.fromkeys(type(one).__name__ for one in records))
    count = f"{len(records)} record{'s' * (len(records) != 1)}"
    return f"{count} ({kinds})" if kinds else count
