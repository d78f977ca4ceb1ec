"""From a definition to its cells, and the names of their files."""

from __future__ import annotations

import hashlib
import itertools
import json
import re

import attrs

from precisionbench.results.json_values import as_json
from precisionbench.results.study import Cell
from precisionbench.studies.definition import Definition

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9.-]+")
_MAX_MODEL = 40  # characters of a model in the name of a file
_DIGITS = 12  # of the hash: a collision within a million cells has a probability of 0.2 %


def cells_of(definition: Definition, device: str) -> tuple[Cell, ...]:
    """The cells of a study on one device.

    Args:
        definition: of the study.
        device: name of the device.

    Returns:
        Each model with each shape, number of threads and batch size, in this order.
    """
    axes = (definition.models, definition.shapes, definition.threads, definition.batch_sizes)
    return tuple(
        Cell(model, shape, batch_size, threads, device, definition.backends)
        for model, shape, threads, batch_size in itertools.product(*axes)
    )


def name_of(cell: Cell, definition: Definition) -> str:
    """The name of a cell's files, without their suffix: a few words, and a hash of the content.

    The hash covers the cell, the name of its model, and the options with which it is measured.

    Args:
        cell: of the study.
        definition: of the study.
    """
    content = {
        "cell": as_json(attrs.asdict(cell)),
        "model": definition.models.get(cell.model, ""),
        "device": definition.device,
        "options": definition.options,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:_DIGITS]
    model = _NOT_IN_NAMES.sub("-", cell.model).strip("-.")[-_MAX_MODEL:].lstrip("-.")
    words = [model or "model"]
    words += [f"b{cell.batch_size}"] if cell.batch_size else []
    words += [f"t{cell.threads}"] if cell.threads else []
    return "-".join([*words, digest])
