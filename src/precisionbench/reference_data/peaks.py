"""Peak rates of devices with their sources, from `data/devices.toml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import attrs

from precisionbench._internal.data_files import read_toml
from precisionbench.results.environment import Gpu

# Names of rates in `DeviceSpec.peaks`, with the units in which the file states them.
RATES: Mapping[str, float] = {
    "fp32": 1e12,
    "tf32": 1e12,
    "fp16": 1e12,
    "bf16": 1e12,
    "fp8": 1e12,
    "fp4": 1e12,
    "int8": 1e12,
    "bandwidth": 1e9,
    "sm_clock": 1e6,
    "dlas": 1,
    "dla_int8": 1e12,
    "dla_fp16": 1e12,
}


@attrs.frozen
class Peak:
    """A peak rate of a device.

    Attributes:
        value: in FLOP/s (`int8`: operations), dense, at the boost clock; byte/s for `bandwidth`,
            Hz for `sm_clock`, a number for `dlas`; rates of a DLA are those of one.
        status: `cited`, `derived` or `unverified`.
        source: the publication that states it, or what it was derived from.
    """

    value: float = attrs.field(validator=attrs.validators.gt(0))
    status: str = attrs.field(validator=attrs.validators.in_(("cited", "derived", "unverified")))
    source: str


@attrs.frozen
class DeviceSpec:
    """A device model with its peak rates.

    Attributes:
        id: short name.
        name: full name.
        pattern: regular expression that is searched for in the driver's name of the device.
        compute_capability: such as `9.0`.
        multiprocessors: number of multiprocessors.
        memory_gib: smallest and largest memory, where boards differ in nothing else.
        peaks: peaks by rate; a missing one is not known or not supported.
        aliases: other names in use; several devices may share one.
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
        """Whether a GPU is of this device model.

        Args:
            gpu: the GPU as the machine reports it.
        """
        low, high = self.memory_gib or (0.0, float("inf"))
        return (
            re.search(self.pattern, gpu.name) is not None
            and gpu.compute_capability == self.compute_capability
            and gpu.multiprocessors == self.multiprocessors
            and low <= gpu.memory_bytes / 2**30 <= high
        )


@cache
def all_devices() -> tuple[DeviceSpec, ...]:
    """All devices of the data file."""
    return tuple(_device(entry) for entry in read_toml("devices.toml")["device"])


def _device(entry: dict[str, Any]) -> DeviceSpec:
    peaks = {
        rate: Peak(found["value"] * unit, found["status"], found["source"])
        for rate, unit in RATES.items()
        if (found := entry.pop(rate, None)) is not None
    }
    low_high = entry.pop("memory_gib", None)
    aliases = tuple(entry.pop("aliases", ()))
    memory_gib = tuple(low_high) if low_high else None
    return DeviceSpec(**entry, memory_gib=memory_gib, peaks=peaks, aliases=aliases)


def device_of(gpu: Gpu) -> DeviceSpec | None:
    """The device model of a GPU; None where it is not known or not unique.

    Args:
        gpu: the GPU as the machine reports it.
    """
    found = [device for device in all_devices() if device.is_model_of(gpu)]
    return found[0] if len(found) == 1 else None


@cache
def devices_named(name: str) -> tuple[DeviceSpec, ...]:
    """The devices that a name matches; several where the name is ambiguous.

    Args:
        name: an id, a full name, an alias such as `agx xavier`, or the driver's name.
    """
    wanted = name_key(name)
    exact = tuple(
        device
        for device in all_devices()
        if wanted in map(name_key, (device.id, device.name, *device.aliases))
    )
    return exact or tuple(d for d in all_devices() if re.search(d.pattern, name, re.IGNORECASE))


@cache
def name_key(name: str) -> str:
    """A device's name without maker, family, punctuation and remarks in brackets.

    Args:
        name: name of the device.
    """
    plain = re.sub(r"\(.*?\)", "", name.lower())
    plain = re.sub(r"\b(nvidia|tesla|jetson|geforce)\b", "", plain)
    return re.sub(r"[^a-z0-9]", "", plain)
