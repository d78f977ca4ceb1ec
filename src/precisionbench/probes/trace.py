"""Reads a trace of torch's profiler from its JSON; torch is not needed.

The trace is the one that `torch.profiler` exports for Chrome. A kernel names the driver call that
launched it (`correlation`), and that call is, in time and on its thread, within an operation of
torch, which is within our annotations: the call and the layer. (Input types and dimensions
are there with `record_shapes=True`.)
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import attrs

from precisionbench.results.evidence import COMPILED_GRAPH, Copy, Kernel, Operation, Tensor

CALL = "precisionbench.call"
LAYER = "precisionbench.layer:"
_DRIVER = ("cuda_runtime", "cuda_driver")
# How the events of TorchInductor's graphs begin (a key of its cache follows), and those of
# TorchDynamo around them. What a graph break leaves to PyTorch is in a "region" as well, and in no
# graph.
_GRAPH = "## Call CompiledFxGraph"
_DYNAMO = ("TorchDynamo Cache Lookup", "Torch-Compiled Region")
_COMPILING = "(dynamo_timed)"  # how the events of its compiler end
_ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
# Parts of the names of driver calls that wait for the device, and of those that do not.
_SYNCHRONIZING = ("Synchronize", "cudaMemcpy")
_NOT_SYNCHRONIZING = ("Async", "cudaStreamIsCapturing")
# The C++ names of dtypes in a trace; other names are used as they are, in lower case.
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
    "short": "int16",
    "short int": "int16",
    "c10::complex<float>": "complex64",
    "c10::complex<double>": "complex128",
    "c10::float8_e4m3fn": "float8_e4m3fn",
    "c10::float8_e5m2": "float8_e5m2",
    "c10::qint8": "qint8",
    "c10::quint8": "quint8",
}
_US = 1e-6
_SKEW_US = 5.0
_MIN_SHARE = 1e-3  # of a CPU's time; operations that take less are left out
_MIN_SOME_SHARE = 0.01  # of all time; operations of some calls that take less are left out
Event = dict[str, Any]


@attrs.define(eq=False)
class _Node:
    """An operation, annotation or driver call, with the node that encloses it on its thread."""

    event: Event
    parent: _Node | None
    inner_s: float = 0.0  # of operations directly in it

    @property
    def name(self) -> str:
        name = str(self.event["name"])
        return COMPILED_GRAPH if name.startswith(_GRAPH) else name

    @property
    def is_operation(self) -> bool:
        return self.event.get("cat") == "cpu_op" or self.is_graph

    @property
    def own_s(self) -> float:
        """Seconds without those of operations in it."""
        return max(0.0, float(self.event["dur"]) * _US - self.inner_s)

    @property
    def is_graph(self) -> bool:
        """Whether it is the call of a graph that TorchInductor compiled."""
        return self.name == COMPILED_GRAPH

    @property
    def is_compiled(self) -> bool:
        """Whether it ran in such a graph, or is one."""
        return any(node.is_graph for node in self.with_parents())

    @property
    def is_of_compiling(self) -> bool:
        """Whether it ran while TorchDynamo compiled."""
        return any(node.name.endswith(_COMPILING) for node in self.with_parents())

    @property
    def is_in_a_graph(self) -> bool:
        """Whether it ran in such a graph."""
        return self.parent is not None and self.parent.is_compiled

    @property
    def is_driver_call(self) -> bool:
        return self.event.get("cat") in _DRIVER

    def with_parents(self) -> Iterator[_Node]:
        """The node and all that enclose it, the innermost first."""
        node: _Node | None = self
        while node is not None:
            yield node
            node = node.parent


@attrs.frozen
class Profile:
    """What ran in one call, by a trace.

    Attributes:
        operations: with their kernels.
        copies: between memories.
        calls: how many calls it spans.
        launches: kernels launched in a call; None where the trace is of a CPU only.
        graph_launches: replays of CUDA graphs.
        host_waits: driver calls that wait for the device, by name.
        compiled_share: share of the time in graphs of TorchInductor; None where nothing of
            `torch.compile` ran.
        some_calls: operations that ran in some calls only, without shapes; their times are
            averages over all calls.
        profiled_s: seconds of the call of which `outside_s` is a part.
        outside_s: seconds of this call in no operation of any thread, of the call with the smallest
            such share.
    """

    operations: tuple[Operation, ...]
    copies: tuple[Copy, ...]
    calls: int
    launches: float | None
    graph_launches: float
    host_waits: Mapping[str, float]
    compiled_share: float | None = None
    some_calls: tuple[Operation, ...] = ()
    profiled_s: float | None = None
    outside_s: float | None = None


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
    spans = _CallSpans.of(nodes, skip)
    driver_calls = [node for node in nodes if node.is_driver_call and spans.contain(node.event)]
    launched = _launched(events, driver_calls)
    kernels = [(event, node) for event, node in launched if event["cat"] == "kernel"]
    copies = [event for event, _ in launched if event["cat"] == "gpu_memcpy"]
    profiled_s, outside_s = spans.outside(nodes)
    seen = _on_gpu(kernels, spans) if kernels else _on_cpu(nodes, spans)
    return Profile(
        operations=seen.all() if kernels else seen.long(),
        copies=_copies(copies, spans.count),
        calls=spans.count,
        launches=len(kernels) / spans.count if driver_calls else None,
        graph_launches=sum("GraphLaunch" in node.name for node in driver_calls) / spans.count,
        host_waits=_synchronizations(driver_calls, spans.count),
        compiled_share=_compiled_share([n for n in nodes if spans.contain(n.event)], kernels),
        some_calls=seen.in_some_calls(),
        profiled_s=profiled_s,
        outside_s=outside_s,
    )


def _compiled_share(nodes: Sequence[_Node], kernels: Sequence[tuple[Event, _Node]]) -> float | None:
    """The share of the time in compiled graphs: of kernels, or on a CPU of graphs and operations.

    A graph's own time counts on a CPU, because its fused loops are not operations. What runs while
    TorchDynamo compiles, such as kernels that are tuned, does not count.
    """
    if not any(node.is_graph or node.name.startswith(_DYNAMO) for node in nodes):
        return None
    if kernels:
        ran = [(e, launch) for e, launch in kernels if not launch.is_of_compiling]
        inside = sum(float(event["dur"]) for event, launch in ran if launch.is_compiled)
        total = sum(float(event["dur"]) for event, _ in ran)
    else:
        graphs = [node for node in nodes if node.is_graph and not node.is_in_a_graph]
        inside = sum(float(node.event["dur"]) for node in graphs)
        rest = (n for n in nodes if not n.is_compiled and not n.is_of_compiling)
        total = inside + sum(n.own_s for n in rest if n.is_operation and "::" in n.name) / _US
    return inside / total if total else None


def _launched(events: Iterable[Event], driver_calls: Iterable[_Node]) -> list[tuple[Event, _Node]]:
    """What these driver calls started on the GPU, each with the call that did."""
    launches = {_correlation(node.event): node for node in driver_calls}
    on_gpu = (event for event in events if event.get("cat") in _ON_GPU)
    return [
        (event, launches[_correlation(event)])
        for event in on_gpu
        if _correlation(event) in launches
    ]


def _correlation(event: Event) -> Any:
    """What a driver call and the kernel that it launched have in common."""
    return event["args"].get("correlation")


def _on_gpu(kernels: Iterable[tuple[Event, _Node]], spans: _CallSpans) -> _Operations:
    """Operations with the kernels that they launched."""
    operations = _Operations(spans.count)
    for event, launch in kernels:
        operations.add_kernel(event, launch, spans.index(launch.event))
    return operations


def _on_cpu(nodes: Iterable[_Node], spans: _CallSpans) -> _Operations:
    """Operations with their own time."""
    operations = _Operations(spans.count)
    for node in nodes:
        if node.is_operation and spans.contain(node.event):
            operations.add_own_time(node, spans.index(node.event))
    return operations


@attrs.frozen
class _CallSpans:
    """When each annotated call of the model begins and ends, in microseconds."""

    begins: tuple[float, ...]
    ends: tuple[float, ...]

    @classmethod
    def of(cls, nodes: Iterable[_Node], skip: int) -> _CallSpans:
        """The spans of all calls but the first ones."""
        events = [node.event for node in nodes if node.name == CALL]
        calls = sorted(events, key=lambda event: float(event["ts"]))[skip:]
        if not calls:
            raise ValueError("the trace holds no call")
        return cls(tuple(float(call["ts"]) for call in calls), tuple(map(_end, calls)))

    @property
    def count(self) -> int:
        return len(self.begins)

    def outside(self, nodes: Iterable[_Node]) -> tuple[float, float]:
        """Seconds of the call with the smallest share outside of operations, and of that part."""
        covered_us = [0.0] * self.count
        until = -math.inf
        operations = [n.event for n in nodes if n.is_operation and self.contain(n.event)]
        for event in sorted(operations, key=lambda event: float(event["ts"])):
            begin, end = max(until, float(event["ts"])), _end(event)
            covered_us[self.index(event)] += max(0.0, end - begin)
            until = max(until, end)
        calls = zip(self.begins, self.ends, covered_us, strict=True)
        parts = [(end - begin, max(0.0, end - begin - inside)) for begin, end, inside in calls]
        whole_us, outside_us = min(parts, key=lambda part: part[1] / part[0] if part[0] else 0.0)
        return whole_us * _US, outside_us * _US

    def index(self, event: Event) -> int:
        """The number of the call that an event begins in, or of the last call before it."""
        return bisect.bisect_right(self.begins, float(event["ts"])) - 1

    def contain(self, event: Event) -> bool:
        """Whether an event begins during one of the calls."""
        index = self.index(event)
        return index >= 0 and float(event["ts"]) <= self.ends[index]


def _nested(events: Iterable[Event]) -> Iterator[_Node]:
    """The host's events of each thread, each with the one that encloses it."""
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
            outer = next((n for n in node.with_parents() if n is not node and n.is_operation), None)
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
        # for each operation, by kernel: (call, seconds)
        self.times: dict[tuple[Any, ...], dict[str, list[tuple[int, float]]]] = {}
        self.nodes: dict[tuple[Any, ...], set[int]] = {}

    def add_kernel(self, event: Event, launch: _Node, call: int) -> None:
        """Add a kernel to the innermost operation that launched it."""
        operation = next((n for n in launch.with_parents() if n.is_operation), None)
        key = self._key(launch, operation)
        self.nodes.setdefault(key, set()).add(id(operation or launch))
        kernels = self.times.setdefault(key, {})
        kernels.setdefault(str(event["name"]), []).append((call, float(event["dur"]) * _US))

    def add_own_time(self, operation: _Node, call: int) -> None:
        """Add an operation's time on the host without that of operations in it."""
        key = self._key(operation, operation)
        self.nodes.setdefault(key, set()).add(id(operation))
        self.times.setdefault(key, {}).setdefault("", []).append((call, operation.own_s))

    def _typical_s(self, times: Iterable[tuple[int, float]]) -> float:
        """The median over calls, so that a disturbed call does not count."""
        sums = [0.0] * self.calls
        for call, seconds in times:
            sums[call] += seconds
        return median(sums)

    def _key(self, node: _Node, operation: _Node | None) -> tuple[Any, ...]:
        enclosing = list(node.with_parents())
        layer = next((n.name for n in enclosing if n.name.startswith(LAYER)), LAYER)
        layer = layer.removeprefix(LAYER)
        if operation is None:
            return ("", layer, (), ())
        _, *parents = (n.name for n in operation.with_parents() if n.is_operation)
        return (operation.name, layer, _tensors(operation.event), tuple(parents))

    def in_some_calls(self) -> tuple[Operation, ...]:
        """Operations that not every call ran, whatever their shapes, and that took time."""
        found: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for (name, layer, _, _), kernels in self.times.items():
            found.setdefault((name, layer), []).extend(t for ts in kernels.values() for t in ts)
        min_s = _MIN_SOME_SHARE * sum(seconds for times in found.values() for _, seconds in times)
        return tuple(
            Operation(name, layer, (), len(times) / self.calls, total_s / self.calls)
            for (name, layer), times in found.items()
            for total_s in (sum(seconds for _, seconds in times),)
            if len({call for call, _ in times}) < self.calls and total_s >= min_s
        )

    def long(self) -> tuple[Operation, ...]:
        """Without the hundreds of operations that only read a tensor's metadata."""
        found = self.all()
        min_s = _MIN_SHARE * sum(operation.time_s for operation in found)
        return tuple(operation for operation in found if operation.time_s >= min_s)

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
            for (name, layer, inputs, parents), kernels in self.times.items()
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


def _synchronizations(driver_calls: Iterable[_Node], calls: int) -> dict[str, float]:
    """How often a call of the model waits for the device, by the name of the driver call."""
    counts: dict[str, float] = {}
    for name in (node.name for node in driver_calls if _synchronizes(node.name)):
        counts[name] = counts.get(name, 0.0) + 1 / calls
    return counts


def _synchronizes(name: str) -> bool:
    return any(part in name for part in _SYNCHRONIZING) and not any(
        part in name for part in _NOT_SYNCHRONIZING
    )
