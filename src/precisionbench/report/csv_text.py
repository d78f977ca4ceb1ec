"""The rows as CSV, for a spreadsheet: one line a row, in full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from precisionbench._internal.interval_text import farthest
from precisionbench.analysis.speedups import speedups
from precisionbench.results import (
    BackendFailure,
    BackendResult,
    ComparisonData,
    Speedup,
)
from precisionbench.safe_text import csv_cell

COLUMNS = (
    "backend",
    "label",
    "latency_s",
    "latency_low_s",
    "latency_high_s",
    "throughput_per_s",
    "batch_size",
    "speedup",
    "speedup_low",
    "speedup_high",
    "verdict",
    "verdict_reason",
    "relative_l2",
    "cosine",
    "max_abs_error",
    "nonfinite_count",
    "top1",
    "device_s",
    "enqueue_s",
    "wall_s",
    "graph_s",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "driver_bytes",
    "energy_j",
    "build_s",
    "first_call_s",
    "failure",
)
_ROW_FIELDS = ("device_s", "enqueue_s", "wall_s", "graph_s")
_PASSES_FIELDS = ("peak_allocated_bytes", "peak_reserved_bytes", "driver_bytes", "energy_j")
_AGREEMENT_FIELDS = ("relative_l2", "cosine", "max_abs_error", "nonfinite_count", "top1")
_MEASUREMENT_FIELDS = ("build_s", "first_call_s")


def to_csv(data: ComparisonData) -> str:
    """The rows as CSV, measured ones first; unknown values are empty.

    So is the end of a speed-up's interval that is more than a factor of 100 from it.

    Args:
        data: the comparison.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, columns(data), lineterminator="\n")
    writer.writeheader()
    lines = row_cells(data)
    writer.writerows({name: csv_cell(cell) for name, cell in line.items()} for line in lines)
    return out.getvalue()


def columns(data: ComparisonData) -> tuple[str, ...]:
    """The names of the columns; those of models and references only where there are several.

    Args:
        data: the comparison.
    """
    models = ("model",) if data.models else ()
    return (*COLUMNS, *models, *(("reference",) if data.references else ()))


def row_cells(data: ComparisonData) -> list[dict[str, object]]:
    """The cells of each row by column, measured rows first; unknown values are left out.

    Args:
        data: the comparison.
    """
    found = speedups(data)
    lines = [_measured_cells(row, found) for row in data.results]
    lines += [_failed_cells(failure) for failure in data.failures]
    for row, cells in zip(data.rows, lines, strict=True):
        if data.models:
            cells["model"] = row.model
        if data.references:
            cells["reference"] = data.reference_of(row.backend)
    return lines


def _measured_cells(row: BackendResult, found: Mapping[str, Speedup]) -> dict[str, object]:
    latency, throughput, speedup = row.latency, row.throughput, found.get(row.backend)
    cells: dict[str, object] = {
        "backend": row.backend,
        "label": row.label,
        "latency_s": latency.value,
        "latency_low_s": latency.low,
        "latency_high_s": latency.high,
        "throughput_per_s": throughput.value if throughput else None,
        "batch_size": row.batch_size,
        **{name: getattr(row, name) for name in _ROW_FIELDS},
        **{name: getattr(row.passes, name) for name in _PASSES_FIELDS},
        **{name: getattr(row.measurement, name) for name in _MEASUREMENT_FIELDS},
    }
    if row.agreement is not None:
        cells |= {name: getattr(row.agreement, name) for name in _AGREEMENT_FIELDS}
    if speedup is not None:
        lowest, highest = farthest(speedup.value)
        cells |= {
            "speedup": speedup.value,
            "speedup_low": speedup.low if speedup.low >= lowest else None,
            "speedup_high": speedup.high if speedup.high <= highest else None,
            "verdict": speedup.verdict.value,
            "verdict_reason": speedup.reason,
        }
    return cells


def _failed_cells(failure: BackendFailure) -> dict[str, object]:
    return {"backend": failure.backend, "label": failure.label, "failure": failure.reason}
