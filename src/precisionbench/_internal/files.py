"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def temporary_beside(file: Path) -> Iterator[Path]:
    """A new file in the same folder, to be renamed when it is complete; else it is removed.

    Args:
        file: the name that it will be given.
    """
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".precisionbench-", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    temporary.chmod(0o666 & ~_umask())
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
