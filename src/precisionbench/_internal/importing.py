"""Imports by name: optional packages, plugins, and modules of the working directory."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib import metadata
from importlib.metadata import EntryPoint, PackageNotFoundError, version
from pathlib import Path
from typing import Any

from precisionbench.errors import FOREIGN_ERRORS, BackendUnavailableError, one_line


def installed_version(package: str) -> str | None:
    """The version that a package was installed in; None where it was not installed as one.

    Args:
        package: its name as pip knows it.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def entry_points(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group; all metadata is read again only where the path has changed.

    Args:
        group: such as `precisionbench.backends`.
    """
    return _entry_points(group, tuple((str(path), _changed_at(path)) for path in sys.path))


@lru_cache(maxsize=8)
def _entry_points(group: str, _: tuple[tuple[str, int | None], ...]) -> tuple[EntryPoint, ...]:
    return tuple(metadata.entry_points(group=group))


def _changed_at(path: str) -> int | None:
    """When something was last added to a folder or removed from it; None where there is none."""
    try:
        return Path(path).stat().st_mtime_ns
    except (OSError, TypeError, ValueError):
        return None


def import_engine(module: str, engine: str, remedy: str) -> Any:
    """Import a module that a backend needs.

    Args:
        module: its name.
        engine: its name in the error.
        remedy: how to get it.

    Raises:
        BackendUnavailableError: it does not import; its own error is chained.
    """
    try:
        return importlib.import_module(module)
    except FOREIGN_ERRORS as exc:  # an engine's import can raise any error
        raise BackendUnavailableError(
            f"{engine}, which does not import here ({one_line(exc)})", remedy
        ) from exc


@contextlib.contextmanager
def working_directory_on_path() -> Iterator[None]:
    """Put the working directory on the import path within the context, as `python -m` does."""
    try:
        here = Path.cwd()
    except OSError:  # it was deleted
        yield
        return
    with on_import_path(here):
        yield


@contextlib.contextmanager
def on_import_path(folder: Path) -> Iterator[None]:
    """Put a folder on the import path within the context.

    Args:
        folder: the folder; first on the path, unless it is there already.
    """
    entry = str(folder)
    added = entry not in sys.path
    if added:
        sys.path.insert(0, entry)
    try:
        yield
    finally:
        if added and entry in sys.path:
            sys.path.remove(entry)
