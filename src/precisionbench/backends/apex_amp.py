"""NVIDIA Apex AMP, O0 to O3; what O1 patches is restored afterwards.

Read in Apex 25.05: `amp.initialize(opt_level="O1")` replaces functions in torch,
torch.nn.functional and torch.Tensor and the `_VF` of torch.nn.modules.rnn for the whole process
(`apex/amp/amp.py`). Its own `AmpHandle._deactivate` writes the old functions back, but leaves
`_VF` and about a hundred attributes on torch.Tensor that were inherited before.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import nn

from precisionbench._internal.importing import import_engine, installed_version
from precisionbench.backends.base import Backend, Prepared, require_cuda
from precisionbench.errors import BackendUnavailableError, SpecError
from precisionbench.results.claims import Claims
from precisionbench.results.dtypes import FLOAT16, FLOAT32
from precisionbench.torchtools.global_state import functions_restored
from precisionbench.torchtools.tensors import Inputs

_REMEDY = (
    "put the Python package apex/ of https://github.com/NVIDIA/apex at tag 25.05 on the path "
    "(apex.amp needs no compilation; 25.07 and newer do not have it)"
)
# Packages that only NVIDIA's apex has; the project called apex on PyPI is a web toolkit.
_MIXED_LEVELS = ("O1", "O2")
_NVIDIA_PACKAGES = ("normalization", "optimizers", "transformer", "contrib")


@attrs.frozen
class ApexAmp(Backend):
    """NVIDIA Apex automatic mixed precision (`apex.amp`, up to release 25.05).

    Attributes:
        opt_level: `O0` float32; `O1` casts around torch's functions; `O2` half with float32
            batch norm; `O3` half.
        keep_batchnorm_fp32: overrides what O0, O2 and O3 do with batch norm; O1 does not allow it.
    """

    name: ClassVar[str] = "apex-amp"
    tunes_by_timing: ClassVar[bool] = False
    opt_level: Literal["O0", "O1", "O2", "O3"] = "O1"
    keep_batchnorm_fp32: bool | None = None

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.opt_level == "O1" and self.keep_batchnorm_fp32 is not None:
            raise SpecError(
                "apex-amp: O1 does not support keep_batchnorm_fp32, because it patches functions "
                "and does not change the weights",
                "leave it out, or use O2 or O3",
            )

    def claims(self) -> Claims:
        """Float32 under O0, and float16 under the others; see `Backend.claims`."""
        dtype = FLOAT32 if self.opt_level == "O0" else FLOAT16
        mixed = self.opt_level in _MIXED_LEVELS
        return Claims(
            dtype=dtype,
            mixed=mixed,
            precision=f"mixed {dtype} ({self.opt_level})" if mixed else "",
            framework="PyTorch eager",
            sparsity="dense",
            patches_torch=True,
            packages=("apex",),
            covered_options=("opt_level",),
        )

    def check_available(self) -> None:
        """Raise if `apex.amp` is missing, is another project's, or there is no CUDA GPU.

        Raises:
            BackendUnavailableError: which of these, and what to do.
        """
        _check_installed()
        if not torch.cuda.is_available():
            raise BackendUnavailableError(
                "a CUDA GPU (apex.amp.initialize takes CUDA models only)", "run it on a CUDA GPU"
            )

    @contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        """Initialise Apex on the model, and undo it afterwards; see `Backend.prepare`."""
        require_cuda(inputs)
        amp = _import_amp()
        core: Any = importlib.import_module("apex.amp.amp")
        with (
            functions_restored() as functions,
            _amp_state_restored(amp, core),
            _registered_functions_restored(core),
        ):
            model = amp.initialize(
                model,
                opt_level=self.opt_level,
                keep_batchnorm_fp32=self.keep_batchnorm_fp32,
                verbosity=0,
            )
            details = {
                "apex": installed_version("apex"),
                "patched_functions": len(functions.changes()),
            }
            yield Prepared(inputs.bind(model), model, details, inputs=inputs)


def _check_installed() -> None:
    place = _package()
    if place is None:
        raise BackendUnavailableError("NVIDIA Apex (not installed)", _REMEDY)
    if (place / "amp").is_dir():
        return
    if any((place / name).is_dir() for name in _NVIDIA_PACKAGES):
        raise BackendUnavailableError(
            f"an NVIDIA Apex with amp ({place} is 25.07 or newer, without amp)", _REMEDY
        )
    raise BackendUnavailableError(
        f"NVIDIA's Apex ({place} is the unrelated project 'apex' of PyPI)",
        f"pip uninstall apex, then {_REMEDY}",
    )


def _package() -> Path | None:
    """Where `import apex` leads: a folder, or the file of a project that is a single module."""
    found = importlib.util.find_spec("apex")
    places = [*(found.submodule_search_locations or ()), found.origin] if found else []
    return next((Path(place) for place in places if place), None)


def _import_amp() -> Any:
    _check_installed()
    return import_engine("apex.amp", "NVIDIA Apex", _REMEDY)


@contextmanager
def _amp_state_restored(amp: Any, core: Any) -> Iterator[None]:
    """Restore Apex's own globals, so that a second `initialize` starts from nothing."""
    state = amp._amp_state
    before, decorator_handle = dict(vars(state)), core._DECORATOR_HANDLE
    try:
        yield
    finally:
        handle = vars(state).get("handle")
        if handle is not None and handle is not before.get("handle"):
            # Whoever kept a patched function asks this handle, for good, whether to cast.
            handle._is_active = False
            handle._clear_cache()  # it holds a half copy of every weight
            before.setdefault("handle", handle)
        vars(state).clear()
        vars(state).update(before)
        core._DECORATOR_HANDLE = decorator_handle


@contextmanager
def _registered_functions_restored(core: Any) -> Iterator[None]:
    """Restore what `amp.register_half_function` and its relatives let O1 patch.

    Apex forgets the registrations when it has used them; the next row needs them again.
    """
    registries = (core._USER_CAST_REGISTRY, core._USER_PROMOTE_REGISTRY)
    registered = [set(registry) for registry in registries]
    functions = [(*place[:2], getattr(*place[:2])) for places in registered for place in places]
    try:
        yield
    finally:
        for module, name, function in functions:
            setattr(module, name, function)
        for registry, places in zip(registries, registered, strict=True):
            registry.update(places)
