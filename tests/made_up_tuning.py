"""Made-up results of `tune`."""

from __future__ import annotations

import random
from collections.abc import Mapping

import attrs

from made_up_results import comparison_data
from precisionbench.results import Block, ComparisonData, Interval, Passes
from precisionbench.results.tuning import (
    BEST,
    BEYOND,
    FAILED,
    FINALIST,
    INACCURATE,
    NOT_FINISHED,
    RELATIVE_L2,
    SLOWER,
    UNCLEAR,
    WITHIN,
    Accuracy,
    AccuracyBound,
    LeftOut,
    Target,
    Trial,
    TuningData,
)

LATENCIES_S = {"eager": 10e-3, "half": 2.8e-3, "half:memory_format=channels_last": 2.5e-3}
MEMORY_BYTES = {
    "eager": 900_000_000,
    "half": 450_000_000,
    "half:memory_format=channels_last": 470_000_000,
}


def final(
    latencies_s: Mapping[str, float] = LATENCIES_S,
    passes: Mapping[str, Passes] | None = None,
    jitter: float = 0.002,
    rounds: int = 20,
    batch_sizes: Mapping[str, int] | None = None,
    drift: Mapping[str, float] | None = None,
    **changes,
) -> ComparisonData:
    """The final rounds: a row for each spec, each round with its own noise.

    Rows with a `drift` differ by up to that share between rounds.
    """
    draw = random.Random(0)
    made = comparison_data(schedule="rounds", noise_floor=0.001, failures=())
    base = attrs.evolve(made.results[1], warnings=(), log=(), agreement=None, details={})
    rows = []
    for spec, latency_s in latencies_s.items():
        blocks = tuple(
            Block(n, 0, 0, tuple(_noisy(level_s, jitter, draw) for _ in range(5)))
            for n in range(rounds)
            for level_s in [_drifted(latency_s, spec, drift or {}, draw)]
        )
        rows.append(
            attrs.evolve(
                base,
                backend=spec,
                name=spec.partition(":")[0],
                options={},
                batch_size=(batch_sizes or {}).get(spec, 4),
                measurement=attrs.evolve(base.measurement, blocks=blocks),
                passes=(passes or {}).get(spec) or _passes(spec),
            )
        )
    return attrs.evolve(made, results=tuple(rows), **changes)


def _drifted(latency_s: float, spec: str, drift: Mapping[str, float], draw: random.Random) -> float:
    return _noisy(latency_s, drift[spec], draw) if spec in drift else latency_s


def _noisy(latency_s: float, jitter: float, draw: random.Random) -> float:
    return latency_s * draw.uniform(1 - jitter, 1 + jitter)


def _passes(spec: str) -> Passes:
    return Passes(peak_allocated_bytes=MEMORY_BYTES.get(spec))


def error(value: float, verdict: str = WITHIN) -> Accuracy:
    """A relative L2 error that is known within 10 %."""
    return Accuracy(Interval(value, value * 0.9, value * 1.1), verdict)


def tuning_data(**changes) -> TuningData:
    """A result with a trial of each outcome, and `half` in channels_last as the best."""
    data = TuningData(
        best="half:memory_format=channels_last",
        choice="half:memory_format=channels_last is 1.12x (1.11 to 1.13) as fast as the runner-up "
        "half",
        reference="eager",
        bound=AccuracyBound(RELATIVE_L2, 1e-2),
        trials=(
            Trial("eager", FINALIST, "", error(5e-7), Interval(1.0, 1.0, 1.0), "final", 0.1),
            Trial("half", FINALIST, "", error(9e-4), Interval(3.57, 3.55, 3.59), "final", 0.4),
            Trial(
                "half:memory_format=channels_last",
                BEST,
                "",
                error(9.1e-4),
                Interval(4.0, 3.97, 4.03),
                "final",
                0.5,
            ),
            Trial(
                "autocast",
                SLOWER,
                "its upper end is below the lower end of half",
                error(8e-4),
                Interval(2.1, 2.0, 2.2),
                "screening",
                0.3,
                True,
            ),
            Trial("half:dtype=bfloat16", INACCURATE, "", error(2.4e-2, BEYOND), build_s=0.4),
            Trial(
                "torchao:scheme=int8",
                INACCURATE,
                "an output is infinite or NaN",
                Accuracy(None, UNCLEAR, "an output is infinite or NaN"),
            ),
            Trial("compile", FAILED, "PreparationError: no compiler was found"),
            Trial("compile:freezing=true", FAILED, "PreparationError: no compiler was found"),
            Trial("openvino", NOT_FINISHED, "the budget ended while it was built"),
        ),
        left_out=(
            LeftOut("torch2trt", "requires an NVIDIA GPU; run on a machine that has one"),
            LeftOut("apex-amp", "requires an NVIDIA GPU; run on a machine that has one"),
            LeftOut("fold_batch_norm=true", "the model has no batch norm"),
        ),
        target=Target(
            "NVIDIA Test", "9.0", {"python": "3.11", "torch": "2.14.1"}, "a" * 64, "b" * 64
        ),
        final=final(),
        budget_s=120.0,
        elapsed_s=118.4,
        ended_by="budget",
        notes=("the accuracy was measured on 1 batch",),
    )
    return attrs.evolve(data, **changes)


def with_metric() -> TuningData:
    """A result whose bound is on the drop of a metric."""
    trials = tuple(
        attrs.evolve(one, accuracy=_drop(one.accuracy)) if one.accuracy else one
        for one in tuning_data().trials
    )
    return tuning_data(
        bound=AccuracyBound("top1", 0.005, batches=8, reference="eager"), trials=trials
    )


def _drop(found: Accuracy) -> Accuracy:
    if found.loss is None:
        return found
    drop = 4 * found.loss.value
    loss = Interval(drop, drop - 0.002, drop + 0.002)
    return attrs.evolve(found, loss=loss, metric=0.76 - drop)
