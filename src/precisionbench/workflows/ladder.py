"""`ladder()`: measure the rungs side by side, and say what each change is worth."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import attrs
from torch import nn

from precisionbench._internal.output_capture import silence
from precisionbench.backends import discovery
from precisionbench.backends.specs import canonical_spec
from precisionbench.comparison import Comparison
from precisionbench.diagnosis.gap.explained import check_comparable
from precisionbench.diagnosis.gap.ledger import Factor
from precisionbench.diagnosis.gap.measured import fastest, measured_factors, slowest, way
from precisionbench.errors import IncomparableError
from precisionbench.measure import compare
from precisionbench.measure.worker.session import check_available
from precisionbench.model.workload import Workload, resolve
from precisionbench.published import get
from precisionbench.published.record import Record
from precisionbench.reference_data.peaks import device_of
from precisionbench.report import ledger
from precisionbench.report.ladder import to_text
from precisionbench.report.plain import WIDTH
from precisionbench.results.progress import OnProgress
from precisionbench.results.records import WorkloadInfo
from precisionbench.system.environment import capture
from precisionbench.workflows.diagnose import GapLedger, explain_gap
from precisionbench.workflows.ladder_rungs import Capabilities, rungs, stopped

# Seconds of measuring for each row; most end earlier, when their interval is narrow enough.
_ROW_S = 3.0
_REPLICAS = 2
_IMAGE_DIMENSIONS = (4, 5)


@attrs.frozen
class Ladder:
    """From a row to the fastest one, change by change; printed, it is a table.

    Attributes:
        comparison: all rungs, measured in common rounds.
        start: name of the row at the bottom.
        top: name of the fastest row whose output is sound.
        rungs: what each change on the way is worth.
        off: names of rows that are not on the way: changes that did not pay, or other orders.
        stopped: where this machine cannot climb on, and why.
        gap: the ledger up to the published number; None where none was asked for.
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
        """The ledger of the gap, where there is one, and the way up.

        Args:
            width: columns to fill at most.

        Returns:
            The text.
        """
        ends = self.start, self.top
        way = to_text(self.comparison.data, ends, self.rungs, self.off, self.stopped, width)
        return way if self.gap is None else f"{ledger.to_text(self.gap, width)}\n\n{way}"

    def as_data(self) -> dict[str, Any]:
        """What was found, without the samples: for machines."""
        names = ("start", "top", "rungs", "off", "stopped")
        gap = None if self.gap is None else self.gap.as_data()
        return {**{name: getattr(self, name) for name in names}, "gap": gap}

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the comparison of all rungs, from which `of` makes the ladder again.

        Args:
            path: file to write.
            overwrite: replace a file that exists.

        Raises:
            OutputExistsError: the file exists and `overwrite` is false.
            OutputError: it cannot be written.
        """
        self.comparison.save(path, overwrite=overwrite)

    def to_html(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the comparison's report, with the gap as a waterfall where there is one.

        Args:
            path: file to write.
            overwrite: replace a file that exists.

        Raises:
            OutputExistsError: the file exists and `overwrite` is false.
            OutputError: it cannot be written.
        """
        rows = None if self.gap is None else self.gap.rows
        self.comparison.to_html(path, overwrite, ledger=rows)

    @classmethod
    def of(
        cls,
        comparison: Comparison,
        start: str,
        to: str | Record | None = None,
        stopped: tuple[str, ...] = (),
    ) -> Ladder:
        """The ladder through the rows of a comparison that was measured already.

        Args:
            comparison: its rows are the rungs.
            start: the row at the bottom.
            to: a published number, or its id.
            stopped: where no more could be measured, and why.

        Raises:
            RowNotFoundError: there is no such row.
            PrecisionBenchError: the row at the bottom failed; its own reason.
            RecordNotFoundError: no published number has this id.
            IncomparableError: as for `explain_gap`.
        """
        bottom = comparison[start].backend
        top = fastest(comparison.data)
        passed = {bottom, *(hop.after for hop in way(comparison.data, bottom, top))}
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
    on_progress: OnProgress | None = None,
    journal: str | os.PathLike[str] | None = None,
) -> Ladder:
    """Climb from a row to the fastest one that this machine has, and on to a published number.

    Rows that differ in one thing each are measured in common rounds: float32, TF32, half,
    channels_last, `torch.compile`, freezing, CUDA graphs, the published batch, TensorRT. Where two
    changes depend on each other, both orders are measured. Where the machine cannot climb on, the
    rest of the way is derived or assumed from published figures. Where `start` itself cannot be
    measured, the slowest row whose output is sound takes its place, and `stopped` says so.

    Args:
        model: as for `compare`.
        inputs: as for `compare`.
        to: a published number, or its id (`precisionbench published`); None climbs without aim.
        start: spec of the row to begin with.
        batch_size: as for `compare`.
        device: as for `compare`.
        seed: as for `compare`.
        replicas: fresh processes of each row; None is 2.
        budget_s: seconds of measuring in all; None is 3 for each row. Building is not counted.
        evidence: as for `compare`; off here, because it takes longer than the measuring.
        on_progress: as for `compare`.
        journal: as for `compare`.

    Returns:
        The rungs with their factors; printed, a table, with the gap's ledger where `to` is given.

    Raises:
        RecordNotFoundError: no published number has this id.
        IncomparableError: it is of another model, or one of the two is no rate. This and all of
            the above is found before anything is measured.
        SpecError: `start` cannot be understood.
        BackendUnavailableError: `start` cannot run on this machine.
        WorkloadError: what is wrong with the model, inputs or device.
        OutputError: the journal cannot be created.
        PrecisionBenchError: nothing at all could be measured.
    """
    record = get(to) if isinstance(to, str) else to
    backend = discovery.make(start)
    check_available(backend)
    bottom = canonical_spec(backend)
    with silence():  # what a factory prints is in each row's log
        workload = resolve(model, inputs, device=device, batch_size=batch_size, seed=seed or 0)
    capabilities = _capabilities(workload)
    _check(workload.info, record)
    goal = None if record is None else record.batch
    planned = rungs(bottom, capabilities, goal)
    rows = tuple(dict.fromkeys(canonical_spec(discovery.make(spec)) for spec in planned))
    comparison = compare.compare(
        model,
        inputs,
        backends=rows,
        reference=bottom,
        device=device,
        batch_size=batch_size,
        seed=seed,
        replicas=_REPLICAS if replicas is None else replicas,
        budget_s=_ROW_S * len(rows) if budget_s is None else budget_s,
        evidence=evidence,
        build_together=True,
        passes=evidence,
        on_progress=on_progress,
        journal=journal,
    )
    begin, notes = _bottom(comparison, bottom)
    return Ladder.of(comparison, begin, record, (*notes, *stopped(bottom, capabilities, goal)))


def _bottom(comparison: Comparison, start: str) -> tuple[str, tuple[str, ...]]:
    """The row to begin with; where it failed, what was measured of the others is not lost."""
    if start in comparison:
        return start, ()
    reason = next(row.reason for row in comparison.failures if row.backend == start)
    begin = slowest(comparison.data)
    return begin, (f"{start} could not be measured ({reason}); the ladder begins with {begin}",)


def _check(workload: WorkloadInfo, record: Record | None) -> None:
    """Refuse, before anything is measured, what no gap could be told of."""
    if record is None:
        return
    check_comparable(workload.model, record)
    if workload.batch_size is None:
        raise IncomparableError(
            f"{record.id} is a rate, and it is not known how many items a call of "
            f"{workload.model} serves",
            "give batch_size",
        )


def _capabilities(workload: Workload) -> Capabilities:
    gpu = capture(workload.device).gpu
    known = device_of(gpu) if gpu else None
    capability = tuple(map(int, gpu.compute_capability.split("."))) if gpu else (0, 0)
    dlas = known.peaks.get("dlas") if known else None
    return Capabilities(
        device=workload.device.type,
        capability=capability,
        has_images=any(len(t.shape) in _IMAGE_DIMENSIONS for t in workload.info.inputs),
        batch_size=workload.info.batch_size,
        missing={
            info.name: f"it needs {info.requirement}; {info.remedy}"
            for info in discovery.list_backends()
            if not info.available
        },
        dlas=int(dlas.value) if dlas else 0,
    )
