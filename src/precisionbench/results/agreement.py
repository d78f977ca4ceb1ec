"""Numerical error of a row's output against the reference row's output."""

from __future__ import annotations

from typing import ClassVar

import attrs

from precisionbench.display import Shown
from precisionbench.results.validators import check_shape


@attrs.frozen(repr=False)
class TensorAgreement(Shown):
    """Numerical error of one output tensor against the reference's, computed in float64.

    Attributes:
        path: path of the tensor in the output, e.g. `['logits']`; empty for a bare tensor.
        shape: its shape.
        dtype: its dtype in this row.
        relative_l2: `‖out - ref‖ / ‖ref‖`.
        cosine: `⟨out, ref⟩ / (‖out‖ ‖ref‖)`.
        batch_centred_relative_l2: `relative_l2` after each side's mean over the batch (first
            dimension) is subtracted; None for a single item.
        max_abs_error: `max |out - ref|`.
        nonfinite_count: elements that are infinite or NaN in exactly one of the two outputs.
            They are excluded from the figures above.
        top1: share of items whose largest class is the reference's; None where the output is not
            of shape (items, classes), or the reference has the same class for all items.
    """

    path: str
    shape: tuple[int, ...] = attrs.field(validator=check_shape)
    dtype: str
    relative_l2: float | None
    cosine: float | None
    batch_centred_relative_l2: float | None
    max_abs_error: float | None
    nonfinite_count: int
    top1: float | None = None


@attrs.frozen(repr=False)
class Agreement(Shown):
    """Numerical error of a row's output against the reference row's, on the same inputs.

    Attributes:
        tensors: one record for each pair of tensors of equal shape.
        problems: tensors that could not be compared, e.g. because the shapes differ.
    """

    _shown: ClassVar[tuple[str, ...]] = (
        "relative_l2",
        "max_abs_error",
        "top1",
        "nonfinite_count",
        "problems",
    )

    tensors: tuple[TensorAgreement, ...] = ()
    problems: tuple[str, ...] = ()

    def _known(self, field: str) -> list[float]:
        values = [getattr(tensor, field) for tensor in self.tensors]
        return [value for value in values if value is not None]

    @property
    def relative_l2(self) -> float | None:
        """The largest over all output tensors."""
        return max(self._known("relative_l2"), default=None)

    @property
    def cosine(self) -> float | None:
        """The smallest over all output tensors."""
        return min(self._known("cosine"), default=None)

    @property
    def batch_centred_relative_l2(self) -> float | None:
        """The largest over all output tensors."""
        return max(self._known("batch_centred_relative_l2"), default=None)

    @property
    def max_abs_error(self) -> float | None:
        """The largest over all output tensors."""
        return max(self._known("max_abs_error"), default=None)

    @property
    def top1(self) -> float | None:
        """The smallest over all output tensors of shape (items, classes)."""
        return min(self._known("top1"), default=None)

    @property
    def nonfinite_count(self) -> int:
        """The sum over all output tensors."""
        return sum(tensor.nonfinite_count for tensor in self.tensors)

    @property
    def zero_references(self) -> tuple[TensorAgreement, ...]:
        """Tensors that are zero in the reference only, so that a relative error does not exist."""
        return tuple(t for t in self.tensors if t.relative_l2 is None and t.max_abs_error)

    @property
    def caveats(self) -> tuple[str, ...]:
        """Warnings that qualify the figures."""
        found = [
            f"output{tensor.path} is zero everywhere in the reference and differs by up to "
            f"{tensor.max_abs_error:.1e} in this row"
            for tensor in self.zero_references
        ]
        if not self.tensors and not self.problems:
            found.append("the output holds no tensor, so there is nothing to compare")
        elif self.tensors and all(t.max_abs_error is None for t in self.tensors):
            found.append("the output has no finite element to compare")
        elif self.tensors and all(t.relative_l2 == 0 and t.cosine is None for t in self.tensors):
            found.append(
                "the output is zero everywhere, in this row and in the reference, so its numerical "
                "error is not meaningful; use trained weights"
            )
        return (*self.problems, *found)
