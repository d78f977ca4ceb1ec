"""Temporary folders of this library: removed at the end, or by a later run whose owner was killed.

A folder holds a file that its owner has locked. The system releases the lock when the owner ends,
however that happens, so nobody takes a folder for abandoned that is in use, and no process ID is
compared, which can be used again, or mean another process in a container.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from types import TracebackType

from precisionbench.errors import OutputError, one_line

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and nothing abandoned is removed
    fcntl = None  # type: ignore[assignment]

_PREFIX = "precisionbench-"
_LOCK = "owner.lock"
_OF_NOBODY_S = 86400.0  # an empty folder without a lock of this age has lost its owner


_parent: Path | None = None  # None: the system's folder for temporary files


def make_in(folder: Path) -> None:
    """Make all further ones of this process in a folder, whose owner removes them with it.

    Args:
        folder: of the process that has started this one, and may kill it.
    """
    global _parent  # a worker's whole life is one run
    _parent = folder


class TemporaryFolder:
    """A new folder that only this user can read; use it as a context manager.

    Making one removes those of this user's runs that were killed.

    Attributes:
        path: of the folder.

    Raises:
        OutputError: none can be made.
    """

    def __init__(self) -> None:
        if _parent is None:
            remove_abandoned()
        self.path = _new_folder()
        self._owner = os.getpid()
        self._lock = _locked_file(self.path)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove it with all that it holds; a process that was forked from its owner does not."""
        if os.getpid() != self._owner:
            return
        _remove(self.path)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _new_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_parent))
    except OSError as exc:
        raise OutputError(
            f"no folder for temporary files can be made ({one_line(exc)})",
            "set TMPDIR to a folder that can be written to",
        ) from exc


def remove_abandoned() -> None:
    """Remove the folders whose owners have ended without removing them.

    Only folders of this user, and never what a link points to.
    """
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX):
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(Path(entry.path))


def _locked_file(folder: Path) -> int | None:
    """The descriptor of the folder's lock; None where the file system has none.

    The file gets its name when it is locked already, so that nobody finds it without its owner.
    """
    if fcntl is None:
        return None
    new = folder / f"{_LOCK}.new"
    descriptor = None
    try:
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(folder / _LOCK)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


def _remove_if_abandoned(folder: Path) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        if time.time() - status.st_mtime > _OF_NOBODY_S:
            folder.rmdir()  # which fails unless it is empty
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder)
    finally:
        os.close(lock)


def _remove(folder: Path) -> None:
    """Remove the lock last: what a killed process leaves is then still known to be abandoned."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != _LOCK:
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()
    shutil.rmtree(folder, ignore_errors=True)
