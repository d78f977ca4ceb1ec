"""A profiler's trace: which kernel belongs to which operation of which layer."""

from __future__ import annotations

import pytest

from precisionbench.probes.trace import CALL, LAYER, profile_of
from precisionbench.results.evidence import COMPILED_GRAPH, Copy, Tensor


class Trace:
    """Builds a trace event by event; times in microseconds."""

    def __init__(self) -> None:
        self.events: list[dict] = []

    def host(self, kind: str, name: str, begin: float, length: float, thread: int = 1, **args):
        self.events.append(
            {"ph": "X", "cat": kind, "name": name, "ts": begin, "dur": length, "pid": 1,
             "tid": thread, "args": args}
        )  # fmt: skip

    def launch(self, at: float, correlation: int, name: str = "cudaLaunchKernel", thread: int = 1):
        self.host("cuda_runtime", name, at, 1, thread, correlation=correlation)

    def gpu(self, kind: str, name: str, begin: float, length: float, correlation: int, **args):
        self.host(kind, name, begin, length, 7, correlation=correlation, **args)

    def profile(self, skip: int = 0):
        return profile_of({"traceEvents": self.events}, skip)


def call_with_a_convolution(trace: Trace, begin: float, number: int, kernel_us: float) -> None:
    trace.host("user_annotation", CALL, begin, 100)
    trace.host("user_annotation", f"{LAYER}conv1", begin + 5, 60)
    types = {"Input type": ["c10::Half", "c10::Half", "Scalar"]}
    dims = {"Input Dims": [[1, 3, 8, 8], [4, 3, 3, 3], []]}
    trace.host("cpu_op", "aten::conv2d", begin + 10, 50, **{**types, **dims})
    trace.host("cpu_op", "aten::cudnn_convolution", begin + 12, 40, **{**types, **dims})
    trace.launch(begin + 20, number)
    trace.gpu("kernel", "some_fprop", begin + 200, kernel_us, number)


def test_a_kernel_belongs_to_the_innermost_operation_and_its_layer():
    trace = Trace()
    call_with_a_convolution(trace, 0, 1, 30)
    found = trace.profile()
    (operation,) = found.operations
    assert (operation.name, operation.layer) == ("aten::cudnn_convolution", "conv1")
    assert operation.parents == ("aten::conv2d",)
    assert operation.inputs == (
        Tensor((1, 3, 8, 8), "float16"),
        Tensor((4, 3, 3, 3), "float16"),
    )
    assert operation.time_s == pytest.approx(30e-6)
    assert operation.kernels[0].name == "some_fprop"
    assert found.launches == 1


def test_values_are_per_call_and_skipped_calls_are_left_out():
    trace = Trace()
    for number, kernel_us in enumerate([500, 30, 50, 40]):
        call_with_a_convolution(trace, 1000 * number, number, kernel_us)
    found = trace.profile(skip=1)
    assert found.calls == 3
    assert found.operations[0].time_s == pytest.approx(40e-6)
    assert found.operations[0].count == 1


def test_operations_of_some_calls_are_kept_apart_with_their_average():
    trace = Trace()
    for number in range(4):
        call_with_a_convolution(trace, 1000 * number, number, 30)
        if number == 2:
            trace.host("cpu_op", "aten::mm", 2070, 10)
            trace.launch(2071, 100)
            trace.gpu("kernel", "gemm", 2300, 80, 100)
    (only,) = trace.profile().some_calls
    assert (only.name, only.count) == ("aten::mm", 0.25)
    assert only.time_s == pytest.approx(20e-6)


def test_an_operation_whose_shapes_change_runs_in_every_call():
    trace = Trace()
    for number in range(3):
        call_with_a_convolution(trace, 1000 * number, number, 30)
        trace.events[-3]["args"]["Input Dims"] = [[number + 1, 3], [3, 4], []]
    assert trace.profile().some_calls == ()


def test_kernels_that_no_operation_launched_have_no_name():
    trace = Trace()
    trace.host("user_annotation", CALL, 0, 100)
    trace.launch(10, 1, thread=2)  # an engine's own thread
    trace.gpu("kernel", "trt_kernel", 50, 20, 1)
    (operation,) = trace.profile().operations
    assert (operation.name, operation.layer) == ("", "")


def test_kernels_between_calls_are_left_out():
    trace = Trace()
    call_with_a_convolution(trace, 0, 1, 30)
    trace.launch(500, 2)
    trace.gpu("kernel", "another kernel", 600, 1000, 2)
    assert trace.profile().launches == 1


def test_copies_are_grouped_by_direction_and_memory():
    trace = Trace()
    trace.host("user_annotation", CALL, 0, 100)
    trace.launch(10, 1, "cudaMemcpyAsync")
    trace.gpu("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 20, 8, 1, bytes=4096)
    (copy,) = trace.profile().copies
    assert copy == Copy("HtoD", "pageable", 1.0, pytest.approx(8e-6), 4096.0)


def test_graph_replays_and_synchronizations_are_counted():
    trace = Trace()
    trace.host("user_annotation", CALL, 0, 100)
    trace.launch(10, 1, "cudaGraphLaunch")
    trace.launch(20, 2, "cudaStreamSynchronize")
    trace.launch(30, 3, "cudaMemcpyAsync")
    found = trace.profile()
    assert found.graph_launches == 1
    assert found.host_waits == {"cudaStreamSynchronize": 1.0}


def test_on_a_cpu_an_operations_time_excludes_nested_operations():
    trace = Trace()
    trace.host("user_annotation", CALL, 0, 100)
    trace.host("cpu_op", "aten::linear", 10, 50)
    trace.host("cpu_op", "aten::addmm", 20, 30)
    found = trace.profile()
    assert {o.name: o.time_s for o in found.operations} == pytest.approx(
        {"aten::linear": 20e-6, "aten::addmm": 30e-6}
    )
    assert found.launches is None


def test_time_outside_of_operations_is_that_of_the_least_disturbed_call_without_any_threads():
    trace = Trace()
    for begin, length in ((0, 100), (200, 300), (600, 120)):
        trace.host("user_annotation", CALL, begin, length)
        trace.host("cpu_op", "aten::linear", begin + 10, 40)
        trace.host("cpu_op", "aten::mm", begin + 20, 10)
        trace.host("cpu_op", "aten::mm", begin + 40, 30, thread=2)
    found = trace.profile()
    assert found.profiled_s == pytest.approx(100e-6)
    assert found.outside_s == pytest.approx(40e-6)  # from 10 to 70 one of the threads works
    counts = {(o.name, o.parents): o.count for o in found.operations}
    assert counts == {
        ("aten::linear", ()): 1,
        ("aten::mm", ("aten::linear",)): 1,
        ("aten::mm", ()): 1,
    }


def test_a_graph_that_inductor_compiled_is_an_operation_without_its_key():
    trace = Trace()
    trace.host("user_annotation", CALL, 0, 100)
    trace.host("cpu_op", "Torch-Compiled Region: 0/0", 0, 90)
    trace.host("user_annotation", "## Call CompiledFxGraph fr3uxtfhgcvtpolb5 ##", 10, 50)
    trace.host("cpu_op", "aten::addmm", 20, 20)
    trace.host("cpu_op", "aten::mul", 70, 15)  # between two graphs
    found = {one.name: one for one in trace.profile().operations}
    assert found[COMPILED_GRAPH].time_s == pytest.approx(30e-6)
    assert COMPILED_GRAPH in found["aten::addmm"].parents
    assert COMPILED_GRAPH not in found["aten::mul"].parents
    assert found["Torch-Compiled Region: 0/0"].time_s == pytest.approx(25e-6)


def test_a_kernel_of_a_compiled_graph_belongs_to_the_graph():
    trace = Trace()
    trace.host("user_annotation", CALL, 0, 100)
    trace.host("user_annotation", "## Call CompiledFxGraph fr3uxtfhgcvtpolb5 ##", 10, 50)
    trace.launch(20, 1)
    trace.gpu("kernel", "triton_poi_fused_relu_0", 200, 30, 1)
    (operation,) = trace.profile().operations
    assert operation.name == COMPILED_GRAPH


def test_a_trace_without_calls_is_refused():
    with pytest.raises(ValueError, match="holds no call"):
        Trace().profile()


GRAPH = "## Call CompiledFxGraph f1 ##"


def half_compiled_call(trace: Trace) -> None:
    """A graph of 60 µs, and after a graph break an operation of 20 µs in the same region."""
    trace.host("user_annotation", CALL, 0, 100)
    trace.host("cpu_op", "TorchDynamo Cache Lookup", 1, 3)
    trace.host("cpu_op", "Torch-Compiled Region: 0/0", 5, 95)
    trace.host("user_annotation", GRAPH, 10, 60)
    trace.host("cpu_op", "aten::addmm", 15, 40)  # the rest of the graph is a fused loop
    trace.host("cpu_op", "aten::mm", 75, 20)


def test_on_a_cpu_the_compiled_share_is_that_of_graphs_with_their_fused_loops():
    trace = Trace()
    half_compiled_call(trace)
    assert trace.profile().compiled_share == pytest.approx(60 / 80)


def test_on_a_gpu_the_compiled_share_is_that_of_kernels():
    trace = Trace()
    half_compiled_call(trace)
    trace.launch(20, 1)
    trace.gpu("kernel", "triton_poi_fused_relu_0", 30, 90, 1)
    trace.launch(80, 2)
    trace.gpu("kernel", "some_gemm", 130, 10, 2)
    assert trace.profile().compiled_share == pytest.approx(0.9)


def test_a_region_without_a_graph_is_not_compiled_and_eager_code_has_no_share():
    trace = Trace()
    trace.host("user_annotation", CALL, 0, 100)
    trace.host("cpu_op", "aten::mm", 10, 20)
    assert trace.profile().compiled_share is None
    trace.host("cpu_op", "Torch-Compiled Region: 0/0", 5, 95)
    assert trace.profile().compiled_share == 0


def test_what_runs_while_it_compiles_is_not_outside_of_graphs():
    trace = Trace()
    half_compiled_call(trace)
    trace.events.pop()  # the operation after the graph
    trace.host("cpu_op", "_compile.compile_inner (dynamo_timed)", 75, 20)
    trace.host("cpu_op", "aten::empty_strided", 76, 15)
    assert trace.profile().compiled_share == 1
