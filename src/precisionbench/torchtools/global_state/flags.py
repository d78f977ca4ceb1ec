"""PyTorch's global settings: read all of them, set them, restore them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any

import torch

from precisionbench.results.dtypes import dtype_name

# Since torch 2.9 each operation has an `fp32_precision` of its own beside the older switches.
# Parents come first: setting one may reset its children.
_FP32_PRECISION = (
    "fp32_precision",
    "cudnn.fp32_precision",
    "mkldnn.fp32_precision",
    "cuda.matmul.fp32_precision",
    "cudnn.conv.fp32_precision",
    "cudnn.rnn.fp32_precision",
    "mkldnn.matmul.fp32_precision",
    "mkldnn.conv.fp32_precision",
    "mkldnn.rnn.fp32_precision",
)
OPERATION_PRECISIONS = _FP32_PRECISION[3:]
# The older switches. They come before the newer ones when both are set, because they write both.
LEGACY_TF32_SWITCHES = ("cuda.matmul.allow_tf32", "cudnn.allow_tf32")
_LEGACY_PRECISION = (*LEGACY_TF32_SWITCHES, "float32_matmul_precision")
_SWITCHES = (
    "cudnn.enabled",
    "cudnn.benchmark",
    "cudnn.deterministic",
    "mkldnn.enabled",
    "cuda.matmul.allow_fp16_reduced_precision_reduction",
    "cuda.matmul.allow_bf16_reduced_precision_reduction",
    "deterministic_algorithms",
    "default_dtype",
    "default_device",
    "grad_enabled",
    "num_threads",
    "cuda.flash_sdp",
    "cuda.mem_efficient_sdp",
    "cuda.math_sdp",
    "cuda.cudnn_sdp",
    "cuda.preferred_linalg_library",
)
_ALL = _LEGACY_PRECISION + _FP32_PRECISION + _SWITCHES


def _read_default_device() -> str:
    try:
        return str(torch.get_default_device())
    except AttributeError:  # torch 2.4, where a default device was set and reset
        return "cpu"


def _set_default_device(name: str) -> None:
    torch.set_default_device(None if name == "cpu" else name)


def _read_deterministic() -> str:
    if not torch.are_deterministic_algorithms_enabled():
        return "off"
    return "warn" if torch.is_deterministic_algorithms_warn_only_enabled() else "on"


def _set_deterministic(level: str) -> None:
    torch.use_deterministic_algorithms(level != "off", warn_only=level == "warn")


def _read_default_dtype() -> str:
    return dtype_name(torch.get_default_dtype())


def _read_linalg_library() -> str:
    return str(torch.backends.cuda.preferred_linalg_library()).rpartition(".")[2].lower()


def _set_linalg_library(name: str) -> None:
    torch.backends.cuda.preferred_linalg_library(name)


# Settings that are functions of torch, not attributes below torch.backends: how to read and write.
_BY_FUNCTION: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "float32_matmul_precision": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "deterministic_algorithms": (_read_deterministic, _set_deterministic),
    "default_dtype": (
        _read_default_dtype,
        lambda name: torch.set_default_dtype(getattr(torch, name)),
    ),
    "default_device": (_read_default_device, _set_default_device),
    "cuda.preferred_linalg_library": (_read_linalg_library, _set_linalg_library),
    "grad_enabled": (torch.is_grad_enabled, torch.set_grad_enabled),
    "num_threads": (torch.get_num_threads, torch.set_num_threads),
    **{
        f"cuda.{kind}_sdp": (
            attrgetter(f"{kind}_sdp_enabled")(torch.backends.cuda),
            attrgetter(f"enable_{kind}_sdp")(torch.backends.cuda),
        )
        for kind in ("flash", "mem_efficient", "math", "cudnn")
    },
}


def read_flag(path: str) -> Any:
    """The value of a setting; None where this torch lacks it or refuses to read it.

    torch raises when old and new precision switches were mixed, so reading one must not fail.

    Args:
        path: the setting's name below `torch.backends`, or a key of `_BY_FUNCTION`.
    """
    try:
        if path in _BY_FUNCTION:
            return _BY_FUNCTION[path][0]()
        return attrgetter(path)(torch.backends)
    except (AttributeError, RuntimeError):
        return None


def write_flag(path: str, value: object) -> None:
    """Change one setting; where this torch lacks it, nothing happens.

    Args:
        path: as for `read_flag`.
        value: what `read_flag` would give afterwards.
    """
    owner, _, name = path.rpartition(".")
    try:
        if path in _BY_FUNCTION:
            _BY_FUNCTION[path][1](value)
        else:
            setattr(attrgetter(owner)(torch.backends) if owner else torch.backends, name, value)
    except (AttributeError, RuntimeError):  # this torch has no such operation
        return


def read_flags() -> dict[str, Any]:
    """Torch's global settings as JSON values; a setting that torch refuses to read is left out."""
    return {path: value for path in _ALL if (value := read_flag(path)) is not None}


def set_flags(flags: Mapping[str, Any]) -> None:
    """Set torch's global settings.

    Args:
        flags: what `read_flags` gave, perhaps in another process.
    """
    # Twice, because the older switches rewrite the newer ones and the other way round.
    for path in 2 * _ALL:
        if path in flags and read_flag(path) != flags[path]:
            write_flag(path, flags[path])


@contextlib.contextmanager
def flags_restored() -> Iterator[None]:
    """Restore torch's global settings on leaving."""
    before = read_flags()
    try:
        yield
    finally:
        set_flags(before)
