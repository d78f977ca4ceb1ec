"""Whether a configuration still computes what it was judged by, in each of its processes.

It was judged in one process, and before it was timed. A further process can compute something
else, and so can later calls: those of a cache, say, or of another batch size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import attrs
import torch

from precisionbench.errors import WorkerError
from precisionbench.model.workload import Workload
from precisionbench.results.tuning import BEYOND, RELATIVE_L2, WITHIN, Accuracy, AccuracyBound
from precisionbench.torchtools.saving import save
from precisionbench.workflows.tuning.accuracy import ErrorJudge, Judge, Outputs

# Outputs that differ by less need no metric (relative L2): kernels that were chosen anew round
# differently.
_ALIKE = 0.05


class Process(Protocol):
    """A process of a configuration."""

    @property
    def output(self) -> Mapping[str, torch.Tensor]:
        """The output of its first call, with the given inputs."""
        ...

    def outputs_of(self, inputs_path: str) -> Mapping[str, torch.Tensor]:
        """Its output for other inputs."""
        ...


def given_inputs(workload: Workload, size: int, folder: Path) -> Path:
    """The file of the given inputs at a batch size.

    Args:
        workload: has them.
        size: items in the batch; 0 for a workload without one.
        folder: where the file is, or is written.
    """
    path = folder / f"given-{size}.pt"
    if not path.exists():
        same = size in (0, workload.info.batch_size)
        inputs = (workload if same else workload.with_batch(size)).inputs
        save([tensor.detach().cpu().clone() for _, tensor in inputs.tensors()], path)
    return path


@attrs.frozen
class Recheck:
    """Judges a configuration again.

    Attributes:
        judge: has judged it.
        inputs: file of the given inputs at the configuration's batch size.
        size: items in its batch.
        given: items in the batch of the judge's outputs.
        by_metric: the accuracy of a process by the judge's metric.
        note: takes why a process could not be judged, where another one could.
    """

    judge: Judge
    inputs: Path
    size: int
    given: int
    by_metric: Callable[[Process], Accuracy]
    note: Callable[[str], object]

    def changed(self, processes: Sequence[Process]) -> Accuracy | None:
        """What a process computes, where that is not accurate any more.

        Args:
            processes: of one configuration, the one that was judged first.

        Raises:
            PrecisionBenchError: a call failed, or all processes have ended or hang.
        """
        count, ended = len(processes), list[WorkerError]()
        for number, process in enumerate(processes, 1):
            where = f" in process {number} of {count}" if count > 1 else ""
            try:
                found = self._of(process, processes[0])
            except WorkerError as exc:  # others show what it computes
                ended.append(exc)
                continue
            if found is not None:
                reason = f"{_text(found)} when it was judged again{where}"
                return Accuracy(found.loss, BEYOND, reason, found.metric)
        if len(ended) == count:
            raise ended[0]
        for error in ended:
            self.note(f"one of {count} processes could not be judged again: {error}")
        return None

    def _of(self, process: Process, first: Process) -> Accuracy | None:
        own = process.outputs_of(str(self.inputs))
        if isinstance(self.judge, ErrorJudge):
            return self._by_error(own, self.judge.bound, self.judge.expected[0])
        alike = AccuracyBound(RELATIVE_L2, _ALIKE)
        is_alike = ErrorJudge(alike, (), [first.output]).accuracy([own]).verdict == WITHIN
        if is_alike or self.size != self.given:  # batches of data have the given size
            return None
        found = self.by_metric(process)
        is_worse = found.loss is None or found.loss.value > self.judge.bound.limit
        return found if is_worse else None

    def _by_error(self, own: Outputs, bound: AccuracyBound, expected: Outputs) -> Accuracy | None:
        """By the error of the whole batch; of few of its items, as if the others had as much."""
        own, expected = at_batch(own, expected, self.size, self.given)
        if not expected:
            return None
        share = min(1.0, math.sqrt(self.size / self.given)) if self.given else 1.0
        scaled = attrs.evolve(bound, limit=share * bound.limit)
        found = ErrorJudge(scaled, (), [expected]).accuracy([own])
        if found.verdict == WITHIN:
            return None
        return attrs.evolve(found, loss=found.loss and found.loss.scaled(1 / share))


def _text(found: Accuracy) -> str:
    if found.reason or found.loss is None:
        return found.reason
    if found.metric is not None:
        return f"the metric dropped by {found.loss.value:.2g}"
    return f"the relative L2 error was {found.loss.value:.2g}"


def at_batch(own: Outputs, expected: Outputs, size: int, given: int) -> tuple[Outputs, Outputs]:
    """Outputs at a batch size, and those that they have to be, by outputs at another one.

    Inputs at another batch size are the first items of the given ones, or these repeated. Where
    items are missing, the expected ones take their place. Outputs in which no dimension belongs to
    the batch are left out.

    Args:
        own: outputs of a batch of `size` items.
        expected: outputs of a batch of `given` items.
        size: items in the one batch.
        given: items in the other one.
    """
    if size == given:
        return own, expected
    ours, theirs = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for name in expected.keys() & own.keys():
        dim = _batch_dim(own[name], expected[name], size, given)
        if dim is not None:
            ours[name], theirs[name] = _alike(own[name], expected[name], dim)
    return ours, theirs


def _batch_dim(own: torch.Tensor, expected: torch.Tensor, size: int, given: int) -> int | None:
    """The only dimension in which two outputs differ, where that is by their batch sizes."""
    if own.dim() != expected.dim():
        return None
    differing = [dim for dim in range(own.dim()) if own.shape[dim] != expected.shape[dim]]
    if len(differing) != 1:
        return None
    (dim,) = differing
    return dim if own.shape[dim] * given == expected.shape[dim] * size else None


def _alike(
    own: torch.Tensor, expected: torch.Tensor, dim: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with the longer of their lengths along a dimension."""
    count, known = own.shape[dim], expected.shape[dim]
    if count < known:
        rest = expected.narrow(dim, count, known - count)
        return torch.cat([own.to(expected.dtype), rest], dim), expected
    repeated = torch.cat([expected] * math.ceil(count / known), dim)
    return own, repeated.narrow(dim, 0, count)
