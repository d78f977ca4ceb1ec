"""Runs scripts under observation in forks of one process that has imported torch already.

Importing torch takes two seconds of CPU time in a fresh process, and none in a fork. The script
still imports torch itself, which triggers the observation as usual.
"""

from __future__ import annotations

import atexit
import importlib.abc
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from precisionbench.scriptcheck.events import Observations
from precisionbench.scriptcheck.script_process import death, read_observations


class ScriptForks:
    """The process that is forked for each script; a context manager."""

    def __enter__(self) -> ScriptForks:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def observe(
        self,
        script: str,
        args: list[str],
        device: str = "",
        coverage: Mapping[str, str] | None = None,
    ) -> Observations:
        """Run a script in the working directory until it ends.

        Args:
            script: its path.
            args: its command-line arguments.
            device: `simulated` replaces the GPU by `slow_device`.
            coverage: the variable by which coverage counts what the script runs, if it does.
        """
        with tempfile.TemporaryDirectory() as folder:
            argv = [folder, script, *args]
            request = {"cwd": str(Path.cwd()), "argv": argv, "device": device}
            request["coverage"] = {**(coverage or {})}
            print(json.dumps(request), file=self._process.stdin, flush=True)
            returncode = int(self._process.stdout.readline())
            return read_observations(Path(folder), death(returncode))


class _Preloaded(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a module by handing out what has been imported before."""

    def __init__(self, module: ModuleType) -> None:
        self._module = sys.modules.pop(module.__name__)

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self._module.__name__:
            return None
        return importlib.util.spec_from_loader(name, self, is_package=True)

    def create_module(self, spec: Any) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        pass


def _serve() -> None:
    """Fork for each request that comes in; answer with the exit code."""
    import sympy  # noqa: F401 - what torch.compile imports in each fork otherwise
    import torch

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _run(json.loads(line), torch)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    os._exit(0)  # to clear all modules takes more than a second


def _run(request: dict[str, Any], torch: ModuleType) -> None:
    from precisionbench.scriptcheck.child import main
    from slow_device import SlowDevice

    folder, *argv = request["argv"]
    os.chdir(request["cwd"])
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # our standard output is for answers
    sys.meta_path.insert(0, _Preloaded(torch))
    device = SlowDevice if request["device"] else lambda: None
    pipe, _ = os.pipe()  # the other end stays open, so the script is never ended
    atexit.register(_end_at_once)  # registered first, so called last, after the script has ended
    if request["coverage"]:  # started here: torch would be imported half as fast under it
        import coverage

        os.environ.update(request["coverage"])
        coverage.process_startup()
    main([folder, str(pipe), *argv], device)


def _end_at_once() -> None:
    """Spare what Python does next: clearing all modules takes a second and a half in a fork."""
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _serve()
