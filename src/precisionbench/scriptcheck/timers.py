"""Hooks on tools that time a function by themselves, warm-up included.

`timeit` and `torch.utils.benchmark` run a statement in code of their own, whose readings are
recorded as the script's; what they time to choose a number of loops, or to warm up, does not count.
Tools that take a function (`triton.testing.do_bench`, pytest-benchmark) are recorded as one timing
from their second call of it on.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from precisionbench.scriptcheck.clock_proxies import recorded
from precisionbench.scriptcheck.event_log import EventLog
from precisionbench.scriptcheck.import_hook import after_import
from precisionbench.scriptcheck.real_clock import perf_counter

_TORCH_TIMER = "torch.utils.benchmark.Timer"
_TORCH_METHODS = ("timeit", "blocked_autorange", "adaptive_autorange")
# Functions that time the function they are given: module, name, and the argument's position.
_RUNNERS = (
    ("triton.testing", "do_bench", 0),
    ("triton.testing", "do_bench_cudagraph", 0),
    ("pytest_benchmark.fixture", "BenchmarkFixture.__call__", 1),
    ("pytest_benchmark.fixture", "BenchmarkFixture.pedantic", 1),
)


def hook_timers(log: EventLog) -> None:
    """Record what these tools time, once the script imports them.

    Args:
        log: records it.
    """
    actions: dict[str, list[Callable[[ModuleType], None]]] = {
        "timeit": [functools.partial(_hook_timeit, log)],
        "torch.utils.benchmark.utils.timer": [functools.partial(_hook_torch_timer, log)],
    }
    for module, name, position in _RUNNERS:
        hook = functools.partial(_hook_runner, log, name=name, position=position)
        actions.setdefault(module, []).append(hook)
    after_import({name: functools.partial(_all, hooks) for name, hooks in actions.items()})


def _all(hooks: list[Callable[[ModuleType], None]], module: ModuleType) -> None:
    for hook in hooks:
        hook(module)


def _hook_timeit(log: EventLog, module: Any) -> None:
    timer = module.Timer
    timer.autorange = _last_results(log, timer.autorange, lambda _: 1)


def _hook_torch_timer(log: EventLog, module: Any) -> None:
    timer, clock = module.Timer, recorded(module.timer, _TORCH_TIMER, log)
    initialize = timer.__init__

    @functools.wraps(initialize)
    def hooked(self: Any, *args: Any, **kwargs: Any) -> None:
        initialize(self, *args, **kwargs)
        inner = self._timer
        if getattr(inner, "timer", None) is module.timer:  # the default, which synchronizes first
            inner.timer = clock

    timer.__init__ = hooked
    for name in _TORCH_METHODS:
        method = getattr(timer, name)
        setattr(timer, name, _last_results(log, method, lambda found: len(found.raw_times)))


def _last_results(
    log: EventLog, method: Callable[..., Any], count: Callable[[Any], int]
) -> Callable[..., Any]:
    """A method of which only the last timings are results, as many as `count` says."""

    @functools.wraps(method)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        position = log.timing_count
        result = method(*args, **kwargs)
        timings = log.timings_since(position)
        log.mark_warm_ups(timings[: max(len(timings) - count(result), 0)])
        return result

    return hooked


def _hook_runner(log: EventLog, module: Any, *, name: str, position: int) -> None:
    owner_name, _, attribute = name.rpartition(".")
    owner = getattr(module, owner_name, None) if owner_name else module
    run = getattr(owner, attribute, None)
    if run is None:
        return

    @functools.wraps(run)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        frame = sys._getframe(1)
        if len(args) <= position or not log.frames.contains(frame):
            return run(*args, **kwargs)
        timed = _TimedFunction(log, f"{module.__name__}.{attribute}", args[position], frame)
        result = run(*args[:position], timed, *args[position + 1 :], **kwargs)
        timed.end()
        return result

    setattr(owner, attribute, hooked)


class _TimedFunction:
    """A function that a tool times; its first call is the tool's warm-up."""

    def __init__(self, log: EventLog, label: str, function: Callable[..., Any], frame: Any) -> None:
        functools.update_wrapper(self, function, updated=())
        self._log, self._label, self._function, self._frame = log, label, function, frame
        self._calls = 0
        self._start: int | None = None
        self._start_s = 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._calls == 1:
            self._start_s = perf_counter()
            self._start = self._read(self._start_s)
        self._calls += 1
        return self._function(*args, **kwargs)

    def end(self) -> None:
        """Record the timing."""
        end_s = perf_counter()
        end = self._read(end_s)
        if self._start is not None and end is not None:
            read_s, repetitions = end_s - self._start_s, self._calls - 1
            self._log.add_difference(self._start, end, read_s, self._frame, repetitions)

    def _read(self, at_s: float) -> int | None:
        return self._log.add_reading(self._label, at_s, self._frame, query_device=False)
