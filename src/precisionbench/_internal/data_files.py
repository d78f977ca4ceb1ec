"""Reads the data files that are part of the package."""

from __future__ import annotations

import sys
from importlib.resources import files
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_text(name: str) -> str:
    """The text of a file of the folder `data`.

    Args:
        name: of the file, such as `devices.toml`.
    """
    return (files("precisionbench") / "data" / name).read_text(encoding="utf-8")


def read_toml(name: str) -> dict[str, Any]:
    """The parsed content of a TOML file of the folder `data`.

    Args:
        name: of the file, such as `devices.toml`.
    """
    return tomllib.loads(read_text(name))
