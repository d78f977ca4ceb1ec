"""Locks of a study's folder: one process measures a cell, and one cell is measured on a device.

They are locks of the operating system (flock, and LockFile on Windows), which ends them with their
process, however it ends. On a network file system they hold between hosts as far as it supports
them; the lock of a device needs that only where two containers share it.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock

from precisionbench._internal.paths import quoted
from precisionbench.errors import OutputError
from precisionbench.studies.machine import Device

_FOLDER = ".locks"
_POLL_S = 0.02
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9.-]+")


@contextlib.contextmanager
def claimed(folder: Path, name: str) -> Iterator[bool]:
    """Whether this process alone may measure a cell; until the end of the context.

    Once the context has ended without an exception, the cell has a file.

    Args:
        folder: of the study.
        name: of the cell.

    Raises:
        OutputError: the folder cannot hold locks.
    """
    lock = _lock(folder, f"{name}.lock")
    if not _try(lock):
        yield False
        return
    try:
        yield True
        # A process that still has the removed file open finds the cell's file. Without that one,
        # two processes could each hold a lock, of the removed file and of a new one.
        with contextlib.suppress(OSError):  # Windows keeps an open file
            Path(lock.lock_file).unlink()
    finally:
        lock.release()


@contextlib.contextmanager
def free_device(folder: Path, devices: Sequence[Device]) -> Iterator[Device]:
    """The first of some devices that no other process measures on; waits for one.

    Args:
        folder: of the study.
        devices: one or more of this machine.

    Raises:
        OutputError: the folder cannot hold locks.
    """
    locks = [(device, _lock(folder, _device_file(device))) for device in devices]
    while True:
        for device, lock in locks:
            if _try(lock):
                try:
                    yield device
                finally:
                    lock.release()
                return
        time.sleep(_POLL_S)


def _device_file(device: Device) -> str:
    """A board has its own id; other devices belong to their host."""
    owner = device.id or f"{socket.gethostname()}-{device.address}"
    return f"device-{_NOT_IN_NAMES.sub('-', owner)}.lock"


def _lock(folder: Path, name: str) -> filelock.BaseFileLock:
    place = folder / _FOLDER
    try:
        place.mkdir(exist_ok=True)
    except OSError as exc:
        raise _unusable(folder, exc) from exc
    return filelock.FileLock(place / name)


def _try(lock: filelock.BaseFileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return False
    except (OSError, NotImplementedError) as exc:
        raise _unusable(Path(lock.lock_file).parent.parent, exc) from exc
    return True


def _unusable(folder: Path, error: Exception) -> OutputError:
    return OutputError(
        f"files in the folder {quoted(folder)} cannot be locked ({error})",
        "choose a folder on another file system",
    )
