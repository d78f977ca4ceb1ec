"""`time` and `compare_calls`: check the options, and measure here or in worker processes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, overload

import attrs

from precisionbench.comparison import Comparison
from precisionbench.errors import SpecError, did_you_mean
from precisionbench.measure.calls.call_time import CallTime
from precisionbench.measure.calls.rows import (
    call_rows,
    call_workload,
    check_callable,
    check_calls,
    title_of,
)
from precisionbench.measure.calls.stopwatch import Stopwatch
from precisionbench.measure.calls.together import CallsHere
from precisionbench.measure.compare import compare_with, exclusive
from precisionbench.measure.options import Options
from precisionbench.model.workload import usable_device
from precisionbench.report.progress import shown
from precisionbench.results.progress import OnProgressOption
from precisionbench.torchtools.timer import Call


@overload
def time(*, device: Any = None, name: str | None = None) -> Stopwatch: ...


@overload
def time(
    function: Callable[..., Any],
    /,
    *args: Any,
    device: Any = None,
    name: str | None = None,
    budget_s: float | None = None,
    replicas: int | None = None,
    noise_floor: float | None = None,
    on_progress: OnProgressOption = "auto",
) -> CallTime: ...


def time(
    *function_and_args: Any,
    device: Any = None,
    name: str | None = None,
    budget_s: float | None = None,
    replicas: int | None = None,
    noise_floor: float | None = None,
    on_progress: OnProgressOption = "auto",
) -> CallTime | Stopwatch:
    """Measure the time of one call of any function, or time a program's own calls and regions.

    `pb.time(f, x)` calls `f(x)` again and again, and measures it as `compare` measures a row:
    warm-up, blocks of calls back to back with the right clock, rounds until the interval is narrow.
    It runs under the caller's settings of torch. What it prints is not shown.

    Without a function, nothing is repeated: `with pb.time() as t:` times a region, and `@pb.time()`
    each call of the decorated function; see `Stopwatch` and `TimedCall`.

    Args:
        *function_and_args: the function and its positional arguments; use `functools.partial` for
            others.
        device: whose work is timed: `"cpu"`, `"cuda"`, ...; None is the GPU if this process (with
            `replicas`, any) uses one, else the CPU.
        name: of the function or the region in texts; None is the function's own.
        budget_s: seconds for warm-up and all rounds. None is 60 s on a GPU and 10 s elsewhere, and
            for longer calls the time of a few; most measurements end much earlier.
        replicas: measure in this number of fresh worker processes, so that the interval includes
            run-to-run variance; the function must be picklable by cloudpickle. None measures in
            this process.
        noise_floor: known run-to-run standard deviation of the log of a time on this machine, as
            for `compare`.
        on_progress: as for `compare`.

    Returns:
        The time with its interval, percentiles, raw samples and warnings; without a function, a
        stopwatch.

    Raises:
        SpecError: an argument is invalid.
        WorkloadError: the device cannot be used, or the function cannot be sent to a worker.
        ExecutionError: a call failed; its own error is the `__cause__`.
        KeyboardInterrupt: a Ctrl-C before any round was finished, or a second one.
    """
    if not function_and_args:
        _check_only_for_functions(budget_s=budget_s, replicas=replicas, noise_floor=noise_floor)
        return Stopwatch(device, name or "region")
    call, title = _bound(*function_and_args)
    calls = {name or title: call}
    options = _options(budget_s=budget_s, replicas=replicas, noise_floor=noise_floor)
    measured = _Calls(check_calls(calls), name or title, name or title, options, device)
    return CallTime(measured.measure(on_progress, raise_failures=True).data)


def compare_calls(
    calls: Mapping[str, Callable[[], Any]],
    *,
    reference: str | None = None,
    device: Any = None,
    budget_s: float | None = None,
    replicas: int | None = None,
    noise_floor: float | None = None,
    on_progress: OnProgressOption = "auto",
) -> Comparison:
    """Measure several functions side by side, and how many times as fast as one of them each is.

    In every round each function is measured for one block, in a random order. In one process the
    run-to-run variance is not measured, so that speed-ups are `inconclusive (one process)` unless
    `noise_floor` is known, as it is of GPUs; `replicas=2` or more measures it.

    Args:
        calls: functions without arguments by the names of their rows: `{"a": f, "b": g}`.
        reference: the name of the row that the others are compared with; None is the first.
        device: as for `time`.
        budget_s: seconds for warm-up and all rounds. None is 60 s for each function on a GPU and
            10 s elsewhere, at most 900 s; most comparisons end much earlier.
        replicas: measure each function in this number of fresh worker processes; the functions must
            be picklable by cloudpickle. None measures all of them in this process.
        noise_floor: as for `time`.
        on_progress: as for `compare`.

    Returns:
        A comparison whose rows are the functions. A function that failed is one of its `failures`.
        Tensors that the functions return are compared with those of the reference.

    Raises:
        SpecError: an argument is invalid.
        WorkloadError: the device cannot be used, or a function cannot be sent to a worker.
        KeyboardInterrupt: a Ctrl-C before any round was finished, or a second one.
        PrecisionBenchError: no function could be measured; the reference's own error.
    """
    checked = check_calls(calls)
    base = next(iter(checked)) if reference is None else reference
    if base not in checked:
        raise SpecError(f"there is no call {base!r}", did_you_mean(str(base), checked))
    options = _options(budget_s=budget_s, replicas=replicas, noise_floor=noise_floor)
    title = f"{len(checked)} calls" if len(checked) > 1 else "1 call"
    measured = _Calls(checked, base, title, options, device)
    return measured.measure(on_progress)


def _options(*, replicas: int | None, **given: Any) -> Options:
    launcher = "inline" if replicas is None else "process"
    return Options(launcher=launcher, replicas=replicas, evidence=False, passes=False, **given)


def _check_only_for_functions(**given: object) -> None:
    for option, value in given.items():
        if value is not None:
            raise SpecError(
                f"{option} is only for a function that is measured",
                f"give the function: pb.time(f, {option}={value!r})",
            )


def _bound(function: Any, *args: Any) -> tuple[Call, str]:
    """A call without arguments, and its name."""
    check_callable(function)
    title = title_of(function)
    _check_arguments(function, args, title)
    return (partial(function, *args) if args else function), title


def _check_arguments(function: Callable[..., Any], args: tuple[Any, ...], title: str) -> None:
    """Refuse arguments that the function does not take, where its signature is known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a builtin
        return
    try:
        signature.bind(*args)
    except TypeError as exc:
        raise SpecError(
            f"{title} does not take these arguments ({exc})",
            f"give its arguments: pb.time({title}, ...); to decorate it, write @pb.time()",
        ) from exc


@attrs.frozen
class _Calls:
    """Functions to measure.

    Attributes:
        calls: by the names of their rows.
        reference: the row that the others are compared with.
        title: what is measured.
        options: how.
        device: as the user gave it.
    """

    calls: Mapping[str, Call]
    reference: str
    title: str
    options: Options
    device: Any

    def measure(self, on_progress: OnProgressOption, *, raise_failures: bool = False) -> Comparison:
        """Measure them in this process or in workers.

        Args:
            on_progress: as for `compare`.
            raise_failures: raise the error of a function that fails.
        """
        in_workers = self.options.launcher == "process"
        rows = call_rows(self.calls, in_workers=in_workers, keeps_output=len(self.calls) > 1)
        with shown(on_progress) as tell:
            if in_workers:
                workload = call_workload(self.title, usable_device(self.device))
                found = compare_with(workload, rows, self.reference, self.options, on_progress=tell)
                return _without_empty_agreement(found)
            with exclusive(self.options, ()):
                here = CallsHere(rows, self.reference, self.options, self.title, tell)
                return here.measure(self.device, raise_failures=raise_failures)


def _without_empty_agreement(comparison: Comparison) -> Comparison:
    """The comparison without the agreement of outputs that hold no tensors."""
    data = comparison.data
    rows = [
        attrs.evolve(row, agreement=None) if row.agreement and not row.agreement.tensors else row
        for row in data.results
    ]
    comparison.data = attrs.evolve(data, results=tuple(rows))
    return comparison
