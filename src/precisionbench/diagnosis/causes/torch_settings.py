"""Global settings of torch select slower kernels, or fewer threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from precisionbench.diagnosis.causes.base import Cause, CauseContext, CauseMatch, without
from precisionbench.diagnosis.findings import Number
from precisionbench.diagnosis.parts import FUSED_ATTENTION_FLAGS, is_matrix
from precisionbench.diagnosis.work import matmul_sizes
from precisionbench.errors import some
from precisionbench.results.dtypes import BFLOAT16, FLOAT16
from precisionbench.results.evidence import Operation
from precisionbench.results.json_values import Json

_LEAST_SHARE = 0.05
# torch computes operations on fewer elements than this in one thread (`at::internal::GRAIN_SIZE`).
_PARALLEL_ELEMENTS = 32768
_CONVOLUTIONS = ("convolution", "conv1d", "conv2d", "conv3d", "conv_depthwise")
_CUDNN = (*_CONVOLUTIONS, "batch_norm", "lstm", "gru", "rnn")
# Operations for which `torch.use_deterministic_algorithms` selects another algorithm, and the
# filling of new tensors (`torch.utils.deterministic.fill_uninitialized_memory`).
_NONDETERMINISTIC = (
    *("index_add", "index_put", "index_copy", "scatter", "cumsum", "embedding_bag"),
    *("empty", "resize"),
)
_LINALG = ("linalg", "cholesky", "triangular_solve", "lu_solve", "geqrf", "ormqr", "inverse")

_LONG_SUM = 4  # inner size of a matmul, divided by the sizes of its result

_Affects = Callable[[Operation], bool]


@attrs.frozen
class _Setting:
    """A setting that selects slower kernels.

    Attributes:
        text: the setting as it is written in Python.
        affects: whether it can make an operation slower.
        saved: largest share of an operation's time that the default would save.
    """

    text: str
    affects: _Affects
    saved: float = 1.0


def detect(context: CauseContext) -> CauseMatch | None:
    """Settings away from torch's defaults, and the time of the operations that they affect."""
    facts = context.facts
    whole_s = facts.whole_s
    found = [one for one in _settings(context) if _share(context, [one], whole_s) > _LEAST_SHARE]
    if not found:
        return None
    share = _share(context, found, whole_s)
    return CauseMatch(
        (Number("time in operations that they affect", share, "share"),),
        without(_share_saved(context, found, whole_s)),
        reason=some([one.text for one in found]),
    )


def _share(context: CauseContext, settings: Sequence[_Setting], whole_s: float) -> float:
    return _share_saved(context, [attrs.evolve(one, saved=1.0) for one in settings], whole_s)


def _share_saved(context: CauseContext, settings: Sequence[_Setting], whole_s: float) -> float:
    saved_s = sum(
        operation.time_s * max((one.saved for one in settings if one.affects(operation)), default=0)
        for operation in context.facts.evidence.operations
    )
    return saved_s / whole_s


def _settings(context: CauseContext) -> Iterator[_Setting]:
    flags = context.facts.row.flags
    yield from _on_gpu(flags, context.label.claim) if context.facts.on_gpu else _on_cpu(context)
    if flags.get("deterministic_algorithms", "off") != "off":
        words = _NONDETERMINISTIC + (_CONVOLUTIONS if context.facts.on_gpu else ())
        yield _Setting("torch.use_deterministic_algorithms(True)", _named(words))
    if all(flags.get(name) is False for name in FUSED_ATTENTION_FLAGS):
        yield _Setting("all fused attention backends off", _is_unfused_attention)


def _on_gpu(flags: Mapping[str, Json], claim: str) -> Iterator[_Setting]:
    if flags.get("cudnn.enabled") is False:
        yield _Setting("torch.backends.cudnn.enabled = False", _named(_CUDNN))
    elif flags.get("cudnn.deterministic") is True:
        yield _Setting("torch.backends.cudnn.deterministic = True", _named(_CONVOLUTIONS))
    for dtype, name in ((FLOAT16, "fp16"), (BFLOAT16, "bf16")):
        flag = f"allow_{name}_reduced_precision_reduction"
        if claim == dtype and flags.get(f"cuda.matmul.{flag}") is False:
            yield _Setting(f"torch.backends.cuda.matmul.{flag} = False", _splits(dtype))
    library = flags.get("cuda.preferred_linalg_library", "default")
    if library != "default":
        yield _Setting(
            f"torch.backends.cuda.preferred_linalg_library({str(library)!r})", _named(_LINALG)
        )


def _on_cpu(context: CauseContext) -> Iterator[_Setting]:
    flags, most = context.facts.row.flags, context.data.environment.default_threads
    if flags.get("mkldnn.enabled") is False:
        yield _Setting(
            "torch.backends.mkldnn.enabled = False",
            is_matrix if context.claims_half else _named(_CONVOLUTIONS),
        )
    threads = flags.get("num_threads")
    if isinstance(threads, int) and most is not None and threads < most:
        text = f"torch.set_num_threads({threads}), {most} by default"
        yield _Setting(text, _is_parallel, saved=1 - threads / most)


def _named(words: Sequence[str]) -> _Affects:
    """Operations with one of these words in their names or in those of the operations around."""
    return lambda o: any(word in name for name in (o.name, *o.parents) for word in words)


def _splits(dtype: str) -> _Affects:
    """Matmuls with long sums and few results, which cuBLAS splits over the multiprocessors.

    It adds the parts in 16 bits, which the setting forbids.
    """

    def affects(operation: Operation) -> bool:
        rows, inner, columns = matmul_sizes(operation) or (1, 0, 1)
        is_long = inner > _LONG_SUM * max(rows, columns)
        return is_long and any(tensor.dtype == dtype for tensor in operation.inputs)

    return affects


def _is_unfused_attention(operation: Operation) -> bool:
    return any("scaled_dot_product_attention_math" in name for name in operation.parents)


def _is_parallel(operation: Operation) -> bool:
    return operation.elements > _PARALLEL_ELEMENTS * max(1.0, operation.count)


CAUSE = Cause(
    "torch-settings",
    "torch settings that select slower kernels or fewer threads",
    "leave these settings at their defaults where you do not need them; repeatable results cost "
    "time, so report them with the figures",
    detect,
    "default-settings",
)
