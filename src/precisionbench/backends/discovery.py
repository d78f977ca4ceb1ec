"""Finds backends by entry point; one broken plugin harms no other."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import attrs

from precisionbench._internal.importing import entry_points, installed_version
from precisionbench._internal.output_capture import silence
from precisionbench.backends.base import Backend, allowed_values, option_types
from precisionbench.backends.specs import from_options
from precisionbench.errors import (
    FOREIGN_ERRORS,
    BackendNotFoundError,
    BackendUnavailableError,
    PrecisionBenchError,
    SpecError,
    did_you_mean,
    one_line,
)
from precisionbench.spec_syntax import split_spec

GROUP = "precisionbench.backends"


@attrs.frozen
class BackendInfo:
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
        SpecError: two packages bring a backend of this name, or the entry point is no Backend.
        BackendUnavailableError: the plugin cannot be imported; its own error is chained.
    """
    entries = installed()
    if name not in entries:
        _check_installed()
        raise BackendNotFoundError(f"there is no backend {name!r}", did_you_mean(name, entries))
    if len(entries[name]) > 1:
        homes = " and ".join(_distribution(entry) for entry in entries[name])
        raise SpecError(f"two packages bring a backend {name!r}: {homes}", "uninstall one of them")
    return _imported(entries[name][0])


def _check_installed() -> None:
    """Backends are listed in package metadata, which a source tree on the path does not have."""
    if installed_version("precisionbench") is None:
        raise BackendNotFoundError(
            "precisionbench is on the path and not installed, so no backend can be found",
            "install it: pip install -e .",
        )


def _imported(entry: EntryPoint) -> type[Backend]:
    home = _distribution(entry)
    try:
        found = entry.load()
    except FOREIGN_ERRORS as exc:
        raise BackendUnavailableError(
            f"a plugin {entry.name!r} that imports ({one_line(exc)})",
            f"repair or upgrade the package {home!r}",
        ) from exc
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise SpecError(
            f"the plugin {entry.name!r} of {home!r} is no subclass of Backend",
            "ask its author to mend the entry point",
        )
    if (own_name := getattr(found, "name", None)) != entry.name:
        raise SpecError(
            f"the plugin {entry.name!r} of {home!r} calls itself {own_name!r}",
            f"ask its author to write name: ClassVar[str] = {entry.name!r}",
        )
    try:
        option_types(found)
    except Exception as exc:  # an annotation that does not resolve
        raise SpecError(
            f"the options of the plugin {entry.name!r} of {home!r} cannot be read "
            f"({one_line(exc)})",
            "ask its author to mend the annotations",
        ) from exc
    return found


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value


def make(backend: str | Backend) -> Backend:
    """A backend from its spec; a backend object is given back as it is.

    Args:
        backend: `name:option=value,...` or an object.

    Returns:
        The backend; options that the spec leaves out have their defaults.

    Raises:
        SpecError: the spec cannot be understood.
        BackendUnavailableError: the plugin cannot be imported.
    """
    if isinstance(backend, Backend):
        return backend
    if not isinstance(backend, str):
        raise SpecError(
            f"a backend is given as a {type(backend).__name__}",
            "give a spec such as 'half:dtype=bfloat16' or a Backend object",
        )
    name, options = split_spec(backend)
    return from_options(load(name), options)


def list_backends() -> tuple[BackendInfo, ...]:
    """What is installed, what is missing and how to get it.

    Returns:
        One entry for each backend, by name. Plugins are imported one at a time; one that fails
        is listed with its error.
    """
    with silence():  # a plugin may print when it is imported
        return tuple(_info(name, entries[0]) for name, entries in installed().items())


def _info(name: str, entry: EntryPoint) -> BackendInfo:
    home = _distribution(entry)
    try:
        backend = load(name)
    except PrecisionBenchError as exc:
        return BackendInfo(name, False, "", {}, home, exc.reason, exc.remedy)
    summary = (backend.__doc__ or "").strip().partition("\n")[0]
    options = {option: allowed_values(hint) for option, hint in option_types(backend).items()}
    try:
        from_options(backend, {}).check_available()
    except BackendUnavailableError as exc:
        return BackendInfo(name, False, summary, options, home, exc.requirement, exc.remedy)
    except PrecisionBenchError as exc:
        return BackendInfo(name, False, summary, options, home, exc.reason, exc.remedy)
    except FOREIGN_ERRORS as exc:  # a stranger's plugin may raise anything
        return BackendInfo(name, False, summary, options, home, one_line(exc), "ask its author")
    return BackendInfo(name, True, summary, options, home)
