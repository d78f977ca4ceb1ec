"""Sessions of ONNX Runtime: their providers, bound inputs and outputs, and profile.

Only this module, `onnxruntime.py` and `onnxruntime_quantisation.py` use ONNX Runtime; here it is
given as `ort`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

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
_US = 1e-6
# Types of ONNX Runtime's profile that have other names in torch.
_DTYPES = {"float": "float32", "double": "float64"}
_NODE = "_kernel_time"  # the end of the names of its events


def provider_list(provider: str, device: torch.device, tf32: bool) -> list[Any]:
    """Execution providers with their options, the one asked for first.

    What TensorRT cannot run goes to CUDA, and what CUDA cannot run to the CPU; the profile shows
    it. TF32 is on by default in CUDA's provider.

    Args:
        provider: a key of `PROVIDERS`.
        device: where the inputs are.
        tf32: whether CUDA may compute float32 in TF32.
    """
    if provider == "cpu":
        return [PROVIDERS["cpu"]]
    stream = {
        "device_id": str(device.index or 0),
        "user_compute_stream": str(torch.cuda.current_stream(device).cuda_stream),
    }
    cuda = (PROVIDERS["cuda"], {**stream, "use_tf32": str(int(tf32))})
    return [cuda] if provider == "cuda" else [(PROVIDERS[provider], stream), cuda]


def open_session(ort: Any, file: Path, provider: str, providers: list[Any]) -> Any:
    """A session of as many threads as torch has; the profile of its first calls is on.

    Args:
        ort: the `onnxruntime` module.
        file: of the model.
        provider: a key of `PROVIDERS`; a session without it is refused.
        providers: all that it may use, with options.

    Raises:
        PreparationError: ONNX Runtime refuses the model.
        BackendUnavailableError: the provider cannot be loaded, which ONNX Runtime only logs.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.enable_profiling = True
    options.profile_file_prefix = str(file.with_suffix(".profile"))
    try:
        session = ort.InferenceSession(str(file), options, providers=providers)
    except FOREIGN_ERRORS as exc:
        raise PreparationError(
            f"ONNX Runtime does not run the exported model ({one_line(exc)})",
            "try the other exporter, another precision or another provider",
        ) from exc
    if PROVIDERS[provider] not in session.get_providers():
        raise BackendUnavailableError(
            f"{PROVIDERS[provider]}, which ONNX Runtime cannot load here (see its log)",
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
