"""The script's own process: it is run as by `python script.py`, and watched.

Nothing of torch is imported before the script does so: what it sets in the environment first must
count. The parent holds the other end of a pipe; when that closes, what was seen so far is written
down and the process ends, whatever the script is doing.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
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

from precisionbench.errors import one_line
from precisionbench.scriptcheck.clock_proxies import watch_clocks
from precisionbench.scriptcheck.event_log import Log, place_of
from precisionbench.scriptcheck.events import Ending, Observations

OBSERVATIONS = "observations.json"
TOLD = "told"  # the kind of ending of a script that the parent has ended
_INTERRUPTED = 130  # as shells tell it


def main(argv: Sequence[str], device: Callable[[], Any] = lambda: None) -> None:
    """Run a script and write down what was seen of it.

    Args:
        argv: a folder to write to, the pipe's number, the script, and its arguments.
        device: makes what stands for the GPU, once torch is there; None is the real one.
    """
    folder, pipe, script, *args = argv
    os.set_inheritable(int(pipe), False)
    watch = _Watch(Path(folder), device)
    threading.Thread(target=watch.end_when_told, args=(int(pipe),), daemon=True).start()
    sys.argv = [script, *args]
    sys.path[:1] = _first_on_path(script)
    sys.exit(watch.run(script))


def _first_on_path(script: str) -> list[str]:
    """What Python puts there when it runs a script."""
    safe = getattr(sys.flags, "safe_path", False)  # from Python 3.11 on
    return [] if safe else [str(Path(script).resolve().parent)]


class _Watch:
    """Watches a script in this process."""

    def __init__(self, folder: Path, device: Callable[[], Any]) -> None:
        self._folder, self._device, self._process = folder, device, os.getpid()
        self._log = Log()
        self._observer: Any = None
        self._writing = threading.Lock()
        self._exit = os._exit

    def run(self, script: str) -> int:
        """Run it to its end; gives its exit status."""
        watch_clocks(self._log)
        _when_imported({"torch": self._torch_is_there, "apex.amp": self._apex_is_there})
        os._exit = self._leave  # type: ignore[assignment]
        try:
            runpy.run_path(script, run_name="__main__")
            ending = Ending("finished", 0)
        except SystemExit as exc:
            ending = Ending("exited", _status(exc))
        except BaseException as exc:  # whatever it is, it is the script's
            ending = self._raised(exc, script)
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()
        self._write(ending)
        return ending.code or 0

    def _raised(self, error: BaseException, script: str) -> Ending:
        trace = _of_the_script(error.__traceback__, self._log)
        traceback.print_exception(type(error), error, trace)
        line = _line(error, script, trace)
        if isinstance(error, KeyboardInterrupt):
            return Ending("interrupted", _INTERRUPTED, "", line)
        return Ending("raised", 1, one_line(error), line)

    def end_when_told(self, pipe: int) -> None:
        """Wait until the parent closes its end of the pipe."""
        os.read(pipe, 1)
        self._write(Ending(TOLD))
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        self._exit(1)

    def _leave(self, code: int) -> None:
        if os.getpid() == self._process:  # and not a process that the script has forked
            self._write(Ending("exited", code))
        self._exit(code)

    def _write(self, ending: Ending) -> None:
        """Write the observations, whole and once."""
        with self._writing:
            if (self._folder / OBSERVATIONS).exists():
                return
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            text = json.dumps(attrs.asdict(self._seen(ending)))
            temporary = self._folder / "unfinished"
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, self._folder / OBSERVATIONS)

    def _seen(self, ending: Ending) -> Observations:
        if self._observer is None:
            return self._log.frozen(ending)
        return self._observer.finished(ending)  # type: ignore[no-any-return]

    def _torch_is_there(self, _: ModuleType) -> None:
        from precisionbench.scriptcheck.observer import Observer

        self._observer = Observer(self._log, self._device())

    def _apex_is_there(self, amp: ModuleType) -> None:
        if self._observer is not None:
            self._observer.watch_apex(amp)


def _status(exit_: SystemExit) -> int:
    """The exit status that Python makes of it."""
    if exit_.code is None or isinstance(exit_.code, int):
        return exit_.code or 0
    print(exit_.code, file=sys.stderr)
    return 1


def _of_the_script(trace: TracebackType | None, log: Log) -> TracebackType | None:
    """The traceback without what ran the script."""
    while trace is not None and not log.frames.is_users(trace.tb_frame):
        trace = trace.tb_next
    return trace


def _line(error: BaseException, script: str, trace: TracebackType | None) -> Any:
    """The last line of the script that led to an error."""
    if isinstance(error, SyntaxError) and error.filename:
        return place_of((error.filename, error.lineno or 0))
    lines = [line for frame, line in traceback.walk_tb(trace) if _runs(frame.f_code, script)]
    return place_of((script, lines[-1])) if lines else None


def _runs(code: Any, script: str) -> bool:
    return bool(code.co_filename == script)


def _when_imported(actions: dict[str, Callable[[ModuleType], None]]) -> None:
    sys.meta_path.insert(0, _Finder(actions))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules as before, and does something once one has been imported."""

    def __init__(self, actions: dict[str, Callable[[ModuleType], None]]) -> None:
        self._actions = actions

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec that another finder has, its loader followed by the action."""
        if fullname not in self._actions:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (other.find_spec(fullname, path, target) for other in others)
        spec = next(filter(None, found), None)
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader, fullname)
        return spec

    def _follow(self, loader: Any, name: str) -> None:
        execute = loader.exec_module

        def followed(module: ModuleType) -> None:
            del loader.exec_module
            execute(module)
            if (action := self._actions.pop(name, None)) is not None:
                action(module)

        loader.exec_module = followed
