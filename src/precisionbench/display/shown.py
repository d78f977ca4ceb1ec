"""Base classes of what is shown at a prompt and in notebooks."""

from __future__ import annotations

from collections.abc import Iterable

from precisionbench.display import html, values


class Shown:
    """Base of frozen records: a short `repr`, all fields as `str`, and a table in notebooks.

    A class of many fields names those of its `repr` in `_shown`. attrs generates a `repr` of
    its own unless a class is declared with `repr=False`.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return values.short(self)

    def __str__(self) -> str:
        return values.full(self)

    def _repr_html_(self) -> str:
        """The fields as a table, for a notebook."""
        names = values.names_of(self)
        rows = ((name, values.text_of(getattr(self, name))) for name in names)
        return html.table(("field", "value"), rows, type(self).__name__)


class Result:
    """Base of results with a text of their own: a summary as `repr`, and both in notebooks.

    Subclasses make the whole text in `__str__`, and the lines of the summary in `_summary`.
    """

    __slots__ = ()

    def _summary(self) -> Iterable[str]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return values.bounded(self._summary())

    def _repr_html_(self) -> str:
        """The summary, with the whole text to be unfolded, for a notebook."""
        return html.summary_and_text(repr(self), str(self))
