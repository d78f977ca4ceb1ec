"""Whether a row ran as its backend claims: its precision, by several indicators, and engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import attrs

from precisionbench.diagnosis.engine_label import DETAIL, MOST, with_engine
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Indicator, Label
from precisionbench.diagnosis.operands import PACKED
from precisionbench.results.dtypes import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    INT8,
    SHORT_NAMES,
    TF32,
)
from precisionbench.results.earlier_claims import claims_of

HALF = (FLOAT16, BFLOAT16)
# Boards differ in clocks, and some peaks are rounded.
BEYOND = 1.2
# The indicator that can only contradict the claimed precision.
RATE = "rate"
_ATTENTION = "scaled_dot_product_attention"  # calls the fused operation
# How the names of operations begin whose operands are those of the kernels in them.
_TORCH = ("aten::", "triton_")


def label_of(facts: Facts) -> Label:
    """Check the precision and the engine that a row's backend claims.

    Args:
        facts: of the row.

    Returns:
        The claim, the verdict, and each indicator.
    """
    return with_engine(precision_label_of(facts), facts)


def precision_label_of(facts: Facts) -> Label:
    """Check the precision that a row's backend claims, whichever engine ran it.

    Args:
        facts: of the row.

    Returns:
        The claim, the verdict, and each indicator.
    """
    claims = claims_of(facts.row)
    claim, whole = claims.dtype, facts
    facts = _besides_attention(whole, claims.attention)
    indicators = tuple(_indicators(facts, claim)) if claim else ()
    if facts is not whole:
        indicators = (*indicators, _left_attention(whole, claims.attention))
    ran = _ran(facts)
    wrong = max((_wrong_share(facts, claim), _wrong_layers(facts, claim)), key=_or_none)
    impossible = any(one.against and one.name == RATE for one in indicators)
    reason = ""
    if not claim or (wrong is None and not impossible):
        verdict, reason = "unknown", _why_unknown(facts, claim)
    elif impossible or (wrong or 0.0) >= MOST:
        verdict = "false"
    elif (wrong or 0.0) > DETAIL:
        verdict, ran = "partly", _ran(facts, besides=claim) or ran
    elif unclear := _why_unclear(facts, claim):
        verdict, ran, reason = "unknown", "", unclear
    else:
        verdict = "true"
    if not ran and verdict in ("false", "partly"):
        ran = "in another precision"
    return Label(facts.row.backend, claim, verdict, ran, indicators, reason=reason)


def _besides_attention(facts: Facts, dtype: str) -> Facts:
    """What a claim covers that leaves fused attention in another dtype; all without such one."""
    left = [work.operation for work in facts.work if work.is_attention and work.dtype == dtype]
    if not dtype or not left or len(left) == len(facts.work):
        return facts
    around = {name for one in left for name in one.parents if _ATTENTION in name}
    kept = [
        one
        for one in facts.evidence.operations
        if one.name not in around and not any(one is other for other in left)
    ]
    return attrs.evolve(facts, evidence=attrs.evolve(facts.evidence, operations=tuple(kept)))


def _left_attention(facts: Facts, dtype: str) -> Indicator:
    total_s = sum(work.time_s for work in facts.work)
    left_s = sum(work.time_s for work in facts.work if work.is_attention and work.dtype == dtype)
    share = left_s / total_s if total_s else 0.0
    says = f"attention, {share:.0%} of GEMM/conv time, is left in {dtype}, as claimed"
    return Indicator("attention", says, None)


def _why_unclear(facts: Facts, claim: str) -> str:
    """Why a label without a wrong operand is not verified; empty where it is."""
    if _packed_share(facts, claim) > DETAIL:
        return f"the packed weights of a recurrent layer are {PACKED}, and no profile shows which"
    if facts.unseen_part:
        return f"the matmuls and convolutions that were seen are {claim}, but {facts.unseen_part}"
    return ""


def _packed_share(facts: Facts, claim: str) -> float:
    """The share of GEMM/conv time with packed weights that can be of the dtype that is claimed."""
    return facts.matrix_share_of(PACKED) if claim in (INT8, FLOAT16) else 0.0


def _why_unknown(facts: Facts, claim: str) -> str:
    """Why the precision is not known, for a label that could not be checked."""
    if not claim:
        return "the row claims no precision"
    if not facts.row.is_profiled:
        return "the row was not profiled"
    if "profile" in facts.evidence.unknown:
        return f"the profile failed: {facts.evidence.unknown['profile']}"
    if not facts.evidence.operations:
        return "the profile recorded no operations"
    if not facts.work:
        return "the profile recorded no matrix operation (matmul, convolution, attention)"
    return "neither operands nor kernel names show the precision of most GEMM/conv time"


def _wrong_share(facts: Facts, claim: str) -> float | None:
    """The share of GEMM/conv time that is known to have run in another precision."""
    if not facts.work or not claim:
        return None
    if claim == FLOAT32:
        wrong = 1 - facts.matrix_share_of(FLOAT32) + facts.kernel_share_of(TF32)
        return min(1.0, wrong) if _dtypes_are_known(facts) else None
    if claim == TF32:  # a permission: many kernels have no such form
        return 1 - facts.matrix_share_of(FLOAT32) if _dtypes_are_known(facts) else None
    if claim != INT8 and _dtypes_are_known(facts):  # operands of INT8 kernels can be floats
        return 1 - facts.matrix_share_of(claim) - _packed_share(facts, claim)
    others = {FLOAT32, TF32, FLOAT16, BFLOAT16, INT8} - {claim}
    known = facts.kernel_share_of(claim, *others)
    return facts.kernel_share_of(*others) if known >= MOST else _wrong_operands(facts, claim)


def _or_none(share: float | None) -> float:
    return -1.0 if share is None else share


def _wrong_layers(facts: Facts, claim: str) -> float | None:
    """Of the layers that an engine reports, the share of another dtype, by their number.

    Their times on a GPU are those of the host; on a CPU the layers are the operations of the row,
    and short ones have no time.
    """
    counts = facts.on_gpu or not any(work.time_s for work in facts.work)
    dtypes = [work.dtype for work in facts.engine_work if work.dtype] if counts else []
    stored = FLOAT32 if claim == TF32 else claim
    return sum(dtype != stored for dtype in dtypes) / len(dtypes) if dtypes and claim else None


def _wrong_operands(facts: Facts, claim: str) -> float | None:
    """For a claim of int8 that no name of a kernel shows: the share of other operands.

    The kernels of an engine may be in no operation, or in one with operands of another dtype.
    """
    by_torch = all(w.operation.name.startswith(_TORCH) for w in facts.work if w.operation.kernels)
    if claim != INT8 or not by_torch or not _dtypes_are_known(facts):
        return None
    return 1 - facts.matrix_share_of(INT8, PACKED)


def _dtypes_are_known(facts: Facts) -> bool:
    """Whether most of the GEMM/conv time is in operations whose operands are known."""
    total_s = sum(work.time_s for work in facts.work)
    known_s = sum(work.time_s for work in facts.work if work.dtype)
    return total_s > 0 and known_s >= MOST * total_s


def _ran(facts: Facts, besides: str = "") -> str:
    """The precision that most of its GEMM/conv work ran in besides another one, as text."""
    shares = {
        _in(dtype): facts.matrix_share_of(dtype)
        for dtype in sorted({work.dtype for work in facts.work if work.dtype})
    }
    shares["in TF32"] = facts.matrix_share_of(FLOAT32) * facts.kernel_share_of(TF32)
    shares["in float32"] = facts.matrix_share_of(FLOAT32) - shares["in TF32"]
    shares.pop(_in(besides), None)
    most = max(shares, key=lambda name: shares[name])
    return most if shares[most] > DETAIL else _ran_by_layers(facts)


def _ran_by_layers(facts: Facts) -> str:
    """The same from the layers that an engine reports, where its kernels are not known."""
    counts = Counter(work.dtype for work in facts.engine_work if work.dtype)
    return _in(counts.most_common(1)[0][0]) if counts else ""


def _in(dtype: str) -> str:
    return "in mixed precision" if dtype == "mixed" else f"in {dtype}"


def _indicators(facts: Facts, claim: str) -> Iterator[Indicator]:
    yield from _operands(facts, claim)
    yield from _layers(facts, claim)
    yield from _kernels(facts, claim)
    yield from _rate(facts, claim)
    yield from _output(facts, claim)
    yield from _functions(facts)


def _operands(facts: Facts, claim: str) -> Iterator[Indicator]:
    if not _dtypes_are_known(facts):
        return
    stored = FLOAT32 if claim == TF32 else claim
    right, packed = facts.matrix_share_of(stored), _packed_share(facts, claim)
    others = sorted({w.dtype for w in facts.work if w.dtype not in ("", stored) and w.time_s})
    says = f"{right:.0%} of GEMM/conv time has {stored} operands"
    if others:
        says += f", the rest {' and '.join(others)}"
    yield Indicator("operands", says, right + packed < 1 - DETAIL or (None if packed else False))


def _layers(facts: Facts, claim: str) -> Iterator[Indicator]:
    wrong = _wrong_layers(facts, claim)
    if wrong is not None:
        counts = Counter(work.dtype for work in facts.engine_work if work.dtype)
        found = " and ".join(f"{count} {dtype}" for dtype, count in counts.most_common())
        says = f"of the engine's matmuls and convolutions {found}"
        yield Indicator("layers", says, wrong > DETAIL)


def _kernels(facts: Facts, claim: str) -> Iterator[Indicator]:
    known = {d: facts.kernel_share_of(d) for d in (FLOAT32, TF32, FLOAT16, BFLOAT16, INT8)}
    found = ", ".join(f"{share:.0%} {name}" for name, share in known.items() if share > DETAIL)
    if found:
        allowed = (FLOAT32, TF32) if claim == TF32 else (claim,)
        wrong = sum(share for name, share in known.items() if name not in allowed)
        yield Indicator("kernels", f"GEMM/conv kernels are {found} by name", wrong > DETAIL)


def _rate(facts: Facts, claim: str) -> Iterator[Indicator]:
    """A rate well above the peak of what it claims is impossible; peaks are of one clock."""
    rate, peak = facts.min_flop_rate, facts.peak(SHORT_NAMES.get(claim, ""))
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
