"""One published number, and the closed lists that its fields choose from."""

from __future__ import annotations

import attrs

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8", "int4", "mixed")
MS = "ms"
UNITS = ("images/s", "samples/s", "sequences/s", "tokens/s", MS)
# What is inside the timed region, by name.
METRICS = {
    "offline": "MLPerf Offline: all samples at once, samples over the whole time",
    "single-stream": "MLPerf SingleStream: 90th percentile of the time of one query, host included",
    "server": "MLPerf Server: the most queries a second within a bound on latency",
    "gpu-compute": "time of the engines alone, transfers left out; engines added up",
    "end-to-end": "host copies or input pipeline included",
    "wall-synchronised": "the host's clock around calls, after waiting for the device",
    "wall-unsynchronised": "the host's clock around calls, without waiting for the device",
    "tuning-target": "an expected rate in a submission's configuration; no official result",
    "not-stated": "the source does not say what is timed",
}
SPARSITIES = ("dense", "2:4")
STATUSES = {
    "cited": "stands in the named source, which publishes it as its own",
    "reported": "somebody's own measurement, not measured here",
    "unverified": "the source itself could not be read",
}
CONFIDENCES = ("high", "medium", "low")
# What a comparison needs to know: each is given, or named in `unknown`.
CONDITIONS = (
    "input",
    "precision",
    "batch",
    "gpus",
    "dlas",
    "sparsity",
    "power_mode",
    "software",
)


@attrs.frozen
class Record:
    """A published number with its conditions; what its source does not tell is None.

    Attributes:
        id: short, readable and stable.
        device: id of a device in `data/devices.toml`, or a name of several or none of them.
        model: such as `resnet50`.
        value: as published, of all accelerators together.
        unit: one of `UNITS`.
        metric: what is inside the timed region, one of `METRICS`.
        status: one of `STATUSES`.
        confidence: `high`, `medium` or `low`.
        source_title: where it stands.
        source_url: likewise; carried over, not followed by this library.
        date: ISO 8601, as exact as it is known; empty where it is not.
        variant: such as `v1.5` of a ResNet; empty where the source does not tell or there is none.
        input: of one item, such as `3x224x224`.
        precision: one of `PRECISIONS`.
        precision_note: what is doubtful or particular about it.
        batch: items that each GPU (or the only engine) takes at once.
        dla_batch: items that each DLA takes at once.
        gpus: how many GPUs worked, in all.
        dlas: how many DLAs worked beside them.
        sparsity: `dense` or `2:4`.
        latency_limit_s: batches were chosen so that no call takes longer; None where nothing says.
        power_mode: clocks and power, in the source's words.
        software: versions.
        framework: what ran the model.
        metric_note: what is particular about the way of measuring.
        quote: the source's own words, where they are short.
        notes: what else a reader must know.
        unknown: conditions that the source does not tell.
        origin: the file that it was read from.
    """

    id: str
    device: str
    model: str
    value: float
    unit: str
    metric: str
    status: str
    confidence: str
    source_title: str
    source_url: str
    date: str = ""
    variant: str = ""
    input: str | None = None
    precision: str | None = None
    precision_note: str = ""
    batch: int | None = None
    dla_batch: int | None = None
    gpus: int | None = None
    dlas: int | None = None
    sparsity: str | None = None
    latency_limit_s: float | None = None
    power_mode: str | None = None
    software: str | None = None
    framework: str = ""
    metric_note: str = ""
    quote: str = ""
    notes: str = ""
    unknown: tuple[str, ...] = ()
    origin: str = "published.toml"

    @property
    def n_accelerators(self) -> int:
        """Boards or modules; a Jetson is one, whichever of its engines worked."""
        return max(1, self.gpus or 1)

    @property
    def value_per_accelerator(self) -> float:
        """The rate of one accelerator; a latency is that of each."""
        return self.value if self.unit == MS else self.value / self.n_accelerators

    @property
    def items_per_s(self) -> float | None:
        """Items per second of one accelerator; None for a latency whose batch is not known."""
        if self.unit != MS:
            return self.value_per_accelerator
        return None if self.batch is None else 1000.0 * self.batch / self.value

    @property
    def engines(self) -> str:
        """What worked, in words, such as `GPU + 2 DLAs`."""
        if self.gpus is None and self.dlas is None:
            return "not known"
        parts = [_count(self.gpus, "GPU"), _count(self.dlas, "DLA")]
        return " + ".join(part for part in parts if part)


def _count(n: int | None, engine: str) -> str:
    if n is None:
        return f"{engine}s not known"
    return "" if n == 0 else engine if n == 1 else f"{n} {engine}s"
