"""`torch.compile` of a private model: everything is compiled before the first call is timed."""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import nn

from precisionbench.backends.base import (
    Backend,
    Prepared,
    cast_model,
    check_tf32,
    require_cuda,
)
from precisionbench.backends.inductor import (
    build_error,
    cache_folder_named,
    check_compiler,
    check_tools,
    environment_restored,
    has_triton,
    inner,
    own_counters,
)
from precisionbench.backends.rungs import CHANNELS_LAST, Capabilities, Rung, Stage, TuningOptions
from precisionbench.errors import (
    FOREIGN_ERRORS,
    PreparationError,
    SpecError,
    one_line,
    text_of,
)
from precisionbench.results.claims import Claims
from precisionbench.results.dtypes import AMPERE, TF32
from precisionbench.results.json_values import Json
from precisionbench.safe_text import without_addresses
from precisionbench.torchtools.failed_call import failure_of, misfit_in_eager
from precisionbench.torchtools.global_state import (
    compilations,
    fp32_precision,
    gradients_off,
    recompile_limit_lifted,
)
from precisionbench.torchtools.tensors import Inputs

Mode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
_WITH_GRAPHS = ("reduce-overhead", "max-autotune")
# CUDA graphs are recorded in the second call and replayed from the third on.
_LEAST_CALLS, _MOST_CALLS = 4, 20
_QUIET_CALLS = 2
_REASONS = 3  # of graph breaks that are kept
_REASON_LENGTH = 300
_EXPLANATION = "Explanation:"
_WHAT = "torch.compile"


@attrs.frozen
class Compile(Backend):
    """`torch.compile` (TorchInductor), compiled before it is timed.

    The model is compiled for itself: neither another row's compiled code nor the caller's own,
    of a model of the same class, is used or lost.

    Attributes:
        dtype: of weights, buffers and inputs, which are cast once, beforehand.
        mode: as for `torch.compile`. `reduce-overhead` and `max-autotune` use CUDA graphs.
        freezing: let Inductor treat the weights as constants, fold batch norms into them and
            choose their layout.
        dynamic: compile for any shape (true), for these only (false), or as torch decides (none).
        fullgraph: fail where the model does not compile as one graph.
        precision: of float32, as for `eager`.
    """

    name: ClassVar[str] = "compile"
    left_out: ClassVar[str] = "compiled rows were left out"
    imports: ClassVar[tuple[str, ...]] = ("torch._dynamo", "torch._inductor.compile_fx")
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    mode: Mode = "default"
    freezing: bool = False
    dynamic: bool | None = None
    fullgraph: bool = False
    precision: Literal["fp32", "tf32"] = "fp32"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.precision == "tf32" and self.dtype != "float32":
            raise SpecError(
                f"compile: precision=tf32 requires dtype=float32, and dtype is {self.dtype}",
                "leave one of them out",
            )
        if self.cuda_graph and self.mode in _WITH_GRAPHS:
            raise SpecError(
                f"compile: mode={self.mode} already uses CUDA graphs, so cuda_graph=true cannot be "
                "added",
                "leave cuda_graph out, or use mode=default or max-autotune-no-cudagraphs",
            )

    def check_available(self) -> None:
        """Raise if TorchInductor finds no compiler, or TF32 is asked for and missing.

        Raises:
            BackendUnavailableError: what is missing.
        """
        if self.precision == "tf32":
            check_tf32()
        if not (has_triton() and torch.cuda.is_available()):
            check_compiler()

    def claims(self) -> Claims:
        """The dtype, and what the mode and freezing change; see `Backend.claims`."""
        return Claims(
            dtype=TF32 if self.precision == TF32 else self.dtype,
            engine=_WHAT,
            framework="PyTorch compiled",
            sparsity="dense",
            frozen_weights=self.freezing,
            cuda_graphs=self.mode in _WITH_GRAPHS,
            autotuned=self.mode.startswith("max-autotune"),
            covered_options=("dtype", "mode", "freezing", "precision"),
        )

    @classmethod
    def ladder_rungs(cls, capabilities: Capabilities) -> Iterable[Rung]:
        """Compiled 16 bits, then frozen, then in CUDA graphs; see `Backend.ladder_rungs`."""
        on_gpu = capabilities.device == "cuda"
        options: dict[str, Any] = {"dtype": "float16" if on_gpu else "bfloat16"}
        options |= CHANNELS_LAST if capabilities.has_images else {}
        yield Rung(Stage.COMPILER, options)
        options = {**options, "freezing": True}
        yield Rung(Stage.COMPILER, options)
        if on_gpu:
            yield Rung(Stage.COMPILER, {**options, "mode": "reduce-overhead"})

    @classmethod
    def tuning_options(cls, capabilities: Capabilities) -> TuningOptions | None:
        """Each dtype with frozen weights, then other modes; see `Backend.tuning_options`."""
        on_gpu = capabilities.device == "cuda"
        first: list[dict[str, Any]] = [{"dtype": "float16"}] if on_gpu else []
        first += [{"dtype": "bfloat16"}, {}]
        if on_gpu and capabilities.capability >= AMPERE:
            first[-1] = {"precision": "tf32"}
        further: list[dict[str, Any]] = [{"freezing": False}]
        if on_gpu:
            tuned = {"mode": "max-autotune-no-cudagraphs"}
            further = [{"mode": "reduce-overhead"}, *further, tuned]
        return TuningOptions(
            Stage.COMPILER,
            [{**options, "freezing": True} for options in first],
            further,
            typical_build_s=20,
        )

    @contextmanager
    def prepare(self, model: nn.Module, inputs: Inputs) -> Iterator[Prepared]:
        """Cast, compile, and call until nothing is compiled any more; see `Backend.prepare`."""
        device = inputs.tensors()[0][1].device.type
        if self.precision == "tf32":
            require_cuda(inputs)
        check_tools(device)
        dtype = getattr(torch, self.dtype)
        model, inputs = cast_model(model, dtype), inputs.to(dtype)
        with ExitStack() as stack:
            stack.enter_context(cache_folder_named(_WHAT))
            stack.enter_context(environment_restored())
            stack.enter_context(fp32_precision("ieee" if self.precision == "fp32" else "tf32"))
            counters = stack.enter_context(own_counters())
            stack.enter_context(recompile_limit_lifted())
            stack.enter_context(_code_dropped())
            stack.enter_context(_constants_dropped())
            compiled: Any = torch.compile(
                model,
                backend=_own_inductor(self.mode, self.dynamic),
                dynamic=self.dynamic,
                fullgraph=self.fullgraph,
            )
            call = inputs.bind(compiled)
            details = self._warmed(call, device, counters)
            yield Prepared(call, compiled, details, inputs=inputs)

    def _warmed(self, call: Callable[[], object], device: str, counters: Any) -> dict[str, Json]:
        """Compile by calling; gives the details."""
        import torch._inductor.config

        frozen = torch._inductor.config.patch(freezing=self.freezing)
        with gradients_off(self.grad_mode), frozen, _skips() as skips:
            try:
                calls, late, settled = _called_until_quiet(call)
            except FOREIGN_ERRORS as exc:
                raise _explained(exc, call) from exc
        breaks = counters["graph_break"]
        return {
            "compiler": "inductor",
            "graphs": compilations(),
            "recompilations": late,
            "graph_breaks": sum(breaks.values()),
            "graph_break_reasons": [_first_line(reason) for reason in list(breaks)[:_REASONS]],
            **_skipped_frames(counters),
            "calls_until_compiled": calls,
            "still_compiling": not settled,
            "recompile_reasons": _recompile_reasons(counters["frames"]["total"]) if late else [],
            "cuda_graphs": self._about_graphs(device, counters, skips),
        }

    def _about_graphs(self, device: str, counters: Any, skips: list[str]) -> str:
        if self.mode not in _WITH_GRAPHS:
            return "not requested"
        if device != "cuda":
            return f"skipped: not supported on {device}"
        if count := counters["inductor"]["cudagraph_skips"]:
            return f"skipped {count} times: {skips[0] if skips else 'torch gives no reason'}"
        return "used"


def _own_inductor(mode: str, dynamic: bool | None) -> Callable[..., Any]:
    """TorchInductor as a backend that is equal to no other.

    TorchDynamo keeps compiled code with the code of `forward`, which all copies of a model share,
    and would run another row's where it was compiled by an equal backend.
    """
    wrapper: Any = torch._TorchCompileInductorWrapper  # type: ignore[attr-defined,unused-ignore]
    inductor = wrapper(mode, None, dynamic)

    def own(graph: Any, example_inputs: Any) -> Any:
        return inductor(graph, example_inputs)

    return own


def _called_until_quiet(call: Callable[[], object]) -> tuple[int, int, bool]:
    """How many calls it took, what was compiled after the first, and whether that has ended."""
    call()
    first = last = compilations()
    calls, quiet = 1, 0
    while calls < _MOST_CALLS and (calls < _LEAST_CALLS or quiet < _QUIET_CALLS):
        call()
        calls += 1
        quiet = quiet + 1 if compilations() == last else 0
        last = compilations()
    return calls, last - first, quiet >= _QUIET_CALLS


def _recompile_reasons(frames: int) -> list[str]:
    """Why TorchDynamo compiled again, in the last frames that it was given."""
    from torch._dynamo.utils import get_compilation_metrics

    found = (metrics.recompile_reason for metrics in get_compilation_metrics()[-frames:])
    # torch pads the condition that failed, and adds the line of code and a hint.
    conditions = (_first_line(reason).partition("  ")[0] for reason in found if reason)
    return list(dict.fromkeys(conditions))[:_REASONS]


def _skipped_frames(counters: Any) -> dict[str, Json]:
    """Functions that TorchDynamo gave up and left to Python, and why: details of a row.

    A graph break in a loop, or an error that `suppress_errors` hides, skips a whole function. It
    is not counted as a graph break.
    """
    from torch._dynamo.utils import get_compilation_metrics

    frames = counters["frames"]
    skipped = frames["total"] - frames["ok"]
    if skipped <= 0:
        return {"skipped_frames": 0, "skip_reasons": []}
    failed = [metrics.fail_reason for metrics in get_compilation_metrics()[-frames["total"] :]]
    reasons = dict.fromkeys(_first_line(text_of(r).replace(":\n", ": ", 1)) for r in failed if r)
    return {"skipped_frames": skipped, "skip_reasons": list(reasons)[:_REASONS]}


def _explained(exc: BaseException, call: Callable[[], object]) -> Exception:
    if (error := build_error(exc, _WHAT)) is not None:
        return error
    if (where := misfit_in_eager(exc, call)) is not None:
        return failure_of(inner(exc), where)
    return PreparationError(
        f"{_WHAT} failed ({one_line(inner(exc))})",
        "run torch.compile(model)(*inputs) alone with TORCHDYNAMO_VERBOSE=1; leave fullgraph, "
        "freezing and mode out to see which of them it is",
    )


def _first_line(text: object) -> str:
    """The first line of a reason, with torch's explanation of it where there is one."""
    first, _, more = without_addresses(text_of(text).strip()).partition("\n")
    explanation = more.partition(_EXPLANATION)[2].partition("\n")[0].strip()
    return f"{first}: {explanation}"[:_REASON_LENGTH] if explanation else first


@contextmanager
def _code_dropped() -> Iterator[None]:
    """Let go afterwards of what was compiled meanwhile, with its weights and CUDA graphs.

    TorchDynamo keeps it for good with the code of the functions that it compiled. A function that
    others had compiled before keeps all: one entry cannot be dropped alone, and
    `torch._dynamo.reset` would drop theirs, too.
    """
    import torch._dynamo.eval_frame as frames

    others = {id(code) for code in _codes() if _entries(code)}
    try:
        yield
    finally:
        for code in _codes():
            if id(code) not in others:
                frames.reset_code(code)  # type: ignore[attr-defined,unused-ignore]


@contextmanager
def _constants_dropped() -> Iterator[None]:
    """Let go afterwards of weights that were frozen meanwhile.

    TorchInductor keeps every module of generated code for good, and frozen weights as attributes of
    theirs.
    """
    from torch._inductor.codecache import PyCodeCache

    others = {id(module) for module in PyCodeCache.modules}
    try:
        yield
    finally:
        ours = [
            module
            for module in PyCodeCache.modules
            if id(module) not in others and _has_constants(module)
        ]
        for module in ours:
            PyCodeCache.modules.remove(module)
            if sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]


def _has_constants(module: types.ModuleType) -> bool:
    return any(isinstance(value, torch.Tensor) for value in vars(module).values())


def _codes() -> list[types.CodeType]:
    """Functions that TorchDynamo has seen, as `torch._dynamo.reset` finds them."""
    import torch._dynamo.convert_frame as frames

    seen = [*frames.input_codes.seen, *frames.output_codes.seen]
    return [code for weak in seen if (code := weak()) is not None]


def _entries(code: types.CodeType) -> list[Any]:
    entries: list[Any] = torch._dynamo.eval_frame._debug_get_cache_entry_list(code)
    return entries


@contextmanager
def _skips() -> Iterator[list[str]]:
    """Why CUDA graphs are skipped, which torch only logs."""
    import torch._inductor.cudagraph_utils as graphs

    said: list[str] = []
    loggers = [v for name, v in vars(graphs).items() if isinstance(v, logging.Logger)]
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield said
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
