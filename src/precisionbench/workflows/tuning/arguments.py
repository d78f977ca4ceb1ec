"""Arguments of `tune` that hold several values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from precisionbench._internal.numbers import whole_number
from precisionbench.backends import discovery
from precisionbench.errors import BackendNotFoundError, SpecError, did_you_mean
from precisionbench.spec_syntax import ALIASES, split_spec


def checked_specs(argument: str, given: Iterable[str] | None) -> tuple[str, ...]:
    """The specs of an argument, whose backends exist and whose options can be read.

    Args:
        argument: its name.
        given: what the user gives, which is iterated over once; None is none.

    Raises:
        SpecError: it is not a list of specs, or one of them cannot be understood.
    """
    found = _listed(argument, given, str, "['half']")
    for spec in found:
        if not isinstance(spec, str):
            raise SpecError(f"{argument} holds {spec!r}", "give backends and specs, such as 'half'")
        name = split_spec(spec)[0]
        if name not in discovery.installed():
            known = did_you_mean(name, discovery.installed())
            remedy = f"{name} stands for {ALIASES[name]}" if name in ALIASES else known
            raise BackendNotFoundError(f"{argument}: there is no backend {name!r}", remedy)
        discovery.make(spec)
    return found


def checked_sizes(given: Iterable[int] | None) -> tuple[int, ...]:
    """The batch sizes of the argument `batch_sizes`.

    Args:
        given: as for `checked_specs`.

    Raises:
        SpecError: it is not a list of whole numbers from 1.
    """
    found = _listed("batch_sizes", given, int, "[1, 8, 32]")
    for size in found:
        if whole_number(size, 1) is None:
            raise SpecError(f"batch_sizes holds {size!r}", "give whole numbers from 1")
    return found


def _listed(argument: str, given: Any, one: type, example: str) -> tuple[Any, ...]:
    """All values, of which each is of a type; an iterator gives them only once."""
    if given is None:
        return ()
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        remedy = f": [{given!r}]" if isinstance(given, one) else f", such as {example}"
        raise SpecError(f"{argument} is {given!r}", f"give a list{remedy}")
    return tuple(given)
