"""Random inputs of a shape that the user names, for models that come without inputs."""

from __future__ import annotations

import attrs
import torch


@attrs.frozen
class RandomInputs:
    """Makes float32 inputs between 0 and 1 from torch's current random state.

    Attributes:
        shapes: of one item of each input.
        batch_size: items in each input: their first dimension.
    """

    shapes: tuple[tuple[int, ...], ...]
    batch_size: int

    def __call__(self) -> tuple[torch.Tensor, ...]:
        """Make them."""
        return tuple(torch.rand(self.batch_size, *shape) for shape in self.shapes)
