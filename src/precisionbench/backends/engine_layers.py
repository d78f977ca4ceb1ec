"""What an engine reports of its layers, as operations of a call.

Engines name layers in their own way (`QLinearConv`, `FullyConnected`). The names made here are
those that the diagnosis knows from PyTorch, behind the engine's name: `onnxruntime::q_conv`.
"""

from __future__ import annotations

import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import attrs

from precisionbench.errors import PrecisionBenchWarning
from precisionbench.results.dtypes import INT8
from precisionbench.results.evidence import Operation, Tensor
from precisionbench.results.json_values import Json

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# Parts of engines' names, and what the diagnosis calls them.
_WORDS = {
    "MatMul": "Matmul",
    "FullyConnected": "Linear",
    "QLinear": "Q",
    "Deconvolution": "ConvolutionTransposed",
}
_CASTS = ("Cast", "Convert", "Reorder", "Reformat", "QuantizeLinear", "DequantizeLinear")
_ATTENTION = re.compile(r"Attention|^MHA$")
_RECURRENT = re.compile(r"LSTM|GRU|RNN")
_MATRIX = re.compile(
    r"Conv(?!ert)|Gemm|MatMul|FullyConnected|Deconvolution|Attention|^MHA$|LSTM|GRU|RNN"
    # and in the names of torch's operators
    r"|conv(?!er)|attention|_rnn|lstm|gru(?![a-z])"
    r"|(?<![a-z])(?:(?:add|b|badd|addb)?mm|(?:add)?mv|v?dot|matmul|q?linear)(?![a-z])"
)
_INT8_DTYPES = ("int8", "uint8")


# An engine's layers are timed in calls of this time together, about, and in this many at most.
_PROFILE_S, _MOST_CALLS = 0.2, 8


@attrs.frozen
class EngineLayer:
    """A layer of an engine, in the engine's words.

    Attributes:
        name: the engine's name of the layer.
        kind: the engine's type of the layer, such as `Conv`.
        inputs: its inputs, with the dtypes in which the layer reads them.
        outputs: its outputs.
        place: what ran it: an execution provider or a device.
        time_s: seconds of a call.
        count: number of times in a call.
    """

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    place: str
    time_s: float
    count: float = 1.0

    @property
    def is_matrix(self) -> bool:
        """Whether it is a matmul, a convolution, attention or a recurrent layer."""
        return bool(_MATRIX.search(self.kind))

    @property
    def dtype(self) -> str:
        """The dtype in which it reads its first input; empty where it has none."""
        return _plain(self.inputs[0].dtype) if self.inputs else ""

    @property
    def _casts(self) -> bool:
        dtypes = [tensors[0].dtype for tensors in (self.inputs, self.outputs) if tensors]
        return self.kind in _CASTS and len(set(dtypes)) > 1

    def as_operation(self, engine: str) -> Operation:
        """The layer as an operation of a call.

        Args:
            engine: the namespace of the operation's name.
        """
        name = "_to_copy" if self._casts else _operation_name(self.kind)
        return Operation(
            name=f"{engine}::{name}",
            layer=self.name,
            inputs=(*self.outputs[:1], *self.inputs[:1]) if self._casts else self.inputs,
            count=self.count,
            time_s=self.time_s,
            place=self.place,
        )


def _operation_name(kind: str) -> str:
    if _ATTENTION.search(kind):
        return "scaled_dot_product_attention"
    if _RECURRENT.search(kind):
        return "rnn_sequence"
    for theirs, ours in _WORDS.items():
        kind = kind.replace(theirs, ours)
    return _WORD.sub("_", kind).lower()


def _plain(dtype: str) -> str:
    return INT8 if dtype in _INT8_DTYPES else dtype


def called_briefly(call: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> int:
    """Call for a fraction of a second, for an engine that times its layers meanwhile.

    Args:
        call: one forward pass.
        clock: gives seconds.

    Returns:
        How many calls it made: 1 of a slow model, 8 of a fast one.
    """
    end_s, calls = clock() + _PROFILE_S, 0
    while not calls or (calls < _MOST_CALLS and clock() < end_s):
        call()
        calls += 1
    return calls


def summary(layers: Iterable[EngineLayer]) -> dict[str, Json]:
    """Details of a row: how many layers ran in which precision, and where.

    Args:
        layers: of one call.

    Returns:
        `layers`, `layer_precision` (matmuls, convolutions and attention by dtype) and
        `layer_places` (all layers by what ran them).
    """
    layers = list(layers)
    return {
        "layers": len(layers),
        "layer_precision": dict(Counter(layer.dtype for layer in layers if layer.is_matrix)),
        "layer_places": dict(Counter(layer.place for layer in layers)),
    }


def warn_of_other_precision(layers: Sequence[EngineLayer], claim: str) -> None:
    """Warn where no matrix layer ran in the precision that was asked for.

    Args:
        layers: of one call.
        claim: the dtype that was asked for.
    """
    found = Counter(layer.dtype for layer in layers if layer.is_matrix)
    if found and claim not in found:
        names = " and ".join(f"{count} in {dtype}" for dtype, count in found.most_common())
        warnings.warn(
            f"{claim} was asked for, but none of the matmuls and convolutions ran in it ({names}): "
            f"this row is not {claim}",
            PrecisionBenchWarning,
            stacklevel=2,
        )


def warn_of_other_place(layers: Sequence[EngineLayer], place: str) -> None:
    """Warn where layers ran elsewhere than asked for.

    Args:
        layers: of one call.
        place: the execution provider or device that was asked for.
    """
    others = [layer for layer in layers if layer.place and layer.place != place]
    if others:
        places = Counter(layer.place for layer in others)
        listed = " and ".join(f"{count} by {name}" for name, count in places.most_common())
        warnings.warn(
            f"{place} did not run {len(others)} of {len(layers)} layers ({listed}; the first: "
            f"{others[0].kind} {others[0].name})",
            PrecisionBenchWarning,
            stacklevel=2,
        )
