"""Well-known libraries that models come from: which of their modules a model needs.

Importing one takes a second or more, so it is imported once, in the server that forks the workers,
and not in each worker. It must be a library that is installed as published and does nothing but
define things when it is imported; code of the user is never imported there.
"""

from __future__ import annotations

import sys
from typing import Any

# What most public models are built with. Anything else is imported by each worker itself.
LIBRARIES = ("torchvision", "torchaudio", "timm", "transformers", "diffusers")


def library_of(module: str) -> str | None:
    """The well-known library that a module belongs to; None for all others.

    Args:
        module: its full name.
    """
    package = module.partition(".")[0]
    return package if package in LIBRARIES else None


def library_modules(model: Any) -> tuple[str, ...]:
    """Modules of well-known libraries that a worker imports to build a model, where that shows.

    Args:
        model: as for `workload.resolve`; of a function nothing is known before it is called.
    """
    if isinstance(model, str):
        names = {model.partition(":")[0]}
    elif (torch := sys.modules.get("torch")) and isinstance(model, torch.nn.Module):
        names = {type(part).__module__ for part in model.modules()}
    else:
        names = set()
    return tuple(sorted(name for name in names if library_of(name)))
