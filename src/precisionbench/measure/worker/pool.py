"""The worker processes of one run: where they are started, and where all of them are ended."""

from __future__ import annotations

import contextlib
from pathlib import Path

import attrs

from precisionbench._internal.temporary_folder import TemporaryFolder
from precisionbench.errors import FOREIGN_ERRORS, OutputError, WorkerError, WorkloadError, one_line
from precisionbench.measure.worker.fork_client import ForkServer
from precisionbench.measure.worker.process import Worker
from precisionbench.measure.worker.spawn import SpawnedProcess, WorkerProcess
from precisionbench.model.sources import CopiedModel, StoredModel
from precisionbench.model.workload import Workload
from precisionbench.torchtools.global_state import read_flags
from precisionbench.torchtools.saving import save


class WorkerPool:
    """The workers of one run and the folder that they share; no worker outlives it.

    Use it as a context manager.

    Args:
        fork_server: forks the workers; without one each is a fresh interpreter.

    Raises:
        OutputError: TMPDIR takes no folder.
    """

    def __init__(self, fork_server: ForkServer | None = None) -> None:
        self._fork_server = fork_server
        self._temporary = TemporaryFolder()
        self.folder = self._temporary.path
        self._workers: list[Worker] = []

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._fork_server is not None:
                self._fork_server.close_unless_forked()
            self._kill_all()
        except BaseException:  # a further Ctrl-C must leave no process behind
            self._kill_all()
            raise
        finally:
            self._temporary.remove()

    def _kill_all(self) -> None:
        for worker in self._workers:
            worker.begin_kill()
        for worker in self._workers:
            worker.kill()

    def stop(self) -> None:
        """Leave no time to workers that are busy; a signal handler may call this."""
        for worker in self._workers:
            worker.stop()

    def start(self, workload: Path, backend: Path, with_model: bool = False) -> Worker:
        """Start one worker process; it imports and loads while others do, too.

        Args:
            workload: the file that holds the workload.
            backend: the file that holds the backend.
            with_model: let it also copy the model to the device before it is asked to prepare.
        """
        worker = self.start_idle()
        worker.begin(
            "load",
            workload=str(workload),
            backend=str(backend),
            flags=read_flags(),
            with_model=with_model,
        )
        return worker

    def start_idle(self) -> Worker:
        """Start one worker process that has nothing to load."""
        worker = Worker(self.folder / f"worker-{len(self._workers)}.log", self.start_process)
        self._workers.append(worker)
        return worker

    def start_process(self, log: Path) -> WorkerProcess:
        """Start the process of a worker: forked from the server, or else a fresh interpreter.

        Args:
            log: file that takes what it prints.

        Raises:
            WorkerError: the system starts none.
        """
        if self._fork_server is not None and self._fork_server.is_usable:
            with contextlib.suppress(OSError):  # such as an environment too large for a message
                return self._fork_server.fork(log)
        try:
            return SpawnedProcess(log)
        except OSError as exc:
            raise WorkerError(
                f"no worker process can be started ({one_line(exc)})",
                "stop other processes, free memory, or raise the limits (ulimit -u -n)",
            ) from exc

    def wait_until_loaded(self) -> None:
        """Wait for all workers: one that still imports would disturb those that prepare."""
        for worker in self._workers:
            worker.wait_until_loaded()

    def write_workload(self, name: str, workload: Workload) -> Path:
        """Write a workload for workers to load; a model that is copied has a file of its own.

        Args:
            name: of the file.
            workload: the model and inputs.

        Raises:
            WorkloadError: it cannot be pickled.
            OutputError: TMPDIR does not hold it.
        """
        if isinstance(workload.build, CopiedModel):
            stored = StoredModel(self.write(f"model-of-{name}", workload.build.model))
            workload = attrs.evolve(workload, build=stored)
        return self.write(name, workload)

    def write(self, name: str, value: object) -> Path:
        """Write something for workers to load; tensors in it are mapped there, not copied.

        Args:
            name: of the file.
            value: what to write.

        Raises:
            WorkloadError: it cannot be pickled.
            OutputError: TMPDIR does not hold it.
        """
        import cloudpickle

        path = self.folder / name
        try:
            save(value, path, pickle_module=cloudpickle, pickle_protocol=5)
        except OutputError:
            raise
        except FOREIGN_ERRORS as exc:
            raise WorkloadError(
                f"the model or its inputs cannot be sent to a worker process ({one_line(exc)})",
                "pass a function that builds the model, or use the launcher 'inline'",
            ) from exc
        return path
