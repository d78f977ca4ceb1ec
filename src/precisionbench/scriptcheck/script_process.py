"""Runs a script in a process of its own, ends it on a time limit or Ctrl-C, reads what it wrote."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import attrs

from precisionbench._internal.garbage_collection import garbage_collection_off
from precisionbench._internal.paths import quoted
from precisionbench._internal.supervisor import END_LIMIT_S
from precisionbench._internal.temporary_folder import TemporaryFolder
from precisionbench.errors import OutputError
from precisionbench.results import json_format
from precisionbench.scriptcheck.child import ENDED_BY_PARENT, NOT_WRITTEN, OBSERVATIONS
from precisionbench.scriptcheck.events import NO_OBSERVATIONS, Ending, Observations

BOOT = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; sys.path.insert(0, sys.argv.pop(1)); "
    "from precisionbench.scriptcheck.child import main; main(sys.argv[1:])"
)
_INTERRUPT_LIMIT_S = 2.0  # for an interrupted script to end by itself
_WRITE_LIMIT_S = 20.0  # for the child to write its observations once the pipe is closed
_STDERR = 2


def observe(
    script: str,
    args: Sequence[str],
    timeout_s: float | None,
    *,
    boot: str = BOOT,
    popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
) -> Observations:
    """Run a script in a process of its own.

    Args:
        script: a Python file.
        args: its command-line arguments.
        timeout_s: seconds after which it is ended; None lets it run.
        boot: the program of the process.
        popen: starts it.

    Returns:
        What was observed, until the end or until it was ended.

    Raises:
        OutputError: the folder for temporary files cannot hold it.
    """
    root = str(Path(__file__).parent.parent.parent)
    with TemporaryFolder() as folder, _pipe() as (read, write):
        process = popen(
            [sys.executable, "-c", boot, root, str(folder), str(read), script, *args],
            stdout=_STDERR,
            pass_fds=(read,),
        )
        try:
            forced = _wait(process, timeout_s, write)
        finally:
            _end(process)
        found = read_observations(folder, forced or death(process.returncode))
        if found.ending == Ending("killed", NOT_WRITTEN):
            raise OutputError(
                f"what was observed of the script could not be written to {quoted(folder.parent)}",
                "free space there, or set TMPDIR to another folder",
            )
        return found


def read_observations(folder: Path, otherwise: Ending) -> Observations:
    """What a child wrote.

    Args:
        folder: that it was given.
        otherwise: how it ended, if it wrote nothing or was ended by the parent.
    """
    file = folder / OBSERVATIONS
    if not file.exists():
        return attrs.evolve(NO_OBSERVATIONS, ending=otherwise)
    with garbage_collection_off():  # it would search hundreds of thousands of new objects
        document = json.loads(file.read_text(encoding="utf-8"))
        observations = json_format.structured(document, Observations)
    if observations.ending.kind == ENDED_BY_PARENT:
        return attrs.evolve(observations, ending=otherwise)
    return observations


def death(returncode: int) -> Ending:
    """How a process ended that wrote nothing.

    Args:
        returncode: as `subprocess` gives it: negative for a signal.
    """
    if returncode >= 0:
        return Ending("killed", returncode)
    with contextlib.suppress(ValueError):
        return Ending("killed", 128 - returncode, signal.Signals(-returncode).name)
    return Ending("killed", 128 - returncode, f"signal {-returncode}")


def _wait(
    process: subprocess.Popen[bytes], timeout_s: float | None, pipe: IO[bytes]
) -> Ending | None:
    """Wait for the end, or force it; returns None if the process ended by itself."""
    try:
        process.wait(timeout_s)
        return None
    except subprocess.TimeoutExpired:
        kind = "timeout"
    except KeyboardInterrupt:  # the terminal has interrupted the script, too
        kind = "interrupted"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_INTERRUPT_LIMIT_S)
    pipe.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_WRITE_LIMIT_S)
    return Ending(kind)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it, and on Linux all that the script has started: its supervisor does at SIGTERM."""
    if sys.platform == "linux":
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_LIMIT_S)
    process.kill()
    process.wait()


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, IO[bytes]]]:
    """The ends of a pipe to read and to write; closing the second ends the child."""
    read, write = os.pipe()
    with os.fdopen(write, "wb", buffering=0) as writer:
        try:
            yield read, writer
        finally:
            os.close(read)
