"""Paths that users give: names that no file can have, and links that are not followed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

from precisionbench.errors import OutputError, PrecisionBenchError

_OTHER_NAME = "choose another name"
_MAX_LINKS = 40  # as in Linux
_SHOWN = 100  # characters of each end of a long path in an error


def usable_path(path: Any, refusal: type[PrecisionBenchError]) -> Path:
    """A path that a user gives, if a file can have it.

    Args:
        path: a `str`, `bytes` or `os.PathLike`; anything else is refused.
        refusal: class of the error.

    Raises:
        refusal: it is not a path, is empty or too long, or has a character that no name can have.
    """
    try:
        name = os.fsdecode(path)
        os.lstat(name)
    except TypeError as exc:
        raise refusal(f"{path!r} is not a path", "give a str or a pathlib.Path") from exc
    except ValueError as exc:  # a null character, or a surrogate that stands for no byte
        raise refusal(
            f"{quoted(path)} has a character that no file name can have", _OTHER_NAME
        ) from exc
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG:
            raise refusal(f"{quoted(path)} is too long for a file name", _OTHER_NAME) from exc
    if not name:
        raise refusal("the name of the file is empty", "give one")
    return Path(name)


def quoted(path: str | bytes | os.PathLike[Any]) -> str:
    """A path for an error: quoted and escaped; a long one without its middle."""
    text = repr(os.fsdecode(path))
    return text if len(text) <= 2 * _SHOWN else f"{text[:_SHOWN]}…{text[-_SHOWN:]}"


def without_links(path: Path) -> Path:
    """The absolute path of what is to be written, with its links followed.

    Args:
        path: of a file or a folder, which need not exist.

    Raises:
        OutputError: a link on the way may be somebody else's trap; see `may_follow`.
        OSError: links go in a circle, or the working directory is gone.
    """
    start = path.absolute()
    place, names, links = Path(start.anchor), [*reversed(start.parts[1:])], 0
    while names:
        name = names.pop()
        target = _target_of(place / name)
        if name == os.pardir:
            place = place.parent
        elif target is None:
            place /= name
        elif (links := links + 1) > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        else:
            names += reversed((place / target).parts[1:])
            place = Path(start.anchor)
    return place


def _target_of(link: Path) -> Path | None:
    """Where a link leads; None where there is none."""
    try:
        target = link.readlink()
    except OSError:
        return None
    if not may_follow(link.lstat(), link.parent.stat()):
        raise OutputError(
            f"the link {quoted(link)} is another user's, in a folder that others can write to",
            "give the path that it leads to, or choose another place",
        )
    return target


def may_follow(link: os.stat_result, folder: os.stat_result, user: int | None = None) -> bool:
    """Whether a link can be trusted when a file is written through it.

    Where others can write to the folder, one of them may have put the link where we write. This is
    the rule of Linux's `protected_symlinks`, for all such folders.

    Args:
        link: the status of the link itself.
        folder: the status of the folder that it is in.
        user: who writes; None is the user of this process.
    """
    if not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or not hasattr(os, "geteuid"):
        return True
    return link.st_uid in (os.geteuid() if user is None else user, folder.st_uid, 0)
