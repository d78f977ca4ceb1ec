"""Prepares configurations in worker processes, judges their outputs, and times them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import attrs

from precisionbench.backends.float64 import Float64
from precisionbench.diagnosis.layers import layers_of_growth
from precisionbench.errors import (
    FOREIGN_ERRORS,
    OutOfMemoryError,
    PrecisionBenchError,
    PreparationError,
    one_line,
)
from precisionbench.measure import compare
from precisionbench.measure.open_rows import LateError, OpenRows
from precisionbench.measure.options import Options
from precisionbench.measure.rows import Row
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.measure.worker.first_call_limit import WarmCallLimit
from precisionbench.results import ComparisonData
from precisionbench.results.evidence import LayerError
from precisionbench.results.tuning import RELATIVE_L2, Accuracy
from precisionbench.spec_syntax import split_spec
from precisionbench.torchtools.global_state import threads
from precisionbench.torchtools.saving import save
from precisionbench.workflows.tuning.accuracy import ErrorJudge, Judge, Outputs
from precisionbench.workflows.tuning.batches import LEAST_BATCHES
from precisionbench.workflows.tuning.bench import Judged
from precisionbench.workflows.tuning.calibration import CalibrationBatches
from precisionbench.workflows.tuning.metric import MetricJudge
from precisionbench.workflows.tuning.recheck import Process, Recheck, given_inputs

_LEAST_START_S = 1.0
_LEAST_LAYERS_S = 1.0  # with less time layers are not compared with float64
_REFERENCE_SHARE = 0.05  # of the time that is left, to judge a configuration by a metric
_JUDGED_BYTES = 2**31  # of float64 outputs with which others are compared at the same time
# A request may take so long in addition to its calls: to time a block, and to compute outputs. Less
# where less is left of the budget.
_BLOCK_S, _OUTPUTS_S, _LEAST_WAIT_SHARE = 10.0, 20.0, 0.25
_MOST_LAYERS = 3  # of those in which the error grows most
_FLOAT64 = Row("float64", "float64", Float64())
_MEANINGLESS = (
    "all outputs are zero, infinite or NaN for these inputs, so the errors say nothing; tune the "
    "model with trained weights, or with other inputs"
)


@attrs.define
class WorkerBench:
    """Prepares and measures in worker processes.

    Attributes:
        rows: the rows that stay open.
        judge: says how accurate outputs are.
        slots: how many configurations are built side by side.
        ahead: as for `Bench`.
        start_s: as for `Bench`.
        calibration: the user's data, for INT8 configurations; None where there is none.
        notes: what qualifies the result.
        reference: spec of the reference, once it is prepared.
    """

    rows: OpenRows
    judge: Judge
    slots: int
    ahead: int = 0
    calibration: CalibrationBatches | None = None
    start_s: float = _LEAST_START_S
    notes: list[str] = attrs.field(factory=list)
    reference: str = attrs.field(default="", init=False)
    _files: list[Path] = attrs.field(factory=list)
    _end_s: float = math.inf  # of the search, in seconds of `time.monotonic`

    def __attrs_post_init__(self) -> None:
        folder = self.rows.pool.folder
        self._files = [folder / f"inputs-{number}.pt" for number in range(len(self.judge.inputs))]

    def has_room(self, spec: str, workers: int) -> bool:
        """Whether the device easily holds a copy of the model for each of some workers.

        Args:
            spec: of a configuration that has the batch size of all.
            workers: how many.
        """
        return self.rows.has_room(self._row(spec), workers)

    def begin(
        self, reference: str, end_s: float, make_room: Callable[[], bool] = lambda: False
    ) -> None:
        """Prepare the reference, and let it and float64 set what outputs are judged by.

        Args:
            reference: its canonical spec.
            end_s: when this has to end, in seconds of `time.monotonic`.
            make_room: called where one of the two does not fit in memory; ends what is built
                meanwhile, and says whether there was something.

        Raises:
            PrecisionBenchError: the reference cannot be prepared.
        """
        self.reference, self._end_s = reference, end_s
        rows = [self._row(reference)]
        is_error = self.judge.bound.measure == RELATIVE_L2
        rows += [_FLOAT64] if is_error else []
        errors = self._open(rows, end_s)
        crowded = [row for row in rows if isinstance(errors.get(row.name), OutOfMemoryError)]
        if crowded and make_room():
            rest = {name: e for name, e in errors.items() if not isinstance(e, OutOfMemoryError)}
            errors = {**rest, **self._open(crowded, end_s)}
        if reference in errors:
            raise _of_reference(errors[reference], reference)
        if not is_error:
            now_s = time.monotonic()
            self._judge_by(reference, now_s + _REFERENCE_SHARE * (end_s - now_s))
            return
        try:
            if _FLOAT64.name in errors:
                raise errors[_FLOAT64.name]
            self._judge_by(_FLOAT64.name)
        except FOREIGN_ERRORS as exc:
            late = isinstance(exc, LateError)
            why = "was not ready in time" if late else f"does not run ({one_line(exc)})"
            self.notes.append(f"the model in float64 {why}; errors are against {reference}")
            self._judge_by(reference)
        self.rows.close([_FLOAT64.name])

    def _judge_by(self, name: str, until_s: float = math.inf) -> None:
        """Let an open row set what outputs are judged by; inputs that the judge drops are not used.

        Args:
            name: of the row.
            until_s: from when on no further batch of the user's is used.
        """
        given, begun_s = [*zip(self.judge.inputs, self._files, strict=True)], time.monotonic()
        self.judge = judge = self.judge.with_reference(self._outputs(name, until_s), name)
        used = len(judge.inputs)
        if judge.bound.is_metric and used < len(given):
            each_s = (time.monotonic() - begun_s) / used
            self.notes.append(
                f"the metric uses the first {used:,} of {len(given):,} batches, as each takes "
                f"{each_s:.2g} s for each configuration; a larger budget uses more"
            )
        kept = {id(tensors) for tensors in judge.inputs}
        self._files = [file for tensors, file in given if id(tensors) in kept]
        if isinstance(judge, ErrorJudge) and judge.is_meaningless:
            self.notes.append(_MEANINGLESS)

    def open(
        self,
        specs: Sequence[str],
        end_s: float,
        limits: Mapping[str, WarmCallLimit] = MappingProxyType({}),
    ) -> Mapping[str, PrecisionBenchError]:
        """Prepare one more worker of each configuration; see `Bench`."""
        return self._open([self._row(spec) for spec in specs], end_s, limits)

    def _open(
        self,
        rows: Sequence[Row],
        end_s: float,
        limits: Mapping[str, WarmCallLimit] = MappingProxyType({}),
    ) -> Mapping[str, PrecisionBenchError]:
        """Prepare workers, and keep how long that took besides building."""
        is_new = not any(self.rows.is_begun(row.name) for row in rows)
        begun_s = time.monotonic()
        errors = self.rows.open(rows, end_s, limits)
        if is_new and not errors:
            self._keep_start_s([row.name for row in rows], time.monotonic() - begun_s)
        return errors

    def _keep_start_s(self, names: Sequence[str], took_s: float) -> None:
        """Keep how long one more process takes, without building it and its first call.

        On a CPU their first calls are made one after another.
        """
        openings = [self.rows.replicas[name][-1].opening for name in names]
        own_s = [opening.build_s + opening.first_call_s for opening in openings]
        on_cpu = self.rows.workload.device.type == "cpu"
        each_s = (took_s - sum(own_s)) / len(own_s) if on_cpu else took_s - max(own_s)
        self.start_s = max(_LEAST_START_S, each_s)

    def build_ahead(self, specs: Sequence[str], limits: Mapping[str, WarmCallLimit]) -> None:
        """Begin to prepare workers while others are measured; see `Bench`."""
        self.rows.begin([self._row(spec) for spec in specs], limits)

    def is_built(self, spec: str) -> bool:
        """Whether a begun worker is ready; see `Bench`."""
        return self.rows.is_ready(spec)

    def wait_built(self, end_s: float) -> None:
        """Wait for one of the begun workers; see `Bench`."""
        self.rows.wait_ready(end_s)

    def _row(self, spec: str) -> Row:
        """The row of a configuration; INT8 is calibrated with the user's data."""
        row = compare.plan([spec], spec)[0][0]
        if self.calibration is None or row.backend is None:
            return row
        backend = self.calibration.given_to(row.backend)
        if backend is not row.backend:
            count = len(self.calibration.batches)
            note = f"{spec} was calibrated with the inputs of {count} batches of data"
            self.notes.append(note)
        return attrs.evolve(row, backend=backend)

    def processes(self, spec: str) -> int:
        """How many processes are open; see `Bench`."""
        return len(self.rows.replicas.get(spec, ()))

    def build_s(self, spec: str) -> float:
        """Seconds that preparing took, the first call included; see `Bench`."""
        opening = self.rows.replicas[spec][0].opening
        return opening.build_s + opening.first_call_s

    def call_s(self, spec: str) -> float:
        """Seconds of a call by the calls of the warm-up; see `Bench`."""
        return self.rows.replicas[spec][0].opening.call_s

    def item_s(self, spec: str) -> float:
        """Seconds of an item by the calls of the warm-up; see `Bench`."""
        opening = self.rows.replicas[spec][0].opening
        return opening.call_s / (opening.batch_size or 1)

    def accuracy(self, spec: str) -> Accuracy:
        """How accurate it is; see `Bench`."""
        if isinstance(self.judge, MetricJudge) and spec == self.judge.bound.reference:
            return self.judge.of_reference
        try:
            return self.judge.accuracy(self._outputs(spec))
        except PreparationError:  # it cannot be given other inputs than those it has
            if not isinstance(self.judge, ErrorJudge) or spec != self.reference:
                raise
            output = self.rows.replicas[spec][0].output
            self.notes.append(f"{spec}: its error is of the given inputs only")
            return self.judge.accuracy([output])

    @property
    def judges(self) -> int:
        """How many are judged at once; see `Bench`.

        One where calls use the CPU's cores, and with a metric, which is the user's function.
        """
        if self.rows.workload.device.type == "cpu" or not isinstance(self.judge, ErrorJudge):
            return 1
        return max(1, min(self.slots, _JUDGED_BYTES // max(1, self.judge.output_bytes)))

    @property
    def limit(self) -> float:
        """The largest error or drop; see `Bench`."""
        return self.judge.bound.limit

    def accuracies(self, specs: Sequence[str]) -> Judged:
        """How accurate each is, in their order; see `Bench`."""
        if self.judges == 1:
            yield from map(self._accuracy_or_error, specs)
            return
        pool = ThreadPoolExecutor(self.judges, thread_name_prefix="precisionbench-judge")
        with threads(1):  # threads that set it each for itself would restore each other's number
            left = len(specs)
            try:
                for found in pool.map(self._accuracy_or_error, specs):
                    left -= 1
                    yield found
            finally:
                if left:  # the user wants it to end, so what is judged now is not waited for
                    self.rows.pool.stop()
                pool.shutdown(cancel_futures=True)

    def _accuracy_or_error(self, spec: str) -> Accuracy | PrecisionBenchError:
        try:
            return self.accuracy(spec)
        except PrecisionBenchError as exc:
            return exc

    def _outputs(self, name: str, until_s: float = math.inf) -> Iterator[Outputs]:
        prepared = self.rows.replicas[name][0]
        self._wait_at_most([prepared], _OUTPUTS_S)
        return self._outputs_in(prepared, until_s)

    def _outputs_in(self, prepared: Process, until_s: float = math.inf) -> Iterator[Outputs]:
        for number, (tensors, path) in enumerate(zip(self.judge.inputs, self._files, strict=True)):
            if number >= LEAST_BATCHES and time.monotonic() > until_s:
                return
            if not path.exists():
                save([tensor.clone() for tensor in tensors], path)
            yield prepared.outputs_of(str(path))

    def worst_layers(self, spec: str, limit_s: float) -> Sequence[str] | None:
        """Layers by the error that they add; none where that cannot be observed; see `Bench`."""
        found = None
        if limit_s >= _LEAST_LAYERS_S:
            found = self._worst_layers(spec, time.monotonic() + limit_s)
        if found is None:
            self.notes.append(
                f"the layers of {spec} could not be compared with float64 in time ({limit_s:.0f} "
                "s), so rows that keep some of them in float32 were not tried; use a larger "
                "budget_s (--budget)"
            )
        return found

    def _worst_layers(self, spec: str, end_s: float) -> list[str] | None:
        prepared, path = self.rows.replicas[spec][0], self.rows.pool.folder / "float64.pt"
        prepared.most_s = math.inf  # `end_s` is the limit
        ask = prepared.ask
        try:
            if not path.exists():
                ask("write_float64_reference", end_s, path=str(path))
            return _worst_layers(ask("layer_errors", end_s, float64_path=str(path)))
        except FOREIGN_ERRORS:
            path.unlink(missing_ok=True)  # it can be cut off
            return None if time.monotonic() >= end_s else []

    def recheck(self, spec: str) -> Accuracy | PrecisionBenchError | None:
        """Judge it once more, in all its processes; see `Bench`."""
        given = self.rows.workload.info.batch_size or 0
        size = int(split_spec(spec)[1].get("batch_size", given))
        processes = self.rows.replicas[spec]
        for prepared in processes:
            prepared.most_s = _OUTPUTS_S  # also where no time is left
        try:
            is_written = isinstance(self.judge, ErrorJudge) and size == given
            inputs = self._files[0] if is_written else self._given_inputs(size)
            again = Recheck(self.judge, inputs, size, given, self._accuracy_in, self._noted(spec))
            with threads(1):  # more would wait for those of what is being built
                return again.changed(processes)
        except PrecisionBenchError as exc:
            return exc

    def _given_inputs(self, size: int) -> Path:
        return given_inputs(self.rows.workload, size, self.rows.pool.folder)

    def _accuracy_in(self, process: Process) -> Accuracy:
        return self.judge.accuracy(self._outputs_in(process))

    def _noted(self, spec: str) -> Callable[[str], object]:
        return lambda text: self.notes.append(f"{spec}: {text}")

    def _wait_at_most(self, processes: Iterable[WorkerBackend], most_s: float) -> None:
        """Let no request wait long for a process that hangs, as that is part of the budget."""
        left_s = self._end_s - time.monotonic()
        for prepared in processes:
            prepared.most_s = max(_LEAST_WAIT_SHARE * most_s, min(most_s, left_s))

    def has_room_for_more(self, specs: Sequence[str]) -> bool:
        """Whether there may be one more of each, `compare`'s number at most; see `Bench`."""
        most = Options().replicas_on(self.rows.workload.device.type)
        has_fewer = all(self.processes(spec) < most for spec in specs)
        return has_fewer and all(self.has_room(spec, len(specs)) for spec in specs)

    def measure(self, specs: Sequence[str], options: Options) -> ComparisonData:
        """Measure in common rounds; see `Bench`."""
        for spec in specs:
            self._wait_at_most(self.rows.replicas[spec], _BLOCK_S)
        return self.rows.measure(specs, specs[0], options)

    def close(self, specs: Sequence[str]) -> None:
        """End workers; see `Bench`."""
        self.rows.close(specs)


def _of_reference(error: PrecisionBenchError, reference: str) -> PrecisionBenchError:
    """Why nothing can be tried."""
    if not isinstance(error, LateError):
        return error
    return LateError(
        f"the budget was used up before the reference ({reference}) was ready",
        "use a larger budget_s (--budget)",
    )


def _worst_layers(errors: Sequence[LayerError]) -> list[str]:
    """Layers that overflow first, then those in which the error grows most."""
    overflown = [error.path for error in errors if error.path and error.nonfinite_count]
    found = list(dict.fromkeys([*overflown[:1], *layers_of_growth(errors, most=len(errors))]))
    # A part of a layer stays in float32 with it.
    whole = [path for path in found if not any(path.startswith(f"{one}.") for one in found)]
    return whole[:_MOST_LAYERS]
