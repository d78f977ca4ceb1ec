"""attrs validators of published numbers; their messages name the field and its value."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from precisionbench.results.json_values import described

_MOST = 1e15  # upper limit of any number
_Field = Any  # attrs.Attribute; only its name is used
Validator = Callable[[object, _Field, Any], None]


def text(_: object, field: _Field, value: Any) -> None:
    """Accept text only."""
    if not isinstance(value, str):
        raise ValueError(f"{field.name} is {described(value)}, and must be text")


def one_of(choices: Collection[str]) -> Validator:
    """Accept text that is one of some choices only.

    Args:
        choices: the values allowed.
    """

    def check(instance: object, field: _Field, value: object) -> None:
        text(instance, field, value)
        if value not in choices:
            raise ValueError(f"{field.name} is {described(value)}, which is not a known value")

    return check


def text_that_is(meaning: str, accepts: Callable[[str], object]) -> Validator:
    """Accept text that a function accepts only.

    Args:
        meaning: what the text must be, for the message.
        accepts: a function of the text with a truthy result for valid text.
    """

    def check(instance: object, field: _Field, value: Any) -> None:
        text(instance, field, value)
        if not accepts(value):
            raise ValueError(f"{field.name} is {described(value)}, and must be {meaning}")

    return check


def count_from(least: int) -> Validator:
    """Accept whole numbers only.

    Args:
        least: the smallest number allowed.
    """

    def check(_: object, field: _Field, value: object) -> None:
        if type(value) is not int or not least <= value < 2**31:
            raise ValueError(
                f"{field.name} is {described(value)}, and must be a whole number of {least} or more"
            )

    return check


def positive(_: object, field: _Field, value: Any) -> None:
    """Accept positive finite numbers only."""
    if type(value) not in (int, float) or not 0 < value < _MOST:
        raise ValueError(f"{field.name} is {described(value)}, and must be a number above 0")


def names_of(known: Collection[str], what: str) -> Validator:
    """Accept lists of known names only.

    Args:
        known: the names allowed.
        what: what the names are of, for the message.
    """

    def check(_: object, field: _Field, value: object) -> None:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{field.name} is {described(value)}, and must be a list of {what}")
        for name in value:
            if name not in known:
                raise ValueError(
                    f"{field.name} lists {described(name)}, which is not one of {', '.join(known)}"
                )

    return check
