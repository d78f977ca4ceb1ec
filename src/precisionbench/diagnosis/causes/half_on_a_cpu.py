"""FP16/BF16 on a CPU without fast arithmetic for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.parts import MATRIX
from precisionbench.results.dtypes import BFLOAT16, FLOAT16
from precisionbench.statistics import Verdict

# Flags of x86 and ARM CPUs (Linux, /proc/cpuinfo) with matmul instructions for a dtype: Intel's
# instruction set reference (319433), Arm's list of ELF hardware capabilities.
_FAST: Mapping[str, tuple[str, ...]] = {
    BFLOAT16: ("avx512_bf16", "amx_bf16", "bf16", "svebf16"),
    FLOAT16: ("avx512_fp16", "amx_fp16", "fphp", "asimdhp"),
}
_NOT_FASTER = (Verdict.SLOWER, Verdict.EQUIVALENT, Verdict.DIFFERENT_BUT_SMALL)
# Arithmetic does not limit a call of which matrix work is less than this share.
_MIN_MATRIX_SHARE = 0.2
_GAIN = 1.05


def detect(context: CauseContext) -> CauseMatch | None:
    """A 16-bit row on a CPU without instructions for it that is not faster than the reference."""
    speedup, dtype = context.speedup, context.label.claim
    if context.facts.on_gpu or dtype not in _FAST or context.label.is_wrong or speedup is None:
        return None
    if speedup.verdict not in _NOT_FASTER or _is_elsewhere(context.facts, context.base):
        return None
    flags = context.data.environment.cpu_flags
    if flags is not None and not set(flags).isdisjoint(_FAST[dtype]):
        return None
    return CauseMatch(
        (Number("speed-up over the reference", speedup.value, "ratio"),),
        reason=_reason(dtype, flags),
        remedy=_remedy(dtype, flags or ()),
    )


def _is_elsewhere(facts: Facts, base: Facts | None) -> bool:
    """Whether the profile shows that matrix work is not what makes the row slow."""
    if not facts.busy_s:
        return False
    gains = base is not None and base.matrix_s > _GAIN * facts.matrix_s
    return gains or facts.share(MATRIX) < _MIN_MATRIX_SHARE


def _reason(dtype: str, flags: Sequence[str] | None) -> str:
    if flags is None:
        return "the CPU's flags were not recorded"
    return f"the CPU has none of the flags {', '.join(_FAST[dtype])}"


def _remedy(dtype: str, flags: Sequence[str]) -> str:
    """Bfloat16 in place of float16 where the CPU has instructions for that."""
    found = [flag for flag in _FAST[BFLOAT16] if flag in flags]
    if dtype == FLOAT16 and found:
        return f"use bfloat16, for which this CPU has {found[0]}, or stay in float32"
    return ""


CAUSE = Cause(
    "half-on-a-cpu",
    "no fast FP16/BF16 arithmetic on this CPU",
    "stay in float32, or use a CPU with AMX or AVX512-BF16 (bfloat16) or AVX512-FP16 (float16)",
    detect,
)
