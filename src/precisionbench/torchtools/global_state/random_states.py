"""The random generators of PyTorch, NumPy and Python: seed them, restore them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def rng_restored() -> Iterator[None]:
    """Restore the random generators of torch (all devices), numpy and Python on leaving."""
    python, legacy_numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = [torch.cuda.get_rng_state(index) for index in range(torch.cuda.device_count())]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy_numpy)
        torch.set_rng_state(cpu)
        with contextlib.suppress(RuntimeError):  # a lost device has no state to restore
            for index, state in enumerate(gpus):
                torch.cuda.set_rng_state(state, index)


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), numpy and Python.

    Args:
        seed: any non-negative integer.
    """
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
