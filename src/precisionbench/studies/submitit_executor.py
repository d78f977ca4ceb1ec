"""submitit's jobs (Slurm, or processes of this machine) as a `concurrent.futures.Executor`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from precisionbench.errors import MissingPackageError, SpecError, WorkerError, one_line

_FOLDER = ".submitit"


class SubmititExecutor(Executor):
    """Submits each function as a job of submitit, which has no executor of the standard interface.

    Args:
        executor: a `submitit.AutoExecutor`, or another of its executors, with its parameters set.
        poll_s: time between two checks of the jobs.
    """

    def __init__(self, executor: Any, poll_s: float = 1.0) -> None:
        self._executor, self._poll_s = executor, poll_s
        self._jobs: dict[Future[Any], Any] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._watch, daemon=True, name="submitit-jobs")
        self._thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a job.

        Args:
            fn: the function, which is pickled with its arguments.
            args: its arguments.
            kwargs: its keyword arguments.

        Returns:
            The future result; its exception is a `WorkerError` where the job failed, was cancelled
            or ended by the cluster.
        """
        future: Future[Any] = Future()
        job = self._executor.submit(fn, *args, **kwargs)
        with self._changed:
            self._jobs[future] = job
            self._changed.notify()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop checking jobs once the submitted ones have ended.

        Args:
            wait: until they have ended.
            cancel_futures: cancel those that have not ended.
        """
        with self._changed:
            for future in self._jobs if cancel_futures else ():
                future.cancel()
            self._closed = True
            self._changed.notify()
        if wait:
            self._thread.join()

    def _watch(self) -> None:
        """Give futures their results, until the executor is shut down and all jobs have ended."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                jobs = dict(self._jobs)
            if not jobs:
                return
            ended = [future for future, job in jobs.items() if _set_result(future, job)]
            with self._changed:
                for future in ended:
                    del self._jobs[future]
            if not ended:
                time.sleep(self._poll_s)


def _set_result(future: Future[Any], job: Any) -> bool:
    """Whether a job has ended; its future has a result then."""
    if future.cancelled():
        job.cancel(check=False)
        return True
    if not job.done():
        return False
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(job.result())
        except Exception as exc:  # its own classes, in a module that is not public
            error = WorkerError(f"the job {job.job_id} failed ({one_line(exc)})", "see its log")
            error.__cause__ = exc
            future.set_exception(error)
    return True


def submitit_executor(folder: Path, parameters: Mapping[str, Any]) -> SubmititExecutor:
    """An executor of submitit for a study.

    Args:
        folder: of the study; its folder `.submitit` gets the logs of the jobs.
        parameters: `cluster`, and parameters of `submitit.AutoExecutor`, such as
            `slurm_partition`.

    Raises:
        MissingPackageError: submitit is not installed.
        SpecError: it does not take a parameter.
    """
    try:
        import submitit
    except ImportError as exc:
        raise MissingPackageError(
            f"submitit cannot be imported ({one_line(exc)})",
            "pip install 'precisionbench[study]'",
        ) from exc
    given = dict(parameters)
    logs = folder.absolute() / _FOLDER / "%j"
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=given.pop("cluster", None))
        executor.update_parameters(**given)
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as exc:
        raise SpecError(
            f"submitit does not take its parameters ({one_line(exc)})",
            "correct the table [submitit] of the study",
        ) from exc
    return SubmititExecutor(executor)
