"""Names of rows that are too long for a line, cut so that they still differ."""

from __future__ import annotations

from collections.abc import Sequence

_DOTS = "..."


def short_names(names: Sequence[str], width: int) -> list[str]:
    """Names of at most `width` columns.

    Options that all rows of a backend have are left out first; then the middle of a name is cut.
    Where two names would be the same, their number stands before them.

    Args:
        names: of the rows.
        width: maximum number of columns.
    """
    short = [name if len(name) <= width else _cut(_own(name, names), width) for name in names]
    return [
        f"{place}:{_cut(name, width - len(str(place)) - 1)}" if short.count(name) > 1 else name
        for place, name in enumerate(short, 1)
    ]


def _own(name: str, names: Sequence[str]) -> str:
    """The name without the options that all rows of its backend have."""
    backend, _, options = name.partition(":")
    others = [set(one.partition(":")[2].split(",")) for one in names if _is_of(one, backend)]
    shared = set.intersection(*others) if len(others) > 1 else set()
    own = [option for option in options.split(",") if option not in shared]
    dots = [_DOTS] if shared else []
    return f"{backend}:{','.join([*dots, *own])}" if options else backend


def _is_of(name: str, backend: str) -> bool:
    return name.partition(":")[0] == backend


def _cut(name: str, width: int) -> str:
    if len(name) <= width:
        return name
    tail = max(0, width - len(_DOTS)) // 2
    head = max(0, width - len(_DOTS) - tail)
    return f"{name[:head]}{_DOTS}{name[len(name) - tail :]}"
