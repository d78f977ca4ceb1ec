"""The script's own process: runs the script as `python script.py` would, and observes it.

Once the script has run, Python ends as always: it joins the threads that are not daemons and calls
what the script registered with `atexit`. The observations are written last.

Torch is not imported before the script does so: what the script sets in the environment first must
take effect. The parent holds the other end of a pipe; when that closes, the observations so far are
written and the process exits, whatever the script is doing. On Linux a supervisor ends what the
script has started, and the script itself where it never lets go of the interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import attrs

from precisionbench._internal.files import write_whole
from precisionbench._internal.garbage_collection import garbage_collection_off
from precisionbench._internal.supervisor import supervised
from precisionbench.errors import one_line
from precisionbench.scriptcheck.child_processes import ChildProcessTracker, children_cpu_s
from precisionbench.scriptcheck.clock_proxies import install_clock_proxies
from precisionbench.scriptcheck.event_log import EventLog
from precisionbench.scriptcheck.events import Ending, Observations, Place
from precisionbench.scriptcheck.frames import UserFrames, place_of
from precisionbench.scriptcheck.host_work import hook_pauses
from precisionbench.scriptcheck.import_hook import after_import
from precisionbench.scriptcheck.loop_values import loops_of
from precisionbench.scriptcheck.timers import hook_timers
from precisionbench.system.cpu_affinity import usable_cores

OBSERVATIONS = "observations.json"
ENDED_BY_PARENT = "ended by parent"  # the kind of ending of a script that the parent has ended
NOT_WRITTEN = 74  # the exit status where the observations cannot be written, as in sysexits.h
_INTERRUPTED = 130  # the exit status of shells


def main(argv: Sequence[str], device: Callable[[], Any] = lambda: None) -> None:
    """Run a script and write the observations.

    Args:
        argv: a folder to write to, the pipe's number, the script, and its arguments.
        device: makes the `DeviceMonitor`, once torch is imported; None is the real GPU.
    """
    supervised()
    folder, pipe, script, *args = argv
    os.set_inheritable(int(pipe), False)
    run = _ObservedRun(Path(folder), device)
    threading.Thread(target=run.exit_when_pipe_closes, args=(int(pipe),), daemon=True).start()
    sys.argv = [script, *args]
    sys.path[:1] = _script_folder(script)
    sys.exit(run.run(script))  # Python now ends its threads, and writes the observations at last


def _script_folder(script: str) -> list[str]:
    """What Python puts first on the path when it runs a script."""
    safe = getattr(sys.flags, "safe_path", False)  # from Python 3.11 on
    return [] if safe else [str(Path(script).resolve().parent)]


class _ObservedRun:
    """Runs a script in this process, observes it, and writes the observations once."""

    def __init__(self, folder: Path, device: Callable[[], Any]) -> None:
        self._folder, self._device, self._process = folder, device, os.getpid()
        self._log = EventLog()
        self._processes = ChildProcessTracker(self._log.frames)
        self._ending = Ending("finished", 0)
        self._observer: Any = None
        self._writing = threading.Lock()
        self._exit = os._exit

    def run(self, script: str) -> int:
        """Run the script; returns its exit status. The observations are written as Python ends."""
        atexit.register(self._write_at_exit)  # before the script's functions: called after them
        install_clock_proxies(self._log)
        hook_pauses(self._log)
        after_import({"torch": self._observe_torch, "apex.amp": self._observe_apex})
        hook_timers(self._log)
        self._processes.install()
        os._exit = self._write_and_exit  # type: ignore[assignment]
        loops_of(script)  # not while a clock runs
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as exc:
            self._ending = Ending("exited", _status(exc))
        except BaseException as exc:  # any error of the script
            self._ending = self._print_error(exc, script)
        return self._ending.code or 0

    def _print_error(self, error: BaseException, script: str) -> Ending:
        """Print the traceback as Python would; returns how the script ended."""
        trace = _user_traceback(error.__traceback__, self._log.frames)
        traceback.print_exception(type(error), error, trace)
        place = _error_place(error, script, trace)
        if isinstance(error, KeyboardInterrupt):
            return Ending("interrupted", _INTERRUPTED, "", place)
        return Ending("raised", 1, one_line(error), place)

    def exit_when_pipe_closes(self, pipe: int) -> None:
        """Wait until the parent closes its end of the pipe, then write and exit."""
        os.read(pipe, 1)
        self._write(Ending(ENDED_BY_PARENT))
        self._flush_and_exit(1)

    def _write_at_exit(self) -> None:
        if os.getpid() == self._process:  # not in a process that the script has forked
            self._write(self._ending)

    def _write_and_exit(self, code: int) -> None:
        """Stands in for `os._exit`."""
        if os.getpid() == self._process:
            self._write(Ending("exited", code))
        self._exit(code)

    def _flush_and_exit(self, code: int) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        self._exit(code)

    def _write(self, ending: Ending) -> None:
        """Write the observations, whole and once; where that fails, exit with `NOT_WRITTEN`."""
        with self._writing:
            if (self._folder / OBSERVATIONS).exists():
                return
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            with garbage_collection_off():  # it would search all objects of the script
                text = json.dumps(self._observations(ending), default=_fields)
            try:
                write_whole(self._folder / OBSERVATIONS, text.encode(), overwrite=True)
            except OSError:
                self._flush_and_exit(NOT_WRITTEN)

    def _observations(self, ending: Ending) -> Observations:
        observer = self._observer
        found = observer.observations(ending) if observer else self._log.frozen(ending)
        return attrs.evolve(
            found,
            processes=self._processes.frozen(),
            children_cpu_s=children_cpu_s(),
            cores=len(usable_cores()),
        )

    def _observe_torch(self, _: ModuleType) -> None:
        from precisionbench.scriptcheck.observer import Observer

        self._observer = Observer(self._log, self._device())

    def _observe_apex(self, amp: ModuleType) -> None:
        if self._observer is not None:
            self._observer.hook_apex(amp)


def _fields(record: Any) -> dict[str, Any]:
    """The fields of a record; `attrs.asdict` would copy all that is in them first."""
    return {field.name: getattr(record, field.name) for field in attrs.fields(type(record))}


def _status(exit_: SystemExit) -> int:
    """The exit status of a process that raises this."""
    if exit_.code is None or isinstance(exit_.code, int):
        return exit_.code or 0
    print(exit_.code, file=sys.stderr)
    return 1


def _user_traceback(trace: TracebackType | None, frames: UserFrames) -> TracebackType | None:
    """The traceback from the script's first frame on."""
    while trace is not None and not frames.contains(trace.tb_frame):
        trace = trace.tb_next
    return trace


def _error_place(error: BaseException, script: str, trace: TracebackType | None) -> Place | None:
    """The last line of the script that led to an error."""
    if isinstance(error, SyntaxError) and error.filename:
        return place_of((error.filename, error.lineno or 0))
    lines = [n for frame, n in traceback.walk_tb(trace) if frame.f_code.co_filename == script]
    return place_of((script, lines[-1])) if lines else None
