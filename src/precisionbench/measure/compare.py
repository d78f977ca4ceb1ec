"""The one conductor: plans the rows, has them measured, and collects what they leave behind."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
from torch import nn

from precisionbench._internal.output_capture import silence
from precisionbench._version import __version__
from precisionbench.analysis.speedups import KNOWN_SPREAD
from precisionbench.backends import Backend
from precisionbench.comparison import Comparison
from precisionbench.errors import SpecError, some
from precisionbench.measure import interleaved, sequential
from precisionbench.measure.collector import Collected
from precisionbench.measure.rows import DEFAULT_BACKENDS, Row, packages_of, plan
from precisionbench.measure.worker.local import free_memory
from precisionbench.model.inputs import whole_number
from precisionbench.model.workload import Workload, resolve
from precisionbench.results import json_format
from precisionbench.results.journal import Journal
from precisionbench.results.progress import OnProgress, Progress
from precisionbench.results.records import ComparisonData, Json
from precisionbench.system import cpu_affinity, environment
from precisionbench.torchtools.global_state import Functions, rng_restored

__all__ = ["DEFAULT_BACKENDS", "Progress", "compare", "plan"]

# Seconds for warm-up and blocks of one backend; building is not counted. On a GPU most rows end
# far earlier, when their interval is narrow enough. On a CPU a row must not take all day.
_BUDGET_S = {"cuda": 60.0}
_BUDGET_ELSEWHERE_S = 10.0
_MOST_S = 900.0  # for all rows, unless the user gives a budget
MOST_REPLICAS = 64
# Two threads would measure each other, and torch's settings are the process's. A comparison that a
# callback starts within another one is let through.
_one_at_a_time = threading.RLock()


def compare(
    model: nn.Module | Callable[[], Any] | str,
    inputs: Any = None,
    *,
    backends: Sequence[str | Backend] | None = None,
    reference: str | Backend = "eager",
    device: Any = None,
    batch_size: int | None = None,
    launcher: str = "process",
    replicas: int | None = None,
    sessions: int = 1,
    seed: int | None = None,
    budget_s: float | None = None,
    noise_floor: float | None = None,
    shared_cores: int | None = None,
    evidence: bool = True,
    build_together: bool = False,
    passes: bool = True,
    on_progress: OnProgress | None = None,
    journal: str | os.PathLike[str] | None = None,
) -> Comparison:
    """Measure one model under several precision backends.

    The model and inputs are never changed: each backend gets copies, and torch's flags, functions
    and random states are afterwards as they were. Nothing is printed.

    Args:
        model: an `nn.Module`, a function that builds one (or `(model, inputs)`),
            `"torchvision:NAME"` or `"package.module:function"`. A function is called anew for
            every backend with the same random seed.
        inputs: one forward pass's arguments: a tensor, a tuple, a mapping of keyword arguments,
            or a function that gives one of these.
        backends: specs such as `"half:dtype=bfloat16"` or `Backend` objects, measured in this
            order; None is `DEFAULT_BACKENDS`.
        reference: the row that the others are compared with; measured first if not in `backends`.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`; None takes the model's GPU, else the current GPU,
            else the CPU.
        batch_size: items that one call serves, where the inputs' first dimension does not say it;
            for `"torchvision:NAME"` the batch to make.
        launcher: `"process"`: each backend in worker processes of its own, in interleaved rounds;
            `"inline"`: in this process, one backend after another, for debugging.
        replicas: fresh processes of each backend; None is 3 on a GPU and 2 elsewhere, fewer where
            memory or building time forbids.
        sessions: how often to repeat the whole with new processes.
        seed: of weights and inputs made here; None draws one. It is kept in the result.
        budget_s: seconds to spend on measuring in all, shared evenly; building is not counted.
            None is 60 s for each backend on a GPU and 10 s elsewhere; most rows end earlier.
        noise_floor: what processes of the same code are known to differ by on this machine
            (standard deviation of the log), as `precisionbench doctor` measures it; no interval is
            narrower than it allows. None is 0.0025 on a GPU and 0 elsewhere.
        shared_cores: while they are measured, let all workers run on the same few CPU cores
            (Linux), so that processes of small batches differ by less; 0 leaves them all cores.
            None is 2 on a GPU, unless calls keep several cores busy, and 0 elsewhere.
        evidence: see what runs in each row's calls, layer by layer, once all are measured; it is
            what `diagnose` reads.
        build_together: prepare all rows at the same time, which is quicker where they compile;
            build times, and what a backend tunes by trying, then disturb each other.
        passes: once the rounds are over, measure device, enqueue and wall time, a graph's replay,
            memory and energy in passes of their own (`launcher="process"`).
        on_progress: called with a `Progress` at each step.
        journal: new file that takes every block as it is finished; `load` reads it, also after
            a run that died.

    Returns:
        The comparison; a backend that failed is one of its `failures`. After a first Ctrl-C it
        holds the finished rounds, and `ended_by` is `interrupted`.

    Raises:
        SpecError: a backend, option or argument that cannot be understood.
        WorkloadError: what is wrong with the model, inputs or device.
        OutputError: the journal cannot be created.
        KeyboardInterrupt: a Ctrl-C before any round was finished, or a second one.
        PrecisionBenchError: nothing at all could be measured; the reference's own error.
    """
    _check_arguments(launcher, seed, budget_s, on_progress)
    _check_repeats(launcher, replicas, sessions)
    _check_noise_floor(noise_floor)
    _check_shared_cores(launcher, shared_cores)
    seed = secrets.randbits(32) if seed is None else int(seed)
    with _one_at_a_time, rng_restored():
        functions = Functions.now()
        with silence():  # what a factory prints is in each row's log: it is called again there
            rows, reference_name = plan(
                DEFAULT_BACKENDS if backends is None else backends, reference
            )
            workload = resolve(model, inputs, device=device, batch_size=batch_size, seed=seed)
        notes = _about_patches(functions.changes()) if launcher == "inline" else ()
        total_s = _budget(budget_s, workload.device.type, len(rows))
        known = KNOWN_SPREAD.get(workload.device.type, 0.0)
        floor = known if noise_floor is None else float(noise_floor)
        header = _header(workload, rows, seed, launcher, reference_name, floor)
        if launcher == "process":
            free_memory()  # a factory may have built on the GPU, where the workers need the room
        with _written_down(journal, header, rows) as written:
            collected = Collected(
                rows,
                reference_name,
                workload.info.batch_size,
                notes,
                on_progress,
                written,
            )
            options = interleaved.Options(
                total_s / sessions,
                replicas,
                sessions,
                seed,
                floor,
                shared_cores,
                evidence,
                build_together,
                passes,
            )
            header.update(_measure(workload, collected, launcher, options))
            if written is not None and written.trouble:
                collected.note(written.trouble)
    collected.raise_if_nothing_measured()
    given = {row.name: row.backend for row in rows if row.backend is not None}
    return Comparison(_data(header, rows, collected), collected.errors, given)


def _header(
    workload: Workload,
    rows: Sequence[Row],
    seed: int,
    launcher: str,
    reference: str,
    floor: float,
) -> dict[str, Any]:
    """What is known of a run before anything is measured: fields of `ComparisonData`."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "created": now.isoformat(timespec="seconds"),
        "precisionbench": __version__,
        "workload": workload.info,
        "environment": environment.capture(workload.device, packages_of(rows)),
        "seed": seed,
        "launcher": launcher,
        "reference": reference,
        "schedule": "sequential" if launcher == "inline" else "rounds",
        "noise_floor": floor,
    }


@contextlib.contextmanager
def _written_down(
    file: str | os.PathLike[str] | None, header: Mapping[str, Any], rows: Sequence[Row]
) -> Iterator[Journal | None]:
    """A journal of the run where one is asked for."""
    if file is None:
        yield None
        return
    known = {name: json_format.unstructured(value) for name, value in header.items()}
    journal = Journal(file, known, [row.identity for row in rows])
    try:
        yield journal
    finally:
        journal.close()


def _data(header: Mapping[str, Any], rows: Sequence[Row], collected: Collected) -> ComparisonData:
    results, failures = collected.results, collected.failures
    return ComparisonData(
        **header,
        results=tuple(results[row.name] for row in rows if row.name in results),
        failures=tuple(failures[row.name] for row in rows if row.name in failures),
        notes=tuple(collected.run_notes),
    )


def _measure(
    workload: Workload, collected: Collected, launcher: str, options: interleaved.Options
) -> dict[str, Json]:
    """Measure, and say how it was done in the end: fields of `ComparisonData`."""
    if launcher == "inline":
        budget_s = options.budget_s / len(collected.rows)
        sequential.measure(workload, collected, budget_s, options.evidence)
        return {"schedule": "sequential", "shared_cores": None}
    return attrs.asdict(interleaved.measure(workload, collected, options))


def _check_arguments(
    launcher: str, seed: int | None, budget_s: float | None, on_progress: OnProgress | None
) -> None:
    if launcher not in ("process", "inline"):
        raise SpecError(f"there is no launcher {launcher!r}", "known: 'inline', 'process'")
    if seed is not None and whole_number(seed, 0) is None:
        raise SpecError(f"seed is {seed!r}", "give a whole number from 0 to 2**63 - 1")
    if on_progress is not None and not callable(on_progress):
        raise SpecError(f"on_progress is {on_progress!r}", "give a function of one Progress")
    if budget_s is not None and not (_is_number(budget_s) and 0 < budget_s < math.inf):
        raise SpecError(f"budget_s is {budget_s!r}", "give a number of seconds above 0")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_noise_floor(value: float | None) -> None:
    if value is not None and not (_is_number(value) and 0 <= value < 1):
        raise SpecError(f"noise_floor is {value!r}", "give a share such as 0.0025")


def _check_shared_cores(launcher: str, count: int | None) -> None:
    if count is None or (whole_number(count, 0) == 0):
        return
    most = len(cpu_affinity.available())
    if launcher != "process" or not most:
        raise SpecError(
            "shared_cores is for worker processes on Linux", "leave it out, or use taskset"
        )
    if (number := whole_number(count, 1)) is None or number > most:
        raise SpecError(
            f"shared_cores is {count!r}", f"give a whole number from 0 to {most}, as there are here"
        )


def _check_repeats(launcher: str, replicas: int | None, sessions: int) -> None:
    counts = {"replicas": replicas, "sessions": sessions}
    for name, given in counts.items():
        number = whole_number(given, 1)
        if given is not None and (number is None or number > MOST_REPLICAS):
            raise SpecError(f"{name} is {given!r}", f"give a whole number up to {MOST_REPLICAS}")
    if launcher == "inline" and (sessions != 1 or replicas not in (None, 1)):
        raise SpecError(
            "launcher='inline' measures each backend once, in this process",
            "leave replicas and sessions out, or use launcher='process'",
        )


def _about_patches(names: list[str]) -> tuple[str, ...]:
    """What every row must say where importing or building something has patched torch."""
    if not names:
        return ()
    return (
        f"importing or building the model or a plugin patched torch for the whole process "
        f"({some(names)}), and this row ran so",
    )


def _budget(budget_s: float | None, device_type: str, rows: int) -> float:
    if budget_s is not None:
        return budget_s
    return min(_MOST_S, rows * _BUDGET_S.get(device_type, _BUDGET_ELSEWHERE_S))
