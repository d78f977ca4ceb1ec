"""A stand-in for `tensorrt` 10 and `torch2trt` 0.5.0 on machines that have neither.

It computes with the PyTorch module it was given, but it takes exactly the arguments that
torch2trt 0.5.0 declares and refuses every other name, where the real one swallows them in
`**kwargs`. test_tensorrt.py runs the real thing.
"""

from __future__ import annotations

import json
import pickle
import sys
import types
import warnings
from typing import Any, ClassVar

import torch


class Severity(int):
    pass


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = map(Severity, range(5))

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


class Logger(ILogger):
    def __init__(self, severity: Severity = ILogger.WARNING) -> None:
        self.severity = severity


class BuilderFlag:
    FP16, INT8, GPU_FALLBACK, TF32 = range(4)


class DeviceType:
    GPU, DLA = "GPU", "DLA"


class ProfilingVerbosity:
    LAYER_NAMES_ONLY, DETAILED = "names", "detailed"


class MemoryPoolType:
    WORKSPACE = "workspace"


class LayerInformationFormat:
    JSON = "json"


class BuilderConfig:
    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}  # TensorRT's default
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.pools: dict[str, int] = {}

    def clear_flag(self, flag: int) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.pools[pool] = size


class Builder:
    num_DLA_cores = 2

    def __init__(self, logger: ILogger) -> None:
        self.logger = logger

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig()

    def build_serialized_network(self, network: torch.nn.Module, config: BuilderConfig) -> Engine:
        return Engine(network, config.profiling_verbosity)


class HostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class Engine:
    """An engine whose layers write whatever the tests want."""

    layer_types: tuple[str, ...] = ("Half", "Half", "Float")

    def __init__(self, module: torch.nn.Module, verbosity: str) -> None:
        self.module, self.verbosity = module, verbosity

    def serialize(self) -> HostMemory:
        return HostMemory(pickle.dumps((self.module, self.verbosity)))

    def create_engine_inspector(self) -> Engine:
        return self

    def get_engine_information(self, layer_format: str) -> str:
        assert layer_format == LayerInformationFormat.JSON
        names = ["conv", "Reformatting CopyNode", "fc"]
        if self.verbosity != ProfilingVerbosity.DETAILED:
            return json.dumps({"Layers": names})
        kinds = ["CaskConvolution", "Reformat", "gemm"]
        layers = [
            {
                "Name": name,
                "LayerType": kind,
                "Inputs": [{"Dimensions": [4, 3, 16, 16], "Format/Datatype": datatype}],
                "Outputs": [{"Dimensions": [4, 3, 16, 16], "Format/Datatype": datatype}],
            }
            for name, kind, datatype in zip(names, kinds, self.layer_types, strict=True)
        ]
        return json.dumps({"Layers": layers})


class Runtime:
    cores: ClassVar[list[int | None]] = []  # of each runtime, when it loads an engine

    def __init__(self, logger: ILogger) -> None:
        assert isinstance(logger, ILogger)
        self.DLA_core: int | None = None

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        self.cores.append(self.DLA_core)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch 2.4 warns of its own unpickling
                return Engine(*pickle.loads(data))
        except Exception:
            return None  # what TensorRT does with bytes it does not take


class Flattener:
    """torch2trt's: float16, float32 and bool tensors in lists, tuples and dicts, nothing else."""

    def __init__(self, size: int) -> None:
        self.size = size

    @staticmethod
    def from_value(value: Any) -> Flattener:
        def count(value: Any) -> int:
            if isinstance(value, torch.Tensor):
                return value.dtype in (torch.half, torch.float, torch.bool)
            if isinstance(value, (list, tuple)):
                return sum(map(count, value))
            return sum(map(count, value.values())) if isinstance(value, dict) else 0

        return Flattener(count(value))


class ListDataset:
    def __init__(self, items: list[Any] | None = None) -> None:
        self.items = list(items or [])

    def __len__(self) -> int:
        return len(self.items)


def by_key(value: Any) -> Any:
    """What torch2trt's Flattener does to dicts."""
    if isinstance(value, dict):
        return {key: by_key(value[key]) for key in sorted(value)}
    return type(value)(map(by_key, value)) if isinstance(value, (list, tuple)) else value


class TRTModule(torch.nn.Module):
    wrong_batch = False
    constant: Any = None  # what the engine holds as a constant

    def __init__(
        self,
        engine: Engine | None = None,
        input_names: list[str] | None = None,
        output_names: list[str] | None = None,
        input_flattener: Flattener | None = None,
        output_flattener: Flattener | None = None,
    ) -> None:
        super().__init__()
        self.engine = engine
        assert len(input_names) == input_flattener.size
        assert len(output_names) == output_flattener.size

    def forward(self, *inputs: Any) -> Any:
        if self.constant is not None:
            return self.constant
        output = by_key(self.engine.module(*inputs))
        return output[:1] if self.wrong_batch else output


class Double:
    """Both modules, and what they were asked for."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.configs: list[BuilderConfig] = []
        self.error: Exception | None = None
        self.messages: list[str] = []  # warnings that a build logs
        self.errors: list[str] = []
        self.builds_nothing = False  # what TensorRT does when it fails: no exception, no engine
        self.tensorrt: Any = types.ModuleType("tensorrt")
        self.torch2trt: Any = types.ModuleType("torch2trt")
        for item in (
            ILogger,
            Logger,
            Builder,
            BuilderFlag,
            DeviceType,
            ProfilingVerbosity,
            MemoryPoolType,
            LayerInformationFormat,
            Runtime,
        ):
            setattr(self.tensorrt, item.__name__, item)
        self.tensorrt.__version__ = "10.3.0"
        self.torch2trt.Flattener = Flattener
        self.torch2trt.ListDataset = ListDataset
        self.torch2trt.TRTModule = TRTModule
        self.torch2trt.torch2trt = self._declare()

    def install(self, monkeypatch: Any) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt", self.tensorrt)
        monkeypatch.setitem(sys.modules, "torch2trt", self.torch2trt)

    def _declare(self) -> Any:
        trt, double = self.tensorrt, self

        # The signature of torch2trt 0.5.0 (master 4e820ae), less its trailing **kwargs.
        def torch2trt(
            module,
            inputs,
            input_names=None,
            output_names=None,
            log_level=trt.Logger.ERROR,
            fp16_mode=False,
            max_workspace_size=1 << 25,
            strict_type_constraints=False,
            keep_network=True,
            int8_mode=False,
            int8_calib_dataset=None,
            int8_calib_algorithm=None,
            use_onnx=False,
            default_device_type=trt.DeviceType.GPU,
            dla_core=0,
            gpu_fallback=True,
            device_types={},  # noqa: B006
            min_shapes=None,
            max_shapes=None,
            opt_shapes=None,
            onnx_opset=None,
            max_batch_size=None,
            avg_timing_iterations=None,
        ):
            asked = dict(locals())
            double.calls.append(asked)
            logger = trt.Logger(log_level)
            builder = trt.Builder(logger)
            config = builder.create_builder_config()
            double.configs.append(config)
            torch.Tensor.size = torch.Tensor.size  # what its hooks leave behind
            print("Warning: Encountered known unsupported method torch.Tensor.dim")
            for message in double.messages:
                logger.log(trt.ILogger.WARNING, message)
                logger.log(trt.ILogger.VERBOSE, "never mind")
            for message in double.errors:
                logger.log(trt.ILogger.ERROR, message)
            if double.error:
                raise double.error
            assert not strict_type_constraints, "raises on TensorRT 10"
            for tensor in inputs:
                assert not hasattr(tensor, "_trt"), "torch2trt would make a constant of it"
                tensor._trt = object()
            runtime = trt.Runtime(logger)
            runtime.cores.append(runtime.DLA_core)
            if use_onnx:
                torch.onnx.export(module, tuple(inputs), None)
            engine = builder.build_serialized_network(module, config)
            return TRTModule(
                None if double.builds_nothing else engine,
                input_names,
                output_names,
                Flattener.from_value(inputs),
                Flattener.from_value(module(*inputs)),
            )

        return torch2trt
