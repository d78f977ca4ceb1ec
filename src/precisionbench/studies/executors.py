"""Executors for studies: worker processes of this machine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from precisionbench._internal.supervisor import die_with_parent
from precisionbench.errors import WorkerError


class LocalProcesses(Executor):
    """Worker processes of this machine; when one dies, the others go on and a new one is started.

    (All workers of a `ProcessPoolExecutor` end with the first that dies.)

    Args:
        workers: number of processes.
    """

    def __init__(self, workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="precisionbench-study")
        self._of_thread = threading.local()
        self._pools: list[ProcessPoolExecutor] = []
        self._futures: set[Future[Any]] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a function in one of the processes.

        Args:
            fn: the function, which can be pickled, as can its arguments.
            args: its arguments.
            kwargs: its keyword arguments.

        Returns:
            The future result; its exception is a `WorkerError` where the process died, and a
            `BrokenExecutor` where none could be started.
        """
        future = self._threads.submit(self._call, fn, args, kwargs)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes.

        Args:
            wait: for the functions that run.
            cancel_futures: do not start the others.
        """
        futures = tuple(self._futures)
        if cancel_futures:
            for future in futures:
                future.cancel()
        if wait:
            _wait_for(futures)
        for pool in self._pools:  # before the threads: a worker ends with the one that started it
            pool.shutdown(wait=wait)
        self._threads.shutdown(wait=wait)

    def _call(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        pool = self._pool()
        try:
            return pool.submit(_call_interruptibly, fn, args, kwargs).result()
        except BrokenProcessPool as exc:
            self._remove(pool)
            raise WorkerError("its worker process died", "free memory, or use fewer") from exc

    def _pool(self) -> ProcessPoolExecutor:
        """The process of this thread."""
        pool: ProcessPoolExecutor | None = getattr(self._of_thread, "pool", None)
        if pool is not None:
            return pool
        pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin)
        self._pools.append(pool)
        try:
            pool.submit(os.getpid).result()
        except BrokenProcessPool as exc:
            self._remove(pool)
            raise BrokenExecutor(
                "worker processes cannot start: in a script, call study() "
                "below `if __name__ == '__main__':`"
            ) from exc
        self._of_thread.pool = pool
        return pool

    def _remove(self, pool: ProcessPoolExecutor) -> None:
        self._of_thread.pool = None
        self._pools.remove(pool)
        pool.shutdown(wait=False)


def _wait_for(futures: tuple[Future[Any], ...]) -> None:
    wait(futures)


def _begin() -> None:
    """Set up a worker, which ignores Ctrl-C between two functions."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _call_interruptibly(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return fn(*args, **kwargs)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
