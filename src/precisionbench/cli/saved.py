"""Comparisons that the command line saves by itself, so that `last` finds them.

They are in a cache folder of the user, which nobody else may read; the newest 50 are kept.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from precisionbench._internal.cache_folder import FOLDER_VARIABLE, cache_folder, make_private

if TYPE_CHECKING:
    from precisionbench.comparison import Comparison

MOST_KEPT = 50
_FOLDER = "comparisons"
# Only files of this form are removed, whatever else a user puts into the folder.
_NAME = re.compile(r"precisionbench-[\w.+-]*\.json")
_LAST = re.compile(r"last(?:~(\d{1,3}))?")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9.-]+")
_MAX_MODEL = 40  # characters of a model in the name of a file


def folder() -> Path | None:
    """The folder of saved comparisons; None where the variable that names it is empty."""
    return cache_folder(_FOLDER)


def remember(comparison: Comparison) -> Path | None:
    """Save a comparison in the cache folder; where it cannot be written, a note says so.

    Args:
        comparison: that was measured.

    Returns:
        The file; None where there is none.
    """
    from precisionbench.cli.output import complain
    from precisionbench.errors import OutputError

    place = folder()
    if place is None:
        return None
    try:
        make_private(place)
        file = _save(comparison, place)
        _remove_oldest(place)
    except (OSError, OutputError) as exc:
        complain(f"Note: not saved for `last` ({exc}); set {FOLDER_VARIABLE} to another folder")
        return None
    return file


def _save(comparison: Comparison, place: Path) -> Path:
    from precisionbench.errors import OutputExistsError

    data = comparison.data
    model = _NOT_IN_NAMES.sub("-", data.workload.model).strip("-.")[-_MAX_MODEL:]
    moment = _NOT_IN_NAMES.sub("", data.created.partition("+")[0].replace("-", ""))
    for number in range(1, 1000):
        again = f"-{number}" if number > 1 else ""
        file = place / f"precisionbench-{moment}-{model}{again}.json"
        with contextlib.suppress(OutputExistsError):
            comparison.save(file)
            return file
    raise FileExistsError(f"{file} and all other names are taken")


def _newest_first(place: Path) -> list[Path]:
    """Saved comparisons; a file that another process removes meanwhile is left out."""
    found = []
    for file in place.glob("*.json"):
        with contextlib.suppress(OSError):
            if _NAME.fullmatch(file.name):
                found.append((file.stat().st_mtime_ns, file))
    return [file for _, file in sorted(found, reverse=True)]


def _remove_oldest(place: Path) -> None:
    for file in _newest_first(place)[MOST_KEPT:]:
        file.unlink(missing_ok=True)


def resolved(name: str) -> str:
    """The file of a saved comparison: `last`, or `last~1` for the one before it, and so on.

    Args:
        name: as a user gave it; any other is the name of a file.

    Raises:
        UsageError: there is no such comparison.
    """
    match = _LAST.fullmatch(name)
    if match is None:
        return name
    place, back = folder(), int(match[1] or 0)
    files = _newest_first(place) if place else []
    if back < len(files):
        return str(files[back])
    if place is None:
        why, remedy = f"{FOLDER_VARIABLE} is empty, so none are saved", "name a folder there"
    else:
        why = f"{_count(len(files))} saved in {str(place)!r}"
        remedy = "run `precisionbench compare`"
    raise click.UsageError(
        f"there is no {name}: {why}; {remedy}, or give a file (./{name} for one of this name)"
    )


def name_of(file: str | Path) -> str:
    """A name of a result file for a command: `last` for the newest saved comparison.

    Args:
        file: its path.
    """
    place = folder()
    is_last = place and str(file) in map(str, _newest_first(place)[:1])
    return "last" if is_last else shlex.quote(str(file))


def _count(number: int) -> str:
    return f"{number} comparison is" if number == 1 else f"{number} comparisons are"


def print_next(comparison: Comparison, output: str | None, saved: Path | None, done: bool) -> None:
    """Print where a comparison was saved, and the next command to run.

    Args:
        comparison: that was measured.
        output: the file that the user asked for, if any.
        saved: the file in the cache folder, if any.
        done: whether it is explained already.
    """
    from precisionbench.cli.output import complain

    file = output or saved
    if file is None:
        return
    name = shlex.quote(output) if output else "last"
    profiled = any(row.evidence is not None for row in comparison.results)
    step = f"explain {name}" if profiled and not done else f"show {name} --html report.html"
    if sys.stdout is not None:
        sys.stdout.flush()  # in a pipe, too, this comes after the table
    complain(f"\nSaved to {file}\nNext: precisionbench {step}")
