"""What identifies the code of TorchScript, of which torch has no Python objects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from precisionbench.errors import FOREIGN_ERRORS

# A number of the process, in the names of types that are compiled more than once.
_NUMBER = re.compile(r"___torch_mangle_\d+\.")
_ATTRIBUTE = re.compile(r"\.([A-Za-z_]\w*)")


def script_parts(module: torch.jit.ScriptModule) -> Iterator[tuple[str, Any]]:
    """The code of a module's methods, and the constants and attributes that they name.

    Args:
        module: of TorchScript; its tensors and the modules within it are left out.
    """
    inner = module._c
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    left_out = {name for name, _ in tensors}
    for method in sorted(inner._method_names()):
        try:
            code, constants = inner._get_method(method).code_with_constants
        except FOREIGN_ERRORS:  # it was not compiled
            continue
        yield method, _NUMBER.sub("", code)
        yield method, dict(constants)
        for name in sorted(set(_ATTRIBUTE.findall(code)) - left_out):
            if inner.hasattr(name) and not _is_module(value := inner.getattr(name)):
                yield name, value


def _is_module(value: Any) -> bool:
    return isinstance(value, (nn.Module, torch.ScriptObject))
