"""The `Comparison` that `compare` returns: rows, speed-ups, tables, reports, files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from precisionbench import errors, rules
from precisionbench._internal import files
from precisionbench.analysis import comparable
from precisionbench.analysis.batch_sweeps import BatchSweep, batch_sweeps
from precisionbench.analysis.data_quality import Observation, observations
from precisionbench.analysis.interval_notes import interval_notes
from precisionbench.analysis.run_diff import difference
from precisionbench.analysis.speedups import speedups
from precisionbench.diagnosis.best_row import BestRow, best_row
from precisionbench.display import Records, Result, dataframe
from precisionbench.errors import (
    BackendUnavailableError,
    PrecisionBenchError,
    RowNotFoundError,
    SpecError,
    did_you_mean,
    kind_of,
    requirement_of,
)
from precisionbench.report import csv_text, plots, summaries
from precisionbench.report.csv_text import to_csv
from precisionbench.report.markdown import to_markdown
from precisionbench.report.run_diff import RunDiff
from precisionbench.report.text import to_text
from precisionbench.results import (
    BackendFailure,
    BackendResult,
    ComparisonData,
    Speedup,
    journal,
    json_format,
)
from precisionbench.spec_syntax import same_row

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from precisionbench.diagnosis.findings import DiagnosisData, MadeExperiments
    from precisionbench.report.html.waterfall import Ledger


class ComparisonFiles:
    """The files of a comparison: JSON, from which `load` reads it, and an HTML report.

    Subclasses return the measured data, and may have a ledger for the report.
    """

    __slots__ = ()

    def _measured_data(self) -> ComparisonData:
        raise NotImplementedError

    def _ledger(self) -> Ledger | None:
        return None

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write all measured rows with their samples to a JSON file; a failure leaves no file.

        Args:
            path: file to write.
            overwrite: replace an existing file.

        Raises:
            OutputExistsError: the file exists and `overwrite` is false.
            OutputError: it cannot be written.
        """
        text = json_format.to_json(self._measured_data())
        files.write_text(path, text, overwrite=overwrite)

    def to_html(
        self,
        path: str | os.PathLike[str],
        overwrite: bool = False,
        *,
        ledger: Ledger | None = None,
        diagnosis: DiagnosisData | None = None,
    ) -> None:
        """Write the report: one HTML file that opens offline and loads nothing.

        Args:
            path: file to write.
            overwrite: replace an existing file.
            ledger: a gap, drawn as a waterfall: as `explain_gap` returns it; or rows of (label,
                kind, factor, low, high), where a kind is `measured`, `derived`, `assumed` or
                `unexplained`, and low and high may be None. Without it a ladder draws its own gap.
            diagnosis: as `explain` returns it, with its experiments; None makes one without.

        Raises:
            OutputExistsError: the file exists and `overwrite` is false.
            OutputError: it cannot be written.
            SpecError: a row of the ledger is not of this form.
        """
        from precisionbench.report.html.page import to_html  # imports Jinja

        rows = self._ledger() if ledger is None else ledger
        data = self._measured_data()
        files.write_report(path, lambda: to_html(data, rows, diagnosis), overwrite=overwrite)


_PLOTS = {"speedups": plots.plot_speedups, "roofline": plots.plot_roofline}


class Comparison(ComparisonFiles, Result):
    """A model, or several, under several backends: find rows, compare, print and save them.

    Args:
        data: all measurements.
        causes: the errors of failed rows; a loaded comparison has none.
        backends: the backend objects by row; a loaded comparison has none.

    Attributes:
        experiments: results of the experiments that were made with it, for `explain`; None where
            none were asked for. They are not saved.
    """

    def __init__(
        self,
        data: ComparisonData,
        causes: Mapping[str, PrecisionBenchError] | None = None,
        backends: Mapping[str, Any] | None = None,
    ) -> None:
        self.data = data
        self.backends = dict(backends or {})
        self._causes = dict(causes or {})
        self.experiments: MadeExperiments | None = None

    def _measured_data(self) -> ComparisonData:
        return self.data

    @property
    def results(self) -> tuple[BackendResult, ...]:
        """Measured rows, in the order asked for."""
        return Records(self.data.results)

    @property
    def failures(self) -> tuple[BackendFailure, ...]:
        """Rows that could not be measured, in the order asked for."""
        return Records(self.data.failures)

    def __getitem__(self, backend: str) -> BackendResult:
        """The measured row of a spec or a label; default options may be given.

        Args:
            backend: the row's label; or a spec or an alias, with `#2` for the second of two equal
                rows.

        Returns:
            The row.

        Raises:
            RowNotFoundError: there is no such row; the remedy lists the rows.
            PrecisionBenchError: the row failed; the same error with its reason.
        """
        if not isinstance(backend, str):
            raise RowNotFoundError(
                f"rows are selected by name, not by {backend!r}",
                "use comparison.results[...] to get a row by its position",
            )
        for row in self.results:
            if _is_row(row, backend):
                return row
        for failure in self.failures:
            if _is_row(failure, backend):
                raise self._error_of(failure)
        names = [name for row in self.data.rows for name in (row.label, row.backend) if name]
        raise RowNotFoundError(f"there is no row {backend!r}", did_you_mean(backend, names))

    def __iter__(self) -> Iterator[BackendResult]:
        """The measured rows, in the order asked for."""
        return iter(self.results)

    def __len__(self) -> int:
        """Number of measured rows."""
        return len(self.results)

    def __contains__(self, backend: object) -> bool:
        """Whether a row of this spec was measured."""
        return isinstance(backend, str) and any(_is_row(row, backend) for row in self.results)

    def speedup(self, backend: str) -> Speedup:
        """The speed-up of a row over the reference, or over its own with several models or batches.

        The interval is simultaneous over all rows (95 %) and has a verdict with its reason.
        For rows measured one after another (`launcher="inline"`) the verdict is `inconclusive` with
        the reason `not_interleaved`, because a small difference may be drift.

        Args:
            backend: as for `comparison[...]`.

        Returns:
            Reference latency over the row's latency, with its interval, verdict and reason.

        Raises:
            PrecisionBenchError: there is no such row, or it or the reference failed.
        """
        row = self[backend]
        found = speedups(self.data).get(row.backend)
        if found is None:
            reference = self.data.reference_of(row.backend)
            failed = (row for row in self.failures if row.backend == reference)
            raise self._error_of(next(failed))
        return found

    def best(self, within: float | None = None) -> BestRow:
        """The fastest row whose output is within a tolerance.

        The fastest row has the highest measured rate, in items per second. Rows whose difference
        from it is inconclusive are its `ties`: choose among them for other reasons. The reference
        is a candidate, and always within any `within`.

        Args:
            within: maximum relative L2 error of the output against the reference's, such as
                `1e-2`. None takes the tolerance of each row's own precision: the verdict of the
                diagnosis, which knows the error against float64; for rows that were not profiled,
                the usual error of the precision that they claim, against the reference. A row
                whose error is not known is left out.

        Returns:
            The row's name, its speed-up with interval and verdict, its error, the rows that tie
            with it, and the rows left out with the reasons.

        Raises:
            SpecError: `within` is not a number of 0 or more.
            RowNotFoundError: no row is within tolerance; the reason names each.
        """
        return best_row(self.data, within)

    def batch_sweeps(self) -> tuple[BatchSweep, ...]:
        """Where throughput stops growing, for each backend at several batch sizes.

        Returns:
            One sweep for each backend (and model): the smallest batch size at which no larger one
            has a throughput that is more than 5 % higher, with its interval; often none.
        """
        return Records(batch_sweeps(self.data))

    def observations(self, backend: str) -> tuple[Observation, ...]:
        """Observations on the quality of a row's samples and intervals, such as throttling.

        Args:
            backend: as for `comparison[...]`.

        Returns:
            The observations, each with a sentence; often none.

        Raises:
            PrecisionBenchError: there is no such row, or it failed.
        """
        row = self[backend].backend
        return Records((*observations(self.data)[row], *interval_notes(self.data)[row]))

    def under_rules(self, backend: str, engines: Sequence[str] = ()) -> tuple[rules.Statement, ...]:
        """A row by the reporting conventions of trtexec, jetson_benchmarks, MLPerf and wall clocks.

        Args:
            backend: as for `comparison[...]`.
            engines: rows of other engines of the device (DLAs), whose rates `jetson_benchmarks`
                would add to this one's.

        Returns:
            One statement for each figure of each convention, in a fixed order. A figure that cannot
            be stated has a reason instead of a value.

        Raises:
            PrecisionBenchError: there is no such row, or it failed.
        """
        return Records(rules.statements(self[backend], [self[engine] for engine in engines]))

    def diff(self, old: Comparison | str | os.PathLike[str], force: bool = False) -> RunDiff:
        """The differences to an older run of the same workload; `precisionbench diff` prints them.

        Two runs are measured at different times, so drift of the machine is part of the difference.
        Two versions of a model or a backend can also be two rows of one `compare`, where drift
        cancels: "Compare two runs" in the documentation shows how.

        Args:
            old: the run to compare with, or the path of its result file.
            force: compare them although their conditions differ; the result names them.

        Returns:
            For each row measured in both: old latency / new latency with its interval over the
            processes of both runs, and a verdict.

        Raises:
            IncomparableError: they differ in conditions that change times, such as the GPU, the
                power mode, the batch or a version; the reason names each.
            ResultFormatError: the file cannot be read.
        """
        older = as_comparison(old).data
        found = comparable.mismatches(older, self.data)
        if not force:
            comparable.refuse(found)
        return RunDiff.of(difference(older, self.data, found))

    against = diff  # an alias

    def to_json(self) -> str:
        """The comparison as versioned JSON text, as `save` writes it."""
        return json_format.to_json(self.data)

    def to_markdown(self) -> str:
        """The table with notes and failures as Markdown."""
        return to_markdown(self.data)

    def to_csv(self) -> str:
        """The rows as CSV in full precision, for a spreadsheet."""
        return to_csv(self.data)

    def to_dataframe(self) -> pd.DataFrame:
        """The rows as a pandas data frame, with the columns of `to_csv`.

        Failed rows come last, with the reason in the column `failure`.

        Returns:
            One line for each row.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        return dataframe(csv_text.row_cells(self.data), csv_text.columns(self.data))

    def plot(self, kind: str = "speedups", ax: Axes | None = None) -> Axes:
        """Draw the comparison with matplotlib.

        Args:
            kind: `"speedups"` with their intervals, or `"roofline"`: FLOP/s of each row's classes
                of layers over their arithmetic intensity, below the peaks of the device.
            ax: axes to draw on; None makes a new figure.

        Returns:
            The axes.

        Raises:
            MissingPackageError: matplotlib is not installed.
            SpecError: there is no such kind of plot.
            PrecisionBenchError: there is nothing to draw, such as no peaks of the device.
        """
        if kind not in _PLOTS:
            raise SpecError(f"there is no plot {kind!r}", did_you_mean(str(kind), _PLOTS))
        return _PLOTS[kind](self.data, ax)

    def _repr_html_(self) -> str:
        """The table, for a notebook."""
        from precisionbench.report.html.page import table_html

        return table_html(self.data)

    def _error_of(self, failure: BackendFailure) -> PrecisionBenchError:
        error = _error_of(failure)
        cause = self._causes.get(failure.backend)
        error.__cause__ = cause.__cause__ if cause else None
        return error

    def __str__(self) -> str:
        return to_text(self.data)

    def _summary(self) -> Iterator[str]:
        return summaries.of_comparison(self.data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Comparison) and self.data == other.data

    __hash__ = None  # type: ignore[assignment]


def _is_row(row: BackendResult | BackendFailure, query: str) -> bool:
    return query in (row.backend, row.label or None) or same_row(query, row.backend, row.options)


def load(path: str | os.PathLike[str]) -> Comparison:
    """Read a comparison that `save` wrote; this needs neither torch nor a GPU.

    Args:
        path: the file, or the journal of an unfinished run.

    Returns:
        The comparison, equal to the one that was saved.

    Raises:
        ResultFormatError: the file is missing, truncated, of another format or an unknown version.
    """
    text, source = json_format.read_text(path)
    parse = journal.from_text if journal.is_journal(text) else json_format.from_json
    return Comparison(parse(text, source))


def as_comparison(comparison: Comparison | str | os.PathLike[str]) -> Comparison:
    """The comparison itself, or the one in a result file.

    Args:
        comparison: a comparison, or a path as for `load`.

    Raises:
        ResultFormatError: as for `load`.
        SpecError: it is neither.
    """
    if isinstance(comparison, Comparison):
        return comparison
    if isinstance(comparison, (str, os.PathLike)):
        return load(comparison)
    raise errors.SpecError(
        f"the comparison is {kind_of(comparison)}",
        "give what pb.compare or pb.load returns, or the path of a result file",
    )


def _error_of(failure: BackendFailure) -> PrecisionBenchError:
    """The error of a failed row, made again from its saved record."""
    kind = getattr(errors, failure.error, None)
    if not (isinstance(kind, type) and issubclass(kind, PrecisionBenchError)):
        kind = PrecisionBenchError
    reason = failure.reason
    if kind is BackendUnavailableError:
        reason = requirement_of(reason)
    error: PrecisionBenchError = kind(reason, failure.remedy)
    error.reason = f"{failure.backend}: {failure.reason}"
    return error
