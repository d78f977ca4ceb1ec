"""Whether a row ran in the precision that its backend claims, by several indicators."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Indicator, Label
from precisionbench.results.dtypes import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    INT8,
    LONG_NAMES,
    MATMUL_PRECISIONS,
    TF32,
)
from precisionbench.results.earlier_claims import claims_of

HALF = (FLOAT16, BFLOAT16)
# Names of the devices' peak rates.
RATES = {LONG_NAMES[rate]: rate for rate in MATMUL_PRECISIONS}
# Below this share of GEMM/conv time another precision is that of a first or last layer only.
_DETAIL = 0.05
# From this share on the label is false, not partly true.
_MOST = 0.5
# Boards differ in clocks, and some peaks are rounded.
BEYOND = 1.2
# The indicator that can only contradict the claimed precision.
RATE = "rate"


def label_of(facts: Facts) -> Label:
    """Check the precision that a row's backend claims.

    Args:
        facts: of the row.

    Returns:
        The claim, the verdict, and each indicator.
    """
    claim = claims_of(facts.row).dtype
    indicators = tuple(_indicators(facts, claim)) if claim else ()
    ran = _ran(facts)
    wrong = _wrong_share(facts, claim)
    impossible = any(one.against and one.name == RATE for one in indicators)
    if not claim or (wrong is None and not impossible):
        verdict = "unknown"
    elif impossible or (wrong or 0.0) >= _MOST:
        verdict = "false"
    else:
        verdict = "partly" if (wrong or 0.0) > _DETAIL else "true"
    if not ran and verdict in ("false", "partly"):
        ran = "in another precision"
    return Label(facts.row.backend, claim, verdict, ran, indicators)


def _wrong_share(facts: Facts, claim: str) -> float | None:
    """The share of GEMM/conv time that is known to have run in another precision."""
    if not facts.work or not claim:
        return None
    if claim == FLOAT32:
        wrong = facts.matrix_share_of(*HALF) + facts.kernel_share_of(TF32)
        return min(1.0, wrong) if _dtypes_are_known(facts) else None
    if claim == TF32:  # a permission: many kernels have no such form
        return facts.matrix_share_of(*HALF) if _dtypes_are_known(facts) else None
    if claim != INT8 and _dtypes_are_known(facts):  # operands of INT8 kernels can be floats
        return 1 - facts.matrix_share_of(claim)
    others = {FLOAT32, TF32, FLOAT16, BFLOAT16, INT8} - {claim}
    known = facts.kernel_share_of(claim, *others)
    return facts.kernel_share_of(*others) if known >= _MOST else None


def _dtypes_are_known(facts: Facts) -> bool:
    """Whether most of the GEMM/conv time is in operations whose operands are known."""
    total_s = sum(work.time_s for work in facts.work)
    known_s = sum(work.time_s for work in facts.work if work.dtype)
    return total_s > 0 and known_s >= _MOST * total_s


def _ran(facts: Facts) -> str:
    """The precision that most of its GEMM/conv work ran in, as text."""
    shares = {
        "in float16": facts.matrix_share_of(FLOAT16),
        "in bfloat16": facts.matrix_share_of(BFLOAT16),
        "in TF32": facts.matrix_share_of(FLOAT32) * facts.kernel_share_of(TF32),
        "in mixed precision": facts.matrix_share_of("mixed"),
        "in int8": facts.matrix_share_of("int8"),
        "in float64": facts.matrix_share_of("float64"),
    }
    shares["in float32"] = facts.matrix_share_of(FLOAT32) - shares["in TF32"]
    most = max(shares, key=lambda name: shares[name])
    return most if shares[most] > _DETAIL else ""


def _indicators(facts: Facts, claim: str) -> Iterator[Indicator]:
    yield from _operands(facts, claim)
    yield from _kernels(facts, claim)
    yield from _rate(facts, claim)
    yield from _output(facts, claim)
    yield from _functions(facts)


def _operands(facts: Facts, claim: str) -> Iterator[Indicator]:
    if not _dtypes_are_known(facts):
        return
    stored = FLOAT32 if claim == TF32 else claim
    right = facts.matrix_share_of(stored)
    others = sorted({w.dtype for w in facts.work if w.dtype not in ("", stored) and w.time_s})
    says = f"{right:.0%} of GEMM/conv time has {stored} operands"
    if others:
        says += f", the rest {' and '.join(others)}"
    yield Indicator("operands", says, right < 1 - _DETAIL)


def _kernels(facts: Facts, claim: str) -> Iterator[Indicator]:
    known = {d: facts.kernel_share_of(d) for d in (FLOAT32, TF32, FLOAT16, BFLOAT16, INT8)}
    found = ", ".join(f"{share:.0%} {name}" for name, share in known.items() if share > _DETAIL)
    if found:
        allowed = (FLOAT32, TF32) if claim == TF32 else (claim,)
        wrong = sum(share for name, share in known.items() if name not in allowed)
        yield Indicator("kernels", f"GEMM/conv kernels are {found} by name", wrong > _DETAIL)


def _rate(facts: Facts, claim: str) -> Iterator[Indicator]:
    """A rate well above the peak of what it claims is impossible; peaks are of one clock."""
    rate, peak = facts.min_flop_rate, facts.peak(RATES.get(claim, ""))
    if rate is None or peak is None:
        return
    says = f"{rate / 1e12:.3g} TFLOP/s, {claim} peak {peak / 1e12:.3g} TFLOP/s"
    yield Indicator(RATE, says, rate > BEYOND * peak)


def _output(facts: Facts, claim: str) -> Iterator[Indicator]:
    """A 16-bit output of a float32 row contradicts its claim; other outputs show little."""
    dtypes = sorted({t.dtype for t in facts.evidence.outputs if "float" in t.dtype})
    if dtypes:
        wrong = claim in (FLOAT32, TF32) and any(dtype in HALF for dtype in dtypes)
        yield Indicator("output", f"its output is {' and '.join(dtypes)}", wrong or None)


def _functions(facts: Facts) -> Iterator[Indicator]:
    names = facts.evidence.foreign_functions
    if names:
        says = f"{len(names)} torch functions were patched, e.g. {names[0]}"
        yield Indicator("functions", says, None)
