"""Finds backends by entry point; one broken plugin harms no other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from typing import ClassVar

import attrs

from precisionbench._internal.importing import entry_points, installed_version
from precisionbench._internal.output_capture import silence
from precisionbench.backends.base import Backend, allowed_values, option_types
from precisionbench.backends.specs import from_options
from precisionbench.display import Shown
from precisionbench.errors import (
    ENDS_OF_RUN,
    BackendNotFoundError,
    BackendUnavailableError,
    PrecisionBenchError,
    PreparationError,
    SpecError,
    did_you_mean,
    kind_of,
    one_line,
    text_of,
)
from precisionbench.spec_syntax import ALIASES, split_spec, without_alias

GROUP = "precisionbench.backends"
_SUMMARY = 300  # characters
# What to write for a dtype that is given as the name of a backend.
_DTYPES = {
    "float32": "'fp32'",
    "float16": "'fp16'",
    "bfloat16": "'bf16'",
    "int8": "'torchao', 'pt2e', 'onnxruntime:precision=int8' or 'openvino:precision=int8'",
}


@attrs.frozen(repr=False)
class BackendInfo(Shown):
    """One installed backend and whether it can run here.

    Attributes:
        name: its name in specs.
        available: whether it can run on this machine with its default options.
        summary: the first line of its docstring; empty where it cannot be imported.
        options: each option with what it allows.
        distribution: the package that brings it.
        requirement: what is missing; empty where it is available.
        remedy: how to get that.
    """

    _shown: ClassVar[tuple[str, ...]] = ("name", "available", "requirement", "remedy", "summary")

    name: str
    available: bool
    summary: str
    options: dict[str, str]
    distribution: str
    requirement: str = ""
    remedy: str = ""


def installed() -> dict[str, list[EntryPoint]]:
    """Entry points of every backend by name, from package metadata, without importing any."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        others = found.setdefault(entry.name, [])
        if entry.value not in [other.value for other in others]:
            others.append(entry)
    return dict(sorted(found.items()))


def load(name: str) -> type[Backend]:
    """Import one backend's class.

    Args:
        name: its name in specs.

    Returns:
        The class; nothing is made of it yet.

    Raises:
        BackendNotFoundError: no such backend; the nearest and all known names.
        SpecError: two packages bring a backend of this name, or the entry point is not a Backend.
        BackendUnavailableError: the plugin cannot be imported; its own error is chained.
    """
    entries = installed()
    if name not in entries:
        _check_installed()
        raise BackendNotFoundError(f"there is no backend {name!r}", _instead_of(name, entries))
    if len(entries[name]) > 1:
        homes = " and ".join(_distribution(entry) for entry in entries[name])
        raise SpecError(f"two packages bring a backend {name!r}: {homes}", "uninstall one of them")
    (entry,) = entries[name]
    found = _imported(entry)
    try:
        return _checked(found, entry)
    except (PrecisionBenchError, *ENDS_OF_RUN):
        raise
    except BaseException as exc:  # such as an annotation that does not resolve
        raise SpecError(
            f"the options of the plugin {name!r} of {_distribution(entry)!r} cannot be read "
            f"({one_line(exc)})",
            "ask its author to fix the annotations",
        ) from exc


def _instead_of(name: str, entries: Iterable[str]) -> str:
    """What to write instead of a name that no backend has."""
    if re.search(r"[,;\s]", name):
        return "give each backend by itself: -b half -b autocast, or a list in Python"
    if name.lower() in _DTYPES:
        return f"write {_DTYPES[name.lower()]}"
    return did_you_mean(name, [*entries, *ALIASES])


def _check_installed() -> None:
    """Backends are listed in package metadata, which a source tree on the path does not have."""
    if installed_version("precisionbench") is None:
        raise BackendNotFoundError(
            "precisionbench is on the path but not installed, so no backend can be found",
            "install it: pip install -e .",
        )


def _imported(entry: EntryPoint) -> object:
    home = _distribution(entry)
    try:
        return entry.load()
    except ENDS_OF_RUN:
        raise
    except BaseException as exc:  # importing it runs the code of others
        raise BackendUnavailableError(
            f"a plugin {entry.name!r} that can be imported ({one_line(exc)})",
            f"repair or upgrade the package {home!r}",
        ) from exc


def _checked(found: object, entry: EntryPoint) -> type[Backend]:
    """What an entry point gave, if it is a backend of that name with readable options."""
    home = _distribution(entry)
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise SpecError(
            f"the plugin {entry.name!r} of {home!r} is not a subclass of Backend",
            "ask its author to fix the entry point",
        )
    if (own_name := getattr(found, "name", None)) != entry.name:
        raise SpecError(
            f"the plugin {entry.name!r} of {home!r} has the name {own_name!r}",
            f"ask its author to write name: ClassVar[str] = {entry.name!r}",
        )
    option_types(found)  # whose annotations may not resolve
    return found


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value


def home_of(name: str) -> str:
    """The package that brings a backend.

    Args:
        name: a key of `installed()`.
    """
    return _distribution(installed()[name][0])


def make(backend: str | Backend) -> Backend:
    """A backend from its spec; a backend object is given back as it is.

    Args:
        backend: `name:option=value,...`, where the name may be an alias such as `bf16` that no
            plugin has as its name; or an object.

    Returns:
        The backend; options that the spec leaves out have their defaults.

    Raises:
        SpecError: the spec cannot be understood.
        BackendUnavailableError: the plugin cannot be imported.
    """
    if isinstance(backend, Backend):
        return backend
    if not isinstance(backend, str):
        is_class = isinstance(backend, type)
        given = f"the class {backend.__name__}" if is_class else kind_of(backend)
        raise SpecError(
            f"a backend is given as {given}",
            "give a spec such as 'half:dtype=bfloat16' or a Backend object",
        )
    name, options = split_spec(backend)
    if name not in installed():
        name, options = split_spec(without_alias(backend))
    return from_options(load(name), options)


def is_ours(name: str) -> bool:
    """Whether a backend is part of this library.

    Args:
        name: a key of `installed()`.
    """
    return all(entry.value.startswith("precisionbench.") for entry in installed()[name])


def describe(name: str) -> BackendInfo:
    """Import a backend and describe it, whatever its code does.

    Args:
        name: a key of `installed()`.

    Returns:
        Its description; it is not available where it could not be imported or made.
    """
    listed = BackendInfo(name, True, "", {}, home_of(name))
    try:
        with silence():  # a plugin may print when it is imported
            backend = load(name)
            hints = option_types(backend)
            options = {option: allowed_values(hint) for option, hint in hints.items()}
            listed = attrs.evolve(listed, summary=_summary(backend), options=options)
            from_options(backend, {})
    except PrecisionBenchError as exc:
        return unavailable(listed, exc)
    except ENDS_OF_RUN:
        raise
    except BaseException as exc:  # a class that defines what it is in its own way
        return unavailable(listed, PreparationError(one_line(exc), "ask its author"))
    return listed


def unavailable(info: BackendInfo, error: PrecisionBenchError) -> BackendInfo:
    """The description of a backend that cannot run here.

    Args:
        info: what is known of it.
        error: why it cannot.
    """
    broken = f"a plugin that works ({error.reason})"
    requirement = getattr(error, "requirement", broken)
    return attrs.evolve(info, available=False, requirement=requirement, remedy=error.remedy)


def _summary(backend: type[Backend]) -> str:
    return text_of(backend.__doc__ or "", _SUMMARY).strip().partition("\n")[0]
