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
from precisionbench.backends import Backend, discovery
from precisionbench.backends.base import options_of
from precisionbench.backends.specs import canonical_spec
from precisionbench.comparison import Comparison
from precisionbench.errors import (
    BackendUnavailableError,
    DeviceError,
    PrecisionBenchError,
    SpecError,
)
from precisionbench.launchers.inline import InlineLauncher
from precisionbench.launchers.session import Session, silence
from precisionbench.names import row_names, split_spec
from precisionbench.results import (
    Agreement,
    BackendFailure,
    BackendResult,
    ComparisonData,
    Json,
    Measurement,
)
from precisionbench.rounds import few_blocks, measure
from precisionbench.torch_state import rng_restored
from precisionbench.workload import resolve

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
_SEEDS = 2**63  # what torch's generators take
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
        backends: specs such as `"half:dtype=bfloat16"` or `Backend` objects; None is
            `DEFAULT_BACKENDS`.
        reference: the row that the others are compared with; measured also if not in `backends`.
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
    _check_arguments(launcher, seed, budget_s)
    rows, reference_name = plan(DEFAULT_BACKENDS if backends is None else backends, reference)
    seed = secrets.randbits(32) if seed is None else seed
    with _one_at_a_time, rng_restored():
        with silence():  # what a factory prints is in each row's log: it is called again there
            workload = resolve(model, inputs, device=device, batch_size=batch_size, seed=seed)
        described = environment.capture(workload.device)
        started = datetime.datetime.now(datetime.timezone.utc)
        share_s = _share_of_budget(budget_s, workload.device.type, len(rows))
        run = _Run(InlineLauncher.on_device_of(workload), share_s, on_progress or (lambda _: None))
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
    return Comparison(data)


def _check_arguments(launcher: str, seed: int | None, budget_s: float | None) -> None:
    if launcher != "inline":
        raise SpecError(f"there is no launcher {launcher!r}", "this version has 'inline'")
    if seed is not None and (type(seed) is not int or not 0 <= seed < _SEEDS):
        raise SpecError(f"seed is {seed!r}", "give a whole number from 0 to 2**63 - 1")
    is_number = isinstance(budget_s, (int, float)) and not isinstance(budget_s, bool)
    if budget_s is not None and not (is_number and 0 < budget_s < math.inf):
        raise SpecError(f"budget_s is {budget_s!r}", "give a number of seconds above 0")


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
    """Measures rows one after another, the reference first, and keeps what came of each."""

    def __init__(self, launcher: InlineLauncher, budget_s: float, tell: OnProgress) -> None:
        self.launcher, self.budget_s, self.tell = launcher, budget_s, tell
        self.results: dict[str, BackendResult] = {}
        self.failures: dict[str, BackendFailure] = {}
        self.errors: dict[str, PrecisionBenchError] = {}
        self.reference_output: tuple[object] | None = None  # a model may well give None

    def measure_all(self, rows: Sequence[Row], reference: str) -> None:
        ordered = sorted(rows, key=lambda row: row.name != reference)
        for position, row in enumerate(ordered, start=1):
            self._measure(row, reference, position, len(rows))

    def _measure(self, row: Row, reference: str, position: int, total: int) -> None:
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
            self.results[row.name] = self._result(row, reference, session, measurement)
            tell("done")

    def _refuse_on_lost_device(self) -> None:
        for name, error in self.errors.items():
            if isinstance(error, DeviceError):
                raise DeviceError(f"the device stopped answering in {name}", error.remedy)

    def _result(
        self, row: Row, reference: str, session: Session, measurement: Measurement
    ) -> BackendResult:
        return BackendResult(
            **row.identity,
            batch_size=self.launcher.workload.info.batch_size,
            measurement=measurement,
            agreement=self._agreement(row.name == reference, session.output),
            flags=session.flags,
            details=session.details,
            warnings=session.record.warnings() + few_blocks(measurement),
            log=session.record.log(),
        )

    def _agreement(self, is_reference: bool, output: object) -> Agreement | None:
        if is_reference:
            self.reference_output = (output,)
        if self.reference_output is None:
            return None
        return compare_outputs(output, *self.reference_output)

    def _fail(self, row: Row, error: PrecisionBenchError) -> None:
        self.errors[row.name] = error
        self.failures[row.name] = BackendFailure(
            **row.identity,
            error=type(error).__name__,
            reason=error.reason,
            remedy=error.remedy,
        )

    def raise_if_nothing_measured(self, reference: str) -> None:
        """The reference's own error, chained to what caused it."""
        if not self.results:
            error = self.errors[reference]
            error.reason = f"{reference}: {error.reason}"
            raise error


def _importable(row: Row) -> Backend:
    if row.backend is None:
        raise row.error or SpecError(f"{row.name} has no backend")
    return row.backend
