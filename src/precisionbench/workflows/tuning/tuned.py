"""`Tuned`: what `tune` found, to be read, saved, and prepared for deployment."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from torch import nn

from precisionbench._internal import files
from precisionbench._internal.output_capture import silence
from precisionbench.analysis.tuning import FrontPoint, front, loss_of
from precisionbench.backends import Backend
from precisionbench.backends.from_files import from_file
from precisionbench.comparison import Comparison
from precisionbench.display import Records, TableResult
from precisionbench.display.frames import dataframe
from precisionbench.errors import IncomparableError, PrecisionBenchWarning, WorkloadError
from precisionbench.measure.rows import packages_of, plan
from precisionbench.measure.worker.prepared_call import prepared_workload
from precisionbench.model.workload import Workload, resolve
from precisionbench.report import plots
from precisionbench.report import tuning as report
from precisionbench.report.plain import WIDTH
from precisionbench.report.tuning_texts import COLUMNS, trial_cells
from precisionbench.results import json_format, tuning_format
from precisionbench.results.tuning import LeftOut, Trial, TuningData
from precisionbench.statistics import Interval
from precisionbench.system import environment
from precisionbench.workflows.tuning.batches import batches_of, inputs_of
from precisionbench.workflows.tuning.calibration import MOST_BATCHES, CalibrationBatches
from precisionbench.workflows.tuning.target import differences, target_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@attrs.frozen(repr=False)
class Tuned(TableResult):
    """The fastest configuration that is accurate enough; `str` gives the table.

    Attributes:
        data: what was tried, and what became of it.
        trust: whether `prepare` may use plugins, code and folders that a loaded file names.
        journal: file that has what became of each configuration; None where nothing was kept.
        workload: the model and inputs, for `prepare`; None where the result was loaded.
        calibration: the data that INT8 was calibrated with, for `prepare`; None likewise.
    """

    data: TuningData
    trust: bool = True
    journal: Path | None = None
    workload: Any = attrs.field(default=None, eq=False)  # of `Workload`
    calibration: Any = attrs.field(default=None, eq=False)  # of `CalibrationBatches`

    __hash__ = None  # type: ignore[assignment]  # as `Comparison`: its records hold dictionaries

    @property
    def spec(self) -> str:
        """The configuration that was chosen, as `compare` takes it."""
        return self.data.best

    @property
    def speedup(self) -> Interval:
        """How many times as fast as the reference it is, with its 95 % interval."""
        found = next(trial for trial in self.data.trials if trial.spec == self.spec)
        return found.speedup or Interval(1.0, 1.0, 1.0)

    @property
    def error(self) -> Interval | None:
        """Its relative L2 error, or how much its metric is worse; None where it is not known."""
        return loss_of(self.data, self.spec)

    @property
    def front(self) -> tuple[FrontPoint, ...]:
        """The configurations that were measured to the end, the fastest first."""
        return Records(front(self.data))

    @property
    def trials(self) -> tuple[Trial, ...]:
        """What became of each configuration."""
        return Records(self.data.trials)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What was not tried, with the reason."""
        return Records(self.data.left_out)

    @property
    def comparison(self) -> Comparison:
        """The final rounds, as `compare` returns them."""
        return Comparison(self.data.final)

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self, width: int = WIDTH) -> str:
        """The choice, the front, and what became of everything else.

        Args:
            width: maximum number of columns.

        Returns:
            The text.
        """
        return report.to_text(self.data, width)

    def to_markdown(self) -> str:
        """The choice and the front as Markdown."""
        return report.to_markdown(self.data)

    def _records(self) -> tuple[object, ...]:
        return self.data.trials

    def to_dataframe(self) -> pd.DataFrame:
        """The configurations as a pandas data frame, in the order in which they were tried.

        Returns:
            One line for each, with its outcome and the figures that are known.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        return dataframe(trial_cells(self.data), COLUMNS)

    def _summary(self) -> Iterator[str]:
        yield from report.summary(self.data)

    def as_data(self) -> dict[str, Any]:
        """The result as JSON values."""
        found: dict[str, Any] = json_format.unstructured(self.data)
        return found

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw speed against error with matplotlib.

        Args:
            ax: axes to draw on; None makes a new figure.

        Returns:
            The axes.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        return plots.plot_tuning(self.data, ax)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the whole result to a JSON file, from which `pb.load_tuned` reads it.

        Args:
            path: file to write.
            overwrite: replace an existing file.

        Raises:
            OutputExistsError: the file exists and `overwrite` is false.
            OutputError: it cannot be written.
        """
        files.write_text(path, tuning_format.to_json(self.data), overwrite=overwrite)

    def to_html(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the report: one HTML file that opens offline and loads nothing.

        Args:
            path: file to write.
            overwrite: replace an existing file.

        Raises:
            OutputExistsError: the file exists and `overwrite` is false.
            OutputError: it cannot be written.
        """
        from precisionbench.report.html.tuning_page import to_html  # imports Jinja

        files.write_report(path, lambda: to_html(self.data), overwrite=overwrite)

    @contextmanager
    def prepare(
        self,
        model: nn.Module | Callable[[], Any] | str | None = None,
        inputs: Any = None,
        *,
        device: Any = None,
        data: Iterable[Any] | None = None,
        force: bool = False,
        hold_settings: bool = False,
    ) -> Iterator[Callable[..., Any]]:
        """Prepare the configuration in this process, and undo it on leaving.

        Args:
            model: as for `tune`; a copy is used. None is the model that was tuned.
            inputs: arguments of one forward pass; all calls have their shapes. None are those that
                were tuned for, with as many items as the configuration's `batch_size`.
            device: as for `tune`; None is the device that was tuned for.
            data: as for `tune`, to calibrate INT8 with; a result that was loaded does not hold it.
            force: prepare it although the device, a version or the model differs from what it was
                tuned for.
            hold_settings: keep the settings of torch that the configuration needs between the
                calls too; each call then takes some microseconds less.

        Returns:
            A context manager. It gives a callable that takes the model's arguments, in the shapes
            of `inputs`, and returns a copy of the output.

        Raises:
            IncomparableError: it was tuned for something else, with what differs; or INT8 was
                calibrated with data that is not given.
            WorkloadError: the model or the inputs cannot be used, or are missing.
            UntrustedSpecError: the file names a plugin or code.
            PrecisionBenchError: the configuration cannot be prepared.
        """
        are_given = inputs is not None
        model, inputs = self._given(model, inputs)
        backend, final = from_file(self.spec, self.trust), self.data.final
        where = device or final.environment.device
        with silence():
            workload = resolve(model, inputs, device=where, seed=final.seed)
        self._check(workload, force)
        backend = _at_batch_of(workload, backend) if are_given else backend
        backend = self._calibrated(backend, workload, data, force)
        with prepared_workload(backend, workload, hold_settings=hold_settings) as call:
            yield call

    def _given(self, model: Any, inputs: Any) -> tuple[Any, Any]:
        """The model and the inputs, those that were tuned where none are given."""
        if self.workload is None:
            if model is None:
                raise WorkloadError("no model is given", "give prepare the model that was tuned")
            return model, inputs
        if inputs is None and (model is None or isinstance(model, nn.Module)):
            inputs = self.workload.inputs
        model = self.workload.build if model is None else model
        return model, inputs

    def _calibrated(
        self, backend: Backend, workload: Workload, data: Iterable[Any] | None, force: bool
    ) -> Backend:
        """The backend with the data that it was calibrated with, where it is an INT8 row."""
        known = self.data.calibration
        batches: CalibrationBatches | None = self.calibration
        if data is not None:
            given = batches_of(data, most=MOST_BATCHES).found
            inputs = [inputs_of(one, workload.inputs, place) for place, one in enumerate(given)]
            batches = CalibrationBatches.first_of(inputs, workload.info.batch_size)
        size = workload.info.batch_size
        if batches and (found := batches.given_to(backend, size)) is not backend:
            if known != batches.record:
                _warn("the data is not that of the tuning, so its error can be another")
            return found
        takes_some = CalibrationBatches((), None).given_to(backend) is not backend
        if known is not None and takes_some and not force:
            raise IncomparableError(
                f"{self.spec} was calibrated with {known.batches} batches of data, which are not "
                "part of the result",
                "give prepare the data as well, or use force=True to calibrate with the inputs",
            )
        return backend

    def _check(self, workload: Workload, force: bool) -> None:
        """Refuse what it was not tuned for, unless it is forced; other weights are a warning."""
        rows, _ = plan([self.spec], self.spec)
        here = target_of(environment.capture(workload.device, packages_of(rows)), workload.built())
        found = list(differences(self.data.target, here))
        if found and not force:
            raise IncomparableError(
                f"{self.spec} was tuned for something else: {'; '.join(found)}",
                "tune again here, or prepare it anyway with force=True",
            )
        if here.weights != self.data.target.weights:
            _warn(
                "the model's weights, or other values that it holds or reads, are not those that "
                "were tuned, so its error and its speed can be others"
            )


def _at_batch_of(workload: Workload, backend: Backend) -> Backend:
    """The backend for the number of items that the inputs hold; another one is a warning."""
    tuned, held = backend.batch_size, workload.info.batch_size
    if tuned is None or tuned == held:
        return backend
    _warn(
        f"it was tuned for batches of {tuned} items, and these inputs hold {held}, so its speed-up "
        "can be another"
    )
    return attrs.evolve(backend, batch_size=None)


def _warn(text: str) -> None:
    """Warn at the `with` statement of the caller of `prepare`."""
    warnings.warn(text, PrecisionBenchWarning, stacklevel=5)


def load_tuned(path: str | os.PathLike[str], *, trust: bool = False) -> Tuned:
    """Read the result of `tune` from a file.

    Args:
        path: a file that `Tuned.save` or `precisionbench tune --output` wrote.
        trust: let `prepare` use plugins, code and folders that the file names.

    Returns:
        The result; `prepare` needs a model and inputs.

    Raises:
        ResultFormatError: the file cannot be read, or is not such a result.
    """
    return Tuned(tuning_format.load(path), trust=trust)
