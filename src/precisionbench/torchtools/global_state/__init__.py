"""PyTorch's process-wide state: read it, set it for a while, restore it, find what has leaked.

Each part of the state has a module: `flags` (the global settings), `tf32` (the precision of
float32), `modes` (autocast, gradients, cuDNN's benchmark mode, threads), `functions` (patched
functions), `settings` (flags and autocast together), `random_states` and `dynamo` (the compiler).
"""

from precisionbench.torchtools.global_state.dynamo import (
    compilations,
    dynamo_not_imported_by,
    recompile_limit_lifted,
)
from precisionbench.torchtools.global_state.flags import flags_restored, read_flags, set_flags
from precisionbench.torchtools.global_state.functions import (
    Functions,
    foreign_functions,
    functions_restored,
)
from precisionbench.torchtools.global_state.modes import (
    autocast_off,
    cudnn_benchmark,
    gradients_off,
    threads,
)
from precisionbench.torchtools.global_state.random_states import rng_restored, seed_everything
from precisionbench.torchtools.global_state.settings import Settings
from precisionbench.torchtools.global_state.tf32 import fp32_precision, has_tf32, tf32_operations

__all__ = [
    "Functions",
    "Settings",
    "autocast_off",
    "compilations",
    "cudnn_benchmark",
    "dynamo_not_imported_by",
    "flags_restored",
    "foreign_functions",
    "fp32_precision",
    "functions_restored",
    "gradients_off",
    "has_tf32",
    "read_flags",
    "recompile_limit_lifted",
    "rng_restored",
    "seed_everything",
    "set_flags",
    "tf32_operations",
    "threads",
]
