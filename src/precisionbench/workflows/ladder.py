"""`ladder()`: measure rows that differ in one option each, and the factor of each change."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import attrs
from torch import nn

from precisionbench._internal.output_capture import silence
from precisionbench.backends import discovery
from precisionbench.backends.specs import canonical_spec
from precisionbench.comparison import Comparison, ComparisonFiles
from precisionbench.diagnosis.gap.explained import check_comparable
from precisionbench.diagnosis.gap.ledger import Factor
from precisionbench.diagnosis.gap.measured import fastest, measured_factors, measured_path, slowest
from precisionbench.display import TableResult
from precisionbench.errors import IncomparableError
from precisionbench.measure import availability, compare
from precisionbench.measure.availability import reasons_against
from precisionbench.measure.options import Options
from precisionbench.measure.worker.shared_server import SHARED_SERVER
from precisionbench.model.libraries import library_modules
from precisionbench.model.workload import Workload, resolve
from precisionbench.published import get
from precisionbench.published.record import Record
from precisionbench.report import ledger, plots, summaries
from precisionbench.report.html.waterfall import Ledger
from precisionbench.report.ladder import to_text
from precisionbench.report.plain import WIDTH
from precisionbench.report.progress import shown
from precisionbench.results import ComparisonData, WorkloadInfo
from precisionbench.results.progress import OnProgress, OnProgressOption
from precisionbench.workflows.capabilities import capabilities_of
from precisionbench.workflows.diagnose import GapLedger, explain_gap
from precisionbench.workflows.ladder_rungs import rungs, stopped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Measuring time per row in seconds; most end earlier, when their CI is sufficiently narrow.
_ROW_S = {"quick": 2.0, "normal": 3.0, "thorough": 10.0}
_REPLICAS = {"quick": 1, "normal": 2, "thorough": 3}


@attrs.frozen(repr=False)
class Ladder(ComparisonFiles, TableResult):
    """The changes from a row to the fastest one, with their factors; `str` gives the table.

    Attributes:
        comparison: all rows, measured in common rounds.
        start: name of the row to start from.
        top: name of the fastest row whose output is finite wherever the reference's is.
        rungs: the factor of each change from `start` to `top`.
        off: names of the other rows: changes that were not faster, or another order of changes.
        stopped: which rows this machine cannot measure, and why.
        gap: the ledger up to the published number; None if none was given.
    """

    comparison: Comparison
    start: str
    top: str
    rungs: tuple[Factor, ...]
    off: tuple[str, ...]
    stopped: tuple[str, ...]
    gap: GapLedger | None = None

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self, width: int = WIDTH) -> str:
        """The ledger of the gap, if there is one, and the table of the changes.

        Args:
            width: maximum number of columns.

        Returns:
            The text.
        """
        ends = self.start, self.top
        way = to_text(self.comparison.data, ends, self.rungs, self.off, self.stopped, width)
        return way if self.gap is None else f"{ledger.to_text(self.gap, width)}\n\n{way}"

    def _records(self) -> tuple[Factor, ...]:
        return self.rungs if self.gap is None else self.gap.factors

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the waterfall with matplotlib: of the gap if there is one, else of the rungs.

        Args:
            ax: axes to draw on; None makes a new figure.

        Returns:
            The axes.

        Raises:
            MissingPackageError: matplotlib is not installed.
        """
        if self.gap is not None:
            return self.gap.plot(ax)
        return plots.plot_waterfall(self.rungs, f"{self.start} to {self.top}", ax)

    def _summary(self) -> Iterator[str]:
        yield f"{self.comparison.data.workload.model}: {self.start} to {self.top}"
        if self.gap is None:
            yield from summaries.of_factors(self.rungs)
        else:
            yield from summaries.of_gap(self.gap)

    def as_data(self) -> dict[str, Any]:
        """The results without the samples, for JSON."""
        names = ("start", "top", "rungs", "off", "stopped")
        gap = None if self.gap is None else self.gap.as_data()
        return {**{name: getattr(self, name) for name in names}, "gap": gap}

    def _measured_data(self) -> ComparisonData:
        return self.comparison.data

    def _ledger(self) -> Ledger | None:
        return self.gap

    @classmethod
    def of(
        cls,
        comparison: Comparison,
        start: str,
        to: str | Record | None = None,
        stopped: tuple[str, ...] = (),
    ) -> Ladder:
        """Make the ladder of an existing comparison.

        Args:
            comparison: its rows differ in one option each.
            start: the row to start from.
            to: a published number, or its id.
            stopped: which rows could not be measured, and why.

        Raises:
            RowNotFoundError: there is no such row.
            PrecisionBenchError: `start` failed; with its reason.
            RecordNotFoundError: no published number has this id.
            IncomparableError: as for `explain_gap`.
        """
        bottom = comparison[start].backend
        top = fastest(comparison.data)
        path = measured_path(comparison.data, bottom, top)
        passed = {bottom, *(transition.after for transition in path)}
        return cls(
            comparison=comparison,
            start=bottom,
            top=top,
            rungs=measured_factors(comparison.data, bottom, top),
            off=tuple(row.backend for row in comparison if row.backend not in passed),
            stopped=stopped,
            gap=None if to is None else explain_gap(comparison, bottom, to, through=top),
        )


def ladder(
    model: nn.Module | Callable[[], Any] | str,
    inputs: Any = None,
    *,
    to: str | Record | None = None,
    start: str = "eager",
    batch_size: int | None = None,
    device: Any = None,
    seed: int | None = None,
    replicas: int | None = None,
    budget_s: float | None = None,
    evidence: bool = False,
    effort: str = "normal",
    on_progress: OnProgressOption = "auto",
    journal: str | os.PathLike[str] | None = None,
) -> Ladder:
    """Measure the changes from a row to the fastest one here, and explain the rest of a gap.

    Rows that differ in one option each are measured in common rounds: float32, TF32, half,
    channels_last, `torch.compile`, freezing, CUDA graphs, the published batch, TensorRT. If two
    changes depend on each other, both orders are measured. Changes that this machine cannot measure
    are derived or assumed from published figures. If `start` itself cannot be measured, the
    slowest row with a finite output replaces it, and `stopped` says so.

    Args:
        model: as for `compare`.
        inputs: as for `compare`.
        to: a published number, or its id (`precisionbench published`); None for no gap.
        start: spec of the row to start from.
        batch_size: as for `compare`.
        device: as for `compare`.
        seed: as for `compare`.
        replicas: new processes of each row; None is 2, or 1 and 3 for the other efforts.
        budget_s: seconds for everything after building, for all rows together; None is 3 per row,
            or 2 and 10 for the other efforts.
        evidence: also profile the rows and measure their memory and energy; off here, because it
            takes longer than the measurement.
        effort: `"quick"`, `"normal"` or `"thorough"`: sets the number of processes and rounds, and
            the budget; rounds are as for `compare`.
        on_progress: as for `compare`.
        journal: as for `compare`.

    Returns:
        The changes with their factors, and the gap's ledger if `to` is given.

    Raises:
        RecordNotFoundError: no published number has this id.
        IncomparableError: it is of another model, or one of the two is not a rate. This and the
            error above are raised before anything is measured.
        SpecError: `start` cannot be understood.
        BackendUnavailableError: `start` cannot run on this machine.
        WorkloadError: the model, inputs or device cannot be used.
        OutputError: the journal cannot be created.
        PrecisionBenchError: nothing could be measured.
    """
    record = get(to) if isinstance(to, str) else to
    SHARED_SERVER.begin(library_modules(model))  # which imports them while the rows are chosen
    bottom = _available(start)
    options = Options.of(
        effort,
        seed=seed,
        replicas=_REPLICAS.get(effort) if replicas is None else replicas,
        budget_s=budget_s,
        evidence=evidence,
        build_together=True,
        passes=evidence,
    )
    with shown(on_progress) as report:
        with silence():  # what a factory prints is in each row's log
            workload = resolve(
                model, inputs, device=device, batch_size=batch_size, seed=options.seed_or_random()
            )
        _check(workload.info, record)
        plan = plan_ladder(bottom, workload, None if record is None else record.batch)
        comparison = _measured(plan, workload, options, report, journal)
    begin, notes = _bottom(comparison, bottom)
    return Ladder.of(comparison, begin, record, (*notes, *plan.stopped))


def _available(spec: str) -> str:
    """The canonical spec of a backend that can run here."""
    backend = availability.make(spec)
    for error in reasons_against([backend]):
        if error is not None:
            raise error
    return canonical_spec(backend)


@attrs.frozen
class LadderPlan:
    """The rows to measure.

    Attributes:
        rows: their canonical specs, the row to start from first.
        stopped: which rows this machine cannot measure, and why.
    """

    rows: tuple[str, ...]
    stopped: tuple[str, ...]


def plan_ladder(start: str, workload: Workload, batch_size: int | None) -> LadderPlan:
    """Choose the rows of a ladder.

    Args:
        start: canonical spec of the row to start from.
        workload: the workload to measure.
        batch_size: the published batch; None if there is none.
    """
    capabilities = capabilities_of(workload)
    specs = rungs(start, capabilities, batch_size)
    rows = dict.fromkeys(canonical_spec(discovery.make(spec)) for spec in specs)
    return LadderPlan(tuple(rows), stopped(start, capabilities, batch_size))


def _measured(
    plan: LadderPlan,
    workload: Workload,
    options: Options,
    on_progress: OnProgress | None,
    journal: str | os.PathLike[str] | None,
) -> Comparison:
    if options.budget_s is None:
        options = attrs.evolve(options, budget_s=_ROW_S[options.effort] * len(plan.rows))
    rows, reference = compare.plan(plan.rows, plan.rows[0])
    return compare.compare_with(
        workload, rows, reference, options, on_progress=on_progress, journal=journal
    )


def _bottom(comparison: Comparison, start: str) -> tuple[str, tuple[str, ...]]:
    """The row to start from; if it failed, another one, so that the other rows are not lost."""
    if start in comparison:
        return start, ()
    reason = next(row.reason for row in comparison.failures if row.backend == start)
    begin = slowest(comparison.data)
    return begin, (f"{start} could not be measured ({reason}); the ladder starts with {begin}",)


def _check(workload: WorkloadInfo, record: Record | None) -> None:
    """Refuse, before anything is measured, a workload without a gap to the published number."""
    if record is None:
        return
    check_comparable(workload, record)
    if workload.batch_size is None:
        raise IncomparableError(
            f"{record.id} is a rate, and the batch size of {workload.model} is not known",
            "give the batch size (batch_size, --batch-size)",
        )
