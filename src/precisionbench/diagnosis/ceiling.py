"""The largest speed-ups that 16 and 8 bits can reach, from the layers of the float32 row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from precisionbench.analysis.speedups import speedup_over, speedups
from precisionbench.diagnosis.cpu_instructions import INT8_FLAGS, int8_instruction
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Ceiling, Label, Number
from precisionbench.diagnosis.labels import HALF
from precisionbench.diagnosis.parts import CAST, LAYOUT, MATRIX, MEMORY_BOUND
from precisionbench.diagnosis.quantised import EIGHT_BITS
from precisionbench.diagnosis.work import MatrixWork
from precisionbench.results import ComparisonData
from precisionbench.results.dtypes import FLOAT32
from precisionbench.results.earlier_claims import claims_of
from precisionbench.statistics import Interval

# Shares of the lower precision's peak and of the bandwidth that layers of these shapes usually
# reach; the best case is all of both.
_USUAL_COMPUTE, _USUAL_BANDWIDTH = 0.4, 0.6
# Layers whose sizes are not multiples of 8 are padded and cropped, which multiplies their bytes.
_PADDED_BYTES = 4.0
# Memory-bound time does not quite halve with its bytes.
_HALVED_USUAL = 1.7
_FLOAT32_BYTES = 4
# Kernel times are those of a profiled call. A measured speed-up above the estimate by up to this
# factor raises the estimate. Beyond that the estimate is wrong, and none is given.
_PROFILER_ERROR = 1.05
_MIN_IDLE_SHARE = 0.1  # of a call; shorter gaps between kernels are normal


@attrs.frozen
class Lower:
    """A precision below float32 whose ceiling is estimated.

    Attributes:
        dtypes: that rows of it claim.
        rates: names of the device's peaks, of which the highest counts.
        bytes: of an element.
        words: what it is called.
    """

    dtypes: tuple[str, ...]
    rates: tuple[str, ...]
    bytes: int
    words: str

    @property
    def gain(self) -> float:
        """How much less memory traffic it has than float32."""
        return _FLOAT32_BYTES / self.bytes


IN_16_BITS = Lower(HALF, ("fp16",), 2, "half-precision")
IN_8_BITS = Lower(EIGHT_BITS, ("int8", "fp8"), 1, "8-bit")


@attrs.frozen
class _Seconds:
    """A time in a lower precision: the usual case and the best case."""

    usual: float
    best: float

    def __add__(self, other: _Seconds) -> _Seconds:
        return _Seconds(self.usual + other.usual, self.best + other.best)


def ceiling_of(
    data: ComparisonData,
    rows: Mapping[str, Facts],
    labels: Mapping[str, Label],
    lower: Lower = IN_16_BITS,
) -> Ceiling:
    """The largest speed-up that a lower precision can reach, with the measured speed-up.

    Every operation of the float32 row becomes as fast as the lower precision's peak and the
    bandwidth allow: 40 % and 60 % of them in the usual case, 100 % in the best case. Layout
    conversions and casts vanish in the best case, and GPU idle time stays. What is bound by memory
    stays in 16 bits in the usual case.

    Args:
        data: the comparison.
        rows: facts of its rows.
        labels: of these rows. A row whose label is false measures nothing of the precision.
        lower: the precision.
    """
    fitting = [name for name, label in labels.items() if label.verdict != "false"]
    row = _fastest(data, {name: rows[name] for name in fitting}, lower)
    base = _float32_row(rows, row, lower)
    brought, over = _brought(data, base, row, lower)
    unknown = Ceiling(None, brought, row, (), over=over)
    if base is None:
        return attrs.evolve(unknown, reason="no float32 row was profiled")
    if lower is IN_8_BITS and base.quantisation.found:
        return attrs.evolve(unknown, reason="the model itself is quantised")
    work = _lowered(base, lower, data.environment.cpu_flags)
    if isinstance(work, str):
        return attrs.evolve(unknown, reason=work)
    estimate = _estimated(base, work, unknown)
    engines = {claims_of(facts.row).engine for facts in (base, rows.get(row, base))}
    if estimate.reason and lower is IN_8_BITS and len(engines) > 1:
        return attrs.evolve(estimate, reason=f"{estimate.reason}; {_ANOTHER_ENGINE}")
    return estimate


_ANOTHER_ENGINE = "its engine may be faster in float32 too, so add a float32 row of that engine"


def _estimated(base: Facts, work: _Seconds, unknown: Ceiling) -> Ceiling:
    """The ceiling, with the time of the float32 row's operations in the lower precision."""
    idle_s, brought, row = _idle_s(base), unknown.brought, unknown.row
    after, before_s = work + _Seconds(idle_s, idle_s), base.busy_s + idle_s
    if not after.best:
        return attrs.evolve(unknown, reason="no part of the time can be estimated")
    low, high = sorted((before_s / after.usual, before_s / after.best))
    known = attrs.evolve(unknown, shares=tuple(_shares(base, before_s, idle_s)))
    if brought is not None and brought.low > _PROFILER_ERROR * high:
        reason = f"{row} measured {brought.value:.3g}x, above the estimate of {high:.2g}x"
        return attrs.evolve(known, reason=reason)
    high = max(high, brought.value if brought else 0.0)
    return attrs.evolve(known, best=Interval((low * high) ** 0.5, low, high))


def _lowered(base: Facts, lower: Lower, cpu_flags: Sequence[str] | None) -> _Seconds | str:
    """The time of the float32 row's operations in a lower precision, or why it is not known."""
    limits = _Limits.of(base, lower)
    if limits is not None:
        return _matrix_operations(base.work, limits) + _other_kernels(base, limits)
    if base.on_gpu or lower is not IN_8_BITS:
        return f"the {lower.words} peak and memory bandwidth of this device are not known"
    if cpu_flags is None:
        return "the CPU's flags were not recorded"
    found = int8_instruction(cpu_flags)
    if found is None:
        return f"the CPU has none of the flags {', '.join(INT8_FLAGS)}"
    return _on_a_cpu(base, found[1])


def _on_a_cpu(base: Facts, gain: float) -> _Seconds:
    """By the rate of its int8 instructions over float32, because a CPU's peaks are not known."""
    other_s = base.busy_s - base.matrix_s
    return _Seconds(
        base.matrix_s / max(1.0, _USUAL_COMPUTE * gain) + other_s,
        base.matrix_s / gain + other_s / IN_8_BITS.gain,
    )


def _idle_s(base: Facts) -> float:
    """GPU idle time of a call; short gaps between kernels do not count."""
    latency_s = base.row.latency.value
    idle_s = max(0.0, latency_s - base.busy_s)
    return idle_s if base.row.launch_bound or idle_s > _MIN_IDLE_SHARE * latency_s else 0.0


def _fastest(data: ComparisonData, rows: Mapping[str, Facts], lower: Lower) -> str:
    """The fastest row that claims a lower precision; empty without one."""
    found = speedups(data)
    names = [
        name
        for name, facts in rows.items()
        if claims_of(facts.row).coarsest_dtype in lower.dtypes and name in found
    ]
    return max(names, key=lambda name: found[name].value, default="")


def _float32_row(rows: Mapping[str, Facts], fastest: str, lower: Lower) -> Facts | None:
    """The float32 row that was profiled; for 8 bits that of the same engine, where there is one.

    Rows of 8 bits are mostly those of engines, which are faster than PyTorch in float32 already.
    """
    found = [f for f in rows.values() if claims_of(f.row).dtype == FLOAT32 and f.parts]
    found = [facts for facts in found if not claims_of(facts.row).weights]
    if lower is IN_8_BITS and fastest:
        engine = claims_of(rows[fastest].row).engine
        found.sort(key=lambda facts: claims_of(facts.row).engine != engine)  # keeps the order
    return next(iter(found), None)


def _brought(
    data: ComparisonData, base: Facts | None, row: str, lower: Lower
) -> tuple[Interval | None, str]:
    """The measured speed-up of a row, and the row that it is over if that is not the reference."""
    if not row:
        return None, ""
    over = base.row.backend if base and lower is IN_8_BITS else data.reference
    brought = speedup_over(data, over, row).interval
    return brought, "" if over == data.reference else over


@attrs.frozen
class _Limits:
    """Peak rates of the device.

    Attributes:
        lower: the lower precision.
        peak: FLOP/s in it.
        single: FLOP/s in float32; CUDA cores reach twice that in 16 bits, and four times in 8.
        bandwidth: byte/s.
    """

    lower: Lower
    peak: float
    single: float
    bandwidth: float

    @classmethod
    def of(cls, base: Facts, lower: Lower) -> _Limits | None:
        peaks = [peak for peak in map(base.peak, lower.rates) if peak is not None]
        bandwidth, single = base.peak("bandwidth"), base.peak("fp32")
        if not peaks or bandwidth is None or single is None:
            return None
        return cls(lower, max(peaks), single, bandwidth)


def _matrix_operations(work: Sequence[MatrixWork], limits: _Limits) -> _Seconds:
    return sum((_in_lower_precision(one, limits) for one in work), _Seconds(0.0, 0.0))


def _in_lower_precision(work: MatrixWork, limits: _Limits) -> _Seconds:
    """Time of one operation in a lower precision; never longer than in float32."""
    if work.flops is None:  # e.g. recurrent layers: between the limits of bandwidth and peak
        return _Seconds(work.time_s / _HALVED_USUAL, work.time_s * limits.single / limits.peak)
    grouped = work.groups > 1 and work.obstacles
    padding = _PADDED_BYTES if work.obstacles and not grouped else 1.0
    usual_peak = limits.lower.gain * limits.single if grouped else limits.peak
    memory_s = work.elements * limits.lower.bytes / limits.bandwidth
    usual_s = max(work.flops / usual_peak / _USUAL_COMPUTE, padding * memory_s / _USUAL_BANDWIDTH)
    # Small tensors may stay in the L2 cache.
    best_s = max(work.flops / limits.peak, min(memory_s, work.time_s / limits.lower.gain))
    best_s = min(work.time_s, best_s)
    return _Seconds(max(best_s, min(work.time_s, usual_s)), best_s)


def _other_kernels(base: Facts, limits: _Limits) -> _Seconds:
    total = _Seconds(0.0, 0.0)
    for part in base.parts:
        if part.category in (LAYOUT, CAST):
            total += _Seconds(part.time_s / _HALVED_USUAL, 0.0)
        elif part.category != MATRIX:
            least_s = part.operation.elements * limits.lower.bytes / limits.bandwidth
            best_s = min(part.time_s / limits.lower.gain, least_s or part.time_s)
            total += _Seconds(part.time_s / _HALVED_USUAL, best_s)
    return total


def _shares(base: Facts, total_s: float, idle_s: float) -> list[Number]:
    eligible_s = sum(w.time_s for w in base.work if not w.obstacles)
    matrix_s = sum(w.time_s for w in base.work)
    moved_s = sum(base.by_category.get(c, 0.0) for c in MEMORY_BOUND)
    return [
        Number("GEMM/conv that tensor cores can run well", eligible_s / total_s, "share"),
        Number("other GEMM/conv", (matrix_s - eligible_s) / total_s, "share"),
        Number("memory-bound", moved_s / total_s, "share"),
        Number("GPU idle", idle_s / total_s, "share"),
    ]
