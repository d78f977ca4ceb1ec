"""Imports torchao without what it and torch log and warn meanwhile."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from precisionbench._internal.importing import import_engine
from precisionbench.errors import PrecisionBenchWarning

_INSTALL = "pip install 'precisionbench[torchao]'"
# They warn of their own interfaces: torch of an enumeration that torchao registers, torchao of
# libraries for other devices.
_LOGGERS = ("torch.utils._pytree", "torchao", "torchao.kernel.intmm", "torchao.utils")


def import_torchao(module: str = "torchao") -> Any:
    """Import torchao, or a module of it.

    Args:
        module: its name.

    Raises:
        BackendUnavailableError: it does not import here.
    """
    with quiet():
        return import_engine(module, "torchao", _INSTALL)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the warnings of torchao, and of torch about torchao; not those of this library."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", PrecisionBenchWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
