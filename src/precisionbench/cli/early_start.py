"""Starts the process that forks workers, before the command itself imports torch."""

from __future__ import annotations


def start_fork_server(*models: str) -> None:
    """Let the fork server import torch, and the libraries that models are from, from now on.

    Args:
        models: as the user named them.
    """
    from precisionbench.measure.worker.shared_server import SHARED_SERVER
    from precisionbench.model.libraries import library_modules

    SHARED_SERVER.begin([name for model in models for name in library_modules(model)])
