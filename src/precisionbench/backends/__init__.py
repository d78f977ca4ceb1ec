"""Precision backends: the base class that plugins subclass, and how they are found.

A plugin is an `attrs.frozen` subclass of `Backend`, registered under the entry-point group
`precisionbench.backends`; `docs/backends.md` shows how to write one.
"""

from precisionbench.backends.base import Backend, Prepared
from precisionbench.backends.rungs import Capabilities, Rung, Stage, TuningOptions
from precisionbench.results.claims import Claims
from precisionbench.torchtools.tensors import Inputs

__all__ = [
    "Backend",
    "Capabilities",
    "Claims",
    "Inputs",
    "Prepared",
    "Rung",
    "Stage",
    "TuningOptions",
]
