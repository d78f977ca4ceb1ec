"""Whether a configuration is accurate enough: errors against float64, or a metric on user data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs
import torch

from precisionbench._internal.numbers import is_number
from precisionbench.errors import FOREIGN_ERRORS, SpecError, WorkloadError, kind_of, one_line
from precisionbench.model import fingerprint
from precisionbench.results.agreement import Agreement
from precisionbench.results.tuning import (
    BEYOND,
    RELATIVE_L2,
    UNCLEAR,
    WITHIN,
    Accuracy,
    AccuracyBound,
)
from precisionbench.statistics import Interval
from precisionbench.statistics.means import bootstrap_mean, next_value
from precisionbench.torchtools.agreement import compare_tensors
from precisionbench.torchtools.tensors import Inputs

# The error on other inputs stays below the upper end with this probability.
_CONFIDENCE = 0.99
_MAX_ERROR = 1e-2
# The given inputs, and as many shuffled ones, on which an error is measured.
SHUFFLED = 3
Outputs = Mapping[str, torch.Tensor]


class Judge(Protocol):
    """Says how accurate a configuration is, by its outputs for a number of inputs.

    Attributes:
        bound: how accurate it has to be.
        inputs: the tensors of each of the inputs, in the order of `Inputs.tensors`.
    """

    @property
    def bound(self) -> AccuracyBound:
        """How accurate a configuration has to be."""
        ...

    @property
    def inputs(self) -> Sequence[Sequence[torch.Tensor]]:
        """The tensors of each of the inputs."""
        ...

    @property
    def key(self) -> list[str]:
        """What its verdicts depend on, besides the bound."""
        ...

    def with_reference(self, outputs: Iterable[Outputs], reference: str) -> Judge:
        """The same judge, once the outputs of the reference are known, and what computed them."""
        ...

    def accuracy(self, outputs: Iterable[Outputs]) -> Accuracy:
        """The accuracy of a configuration with these outputs."""
        ...


# Errors


@attrs.frozen
class ErrorJudge:
    """Judges by the relative L2 error against the outputs of the model in float64.

    Attributes:
        bound: the largest error.
        inputs: the given inputs, and shuffled ones.
        expected: the outputs of the reference.
    """

    bound: AccuracyBound
    inputs: Sequence[Sequence[torch.Tensor]]
    expected: Sequence[Outputs] = ()

    @classmethod
    def of(cls, max_error: float | None, given: Inputs, seed: int) -> ErrorJudge:
        """A judge for a bound on the error.

        Args:
            max_error: the largest relative L2 error; None is 0.01.
            given: the inputs of the workload.
            seed: of the shuffling.
        """
        inputs = [*_with_shuffled([tensor for _, tensor in given.tensors()], seed)]
        limit = _MAX_ERROR if max_error is None else max_error
        return cls(AccuracyBound(RELATIVE_L2, limit, batches=len(inputs)), inputs)

    def with_reference(self, outputs: Iterable[Outputs], reference: str) -> ErrorJudge:
        """The same judge with the reference's outputs; inputs without a finite one are dropped.

        Args:
            outputs: for each of the inputs.
            reference: what computed them.
        """
        pairs = [*zip(self.inputs, outputs, strict=True)]
        usable = [pair for pair in pairs[1:] if _is_finite(pair[1])]
        inputs, expected = zip(pairs[0], *usable, strict=True)
        bound = attrs.evolve(self.bound, batches=len(inputs), reference=reference)
        return ErrorJudge(bound, inputs, expected)

    @property
    def key(self) -> list[str]:
        """The values of the inputs."""
        return [fingerprint.values(_numbered(tensors)) for tensors in self.inputs]

    @property
    def is_meaningless(self) -> bool:
        """Whether no output of the reference is finite and not zero: no error is relative to it."""
        tensors = [tensor for outputs in self.expected for tensor in outputs.values()]
        return bool(self.expected) and not any(map(_says_something, tensors))

    @property
    def output_bytes(self) -> int:
        """Size of the reference's outputs for one of the inputs; 0 until they are known."""
        return sum(tensor.nbytes for tensor in (self.expected or [{}])[0].values())

    def accuracy(self, outputs: Iterable[Outputs]) -> Accuracy:
        """The error of a configuration.

        Args:
            outputs: for each of the inputs; they are read no further than to a failure.
        """
        errors: list[float] = []
        for own, expected in zip(outputs, self.expected, strict=False):
            agreement = compare_tensors(own, expected)
            if reason := _mismatch(agreement):
                return Accuracy(None, BEYOND, reason)
            errors.append(agreement.relative_l2 or 0.0)
            if errors[-1] > self.bound.limit:
                break  # one input is enough
        loss = next_value(errors, _CONFIDENCE) if len(errors) > 1 else _single(errors[0])
        return _judged(loss, self.bound, "the error on other inputs could be above the bound")


def _numbered(tensors: Sequence[torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    return ((str(place), tensor) for place, tensor in enumerate(tensors))


def _single(error: float) -> Interval:
    return Interval(error, error, error)


def _mismatch(agreement: Agreement) -> str:
    """Why an output has no error; empty where it has one."""
    if agreement.problems:
        return agreement.problems[0]
    if count := agreement.nonfinite_count:
        return f"{count} elements are infinite or NaN where the reference is finite"
    if agreement.zero_references:
        return agreement.caveats[0]
    return ""


def _says_something(tensor: torch.Tensor) -> bool:
    return bool((tensor.isfinite() & (tensor != 0)).any())


def _is_finite(outputs: Outputs) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in outputs.values())


def _with_shuffled(tensors: Sequence[torch.Tensor], seed: int) -> Iterator[Sequence[torch.Tensor]]:
    """The tensors, and copies whose elements are shuffled within each item, alike in all items.

    Shuffled values have the distribution of the given ones, and stay valid indices and masks.
    """
    yield [tensor.detach().cpu() for tensor in tensors]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(SHUFFLED):
        yield [_shuffled(tensor.detach().cpu(), generator) for tensor in tensors]


def _shuffled(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if tensor.dim() < 1 or tensor.layout != torch.strided:
        return tensor
    items = tensor.reshape(tensor.shape[0] if tensor.dim() > 1 else 1, -1)
    order = torch.randperm(items.shape[1], generator=generator, device="cpu")
    return items[:, order].reshape(tensor.shape)


# Metrics


@attrs.frozen
class MetricJudge:
    """Judges by how much a metric drops below the reference's, on the user's own data.

    Attributes:
        bound: the largest drop.
        metric: gives a number for the outputs of a batch, and the batch.
        batches: the user's.
        inputs: the tensors of each batch that the model takes.
        rebuilt: makes the model's output of its tensors by path.
        expected: the metric of the reference, by batch.
    """

    bound: AccuracyBound
    metric: Callable[[Any, Any], float]
    batches: Sequence[Any]
    inputs: Sequence[Sequence[torch.Tensor]]
    rebuilt: Callable[[Outputs], Any]
    expected: Sequence[float] = ()

    @property
    def key(self) -> list[str]:
        """What the batches hold, labels among it, and what the metric does with them."""
        return [*map(fingerprint.batch, self.batches), fingerprint.code(self.metric)]

    def with_reference(self, outputs: Iterable[Outputs], reference: str) -> MetricJudge:
        """The same judge with the metric of the reference.

        Args:
            outputs: for each batch, or for the first ones; others are not used any further.
            reference: what computed them.

        Raises:
            WorkloadError: the metric is not finite.
        """
        expected = self._metrics(outputs)
        for number, metric in enumerate(expected):
            if not math.isfinite(metric):
                raise WorkloadError(
                    f"{self.bound.measure} is {metric} for batch {number} of data and {reference}",
                    "give a metric that is a finite number for each batch",
                )
        used = len(expected)
        return attrs.evolve(
            self,
            bound=attrs.evolve(self.bound, reference=reference, batches=used),
            batches=self.batches[:used],
            inputs=self.inputs[:used],
            expected=expected,
        )

    def accuracy(self, outputs: Iterable[Outputs]) -> Accuracy:
        """The drop of the metric of a configuration.

        Args:
            outputs: for each batch.
        """
        return self._by_metrics(self._metrics(outputs))

    @property
    def of_reference(self) -> Accuracy:
        """The accuracy of the reference itself, once its metric is known."""
        return Accuracy(_single(0.0), WITHIN, metric=sum(self.expected) / len(self.expected))

    def _by_metrics(self, own: Sequence[float]) -> Accuracy:
        mean = sum(own) / len(own)
        if not math.isfinite(mean):
            return Accuracy(None, BEYOND, f"{self.bound.measure} is {mean}")
        sign = 1 if self.bound.higher_is_better else -1
        drops = [sign * (theirs - ours) for ours, theirs in zip(own, self.expected, strict=True)]
        if len(drops) == 1:  # nothing shows how batches differ
            return Accuracy(None, UNCLEAR, "one batch does not show how far the drop varies", mean)
        reason = f"{len(drops)} batches are too few to show that the drop is within the bound"
        found = _judged(bootstrap_mean(drops), self.bound, reason)
        return attrs.evolve(found, metric=mean)

    def _metrics(self, outputs: Iterable[Outputs]) -> list[float]:
        return [
            self._metric(self.rebuilt(output), batch)
            for output, batch in zip(outputs, self.batches, strict=False)
        ]

    def _metric(self, output: Any, batch: Any) -> float:
        try:
            return float(self.metric(output, batch))
        except FOREIGN_ERRORS as exc:
            raise WorkloadError(
                f"the metric {self.bound.measure} failed ({one_line(exc)})",
                "it is called as metric(outputs, batch) and has to return a number",
            ) from exc


def _judged(loss: Interval, bound: AccuracyBound, unclear: str) -> Accuracy:
    """The verdict by both ends of the interval."""
    if loss.high <= bound.limit:
        return Accuracy(loss, WITHIN)
    if loss.low > bound.limit or (not bound.is_metric and loss.value > bound.limit):
        return Accuracy(loss, BEYOND)
    return Accuracy(loss, UNCLEAR, unclear)


def metric_judge(
    metric: Callable[[Any, Any], float],
    data: Iterable[Any] | None,
    drop: float | None,
    higher_is_better: bool,
    given: Inputs,
    rebuilt: Callable[[Outputs], Any],
) -> MetricJudge:
    """A judge for a bound on the drop of a metric.

    Args:
        metric: called with the outputs of a batch and the batch.
        data: batches; see `inputs_of`. Neither they nor the drop are None, as `check_bound` holds.
        drop: the largest drop.
        higher_is_better: false where a lower metric is better.
        given: the inputs of the workload.
        rebuilt: makes the model's output of its tensors by path.

    Raises:
        WorkloadError: a batch does not fit the inputs, or there are none.
    """
    batches = batches_of(data)
    if not batches:
        raise WorkloadError("data has no batch", "give an iterable of batches, such as a list")
    inputs = [inputs_of(batch, given, number) for number, batch in enumerate(batches)]
    name = getattr(metric, "__name__", type(metric).__name__)
    bound = AccuracyBound(name, drop or 0.0, higher_is_better, len(batches))
    return MetricJudge(bound, metric, batches, inputs, rebuilt)


def batches_of(data: Any) -> list[Any]:
    """All batches of the user's data.

    Args:
        data: an iterable of batches.

    Raises:
        WorkloadError: it is none, or cannot be read.
    """
    if isinstance(data, (torch.Tensor, str, Mapping)) or not isinstance(data, Iterable):
        raise WorkloadError(
            f"data is {kind_of(data)}, and no iterable of batches",
            "give a list of batches or a DataLoader, such as [(images, labels), ...]",
        )
    batches: list[Any] = []
    try:
        batches.extend(data)
    except FOREIGN_ERRORS as exc:
        raise WorkloadError(
            f"batch {len(batches)} of data cannot be read ({one_line(exc)})",
            "iterate over data once without precisionbench",
        ) from exc
    return batches


def inputs_of(batch: Any, given: Inputs, number: int) -> list[torch.Tensor]:
    """The tensors of a batch that the model takes.

    Args:
        batch: a tensor; a sequence whose first elements are the positional arguments, such as
            (images, labels); or a mapping that holds the keyword arguments by name.
        given: the inputs of the workload, which have the same structure.
        number: of the batch, for the error.

    Raises:
        WorkloadError: the batch does not fit.
    """
    try:
        args, kwargs = _arguments(batch, given)
    except (KeyError, IndexError, TypeError, ValueError) as exc:
        raise WorkloadError(
            f"batch {number} of data, {kind_of(batch)}, does not hold the model's inputs "
            f"({one_line(exc)})",
            f"give {_wanted(given)}",
        ) from exc
    tensors = [tensor.detach().cpu() for _, tensor in Inputs(args, kwargs).tensors()]
    want = [tuple(tensor.shape) for _, tensor in given.tensors()]
    if len(tensors) != len(want):
        raise WorkloadError(
            f"batch {number} of data has {len(tensors)} tensors for the model, which is tuned for "
            f"{len(want)}",
            f"give {_wanted(given)}; torch.as_tensor(array) makes tensors of arrays",
        )
    got = [tuple(tensor.shape) for tensor in tensors]
    if got != want:
        raise WorkloadError(
            f"batch {number} of data has inputs of shape {got}, and the model is tuned for {want}",
            "give batches of the size of inputs, without a smaller last one (drop_last=True)",
        )
    return tensors


def _arguments(batch: Any, given: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, torch.Tensor):
        return (batch,), {}
    if isinstance(batch, Mapping):
        if given.args:
            raise TypeError("it holds arguments by name, and inputs has them by position")
        return (), {name: batch[name] for name in given.kwargs}
    first = tuple(batch[place] for place in range(len(given.args)))
    if not given.kwargs:
        return first, {}
    named = batch[len(first)]
    if not isinstance(named, Mapping):
        raise TypeError(f"inputs has {', '.join(given.kwargs)} by name")
    return first, {name: named[name] for name in given.kwargs}


def _wanted(given: Inputs) -> str:
    """What a batch has to be, for these inputs."""
    if not given.args:
        return "mappings with the names of inputs, and the labels beside these"
    if given.kwargs:
        return "(arguments..., {names: arguments}, labels), or inputs and batches as mappings"
    return "(inputs, labels), or give inputs as a mapping by name as well"


def check_bound(max_error: float | None, metric: object, data: object, drop: float | None) -> None:
    """Raise unless there is either a bound on the error, or a metric with data and a drop.

    Raises:
        SpecError: what is missing, or too much.
    """
    if max_error is not None and metric is not None:
        raise SpecError(
            "both max_error and metric are given", "give max_error, or metric, data and drop"
        )
    given = {"metric": metric, "data": data, "drop": drop}
    missing = [name for name, value in given.items() if value is None]
    if metric is None and len(missing) < len(given):
        raise SpecError(
            "data and drop belong to a metric", "give metric as well: a function(outputs, batch)"
        )
    if metric is not None and missing:
        raise SpecError(
            f"metric needs {' and '.join(missing)} as well",
            "give metric=function(outputs, batch), data=batches and drop=0.005, say",
        )
    name, limit = ("max_error", max_error) if metric is None else ("drop", drop)
    if limit is not None and not is_number(limit, 0, math.inf):
        raise SpecError(f"{name} is {limit!r}", "give a number such as 0.01")
