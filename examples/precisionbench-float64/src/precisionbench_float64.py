"""A whole plugin: PyTorch in float64, what a result would be without rounding."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import attrs
import torch
from torch import nn

from precisionbench.backends import Backend, Claims, Inputs, Prepared


@attrs.frozen
class Float64(Backend):
    """Eager PyTorch in float64.

    Attributes:
        threads: CPU threads to compute with; 0 leaves torch's own setting.
    """

    name: ClassVar[str] = "float64"
    tunes_by_timing: ClassVar[bool] = False
    threads: int = 0

    def claims(self) -> Claims:
        """What the diagnosis verifies: that matmuls and convolutions run in float64."""
        return Claims(
            dtype="float64", engine="eager PyTorch", framework="PyTorch eager", sparsity="dense"
        )

    @contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        """Cast everything; torch's number of threads is put back by the library itself."""
        if self.threads:
            torch.set_num_threads(self.threads)
        model, inputs = model.double(), inputs.to(torch.float64)
        details = {"threads": torch.get_num_threads()}
        yield Prepared(inputs.bind(model), model, details, inputs=inputs)
