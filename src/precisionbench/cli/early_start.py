"""Starts the process that forks workers, before the command itself imports torch."""

from __future__ import annotations


def start_fork_server(model: str) -> None:
    """Let the fork server import torch, and the library that the model is from, from now on.

    Args:
        model: as the user named it.
    """
    from precisionbench.measure.worker.shared_server import SHARED_SERVER
    from precisionbench.model.libraries import library_modules

    SHARED_SERVER.begin(library_modules(model))
