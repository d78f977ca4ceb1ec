"""Backends as strings: `name:option=value,option=value`, parsed and written canonically."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs

from precisionbench.backends.base import (
    Backend,
    allowed_values,
    alternatives,
    option_fields,
    option_types,
)
from precisionbench.errors import (
    ENDS_OF_RUN,
    PrecisionBenchError,
    SpecError,
    did_you_mean,
    one_line,
    raise_plain,
    text_of,
)
from precisionbench.spec_syntax import spec_text, value_text


def from_options(backend: type[Backend], texts: Mapping[str, str]) -> Backend:
    """Make a backend from options given as text.

    Args:
        backend: the plugin's class.
        texts: option names and values, as written in a spec.

    Raises:
        SpecError: an unknown option, or a value that the option does not allow.
    """
    hints = option_types(backend)
    for option in texts:
        if option not in hints:
            raise SpecError(
                f"the backend {backend.name!r} has no option {option!r}",
                did_you_mean(option, hints),
            )
    values = {
        option: _parse(backend.name, option, text, hints[option]) for option, text in texts.items()
    }
    try:
        return backend(**values)
    except PrecisionBenchError as exc:
        raise_plain(exc)
    except ENDS_OF_RUN:
        raise
    except TypeError as exc:  # an option without a default was not given
        raise SpecError(f"{backend.name}: {text_of(exc)}", "write it as option=value") from exc
    except BaseException as exc:  # a plugin's own check of its options
        raise SpecError(
            f"{backend.name} refuses these options ({one_line(exc)})",
            f"see the options with 'precisionbench backends', or ask the author of {backend.name}",
        ) from exc


def _parse(backend: str, option: str, text: str, hint: Any) -> Any:
    # None first: "none" is also a text.
    for member in sorted(alternatives(hint), key=lambda member: member is not type(None)):
        try:
            return _parse_as(text, member)
        except ValueError:
            continue
    raise SpecError(f"{backend}: {option} cannot be {text!r}", f"use {allowed_values(hint)}")


def _parse_as(text: str, member: Any) -> Any:
    """The text as a value of one type; ValueError where it is none."""
    by_text = {value_text(value): value for value in _values_of(member)}
    if text in by_text:
        return by_text[text]
    if text and member in (int, float, str, Path):
        return member(text)
    raise ValueError(text)


def _values_of(member: Any) -> list[Any]:
    """The values of a type that has only a few; of any other none."""
    if get_origin(member) is Literal:
        return list(get_args(member))
    if isinstance(member, type) and issubclass(member, Enum):
        return list(member)
    few: dict[Any, list[Any]] = {bool: [True, False], type(None): [None]}
    return few.get(member, [])


def canonical_spec(backend: Backend) -> str:
    """The shortest spec of a backend: options that equal their default are left out.

    Args:
        backend: the backend.

    Returns:
        A spec that gives an equal backend when it is parsed.
    """
    hints = option_types(type(backend))
    options = {
        field.name: float(value) if hints[field.name] is float else value
        for field in option_fields(type(backend))
        if (value := getattr(backend, field.name)) != _default(field)
    }
    return spec_text(backend.name, options)


def _default(field: attrs.Attribute[Any]) -> Any:
    factory = getattr(field.default, "factory", None)
    return factory() if factory else field.default
