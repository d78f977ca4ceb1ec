"""Folders in the user's folder for caches."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER_VARIABLE = "PRECISIONBENCH_CACHE_DIR"


def cache_folder(name: str) -> Path | None:
    """A folder for files of one kind; None where the variable that names it is empty.

    Args:
        name: of the kind.
    """
    from platformdirs import user_cache_path

    named = os.environ.get(FOLDER_VARIABLE)
    if named == "":
        return None
    return (Path(named) if named else user_cache_path("precisionbench", False)) / name


def make_private(folder: Path) -> None:
    """Make a folder that nobody but the user may read.

    Args:
        folder: of `cache_folder`.

    Raises:
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
