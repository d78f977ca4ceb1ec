"""Backends that a result file names: names in a file are data, and anybody may have written it.

Without the user's trust, only the backends of this library are made, with options that are numbers,
fixed values or names of the model's layers. What names code, a folder or a file is refused, and no
plugin is imported.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal, get_origin

import attrs

from precisionbench.backends import discovery
from precisionbench.backends.base import Backend, alternatives, option_fields, option_types
from precisionbench.errors import UntrustedSpecError
from precisionbench.spec_syntax import split_spec

_REMEDY = "if you trust the file, give --trust, or trust=True in Python"
_HARMLESS_TYPES = (bool, int, float, type(None))


def from_file(spec: str, trust: bool = False) -> Backend:
    """A backend from a spec in a file.

    Args:
        spec: as the file has it.
        trust: whether the user trusts the file, so that it is made as if the user had named it.

    Raises:
        UntrustedSpecError: it is a plugin's, or one of its options names code, a folder or a file.
        SpecError: the spec cannot be understood.
        BackendUnavailableError: the plugin cannot be imported.
    """
    if not trust:
        _check(spec)
    return discovery.make(spec)


def _check(spec: str) -> None:
    name, options = split_spec(spec)
    if name in discovery.installed() and not discovery.is_ours(name):
        raise UntrustedSpecError(
            f"the file names the plugin {name!r}, whose code is not run by default", _REMEDY
        )
    for option, what in named_by_options(discovery.load(name)).items():
        if option in options:
            raise UntrustedSpecError(
                f"the file names {what} by {option}={options[option]!r} of {name!r}, which is not "
                "used by default",
                _REMEDY,
            )


def named_by_options(backend: type[Backend]) -> dict[str, str]:
    """The options that name something outside of the spec, each with what it names.

    Args:
        backend: a backend's class. An option of its own whose type is open, such as text, counts as
            one of these unless the metadata of its field says otherwise; see `names`.
    """
    hints = option_types(backend)
    found = {field.name: _named_by(field, hints[field.name]) for field in option_fields(backend)}
    return {option: what for option, what in found.items() if what}


def _named_by(field: attrs.Attribute[Any], hint: Any) -> str:
    """What an option names; empty where its value is harmless."""
    known = field.metadata.get("names")
    if known is not None:
        return str(known)
    return "" if all(map(_is_closed, alternatives(hint))) else "something"


def _is_closed(member: Any) -> bool:
    """Whether a type has only numbers or fixed values."""
    is_enum = isinstance(member, type) and issubclass(member, Enum)
    return is_enum or member in _HARMLESS_TYPES or get_origin(member) is Literal
