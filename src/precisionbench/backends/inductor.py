"""TorchInductor: the tools that it needs, the state that it changes, and how its builds fail."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from precisionbench._internal.paths import quoted
from precisionbench.errors import (
    BackendUnavailableError,
    OutOfMemoryError,
    PrecisionBenchError,
    PreparationError,
    one_line,
    text_of,
)

_CACHE_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
_COMPILERS = {"darwin": "clang++", "win32": "cl"}
# The first error in the output of a C++ compiler, without the place in the code.
_COMPILER_ERROR = re.compile(r"(?<=: )(?:fatal )?error: [^\n]{1,200}")
_CUDA_HEADER = re.compile(r"\bcuda\w*\.h\b.*No such file")
_NO_COMPILER = ("InvalidCxxCompiler", "Failed to find C compiler")


def has_toolchain(device: str) -> bool:
    """Whether what TorchInductor needs was found, without compiling anything.

    Args:
        device: type of the device. On a CPU it is a C++ compiler, and Python's headers, which the
            kernels include.
    """
    try:
        check_tools(device)
    except BackendUnavailableError:
        return False
    return device == "cuda" or (Path(sysconfig.get_path("include")) / "Python.h").exists()


def check_tools(device: str) -> None:
    """Raise if TorchInductor finds no compiler for the kernels of a device.

    Args:
        device: type of the device.

    Raises:
        BackendUnavailableError: what is missing.
    """
    if device != "cuda":
        check_compiler()
    elif not has_triton():
        raise BackendUnavailableError(
            "Triton, for the GPU kernels of TorchInductor",
            "install the version of triton for this torch, or measure on the device 'cpu'",
        )


def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def check_compiler() -> None:
    """Raise if there is no C++ compiler.

    Raises:
        BackendUnavailableError: which one was looked for, and how to get one.
    """
    wanted = os.environ.get("CXX") or _COMPILERS.get(sys.platform, "g++")
    if shutil.which(wanted) is None:
        raise BackendUnavailableError(
            f"a C++ compiler, for the kernels of TorchInductor ({wanted!r} was not found)",
            "install g++ (Debian and Ubuntu: apt install g++), Xcode's tools (macOS: xcode-select "
            "--install) or MSVC (Windows), or set CXX to one",
        )


def build_error(exc: BaseException, what: str) -> PrecisionBenchError | None:
    """The error of a build that failed because of the machine; None where that is not the reason.

    Args:
        exc: what was raised.
        what: what failed, such as `torch.compile`.
    """
    text = f"{type(exc).__name__}: {text_of(exc)}"
    if isinstance(exc, (torch.cuda.OutOfMemoryError, MemoryError)):
        return OutOfMemoryError(f"it does not fit in memory while it is compiled ({one_line(exc)})")
    if any(part in text for part in _NO_COMPILER):
        return BackendUnavailableError(
            f"a working C++ compiler ({one_line(exc)})", "install g++, or set CXX to one that works"
        )
    if isinstance(inner(exc), OSError):
        return _not_written(inner(exc), what)
    if (found := _COMPILER_ERROR.search(text)) is not None:
        return _compiler_error(found[0], what)
    return None


def _compiler_error(message: str, what: str) -> PrecisionBenchError:
    """The error of a C++ compiler that does not compile what TorchInductor wrote."""
    if _CUDA_HEADER.search(message):
        return BackendUnavailableError(
            f"the headers of CUDA, for the C++ code around the kernels ({message})",
            "install the CUDA toolkit of the version torch.version.cuda, and set CUDA_HOME to it",
        )
    return PreparationError(
        f"{what} failed, because the C++ compiler stopped ({message})",
        "try another version of the compiler (set CXX to it)",
    )


def inner(exc: BaseException) -> BaseException:
    """Of an error that torch wraps, the one inside."""
    return getattr(exc, "inner_exception", None) or exc


def _not_written(exc: BaseException, what: str) -> PreparationError:
    folder = os.environ.get(_CACHE_FOLDER) or tempfile.gettempdir()
    return PreparationError(
        f"{what} failed ({one_line(exc)})",
        f"free space in {quoted(folder)}, or set {_CACHE_FOLDER} to one that can be written to",
    )


@contextmanager
def cache_folder_named(what: str) -> Iterator[None]:
    """Name the folder that TorchInductor writes to, where that fails: its import creates it.

    Args:
        what: what fails then, such as `torch.compile`.
    """
    try:
        yield
    except OSError as exc:
        raise _not_written(exc, what) from exc


@contextmanager
def own_counters() -> Iterator[Any]:
    """TorchDynamo's counters from zero, and afterwards as they were."""
    import torch._dynamo.utils

    counters = torch._dynamo.utils.counters
    before = {name: Counter(counter) for name, counter in counters.items()}
    counters.clear()
    try:
        yield counters
    finally:
        counters.clear()
        counters.update(before)


@contextmanager
def environment_restored() -> Iterator[None]:
    """Restore the environment: torch sets variables for CUPTI where CUDA graphs are asked for."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
