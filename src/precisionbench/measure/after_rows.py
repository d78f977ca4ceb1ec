"""Makes the experiments of a comparison while its workers still run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import attrs

from precisionbench.diagnosis.findings import MadeExperiments
from precisionbench.errors import FOREIGN_ERRORS, PrecisionBenchError, one_line
from precisionbench.measure import finish
from precisionbench.measure.collector import Collector
from precisionbench.measure.kept import KeptWorkers
from precisionbench.measure.options import Options
from precisionbench.measure.replicas import CrowdedError, DoesNotFitError, WorkerStarter
from precisionbench.measure.rows import Row
from precisionbench.measure.run import Run
from precisionbench.model.workload import Workload
from precisionbench.results import ComparisonData
from precisionbench.results.progress import OnProgress, Progress

if TYPE_CHECKING:  # see `measure.compare`
    from precisionbench.comparison import Comparison

# Measures rows in common rounds.
MeasureRows = Callable[[Sequence[Row], Options, "OnProgress | None"], ComparisonData]
# Makes the experiments on a comparison; the third argument is None where no worker is kept.
Experimenter = Callable[
    ["Comparison", Workload, "MeasureRows | None", "OnProgress | None"], MadeExperiments
]


@attrs.define
class AfterRows:
    """Makes the experiments of a comparison while its workers still run, or else afterwards.

    Attributes:
        experimenter: makes them; None where none are asked for.
        comparison_of: the comparison of what a collector holds.
        on_progress: as for `compare`.
        made: their results; None while they are not made.
    """

    experimenter: Experimenter | None
    comparison_of: Callable[[Collector], Comparison]
    on_progress: OnProgress | None
    made: MadeExperiments | None = None

    def with_workers(self, run: Run, starter: WorkerStarter) -> None:
        """Make them with the workers of a run; not where there is no room for further workers.

        Args:
            run: whose rows are finished, and whose workers still run.
            starter: starts further workers beside them.
        """
        if self.experimenter is None:
            return
        with contextlib.suppress(CrowdedError, DoesNotFitError):
            self._make(partial(self._with_workers, self.experimenter, run, starter))

    def _with_workers(
        self, experimenter: Experimenter, run: Run, starter: WorkerStarter
    ) -> MadeExperiments:
        comparison = self.comparison_of(_results_so_far(run))
        kept = KeptWorkers(run, starter, comparison.data)
        return experimenter(comparison, run.any_workload, kept.measure, self.on_progress)

    def without_workers(self, comparison: Comparison, workload: Workload) -> None:
        """Make them in new workers where they are not made yet; not after an interruption.

        Args:
            comparison: what was measured.
            workload: the model and inputs.
        """
        if self.experimenter is None or self.made is not None:
            return
        if not any(row.measurement.ended_by == "interrupted" for row in comparison.results):
            self._make(partial(self.experimenter, comparison, workload, None, self.on_progress))

    def _make(self, make: Callable[[], MadeExperiments]) -> None:
        """Nothing that happens here may take the comparison with it."""
        try:
            self.made = make()
        except (CrowdedError, DoesNotFitError):
            raise
        except KeyboardInterrupt:
            self.made = MadeExperiments((), ("the experiments were interrupted",))
            if self.on_progress is not None:
                with contextlib.suppress(*FOREIGN_ERRORS):
                    self.on_progress(Progress("", "interrupted", 0, 0, phase="experiments"))
        except FOREIGN_ERRORS as exc:
            reason = str(exc) if isinstance(exc, PrecisionBenchError) else one_line(exc)
            self.made = MadeExperiments((), (f"the experiments failed ({reason})",))


def _results_so_far(run: Run) -> Collector:
    """What is measured of a run whose workers are not closed; outputs are not compared."""
    ours = run.collector
    found = Collector(ours.rows, ours.reference, ours.batch_size, references=ours.references)
    found.failures.update(ours.failures)
    for row in ours.rows:
        if parts := run.finished.get(row.name):
            finish.add_to(found, row, [attrs.evolve(part, output=None) for part in parts])
    return found
