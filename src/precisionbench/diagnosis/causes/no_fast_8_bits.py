"""The GPU or the CPU has no fast arithmetic for the 8-bit type of a row."""

from __future__ import annotations

from collections.abc import Sequence

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.cpu_instructions import INT8_FLAGS, int8_instruction
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.quantised import EIGHT_BITS
from precisionbench.results.dtypes import FLOAT8, SHORT_NAMES

# Ratio of the 8-bit peak to that of float16, below which there is little to gain.
_LEAST_RATIO = 1.3


def detect(context: CauseContext) -> CauseMatch | None:
    """By the device's data-sheet peaks, or the CPU's flags, for a row that is not faster."""
    dtype, gain = _dtype(context), context.gain_of_8_bits
    if not dtype or gain is None or context.gains_from_8_bits:
        return None
    measured = Number("speed-up over the fastest row in floats", gain, "ratio")
    if not context.facts.on_gpu:
        reason = _of_cpu(dtype, context.data.environment.cpu_flags)
        return CauseMatch((measured,), reason=reason) if reason else None
    ratio = _ratio(context, dtype)
    if ratio is None or ratio >= _LEAST_RATIO:
        return None
    name = f"{SHORT_NAMES[dtype].upper()} peak over FP16 peak"
    return CauseMatch((Number(name, ratio, "ratio"), measured))


def _dtype(context: CauseContext) -> str:
    """The 8-bit type that the row claims, or that most of its matrix work runs in."""
    found = context.quantisation
    if found is None or context.label.claim in EIGHT_BITS:
        return context.label.claim if found else ""
    times_s = {
        dtype: sum(work.time_s for work in found.eight_bits if work.dtype == dtype)
        for dtype in EIGHT_BITS
    }
    return max(times_s, key=lambda dtype: times_s[dtype]) if any(times_s.values()) else ""


def _ratio(context: CauseContext, dtype: str) -> float | None:
    """The 8-bit peak over that of float16; 0 for a known device without that rate."""
    eight, half = context.facts.peak(SHORT_NAMES[dtype]), context.facts.peak("fp16")
    return (eight or 0.0) / half if half else None


def _of_cpu(dtype: str, flags: Sequence[str] | None) -> str:
    """Why the CPU is not fast in that type; empty where it is, or its flags are not known."""
    if dtype == FLOAT8:
        return "CPUs convert float8 to a wider type before they multiply"
    if flags is None or int8_instruction(flags):
        return ""
    return f"the CPU has none of the flags {', '.join(INT8_FLAGS)}"


CAUSE = Cause(
    "no-fast-8-bits",
    "no fast INT8/FP8 arithmetic on this device",
    "stay in 16 bits or float32, or use a GPU with INT8 or FP8 tensor cores, or a CPU with VNNI, "
    "AMX, or Arm's dot product (INT8)",
    detect,
)
