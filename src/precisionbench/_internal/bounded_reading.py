"""Reads a file that a user names, in bounded time and memory, whatever the name leads to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# Without it, opening a pipe that nobody writes to waits for ever. Windows has no such flag, and
# translates line ends by default.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_bytes(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    """The content of a regular file.

    Args:
        path: path of the file.
        most_bytes: size that it may have.

    Raises:
        OSError: it cannot be read, or is not a regular file.
        ValueError: it is larger, or the path is not one.
    """
    name = os.fsdecode(path)
    if "\0" in name:
        raise ValueError("its name has a null character")
    _check_regular(Path(name).stat())  # opening a device can already do something
    with os.fdopen(os.open(name, _FLAGS), "rb") as file:
        status = os.fstat(file.fileno())
        _check_regular(status)  # it may be another one by now
        # It may grow meanwhile. Files of /proc have no size, and some have nothing to give now.
        content = (file.read(most_bytes + 1) or b"") if status.st_size <= most_bytes else b""
    if max(len(content), status.st_size) > most_bytes:
        raise ValueError(f"it is larger than {most_bytes / 2**20:.0f} MiB")
    return content


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is a device or a pipe, not a file")


def read_text(path: str | os.PathLike[str], most_bytes: int) -> str:
    """The text of a regular file in UTF-8, with or without a byte order mark.

    Args:
        path: path of the file.
        most_bytes: size that it may have.

    Raises:
        OSError: it cannot be read, or is not a regular file.
        ValueError: it is larger, not UTF-8, or the path is not one.
    """
    return read_bytes(path, most_bytes).decode("utf-8-sig")


def why_unreadable(error: OSError | ValueError) -> str:
    """Why reading failed, within a sentence and without the path.

    Args:
        error: that `read_bytes` or `read_text` raised.
    """
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
