"""Whether a configuration is accurate enough: errors against float64."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import attrs
import torch

from precisionbench._internal.numbers import is_number
from precisionbench.errors import SpecError, WorkloadError, kind_of
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
from precisionbench.statistics.means import next_value
from precisionbench.torchtools.agreement import compare_tensors
from precisionbench.torchtools.tensors import Inputs

# The error on other inputs stays below the upper end with this probability.
_CONFIDENCE = 0.99
_MAX_ERROR = 1e-2
# The given inputs, and as many shuffled ones, on which an error is measured.
SHUFFLED = 3
_ALONE = (
    "the outputs of {} for shuffled inputs are infinite or NaN where those for the given ones are "
    "not, so the error is that of the given inputs only, and has no interval"
)
_RETURN_TENSORS = (
    "accuracy is judged by tensors, so let the model return some, such as torch.as_tensor(number) "
    "for a number"
)
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

    @property
    def notes(self) -> Sequence[str]:
        """What qualifies its verdicts."""
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
        notes: what qualifies the errors.
    """

    bound: AccuracyBound
    inputs: Sequence[Sequence[torch.Tensor]]
    expected: Sequence[Outputs] = ()
    notes: Sequence[str] = ()

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
        """The same judge with the reference's outputs.

        Shuffled inputs are dropped whose outputs are infinite or NaN where those of the given ones
        are not: there, outputs cannot be compared. A mask of the model stays at its places.

        Args:
            outputs: for each of the inputs.
            reference: what computed them.

        Raises:
            WorkloadError: the outputs have no element.
        """
        pairs = [*zip(self.inputs, outputs, strict=True)]
        given = pairs[0][1]
        _check_elements(given, reference)
        usable = [pair for pair in pairs[1:] if _is_usable(pair[1], given)]
        inputs, expected = zip(pairs[0], *usable, strict=True)
        bound = attrs.evolve(self.bound, batches=len(inputs), reference=reference)
        is_alone = len(inputs) == 1 < len(pairs)
        return ErrorJudge(bound, inputs, expected, (_ALONE.format(reference),) * is_alone)

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
            if reason := _mismatch(agreement, own, expected):
                return Accuracy(None, BEYOND, reason)
            errors.append(agreement.relative_l2 or 0.0)
            if errors[-1] > self.bound.limit:
                break  # one input is enough
        loss = next_value(errors, _CONFIDENCE) if len(errors) > 1 else single(errors[0])
        return judged(loss, self.bound, "the error on other inputs could be above the bound")


def _numbered(tensors: Sequence[torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    return ((str(place), tensor) for place, tensor in enumerate(tensors))


def single(error: float) -> Interval:
    """A value without spread.

    Args:
        error: the value, which is both ends as well.
    """
    return Interval(error, error, error)


def _mismatch(agreement: Agreement, own: Outputs, expected: Outputs) -> str:
    """Why an output has no error; empty where it has one."""
    if agreement.problems:
        return agreement.problems[0]
    if count := agreement.nonfinite_count:
        if _is_finite(expected):
            return f"{count} elements are infinite or NaN where the reference is finite"
        if _is_finite(own):
            return f"{count} elements are finite where the reference is infinite or NaN"
        return f"{count} elements are infinite or NaN in another way than in the reference"
    if agreement.zero_references:
        return agreement.caveats[0]
    return ""


def _says_something(tensor: torch.Tensor) -> bool:
    return bool((tensor.isfinite() & (tensor != 0)).any())


def _is_finite(outputs: Outputs) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in outputs.values())


def _is_usable(outputs: Outputs, given: Outputs) -> bool:
    """Whether outputs are finite, or not finite only at the places of those of the given inputs."""
    return all(
        bool(tensor.isfinite().all())
        or (path in given and torch.equal(tensor.isfinite(), given[path].isfinite()))
        for path, tensor in outputs.items()
    )


def without_tensors(reference: str) -> WorkloadError:
    """The error for outputs by which nothing can be judged.

    Args:
        reference: what computed them.
    """
    return WorkloadError(f"the output of {reference} holds no tensor", _RETURN_TENSORS)


def _check_elements(outputs: Outputs, reference: str) -> None:
    """Raise where there is nothing of which an error could be computed."""
    if not outputs:
        raise without_tensors(reference)
    if not any(tensor.numel() for tensor in outputs.values()):
        raise WorkloadError(
            f"all tensors in the output of {reference} are empty, so there is no error to judge by",
            "give other inputs, or metric, data and drop instead of max_error",
        )


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


# Bounds


def judged(loss: Interval, bound: AccuracyBound, unclear: str) -> Accuracy:
    """The accuracy with the verdict by both ends of an interval.

    Args:
        loss: the error, or the drop of a metric.
        bound: of it.
        unclear: the reason where the interval holds the bound.
    """
    if loss.high <= bound.limit:
        return Accuracy(loss, WITHIN)
    if loss.low > bound.limit or (not bound.is_metric and loss.value > bound.limit):
        return Accuracy(loss, BEYOND)
    return Accuracy(loss, UNCLEAR, unclear)


def check_bound(max_error: float | None, metric: object, data: object, drop: float | None) -> None:
    """Raise unless there is either a bound on the error, or a metric with data and a drop.

    Raises:
        SpecError: what is missing, or too much.
    """
    if max_error is not None and metric is not None:
        raise SpecError(
            "both max_error and metric are given", "give max_error, or metric, data and drop"
        )
    if metric is not None and not callable(metric):
        raise SpecError(
            f"metric is {kind_of(metric)}, and no function",
            "give the function itself: metric(outputs, batch) returns a number for a batch",
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
