"""Packages of AOTInductor: loading, calling, and keeping one that a user wants to deploy."""

from __future__ import annotations

import contextlib
import json
import platform
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from precisionbench._internal.files import check_writable, output_file, write_whole
from precisionbench._internal.paths import quoted
from precisionbench.backends.flat_model import FlatModel
from precisionbench.backends.model_key import model_key
from precisionbench.errors import FOREIGN_ERRORS, PreparationError, one_line
from precisionbench.results.json_values import Json

# Of the text in a package that names what it was built of.
KEY = "precisionbench_key"
_METADATA, _MOST_BYTES = "_metadata.json", 1 << 20


def key_of(program: torch.export.ExportedProgram, flat: FlatModel, options: Json) -> str:
    """What a package is built of: the program, its weights, the options, versions and the machine.

    Args:
        program: what was exported.
        flat: what it was exported from.
        options: of the backend, as JSON.
    """
    device = flat.inputs[0].device
    on_gpu = device.type == "cuda"
    parts: dict[str, Json] = {
        "torch": str(torch.__version__),
        "machine": [platform.system(), platform.machine(), torch.backends.cpu.get_cpu_capability()],
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "program": str(program.graph_module.code),
        "inputs": [[list(t.shape), str(t.dtype), list(t.stride())] for t in flat.inputs],
        "options": options,
    }
    return model_key(parts, flat.module)


def check_place(path: Path | str, key: str) -> None:
    """Raise before a build if its package could not be kept.

    Args:
        path: that the user gave.
        key: of the package that will be built.

    Raises:
        PreparationError: another file is there.
        OutputError: no file can be written there.
    """
    file = output_file(path, overwrite=True)
    if not file.exists():
        check_writable(path, overwrite=False)
    elif _key_in(file) != key:
        raise _taken(path)


def keep(package: Path, path: Path | str, key: str) -> Path:
    """Write a package to the file that the user named; the file that is to be measured.

    All replicas of a row measure the same package: the first one writes it, and for the others it
    is there.

    Args:
        package: that was built.
        path: that the user gave; a file that is there is never replaced.
        key: of the package.

    Raises:
        PreparationError: another file is there.
        OutputError: it cannot be written.
    """
    file = output_file(path, overwrite=True)
    with contextlib.suppress(FileExistsError):
        write_whole(file, package.read_bytes(), overwrite=False)
    if _key_in(file) != key:
        raise _taken(path)
    return file


def _taken(path: Path | str) -> PreparationError:
    return PreparationError(
        f"{quoted(path)} exists, and was not built of this model with these options",
        "give package_path another name, or remove the file",
    )


def _key_in(file: Path) -> str:
    """The key in a package; empty where the file is none, or is not of this library."""
    try:
        with zipfile.ZipFile(file) as archive:
            texts = [
                archive.read(member)
                for member in archive.infolist()
                if member.filename.endswith(_METADATA) and member.file_size <= _MOST_BYTES
            ]
        found = [json.loads(text) for text in texts]
    except (OSError, ValueError, zipfile.BadZipFile):
        return ""
    keys = {str(one.get(KEY, "")) for one in found if isinstance(one, Mapping)} - {""}
    return keys.pop() if len(keys) == 1 else ""


def loaded(file: Path, device: torch.device, *, alone: bool) -> Any:
    """The compiled model of a package.

    Args:
        file: the package.
        device: that it runs on.
        alone: leave out the locks between threads, as a CUDA graph needs it.

    Raises:
        PreparationError: it cannot be loaded.
    """
    options: dict[str, Any] = {"run_single_threaded": True} if alone else {}
    if device.index:
        options["device_index"] = device.index
    try:
        return torch._inductor.aoti_load_package(str(file), **options)
    except FOREIGN_ERRORS as exc:
        raise PreparationError(
            f"the package cannot be loaded ({one_line(exc)})", "use the backend compile"
        ) from exc


def call_of(compiled: Callable[..., Sequence[torch.Tensor]], flat: FlatModel) -> Any:
    """A call of a package that gives what the model gives.

    Args:
        compiled: takes and returns tensors, as `flat.module`.
        flat: the model.

    Raises:
        PreparationError: it does not run, or gives other shapes than the model.
    """
    try:
        with torch.no_grad():
            got = [tuple(tensor.shape) for tensor in compiled(*flat.inputs)]
    except FOREIGN_ERRORS as exc:
        raise PreparationError(
            f"the package does not run ({one_line(exc)})", "use the backend compile"
        ) from exc
    want = [tuple(tensor.shape) for tensor in flat.outputs]
    if got != want:
        raise PreparationError(
            f"the package's outputs have shapes {got} where the model's have {want}",
            "use the backend compile",
        )
    if isinstance(flat.expected, torch.Tensor):
        return lambda: compiled(*flat.inputs)[0]
    return lambda: flat.rebuilt(compiled(*flat.inputs))
