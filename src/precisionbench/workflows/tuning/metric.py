"""Whether a configuration is accurate enough: the drop of a metric on the user's data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import torch

from precisionbench.errors import FOREIGN_ERRORS, WorkloadError, one_line
from precisionbench.model import fingerprint
from precisionbench.results.tuning import (
    BEYOND,
    METRIC_FAILED,
    UNCLEAR,
    WITHIN,
    Accuracy,
    AccuracyBound,
)
from precisionbench.statistics.means import bootstrap_mean
from precisionbench.torchtools.tensors import Inputs
from precisionbench.workflows.tuning.accuracy import Outputs, judged, single, without_tensors
from precisionbench.workflows.tuning.batches import Batches, batches_of, inputs_of, own_copy

# A metric is called twice with the same outputs; sums in another order may differ by this share.
_SAME = 1e-3


@attrs.frozen
class MetricJudge:
    """Judges by how much a metric drops below the reference's, on the user's own data.

    Attributes:
        bound: the largest drop.
        metric: gives a number for the outputs of a batch, and the batch.
        read: the user's batches.
        inputs: the tensors of each batch that the model takes.
        rebuilt: makes the model's output of its tensors by path.
        expected: the metric of the reference, by batch.
    """

    bound: AccuracyBound
    metric: Callable[[Any, Any], float]
    read: Batches
    inputs: Sequence[Sequence[torch.Tensor]]
    rebuilt: Callable[[Outputs], Any]
    expected: Sequence[float] = ()

    @property
    def key(self) -> list[str]:
        """What the batches hold, labels among it, and what the metric does with them."""
        return [*self.read.key, fingerprint.code(self.metric)]

    @property
    def notes(self) -> Sequence[str]:
        """Why there may be more batches."""
        return (self.read.note,) if self.read.note else ()

    def with_reference(self, outputs: Iterable[Outputs], reference: str) -> MetricJudge:
        """The same judge with the metric of the reference.

        Args:
            outputs: for each batch, or for the first ones; others are not used any further.
            reference: what computed them.

        Raises:
            WorkloadError: the metric fails or is not finite, gives another number when it is called
                again, or no output holds a tensor.
        """
        expected, holds_tensors = [], False
        for number, output in enumerate(outputs):
            once = self._of_reference if number else self._repeated
            expected.append(once(output, number, reference))
            holds_tensors = holds_tensors or bool(output)
        if not holds_tensors:
            raise without_tensors(reference)
        used = len(expected)
        return attrs.evolve(
            self,
            bound=attrs.evolve(self.bound, reference=reference, batches=used),
            read=attrs.evolve(self.read, found=self.read.found[:used]),
            inputs=self.inputs[:used],
            expected=expected,
        )

    def _of_reference(self, output: Outputs, number: int, reference: str) -> float:
        """The metric of the reference for a batch."""
        try:
            metric = self._metric(output, number)
        except FOREIGN_ERRORS as exc:
            if not output:
                raise without_tensors(reference) from exc
            raise WorkloadError(
                f"the metric {self.bound.measure} failed ({one_line(exc)})",
                "it is called as metric(outputs, batch) and has to return a number",
            ) from exc
        if math.isfinite(metric):
            return metric
        raise WorkloadError(
            f"{self.bound.measure} is {metric} for batch {number} of data and {reference}",
            "give a metric that is a finite number for each batch",
        )

    def _repeated(self, output: Outputs, number: int, reference: str) -> float:
        """As `_of_reference`, where it does not depend on earlier calls, which change a batch."""
        copied = {path: tensor.clone() for path, tensor in output.items()}
        first, second = (self._of_reference(one, number, reference) for one in (copied, output))
        if math.isclose(first, second, rel_tol=_SAME, abs_tol=_SAME * self.bound.limit):
            return second
        raise WorkloadError(
            f"the metric {self.bound.measure} is {first:.6g} and then {second:.6g} for the same "
            f"outputs and batch {number} of data",
            "let it change nothing that the batch holds, depend on no earlier call, and set a seed "
            "where it draws at random",
        )

    def accuracy(self, outputs: Iterable[Outputs]) -> Accuracy:
        """The drop of the metric of a configuration.

        Args:
            outputs: for each batch.

        Raises:
            WorkloadError: the metric fails for these outputs.
        """
        numbers = range(len(self.expected))
        pairs = zip(outputs, numbers, strict=False)
        return self._by_metrics([self._of_candidate(*pair) for pair in pairs])

    @property
    def of_reference(self) -> Accuracy:
        """The accuracy of the reference itself, once its metric is known."""
        return Accuracy(single(0.0), WITHIN, metric=sum(self.expected) / len(self.expected))

    def _by_metrics(self, own: Sequence[float]) -> Accuracy:
        mean = sum(own) / len(own)
        if not math.isfinite(mean):
            return Accuracy(None, BEYOND, f"{self.bound.measure} is {mean}")
        sign = 1 if self.bound.higher_is_better else -1
        drops = [sign * (theirs - ours) for ours, theirs in zip(own, self.expected, strict=True)]
        if len(drops) == 1:  # nothing shows how batches differ
            return Accuracy(None, UNCLEAR, "one batch does not show how far the drop varies", mean)
        reason = f"{len(drops)} batches are too few to show that the drop is within the bound"
        found = judged(bootstrap_mean(drops), self.bound, reason)
        return attrs.evolve(found, metric=mean)

    def _of_candidate(self, output: Outputs, number: int) -> float:
        try:
            return self._metric(output, number)
        except FOREIGN_ERRORS as exc:
            raise WorkloadError(
                f"the metric {self.bound.measure} {METRIC_FAILED} for batch {number} of data "
                f"({one_line(exc)}), and not for those of {self.bound.reference}",
                "let it return nan for outputs that it cannot judge; a later run tries it again",
            ) from exc

    def _metric(self, output: Outputs, number: int) -> float:
        return float(self.metric(self.rebuilt(output), own_copy(self.read.found[number])))


def metric_judge(
    metric: Callable[[Any, Any], float],
    data: Iterable[Any] | None,
    drop: float | None,
    higher_is_better: bool,
    given: Inputs,
    rebuilt: Callable[[Outputs], Any],
    budget_s: float = math.inf,
) -> MetricJudge:
    """A judge for a bound on the drop of a metric.

    Args:
        metric: called with the outputs of a batch and the batch.
        data: batches; see `inputs_of`. Neither they nor the drop are None, as `check_bound` holds.
        drop: the largest drop.
        higher_is_better: false where a lower metric is better.
        given: the inputs of the workload.
        rebuilt: makes the model's output of its tensors by path.
        budget_s: seconds, of which reading the data takes a share; see `batches_of`.

    Raises:
        WorkloadError: a batch does not fit the inputs, or there are none.
    """
    read = batches_of(data, budget_s)
    if not read.found:
        raise WorkloadError("data has no batch", "give an iterable of batches, such as a list")
    inputs = [inputs_of(batch, given, number) for number, batch in enumerate(read.found)]
    name = getattr(metric, "__name__", type(metric).__name__)
    bound = AccuracyBound(name, drop or 0.0, higher_is_better, len(inputs))
    return MetricJudge(bound, metric, read, inputs, rebuilt)
