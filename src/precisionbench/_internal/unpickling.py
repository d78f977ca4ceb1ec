"""Unpickles what cloudpickle wrote, for torch.compile too."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

_MAKES_FUNCTIONS = "_make_function"  # of cloudpickle, for functions that are pickled by value


class Unpickler(pickle.Unpickler):
    """Makes functions that TorchDynamo can inline.

    A function of the user's script has the script's name among its globals, `__main__`, and
    TorchDynamo before torch 2.14 reads further globals from the module of that name. In a worker
    that is another module, and compiling fails (module '__main__' has no attribute 'nn'). Without
    the name it reads the function's own globals, as newer versions always do.
    """

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """What pickle imports by name; see the class."""
        found = super().find_class(module_name, global_name)
        if global_name == _MAKES_FUNCTIONS and module_name.startswith("cloudpickle"):
            return partial(_without_name, found)
        return found


def loads(data: bytes) -> Any:
    """Read what `cloudpickle.dumps` wrote.

    Args:
        data: by this version of Python.

    Raises:
        Exception: it cannot be unpickled here; any exception.
    """
    return Unpickler(io.BytesIO(data)).load()


def _without_name(
    make: Callable[..., Any], code: object, namespace: dict[str, Any], *others: Any
) -> Any:
    if namespace.get("__name__") == "__main__":
        del namespace["__name__"]
    return make(code, namespace, *others)
