"""The one conductor: plans the rows, measures each, and collects what they leave behind."""

from __future__ import annotations

import datetime
import math
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
from torch import nn

from precisionbench import environment
from precisionbench._version import __version__
from precisionbench.agreement import compare_outputs
from precisionbench.arguments import whole_number
from precisionbench.backends import Backend, discovery
from precisionbench.backends.base import options_of
from precisionbench.backends.specs import canonical_spec
from precisionbench.comparison import Comparison
from precisionbench.errors import (
    BackendUnavailableError,
    DeviceError,
    PrecisionBenchError,
    SpecError,
    some,
)
from precisionbench.launchers.inline import InlineLauncher, drop_frames
from precisionbench.launchers.session import Session
from precisionbench.names import row_names, split_spec
from precisionbench.recording import silence
from precisionbench.results import (
    BackendFailure,
    BackendResult,
    ComparisonData,
    Json,
    Measurement,
)
from precisionbench.rounds import few_blocks, measure
from precisionbench.torch_state import Functions, rng_restored
from precisionbench.workload import Workload, resolve

# What is worth comparing where the user names nothing. Rows that a machine cannot run say why.
DEFAULT_BACKENDS = (
    "eager",
    "eager:precision=tf32",
    "half",
    "half:dtype=bfloat16",
    "half:memory_format=channels_last",
    "apex-amp",
    "torch2trt:precision=fp16",
)
# Seconds for warm-up and blocks of one backend; building is not counted. On a GPU most rows end
# far earlier, when their interval is narrow enough. On a CPU a row must not take all day.
_BUDGET_S = {"cuda": 60.0}
_BUDGET_ELSEWHERE_S = 15.0
# Two threads would measure each other, and torch's settings are the process's. A comparison that a
# callback starts within another one is let through.
_one_at_a_time = threading.RLock()


@attrs.frozen
class Progress:
    """What `on_progress` is told.

    Attributes:
        backend: the row.
        stage: `preparing`, `measuring`, `done` or `failed`.
        position: the row's place in the run, from 1.
        total: number of rows.
        message: the reason, where it failed.
    """

    backend: str
    stage: str
    position: int
    total: int
    message: str = ""


OnProgress = Callable[[Progress], object]


@attrs.frozen
class Row:
    """One row to measure.

    Attributes:
        name: the row's name.
        spec: its canonical spec.
        backend: what to prepare; None where its plugin could not be imported.
        error: why it could not.
    """

    name: str
    spec: str
    backend: Backend | None
    error: PrecisionBenchError | None = None

    @property
    def identity(self) -> dict[str, Json]:
        """The row's name, the backend's, and its options: what the spec gives, where the plugin
        is not known."""
        name, texts = split_spec(self.spec)
        options = texts if self.backend is None else options_of(self.backend)
        return {"backend": self.name, "name": name, "options": options}


def compare(
    model: nn.Module | Callable[[], Any] | str,
    inputs: Any = None,
    *,
    backends: Sequence[str | Backend] | None = None,
    reference: str | Backend = "eager",
    device: Any = None,
    batch_size: int | None = None,
    launcher: str = "inline",
    seed: int | None = None,
    budget_s: float | None = None,
    on_progress: OnProgress | None = None,
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
        launcher: `"inline"`: in this process, one backend after another.
        seed: of weights and inputs made here; None draws one. It is kept in the result.
        budget_s: seconds to spend on measuring in all, shared evenly; building is not counted.
            None is 60 s for each backend on a GPU and 15 s elsewhere; most rows end earlier.
        on_progress: called with a `Progress` at each step.

    Returns:
        The comparison; a backend that failed is one of its `failures`.

    Raises:
        SpecError: a backend, option or argument that cannot be understood.
        WorkloadError: what is wrong with the model, inputs or device.
        PrecisionBenchError: nothing at all could be measured; the reference's own error.
    """
    _check_arguments(launcher, seed, budget_s, on_progress)
    seed = secrets.randbits(32) if seed is None else int(seed)
    with _one_at_a_time, rng_restored():
        functions = Functions.now()
        with silence():  # what a factory prints is in each row's log: it is called again there
            rows, reference_name = plan(
                DEFAULT_BACKENDS if backends is None else backends, reference
            )
            workload = resolve(model, inputs, device=device, batch_size=batch_size, seed=seed)
        notes = _about_patches(functions.changes())
        described = environment.capture(workload.device)
        started = datetime.datetime.now(datetime.timezone.utc)
        share_s = _share_of_budget(budget_s, workload.device.type, len(rows))
        run = _Run(workload, share_s, on_progress or (lambda _: None), notes)
        run.measure_all(rows, reference_name)
    run.raise_if_nothing_measured(reference_name)
    data = ComparisonData(
        created=started.isoformat(timespec="seconds"),
        precisionbench=__version__,
        workload=workload.info,
        environment=described,
        seed=seed,
        launcher=launcher,
        reference=reference_name,
        results=tuple(run.results[row.name] for row in rows if row.name in run.results),
        failures=tuple(run.failures[row.name] for row in rows if row.name in run.failures),
    )
    return Comparison(data, causes=run.errors)


def _check_arguments(
    launcher: str, seed: int | None, budget_s: float | None, on_progress: OnProgress | None
) -> None:
    if launcher != "inline":
        raise SpecError(f"there is no launcher {launcher!r}", "this version has 'inline'")
    if seed is not None and whole_number(seed, 0) is None:
        raise SpecError(f"seed is {seed!r}", "give a whole number from 0 to 2**63 - 1")
    if on_progress is not None and not callable(on_progress):
        raise SpecError(f"on_progress is {on_progress!r}", "give a function of one Progress")
    is_number = isinstance(budget_s, (int, float)) and not isinstance(budget_s, bool)
    if budget_s is not None and not (is_number and 0 < budget_s < math.inf):
        raise SpecError(f"budget_s is {budget_s!r}", "give a number of seconds above 0")


def _about_patches(names: list[str]) -> tuple[str, ...]:
    """What every row must say where importing or building something has patched torch."""
    if not names:
        return ()
    return (
        f"importing or building the model or a plugin patched torch for the whole process "
        f"({some(names)}), and this row ran so",
    )


def plan(
    backends: Sequence[str | Backend], reference: str | Backend = "eager"
) -> tuple[list[Row], str]:
    """The rows to measure, and which of them is the reference.

    A spec whose plugin cannot be imported is kept, so that it becomes a failure with its reason.

    Args:
        backends: specs and objects, in the order to show.
        reference: put first where it is not among them.

    Raises:
        SpecError: a spec that cannot be understood, or a bare string for `backends`.
    """
    if isinstance(backends, (str, Backend)):
        raise SpecError(f"backends is {backends!r}", f"give a list: [{backends!r}]")
    if not isinstance(backends, Iterable):
        raise SpecError(f"backends is {backends!r}", "give a list of specs or Backend objects")
    made = [_row(backend) for backend in backends]
    base = _row(reference)
    if base.spec not in [row.spec for row in made]:
        made.insert(0, base)
    names = row_names(row.spec for row in made)
    return [attrs.evolve(row, name=name) for name, row in zip(names, made, strict=True)], base.spec


def _row(backend: str | Backend) -> Row:
    try:
        made = discovery.make(backend)
    except BackendUnavailableError as exc:  # the plugin does not import; others may
        return Row("", str(backend), None, exc)
    return Row("", canonical_spec(made), made)


def _share_of_budget(budget_s: float | None, device_type: str, rows: int) -> float:
    if budget_s is not None:
        return budget_s / rows
    return _BUDGET_S.get(device_type, _BUDGET_ELSEWHERE_S)


class _Run:
    """Measures rows one after another, in the order asked for, and keeps what came of each."""

    def __init__(
        self, workload: Workload, budget_s: float, tell: OnProgress, notes: tuple[str, ...]
    ) -> None:
        self.launcher = InlineLauncher.on_device_of(workload)
        self.budget_s, self.tell, self.notes = budget_s, tell, notes
        self.results: dict[str, BackendResult] = {}
        self.failures: dict[str, BackendFailure] = {}
        self.errors: dict[str, PrecisionBenchError] = {}
        self.outputs: dict[str, object] = {}  # of the reference, and of rows measured before it

    def measure_all(self, rows: Sequence[Row], reference: str) -> None:
        for position, row in enumerate(rows, start=1):
            self._measure(row, position, len(rows))
            self._compare_outputs(reference)

    def _measure(self, row: Row, position: int, total: int) -> None:
        def tell(stage: str, message: str = "") -> None:
            self.tell(Progress(row.name, stage, position, total, message))

        try:
            self._refuse_on_lost_device()
            tell("preparing")
            with self.launcher.open(_importable(row)) as session:
                tell("measuring")
                measurement = measure(session, self.budget_s)
                session.check_steady()
        except PrecisionBenchError as exc:
            self._fail(row, exc)
            tell("failed", str(exc))
        else:  # after the plugin's cleanup, which may have said something
            self.outputs[row.name] = session.output
            self.results[row.name] = self._result(row, session, measurement)
            tell("done")

    def _refuse_on_lost_device(self) -> None:
        for name, error in self.errors.items():
            if isinstance(error, DeviceError):
                raise DeviceError(f"the device stopped answering in {name}", error.remedy)

    def _result(self, row: Row, session: Session, measurement: Measurement) -> BackendResult:
        return BackendResult(
            **row.identity,
            batch_size=self.launcher.workload.info.batch_size,
            measurement=measurement,
            flags=session.flags,
            details=session.details,
            warnings=self.notes + session.record.warnings() + few_blocks(measurement),
            log=session.record.log(),
        )

    def _compare_outputs(self, reference: str) -> None:
        """Compare what has not been compared yet, as soon as there is a reference."""
        if reference not in self.outputs:
            return
        expected = self.outputs[reference]
        for name, output in self.outputs.items():
            if self.results[name].agreement is None:
                agreement = compare_outputs(output, expected)
                self.results[name] = attrs.evolve(self.results[name], agreement=agreement)
        self.outputs = {reference: expected}

    def _fail(self, row: Row, error: PrecisionBenchError) -> None:
        drop_frames(error)
        self.errors[row.name] = error
        self.failures[row.name] = BackendFailure(
            **row.identity,
            error=type(error).__name__,
            reason=error.reason,
            remedy=error.remedy,
        )

    def raise_if_nothing_measured(self, reference: str) -> None:
        """The reference's own error, or another's where the reference is merely unavailable."""
        if self.results:
            return
        errors = {reference: self.errors[reference], **self.errors}
        tried = [n for n, e in errors.items() if not isinstance(e, BackendUnavailableError)]
        name = tried[0] if tried else reference
        errors[name].reason = f"{name}: {errors[name].reason}"
        raise errors[name]


def _importable(row: Row) -> Backend:
    if row.backend is None:
        raise row.error or SpecError(f"{row.name} has no backend")
    return row.backend
