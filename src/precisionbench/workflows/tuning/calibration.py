"""INT8 configurations are calibrated with the user's data, where `tune` was given some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch

from precisionbench.backends import Backend
from precisionbench.errors import SpecError, WorkloadError
from precisionbench.model import fingerprint
from precisionbench.model.inputs import with_items
from precisionbench.results.tuning import CalibrationRecord
from precisionbench.torchtools.tensors import Inputs

MOST_BATCHES = 8


@attrs.frozen
class CalibrationBatches:
    """Batches to calibrate with.

    Attributes:
        batches: the tensors of the model's inputs for each of them, without labels.
        batch_size: items of each; None where it is not known.
    """

    batches: Sequence[Sequence[torch.Tensor]]
    batch_size: int | None

    @classmethod
    def first_of(
        cls, inputs: Sequence[Sequence[torch.Tensor]], batch_size: int | None
    ) -> CalibrationBatches:
        """The first few batches of the user's data.

        Args:
            inputs: the tensors of each batch that the model takes.
            batch_size: items of each.
        """
        return cls(inputs[:MOST_BATCHES], batch_size)

    @property
    def record(self) -> CalibrationRecord:
        """What identifies them in a result."""
        named = ((str(place), one) for few in self.batches for place, one in enumerate(few))
        return CalibrationRecord(len(self.batches), fingerprint.values(named))

    def given_to(self, backend: Backend, batch_size: int | None = None) -> Backend:
        """The backend with these batches; itself where it takes none or has others.

        Args:
            backend: of a configuration.
            batch_size: items of its inputs, where its option `batch_size` does not set them; None
                is as many as the batches hold.
        """
        options = attrs.fields_dict(type(backend))
        if "calibration_data" not in options or getattr(backend, "calibration", None):
            return backend
        try:
            changes: Any = {"calibration_data": self._at(backend.batch_size or batch_size)}
            return attrs.evolve(backend, **changes)
        except (SpecError, WorkloadError):  # its precision is not calibrated, or it has no batch
            return backend

    def _at(self, batch_size: int | None) -> list[tuple[torch.Tensor, ...]]:
        if batch_size is None or batch_size == self.batch_size:
            return [tuple(batch) for batch in self.batches]
        held = self.batch_size or 0
        return [with_items(Inputs(tuple(one)), held, batch_size).args for one in self.batches]
