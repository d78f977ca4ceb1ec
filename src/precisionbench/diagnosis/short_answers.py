"""The ten answers in a few words each, for a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from precisionbench.analysis.reasons import short_reason
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Accuracy, Ceiling, Finding, Label
from precisionbench.errors import some
from precisionbench.results import Speedup
from precisionbench.statistics import Verdict

_NOT_PROFILED = "not known: not profiled"


def labels_short(labels: Sequence[Label]) -> str:
    """Whether rows ran in the precision of their labels.

    Args:
        labels: of the rows in question.
    """
    if not labels:
        return "no such row"
    texts = [f"no, {label.row} ran {label.ran}" for label in labels if label.is_wrong]
    unknown = [label.row for label in labels if label.verdict == "unknown"]
    texts += [f"not verified: {some(unknown)}"] * bool(unknown)
    good = sum(label.verdict == "true" for label in labels)
    texts += [f"yes{_in_rows(good, len(labels))}"] * bool(good)
    return "; ".join(texts)


def _in_rows(count: int, total: int) -> str:
    if count < total:
        return f" in {count} of {total} rows"
    if total == 1:
        return ""
    return " in both rows" if total == 2 else f" in all {total} rows"


def slower_short(rows: Sequence[str], speedups: Mapping[str, Speedup]) -> str:
    """Whether 16-bit rows are slower than the reference.

    Args:
        rows: names of the compared 16-bit rows.
        speedups: over the reference, by row.
    """
    if not rows:
        return "no FP16/BF16 row was compared"
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(_slower(speedups[row]), []).append(row)
    return "; ".join(
        f"{verdict}: {_speed_range([speedups[name].value for name in names], names)}"
        for verdict, names in groups.items()
    )


def _speed_range(values: Sequence[float], names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} {_ratio(values[0])}"
    return f"{len(names)} rows, {_ratio(min(values))} to {_ratio(max(values))}"


def _ratio(value: float) -> str:
    """Three digits, and no exponent for a large one: `4.27x`, `1,390x`."""
    return f"{float(f'{value:.3g}'):,.10g}x"


def _slower(found: Speedup) -> str:
    if found.verdict is Verdict.INCONCLUSIVE:
        return f"inconclusive ({short_reason(found.reason)})"
    return "yes" if found.verdict is Verdict.SLOWER else "no"


def ceiling_short(ceiling: Ceiling, of_8_bits: Ceiling) -> str:
    """The ceiling of half precision, with the measured speed-up, and that of 8 bits.

    Args:
        ceiling: of half precision.
        of_8_bits: of INT8 and FP8; named where it is known.
    """
    eight = ""
    if of_8_bits.best is not None:
        eight = f"; INT8/FP8 at most {of_8_bits.best.high:.2g}x{_measured(of_8_bits, ', ')}"
    if ceiling.best is None:
        return f"not known: {ceiling.reason}{eight}"
    best = ceiling.best
    return f"typical {best.low:.2g}x, at most {best.high:.2g}x{_measured(ceiling, '; ')}{eight}"


def _measured(ceiling: Ceiling, before: str) -> str:
    return "" if ceiling.brought is None else f"{before}measured {ceiling.brought.value:.3g}x"


def tensor_cores_short(rows: Sequence[Facts]) -> str:
    """The share of GEMM/conv time on tensor cores.

    Args:
        rows: facts of the 16-bit rows.
    """
    shares = [one.tensor_core_share for one in rows if one.matrix_s and one.on_gpu]
    if not shares:
        return "not known: no FP16/BF16 row was profiled on a GPU"
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return f"{low if low == high else f'{low} to {high}'} of GEMM/conv time"


def launch_bound_short(bound: Sequence[Finding], otherwise: str) -> str:
    """Which rows are launch-bound, with the speed-up of a CUDA graph.

    Args:
        bound: the findings of launch-bound rows.
        otherwise: the text without such a row.
    """
    gains = {one.row: f" (CUDA graph {one.factor.value:.2g}x)" for one in bound if one.factor}
    rows = [f"{one.row}{gains.get(one.row, '')}" for one in bound]
    return f"yes: {some(rows)}" if rows else otherwise


def timing_short(rows: Mapping[str, Facts]) -> str:
    """How rows were timed.

    Args:
        rows: facts by row.
    """
    clocks = dict.fromkeys(facts.row.measurement.clock for facts in rows.values())
    return "; ".join(_CLOCKS.get(clock, clock) for clock in clocks) or "nothing was timed"


_CLOCKS = {
    "cuda_events": "CUDA events",
    "host": "host clock around synchronised calls",
    "reported": "reported, not measured here",
}


def causes_short(live: Sequence[Finding], rows: Mapping[str, Facts]) -> str:
    """What slows rows down, each cause once.

    Args:
        live: findings that were not ruled out.
        rows: facts by row.
    """
    groups: dict[str, list[Finding]] = {}
    for finding in (one for one in live if one.costs_time):
        groups.setdefault(finding.title, []).append(finding)
    texts = [
        f"{title} ({found[0].row if len(found) == 1 else f'{len(found)} rows'})"
        for title, found in groups.items()
    ]
    return "; ".join(texts) or nothing_found(rows)


def nothing_found(rows: Mapping[str, Facts]) -> str:
    """The text without a cause: "nothing found" only where rows were profiled.

    Args:
        rows: facts by row.
    """
    unprofiled = [name for name, facts in rows.items() if not facts.row.is_profiled]
    if len(unprofiled) == len(rows):
        return _NOT_PROFILED
    return f"nothing found; not profiled: {some(unprofiled)}" if unprofiled else "nothing found"


def accuracy_short(precisions: Sequence[Accuracy]) -> str:
    """Whether outputs are within tolerance.

    Args:
        precisions: of all rows' outputs.
    """
    if not precisions:
        return "no output was compared"
    fine = sum(one.verdict == "fine" for one in precisions)
    unknown = [one.row for one in precisions if one.verdict == "unknown"]
    texts = [
        f"{one.row}: {one.reason}" + f" ({one.remedy})" * bool(one.remedy)
        for one in precisions
        if one.verdict not in ("fine", "unknown")
    ]
    texts += [f"not known: {some(unknown)}"] * bool(unknown)
    texts += [f"within tolerance{_in_rows(fine, len(precisions))}"] * bool(fine)
    return "; ".join(texts)
