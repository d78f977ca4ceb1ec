"""Published numbers that contradict their device, their source or themselves."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs

from precisionbench.diagnosis.plausibility import IMPOSSIBLE, UNLIKELY, judgements_of
from precisionbench.published.record import MS, Record
from precisionbench.published.search import model_key
from precisionbench.reference_data.peaks import devices_named
from precisionbench.results.dtypes import compute_capability

# Kinds of contradictions, in the order in which they are shown.
KINDS = {
    "peak": "above the peak of its device",
    "arithmetic": "in a precision in which its device does not compute",
    "gain": "more gained by a lower precision than that can give",
    "copied": "exactly the value of another row",
    "timing": "a rate and a latency that contradict each other",
    "accuracy": "much accuracy lost by a lower precision",
}
# The first compute capability whose tensor cores or other units compute in a precision: "CUDA C++
# Programming Guide", tables of arithmetic throughput and of tensor core types.
_FIRST_CAPABILITY = {
    "fp16": (5, 3),
    "int8": (6, 1),
    "bf16": (8, 0),
    "tf32": (8, 0),
    "fp8": (8, 9),
    "fp4": (10, 0),
}
_BITS = {"fp32": 32, "tf32": 32, "fp16": 16, "bf16": 16, "fp8": 8, "int8": 8, "fp4": 4, "int4": 4}
# The largest gain by bits: tensor cores and AMX against float32 on ordinary units; below 16 bits,
# each halving doubles the rate, and 2:4 sparsity doubles it once more. With a tenth as margin.
_MOST_GAIN = {
    (32, 16): 35.0,
    (32, 8): 70.0,
    (32, 4): 140.0,
    (16, 8): 4.4,
    (16, 4): 8.8,
    (8, 4): 4.4,
}
_LEAST_DIGITS = 4  # significant digits from which equal values are no coincidence
_TARGET = re.compile(r"-(95|99|99\.9)$")  # accuracy that MLPerf asks for; one run may serve several
_STREAMS = {"single-stream": "SingleStream", "multi-stream": "MultiStream"}
_QUERY_SAMPLES = {"single-stream": 1, "multi-stream": 8}
_EQUAL = 1.02  # ratio of latencies up to which they are equal
_TOLERANCE = 1.1  # of rates that should be equal
_MOST_IN_FLIGHT = 64  # samples that one accelerator has begun and not finished
_LEAST_ACCURACY = 0.9  # of that of the higher precision


@attrs.frozen
class Contradiction:
    """A reason not to rely on a published number.

    Attributes:
        kind: one of `KINDS`.
        verdict: `impossible` or `unlikely`.
        sentence: the reason, with its figures.
    """

    kind: str
    verdict: str
    sentence: str


Check = Callable[[Record, Sequence[Record]], Iterator[Contradiction]]


def contradictions(
    records: Iterable[Record], among: Iterable[Record] | None = None
) -> dict[str, tuple[Contradiction, ...]]:
    """What contradicts published numbers.

    Args:
        records: to be checked.
        among: all numbers, of which those of the same source are compared; None for `records`.

    Returns:
        For the id of each number with a contradiction, all of them in the order of `KINDS`.
    """
    records = tuple(records)
    sources: dict[str, list[Record]] = defaultdict(list)
    for record in records if among is None else among:
        sources[_source(record)].append(record)
    found = {record.id: _of(record, sources[_source(record)]) for record in records}
    return {id: reasons for id, reasons in found.items() if reasons}


def _source(record: Record) -> str:
    """What rows of one publication have in common."""
    return record.imported_from or record.source_title


def _of(record: Record, source: Sequence[Record]) -> tuple[Contradiction, ...]:
    peers = [other for other in source if other.id != record.id]
    reasons = (reason for check in _CHECKS for reason in check(record, peers))
    return tuple(sorted(reasons, key=lambda reason: list(KINDS).index(reason.kind)))


def _peak(record: Record, _: Sequence[Record]) -> Iterator[Contradiction]:
    """Above the peak, for every variant of the model that the source leaves open."""
    judged = [
        one
        for one in judgements_of(record)
        if one.claim and one.claim.precision == record.precision
    ]
    verdicts = [one.verdict for one in judged]
    if verdicts and set(verdicts) <= {IMPOSSIBLE, UNLIKELY}:
        best = next((one for one in judged if one.verdict == UNLIKELY), judged[0])
        yield Contradiction("peak", best.verdict, best.sentence)


def _arithmetic(record: Record, _: Sequence[Record]) -> Iterator[Contradiction]:
    devices = devices_named(record.device)
    needed = _FIRST_CAPABILITY.get(record.precision or "")
    if needed is None or not devices:
        return
    best = max(devices, key=lambda device: compute_capability(device.compute_capability))
    if compute_capability(best.compute_capability) < needed:
        name = (record.precision or "").upper()
        yield Contradiction(
            "arithmetic",
            IMPOSSIBLE,
            f"{best.name} (compute capability {best.compute_capability}) does not compute in "
            f"{name}, which requires {needed[0]}.{needed[1]}; only weights can be stored in it",
        )


def _gain(record: Record, peers: Sequence[Record]) -> Iterator[Contradiction]:
    for other in _in_more_bits(record, peers):
        bits = _BITS[other.precision or ""], _BITS[record.precision or ""]
        gain, most = _speed(record) / _speed(other), _MOST_GAIN[bits]
        if gain > most:
            yield Contradiction(
                "gain",
                UNLIKELY,
                f"{gain:.0f} times as fast as {_name(other)} of the same model and device "
                f"({other.id}), and {bits[1]} bits instead of {bits[0]} can give about "
                f"{most / _TOLERANCE:.0f}",
            )


def _speed(record: Record) -> float:
    return 1.0 / record.value if record.unit == MS else record.value_per_accelerator


def _in_more_bits(record: Record, peers: Sequence[Record]) -> Iterator[Record]:
    """Numbers that differ in nothing but a precision of more bits."""
    bits = _BITS.get(record.precision or "", 32)
    for other in peers:
        has_more = _BITS.get(other.precision or "", 0) > bits
        if has_more and _call(record) == _call(other) and _is_alike(record, other):
            yield other


def _call(record: Record) -> tuple[object, ...]:
    return record.metric, record.unit, record.batch


def _is_alike(record: Record, other: Record) -> bool:
    """Whether two numbers of a source are of the same model on the same system."""
    return _system(record) == _system(other)


def _system(record: Record) -> tuple[object, ...]:
    return (
        record.device,
        record.model,
        record.input,
        record.gpus,
        record.dlas,
        record.power_mode,
        record.framework,
        record.software,
        record.source_title,
        record.notes,
    )


def _copied(record: Record, peers: Sequence[Record]) -> Iterator[Contradiction]:
    digits = re.sub(r"e.*|\D", "", f"{record.value:.10g}").strip("0")
    if len(digits) < _LEAST_DIGITS:
        return
    for other in peers:
        if (other.value, other.unit) != (record.value, record.unit):
            continue
        differing = [name for name, of in _COMPARED.items() if of(record) != of(other)]
        # The copy is the one that contradicts its own source otherwise, if one of them does.
        is_original = any(_gain(other, peers)) and not any(_gain(record, peers))
        if differing and not is_original:
            what = " and another ".join(differing)
            yield Contradiction(
                "copied",
                UNLIKELY,
                f"exactly the value of {other.id}, which is of another {what}: one of the two is "
                "copied",
            )
            return


def _model(record: Record) -> str:
    return model_key(_TARGET.sub("", record.model))[0]


# What rows with the same value must have in common.
_COMPARED: dict[str, Callable[[Record], object]] = {
    "model": _model,
    "device": lambda r: r.device,
    "precision": lambda r: r.precision,
    "input": lambda r: r.input,
    "batch": lambda r: r.batch,
    "way of measuring": lambda r: r.metric,
}


def _timing(record: Record, peers: Sequence[Record]) -> Iterator[Contradiction]:
    if record.metric in _STREAMS and record.unit == MS:
        alike = [o for o in peers if _is_alike(record, o) and o.precision == record.precision]
        yield from _against_one_sample(record, alike)
        yield from _against_offline(record, alike)
    if record.latency_s and record.batch and record.unit != MS:
        items = record.value_per_accelerator * record.latency_s
        if not 1 / _TOLERANCE < items / record.batch < _TOLERANCE:
            yield Contradiction(
                "timing",
                UNLIKELY,
                f"{record.value_per_accelerator:,.4g} {record.unit} in calls of "
                f"{record.latency_s * 1e3:.4g} ms are {items:,.4g} items in a call, and the batch "
                f"size is {record.batch:,}",
            )


def _against_one_sample(record: Record, alike: Sequence[Record]) -> Iterator[Contradiction]:
    """A query of 8 samples takes longer than one of a single sample."""
    for other in alike:
        is_pair = {record.metric, other.metric} == set(_STREAMS) and other.unit == MS
        eight, one = (record, other) if record.metric == "multi-stream" else (other, record)
        if is_pair and eight.value <= _EQUAL * one.value:
            yield Contradiction(
                "timing",
                UNLIKELY,
                f"8 samples in one query (MultiStream) take {eight.value:.4g} ms, and a single one "
                f"(SingleStream) takes {one.value:.4g} ms ({other.id})",
            )


def _against_offline(record: Record, alike: Sequence[Record]) -> Iterator[Contradiction]:
    """Offline is at least as fast as one query at a time, and not by more than fits in flight."""
    for other in alike:
        if other.metric != "offline" or other.unit in (MS, "tokens/s"):
            continue
        samples = _QUERY_SAMPLES[record.metric]
        alone = 1e3 * samples / record.value
        used = min(samples, other.n_accelerators)  # the samples of a query may be spread
        rate = used * other.value_per_accelerator
        stream = f"{_STREAMS[record.metric]} ({record.value:.4g} ms)"
        if rate * _TOLERANCE < alone:
            yield Contradiction(
                "timing",
                UNLIKELY,
                f"one query at a time gives {alone:,.4g} {other.unit} in {stream}, and Offline "
                f"gives {rate:,.4g} on {used} of {other.n_accelerators} ({other.id})",
            )
        if rate / alone > _MOST_IN_FLIGHT:
            yield Contradiction(
                "timing",
                UNLIKELY,
                f"Offline is {rate / alone:,.0f} times as fast as one query at a time in {stream} "
                f"({other.id}): the latency seems to include a delay",
            )


def _accuracy(record: Record, peers: Sequence[Record]) -> Iterator[Contradiction]:
    mine = _figure(record)
    # Engines of the same software; an accuracy belongs to a number, not to a system.
    for other in _in_more_bits(record, peers):
        theirs = _figure(other)
        if mine is not None and theirs and 0 <= mine < _LEAST_ACCURACY * theirs:
            yield Contradiction(
                "accuracy",
                UNLIKELY,
                f"{record.accuracy}, and {other.accuracy} in {_name(other)} ({other.id}): "
                f"{1 - mine / theirs:.0%} are lost, so the two do not do the same work",
            )
            return


def _figure(record: Record) -> float | None:
    """The last number of what is stated about the accuracy."""
    numbers = re.findall(r"\d+(?:\.\d+)?", record.accuracy)
    return float(numbers[-1]) if numbers else None


def _name(record: Record) -> str:
    return (record.precision or "").upper()


_CHECKS: tuple[Check, ...] = (_peak, _arithmetic, _gain, _copied, _timing, _accuracy)
