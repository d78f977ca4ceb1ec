"""torch's process-wide state: read it, set it for a while, put it back, see what leaked.

The founding case of this library was a leak of this kind: Apex O1 patched torch's functions, and
every model that ran later in the same process ran in half precision.
"""

from __future__ import annotations

import contextlib
import random
import types
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

import attrs
import numpy as np
import torch

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
_LEGACY_PRECISION = ("cuda.matmul.allow_tf32", "cudnn.allow_tf32")
_SWITCHES = (
    "cudnn.enabled",
    "cudnn.benchmark",
    "cudnn.deterministic",
    "cuda.matmul.allow_fp16_reduced_precision_reduction",
    "cuda.matmul.allow_bf16_reduced_precision_reduction",
)


def _read(path: str) -> Any:
    """A flag below torch.backends; None where this torch lacks it or refuses to read it.

    torch raises when old and new precision switches were mixed, so reading one must not fail.
    """
    try:
        return attrgetter(path)(torch.backends)
    except (AttributeError, RuntimeError):
        return None


def _write(path: str, value: object) -> None:
    owner, _, name = path.rpartition(".")
    try:
        setattr(attrgetter(owner)(torch.backends) if owner else torch.backends, name, value)
    except (AttributeError, RuntimeError):  # this torch has no such operation
        return


def _has_fp32_precision() -> bool:
    return isinstance(_read("fp32_precision"), str)


def read_flags() -> dict[str, Any]:
    """Torch's global settings as JSON values; a setting that torch refuses to read is left out."""
    paths = _LEGACY_PRECISION + _FP32_PRECISION + _SWITCHES
    flags = {path: value for path in paths if (value := _read(path)) is not None}
    flags["deterministic_algorithms"] = torch.are_deterministic_algorithms_enabled()
    flags["default_dtype"] = str(torch.get_default_dtype()).removeprefix("torch.")
    flags["num_threads"] = torch.get_num_threads()
    return flags


def _restore_flags(flags: Mapping[str, Any]) -> None:
    for path in _LEGACY_PRECISION + _FP32_PRECISION + _SWITCHES:
        if path in flags and _read(path) != flags[path]:
            _write(path, flags[path])
    if torch.are_deterministic_algorithms_enabled() != flags["deterministic_algorithms"]:
        torch.use_deterministic_algorithms(flags["deterministic_algorithms"])
    torch.set_default_dtype(getattr(torch, flags["default_dtype"]))
    if torch.get_num_threads() != flags["num_threads"]:
        torch.set_num_threads(flags["num_threads"])


@contextlib.contextmanager
def flags_restored() -> Iterator[None]:
    """Put torch's global settings back afterwards."""
    before = read_flags()
    try:
        yield
    finally:
        # Twice, because the older switches rewrite the newer ones and the other way round.
        _restore_flags(before)
        _restore_flags(before)


@contextlib.contextmanager
def fp32_precision(precision: str) -> Iterator[None]:
    """Compute float32 matmuls, convolutions and RNNs in one precision for a while.

    Args:
        precision: `ieee` (true float32) or `tf32` (tensor cores with a 10-bit mantissa).
    """
    with flags_restored():
        for path in _LEGACY_PRECISION:
            if _read(path) is not None:  # what cannot be read could not be put back
                _write(path, precision == "tf32")
        if _has_fp32_precision():
            for path in _OPERATIONS:
                # oneDNN knows no tf32 on most CPUs; there only ieee is asked for.
                asked = "ieee" if path.startswith("mkldnn") else precision
                _write(path, asked)
        yield


@contextlib.contextmanager
def cudnn_benchmark(enabled: bool) -> Iterator[None]:
    """Let cuDNN try its algorithms on each new shape (`enabled`) or choose by heuristics."""
    with flags_restored():
        torch.backends.cudnn.benchmark = enabled
        yield


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


def _namespaces() -> dict[str, Any]:
    """Where torch's functions are looked up when a model runs, by name."""
    from torch.nn.modules import rnn

    return {
        "torch": torch,
        "torch.nn.functional": torch.nn.functional,
        "torch.Tensor": torch.Tensor,
        "torch.nn.Module": torch.nn.Module,
        "torch.nn.modules.rnn": rnn,
        "torch.nn.modules.rnn._rnn_impls": rnn._rnn_impls,
    }


def _contents(namespace: Any) -> Mapping[str, Any]:
    return namespace if isinstance(namespace, dict) else vars(namespace)


_MISSING = object()
# TorchDynamo wraps a few functions for good when it is first used; that is torch's own doing, it
# changes no result, and undoing it would break Dynamo.
_TORCHS_OWN_WRAPPERS = ("torch._dynamo", "torch._compile")


def _matters(name: str, before: object, after: object) -> bool:
    """Whether this change can change what a model computes."""
    if name == "__warningregistry__":
        return False
    if before is _MISSING and isinstance(after, (types.ModuleType, str, int, float)):
        return False  # a submodule that was imported meanwhile, or a note that torch left itself
    if isinstance(after, types.FunctionType):
        # Not __module__: functools.wraps copies that from what is wrapped.
        home = str(after.__globals__.get("__name__", ""))
        return not home.startswith(_TORCHS_OWN_WRAPPERS)
    return True


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
