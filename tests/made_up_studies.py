"""Made-up studies: sweeps, several devices, several dates."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from made_up_results import comparison_data
from precisionbench.results import Block, ComparisonData, Gpu, TensorInfo, WorkloadInfo
from precisionbench.results.study import Cell, CellResult, StudyRun

SPREAD = 0.003  # standard deviation of the log between processes
SHIFT = 0.001  # likewise between runs
BACKENDS = ("eager", "half")
GPU = "NVIDIA Test"


def cell(
    batch_size: int | None = 4, model: str = "Net", threads: int | None = None, device: str = GPU
) -> Cell:
    return Cell(model, (5,), batch_size, threads, device, BACKENDS)


def cell_result(
    times_s: Mapping[str, float],
    of: Cell | None = None,
    seed: int = 0,
    day: int = 1,
    replicas: int = 3,
    spread: float = SPREAD,
    shift: float = SHIFT,
    **changes: Any,
) -> CellResult:
    """A measured cell: the latency of `eager`, and of other rows.

    Args:
        times_s: latency of each row.
        of: the cell.
        seed: of the noise.
        day: of the month in which it was measured.
        replicas: processes of each row.
        spread: between processes.
        shift: between runs.
        changes: fields of the environment.
    """
    where = of or cell()
    draw = random.Random(f"{seed} {day} {where}")
    factor = math.exp(draw.gauss(0, shift))
    data = comparison_data(schedule="rounds", launcher="process", failures=())
    template = data.results[0]
    rows = tuple(
        attrs.evolve(
            template,
            backend=name,
            name=name.partition(":")[0],
            options={},
            batch_size=where.batch_size,
            measurement=attrs.evolve(
                template.measurement, blocks=_blocks(draw, time_s * factor, replicas, spread)
            ),
        )
        for name, time_s in times_s.items()
    )
    inputs = (TensorInfo("[0]", (where.batch_size or 1, *(where.shape or ())), "float32"),)
    environment = attrs.evolve(data.environment, **changes)
    if where.threads is not None:
        environment = attrs.evolve(environment, threads=where.threads)
    found = attrs.evolve(
        data,
        created=f"2026-11-{day:02}T12:00:00+00:00",
        results=rows,
        workload=WorkloadInfo("net:Net", 20, inputs, where.batch_size),
        environment=environment,
        study=StudyRun(where, 10.0),
    )
    return CellResult(where, found, wall_s=10.0)


def _blocks(
    draw: random.Random, time_s: float, replicas: int, spread: float, rounds: int = 6
) -> tuple[Block, ...]:
    levels = [time_s * math.exp(draw.gauss(0, spread)) for _ in range(replicas)]
    return tuple(
        Block(n, replica, replica, tuple(level * math.exp(draw.gauss(0, 1e-3)) for _ in range(5)))
        for n in range(rounds)
        for replica, level in enumerate(levels)
    )


def failed(of: Cell, failure: str = "does not fit in the memory of the device") -> CellResult:
    """A cell that could not be measured."""
    return CellResult(of, None, failure)


# A made-up device: half has a longer fixed time and a shorter time for each item; both are even at
# a batch of 6, and throughput is within 5 % of its highest from a batch of 128 on.
EVEN_AT = 6.0


def eager_s(batch_size: int) -> float:
    """The latency of `eager`: 0.4 ms at least, and 0.1 ms for each item."""
    return 4e-4 + 1e-4 * batch_size


def half_s(batch_size: int) -> float:
    """The latency of `half`: 0.8 ms at least, and a third of the time for each item."""
    return 8e-4 + (1e-4 - 4e-4 / EVEN_AT) * batch_size


def sweep_results(
    sizes: Sequence[int] = (1, 2, 4, 8, 16, 32, 64), seed: int = 0, **options: Any
) -> list[CellResult]:
    """The cells of a sweep over batch sizes."""
    return [
        cell_result({"eager": eager_s(size), "half": half_s(size)}, cell(size), seed, **options)
        for size in sizes
    ]


def runs(times_s: Sequence[Mapping[str, float]], seed: int = 0, **options: Any) -> list[CellResult]:
    """The same cell on successive days."""
    return [
        cell_result(one, seed=seed, day=day, **options) for day, one in enumerate(times_s, start=1)
    ]


def data_of(result: CellResult) -> ComparisonData:
    assert result.data is not None
    return result.data


NORMAL = {"eager": 1e-3, "half": 5e-4}
REGRESSED = {"eager": 1e-3, "half": 5e-4 * 1.03}


def other_gpu(name: str = "NVIDIA Other", **changes: Any) -> Gpu:
    return Gpu(name, "9.0", 10**9, 64, driver="1.2", power_limit_w=700.0, **changes)


def everything() -> list[CellResult]:
    """A sweep, a history with a change, threads, another device, and failures."""
    daily = cell(4, "Daily")
    return [
        *sweep_results(),
        failed(cell(512), "out of memory"),
        *runs([NORMAL] * 6, of=daily),
        *runs([REGRESSED] * 10, of=daily, torch="2.15.0")[6:],
        *(cell_result(NORMAL, cell(4, "Threads", n)) for n in (1, 2)),
        *sweep_results((8, 64), gpu=other_gpu()),
    ]
