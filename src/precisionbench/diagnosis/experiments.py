"""Experiments: the change of a row that each one measures, and its effect on findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from precisionbench._internal.interval_text import span
from precisionbench.analysis.speedups import speedup_over
from precisionbench.diagnosis.causes import CAUSES
from precisionbench.diagnosis.findings import ExperimentResult, Finding, FindingStatus
from precisionbench.errors import SpecError
from precisionbench.results import BackendResult, ComparisonData, Verdict
from precisionbench.results.json_values import Json
from precisionbench.spec_syntax import split_spec, value_text
from precisionbench.statistics import Interval

# The options that every backend has.
COMMON_OPTIONS = (
    *("memory_format", "cudnn_benchmark", "grad_mode", "l2_cache"),
    *("fold_batch_norm", "batch_size", "cuda_graph", "threads"),
)
# Options that a name leaves out where they have this value.
_DEFAULTS = {"memory_format": "contiguous"}
# If removing a cause gains less than this factor, the cause has no practical effect.
_MIN_GAIN = 1.01
# Experiments that also help for other reasons must gain more to confirm a cause: a larger batch
# also uses the device better.
_MIN_GAIN_OF = {"larger-batch": 1.5}
_FLATTERING = {cause.name for cause in CAUSES if cause.flatters}
# Their figures show what is slow; the experiment tries one remedy, and others may still help.
_SLOW_EITHER_WAY = ("grouped-convolutions",)


@attrs.frozen
class RowChange:
    """The one change of a row that an experiment measures.

    Attributes:
        options: options that get another value.
        batch_factor: items per call of the changed row, divided by those of the row.
        backend: name of the backend that replaces the row's; empty for the same.
        kept: options of the row's own backend that the other backend takes, besides the common
            ones.
        of: the only backend that can be replaced, and only where no option of its own besides
            `kept` is set; empty for any.
    """

    options: Mapping[str, Json] = attrs.field(factory=dict)
    batch_factor: int = 1
    backend: str = ""
    kept: tuple[str, ...] = ()
    of: str = ""

    def applies_to(self, name: str, written: Mapping[str, object]) -> bool:
        """Whether a row can have this change.

        Args:
            name: of its backend.
            written: its options that are not at their defaults.
        """
        own = written.keys() - {*COMMON_OPTIONS, *self.kept}
        return not self.of or (name == self.of and not own)


# The experiments that change nothing but the options of a row or its backend.
ROW_CHANGES: Mapping[str, RowChange] = {
    "channels-last": RowChange({"memory_format": "channels_last"}),
    "contiguous": RowChange({"memory_format": "contiguous"}),
    "cudnn-benchmark": RowChange({"cudnn_benchmark": True}),
    "compiled": RowChange(backend="compile", kept=("dtype",), of="half"),
    "folded-batch-norm": RowChange({"fold_batch_norm": True}),
    "cuda-graph": RowChange({"cuda_graph": True}),
    "larger-batch": RowChange(batch_factor=8),
    "ieee-float32": RowChange(backend="eager"),
    "cast-once": RowChange(backend="half", kept=("dtype",)),
}


# Rows of the same comparison


def changed_row(data: ComparisonData, row: str, experiment: str) -> str:
    """The row of the same comparison that an experiment would measure.

    Args:
        data: the comparison.
        row: name of the row that the experiment changes.
        experiment: name of the experiment.

    Returns:
        Its name; empty where there is none.
    """
    change = ROW_CHANGES.get(experiment)
    base = next((one for one in data.results if one.backend == row), None)
    if change is None or base is None:
        return ""
    others = (one.backend for one in data.results if one is not base and _is_so(change, base, one))
    return next(others, "")


def _is_so(change: RowChange, base: BackendResult, other: BackendResult) -> bool:
    """Whether a row is another one with this change, and with nothing else."""
    try:
        before, after = _written(base), _written(other)
    except SpecError:  # a value with a comma in it
        return False
    if other.name != (change.backend or base.name) or not change.applies_to(base.name, before):
        return False
    if change.backend:
        before = {name: text for name, text in before.items() if name in COMMON_OPTIONS}
        kept = [name for name in change.kept if name in base.options]
        after = {name: text for name, text in after.items() if name not in kept}
        if any(base.options[name] != other.options.get(name) for name in kept):
            return False
    changes = {name: value_text(value) for name, value in change.options.items()}
    if change.batch_factor > 1:
        changes["batch_size"] = str(change.batch_factor * (base.batch_size or 0))
    expected = {**before, **changes}
    return after == {k: text for k, text in expected.items() if text != _DEFAULTS.get(k)}


def _written(row: BackendResult) -> dict[str, str]:
    """The options of a row that are not at their defaults, as its name gives them."""
    return split_spec(row.backend.partition("#")[0])[1]


def measured_beside(data: ComparisonData, finding: Finding) -> ExperimentResult | None:
    """The result of an experiment whose changed row was measured in the same comparison.

    The experiment of the finding's cause decides; an alternative experiment can only confirm it.

    Args:
        data: the comparison.
        finding: as its cause gives it.

    Returns:
        The result; None where there is no such row, or the rows' times do not allow a verdict.
    """
    for experiment in filter(None, (finding.proposed, *finding.alternatives)):
        result = _result_beside(data, finding, experiment)
        if result is None or result.speedup is None:
            continue
        confirms = _status_after(finding, experiment, result.speedup) is FindingStatus.CONFIRMED
        if experiment == finding.proposed or confirms:
            return result
    return None


def _result_beside(
    data: ComparisonData, finding: Finding, experiment: str
) -> ExperimentResult | None:
    other = changed_row(data, finding.row, experiment)
    if not other:
        return None
    speedup = speedup_over(data, finding.row, other)
    # with any other reason the times are inconclusive, whether or not the interval includes 1
    if speedup.verdict is Verdict.INCONCLUSIVE and speedup.reason != "includes_1":
        return None
    return ExperimentResult(
        experiment, finding.cause, finding.row, speedup.interval, measured_in=other
    )


# The effect of results on findings


def with_experiments(finding: Finding, experiments: Sequence[ExperimentResult]) -> Finding:
    """A finding with the result of the experiment for it, if there is one.

    Args:
        finding: the finding as its cause gives it.
        experiments: results of all experiments.
    """
    own = (e for e in experiments if (e.cause, e.row) == (finding.cause, finding.row))
    result = next(own, None)
    if result is None or finding.status is FindingStatus.CONFIRMED:
        return finding
    if result.speedup is None:
        return attrs.evolve(
            finding, reason=_joined(finding.reason, f"experiment not run: {result.failure}")
        )
    status = _status_after(finding, result.experiment, result.speedup)
    return attrs.evolve(
        finding,
        factor=result.speedup,
        experiment=result.experiment,
        status=status,
        remedy="" if status is FindingStatus.RULED_OUT else finding.remedy,
        reason=_joined(finding.reason, _reason(finding, status, result), _where(result)),
    )


def _status_after(finding: Finding, experiment: str, speedup: Interval) -> FindingStatus:
    """The status of a finding after an experiment.

    Args:
        finding: the finding before the experiment.
        experiment: name of the experiment.
        speedup: speed-up of the row without the cause.
    """
    low, high = speedup.low, speedup.high
    if finding.cause in _FLATTERING:  # the cause makes the row faster, so removing it costs time
        low, high = 1 / high, 1 / low
    if low > _MIN_GAIN_OF.get(experiment, _MIN_GAIN):
        return FindingStatus.CONFIRMED
    if high < _MIN_GAIN and finding.cause not in _SLOW_EITHER_WAY:
        return FindingStatus.RULED_OUT
    return finding.status


def _reason(finding: Finding, status: FindingStatus, result: ExperimentResult) -> str:
    """The addition of a result to the reason of a finding."""
    least, speedup = _MIN_GAIN_OF.get(result.experiment, _MIN_GAIN), result.speedup
    if status is FindingStatus.CONFIRMED or speedup is None:
        return ""
    if status is FindingStatus.RULED_OUT:
        return "the experiment showed no such effect"
    if finding.cause in _SLOW_EITHER_WAY and speedup.high < _MIN_GAIN:
        return f"{result.experiment} does not help"
    if least == _MIN_GAIN:
        return "the experiment was inconclusive"
    return (
        f"the experiment gave {speedup.value:.3g}x ({span(speedup)}), which "
        f"may have other causes; more than {least:g}x would confirm it"
    )


def _where(result: ExperimentResult) -> str:
    return f"measured in row {result.measured_in}" if result.measured_in else ""


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
