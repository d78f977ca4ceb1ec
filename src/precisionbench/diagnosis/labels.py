"""Whether a row is what its name says, by several witnesses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Indicator, Label
from precisionbench.results.records import BackendResult, Json

FP32, TF32, FP16, BF16, INT8 = "float32", "tf32", "float16", "bfloat16", "int8"
HALF = (FP16, BF16)
# Names of the devices' peaks.
RATES = {FP32: "fp32", TF32: "tf32", FP16: "fp16", BF16: "bf16"}
# Below this share of the matrix time another precision is a detail: a first or last layer.
_DETAIL = 0.05
# From this share on the row is not what it says at all.
_MOST = 0.5
# Boards differ in clocks, and some peaks are rounded.
BEYOND = 1.2
# The witness that knows no precision, only that it cannot be the one that is claimed.
RATE = "rate"
_APEX = {"O0": FP32, "O1": FP16, "O2": FP16, "O3": FP16}


def claim_of(row: BackendResult) -> str:
    """The precision that a row's name and options claim; empty where they claim none."""
    options = row.options
    if options.get("fp32_layers"):  # mixed, as was asked for
        return ""
    if row.name == "eager" or (row.name == "compile" and options.get("dtype") == FP32):
        return TF32 if options.get("precision") == "tf32" else FP32
    if row.name == "apex-amp":
        return _APEX.get(str(options.get("opt_level")), "")
    if row.name == "torch2trt":
        return _engine_claim(options)
    for name in ("dtype", "precision"):
        if (found := _NAMES.get(str(options.get(name)))) is not None:
            return found
    return ""


_NAMES = {
    "float16": FP16,
    "fp16": FP16,
    "half": FP16,
    "bfloat16": BF16,
    "bf16": BF16,
    "tf32": TF32,
    "float32": FP32,
    "fp32": FP32,
}


def _engine_claim(options: Mapping[str, Json]) -> str:
    claim = {"fp32": FP32, "fp16": FP16, "int8": INT8}.get(str(options.get("precision")), "")
    return TF32 if claim == FP32 and options.get("tf32") else claim


def label_of(facts: Facts) -> Label:
    """Check a row's label.

    Args:
        facts: of the row.
    """
    claim = claim_of(facts.row)
    witnesses = tuple(_witnesses(facts, claim)) if claim else ()
    ran = _ran(facts)
    wrong = _wrong_share(facts, claim)
    impossible = any(w.against and w.name == RATE for w in witnesses)
    if not claim or (wrong is None and not impossible):
        verdict = "unknown"
    elif impossible or (wrong or 0.0) >= _MOST:
        verdict = "false"
    else:
        verdict = "partly" if (wrong or 0.0) > _DETAIL else "true"
    if not ran and verdict in ("false", "partly"):
        ran = "in another precision"
    return Label(facts.row.backend, claim, verdict, ran, witnesses)


def _wrong_share(facts: Facts, claim: str) -> float | None:
    """The share of the matrix time that is known to have run in another precision."""
    if not facts.work or not claim:
        return None
    if claim == FP32:
        wrong = facts.matrix_share_of(*HALF) + facts.kernel_share_of(TF32)
        return min(1.0, wrong) if _dtypes_are_told(facts) else None
    if claim == TF32:  # a permission: many kernels have no such form
        return facts.matrix_share_of(*HALF) if _dtypes_are_told(facts) else None
    if claim in HALF and _dtypes_are_told(facts):
        return 1 - facts.matrix_share_of(claim)
    others = {FP32, TF32, FP16, BF16, INT8} - {claim}
    known = facts.kernel_share_of(claim, *others)
    return facts.kernel_share_of(*others) if known >= _MOST else None


def _dtypes_are_told(facts: Facts) -> bool:
    """Whether most of the matrix time is in operations whose operands are known."""
    total_s = sum(work.time_s for work in facts.work)
    told_s = sum(work.time_s for work in facts.work if work.dtype)
    return total_s > 0 and told_s >= _MOST * total_s


def _ran(facts: Facts) -> str:
    """In which precisions its matrix work ran, in words."""
    shares = {
        "in float16": facts.matrix_share_of(FP16),
        "in bfloat16": facts.matrix_share_of(BF16),
        "in TF32": facts.matrix_share_of(FP32) * facts.kernel_share_of(TF32),
        "in mixed precision": facts.matrix_share_of("mixed"),
        "in int8": facts.matrix_share_of("int8"),
        "in float64": facts.matrix_share_of("float64"),
    }
    shares["in float32"] = facts.matrix_share_of(FP32) - shares["in TF32"]
    most = max(shares, key=lambda name: shares[name])
    return most if shares[most] > _DETAIL else ""


def _witnesses(facts: Facts, claim: str) -> Iterator[Indicator]:
    yield from _operands(facts, claim)
    yield from _kernels(facts, claim)
    yield from _rate(facts, claim)
    yield from _output(facts, claim)
    yield from _functions(facts)


def _operands(facts: Facts, claim: str) -> Iterator[Indicator]:
    if not _dtypes_are_told(facts):
        return
    stored = FP32 if claim == TF32 else claim
    right = facts.matrix_share_of(stored)
    others = sorted({w.dtype for w in facts.work if w.dtype not in ("", stored) and w.time_s})
    says = f"{right:.0%} of the matrix time has {stored} operands"
    if others:
        says += f", the rest {' and '.join(others)}"
    yield Indicator("operands", says, right < 1 - _DETAIL)


def _kernels(facts: Facts, claim: str) -> Iterator[Indicator]:
    known = {d: facts.kernel_share_of(d) for d in (FP32, TF32, FP16, BF16, INT8)}
    found = ", ".join(f"{share:.0%} {name}" for name, share in known.items() if share > _DETAIL)
    if found:
        allowed = (FP32, TF32) if claim == TF32 else (claim,)
        wrong = sum(share for name, share in known.items() if name not in allowed)
        yield Indicator("kernels", f"its matrix kernels are {found} by name", wrong > _DETAIL)


def _rate(facts: Facts, claim: str) -> Iterator[Indicator]:
    """A rate well above the peak of what it claims is impossible; peaks are of one clock."""
    rate, peak = facts.certain_flop_rate, facts.peak(RATES.get(claim, ""))
    if rate is None or peak is None:
        return
    says = f"{rate / 1e12:.3g} TFLOP/s of {peak / 1e12:.3g} that the device reaches in {claim}"
    yield Indicator(RATE, says, rate > BEYOND * peak)


def _output(facts: Facts, claim: str) -> Iterator[Indicator]:
    """A half output of a float32 row says that something is half; nothing else says much."""
    dtypes = sorted({t.dtype for t in facts.evidence.outputs if "float" in t.dtype})
    if dtypes:
        wrong = claim in (FP32, TF32) and any(dtype in HALF for dtype in dtypes)
        yield Indicator("output", f"its output is {' and '.join(dtypes)}", wrong or None)


def _functions(facts: Facts) -> Iterator[Indicator]:
    names = facts.evidence.foreign_functions
    if names:
        says = f"{len(names)} of torch's functions were patched, e.g. {names[0]}"
        yield Indicator("functions", says, None)
