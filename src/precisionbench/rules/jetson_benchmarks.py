"""The figure of NVIDIA's jetson_benchmarks: the rates of concurrent engines, added up."""

from __future__ import annotations

from collections.abc import Sequence

from precisionbench.results import BackendResult
from precisionbench.rules.statement import Source, Statement, by_events, mean_s

RULE = "jetson_benchmarks"
SOURCE = Source(
    "NVIDIA-AI-IOT/jetson_benchmarks, utils/read_write_data.py, calculate_fps",
    "https://github.com/NVIDIA-AI-IOT/jetson_benchmarks/blob/"
    "c029c7de35d69fd85e10b624b4908b6de10194b0/utils/read_write_data.py",
)
_FIGURE = "FPS"
_INSIDE = (
    "the sum of batch / time over the GPU and the DLAs; the time is trtexec's mean GPU compute "
    "time of each engine while all run, without transfers and host time"
)
_CONCURRENCY = (
    "the engines were not measured at the same time: the sum assumes that they do not slow each "
    "other down, so it is an upper limit"
)


def engine_of(row: BackendResult) -> str:
    """The processor of a row's engine: `GPU`, or `DLA` with the core's number."""
    core = row.options.get("dla_core")
    return "GPU" if core is None else f"DLA{core}"


def statement(rows: Sequence[BackendResult]) -> Statement:
    """The sum of the rates of engines; for one row, its rate.

    Args:
        rows: measured rows, one for each engine.
    """
    missing = _missing(rows)
    engines = " + ".join(map(engine_of, rows))
    figure = f"{_FIGURE}, {engines}"
    if missing:
        return Statement(RULE, figure, "items/s", _INSIDE, SOURCE, missing=missing)
    total = sum((row.batch_size or 0) / mean_s(row) for row in rows)
    several = len(rows) > 1
    return Statement(
        RULE,
        figure,
        "items/s",
        _INSIDE,
        SOURCE,
        value=total,
        kind="derived" if several else "measured",
        unmet=(_CONCURRENCY,) if several else (),
    )


def _missing(rows: Sequence[BackendResult]) -> str:
    """Why the sum cannot be stated; empty where it can."""
    engines = [engine_of(row) for row in rows]
    if twice := next((engine for engine in engines if engines.count(engine) > 1), None):
        names = " and ".join(
            row.backend for row, engine in zip(rows, engines, strict=True) if engine == twice
        )
        return f"{names} run on the same engine ({twice}), so their rates do not add up"
    if any(row.batch_size is None for row in rows):
        return "the batch size is not known"
    if not all(map(by_events, rows)):
        return "the run was not timed with CUDA events, as trtexec does"
    return ""
