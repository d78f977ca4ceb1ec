"""Imports by name: optional packages, and modules of the working directory."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
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
        here = os.getcwd()
    except OSError:  # it was deleted
        here = ""
    added = bool(here) and here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
