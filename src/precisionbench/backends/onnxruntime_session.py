"""Sessions of ONNX Runtime: their providers, bound inputs and outputs, and profile.

Only this module, `onnxruntime.py` and `onnxruntime_quantisation.py` use ONNX Runtime; here it is
given as `ort`.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from precisionbench._internal.importing import import_engine
from precisionbench.backends.engine_layers import EngineLayer, called_briefly
from precisionbench.backends.flat_model import FlatModel
from precisionbench.errors import (
    FOREIGN_ERRORS,
    BackendUnavailableError,
    PreparationError,
    one_line,
)
from precisionbench.results.evidence import Tensor

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
# onnxruntime-gpu brings the same modules as onnxruntime, so that only one can be installed.
GPU_PACKAGE = "onnxruntime-gpu"
INSTALL_GPU = f"pip uninstall -y onnxruntime && pip install {GPU_PACKAGE}"
# NVIDIA's plugin for the CPU's build of ONNX Runtime 1.24 and newer.
_RTX_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
_INSTALL_RTX = "pip install onnxruntime onnxruntime-ep-nv-tensorrt-rtx"
_US = 1e-6
# Types of ONNX Runtime's profile that have other names in torch.
_DTYPES = {"float": "float32", "double": "float64"}
_NODE = "_kernel_time"  # the end of the names of its events


@attrs.frozen
class Provider:
    """An execution provider with what a session of it needs.

    Attributes:
        name: as ONNX Runtime calls it.
        listed: it and those behind it, with their options; empty for a plugin.
        devices: of a plugin, on one of which it runs.
        options: of a plugin.
    """

    name: str
    listed: tuple[Any, ...] = ()
    devices: tuple[Any, ...] = ()
    options: Mapping[str, str] = attrs.field(factory=dict)


def provider_name(ort: Any, provider: str) -> str:
    """What ONNX Runtime calls a provider.

    Args:
        ort: the `onnxruntime` module.
        provider: a key of `PROVIDERS`.

    Raises:
        BackendUnavailableError: this build lacks it, and how to get it.
    """
    available = ort.get_available_providers()
    if PROVIDERS[provider] in available:
        return PROVIDERS[provider]
    if provider == "tensorrt-rtx" and (devices := _rtx_devices(ort)):
        return str(devices[0].ep_name)
    raise BackendUnavailableError(
        f"{PROVIDERS[provider]} of ONNX Runtime (this build has {', '.join(available)})",
        _INSTALL_RTX if provider == "tensorrt-rtx" else INSTALL_GPU,
    )


def chosen_provider(
    ort: Any, provider: str, device: torch.device, precision: str, tf32: bool
) -> Provider:
    """The provider that is asked for, on the current stream of a GPU.

    What TensorRT cannot run goes to CUDA, and what CUDA cannot run to the CPU; the profile shows
    it. TF32 is on by default in CUDA's provider.

    Args:
        ort: the `onnxruntime` module.
        provider: a key of `PROVIDERS`.
        device: where the inputs are.
        precision: of the model: `fp32`, `fp16` or `int8`; TensorRT has to be allowed to use it.
        tf32: whether CUDA may compute float32 in TF32.

    Raises:
        BackendUnavailableError: this build lacks it, and how to get it.
    """
    name = provider_name(ort, provider)
    if provider == "cpu":
        return Provider(name, (name,))
    stream = {"user_compute_stream": str(torch.cuda.current_stream(device).cuda_stream)}
    if name not in ort.get_available_providers():  # a plugin, which the CPU's build loads
        devices = _rtx_devices(ort)[device.index or 0 :][:1]
        return Provider(name, (), tuple(devices), {"has_user_compute_stream": "1", **stream})
    placed = {"device_id": str(device.index or 0), **stream}
    cuda = (PROVIDERS["cuda"], {**placed, "use_tf32": str(int(tf32))})
    if provider == "cuda":
        return Provider(name, (cuda,))
    allowed = {f"trt_{precision}_enable": "1"} if _is_allowed(provider, precision) else {}
    behind = [cuda] if PROVIDERS["cuda"] in ort.get_available_providers() else []
    return Provider(name, ((name, {**placed, **allowed}), *behind))


def _is_allowed(provider: str, precision: str) -> bool:
    """Whether an option allows the precision; TensorRT for RTX has types of the model only."""
    return provider == "tensorrt" and precision != "fp32"


def _rtx_devices(ort: Any) -> list[Any]:
    """Devices of NVIDIA's plugin, which is registered by it; none where it is not installed.

    It stays registered: it may be removed only when no session uses it any more.
    """
    if importlib.util.find_spec(_RTX_PLUGIN) is None:
        return []
    plugin = import_engine(_RTX_PLUGIN, "the plugin of TensorRT for RTX", _INSTALL_RTX)
    name = plugin.get_ep_name()
    if all(device.ep_name != name for device in ort.get_ep_devices()):
        try:
            ort.register_execution_provider_library(name, plugin.get_library_path())
        except FOREIGN_ERRORS as exc:
            raise BackendUnavailableError(
                f"the plugin of TensorRT for RTX, which does not load here ({one_line(exc)})",
                "install the versions of CUDA and of ONNX Runtime that the plugin needs",
            ) from exc
    return [device for device in ort.get_ep_devices() if device.ep_name == name]


def open_session(ort: Any, file: Path, provider: Provider) -> Any:
    """A session of as many threads as torch has; the profile of its first calls is on.

    Args:
        ort: the `onnxruntime` module.
        file: of the model.
        provider: what runs it; a session without it is refused.

    Raises:
        PreparationError: ONNX Runtime refuses the model.
        BackendUnavailableError: the provider cannot be loaded, which ONNX Runtime only logs.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.enable_profiling = True
    options.profile_file_prefix = str(file.with_suffix(".profile"))
    try:
        if provider.devices:
            options.add_provider_for_devices(list(provider.devices), dict(provider.options))
        listed = list(provider.listed) or None
        session = ort.InferenceSession(str(file), options, providers=listed)
    except FOREIGN_ERRORS as exc:
        raise PreparationError(
            f"ONNX Runtime does not run the exported model ({one_line(exc)})",
            "try the other exporter, another precision or another provider",
        ) from exc
    if provider.name not in session.get_providers():
        raise BackendUnavailableError(
            f"{provider.name}, which ONNX Runtime cannot load here (see its log)",
            "install the versions of CUDA, cuDNN or TensorRT that this ONNX Runtime needs",
        )
    return session


def bound_call(
    ort: Any, session: Any, model: FlatModel, device: torch.device
) -> Callable[[], object]:
    """A call that reads the inputs where they are and writes into tensors that are kept.

    Args:
        ort: the `onnxruntime` module.
        session: of the model.
        model: gives the inputs and the shapes of the outputs.
        device: where they are.

    Raises:
        PreparationError: the session has another number of outputs than the model.
    """
    outputs = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in model.outputs]
    names = [output.name for output in session.get_outputs()]
    if len(names) != len(outputs):
        raise PreparationError(
            f"the exported model has {len(names)} outputs where the model has {len(outputs)}",
            "try the other exporter",
        )
    binding = session.io_binding()
    read = {found.name for found in session.get_inputs()}  # unused inputs are not exported
    for index, tensor in enumerate(model.inputs):
        if f"input_{index}" in read:
            binding.bind_input(**_pointer(f"input_{index}", tensor, device))
    for name, tensor in zip(names, outputs, strict=True):
        binding.bind_output(**_pointer(name, tensor, device))
    options = ort.RunOptions()
    if device.type == "cuda":  # the work is on the current stream, and nobody waits for it
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    output = model.rebuilt(outputs)

    def call() -> object:
        session.run_with_iobinding(binding, options)
        return output

    return call


def _pointer(name: str, tensor: torch.Tensor, device: torch.device) -> dict[str, Any]:
    return {
        "name": name,
        "device_type": device.type,
        "device_id": device.index or 0,
        "element_type": torch.empty(0, dtype=tensor.dtype).numpy().dtype,
        "shape": tuple(tensor.shape),
        "buffer_ptr": tensor.data_ptr(),
    }


def profiled_layers(session: Any, call: Callable[[], object]) -> list[EngineLayer]:
    """The nodes of one call, in which dtype each ran, and by which provider.

    It ends the profile that `open_session` began, so that what is timed later is not profiled.

    Args:
        session: of the model.
        call: one forward pass of it.
    """
    call()  # which allocates
    calls = 1 + called_briefly(call)
    file = Path(session.end_profiling())
    events = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    return layers_of(events, calls)


def layers_of(events: Sequence[Mapping[str, Any]], calls: int) -> list[EngineLayer]:
    """The nodes of one call of a profile.

    Args:
        events: of ONNX Runtime's profile.
        calls: how many calls it spans; the first is left out.
    """
    nodes: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "Node" and str(event["name"]).endswith(_NODE):
            node = str(event["name"]).removesuffix(_NODE), str(event["args"].get("node_index"))
            nodes.setdefault(node, []).append(event)
    return [_layer(name, found, calls) for (name, _), found in nodes.items()]


def _layer(name: str, events: Sequence[Mapping[str, Any]], calls: int) -> EngineLayer:
    first = len(events) // calls
    later = events[first:] or events
    arguments = later[0]["args"]
    return EngineLayer(
        name=name,
        kind=str(arguments.get("op_name", "")),
        inputs=tuple(_tensors(arguments.get("input_type_shape", ()))),
        outputs=tuple(_tensors(arguments.get("output_type_shape", ()))),
        place=str(arguments.get("provider", "")),
        time_s=sum(float(event["dur"]) for event in later) * _US / max(1, calls - 1),
        count=max(1, first),
    )


def _tensors(listed: Sequence[Mapping[str, Sequence[int]]]) -> Iterator[Tensor]:
    for entry in listed:
        for dtype, shape in entry.items():
            yield Tensor(tuple(max(0, int(size)) for size in shape), _DTYPES.get(dtype, dtype))
