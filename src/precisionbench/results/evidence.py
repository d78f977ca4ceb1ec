"""What the probes saw of one row: kernels, operations, layers, copies. Frozen data, without torch.

Nothing here is judged: `precisionbench.diagnosis` does that, also from a saved file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs


@attrs.frozen
class Tensor:
    """A tensor as an operation or a layer saw it.

    Attributes:
        shape: its shape.
        dtype: its dtype, e.g. `float16`.
    """

    shape: tuple[int, ...]
    dtype: str


@attrs.frozen
class Kernel:
    """A GPU kernel of one operation.

    Attributes:
        name: as the driver gives it.
        count: launches in a call.
        time_s: seconds in a call, of all launches together.
    """

    name: str
    count: float
    time_s: float


@attrs.frozen
class Operation:
    """Equal operations of one layer in a call: the innermost that torch knows of a kernel.

    Attributes:
        name: e.g. `aten::cudnn_convolution`; empty where a kernel was launched by none.
        layer: path of the innermost module that it ran in; empty outside of any.
        inputs: its tensor arguments.
        count: how often in a call.
        time_s: seconds in a call: of its kernels, or on a CPU of itself without what it calls.
        kernels: what it ran on the GPU.
        parents: operations around it, the innermost first.
    """

    name: str
    layer: str
    inputs: tuple[Tensor, ...]
    count: float
    time_s: float
    kernels: tuple[Kernel, ...] = ()
    parents: tuple[str, ...] = ()

    @property
    def short_name(self) -> str:
        """Its name without the namespace, such as `mm` of `aten::mm`."""
        return self.name.rpartition("::")[2]

    @property
    def elements(self) -> float:
        """Elements that all of them must at least move in a call: arguments and a result."""
        sizes = [math.prod(tensor.shape) for tensor in self.inputs]
        return self.count * (sum(sizes) + max(sizes, default=0))


@attrs.frozen
class Copy:
    """Copies between memories in a call.

    Attributes:
        kind: `HtoD`, `DtoH`, `DtoD` or `HtoH`.
        memory: of the host's side: `pageable`, `pinned` or empty.
        count: in a call.
        time_s: seconds in a call.
        size_bytes: in a call.
    """

    kind: str
    memory: str
    count: float
    time_s: float
    size_bytes: float


@attrs.frozen
class Layer:
    """A module that ran.

    Attributes:
        path: its name in the model.
        kind: its class.
        inputs: the tensors that it was given.
        outputs: the tensors that it gave.
        parameters: the tensors that are its own.
        calls: how often it ran in a call of the model.
        flops: of its operations, 2 x multiply-add, without those of modules in it; None where
            that was not counted.
    """

    path: str
    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: tuple[Tensor, ...]
    calls: int
    flops: float | None = None


@attrs.frozen
class LayerError:
    """How far a module's output is from what the model gives in float64.

    Attributes:
        path: its name in the model.
        relative_l2: ||out - ref|| / ||ref|| over sampled elements; None where nothing is finite.
        max_abs: largest magnitude of its output, infinities left out.
        nonfinite_count: elements that are infinite or NaN and finite in float64.
        reference_max_abs: largest magnitude in float64.
    """

    path: str
    relative_l2: float | None
    max_abs: float
    nonfinite_count: int
    reference_max_abs: float


@attrs.frozen
class Evidence:
    """What the probes saw of one replica of a row, after it was measured.

    Attributes:
        operations: what ran in a call.
        copies: between memories in a call.
        layers: modules that ran, in order.
        errors: of modules' outputs and of the model's (an empty path), against float64; in order.
        outputs: the tensors of the model's output.
        calls: how many calls the profile spans.
        launches: kernels launched in a call; None where nothing tells.
        graph_launches: replays of CUDA graphs in a call.
        host_waits: calls of the driver in a call that wait for the device.
        flops: of a call, 2 x multiply-add; None where they were not counted.
        counted: names of the operations that were counted.
        device_allocations: how often a call takes memory from the driver.
        input_zero_share: of zeros in the largest input; None where that is no floating point.
        foreign_functions: functions in torch's namespaces whose code is not torch's.
        unknown: for what is missing, why.
        took_s: seconds that each look took.
    """

    operations: tuple[Operation, ...] = ()
    copies: tuple[Copy, ...] = ()
    layers: tuple[Layer, ...] = ()
    errors: tuple[LayerError, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    calls: int = 0
    launches: float | None = None
    graph_launches: float = 0
    host_waits: Mapping[str, float] = attrs.field(factory=dict)
    flops: float | None = None
    counted: tuple[str, ...] = ()
    device_allocations: float | None = None
    input_zero_share: float | None = None
    foreign_functions: tuple[str, ...] = ()
    unknown: Mapping[str, str] = attrs.field(factory=dict)
    took_s: Mapping[str, float] = attrs.field(factory=dict)
