"""FLOPs of known models, from `data/flops.toml`."""

from __future__ import annotations

from functools import cache

import attrs

from precisionbench._internal.data_files import read_toml

# Winograd's algorithm reduces the multiplications of a 3x3 convolution by up to this factor, so a
# rate computed from the usual FLOPs may exceed the peak by that factor without being impossible.
WINOGRAD = 4.0
_FLOPS_PER_GMAC = 2e9


@attrs.frozen
class ItemFlops:
    """FLOPs of one item, 2 x multiply-add.

    Attributes:
        usual: FLOPs as they are usually counted.
        least: FLOPs with Winograd's algorithm wherever it can be used.
        of: name of the model, such as `ResNet-50 v1.5`.
    """

    usual: float
    least: float
    of: str


@attrs.frozen
class Entry:
    """A model of the data file.

    Attributes:
        name: torchvision's name of it.
        input: shape of one item, such as `3x224x224`.
        gmacs: multiply-adds of one item, in 1e9.
        winograd_gmacs: the part of them in convolutions that Winograd's algorithm can do.
        variant: such as `v1.5`; empty where there is only one.
    """

    name: str
    input: str
    gmacs: float
    winograd_gmacs: float
    variant: str = ""

    @property
    def flops(self) -> ItemFlops:
        """FLOPs of one item."""
        saved = self.winograd_gmacs * (1 - 1 / WINOGRAD)
        of = f"{self.name} {self.variant}".strip()
        return ItemFlops(self.gmacs * _FLOPS_PER_GMAC, (self.gmacs - saved) * _FLOPS_PER_GMAC, of)


def stated_flops(gmacs: float, of: str) -> ItemFlops:
    """FLOPs of an item of a model that is not in the data file.

    Args:
        gmacs: multiply-adds of one item, in 1e9; all of them may be in 3x3 convolutions.
        of: name of the model.
    """
    return Entry(of, "", gmacs, gmacs).flops


@cache
def entries() -> tuple[Entry, ...]:
    """All models of the data file."""
    return tuple(Entry(**entry) for entry in read_toml("flops.toml")["model"])
