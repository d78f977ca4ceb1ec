"""What a trace of torch's profiler says, read from its JSON: no torch is needed.

The trace is the one that `torch.profiler` exports for Chrome. A kernel names the driver call that
launched it (`correlation`), and that call lies, in time and on its thread, within an operation of
torch, which lies within annotations of ours: the call and the layer. (Input types and dimensions
are there with `record_shapes=True`.)
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import attrs

from precisionbench.results.evidence import Copy, Kernel, Operation, Tensor

CALL = "precisionbench.call"
LAYER = "precisionbench.layer:"
_DRIVER = ("cuda_runtime", "cuda_driver")
_WAITS = ("Synchronize", "cudaMemcpy")
_NO_WAITS = ("Async", "cudaStreamIsCapturing")
# torch's names of C++ types in a trace; what is not here is kept as it is, in lower case.
_DTYPES = {
    "float": "float32",
    "double": "float64",
    "c10::half": "float16",
    "c10::bfloat16": "bfloat16",
    "int": "int32",
    "long": "int64",
    "long int": "int64",
    "signed char": "int8",
    "unsigned char": "uint8",
    "bool": "bool",
    "c10::complex<float>": "complex64",
    "c10::float8_e4m3fn": "float8_e4m3fn",
}
_US = 1e-6
_SKEW_US = 5.0
_LEAST_SHARE = 1e-3  # of a CPU's time
Event = dict[str, Any]


@attrs.define(eq=False)
class _Node:
    """An operation, annotation or driver call on its thread, with what is around it."""

    event: Event
    parent: _Node | None
    inner_s: float = 0.0  # of operations directly in it

    @property
    def name(self) -> str:
        return str(self.event["name"])

    @property
    def is_operation(self) -> bool:
        return self.event.get("cat") == "cpu_op"

    def around(self) -> Iterator[_Node]:
        """It and everything around it, the innermost first."""
        node: _Node | None = self
        while node is not None:
            yield node
            node = node.parent


@attrs.frozen
class Profile:
    """What a trace says of one call.

    Attributes:
        operations: with their kernels.
        copies: between memories.
        calls: how many calls it spans.
        launches: kernels launched in a call; None where the trace is of a CPU alone.
        graph_launches: replays of CUDA graphs.
        host_waits: driver calls that wait for the device, by name.
    """

    operations: tuple[Operation, ...]
    copies: tuple[Copy, ...]
    calls: int
    launches: float | None
    graph_launches: float
    host_waits: Mapping[str, float]


def profile_of(trace: Mapping[str, Any], skip: int = 0) -> Profile:
    """Read a trace in which each call is annotated with `CALL`.

    Args:
        trace: as parsed from JSON.
        skip: calls to leave out at the start.

    Returns:
        Times are medians over the remaining calls, counts averages.

    Raises:
        ValueError: no annotated call is left in it.
    """
    events = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
    nodes = list(_nested(events))
    calls = sorted((n.event for n in nodes if n.name == CALL), key=lambda e: float(e["ts"]))[skip:]
    if not calls:
        raise ValueError("the trace holds no call")
    within = _Within(calls)
    count = len(calls)
    driver = [n for n in nodes if n.event.get("cat") in _DRIVER and within(n.event)]
    launched = {_id(n.event): n for n in driver}
    gpu = [e for e in events if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    ours = [(e, launched[_id(e)]) for e in gpu if _id(e) in launched]
    kernels = [(e, n) for e, n in ours if e["cat"] == "kernel"]
    found = _Operations(count)
    for event, node in kernels:
        found.add_kernel(event, node, within.index(node.event))
    if not kernels:  # a CPU's
        for node in nodes:
            if node.is_operation and within(node.event):
                found.add_own_time(node, within.index(node.event))
    operations = found.all()
    return Profile(
        operations=operations if kernels else _that_matter(operations),
        copies=_copies([e for e, _ in ours if e["cat"] == "gpu_memcpy"], count),
        calls=count,
        launches=len(kernels) / count if driver else None,
        graph_launches=sum("GraphLaunch" in n.name for n in driver) / count,
        host_waits=_waits(driver, count),
    )


def _that_matter(operations: tuple[Operation, ...]) -> tuple[Operation, ...]:
    """Without the hundreds on a CPU that only look at tensors."""
    least_s = _LEAST_SHARE * sum(operation.time_s for operation in operations)
    return tuple(operation for operation in operations if operation.time_s >= least_s)


def _id(event: Event) -> Any:
    return event["args"].get("correlation")


class _Within:
    """Whether an event begins during one of the calls."""

    def __init__(self, calls: Sequence[Event]) -> None:
        self.begins = [float(call["ts"]) for call in calls]
        self.ends = [float(call["ts"]) + float(call["dur"]) for call in calls]

    def index(self, event: Event) -> int:
        """Which call it begins in, or the last before it."""
        return bisect.bisect_right(self.begins, float(event["ts"])) - 1

    def __call__(self, event: Event) -> bool:
        index = self.index(event)
        return index >= 0 and float(event["ts"]) <= self.ends[index]


def _nested(events: Iterable[Event]) -> Iterator[_Node]:
    """The host's events of each thread with what is around each."""
    kinds = ("cpu_op", "user_annotation", *_DRIVER)
    threads: dict[Any, list[Event]] = {}
    for event in events:
        if event.get("cat") in kinds:
            threads.setdefault((event.get("pid"), event.get("tid")), []).append(event)
    for thread in threads.values():
        yield from _nested_on_one_thread(thread)


def _nested_on_one_thread(events: list[Event]) -> Iterator[_Node]:
    open_: list[_Node] = []
    for event in sorted(events, key=lambda e: (float(e["ts"]), -float(e["dur"]))):
        while open_ and _is_over(open_[-1].event, event):
            open_.pop()
        node = _Node(event, open_[-1] if open_ else None)
        if node.is_operation:
            outer = next((n for n in node.around() if n is not node and n.is_operation), None)
            if outer is not None:
                outer.inner_s += float(event["dur"]) * _US
        open_.append(node)
        yield node


def _is_over(outer: Event, event: Event) -> bool:
    """Whether an event begins after another has ended, or reaches clearly beyond its end.

    The driver's events are timed by another clock than torch's operations.
    """
    ends = _end(outer)
    return ends <= float(event["ts"]) or _end(event) > ends + _SKEW_US


def _end(event: Event) -> float:
    return float(event["ts"]) + float(event["dur"])


class _Operations:
    """Sums equal operations of each layer, call by call."""

    def __init__(self, calls: int) -> None:
        self.calls = calls
        # for each operation, by kernel, (call, seconds)
        self.found: dict[tuple[Any, ...], dict[str, list[tuple[int, float]]]] = {}
        self.nodes: dict[tuple[Any, ...], set[int]] = {}

    def add_kernel(self, event: Event, launch: _Node, call: int) -> None:
        """Add a kernel to the innermost operation that launched it."""
        operation = next((n for n in launch.around() if n.is_operation), None)
        key = self._key(launch, operation)
        self.nodes.setdefault(key, set()).add(id(operation or launch))
        kernels = self.found.setdefault(key, {})
        kernels.setdefault(str(event["name"]), []).append((call, float(event["dur"]) * _US))

    def add_own_time(self, operation: _Node, call: int) -> None:
        """Add an operation's time on the host without that of operations in it."""
        key = self._key(operation, operation)
        self.nodes.setdefault(key, set()).add(id(operation))
        own_s = float(operation.event["dur"]) * _US - operation.inner_s
        self.found.setdefault(key, {}).setdefault("", []).append((call, max(0.0, own_s)))

    def _typical_s(self, times: Iterable[tuple[int, float]]) -> float:
        """The median over calls: one that was disturbed must not rule."""
        sums = [0.0] * self.calls
        for call, seconds in times:
            sums[call] += seconds
        return median(sums)

    def _key(self, node: _Node, operation: _Node | None) -> tuple[Any, ...]:
        around = list(node.around())
        layer = next((n.name for n in around if n.name.startswith(LAYER)), LAYER)
        layer = layer.removeprefix(LAYER)
        if operation is None:
            return ("", layer, (), ())
        parents = tuple(n.name for n in operation.around() if n is not operation and n.is_operation)
        return (operation.name, layer, _tensors(operation.event), parents)

    def all(self) -> tuple[Operation, ...]:
        """Everything that was added, in the order in which it first ran."""
        return tuple(
            Operation(
                name=name,
                layer=layer,
                inputs=inputs,
                count=len(self.nodes[name, layer, inputs, parents]) / self.calls,
                time_s=sum(map(self._typical_s, kernels.values())),
                kernels=tuple(
                    Kernel(kernel, len(times) / self.calls, self._typical_s(times))
                    for kernel, times in kernels.items()
                    if kernel
                ),
                parents=parents,
            )
            for (name, layer, inputs, parents), kernels in self.found.items()
        )


def _tensors(event: Event) -> tuple[Tensor, ...]:
    args = event.get("args", {})
    types, shapes = args.get("Input type") or [], args.get("Input Dims") or []
    return tuple(
        Tensor(tuple(shape), _DTYPES.get(str(kind).lower(), str(kind).lower()))
        for kind, shape in zip(types, shapes, strict=False)
        if isinstance(kind, str) and kind and kind not in ("Scalar", "ScalarList", "TensorList")
        if isinstance(shape, list) and all(isinstance(size, int) for size in shape)
    )


def _copies(events: Sequence[Event], calls: int) -> tuple[Copy, ...]:
    sums: dict[tuple[str, str], list[float]] = {}
    for event in events:
        words = str(event["name"]).split()  # Memcpy HtoD (Pageable -> Device)
        kind = words[1] if len(words) > 1 else ""
        memory = next((m for m in ("pageable", "pinned") if m in str(event["name"]).lower()), "")
        total = sums.setdefault((kind, memory), [0.0, 0.0, 0.0])
        for place, value in enumerate((1.0, float(event["dur"]) * _US, _bytes(event))):
            total[place] += value / calls
    return tuple(Copy(kind, memory, *total) for (kind, memory), total in sums.items())


def _bytes(event: Event) -> float:
    return float(event.get("args", {}).get("bytes", 0))


def _waits(driver: Iterable[_Node], calls: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for node in driver:
        name = node.name
        if any(word in name for word in _WAITS) and not any(word in name for word in _NO_WAITS):
            found[name] = found.get(name, 0.0) + 1 / calls
    return found
