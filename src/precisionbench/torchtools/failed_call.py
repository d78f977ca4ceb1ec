"""A failed call of a model as an error: where it failed, what does not fit there, and a remedy."""

from __future__ import annotations

import torch

from precisionbench.errors import ExecutionError, one_line, text_of
from precisionbench.results.comparison_data import WRONG_DTYPE
from precisionbench.results.dtypes import FLOAT16
from precisionbench.torchtools.failing_module import FailingModule, failing_module_in_eager
from precisionbench.torchtools.timer import Call

# Parts of torch's messages about an operand of the wrong dtype.
_ABOUT_DTYPES = (
    "not implemented for",
    "dtype",
    "same type",
    "scalar type",
    "should be the same",
    "ScalarType",
    "primitive descriptor",  # oneDNN has no kernel for operands of these dtypes
    "only works on Float Tensor",  # modules that quantise
)
_ABOUT_RANGE = "without overflow"
_ABOUT_INDICES = ("index out of range", "out of bounds")
_ABOUT_NUMPY = "unsupported ScalarType BFloat16"
# Parts of torch's messages about operands on different devices.
_ABOUT_DEVICES = ("on the same device", "not on the expected device", "is on cpu", "on different")
_LONGEST_PATHS = 100  # characters of the paths of modules that a remedy names
_ABOUT_GRADIENTS = ("does not require grad", "Inference tensors")


def failure_of(exc: BaseException, where: FailingModule | None) -> ExecutionError:
    """The error of a call that failed.

    Args:
        exc: what was raised.
        where: the module in which it failed; None where that is not known.
    """
    reason = f"the model failed in forward{_place(exc, where)} ({one_line(exc)})"
    return ExecutionError(reason, _remedy(exc, where))


def misfit_in_eager(exc: BaseException, call: Call) -> FailingModule | None:
    """The module in which a compiled call failed because of a dtype or a device, else None.

    Args:
        exc: what was raised.
        call: which is made once more without compiling.
    """
    if not _is_about(exc, _ABOUT_DTYPES + _ABOUT_DEVICES):
        return None
    return failing_module_in_eager(call)


def _is_about(exc: BaseException, words: tuple[str, ...]) -> bool:
    text = text_of(exc)
    return any(one in text for one in words)


def _place(exc: BaseException, where: FailingModule | None) -> str:
    """The module in which a call failed, and what does not fit there, as a part of a sentence."""
    if where is None:
        return ""
    about_devices = _is_about(exc, _ABOUT_DEVICES)
    about_dtypes = _is_about(exc, _ABOUT_DTYPES) and not about_devices
    differing = where.devices if about_devices else where.dtypes if about_dtypes else ""
    if not (where.path or differing):
        return ""
    return f" of {where}{f', {differing}' if differing else ''}"


def _remedy(exc: BaseException, where: FailingModule | None) -> str:
    if _is_about(exc, _ABOUT_DEVICES):
        return (
            "tensors that forward makes or that are plain attributes stay on their device: "
            "register them as buffers, or create them on the device of the input"
        )
    if _is_about(exc, (_ABOUT_RANGE,)):
        return (
            f"{WRONG_DTYPE}: a number in forward is out of the range of the dtype (float16 ends at "
            "65504): use torch.finfo(x.dtype).min for masks, or bfloat16"
        )
    if _is_about(exc, (_ABOUT_NUMPY,)):
        return f"{WRONG_DTYPE}: NumPy has no bfloat16, so cast to float32 before .numpy()"
    if _is_about(exc, _ABOUT_DTYPES):
        return _dtype_remedy(where)
    if where is not None and where.half and _is_about(exc, _ABOUT_INDICES):
        return (
            f"{WRONG_DTYPE}: an index that is stored as a floating-point number is rounded "
            "(bfloat16 has all whole numbers to 256, float16 to 2048), so keep indices in integer "
            "tensors"
        )
    if _is_about(exc, _ABOUT_GRADIENTS):
        return "its forward needs gradients or changes tensors: add grad_mode=no_grad to the spec"
    return "run the model once on the same inputs without precisionbench"


def _dtype_remedy(where: FailingModule | None) -> str:
    """What to do about dtypes that do not fit, in a row of the precision that is set now."""
    if where is None:
        return f"{WRONG_DTYPE}; try another precision"
    if "attribute" in where.dtypes:
        return f"{WRONG_DTYPE}: register its attributes as buffers, or cast them in forward"
    cast = f"cast the input of {where} in the model"
    if any(map(torch.is_autocast_enabled, ("cpu", "cuda"))):
        return f"{WRONG_DTYPE}: {cast}, or disable autocast around it"
    if not where.half:
        return f"{WRONG_DTYPE}: {cast}"
    cast = cast if where.dtypes else f"compute it in float32 in forward of {where}"
    return f"{WRONG_DTYPE}: {_keeping(where)}{cast}, or use autocast"


def _keeping(where: FailingModule) -> str:
    """To keep the module in float32, and those of its class, which would fail next."""
    if not where.path:
        return ""
    paths = where.alike if len("+".join(where.alike)) <= _LONGEST_PATHS else (where.path,)
    dtype = "" if where.half == FLOAT16 else f"dtype={where.half},"
    option = f"half:{dtype}fp32_layers={'+'.join(paths)}"
    others = len(where.alike) - len(paths)
    more = f" and {others} more of its class" if others else ""
    return f"keep {', '.join(paths)}{more} in float32 ({option}), "
