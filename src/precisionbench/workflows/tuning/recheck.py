"""Whether a configuration still computes what it was judged by, in each of its processes.

It was judged in one process, and before it was timed. A further process can compute something
else, and so can later calls: those of a cache, say, or of another batch size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch

from precisionbench.model.workload import Workload
from precisionbench.results.tuning import BEYOND, RELATIVE_L2, WITHIN, Accuracy, AccuracyBound
from precisionbench.torchtools.saving import save
from precisionbench.workflows.tuning.accuracy import ErrorJudge, Judge, Outputs

# Relative L2 between outputs of a configuration that a metric judges: kernels that were chosen
# anew round differently.
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


def changed(
    processes: Iterable[Process], judge: Judge, inputs: Path, size: int, given: int
) -> Accuracy | None:
    """What a process computes for the given inputs, where that is not accurate any more.

    Args:
        processes: of one configuration, the one that was judged first.
        judge: has judged it.
        inputs: file of the given inputs at the configuration's batch size.
        size: items in its batch.
        given: items in the batch of the judge's outputs.

    Raises:
        PrecisionBenchError: a call failed.
    """
    open_now = list(processes)
    for number, process in enumerate(open_now, 1):
        own = process.outputs_of(str(inputs))
        if isinstance(judge, ErrorJudge):
            pairs = [*at_batch(own, judge.expected[0], size, given)]
        else:
            pairs = [(own, open_now[0].output)]
        for one, expected in pairs:
            found = _bound_of(judge, expected).accuracy([one])
            if found.verdict != WITHIN:
                where = f" in process {number} of {len(open_now)}" if len(open_now) > 1 else ""
                reason = f"{_text(found)} when it was judged again{where}"
                return Accuracy(found.loss, BEYOND, reason)
    return None


def _bound_of(judge: Judge, expected: Outputs) -> ErrorJudge:
    """By the user's bound on the error; with a metric, outputs have to be about the same."""
    bound = AccuracyBound(RELATIVE_L2, _ALIKE) if judge.bound.is_metric else judge.bound
    return ErrorJudge(bound, (), [expected])


def _text(found: Accuracy) -> str:
    value = found.loss.value if found.loss else math.nan
    return found.reason or f"the relative L2 error was {value:.2g}"


def at_batch(
    own: Outputs, expected: Outputs, size: int, given: int
) -> Iterator[tuple[Outputs, Outputs]]:
    """Outputs at a batch size, in parts that have to be those at another one.

    Inputs at another batch size are the first items of the given ones, or these repeated. Outputs
    in which no dimension belongs to the batch are left out.

    Args:
        own: outputs of a batch of `size` items.
        expected: outputs of a batch of `given` items.
        size: items in the one batch.
        given: items in the other one.

    Yields:
        Some of both, of the same shapes.
    """
    if size == given:
        yield own, expected
        return
    shared = expected.keys() & own.keys()
    along = {name: _batch_dim(own[name], expected[name], size, given) for name in shared}
    known = {name: dim for name, dim in along.items() if dim is not None}
    for begin in range(0, size if known else 0, given):
        count = min(given, size - begin)
        yield (
            {name: _items(own[name], dim, size, begin, count) for name, dim in known.items()},
            {name: _items(expected[name], dim, given, 0, count) for name, dim in known.items()},
        )


def _batch_dim(own: torch.Tensor, expected: torch.Tensor, size: int, given: int) -> int | None:
    """The only dimension in which two outputs differ, where that is by their batch sizes."""
    if own.dim() != expected.dim():
        return None
    differing = [dim for dim in range(own.dim()) if own.shape[dim] != expected.shape[dim]]
    if len(differing) != 1:
        return None
    (dim,) = differing
    return dim if own.shape[dim] * given == expected.shape[dim] * size else None


def _items(tensor: torch.Tensor, dim: int, size: int, begin: int, count: int) -> torch.Tensor:
    """Some items of a batch, each of which may have several elements along the dimension."""
    each = tensor.shape[dim] // size
    return tensor.narrow(dim, begin * each, count * each)
