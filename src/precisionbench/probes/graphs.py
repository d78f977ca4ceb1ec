"""A call captured as a CUDA graph: its kernels are launched at once, without the host's work."""

from __future__ import annotations

import attrs
import torch

from precisionbench.errors import FOREIGN_ERRORS
from precisionbench.torchtools.timer import Call, CudaEventClock


@attrs.frozen(eq=False)
class Replay:
    """Replays a captured call.

    Attributes:
        graph: the graph.
        output: what the call gave; each replay writes it anew.
    """

    graph: torch.cuda.CUDAGraph
    output: object

    def __call__(self) -> object:
        """Launch the graph on the current stream."""
        self.graph.replay()
        return self.output


def capture(clock: CudaEventClock, call: Call) -> Replay:
    """Capture a call on the clock's stream, and replay it once.

    What autocast has cached before stays outside of the graph, as it does outside of a call.

    Args:
        clock: CUDA events.
        call: one forward pass, warm.

    Raises:
        Exception: whatever made it impossible, the first of several.
    """
    graph, failed = torch.cuda.CUDAGraph(), None
    try:
        with torch.cuda.graph(graph, stream=clock.stream):
            output = call()  # its memory must live as long as the graph is replayed
    except FOREIGN_ERRORS as exc:
        failed = _first(exc)
    if failed is not None:
        raise failed
    graph.replay()
    return Replay(graph, output)


def _first(exc: BaseException) -> BaseException:
    """Torch's own error at the end of a broken capture hides the one that broke it."""
    while exc.__context__ is not None:
        exc = exc.__context__
    return exc
