"""torch's process-wide state: read it, set it for a while, put it back, see what leaked.

The founding case of this library was a leak of this kind: Apex O1 patched torch's functions, and
every model that ran later in the same process ran in half precision.
"""

from __future__ import annotations

import contextlib
import random
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any

import attrs
import numpy as np
import torch

from precisionbench.results.dtypes import AMPERE, dtype_name

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
_OPERATIONS = _FP32_PRECISION[3:]
# The older switches. They come before the newer ones when both are set, because they write both.
_LEGACY_SWITCHES = ("cuda.matmul.allow_tf32", "cudnn.allow_tf32")
_LEGACY_PRECISION = (*_LEGACY_SWITCHES, "float32_matmul_precision")
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
)
_ALL = _LEGACY_PRECISION + _FP32_PRECISION + _SWITCHES


def _default_device() -> str:
    try:
        return str(torch.get_default_device())
    except AttributeError:  # torch 2.4, where a device was set and taken back
        return "cpu"


def _set_default_device(name: str) -> None:
    torch.set_default_device(None if name == "cpu" else name)


def _deterministic() -> str:
    if not torch.are_deterministic_algorithms_enabled():
        return "off"
    return "warn" if torch.is_deterministic_algorithms_warn_only_enabled() else "on"


def _set_deterministic(level: str) -> None:
    torch.use_deterministic_algorithms(level != "off", warn_only=level == "warn")


def _default_dtype() -> str:
    return dtype_name(torch.get_default_dtype())


# Settings that are functions of torch, not attributes below torch.backends: how to read and write.
_BY_FUNCTION: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "float32_matmul_precision": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "deterministic_algorithms": (_deterministic, _set_deterministic),
    "default_dtype": (_default_dtype, lambda name: torch.set_default_dtype(getattr(torch, name))),
    "default_device": (_default_device, _set_default_device),
    "grad_enabled": (torch.is_grad_enabled, torch.set_grad_enabled),
    "num_threads": (torch.get_num_threads, torch.set_num_threads),
    **{
        f"cuda.{kind}_sdp": (
            attrgetter(f"{kind}_sdp_enabled")(torch.backends.cuda),
            attrgetter(f"enable_{kind}_sdp")(torch.backends.cuda),
        )
        for kind in ("flash", "mem_efficient", "math", "cudnn")
        if hasattr(torch.backends.cuda, f"{kind}_sdp_enabled")  # cudnn: from torch 2.5 on
    },
}


_MANY_COMPILATIONS = 1 << 20


def _read(path: str) -> Any:
    """A setting; None where this torch lacks it or refuses to read it.

    torch raises when old and new precision switches were mixed, so reading one must not fail.
    """
    try:
        if path in _BY_FUNCTION:
            return _BY_FUNCTION[path][0]()
        return attrgetter(path)(torch.backends)
    except (AttributeError, RuntimeError):
        return None


def _write(path: str, value: object) -> None:
    owner, _, name = path.rpartition(".")
    try:
        if path in _BY_FUNCTION:
            _BY_FUNCTION[path][1](value)
        else:
            setattr(attrgetter(owner)(torch.backends) if owner else torch.backends, name, value)
    except (AttributeError, RuntimeError):  # this torch has no such operation
        return


def _has_fp32_precision() -> bool:
    return isinstance(_read("fp32_precision"), str)


def read_flags() -> dict[str, Any]:
    """Torch's global settings as JSON values; a setting that torch refuses to read is left out."""
    return {path: value for path in _ALL if (value := _read(path)) is not None}


def set_flags(flags: Mapping[str, Any]) -> None:
    """Set torch's global settings.

    Args:
        flags: what `read_flags` gave, perhaps in another process.
    """
    # Twice, because the older switches rewrite the newer ones and the other way round.
    for path in 2 * _ALL:
        if path in flags and _read(path) != flags[path]:
            _write(path, flags[path])


@contextlib.contextmanager
def flags_restored() -> Iterator[None]:
    """Put torch's global settings back afterwards."""
    before = read_flags()
    try:
        yield
    finally:
        set_flags(before)


@contextlib.contextmanager
def fp32_precision(precision: str) -> Iterator[None]:
    """Compute float32 matmuls, convolutions and RNNs in one precision for a while.

    Args:
        precision: `ieee` (true float32) or `tf32` (tensor cores with a 10-bit mantissa).
    """
    with flags_restored():
        for path in _LEGACY_SWITCHES:
            if _read(path) is not None:  # what cannot be read could not be put back
                _write(path, precision == "tf32")
        if _has_fp32_precision():
            for path in _OPERATIONS:
                # oneDNN knows no tf32 on most CPUs; there only ieee is asked for.
                asked = "ieee" if path.startswith("mkldnn") else precision
                _write(path, asked)
        yield


def has_tf32(device: torch.device | None = None) -> bool:
    """Whether a device computes in TF32.

    Args:
        device: None is the current GPU.
    """
    if not torch.cuda.is_available() or torch.version.hip:
        return False
    if device is not None and device.type != "cuda":
        return False
    return torch.cuda.get_device_capability(device) >= AMPERE


def tf32_operations() -> tuple[str, ...]:
    """Which of `convolutions` and `matmuls` torch's settings let a GPU compute in TF32."""
    flags = read_flags()
    settings = {
        "convolutions": ("cudnn.conv.fp32_precision", "cudnn.fp32_precision", "cudnn.allow_tf32"),
        "matmuls": ("cuda.matmul.fp32_precision", "fp32_precision", "cuda.matmul.allow_tf32"),
    }
    return tuple(name for name, paths in settings.items() if _allows_tf32(flags, *paths))


def _allows_tf32(flags: Mapping[str, Any], own: str, parent: str, legacy: str) -> bool:
    for path in (own, parent, "fp32_precision"):
        if flags.get(path, "none") != "none":  # this one decides; `none` leaves it to the next
            return bool(flags[path] == "tf32")
    return bool(flags.get(legacy, False))


@contextlib.contextmanager
def cudnn_benchmark(enabled: bool) -> Iterator[None]:
    """Let cuDNN try its algorithms on each new shape (`enabled`) or choose by heuristics."""
    with flags_restored():
        torch.backends.cudnn.benchmark = enabled
        yield


@contextlib.contextmanager
def autocast_off(device_type: str) -> Iterator[None]:
    """Switch off the autocast that a caller may have around us: it would change every row.

    Args:
        device_type: `cpu`, `cuda`, ...
    """
    with contextlib.ExitStack() as stack:
        for kind in {"cpu", device_type}:
            if torch.amp.is_autocast_available(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextlib.contextmanager
def gradients_off(mode: str) -> Iterator[None]:
    """Switch gradients off for a while.

    Args:
        mode: `inference_mode` or `no_grad`.
    """
    with torch.inference_mode() if mode == "inference_mode" else torch.no_grad():
        yield


@contextlib.contextmanager
def recompile_limit_lifted() -> Iterator[None]:
    """Let TorchDynamo compile each row's copy of a compiled model; it gives up after 8 otherwise.

    It counts by the code of `forward`, which all copies share.
    """
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is None:  # nothing is compiled here
        yield
        return
    names = ("recompile_limit", "accumulated_recompile_limit")
    if not hasattr(dynamo.config, names[0]):  # their names up to torch 2.6
        names = ("cache_size_limit", "accumulated_cache_size_limit")
    with dynamo.config.patch(**dict.fromkeys(names, _MANY_COMPILATIONS)):
        yield


def compilations() -> int:
    """How many graphs TorchDynamo has compiled in this process."""
    dynamo: Any = sys.modules.get("torch._dynamo.utils")
    return int(dynamo.counters["stats"]["unique_graphs"]) if dynamo else 0


def device_allocations() -> int:
    """How often torch's allocator has asked a GPU for memory in this process."""
    if not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.memory_stats().get("num_device_alloc", 0))


@contextlib.contextmanager
def rng_restored() -> Iterator[None]:
    """Put the random generators of torch (all devices), numpy and Python back afterwards."""
    python, legacy_numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = [torch.cuda.get_rng_state(index) for index in range(torch.cuda.device_count())]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy_numpy)
        torch.set_rng_state(cpu)
        with contextlib.suppress(RuntimeError):  # a lost device has no state to put back
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


_GLOBAL_HOOKS = ("_global_forward_pre_hooks", "_global_forward_hooks")


def _namespaces() -> dict[str, Any]:
    """Where torch's functions are looked up when a model runs, by name."""
    from torch.nn.modules import module, rnn

    return {
        "torch": torch,
        "torch.nn.functional": torch.nn.functional,
        "torch.linalg": torch.linalg,
        "torch.fft": torch.fft,
        "torch.special": torch.special,
        "torch.Tensor": torch.Tensor,
        "torch.nn.modules.rnn": rnn,
        "torch.nn.modules.rnn._rnn_impls": rnn._rnn_impls,
        **{f"torch.nn.modules.module.{hooks}": vars(module)[hooks] for hooks in _GLOBAL_HOOKS},
        **_layer_classes(),
    }


def _layer_classes() -> dict[str, type]:
    """torch.nn's modules and their base classes, by name."""
    modules = (kind for kind in vars(torch.nn).values() if isinstance(kind, type))
    bases = (base for kind in modules for base in kind.__mro__)
    ours = (base for base in bases if base.__module__.startswith("torch.nn.modules."))
    return {f"{base.__module__}.{base.__qualname__}": base for base in ours}


def _contents(namespace: Any) -> Mapping[str, Any]:
    return namespace if isinstance(namespace, dict) else vars(namespace)


_MISSING = object()
# Python and torch fill these in as they go; no model computes with them.
_BOOKKEEPING = {
    "__warningregistry__",
    "__slotnames__",
    "__annotations__",
    "__annotations_cache__",
    "__doc__",
}
# TorchDynamo wraps a few functions for good when it is first used; that is torch's own doing, it
# changes no result, and undoing it would break Dynamo.
_TORCHS_OWN_WRAPPERS = ("torch._dynamo", "torch._compile")


def _matters(name: str, before: object, after: object) -> bool:
    """Whether this change can change what a model computes."""
    if name in _BOOKKEEPING:
        return False
    if before is _MISSING and isinstance(after, (types.ModuleType, str, int, float)):
        return False  # a submodule that was imported meanwhile, or a note that torch left itself
    if isinstance(after, types.FunctionType):
        # Not __module__: functools.wraps copies that from what is wrapped.
        home = str(after.__globals__.get("__name__", ""))
        return not home.startswith(_TORCHS_OWN_WRAPPERS)
    return True


# Namespaces of torch that hold nothing but torch's own functions.
_PURE = ("torch", "torch.nn.functional", "torch.Tensor", "torch.nn.modules.rnn")

# Whose decorators wrap some of them.
_HOMES = ("torch", "functools", "typing", "typing_extensions", "contextlib", "warnings")


def foreign_functions() -> tuple[str, ...]:
    """Functions in torch's namespaces whose code is not torch's: somebody has patched them.

    Unlike `Functions`, this needs no look at the state before.
    """
    spaces = _namespaces()
    return tuple(
        f"{space}.{name}"
        for space in _PURE
        for name, value in _contents(spaces[space]).items()
        if isinstance(value, types.FunctionType) and not _is_torchs(value)
    )


def _is_torchs(function: types.FunctionType) -> bool:
    """By where its code stands: functools.wraps copies names."""
    home = str(function.__globals__.get("__name__", ""))
    return home.partition(".")[0] in _HOMES


@attrs.frozen
class Functions:
    """torch's functions at one moment, to tell what has changed since and to put it back.

    Attributes:
        contents: a copy of each namespace.
    """

    contents: Mapping[str, Mapping[str, Any]]

    @classmethod
    def now(cls) -> Functions:
        """Take the state of this moment."""
        return cls({name: dict(_contents(space)) for name, space in _namespaces().items()})

    def changes(self) -> list[str]:
        """Names that were replaced, added or removed since, such as `torch.nn.functional.relu`."""
        return [f"{space}.{name}" for space, name, *_ in self._changed()]

    def restore(self) -> None:
        """Put back everything in `changes`, as it stood: inherited names are inherited again."""
        spaces = _namespaces()
        for space, name, was_there, value in self._changed():
            _put(spaces[space], name, was_there, value)

    def _changed(self) -> list[tuple[str, str, bool, Any]]:
        found = []
        for space, namespace in _namespaces().items():
            old, new = self.contents[space], _contents(namespace)
            for name in [*old, *(name for name in new if name not in old)]:
                before, after = old.get(name, _MISSING), new.get(name, _MISSING)
                if before is not after and _matters(name, before, after):
                    found.append((space, name, name in old, before))
        return found


def _put(namespace: Any, name: str, was_there: bool, value: Any) -> None:
    if isinstance(namespace, dict):
        if was_there:
            namespace[name] = value
        else:
            del namespace[name]
    elif was_there:
        setattr(namespace, name, value)
    else:
        delattr(namespace, name)


@contextlib.contextmanager
def functions_restored() -> Iterator[Functions]:
    """Put torch's functions back afterwards; yields them as they were."""
    before = Functions.now()
    try:
        yield before
    finally:
        before.restore()
