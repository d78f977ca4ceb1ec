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
        output: what the call returned; each replay overwrites it.
    """

    graph: torch.cuda.CUDAGraph
    output: object

    def __call__(self) -> object:
        """Launch the graph on the current stream."""
        self.graph.replay()
        return self.output


def capture(clock: CudaEventClock, call: Call) -> Replay:
    """Capture a call on the clock's stream, and replay it once.

    Weights that autocast has cast before stay outside of the graph, as they are outside of a call.

    Args:
        clock: CUDA events.
        call: one forward pass, warm.

    Raises:
        Exception: what broke the capture, the first of several errors.
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
    """The error that broke a capture; torch raises another one at its end, which hides it."""
    seen: set[int] = set()
    while exc.__context__ is not None and id(exc) not in seen:  # they can go in a circle
        seen.add(id(exc))
        exc = exc.__context__
    return exc
