"""Made-up comparisons for tests of what is derived from results, and recorded ones of real GPUs."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import attrs

from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.findings import Finding
from precisionbench.results import (
    Agreement,
    BackendFailure,
    BackendResult,
    Block,
    ComparisonData,
    Environment,
    Gpu,
    Measurement,
    Passes,
    Preparation,
    TensorAgreement,
    TensorInfo,
    WorkloadInfo,
    json_format,
)
from precisionbench.results.evidence import Evidence, Kernel, Layer, Operation, Tensor

RECORDED = Path(__file__).parent / "recorded"
H100 = Gpu("NVIDIA H100 80GB HBM3", "9.0", 85_000_000_000, 132, max_sm_clock_hz=1.98e9)

FP32_CONV = "sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nchwkcrs_nchw_ffma"
TF32_CONV = "sm90_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc_warpgroup"
HALF_CONV = "sm90_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc_warpgroup"
HALF_ON_CUDA_CORES = "volta_fp16_sgemm_fp16_128x32_nt"
LAYOUT = "void cudnn::engines_precompiled::nchwToNhwcKernel<__half, __half, float>"
CAST = "void at::native::vectorized_elementwise_kernel<8, at::native::float16_copy_kernel_cuda"
NORM = "void at::native::batch_norm_transform_input_kernel<c10::Half, c10::Half, float>"


def measurement(*medians: float) -> Measurement:
    """A measurement of one replica with these block medians."""
    blocks = tuple(
        Block(round_, 0, 0, (median, median * 1.01, median * 0.99))
        for round_, median in enumerate(medians)
    )
    return Measurement("cuda_events", 5e-7, 1, (Preparation(1.5, 0.2, 30),), blocks, "target")


def comparison_data(**changes) -> ComparisonData:
    """A made-up comparison on a GPU, with two rows and a failure."""
    agreement = Agreement(
        (TensorAgreement("['out']", (4, 5), "float16", 1e-3, 0.999, 2e-3, 0.5, 0),), ()
    )
    options = {"precision": "fp32", "memory_format": "contiguous"}
    half = {"dtype": "float16", "memory_format": "contiguous"}
    data = ComparisonData(
        created="2026-11-23T12:00:00+00:00",
        precisionbench="0.1.0",
        workload=WorkloadInfo("Net", 20, (TensorInfo("[0]", (4, 5), "float32"),), 4),
        environment=Environment(
            device="cuda:0",
            gpu=Gpu("NVIDIA Test", "9.0", 10**9, 132, driver="1.2", power_limit_w=700.0),
            platform="Linux",
            python="3.11",
            torch="2.14.1",
            cuda="13.0",
            cudnn="9.19.0",
            packages={"numpy": "2"},
            cpu="CPU",
            cpu_cores=2,
            threads=2,
            jetson=None,
            flags={"cudnn.benchmark": False},
        ),
        seed=1,
        launcher="inline",
        reference="eager",
        results=(
            BackendResult("eager", "eager", options, 4, measurement(*[0.010] * 12), Agreement()),
            BackendResult(
                "half",
                "half",
                half,
                4,
                measurement(*[0.004] * 12),
                agreement,
                details={"layers": {"fp16": 3}},
                warnings=("mind this",),
                log=("printed",),
            ),
        ),
        failures=(
            BackendFailure(
                "apex-amp", "apex-amp", {}, "BackendUnavailableError", "needs Apex", "get it"
            ),
        ),
    )
    return attrs.evolve(data, **changes)


def conv(
    time_s: float = 1e-3,
    dtype: str = "float32",
    kernel: str = FP32_CONV,
    channels: int = 64,
    groups: int = 1,
    layer: str = "conv",
    extra: tuple[Kernel, ...] = (),
) -> Operation:
    """A convolution over 32 images of 56 x 56."""
    x = Tensor((32, channels, 56, 56), dtype)
    weight = Tensor((channels, channels // groups, 3, 3), dtype)
    kernels = (Kernel(kernel, 1.0, time_s), *extra)
    total_s = sum(k.time_s for k in kernels)
    parents = ("aten::_convolution", "aten::convolution", "aten::conv2d")
    return Operation("aten::cudnn_convolution", layer, (x, weight), 1.0, total_s, kernels, parents)


def on_a_cpu(
    name: str, time_s: float, *operands: Tensor, parents: tuple[str, ...] = ()
) -> Operation:
    """An operation on a CPU: its own time, and no kernels."""
    return Operation(name, "", operands, 1.0, time_s, (), parents)


def conv_on_a_cpu(time_s: float = 1e-3, dtype: str = "float32") -> Operation:
    """The same convolution on a CPU."""
    on_a_gpu = conv(time_s, dtype)
    return attrs.evolve(on_a_gpu, name="aten::mkldnn_convolution", kernels=())


def other(
    name: str, kernel: str, time_s: float, dtypes: tuple[str, ...] = ("float16",), layer: str = "bn"
) -> Operation:
    """Any other operation."""
    inputs = tuple(Tensor((32, 64, 56, 56), dtype) for dtype in dtypes)
    return Operation(name, layer, inputs, 1.0, time_s, (Kernel(kernel, 1.0, time_s),))


def layer(path: str = "conv", channels: int = 64, groups: int = 1, dtype: str = "float32") -> Layer:
    """A convolution's module."""
    x = Tensor((32, channels, 56, 56), dtype)
    weight = Tensor((channels, channels // groups, 3, 3), dtype)
    flops = 2.0 * 32 * 56 * 56 * channels * channels // groups * 9
    return Layer(path, "Conv2d", (x,), (x,), (weight,), 1, flops)


def evidence(*operations: Operation, layers: tuple[Layer, ...] = (layer(),), **more) -> Evidence:
    """Evidence of a row."""
    return Evidence(operations=operations, layers=layers, calls=10, launches=5.0, **more)


def comparison(
    base: Evidence | None = None,
    half: Evidence | None = None,
    *,
    times_s: tuple[float, float] = (1.02e-3, 0.35e-3),
    gpu: Gpu | None = H100,
    half_row: dict | None = None,
    base_row: dict | None = None,
    passes: tuple[Passes, Passes] = (Passes(), Passes()),
) -> ComparisonData:
    """Two rows, `eager` and `half`, with their evidence."""
    data = comparison_data(schedule="rounds")
    draw = random.Random(0)
    results = []
    for row, time_s, seen, change, passed in zip(
        data.results, times_s, (base, half), (base_row, half_row), passes, strict=True
    ):
        blocks = tuple(
            Block(n, 0, 0, tuple(time_s * draw.uniform(0.999, 1.001) for _ in range(5)))
            for n in range(20)
        )
        measurement = attrs.evolve(row.measurement, blocks=blocks)
        plain = {"agreement": Agreement(), "warnings": (), "passes": passed, "evidence": seen}
        results.append(attrs.evolve(row, measurement=measurement, **{**plain, **(change or {})}))
    environment = attrs.evolve(data.environment, gpu=gpu)
    return attrs.evolve(data, results=tuple(results), environment=environment)


def findings(data: ComparisonData, cause: str, row: str | None = None) -> list[Finding]:
    """The findings of one cause."""
    found = diagnosis_of(data).findings
    return [f for f in found if f.cause == cause and row in (None, f.row)]


def recorded(name: str) -> ComparisonData:
    """A comparison that was measured on a real device."""
    text = gzip.decompress((RECORDED / f"{name}.json.gz").read_bytes()).decode()
    return json_format.from_json(text, name)


CLEAN = {
    "base": evidence(conv()),
    "half": evidence(conv(0.3e-3, "float16", HALF_CONV), layers=(layer(dtype="float16"),)),
}
