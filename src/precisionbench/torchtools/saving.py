"""Writes values with tensors to temporary files, and reads them in workers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from precisionbench._internal import unpickling
from precisionbench._internal.files import reason_of, remedy_for
from precisionbench._internal.importing import working_directory_on_path
from precisionbench._internal.paths import quoted
from precisionbench.errors import FOREIGN_ERRORS, OutputError


def save(value: object, path: str | Path, **options: Any) -> None:
    """Write what `torch.load` reads, or nothing.

    Args:
        value: what to write.
        path: of the file, in a temporary folder.
        options: as for `torch.save`.

    Raises:
        OutputError: the file cannot be written.
        Exception: the value cannot be pickled; any exception.
    """
    file = Path(path)
    try:
        opened = _File(io.FileIO(file, "wb"))
    except OSError as exc:
        raise _not_written(file, exc) from exc
    try:
        with opened:
            torch.save(value, opened, **options)
    except FOREIGN_ERRORS as exc:
        if file.is_file():  # and no device
            file.unlink()
        if opened.error is not None:
            raise _not_written(file, opened.error) from exc
        raise


def load(path: str | Path, *, mapped: bool = False) -> Any:
    """Read what this process's parent has written, with its tensors on the CPU.

    Args:
        path: of the file.
        mapped: leave the tensors in the file until they are read.

    Raises:
        Exception: what is in the file cannot be unpickled here; any exception.
    """
    with working_directory_on_path():  # where the parent found `package.module:function`
        return torch.load(path, "cpu", pickle_module=unpickling, mmap=mapped, weights_only=False)


def _not_written(file: Path, error: OSError) -> OutputError:
    return OutputError(
        f"the temporary file {quoted(file)} could not be written ({reason_of(error)})",
        remedy_for(error, "set TMPDIR to another folder"),
    )


class _File(io.BufferedWriter):
    """Keeps the error of a write: torch raises another one, which does not contain it."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as exc:
            self.error = exc
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as exc:
            self.error = exc
            raise
