"""Evidence of a row: the kernels, operations, layers and copies of a call.

`precisionbench.diagnosis` draws conclusions from it, also from a saved file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs

from precisionbench.display import Shown
from precisionbench.results.validators import check_shape
from precisionbench.statistics.periodic import Periodic

# The name of the operation that runs a compiled graph of TorchInductor.
COMPILED_GRAPH = "CompiledFxGraph"
# `Operation.place` of what an engine's compiler left to PyTorch.
PYTORCH = "PyTorch"


@attrs.frozen(repr=False)
class Tensor(Shown):
    """Shape and dtype of a tensor argument or result.

    Attributes:
        shape: its shape.
        dtype: its dtype, e.g. `float16`.
    """

    shape: tuple[int, ...] = attrs.field(validator=check_shape)
    dtype: str


@attrs.frozen(repr=False)
class Kernel(Shown):
    """A GPU kernel of one operation.

    Attributes:
        name: name that the driver reports.
        count: launches in a call.
        time_s: seconds in a call, of all launches together.
    """

    name: str
    count: float
    time_s: float


@attrs.frozen(repr=False)
class Operation(Shown):
    """Equal operations of one layer in a call: the innermost torch operation around a kernel.

    Attributes:
        name: e.g. `aten::cudnn_convolution`; empty where no operation launched the kernel.
        layer: path of the innermost module that it ran in; empty outside of modules.
        inputs: its tensor arguments.
        count: number of times in a call.
        time_s: seconds in a call: of its kernels, or on a CPU its self time.
        kernels: its kernels on the GPU.
        parents: operations around it, the innermost first.
        place: what ran it, such as `CUDAExecutionProvider`, where an engine reports that, or
            `PyTorch` where an engine's compiler left it to PyTorch; empty for other operations.
    """

    name: str
    layer: str
    inputs: tuple[Tensor, ...]
    count: float
    time_s: float
    kernels: tuple[Kernel, ...] = ()
    parents: tuple[str, ...] = ()
    place: str = ""

    @property
    def short_name(self) -> str:
        """Its name without the namespace, such as `mm` of `aten::mm`."""
        return self.name.rpartition("::")[2]

    @property
    def elements(self) -> float:
        """Elements that they must move at least in a call: arguments and a result."""
        sizes = [math.prod(tensor.shape) for tensor in self.inputs]
        return self.count * (sum(sizes) + max(sizes, default=0))


@attrs.frozen(repr=False)
class Copy(Shown):
    """Copies between memories in a call.

    Attributes:
        kind: `HtoD`, `DtoH`, `DtoD` or `HtoH`.
        memory: memory of the host: `pageable`, `pinned` or empty.
        count: number of copies in a call.
        time_s: seconds in a call.
        size_bytes: bytes copied in a call.
    """

    kind: str
    memory: str
    count: float
    time_s: float
    size_bytes: float


@attrs.frozen(repr=False)
class Layer(Shown):
    """A module that ran.

    Attributes:
        path: path of the module in the model.
        kind: class of the module.
        inputs: its input tensors.
        outputs: its output tensors.
        parameters: its own parameters, without those of submodules.
        buffers: its own buffers and other tensors that are attributes of it.
        calls: number of times that it ran in a call of the model.
        flops: FLOPs of its operations, 2 x multiply-add, without those of submodules; None where
            they were not counted.
    """

    path: str
    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: tuple[Tensor, ...]
    calls: int
    flops: float | None = None
    buffers: tuple[Tensor, ...] = ()


@attrs.frozen(repr=False)
class LayerError(Shown):
    """Numerical error of a module's output against the same model in float64.

    Attributes:
        path: path of the module in the model.
        relative_l2: ||out - ref|| / ||ref|| over sampled elements; None where none is finite.
        max_abs: largest finite magnitude of its output.
        nonfinite_count: elements that are infinite or NaN here and finite in float64.
        reference_max_abs: largest magnitude in float64.
        input_relative_l2: the same error of its first input; None where it was not compared.
    """

    path: str
    relative_l2: float | None
    max_abs: float
    nonfinite_count: int
    reference_max_abs: float
    input_relative_l2: float | None = None


@attrs.frozen(repr=False)
class Denormals(Shown):
    """Denormal values of a module's weights, inputs and outputs.

    Attributes:
        layer: path of the module in the model.
        share: the largest share of denormal values in one of these tensors.
    """

    layer: str
    share: float


@attrs.frozen(repr=False)
class Overflow(Shown):
    """Results of operations that exceed the range of their dtype; the same is finite in float64.

    Attributes:
        layer: path of the innermost module that they ran in; empty for the model's own forward.
        operation: torch's name, such as `pow`.
        dtype: of the results.
        count: elements in a call that are infinite or NaN for this reason.
        output_change: relative L2 change of the model's output where the largest finite number
            takes the place of all such elements of the model; None where that is not known.
    """

    layer: str
    operation: str
    dtype: str
    count: int
    output_change: float | None = None


@attrs.frozen(repr=False)
class Evidence(Shown):
    """Evidence of one replica of a row, collected after it was measured.

    Attributes:
        operations: what ran in a call.
        copies: between memories in a call.
        layers: modules that ran, in order.
        errors: of modules' outputs and of the model's (an empty path), against float64; in order.
        overflows: operations whose results exceed the range of their dtype, in order.
        outputs: the tensors of the model's output.
        calls: number of calls that the profile spans.
        launches: kernels launched in a call; None where the number is not known.
        graph_launches: replays of CUDA graphs in a call.
        host_waits: driver calls that wait for the device, in a call of the model, by name.
        flops: FLOPs of a call, 2 x multiply-add; None where they were not counted.
        counted: names of the operations whose FLOPs were counted.
        device_allocations: number of allocations from the driver in a call.
        input_zero_share: share of zeros in the largest input; None if it is not floating-point.
        foreign_functions: functions in torch's namespaces that other code has replaced.
        some_calls: operations that ran in some of the profiled calls only, without shapes; their
            times are averages over all calls.
        slow_calls: the period of slow calls; None where no period was found.
        denormals: modules with denormal values, on a CPU.
        unknown: for each missing item, the reason.
        took_s: seconds that each probe took.
        compiled_share: share of the profiled time in graphs that TorchInductor compiled; None where
            nothing of `torch.compile` ran, and in older files.
        profiled_s: seconds of the profiled call that `outside_s` is of; None in older files.
        outside_s: seconds of this call in which no operation of PyTorch ran on the host. It is the
            call with the smallest such share. None in older files.
    """

    operations: tuple[Operation, ...] = ()
    copies: tuple[Copy, ...] = ()
    layers: tuple[Layer, ...] = ()
    errors: tuple[LayerError, ...] = ()
    overflows: tuple[Overflow, ...] = ()
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
    some_calls: tuple[Operation, ...] = ()
    slow_calls: Periodic | None = None
    denormals: tuple[Denormals, ...] = ()
    unknown: Mapping[str, str] = attrs.field(factory=dict)
    took_s: Mapping[str, float] = attrs.field(factory=dict)
    compiled_share: float | None = None
    profiled_s: float | None = None
    outside_s: float | None = None
