"""Whether backends can run on this machine; checks of plugins and engines run in a worker."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib.util import find_spec
from typing import Any

from precisionbench.backends import Backend, discovery
from precisionbench.backends.discovery import BackendInfo
from precisionbench.display import Records
from precisionbench.errors import (
    ENDS_OF_RUN,
    BackendUnavailableError,
    PrecisionBenchError,
    PreparationError,
    WorkerError,
    one_line,
)
from precisionbench.measure.worker.guards import check_available
from precisionbench.measure.worker.pool import WorkerPool
from precisionbench.measure.worker.process import Worker
from precisionbench.measure.worker.shared_server import SHARED_SERVER
from precisionbench.spec_syntax import split_spec

_OUR_BACKENDS = "precisionbench.backends."


@contextlib.contextmanager
def shared_pool() -> Iterator[WorkerPool]:
    """A pool of workers that are forked from the server of this process, where there can be one."""
    with SHARED_SERVER.in_use() as server, WorkerPool(server) as pool:
        yield pool


class PluginWorker:
    """A worker process that runs the code of plugins; another one replaces it where it ends.

    It starts when it is asked for the first time. Use it as a context manager.

    Args:
        worker_pool: makes the pool in which it is started.
    """

    def __init__(
        self, worker_pool: Callable[[], AbstractContextManager[WorkerPool]] = shared_pool
    ) -> None:
        self._worker_pool = worker_pool
        self._stack = contextlib.ExitStack()
        self._pool: WorkerPool | None = None
        self._worker: Worker | None = None

    def __enter__(self) -> PluginWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, request: str, **arguments: Any) -> Any:
        """Send a request and wait for its answer, as `Worker.ask`.

        Raises:
            WorkerError: the worker died, or did not answer in time.
            PrecisionBenchError: what the worker raised.
        """
        worker = self._worker = self._worker or self._started_pool().start_idle()
        try:
            return worker.ask(request, **arguments)
        except WorkerError:  # it has ended, and the next request is another plugin's
            worker.kill()
            self._worker = None
            raise

    def check_available(self, backend: Backend) -> None:
        """Raise unless a backend can run on this machine, as `guards.check_available`.

        Raises:
            PrecisionBenchError: why it cannot.
        """
        file = self._started_pool().write("backend.pt", backend)
        self.ask("check_available", backend=str(file))

    def _started_pool(self) -> WorkerPool:
        if self._pool is None:
            self._pool = self._stack.enter_context(self._worker_pool())
        return self._pool


def make(backend: str | Backend) -> Backend:
    """A backend, as `discovery.make`; a plugin is imported in a worker process first.

    So an import that crashes, exits or hangs does not do so in this process.

    Args:
        backend: as for `discovery.make`.

    Returns:
        The backend.

    Raises:
        SpecError: the spec cannot be understood.
        BackendUnavailableError: the plugin cannot be imported.
    """
    if isinstance(backend, str):
        _check_import(split_spec(backend)[0])
    return discovery.make(backend)


def _check_import(name: str) -> None:
    entries = discovery.installed().get(name, [])
    if all(discovery.is_ours(name) or entry.module in sys.modules for entry in entries):
        return
    with PluginWorker() as worker:
        try:
            worker.ask("describe", name=name)
        except WorkerError as exc:
            raise BackendUnavailableError(
                f"a plugin {name!r} that can be imported ({exc.reason})",
                f"repair or upgrade the package {discovery.home_of(name)!r}",
            ) from exc


def list_backends() -> tuple[BackendInfo, ...]:
    """List the installed backends, what each one requires, and how to get it.

    Plugins are imported and checked in a worker process, one after another.

    Returns:
        One entry for each backend, by name; for a plugin that fails, crashes or hangs, with the
        reason.
    """
    with PluginWorker() as worker:
        return Records(_info(name, worker) for name in discovery.installed())


def _info(name: str, worker: PluginWorker) -> BackendInfo:
    info = BackendInfo(name, True, "", {}, discovery.home_of(name))
    try:
        if discovery.is_ours(name):
            info = discovery.describe(name)
            check = partial(_check, discovery.make(name), worker)
        else:
            info = BackendInfo(**worker.ask("describe", name=name))
            check = partial(worker.ask, "check_available", spec=name)
        if info.available:
            check()
    except PrecisionBenchError as exc:
        return discovery.unavailable(info, exc)
    return info


def reasons_against(
    backends: Sequence[Backend],
    worker_pool: Callable[[], AbstractContextManager[WorkerPool]] = shared_pool,
) -> list[PrecisionBenchError | None]:
    """Why backends cannot be measured in workers on this machine.

    Args:
        backends: what to check.
        worker_pool: makes the pool in which a worker is started, where one is needed.

    Returns:
        For each backend the error, or None where it can.
    """
    with PluginWorker(worker_pool) as worker:
        return [_reason_against(backend, worker) for backend in backends]


def _reason_against(backend: Backend, worker: PluginWorker) -> PrecisionBenchError | None:
    try:
        _check_picklable(backend)
        _check(backend, worker)
    except PrecisionBenchError as exc:
        return exc
    return None


def _check_picklable(backend: Backend) -> None:
    import cloudpickle

    try:
        cloudpickle.dumps(backend, protocol=5)
    except ENDS_OF_RUN:
        raise
    except BaseException as exc:
        raise PreparationError(
            f"it cannot be sent to a worker process ({one_line(exc)})",
            "use options that hold plain values only, or use the launcher 'inline'",
        ) from exc


def _check(backend: Backend, worker: PluginWorker) -> None:
    """Raise unless a backend can run here."""
    if _runs_foreign_code(backend):
        worker.check_available(backend)
    else:
        check_available(backend)


def _runs_foreign_code(backend: Backend) -> bool:
    """Whether its `check_available` is a plugin's, or may import an engine that is installed.

    The other checks of this library read a version or look for a file. They take microseconds in
    this process, and a worker would take seconds where none can be forked.
    """
    method = type(backend).check_available
    if method is Backend.check_available:
        return False
    if not str(getattr(method, "__module__", "")).startswith(_OUR_BACKENDS):
        return True
    return any(map(_is_importable, backend.claims().packages))


def _is_importable(package: str) -> bool:
    with contextlib.suppress(ImportError, ValueError):  # the module of that name has no spec
        return find_spec(package) is not None
    return False
