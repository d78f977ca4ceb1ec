"""Known causes of slow or wrong figures: one file for each, and this list.

A new cause is a new file with a `CAUSE`, its name here, a page in `docs/causes` and a case in
`tests/test_causes.py`.
"""

from __future__ import annotations

from precisionbench.diagnosis.causes import (
    attention_fallback,
    batch_norm_in_float32,
    constant_inputs,
    denormals,
    device_allocations,
    engine_fallback,
    engine_on_the_cpu,
    graph_breaks,
    grouped_convolutions,
    half_on_a_cpu,
    half_scatter,
    host_copies,
    kernel_choice,
    launch_bound,
    layout_conversions,
    memory_bound,
    no_fast_half,
    norms_undo_channels_last,
    overflow,
    patched_functions,
    recast_weights,
    recompilation,
    recurrent_layers,
    short_compiled_calls,
    tensor_core_obstacles,
    tensorrt_defaults,
    tensorrt_fell_back,
    tf32_baseline,
    throttled,
    torch_settings,
    uneven_calls,
    waits_inside,
    wider_dtype,
    wrong_batch,
)
from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch

CAUSES: tuple[Cause, ...] = (
    waits_inside.CAUSE,
    launch_bound.CAUSE,
    no_fast_half.CAUSE,
    throttled.CAUSE,
    device_allocations.CAUSE,
    recast_weights.CAUSE,
    tensorrt_fell_back.CAUSE,
    engine_on_the_cpu.CAUSE,
    engine_fallback.CAUSE,
    tensorrt_defaults.CAUSE,
    layout_conversions.CAUSE,
    norms_undo_channels_last.CAUSE,
    kernel_choice.CAUSE,
    tensor_core_obstacles.CAUSE,
    grouped_convolutions.CAUSE,
    attention_fallback.CAUSE,
    recurrent_layers.CAUSE,
    half_scatter.CAUSE,
    tf32_baseline.CAUSE,
    memory_bound.CAUSE,
    patched_functions.CAUSE,
    host_copies.CAUSE,
    wrong_batch.CAUSE,
    batch_norm_in_float32.CAUSE,
    constant_inputs.CAUSE,
    overflow.CAUSE,
    half_on_a_cpu.CAUSE,
    graph_breaks.CAUSE,
    recompilation.CAUSE,
    short_compiled_calls.CAUSE,
    torch_settings.CAUSE,
    wider_dtype.CAUSE,
    denormals.CAUSE,
    uneven_calls.CAUSE,
)

__all__ = ["CAUSES", "Cause", "CauseContext", "CauseMatch"]
