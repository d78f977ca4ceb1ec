"""Whether a claimed rate is possible on a device, by its peak rates."""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs

from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.models import item_flops
from precisionbench.published import Record
from precisionbench.reference_data.model_flops import ItemFlops, stated_flops
from precisionbench.reference_data.peaks import DeviceSpec, Peak, devices_named
from precisionbench.results.dtypes import AMPERE, compute_capability

IMPOSSIBLE, UNLIKELY, POSSIBLE, UNKNOWN = "impossible", "unlikely", "possible", "unknown"
# Precisions in which libraries implement Winograd's algorithm.
_WINOGRAD_IN = ("fp32", "tf32", "fp16", "bf16")
# Names of peaks that differ from the name of the precision.
_RATES = {"mixed": "fp16"}
_SPARSE_FACTOR = 2.0  # of 2:4 sparsity, on Ampere and later
_STATUSES = ("cited", "derived", "unverified")  # from the most to the least reliable
_UNIT_NAMES = {"images/s": "img/s", "ms": "items/s"}
_TERA = 1e12
_WHOLE_FROM = 100.0  # rates from here on are shown without decimals


@attrs.frozen
class Claim:
    """A claimed rate, in a precision, on one device.

    Attributes:
        items_per_s: items per second of one accelerator.
        precision: such as `fp16`, one of `published.record.PRECISIONS`.
        device: the device.
        flops: FLOPs of an item.
        gpus: 1, or 0 where only DLAs were used.
        dlas: number of DLAs that were used in addition.
        sparsity: `dense`, `2:4`, or None where it is not stated.
        unit: unit of the rate, in words.
    """

    items_per_s: float
    precision: str
    device: DeviceSpec
    flops: ItemFlops
    gpus: int = 1
    dlas: int = 0
    sparsity: str | None = "dense"
    unit: str = "items/s"

    @property
    def engines(self) -> str:
        """The engines that the claim names, in words."""
        dlas = "" if not self.dlas else "a DLA" if self.dlas == 1 else f"{self.dlas} DLAs"
        if not self.gpus:
            return f"{dlas} alone" if dlas else "no engine"
        return f"the GPU and {dlas}" if dlas else "the GPU alone"

    @property
    def flop_rate(self) -> float:
        """FLOP/s, with FLOPs as they are usually counted."""
        return self.items_per_s * self.flops.usual

    @property
    def least_flop_rate(self) -> float:
        """Minimum FLOP/s with any algorithm for convolutions."""
        return self.items_per_s * self.least_flops

    @property
    def least_flops(self) -> float:
        """Minimum FLOPs of an item in this precision."""
        return self.flops.least if self.precision in _WINOGRAD_IN else self.flops.usual

    @property
    def peak(self) -> Peak | None:
        """Peak rate of all engines together; None where one of them is not known."""
        rate = _RATES.get(self.precision, self.precision)
        peaks = self.device.peaks
        needed = [(self.gpus, peaks.get(rate)), (self.dlas, peaks.get(f"dla_{rate}"))]
        used = [(count, peak) for count, peak in needed if count]
        if not used or any(peak is None for _, peak in used):
            return None
        known = [(count, peak) for count, peak in used if peak is not None]
        return Peak(
            value=self.sparse_factor * sum(count * peak.value for count, peak in known),
            status=max((peak.status for _, peak in known), key=_STATUSES.index),
            source="; ".join(peak.source for _, peak in known),
        )

    @property
    def sparse_factor(self) -> float:
        """The factor over the dense peak that sparsity may have gained."""
        capability = compute_capability(self.device.compute_capability)
        can_be_sparse = capability >= AMPERE and self.precision != "fp32"
        return _SPARSE_FACTOR if can_be_sparse and self.sparsity != "dense" else 1.0


@attrs.frozen
class Judgement:
    """The plausibility of a claim.

    Attributes:
        verdict: `impossible` (above the peak with any algorithm), `unlikely` (below it only with
            Winograd's algorithm wherever it can be used), `possible` (below the peak, which does
            not prove it), or `unknown`.
        sentence: the verdict with its figures; figures that are not cited are marked.
        claim: the claim; None where too little of it is known.
    """

    verdict: str
    sentence: str
    claim: Claim | None = None


def judge(claim: Claim) -> Judgement:
    """Compare a claim with the device's peak: x items/s of F FLOPs each are x F FLOP/s.

    Args:
        claim: the claim.
    """
    peak = claim.peak
    if peak is None:
        reason = (
            f"the {_precision(claim)} peak of {claim.engines} of {claim.device.name} is not known"
        )
        return Judgement(UNKNOWN, reason, claim)
    if claim.flop_rate <= peak.value:
        return Judgement(POSSIBLE, _possible(claim, peak), claim)
    verdict = IMPOSSIBLE if claim.least_flop_rate > peak.value else UNLIKELY
    sentence = f"{_above(claim, peak)}: {_conclusion(claim, peak, verdict)}"
    return Judgement(verdict, sentence, claim)


def _possible(claim: Claim, peak: Peak) -> str:
    share = claim.flop_rate / peak.value
    return f"{_rate(claim)}, {share:.0%} of the {_peak(claim, peak)}: below peak, so plausible"


def _above(claim: Claim, peak: Peak) -> str:
    usual, least = peak.value / claim.flops.usual, peak.value / claim.least_flops
    most = f"at most {usual:,.0f} {claim.unit}"
    if least > usual:
        most += f", or {least:,.0f} with Winograd's algorithm wherever possible"
    return f"{_rate(claim)}, above the {_peak(claim, peak)} ({most})"


def _conclusion(claim: Claim, peak: Peak, verdict: str) -> str:
    what = f"{_precision(claim)} on {claim.engines}"
    if verdict == IMPOSSIBLE:
        return f"not possible in {what}"
    share = claim.least_flop_rate / peak.value
    return f"unlikely in {what}: needs that algorithm and {share:.0%} of the peak"


def _rate(claim: Claim) -> str:
    rate = f"{_tera(claim.flop_rate)} {_unit(claim)}"
    return f"{claim.items_per_s:,.0f} {claim.unit} of {claim.flops.of} is {rate}"


def _peak(claim: Claim, peak: Peak) -> str:
    sparse = " with 2:4 sparsity" if claim.sparse_factor > 1 else ""
    label = "" if peak.status == "cited" else f" ({peak.status})"
    rate = f"{_tera(peak.value)} {_unit(claim)}{label}"
    what = f"{_precision(claim)}{sparse} on {claim.engines}"
    return f"peak of {rate} of the {claim.device.name} in {what}"


def _tera(rate: float) -> str:
    value = rate / _TERA
    return f"{value:,.0f}" if value >= _WHOLE_FROM else f"{value:.3g}"


def _unit(claim: Claim) -> str:
    return "TOP/s" if claim.precision.startswith("int") else "TFLOP/s"


def _precision(claim: Claim) -> str:
    return "mixed precision" if claim.precision == "mixed" else claim.precision.upper()


def judgements_of(record: Record) -> tuple[Judgement, ...]:
    """Judge a published number as stated, and under simpler interpretations.

    A number whose precision or engines are not stated, that is INT8, or that sums several engines,
    is also compared with the GPU alone, in its own precision and in FP16. Where the source does not
    state the model's variant, each variant is judged.

    Args:
        record: the published number.
    """
    rate, devices = record.items_per_s, devices_named(record.device)
    costs = item_flops(record.model, record.variant, record.input)
    if not costs and record.gmacs is not None:
        costs = (stated_flops(record.gmacs, record.model),)
    if rate is None:
        return (Judgement(UNKNOWN, "its batch size is not known, so its rate is not known"),)
    if not devices:
        return (Judgement(UNKNOWN, f"the peaks of {record.device} are not known"),)
    if not costs:
        where = record.input or "an input that is not stated"
        return (Judgement(UNKNOWN, f"the FLOPs of {record.model} at {where} are not known"),)
    unit = _UNIT_NAMES.get(record.unit, record.unit)
    claims = [
        Claim(rate, precision, devices[0], flops, gpus, dlas, record.sparsity, unit)
        for flops in costs
        for precision, gpus, dlas in _interpretations(record)
    ]
    found = tuple(judge(_on_fastest_device(claim, devices)) for claim in claims)
    return found or (Judgement(UNKNOWN, "neither its precision nor its engines are stated"),)


def _on_fastest_device(claim: Claim, devices: tuple[DeviceSpec, ...]) -> Claim:
    """The claim on the one of several possible devices that has the highest peak."""
    claims = [attrs.evolve(claim, device=device) for device in devices]
    return max(claims, key=lambda one: one.peak.value if one.peak else math.inf)


def _interpretations(record: Record) -> Iterator[tuple[str, int, int]]:
    """Precision, GPUs and DLAs as stated, and as the number may be understood."""
    own, dlas = record.precision, record.dlas
    gpus = None if record.gpus is None else min(1, record.gpus)
    if own is not None and gpus is not None and dlas is not None:
        yield own, gpus, dlas
    if gpus == 0:
        return
    if own != "fp16" and own in ("int8", None):
        yield "fp16", 1, 0
    if own is not None and (gpus is None or dlas != 0):
        yield own, 1, 0


def measured_flops(facts: Facts) -> ItemFlops | None:
    """FLOPs per item of a measured row; None where they were not counted.

    Args:
        facts: facts of the row.
    """
    flops, least, items = facts.evidence.flops, facts.min_flops, facts.row.batch_size
    if not flops or not least or not items:
        return None
    return ItemFlops(flops / items, least / items, "the measured model")
