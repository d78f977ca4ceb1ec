"""Models in Python files that are named by their path, as in `path/to/mine.py:make`."""

from __future__ import annotations

import importlib.util
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
from torch import nn

from precisionbench import safe_text
from precisionbench._internal.importing import on_import_path, working_directory_on_path
from precisionbench.errors import FOREIGN_ERRORS, WorkloadError, one_line

SUFFIX = ".py"


@attrs.frozen
class FileFactory:
    """Builds a model by a function or class of a Python file, which each process loads for itself.

    Attributes:
        path: of the file, absolute.
        attribute: name of the function or class, or of a model that is given as it is.
        arguments: for a function or class, by name.
    """

    path: Path
    attribute: str
    arguments: Mapping[str, Any] = attrs.field(factory=dict)

    def __call__(self) -> Any:
        """Build it; further modules of the file's folder may be imported meanwhile."""
        with on_import_path(self.path.parent), working_directory_on_path():
            found = getattr(load_file(self.path), self.attribute)
            return found if isinstance(found, nn.Module) else found(**self.arguments)


def load_file(path: Path) -> ModuleType:
    """The module of a Python file, which is run once; its folder is on the import path meanwhile.

    Its name in `sys.modules` is its own, so that no module of the same name is replaced.

    Args:
        path: of the file.

    Raises:
        WorkloadError: there is no such file, or it cannot be imported.
    """
    path = path.absolute()
    name = f"{path.stem}_{zlib.crc32(bytes(path)):08x}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise WorkloadError(f"there is no file {str(path)!r}", "check its path")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with on_import_path(path.parent):
            spec.loader.exec_module(module)
    except BaseException as exc:
        del sys.modules[name]
        if not isinstance(exc, FOREIGN_ERRORS):
            raise
        raise WorkloadError(
            f"the file {str(path)!r} cannot be imported ({one_line(exc)})",
            import_remedy(exc, f"python {path}"),
        ) from exc
    return module


def import_remedy(error: BaseException, command: str) -> str:
    """What to do about a module that cannot be imported.

    Args:
        error: of the import.
        command: imports the module alone.
    """
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"check the name, or install the package that has {safe_text.line(error.name)!r}; the "
            "working directory is on the import path, and of a file also its folder"
        )
    if isinstance(error, ImportError) and "relative import" in str(error):
        return "name a module of a package as 'package.module:function', not by its file"
    return f"correct the module; {safe_text.line(command)} shows the traceback"
