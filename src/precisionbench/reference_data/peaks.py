"""What devices can do at most: peaks with their sources, from `data/devices.toml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import attrs

from precisionbench._internal.data_files import read_toml
from precisionbench.results.records import Gpu

# Rates by the names that `Device.peaks` uses, and what the file's figures are multiplied by.
RATES: Mapping[str, float] = {
    "fp32": 1e12,
    "tf32": 1e12,
    "fp16": 1e12,
    "bf16": 1e12,
    "fp8": 1e12,
    "int8": 1e12,
    "bandwidth": 1e9,
    "sm_clock": 1e6,
    "dlas": 1,
    "dla_int8": 1e12,
    "dla_fp16": 1e12,
}


@attrs.frozen
class Peak:
    """A rate that a device reaches at most.

    Attributes:
        value: in FLOP/s (`int8`: operations), dense, at the boost clock; byte/s for `bandwidth`,
            Hz for `sm_clock`, a number for `dlas`; rates of a DLA are those of one.
        status: `cited`, `derived` or `unverified`.
        source: where it stands, or what it was derived from.
    """

    value: float = attrs.field(validator=attrs.validators.gt(0))
    status: str = attrs.field(validator=attrs.validators.in_(("cited", "derived", "unverified")))
    source: str


@attrs.frozen
class Device:
    """A device whose peaks are known.

    Attributes:
        id: short name.
        name: in full.
        pattern: regular expression that is searched for in the driver's name of it.
        compute_capability: such as `9.0`.
        multiprocessors: how many it has.
        memory_gib: least and most memory, where boards differ in nothing else.
        peaks: by rate; one that is missing is not known or not supported.
        aliases: what else people call it; several devices may share one.
    """

    id: str
    name: str
    pattern: str
    compute_capability: str
    multiprocessors: int
    memory_gib: tuple[float, float] | None
    peaks: Mapping[str, Peak]
    aliases: tuple[str, ...] = ()

    def is_model_of(self, gpu: Gpu) -> bool:
        """Whether this GPU is such a device.

        Args:
            gpu: as it was seen on the machine.
        """
        low, high = self.memory_gib or (0.0, float("inf"))
        return (
            re.search(self.pattern, gpu.name) is not None
            and gpu.compute_capability == self.compute_capability
            and gpu.multiprocessors == self.multiprocessors
            and low <= gpu.memory_bytes / 2**30 <= high
        )


@cache
def known() -> tuple[Device, ...]:
    """All devices of the data file."""
    return tuple(_device(entry) for entry in read_toml("devices.toml")["device"])


def _device(entry: dict[str, Any]) -> Device:
    peaks = {
        rate: Peak(found["value"] * unit, found["status"], found["source"])
        for rate, unit in RATES.items()
        if (found := entry.pop(rate, None)) is not None
    }
    low_high = entry.pop("memory_gib", None)
    aliases = tuple(entry.pop("aliases", ()))
    memory_gib = tuple(low_high) if low_high else None
    return Device(**entry, memory_gib=memory_gib, peaks=peaks, aliases=aliases)


def device_of(gpu: Gpu) -> Device | None:
    """The device that a GPU is; None where it is not known, or could be one of several.

    Args:
        gpu: as it was seen on the machine.
    """
    found = [device for device in known() if device.is_model_of(gpu)]
    return found[0] if len(found) == 1 else None


def named(name: str) -> tuple[Device, ...]:
    """The devices that a person's or a driver's name fits; several where it does not tell.

    Args:
        name: an id, a name in full, an alias such as `agx xavier`, or as the driver says it.
    """
    wanted = key(name)
    exact = tuple(
        device
        for device in known()
        if wanted in map(key, (device.id, device.name, *device.aliases))
    )
    return exact or tuple(d for d in known() if re.search(d.pattern, name, re.IGNORECASE))


def key(name: str) -> str:
    """A device's name without what writers differ in: maker, family, signs, remarks in brackets.

    Args:
        name: of the device.
    """
    plain = re.sub(r"\(.*?\)", "", name.lower())
    plain = re.sub(r"\b(nvidia|tesla|jetson|geforce)\b", "", plain)
    return re.sub(r"[^a-z0-9]", "", plain)
