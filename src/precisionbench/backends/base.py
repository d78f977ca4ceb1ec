"""The base class of backends: a backend prepares a callable and undoes every global change."""

from __future__ import annotations

import abc
import itertools
import re
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import nn

from precisionbench.backends.rungs import Capabilities, Rung, TuningOptions
from precisionbench.errors import BackendUnavailableError, PrecisionBenchWarning, SpecError
from precisionbench.results.claims import Claims, claims_from_options
from precisionbench.results.evidence import Operation
from precisionbench.results.json_values import Json, as_json
from precisionbench.torchtools.global_state import has_tf32
from precisionbench.torchtools.tensors import Inputs, cast

GradMode = Literal["inference_mode", "no_grad"]
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_OPTION_TYPES = "_option_types"  # attribute of a backend's class


@attrs.frozen
class Prepared:
    """What `prepare` yields.

    Attributes:
        call: one forward pass on the current stream; it must not synchronise.
        module: the module behind it, for layer-wise probes, where there is one.
        details: what the engine chose, as JSON values; kept in the result.
        engine_operations: the layers of one call as the engine itself reports them, with the dtypes
            that they ran in; the label of the row is checked by them.
        inputs: the tensors that `call` reads, in the order of `Inputs.tensors()` of what `prepare`
            was given: the next call computes with whatever is copied into them. None where the
            call cannot be given other data.
    """

    call: Callable[[], object]
    module: nn.Module | None = None
    details: Mapping[str, Json] = attrs.field(factory=dict)
    engine_operations: tuple[Operation, ...] = ()
    inputs: Inputs | None = None


def unrecorded(default: Any = None) -> Any:
    """A field that is not an option: it is left out of the spec and of the result.

    Args:
        default: its default.

    Returns:
        What `attrs.field` gives, to be written behind the field's annotation.
    """
    return attrs.field(default=default, kw_only=True, eq=False, metadata={"recorded": False})


def names(what: str) -> dict[str, str]:
    """The metadata of an option that names something outside of the spec.

    Such an option of a result file is not trusted: an experiment on a loaded result refuses it
    unless the user trusts the file.

    Args:
        what: it names, such as `code` or `a folder`; empty where the text is harmless, although its
            type allows any.

    Returns:
        What `attrs.field` takes as `metadata`.
    """
    return {"names": what}


@attrs.frozen
class Backend(abc.ABC):
    """One way to run a model. Subclasses are `attrs.frozen`; their fields are the options.

    The library sets the common options around `prepare` and every call, so that a plugin needs to
    do nothing for them: it is given a model and inputs that are in that memory format already.
    float32 is IEEE float32 unless the plugin says otherwise.

    Attributes:
        name: the backend's name in specs, and of its entry point.
        tunes_by_timing: whether `prepare` or the first calls choose between algorithms by timing
            them, so that nothing else may run then. A plugin that does not says so, and its
            further replicas are prepared side by side.
        is_timed: whether its calls are timed; false where only their outputs are of interest, so
            that nothing is warmed up.
        imports: modules that `prepare` imports, where that takes seconds: a worker imports them
            while other workers start.
        left_out: the ladder's text where the backend has rungs and cannot run; empty for its
            name.
        memory_format: layout of the model's and the inputs' 4-D and 5-D tensors.
        cudnn_benchmark: let cuDNN time its algorithms on each shape instead of using heuristics.
        grad_mode: how gradients are switched off around each call.
        l2_cache: leave the GPU's L2 cache as the last call left it, or empty it before each one.
        fold_batch_norm: fold each batch norm into the convolution or linear layer before it, ahead
            of `prepare`; see `batch_norm_folding.folded`.
        cuda_graph: capture the prepared call as a CUDA graph, and time its replay.
        batch_size: items in one call, where that differs from the number in the inputs: the first
            of them, or all of them repeated.
        threads: threads of torch's operations on the CPU while the backend is prepared and called;
            engines that have threads of their own take as many. None is what PyTorch has.
    """

    name: ClassVar[str]
    tunes_by_timing: ClassVar[bool] = True
    is_timed: ClassVar[bool] = True
    imports: ClassVar[tuple[str, ...]] = ()
    left_out: ClassVar[str] = ""

    memory_format: Literal["contiguous", "channels_last"] = attrs.field(
        default="contiguous", kw_only=True
    )
    cudnn_benchmark: bool = attrs.field(default=False, kw_only=True)
    grad_mode: GradMode = attrs.field(default="inference_mode", kw_only=True)
    l2_cache: Literal["warm", "cold"] = attrs.field(default="warm", kw_only=True)
    fold_batch_norm: bool = attrs.field(default=False, kw_only=True)
    batch_size: int | None = attrs.field(default=None, kw_only=True)
    cuda_graph: bool = attrs.field(default=False, kw_only=True)
    threads: int | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not _NAME.fullmatch(str(getattr(self, "name", ""))):
            raise SpecError(
                f"the backend class {type(self).__name__} has no name that a spec could begin with",
                'write name: ClassVar[str] = "..." in it: letters, digits, -, _ and .',
            )
        hints = option_types(type(self))
        for name, hint in hints.items():
            check_option(self.name, name, getattr(self, name), hint)
        for name, number in (("batch_size", self.batch_size), ("threads", self.torch_threads)):
            if number is not None and number < 1:
                raise SpecError(f"{self.name}: {name} cannot be {number}", "give 1 or more")

    @property
    def torch_threads(self) -> int | None:
        """The common option `threads`; None where a plugin has an option of this name itself."""
        ours, common = (attrs.fields_dict(kind)["threads"] for kind in (type(self), Backend))
        return self.threads if ours == common else None

    def check_available(self) -> None:  # noqa: B027 - most backends need nothing
        """Raise if this machine cannot run the backend.

        Raises:
            BackendUnavailableError: what is missing, and how to get it.
        """

    def claims(self) -> Claims:
        """What a row of this backend claims: recorded, and checked by the diagnosis.

        By default it is what the options `dtype` and `precision` say, and nothing besides.

        Returns:
            The claims; a plugin states those in which it differs from eager PyTorch.
        """
        return claims_from_options(options_of(self))

    @classmethod
    def ladder_rungs(cls, capabilities: Capabilities) -> Iterable[Rung]:  # noqa: ARG003
        """The rows that `ladder` measures of this backend; by default none.

        Args:
            capabilities: of the machine and the workload.

        Returns:
            Rungs, each of which differs from another row in one thing; within a stage they are
            measured in this order.
        """
        return ()

    @classmethod
    def tuning_options(cls, capabilities: Capabilities) -> TuningOptions | None:  # noqa: ARG003
        """The options that `tune` tries; by default it does not try the backend.

        Args:
            capabilities: of the machine and the workload.

        Returns:
            The options; None where none of them is worth trying on this machine.
        """
        return None

    @abc.abstractmethod
    def prepare(
        self, model: nn.Module, inputs: Inputs
    ) -> AbstractContextManager[Prepared | Callable[[], object]]:
        """Get the model ready to be called again and again.

        What runs before the `yield` is build time, the yielded call is what is timed, and what
        runs after it undoes every change to anything that is not the plugin's own.

        Args:
            model: a private copy in eval mode, on the device; it may be changed.
            inputs: private copies of the inputs, on the device.

        Returns:
            A context manager that yields `Prepared` or a bare callable.
        """


def cast_model(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast a model's floating-point parameters and buffers, in place; see `trees.cast`.

    `model.to(dtype)` would cast complex ones too and drop their imaginary parts.

    Args:
        model: the private copy that `prepare` was given.
        dtype: a floating-point dtype. Complex tensors stay complex; a 16-bit row warns of that.

    Returns:
        The same model.
    """
    tensors = itertools.chain(model.parameters(), model.buffers())
    if dtype.itemsize == 2 and any(tensor.is_complex() for tensor in tensors):
        warnings.warn(
            "the model's complex weights stay complex64, because torch has no smaller complex type",
            PrecisionBenchWarning,
            stacklevel=2,
        )
    model._apply(lambda tensor: cast(tensor, dtype))
    return model


def require_cuda(inputs: Inputs) -> None:
    """Raise unless the inputs are on a CUDA device.

    Args:
        inputs: that `prepare` was given.

    Raises:
        BackendUnavailableError: where they are instead.
    """
    device = inputs.tensors()[0][1].device
    if device.type != "cuda":
        raise BackendUnavailableError(
            f"a CUDA device (the inputs are on {device})", "choose the device 'cuda'"
        )


def check_tf32() -> None:
    """Raise unless the GPU computes in TF32.

    Raises:
        BackendUnavailableError: what would.
    """
    if not has_tf32():
        raise BackendUnavailableError(
            "an NVIDIA GPU of compute capability 8.0 or newer, for TF32",
            "compare with 'eager' and 'half' here",
        )


def option_fields(backend: type[Backend]) -> list[attrs.Attribute[Any]]:
    """The fields of a backend that are options, the backend's own first."""
    fields = [field for field in attrs.fields(backend) if field.metadata.get("recorded", True)]
    common = {field.name for field in attrs.fields(Backend)}
    return sorted(fields, key=lambda field: field.name in common)


def option_types(backend: type[Backend]) -> dict[str, Any]:
    """The type of each option of a backend.

    They are kept in the class, which takes them along to a worker: there, the names in a script's
    annotations are unknown.
    """
    if _OPTION_TYPES not in vars(backend):
        hints = typing.get_type_hints(backend)
        types = {field.name: hints[field.name] for field in option_fields(backend)}
        setattr(backend, _OPTION_TYPES, types)
    known: dict[str, Any] = vars(backend)[_OPTION_TYPES]
    return known


def options_of(backend: Backend) -> dict[str, Json]:
    """Every option of a backend with its value, as JSON."""
    return {
        field.name: as_json(getattr(backend, field.name)) for field in option_fields(type(backend))
    }


def alternatives(hint: Any) -> list[Any]:
    """The members of `A | B | None`; of any other type, itself."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return list(typing.get_args(hint)) if is_union else [hint]


def allowed_values(hint: Any) -> str:
    """An option's type in words: `'fp32' or 'fp16'`, `true or false`, `a whole number`."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    parts: list[str] = []
    for member in alternatives(hint):
        if typing.get_origin(member) is Literal:
            parts += [repr(value) for value in typing.get_args(member)]
        elif isinstance(member, type) and issubclass(member, Enum):
            parts += [repr(value.value) for value in member]
        elif member is type(None):
            parts.append("none")
        else:
            parts.append(words.get(member, getattr(member, "__name__", str(member)).lower()))
    return " or ".join(parts)


def check_option(backend: str, name: str, value: Any, hint: Any) -> None:
    """Refuse a value that is not of the option's type.

    Raises:
        SpecError: which option of which backend, and what it allows.
    """
    if not any(_fits(value, member) for member in alternatives(hint)):
        raise SpecError(f"{backend}: {name} cannot be {value!r}", f"use {allowed_values(hint)}")
    text = str(value)
    if isinstance(value, (str, Path)) and (not text or "," in text or text != text.strip()):
        raise SpecError(
            f"{backend}: {name} cannot be {text!r}, because a spec cannot contain it",
            "give a text without commas or outer spaces",
        )


def _fits(value: Any, member: Any) -> bool:
    if typing.get_origin(member) is Literal:
        return value in typing.get_args(member)
    if member is Any:
        return True
    if isinstance(value, bool) and member is not bool:
        return False
    kind = typing.get_origin(member) or member  # list[int] is a list
    return isinstance(value, (int, float) if member is float else kind)
