"""How many files this process may still open."""

from __future__ import annotations

from pathlib import Path


def descriptors_left(open_now: Path = Path("/proc/self/fd")) -> int | None:
    """How many file descriptors are left below the soft limit; None where that is unknown.

    Args:
        open_now: folder with an entry for each that is open.
    """
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = sum(1 for _ in open_now.iterdir())
    except (ImportError, OSError):  # Windows has no such limit, and macOS no such folder
        return None
    return None if limit == resource.RLIM_INFINITY else max(0, limit - used)
