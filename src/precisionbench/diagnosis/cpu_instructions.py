"""How much faster a CPU multiplies 8-bit integers than float32, by its flags."""

from __future__ import annotations

from collections.abc import Sequence

# Multiply-adds of an instruction, divided by those of a float32 multiply-add of the same register
# width (of AMX: of a cycle, beside two AVX-512 units). Flags are those of Linux (/proc/cpuinfo).
# Intel's instruction set reference (319433: VPDPBUSD, TDPBSSD) and optimisation manual (248966:
# AMX, 1024 multiply-adds a cycle beside 32 in float32); Arm's reference manual (SDOT, SMMLA).
_INT8_GAINS = {
    "amx_int8": 32.0,
    "i8mm": 8.0,
    "svei8mm": 8.0,
    "avx512_vnni": 4.0,
    "avx_vnni": 4.0,
    "avx_vnni_int8": 4.0,
    "asimddp": 4.0,
}
INT8_FLAGS = tuple(_INT8_GAINS)


def int8_instruction(flags: Sequence[str]) -> tuple[str, float] | None:
    """The fastest int8 instructions of a CPU: their flag, and their rate divided by float32's.

    Args:
        flags: of the CPU.

    Returns:
        None where it has none. Other x86 CPUs need three instructions for as much, which gains
        less than a half.
    """
    found = [(flag, gain) for flag, gain in _INT8_GAINS.items() if flag in flags]
    return max(found, key=lambda one: one[1], default=None)
