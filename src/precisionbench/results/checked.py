"""Makes the records of `results` from JSON values of a file, and checks each value, once and here.

Later code may rely on this: numbers are finite and of a size that can be computed with and
printed, text is text, and everything has the type that its field declares. `limits` has the ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs

from precisionbench.results.json_values import Json, described
from precisionbench.results.limits import ANY, Limit, limit_of

T = TypeVar("T")
_Reader = Callable[[Json], Any]


class WrongValueError(ValueError):
    """A value of a file is not what its field needs.

    Args:
        expected: what it must be.

    Attributes:
        path: of the value in the document, such as `.results[0].options`.
    """

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.path = ""

    def within(self, place: str) -> WrongValueError:
        """The same error, of a value that is a part of another one.

        Args:
            place: where it is in that one, such as `.options` or `[3]`.
        """
        self.path = place + self.path
        return self

    def __str__(self) -> str:
        return f"{self.path.lstrip('.')} {self.args[0]}".lstrip()


def checked(document: Json, kind: type[T]) -> T:
    """Make an instance of a class in `results` from JSON values.

    Args:
        document: as `json_format.unstructured` makes it; fields that the class does not have are
            ignored.
        kind: the class.

    Raises:
        WrongValueError: a value is missing, of another type or out of range; with its path.
    """
    read: _Reader = _reader(kind)  # type: ignore[arg-type]  # classes can be hashed
    found: T = read(document)
    return found


@cache
def _reader(kind: Any, limit: Limit = ANY) -> _Reader:
    """The function that reads values of a type.

    Args:
        kind: as a field declares it.
        limit: of its numbers.
    """
    if attrs.has(kind):
        return _record(kind)
    if get_origin(kind) in (Union, UnionType):
        return _optional(_reader(get_args(kind)[0], limit))
    if get_origin(kind) is tuple:
        return _items(_reader(get_args(kind)[0], limit))
    if get_origin(kind) is Mapping:
        return _mapping(_reader(get_args(kind)[1], limit))
    if kind in (int, float):
        return _number(kind, limit)
    return _typed(kind) if kind in _NAMES else lambda value: value  # JSON as it is


def _typed(kind: type) -> _Reader:
    """Reads text, true and false."""
    return lambda value: _of_type(value, kind)


def _of_type(value: Json, kind: type) -> Any:
    if type(value) is not kind:
        raise WrongValueError(f"must be {_NAMES[kind]}, and is {described(value)}")
    return value


_NAMES = {str: "text", bool: "true or false", list: "a list", dict: "an object"}


def _number(kind: type[int] | type[float], limit: Limit) -> _Reader:
    accepted = (int,) if kind is int else (int, float)
    expected = f"must be a {'whole ' if kind is int else ''}number {limit}"

    def read(value: Json) -> float:
        if type(value) not in accepted or not limit.includes(value):
            raise WrongValueError(f"{expected}, and is {described(value)}")
        return kind(value)

    return read


def _optional(read: _Reader) -> _Reader:
    """Reads `X | None`."""
    return lambda value: None if value is None else read(value)


def _items(read_item: _Reader) -> _Reader:
    """Reads `tuple[X, ...]`."""

    def read(value: Json) -> tuple[Any, ...]:
        found: list[Any] = []
        try:
            for item in _of_type(value, list):
                found.append(read_item(item))
        except WrongValueError as exc:
            raise exc.within(f"[{len(found)}]") from None
        return tuple(found)

    return read


def _mapping(read_item: _Reader) -> _Reader:
    """Reads `Mapping[str, X]`."""

    def read(value: Json) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in _of_type(value, dict).items():
            try:
                found[key] = read_item(item)
            except WrongValueError as exc:
                raise exc.within(f"[{described(key)}]") from None
        return found

    return read


def _record(kind: type) -> _Reader:
    """Reads an object as an instance of an attrs class."""
    types = get_type_hints(kind)
    fields = [field for field in attrs.fields(kind) if field.init]
    readers = [
        (name, _named(name, _reader(types[name], limit_of(name))))
        for name in (field.name for field in fields)
    ]
    needed = [field.name for field in fields if field.default is attrs.NOTHING]

    def read(value: Json) -> Any:
        given = _of_type(value, dict)
        if missing := [name for name in needed if name not in given]:
            raise WrongValueError(f"must have {', '.join(missing)}")
        known = {name: read_field(given[name]) for name, read_field in readers if name in given}
        try:
            return kind(**known)
        except ValueError as exc:  # of a validator of the class
            raise WrongValueError(f"has a wrong value: {exc}") from exc

    return read


def _named(name: str, read: _Reader) -> _Reader:
    """Reads the field of that name."""

    def read_field(value: Json) -> Any:
        try:
            return read(value)
        except WrongValueError as exc:
            raise exc.within(f".{name}") from None

    return read_field
