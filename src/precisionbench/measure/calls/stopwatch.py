"""Times calls and regions of a program as they are, each once: `with pb.time()`, `@pb.time()`."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

import torch

from precisionbench.errors import MeasurementError, SpecError, kind_of
from precisionbench.measure.calls.call_time import CallTime
from precisionbench.measure.calls.rows import call_rows, call_workload, device_in_use, title_of
from precisionbench.measure.compare import header_of
from precisionbench.measure.options import Options
from precisionbench.measure.planning import Plan
from precisionbench.results import BackendResult, Block, ComparisonData, Measurement, Preparation
from precisionbench.results.measurement import RECORDED
from precisionbench.torchtools.global_state import read_flags
from precisionbench.torchtools.regions import EventRegions, HostRegions, Regions

P = ParamSpec("P")
R = TypeVar("R")
_MOST_ROUNDS = 100  # neighbouring calls of a long series form a round


class Stopwatch:
    """Times regions (`with`) or the calls of a function (as a decorator) as they are, each once.

    In a `with` statement the host waits for the GPU before the region and at its end, so that the
    time is right whatever the region does. A decorated function is not waited for: see `TimedCall`.

    Args:
        device: whose work is timed; None is the GPU if this process uses one.
        name: of the regions in texts.
        regions: times them; None is the clock of the device.
    """

    def __init__(
        self, device: Any = None, name: str = "region", regions: Regions | None = None
    ) -> None:
        self._device, self._name = device, name
        self._regions: Regions = regions or HostRegions(functools.partial(_wait_for, device))
        self._begun: list[object] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r}, {len(self._regions.seconds())} regions)"

    def __enter__(self) -> Stopwatch:
        self._begun.append(self._regions.begin())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        token = self._begun.pop()
        if kind is None:  # a region that failed has no time
            self._regions.end(token)

    def __call__(self, function: Callable[P, R]) -> TimedCall[P, R]:
        """Time each call of a function, as a decorator.

        Args:
            function: it is called as before.

        Returns:
            The function, with `times`.

        Raises:
            SpecError: its calls return before they run: it is a coroutine or a generator function.
        """
        return TimedCall(function, self._device)

    @property
    def seconds(self) -> float:
        """The time of the last region.

        Raises:
            MeasurementError: no region has ended yet.
        """
        return _some(self._regions.seconds(), self._name)[-1]

    @property
    def times(self) -> CallTime:
        """All regions so far.

        Raises:
            MeasurementError: no region has ended yet.
        """
        return recorded(self._name, [self._regions], self._device)


class TimedCall(Generic[P, R]):
    """A function whose calls are timed, each once, without waiting for the GPU.

    On a GPU the time is that between two CUDA events on the current stream, or the host's where
    that is longer. The host waits for the events only when `times` is read; work that a call gives
    to other streams is not included. Elsewhere the time is that of the host's clock.

    Args:
        function: it is called as before.
        device: whose work is timed; None is the GPU once this process uses one.
        regions: times the calls; None is the clock of the device.

    Raises:
        SpecError: its calls return before they run: it is a coroutine or a generator function.
    """

    def __init__(
        self, function: Callable[P, R], device: Any = None, regions: Regions | None = None
    ) -> None:
        if not callable(function):
            raise SpecError(f"{kind_of(function)} cannot be decorated", "give a function")
        if _returns_before_it_runs(function):
            raise SpecError(
                f"the calls of {title_of(function)} return before they run",
                "time a region within it: with pb.time() as t",
            )
        functools.update_wrapper(self, function)
        self._function, self._device = function, device
        self._is_given, self._used = regions is not None, [regions] if regions else []

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, and time it."""
        regions = self._regions()
        token = regions.begin()
        result = self._function(*args, **kwargs)
        regions.end(token)  # a call that raises has no time
        return result

    def __repr__(self) -> str:
        return f"{type(self).__name__}({title_of(self._function)!r})"

    def __get__(self, instance: object, _: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def _regions(self) -> Regions:
        """What times the next call: another clock once this process has begun to use a GPU."""
        if self._is_given:
            return self._used[0]
        on_gpu = _is_cuda(self._device)
        if not self._used or on_gpu != isinstance(self._used[-1], EventRegions):
            self._used.append(_regions_of(self._device, on_gpu))
        return self._used[-1]

    @property
    def times(self) -> CallTime:
        """The calls so far; waits until the GPU has finished the last one.

        Raises:
            MeasurementError: there was no call yet.
        """
        return recorded(title_of(self._function), self._used, self._device)


def _returns_before_it_runs(function: Callable[..., Any]) -> bool:
    tests = (
        inspect.iscoroutinefunction,
        inspect.isasyncgenfunction,
        inspect.isgeneratorfunction,
    )
    return any(test(function) for test in tests)


def _is_cuda(device: Any) -> bool:
    if device is not None:
        return torch.device(device).type == "cuda"
    return bool(torch.cuda.is_initialized())


def _regions_of(device: Any, on_gpu: bool) -> Regions:
    if on_gpu:
        return EventRegions(None if device is None else torch.device(device))
    return HostRegions(functools.partial(_wait_for, device))


def _wait_for(device: Any) -> None:
    """Wait for a device; for None, for the accelerator that this process uses."""
    if _is_cuda(device):
        torch.cuda.synchronize(device)
    elif kind := _other_accelerator() if device is None else torch.device(device).type:
        module = getattr(torch, kind, None)
        getattr(module, "synchronize", lambda: None)()


@functools.cache
def _other_accelerator() -> str:
    """The type of this machine's accelerator, such as `mps`; empty without one, and for CUDA."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "" if device is None or device.type == "cuda" else device.type


def _some(seconds: list[float], name: str) -> list[float]:
    if not seconds:
        raise MeasurementError(f"{name} has not been timed yet", "run it first")
    return seconds


def recorded(name: str, regions: Sequence[Regions], device: Any = None) -> CallTime:
    """Calls or regions of a program as a result.

    The first of several is its `first_call_s` and not a sample: it may import or compile something.

    Args:
        name: of the row.
        regions: timed them, one after another.
        device: whose work was timed; None is the GPU if this process uses one.

    Raises:
        MeasurementError: nothing has been timed yet.
    """
    first, *others = _some([second for one in regions for second in one.seconds()], name)
    measurement = Measurement(
        clock=regions[-1].name,
        resolution_s=regions[-1].resolution_s,
        calls_per_sample=1,
        preparations=(Preparation(build_s=0.0, first_call_s=first, warmup_calls=0),),
        blocks=tuple(_blocks(others or [first])),
        ended_by=RECORDED,
    )
    workload, options = call_workload(name, device_in_use(device)), Options(launcher="inline")
    rows = call_rows({name: lambda: None}, in_workers=False, keeps_output=False)
    header = {**header_of(Plan.of_rows(workload, rows, name, options)), "schedule": "rounds"}
    note = () if others else ("one call only: it may include imports and compilation",)
    row = BackendResult(
        **rows[0].identity,
        batch_size=None,
        measurement=measurement,
        flags=read_flags(),
        warnings=note,
        claims=rows[0].claims,
    )
    return CallTime(ComparisonData(**header, results=(row,), failures=()))


def _blocks(seconds: Sequence[float]) -> list[Block]:
    """One block for each call; of a long series, for some neighbouring ones."""
    step = -(-len(seconds) // _MOST_ROUNDS)
    starts = range(0, len(seconds), step)
    return [
        Block(number, 0, 0, tuple(seconds[start : start + step]))
        for number, start in enumerate(starts)
    ]
