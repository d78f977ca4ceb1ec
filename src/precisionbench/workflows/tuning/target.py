"""What a configuration was tuned for, and whether another machine or model is the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from precisionbench.model import fingerprint
from precisionbench.results.environment import Environment
from precisionbench.results.tuning import Target


def target_of(
    environment: Environment, model: nn.Module, packages: Mapping[str, str] | None = None
) -> Target:
    """What is tuned for on this machine.

    Args:
        environment: of the device.
        model: in any mode, on any device.
        packages: versions of the packages that the configuration uses; None is all that are known.
    """
    gpu = environment.gpu
    known = {"torch": environment.torch, "cuda": environment.cuda, "cudnn": environment.cudnn}
    used = environment.packages if packages is None else packages
    return Target(
        device=gpu.name if gpu else environment.cpu,
        compute_capability=gpu.compute_capability if gpu else "",
        versions={**{name: text for name, text in known.items() if text}, **used},
        architecture=fingerprint.architecture(model),
        weights=fingerprint.weights(model),
    )


def differences(tuned: Target, here: Target) -> Iterator[str]:
    """In what a machine or model differs from the one that was tuned for; weights may differ.

    Args:
        tuned: of the result.
        here: of this machine and the model to prepare, with all packages.
    """
    if tuned.device != here.device:
        yield f"the device is {here.device} and not {tuned.device}"
    for name, version in tuned.versions.items():
        ours = here.versions.get(name)
        if ours != version:
            yield f"{name} is {ours or 'not installed'} and not {version}"
    if tuned.architecture != here.architecture:
        yield "the model's tensors or code differ, or the options of its layers"


def as_key(target: Target) -> dict[str, Any]:
    """The target without versions, as JSON values: what a trial depends on besides versions.

    Args:
        target: of the machine and the model.
    """
    return {
        "device": target.device,
        "compute_capability": target.compute_capability,
        "architecture": target.architecture,
        "weights": target.weights,
    }
