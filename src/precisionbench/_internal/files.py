"""Files that are written whole or not at all, and folders that users name."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from precisionbench._internal.paths import quoted, usable_path, without_links
from precisionbench.errors import OutputError, OutputExistsError, one_line

_PREFIX = ".precisionbench-"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)


# Files that users name


def check_writable(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise before a measurement what `write_text` would raise after it.

    Args:
        path: file to write later.
        overwrite: whether an existing file may be replaced.

    Raises:
        OutputExistsError: the file exists and may not be replaced.
        OutputError: no file can have this name, or none can be made in its folder.
    """
    file = output_file(path, overwrite)
    with _errors_of(path), _temporary_beside(file):
        pass


def write_text(path: str | os.PathLike[str], text: str, *, overwrite: bool = False) -> None:
    """Write a file whole or not at all.

    Args:
        path: file to write.
        text: its whole content.
        overwrite: replace a file that exists, and keep its permissions.

    Raises:
        OutputExistsError: the file exists and `overwrite` is false.
        OutputError: as for `check_writable`, or the disk is full.
    """
    file = output_file(path, overwrite)
    with _errors_of(path):
        write_whole(file, text.encode("utf-8", "backslashreplace"), overwrite=overwrite)


def write_report(
    path: str | os.PathLike[str], make: Callable[[], str], *, overwrite: bool = False
) -> None:
    """Write a text that takes time to make; whether it can be written is checked before.

    Args:
        path: file to write.
        make: gives the text.
        overwrite: as for `write_text`.

    Raises:
        OutputExistsError: the file exists and `overwrite` is false.
        OutputError: as for `check_writable`, or the disk is full.
    """
    check_writable(path, overwrite)
    write_text(path, make(), overwrite=overwrite)


def create(path: str | os.PathLike[str]) -> None:
    """Create an empty file.

    Args:
        path: of the file.

    Raises:
        OutputExistsError: there is one, or a link.
        OutputError: as for `check_writable`.
    """
    file = output_file(path, overwrite=False)
    if os.path.lexists(path):
        raise _exists(path)
    with _errors_of(path):
        file.touch(exist_ok=False)


def output_file(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """The file to write: where the path is a link, its target, so that the link stays.

    Args:
        path: that a user gave.
        overwrite: whether an existing file may be replaced.

    Raises:
        OutputExistsError: the file exists and may not be replaced.
        OutputError: it cannot be a file.
    """
    given = usable_path(path, OutputError)
    kind = _kind(given)
    if os.fsdecode(path).endswith(os.sep) or kind == stat.S_IFDIR:
        raise OutputError(f"{quoted(path)} is a folder", "give the name of a file in it")
    if kind not in (None, stat.S_IFREG):
        raise OutputError(f"{quoted(path)} is a device or a pipe", "give the name of a file")
    try:
        file = without_links(given)
    except OSError as exc:  # the working directory is gone, or links go in a circle
        raise OutputError(
            f"{quoted(path)} leads nowhere ({reason_of(exc)})", "choose another place"
        ) from exc
    if os.path.lexists(file) and not overwrite:
        raise _exists(path)
    return file


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """Make a folder and those above it, where they are missing.

    Args:
        folder: that a user gave.

    Returns:
        Its path without links.

    Raises:
        OutputError: it cannot be made.
    """
    given = usable_path(folder, OutputError)
    try:
        place = without_links(given)
        place.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(
            f"the folder {quoted(folder)} cannot be made ({reason_of(exc)})",
            remedy_for(exc, "choose another"),
        ) from exc
    return place


def existing_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder, or the first one above it that exists, in which `make_folder` would make it.

    Args:
        folder: that a user gave.

    Raises:
        OutputError: it is not a folder.
    """
    given = usable_path(folder, OutputError)
    place = next(place for place in (given, *given.absolute().parents) if place.exists())
    if not place.is_dir():
        raise OutputError(
            f"the folder {quoted(folder)} cannot be made ({os.strerror(errno.ENOTDIR)})",
            "choose another",
        )
    return place


def _kind(file: Path) -> int | None:
    """What a path is, as one of `stat.S_IF...`; None where there is nothing."""
    try:
        return stat.S_IFMT(file.stat().st_mode)
    except OSError:
        return None


# Errors


@contextlib.contextmanager
def _errors_of(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise the system's errors as ours."""
    try:
        yield
    except FileExistsError as exc:  # it was created in the meantime
        raise _exists(path) from exc
    except OSError as exc:
        folder = Path(os.fsdecode(path)).parent
        if _kind(folder) != stat.S_IFDIR and not isinstance(exc, PermissionError):
            reason = f"there is no folder {quoted(folder)}"
            raise OutputError(reason, "create it, or choose another") from exc
        raise OutputError(
            f"{quoted(path)} could not be written ({reason_of(exc)})",
            remedy_for(exc, "choose another place"),
        ) from exc


def _exists(path: str | os.PathLike[str]) -> OutputExistsError:
    return OutputExistsError(
        f"{quoted(path)} exists", "choose another name, or give overwrite (--overwrite)"
    )


def reason_of(error: OSError) -> str:
    """What the system says, without the name of a temporary file."""
    return error.strerror or one_line(error)


def remedy_for(error: OSError, otherwise: str) -> str:
    """What to do about a file that could not be written.

    Args:
        error: of the system.
        otherwise: what to do where space is not the problem.
    """
    return f"free space there, or {otherwise}" if error.errno in _NO_SPACE else otherwise


# Writing


def write_whole(file: Path, content: bytes, *, overwrite: bool) -> None:
    """Write a temporary file in the same folder, and rename it once it is on the disk.

    Args:
        file: its path, without links; one that is there is replaced, never written through.
        content: all that it shall hold.
        overwrite: replace a file that exists, and keep its permissions.

    Raises:
        FileExistsError: the file exists and `overwrite` is false.
        OSError: it could not be written; nothing of it is left.
    """
    with _temporary_beside(file) as temporary:
        temporary.write(content)
        temporary.flush()
        os.fsync(temporary.fileno())  # a full disk may say so only now
        temporary.close()
        (os.replace if overwrite else _rename_unless_taken)(temporary.name, file)


@contextlib.contextmanager
def _temporary_beside(file: Path) -> Iterator[IO[bytes]]:
    """A new file in the same folder, with the permissions of the file that is there already.

    It is removed in the end, unless it has been renamed.
    """
    temporary, permissions = file.with_name(f"{_PREFIX}{secrets.token_hex(8)}.tmp"), _mode(file)
    mode = 0o666 if permissions is None else permissions  # of which the system takes the umask
    try:
        with open(temporary, "xb", opener=partial(os.open, mode=mode)) as opened:
            if permissions is not None and hasattr(os, "fchmod"):
                os.fchmod(opened.fileno(), permissions)
            yield opened
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _mode(file: Path) -> int | None:
    """The permissions of a file that is to be replaced; None where there is none."""
    try:
        return stat.S_IMODE(file.stat().st_mode) & 0o777
    except OSError:
        return None


def _rename_unless_taken(temporary: str, file: Path) -> None:
    """Rename a file unless the name is taken; a hard link, unlike a rename, fails in that case."""
    try:
        os.link(temporary, file)
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        file.touch(exist_ok=False)  # a file system without hard links: now the name is ours
        try:
            os.replace(temporary, file)
        except OSError:
            file.unlink()
            raise
