"""The layers of a compiled model of OpenVINO, from its runtime model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from precisionbench.backends.engine_layers import EngineLayer, called_briefly
from precisionbench.results.evidence import Tensor

_DTYPES = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "i64": "int64",
    "i32": "int32",
    "i16": "int16",
    "i8": "int8",
    "u8": "uint8",
    "boolean": "bool",
}
_NO_WORK = ("Input", "Output", "Const", "Parameter", "Result")
_US = 1e-6


def times_of(compiled: Any, call: Callable[[], object]) -> dict[str, float]:
    """Seconds of each layer in a call, without the first call, which creates kernels.

    Args:
        compiled: a model with performance counters, which are means over all its calls.
        call: one forward pass of it, called once before.
    """
    first = _means_us(compiled)
    calls = called_briefly(call)
    return {
        name: max(0.0, (1 + calls) * mean_us - first.get(name, 0.0)) / calls * _US
        for name, mean_us in _means_us(compiled).items()
    }


def _means_us(compiled: Any) -> dict[str, float]:
    ops = compiled.get_runtime_model().get_ordered_ops()
    times = {op.get_friendly_name(): _info(op, "execTimeMcs") for op in ops}
    return {name: float(time) for name, time in times.items() if time.isdigit()}


def layers_of(runtime_model: Any, times: Mapping[str, float], place: str) -> list[EngineLayer]:
    """The layers of a compiled model, each in the precision that it runs in.

    Args:
        runtime_model: of what is timed.
        times: seconds of each layer in a call, by name.
        place: the device.
    """
    return [
        _layer(op, times.get(op.get_friendly_name(), 0.0), place)
        for op in runtime_model.get_ordered_ops()
        if _info(op, "layerType") not in _NO_WORK
    ]


def _layer(op: Any, time_s: float, place: str) -> EngineLayer:
    kind, precision = _info(op, "layerType"), _dtype(_info(op, "runtimePrecision"))
    return EngineLayer(
        name=str(op.get_friendly_name()),
        kind=kind,
        inputs=tuple(Tensor(shape, precision) for shape in _shapes(op.inputs())),
        outputs=tuple(
            Tensor(shape, _dtype(dtype))
            for shape, dtype in zip(
                _shapes(op.outputs()), _info(op, "outputPrecisions").split(","), strict=False
            )
        ),
        place=place,
        time_s=time_s,
    )


def _shapes(ports: Any) -> Iterator[tuple[int, ...]]:
    for port in ports:
        shape = port.get_partial_shape()
        yield tuple(int(size) for size in shape.to_shape()) if shape.is_static else ()


def _info(op: Any, name: str) -> str:
    info = op.get_rt_info()
    if name not in info:
        return ""
    value = info[name]
    return str(value.astype(str) if hasattr(value, "astype") else value)


def _dtype(name: str) -> str:
    return _DTYPES.get(name, name)
