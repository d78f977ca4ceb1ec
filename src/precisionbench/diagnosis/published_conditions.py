"""The conditions in which a published number and a measured row differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import attrs

from precisionbench.diagnosis.facts import facts_of
from precisionbench.diagnosis.labels import precision_label_of
from precisionbench.diagnosis.models import input_of, variant_of
from precisionbench.published import Record
from precisionbench.published.record import METRICS
from precisionbench.published.search import model_key
from precisionbench.reference_data.model_flops import entries
from precisionbench.reference_data.peaks import device_of, devices_named, name_key
from precisionbench.results import BackendResult, ComparisonData
from precisionbench.results.claims import TENSORRT, Claims
from precisionbench.results.dtypes import SHORT_NAMES
from precisionbench.results.earlier_claims import claims_of

_UNKNOWN = "not stated"
EVENTS, HOST = "device-time", "host-time"
_CLOCKS = {"cuda_events": EVENTS, "host": HOST}
_TIMED = {
    EVENTS: "CUDA events around consecutive calls, inputs on the device",
    HOST: "host clock around synchronised calls",
}
# Timed regions that are the same.
_EQUIVALENT = {("gpu-compute", EVENTS), ("wall-synchronised", HOST)}


@attrs.frozen
class Conditions:
    """The conditions of a measurement; None where one is unknown.

    Attributes:
        device: id of a known device, or the name that the driver reports.
        model: name of the model.
        variant: such as `v1.5`.
        input: of one item, such as `3x224x224`.
        precision: the claimed one, such as `fp16`.
        ran: the precision that it ran in, where the label is false; else empty.
        batch: items of one call.
        gpus: number of GPUs used.
        dlas: number of DLAs used in addition.
        sparsity: `dense` or `2:4`.
        metric: `device-time` or `host-time`.
        power_mode: power mode and clocks, in words.
        framework: what ran the model.
        software: versions.
    """

    device: str | None = None
    model: str | None = None
    variant: str | None = None
    input: str | None = None
    precision: str | None = None
    ran: str = ""
    batch: int | None = None
    gpus: int | None = None
    dlas: int | None = None
    sparsity: str | None = None
    metric: str | None = None
    power_mode: str | None = None
    framework: str | None = None
    software: str | None = None


@attrs.frozen
class ConditionMismatch:
    """A condition in which two numbers differ, or may differ.

    Attributes:
        condition: name of the condition, such as `batch`.
        published: value for the published number.
        measured: value for the measured row.
        is_known: whether they are known to differ; else one of the values is unknown.
    """

    condition: str
    published: str
    measured: str
    is_known: bool = True

    @property
    def sentence(self) -> str:
        """The mismatch as one sentence."""
        both = f"published: {self.published}; measured: {self.measured}"
        if self.is_known:
            return f"the {self.condition} differs ({both})"
        return f"not known whether the {self.condition} is the same ({both})"

    def __str__(self) -> str:
        return self.sentence


def differences(record: Record, measured: Conditions) -> tuple[ConditionMismatch, ...]:
    """The conditions in which a published number and a measured row differ or may differ.

    Args:
        record: the published number.
        measured: conditions of the row.
    """
    return tuple(found for check in _CHECKS for found in check(record, measured))


def _device(record: Record, measured: Conditions) -> Iterator[ConditionMismatch]:
    ours, theirs = measured.device, {device.id for device in devices_named(record.device)}
    if ours is not None and (theirs == {ours} or name_key(ours) == name_key(record.device)):
        return
    known = ours is not None and ours not in theirs
    yield ConditionMismatch("device", record.device, ours or _UNKNOWN, known)


def _model(record: Record, measured: Conditions) -> Iterator[ConditionMismatch]:
    found = model_difference(record, measured.model)
    if found is not None:
        yield found


def model_difference(record: Record, name: str | None) -> ConditionMismatch | None:
    """The mismatch where a published number is or may be of another model; else None.

    Args:
        record: the published number.
        name: of the measured model; None where it is not known.
    """
    if name is not None and model_key(name)[0] == model_key(record.model)[0]:
        return None
    known = name is not None and _is_known_model(name)
    return ConditionMismatch("model", record.model, name or _UNKNOWN, known)


def _is_known_model(name: str) -> bool:
    """Whether a name is of a known model; a user's class or function may be any model."""
    known = {model_key(entry.name)[0] for entry in entries()}
    return name.startswith("torchvision:") or model_key(name)[0] in known


def _variant(record: Record, measured: Conditions) -> Iterator[ConditionMismatch]:
    if record.variant or measured.variant:
        yield from _compared("model variant", record.variant or None, measured.variant)


def _compared(condition: str, theirs: object, ours: object) -> Iterator[ConditionMismatch]:
    """A mismatch where two values differ or one of them is unknown; else none."""
    if theirs is None or ours is None:
        yield ConditionMismatch(condition, _or_unknown(theirs), _or_unknown(ours), is_known=False)
    elif theirs != ours:
        yield ConditionMismatch(condition, str(theirs), str(ours))


def _or_unknown(value: object) -> str:
    return _UNKNOWN if value is None else str(value)


def _input(record: Record, measured: Conditions) -> Iterator[ConditionMismatch]:
    yield from _compared("input", record.input, measured.input)


def _precision(record: Record, measured: Conditions) -> Iterator[ConditionMismatch]:
    theirs = record.precision and _with_note(record.precision, record.precision_note)
    ours = measured.precision and _with_note(measured.precision, measured.ran)
    same = record.precision == measured.precision and not measured.ran
    doubtful = "doubtful" in record.precision_note
    if same and not doubtful and theirs is not None:
        return
    known = None not in (theirs, ours) and not (same and doubtful)
    yield ConditionMismatch("precision", theirs or _UNKNOWN, ours or _UNKNOWN, known)


def _with_note(text: str, note: str) -> str:
    return f"{text} ({note})" if note else text


def _batch(record: Record, measured: Conditions) -> Iterator[ConditionMismatch]:
    if record.dla_batch is None:
        yield from _compared("batch", record.batch, measured.batch)
        return
    theirs = f"{_or_unknown(record.batch)} on the GPU and {record.dla_batch} on each DLA"
    yield ConditionMismatch(
        "batch", theirs, _or_unknown(measured.batch), measured.batch is not None
    )


def _engines(record: Record, measured: Conditions) -> Iterator[ConditionMismatch]:
    theirs = (record.gpus, record.dlas)
    # Several GPUs are the same engine; their number is compared by `_accelerators`.
    alike = (None if record.gpus is None else min(1, record.gpus), record.dlas)
    ours = (measured.gpus, measured.dlas)
    if alike != ours or None in alike:
        known = None not in (*theirs, *ours)
        yield ConditionMismatch("engines", record.engines, _engine_text(*ours), known)


def _engine_text(gpus: int | None, dlas: int | None) -> str:
    if gpus is None or dlas is None:
        return _UNKNOWN
    parts = ["GPU"] * bool(gpus) + [f"{dlas} DLA"] * bool(dlas)
    return " + ".join(parts) or "CPU"


def _accelerators(record: Record, _: Conditions) -> Iterator[ConditionMismatch]:
    if record.n_accelerators > 1:
        theirs = f"{record.n_accelerators}; the rate is divided by this number"
        yield ConditionMismatch("number of accelerators", theirs, "1")


def _sparsity(record: Record, measured: Conditions) -> Iterator[ConditionMismatch]:
    yield from _compared("sparsity", record.sparsity, measured.sparsity)


def _latency_limit(record: Record, _: Conditions) -> Iterator[ConditionMismatch]:
    if record.latency_limit_s is not None:
        theirs = f"no call longer than {record.latency_limit_s * 1e3:g} ms"
        yield ConditionMismatch("latency limit", theirs, "none")


def _metric(record: Record, measured: Conditions) -> Iterator[ConditionMismatch]:
    if (record.metric, measured.metric) in _EQUIVALENT:
        return
    theirs = _with_note(METRICS[record.metric], record.metric_note)
    ours = _TIMED.get(measured.metric or "", _UNKNOWN)
    known = record.metric != "not-stated" and measured.metric is not None
    yield ConditionMismatch("timed region", theirs, ours, known)


def _framework(record: Record, measured: Conditions) -> Iterator[ConditionMismatch]:
    yield from _compared("framework", record.framework or None, measured.framework)


def _software(record: Record, measured: Conditions) -> Iterator[ConditionMismatch]:
    yield from _compared("software", record.software, measured.software)


def _power_mode(record: Record, measured: Conditions) -> Iterator[ConditionMismatch]:
    """Different descriptions of clocks may mean the same."""
    theirs, ours = record.power_mode, measured.power_mode
    if theirs is None or ours is None or theirs.split() != ours.split():
        yield ConditionMismatch("power mode", theirs or _UNKNOWN, ours or _UNKNOWN, is_known=False)


_CHECKS: tuple[Callable[[Record, Conditions], Iterator[ConditionMismatch]], ...] = (
    _device,
    _model,
    _variant,
    _input,
    _precision,
    _batch,
    _engines,
    _accelerators,
    _sparsity,
    _latency_limit,
    _metric,
    _framework,
    _software,
    _power_mode,
)


def conditions_of(data: ComparisonData, row: BackendResult) -> Conditions:
    """The conditions of a measured row.

    Args:
        data: the comparison.
        row: one of its rows.
    """
    gpu, workload = data.environment.gpu, data.workload
    device = device_of(gpu) if gpu else None
    label, claims = precision_label_of(facts_of(data, row)), claims_of(row)
    return Conditions(
        device=device.id if device else gpu.name if gpu else data.environment.cpu,
        model=workload.model,
        variant=variant_of(workload.model),
        input=input_of(workload),
        precision="mixed" if claims.mixed else SHORT_NAMES.get(claims.dtype),
        ran=f"by its label, but it ran {label.ran}" if label.is_wrong else "",
        batch=row.batch_size,
        gpus=1 if gpu else 0,
        dlas=claims.dlas,
        sparsity=claims.sparsity,
        metric=_CLOCKS.get(row.measurement.clock),
        power_mode=_power_mode_of(data, row),
        framework=claims.framework or row.name,
        software=_software_of(data, claims),
    )


def _software_of(data: ComparisonData, claims: Claims) -> str:
    environment = data.environment
    versions = {
        "JetPack": environment.jetson,
        "torch": environment.torch,
        "CUDA": environment.cuda,
        "cuDNN": environment.cudnn,
        TENSORRT: environment.packages.get("tensorrt") if claims.engine == TENSORRT else None,
    }
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _power_mode_of(data: ComparisonData, row: BackendResult) -> str | None:
    clocks = [b.state.sm_clock_hz for b in row.measurement.blocks if b.state]
    seen = sorted(clock for clock in clocks if clock is not None and math.isfinite(clock))
    stated = [data.environment.power_mode] if data.environment.power_mode else []
    if seen:
        ends = dict.fromkeys(f"{clock / 1e6:.0f}" for clock in (seen[0], seen[-1]))
        stated.append(f"{' to '.join(ends)} MHz")
    return ", ".join(stated) or None
