"""The rows of the report's tables, as text with the number that each is sorted by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from precisionbench.diagnosis.findings import Accuracy, LayerPair
from precisionbench.report import formatting, rows
from precisionbench.results import (
    BackendResult,
    ComparisonData,
    Environment,
    Speedup,
    WorkloadInfo,
)

# More rows would make the page slow; the shortest layers are in the embedded data only.
_MAX_LAYERS = 3000
# What a kernel's name is read without: its return type and its namespaces.
_NOISE = re.compile(r"^void |\(anonymous namespace\)::|\b\w+::")


@attrs.frozen
class SummaryRow:
    """A row of the summary table.

    Attributes:
        text: as in every report.
        is_reference: whether the other rows are compared with it.
        interval: of the speed-up; may be empty.
        verdict: of the speed-up, in words.
        tone: `good`, `bad` or `even`.
        memory: peak, with unit; empty if unknown.
        energy: with unit; empty if unknown.
    """

    text: rows.RowText
    is_reference: bool
    interval: str
    verdict: str
    tone: str
    memory: str
    energy: str


def summary(data: ComparisonData, speedups: Mapping[str, Speedup]) -> tuple[SummaryRow, ...]:
    """The table of all measured rows.

    Args:
        data: the comparison.
        speedups: over the reference, by row.
    """
    return tuple(_summary_row(data, row, speedups.get(row.backend)) for row in data.results)


def _summary_row(data: ComparisonData, row: BackendResult, found: Speedup | None) -> SummaryRow:
    is_reference = data.is_reference(row.backend)
    interval = verdict = ""
    if found is not None and not is_reference:
        _, low, high = rows.ratio_texts(found)
        interval, verdict = f"{low} to {high}", rows.verdict_words(found)
    return SummaryRow(
        text=rows.row_text(data, row, found),
        is_reference=is_reference,
        interval=interval,
        verdict=verdict,
        tone={"faster": "good", "slower": "bad"}.get(verdict, "even"),
        memory=rows.memory_text(row),
        energy=rows.energy_text(row),
    )


@attrs.frozen
class Cell:
    """A cell of a table that can be sorted.

    Attributes:
        text: shown; empty if unknown.
        value: to sort by; None sorts by the text.
    """

    text: str
    value: float | None = None


@attrs.frozen
class LayerRow:
    """A layer in the reference row and in another one.

    Attributes:
        path: the layer.
        kind: its class.
        row: the other row.
        cells: time in the other row, in the reference, their ratio, error.
        dtype: of its operands in the other row.
        kernel: the longest kernel there.
        kernel_text: its name without namespaces and arguments, so that its end shows the dtype.
        obstacles: what keeps tensor cores from being used well.
    """

    path: str
    kind: str
    row: str
    cells: tuple[Cell, ...]
    dtype: str
    kernel: str
    kernel_text: str
    obstacles: str


@attrs.frozen
class LayerTable:
    """Layers of the reference row next to those of the others.

    Attributes:
        rows: those of `opening` first; the longest of each row first.
        names: the rows that occur.
        opening: the row whose layers are shown at first.
        has_obstacles: whether anything keeps one from using tensor cores well.
        left_out: how many layers are in the data only.
        left_out_share: of the time of all layers.
    """

    rows: tuple[LayerRow, ...]
    names: tuple[str, ...]
    opening: str
    has_obstacles: bool
    left_out: int
    left_out_share: float


def layer_table(
    pairs: Sequence[LayerPair], opening: str = "", most: int = _MAX_LAYERS
) -> LayerTable:
    """The precision-paired layers.

    Args:
        pairs: as the diagnosis gives them, the longest of each row first.
        opening: the row to begin with.
        most: rows at most; of each backend the longest are kept.
    """
    names = tuple(sorted({p.row: None for p in pairs}, key=lambda name: name != opening))
    each = most // max(1, len(names))
    by_row = [[pair for pair in pairs if pair.row == name] for name in names]
    shown = [pair for mine in by_row for pair in mine[:each]]
    total_s = sum(pair.time_s for pair in pairs)
    shown_s = sum(pair.time_s for pair in shown)
    return LayerTable(
        tuple(map(_layer_row, shown)),
        names,
        opening,
        any(pair.obstacles for pair in shown),
        len(pairs) - len(shown),
        max(0.0, 1 - shown_s / total_s) if total_s else 0.0,
    )


def _layer_row(pair: LayerPair) -> LayerRow:
    error = "" if pair.error is None else formatting.scientific(pair.error)
    return LayerRow(
        path=pair.path or "(the model)",
        kind=pair.kind,
        row=pair.row,
        cells=(
            Cell(_time(pair.time_s), pair.time_s),
            Cell(_time(pair.reference_s), pair.reference_s),
            Cell(f"{pair.ratio:.3g}x", pair.ratio),
            Cell(error, pair.error),
        ),
        dtype=pair.dtype,
        kernel=pair.kernel,
        kernel_text=kernel_text(pair.kernel),
        obstacles="; ".join(pair.obstacles),
    )


def kernel_text(name: str) -> str:
    """A kernel's name without its return type, namespaces and arguments.

    Args:
        name: as the profiler gives it.
    """
    brief = _NOISE.sub("", name)
    depth = 0  # of template arguments, which are kept
    for place, character in enumerate(brief):
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0 and place:
            return brief[:place]
    return brief


def _time(seconds: float) -> str:
    return formatting.time_text(seconds, 3) if seconds else "0"


@attrs.frozen
class AgreementRow:
    """The numerical error of a row's output.

    Attributes:
        name: the row's.
        cells: relative L2, cosine, largest error, non-finite elements, top-1 against the
            reference; error and bound against float64.
        verdict: whether it is within tolerance.
        reason: why.
        keep: layers to keep in float32.
    """

    name: str
    cells: tuple[str, ...]
    verdict: str
    reason: str
    keep: str


_ACCURACY_WORDS = {
    "fine": "within tolerance",
    "inaccurate": "out of tolerance",
    "non_finite": "infinite or NaN",
    "unstable": "differs from call to call",
    "unknown": "not checked",
}


def agreement_table(
    data: ComparisonData, accuracies: Iterable[Accuracy]
) -> tuple[AgreementRow, ...]:
    """Outputs against the reference's and against float64's.

    Args:
        data: the comparison.
        accuracies: as the diagnosis has them.
    """
    judged = {accuracy.row: accuracy for accuracy in accuracies}
    return tuple(_agreement_row(data, row, judged.get(row.backend)) for row in data.results)


def _agreement_row(
    data: ComparisonData, row: BackendResult, judged: Accuracy | None
) -> AgreementRow:
    found = None if data.is_reference(row.backend) else row.agreement
    against = ("", "", "", "", "")
    if found is not None:
        against = (
            _error(found.relative_l2),
            "" if found.cosine is None else f"{found.cosine:.6f}",
            _error(found.max_abs_error),
            f"{found.nonfinite_count:,}",
            "" if found.top1 is None else f"{found.top1:.1%}",
        )
    own = ("", "") if judged is None else (_error(judged.error), _error(judged.bound))
    return AgreementRow(
        row.backend,
        (*against, *own),
        _ACCURACY_WORDS[judged.verdict] if judged else "",
        judged.reason if judged else "",
        ", ".join(judged.keep) if judged else "",
    )


def _error(value: float | None) -> str:
    return "" if value is None else formatting.scientific(value)


def environment_table(data: ComparisonData) -> tuple[tuple[str, str], ...]:
    """Where and how it was measured, as (what, value); what is not known is left out.

    Args:
        data: the comparison.
    """
    environment = data.environment
    pairs: list[tuple[str, Any]] = [
        *_workload(data.workload),
        *(
            (f"{what} of {name}", value)
            for name, info in data.models.items()
            for what, value in _workload(info)
        ),
        ("measured", data.created),
        ("by", f"precisionbench {data.precisionbench}, {data.launcher}, {data.schedule}"),
        ("seed", data.seed),
        *_machine(environment),
        ("torch settings", _listed(environment.flags)),
        ("packages", _listed(environment.packages)),
    ]
    return tuple((what, str(value)) for what, value in pairs if value not in (None, ""))


def _workload(info: WorkloadInfo) -> list[tuple[str, Any]]:
    inputs = "; ".join(f"{t.path} {list(t.shape)} {t.dtype}" for t in info.inputs)
    return [
        ("model", info.model),
        ("parameters", _count(info.parameters)),
        ("inputs", inputs),
        ("batch size", info.batch_size),
    ]


def _machine(environment: Environment) -> list[tuple[str, Any]]:
    gpu = environment.gpu
    found: list[tuple[str, Any]] = [("device", environment.device)]
    if gpu is not None:
        found += [
            ("GPU", gpu.name),
            ("compute capability", gpu.compute_capability),
            ("GPU memory", formatting.scaled(gpu.memory_bytes, "B")),
            ("multiprocessors", gpu.multiprocessors),
            ("driver", gpu.driver),
            ("power limit", f"{gpu.power_limit_w:.0f} W" if gpu.power_limit_w else None),
            ("highest clock", _mhz(gpu.max_sm_clock_hz)),
        ]
    return [
        *found,
        ("CPU", f"{environment.cpu}, {environment.cpu_cores} cores, {environment.threads} threads"),
        ("platform", environment.platform),
        ("Jetson", environment.jetson),
        ("power mode", environment.power_mode),
        ("Python", environment.python),
        ("torch", environment.torch),
        ("CUDA", environment.cuda),
        ("cuDNN", environment.cudnn),
    ]


def _mhz(clock_hz: float | None) -> str | None:
    return f"{clock_hz / 1e6:.0f} MHz" if clock_hz else None


def _count(number: int | None) -> str | None:
    return None if number is None else f"{number:,}"


def _listed(pairs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in pairs.items())
