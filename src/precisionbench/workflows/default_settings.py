"""The experiment `default-settings`: a row with torch's settings at their defaults."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import attrs
from torch import nn

from precisionbench.backends.base import Prepared
from precisionbench.system.default_threads import default_threads
from precisionbench.torchtools.global_state import flags_restored, set_flags
from precisionbench.torchtools.tensors import Inputs
from precisionbench.workflows.model_edits import EditedWorkload

NAME = "default-settings"
# Settings that select kernels. Those of TF32 are a row's own.
DEFAULTS = {
    "cudnn.enabled": True,
    "cudnn.deterministic": False,
    "mkldnn.enabled": True,
    "cuda.matmul.allow_fp16_reduced_precision_reduction": True,
    "cuda.matmul.allow_bf16_reduced_precision_reduction": True,
    "cuda.preferred_linalg_library": "default",
    "deterministic_algorithms": "off",
    **{f"cuda.{kind}_sdp": True for kind in ("flash", "mem_efficient", "math", "cudnn")},
}


@attrs.frozen
class DefaultSettings(EditedWorkload):
    """A backend whose calls run with torch's default settings."""

    @contextlib.contextmanager
    def prepare(
        self, model: nn.Module, inputs: Inputs
    ) -> Iterator[Prepared | Callable[[], object]]:
        """Set the defaults, then prepare; see `Backend.prepare`."""
        with flags_restored():
            threads = default_threads()
            set_flags(DEFAULTS if threads is None else {**DEFAULTS, "num_threads": threads})
            with self.backend.prepare(model, inputs) as prepared:
                yield prepared
