"""The memory that control groups (cgroups) of Linux leave to this process, in versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import attrs

_CGROUPS = "sys/fs/cgroup"
# Version 1 writes a huge number of bytes where there is no limit: 2**63 - 1 in whole pages.
_NO_LIMIT_BYTES = 1 << 60


@attrs.frozen
class _Version:
    """The names of one version's files.

    Attributes:
        mount: folder of the memory controller, from the root of the file system.
        limits: files of which each may hold a limit in bytes; `max` is none.
        usage: file of the bytes that are used.
        cached: key in `memory.stat` of cached files: counted as used, and given back at once when
            memory is needed.
    """

    mount: str
    limits: tuple[str, ...]
    usage: str
    cached: str


_V2 = _Version(_CGROUPS, ("memory.max", "memory.high"), "memory.current", "inactive_file")
_V1 = _Version(
    f"{_CGROUPS}/memory",
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    "total_inactive_file",
)


def free_bytes(root: Path = Path("/")) -> int | None:
    """Memory that this process's group and all groups around it leave; None without a limit.

    Args:
        root: of the file system.
    """
    left = [_left(folder, version) for version, folder in _groups(root)]
    return min((value for value in left if value is not None), default=None)


def _groups(root: Path) -> Iterator[tuple[_Version, Path]]:
    """The folders of this process's group and of those around it.

    In a container the path may be the host's, of which only the group itself is mounted.
    """
    paths = _paths(root)
    for version in (_V2, _V1):
        mount, path = root / version.mount, PurePosixPath(paths.get(version, "/"))
        for part in (path, *path.parents):
            yield version, mount / str(part).lstrip("/")


def _paths(root: Path) -> dict[_Version, str]:
    """The path of this process's group in each version's tree, where the system reports it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:  # number:controllers:path, without controllers in version 2
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            found[_V2] = path
        elif "memory" in controllers.split(","):
            found[_V1] = path
    return found


def _left(folder: Path, version: _Version) -> int | None:
    """What one group's own limit leaves; None where it has none."""
    limits = [_number(folder / name) for name in version.limits]
    limit = min((value for value in limits if value is not None), default=_NO_LIMIT_BYTES)
    used = _number(folder / version.usage)
    if used is None or limit >= _NO_LIMIT_BYTES:
        return None
    return max(0, limit - used + _cached_files(folder, version))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _cached_files(folder: Path, version: _Version) -> int:
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    values = [line.split()[1] for line in lines if line.startswith(f"{version.cached} ")]
    return int(values[0]) if values else 0
