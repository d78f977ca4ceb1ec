"""Reads the tables of timm's inference benchmark, `results/benchmark-infer-*.csv`.

A table has the rates; its name has the precision, the memory format, the versions and the device.
"""

from __future__ import annotations

import csv
import math
import re
from typing import Any

import attrs

from precisionbench.errors import PublishedDataError
from precisionbench.published.imports.names import device_name, id_of, precision_name
from precisionbench.published.imports.parsed import Parsed, Rows
from precisionbench.results.json_values import described

RATE = "infer_samples_per_sec"
_COLUMNS = ("model", RATE, "infer_img_size", "infer_batch_size")
_STEP = "infer_step_time"  # ms
_GMACS = "infer_gmacs"
_NAME = re.compile(
    r"benchmark-infer-(?P<precision>[a-z]+\d*(?:_[a-z]+\d*)?)-(?P<layout>nchw|nhwc)"
    r"-pt(?P<torch>\d{3,4})(?:-cu(?P<cuda>\d{3}))?-(?P<device>.+?)(?P<dynamo>-dynamo)?\.csv",
    re.IGNORECASE,
)
_SOURCE = "https://github.com/huggingface/pytorch-image-models/blob/main/results/"
_MOST_ROWS = 100_000


@attrs.frozen
class Conditions:
    """What the name of a table states.

    Attributes:
        device: name of the device.
        precision: one of the precisions of records.
        precision_note: remarks on it.
        layout: `nchw` or `nhwc`; empty if it is not known.
        software: versions; None if they are not known.
        compiled: whether `torch.compile` was used; None if it is not known.
        source_url: address of the table; empty if it is not timm's own.
        gpus: 1, or 0 on a CPU.
    """

    device: str
    precision: str
    precision_note: str = ""
    layout: str = ""
    software: str | None = None
    compiled: bool | None = None
    source_url: str = ""
    gpus: int = 1

    @property
    def framework(self) -> str:
        """The framework as records name it."""
        return "PyTorch compiled" if self.compiled else "PyTorch eager"


def conditions_of(name: str, device: str | None, precision: str | None) -> Conditions:
    """The conditions of a table.

    Args:
        name: name of the file.
        device: the device, if the user gives it; replaces that of the name.
        precision: the precision, if the user gives it; replaces that of the name.

    Raises:
        PublishedDataError: the device or the precision is not known.
    """
    match = _NAME.fullmatch(name)
    stated = match.groupdict() if match else {}
    device, precision = device or stated.get("device"), precision or stated.get("precision")
    known = precision_name(precision) if precision else None
    if device is None or known is None:
        raise PublishedDataError(
            f"the name {name!r} does not state the device and the precision of the table, as "
            "benchmark-infer-amp-nchw-pt291-cu130-5090.csv does",
            "give both the option device and the option precision",
        )
    return Conditions(
        device=device_name(device),
        precision=known,
        precision_note=f"stated as {precision}" if known == "mixed" else "",
        layout=(stated.get("layout") or "").lower(),
        software=_software(stated.get("torch"), stated.get("cuda")),
        compiled=bool(stated["dynamo"]) if match else None,
        source_url=f"{_SOURCE}{name}" if match else "",
        gpus=0 if device.lower().startswith("cpu") else 1,
    )


def _software(torch: str | None, cuda: str | None) -> str | None:
    """Versions from digits: 291 is 2.9.1, but 113 is 1.13; cu130 is CUDA 13.0."""
    if torch is None:
        return None
    major, minor, patch = torch[0], torch[1:-1], torch[-1]
    version = f"1.{torch[1:]}" if major == "1" else f"{major}.{minor}.{patch}"
    return f"torch {version}" + (f", CUDA {cuda[:-1]}.{cuda[-1]}" if cuda else "")


def parse(text: str, name: str, device: str | None, precision: str | None) -> Parsed:
    """The numbers of a table.

    Args:
        text: the table.
        name: name of the file, for errors, and for the conditions that it states.
        device: the device, if the name does not state it.
        precision: the precision, if the name does not state it.

    Raises:
        PublishedDataError: it is not such a table, its conditions are not known, or a row has a
            wrong value.
    """
    found = Rows(name)
    try:
        table = csv.DictReader(text.splitlines(), strict=True)
        missing = [column for column in _COLUMNS if column not in (table.fieldnames or ())]
        if missing:
            raise PublishedDataError(
                f"{name} has no column {missing[0]}", "give a table of timm's inference benchmark"
            )
        conditions = conditions_of(name, device, precision)
        for row in table:
            _add(row, f"line {table.line_num}", name, conditions, found)
            if table.line_num > _MOST_ROWS:
                raise PublishedDataError(
                    f"{name} has more than {_MOST_ROWS:,} lines", "split the table"
                )
    except csv.Error as exc:
        raise PublishedDataError(
            f"{name} is not a table of comma-separated values ({exc})", "correct that line"
        ) from exc
    return found.parsed()


def _add(row: dict[str, Any], where: str, name: str, known: Conditions, found: Rows) -> None:
    if not row[RATE] or not row["model"]:
        found.leave_out("no rate")  # a model that did not run
        return
    numbers = {
        column: _number(row.get(column), column, f"{name}, {where}")
        for column in (*_COLUMNS[1:], _STEP, _GMACS)
        if column in _COLUMNS or row.get(column)
    }
    size, batch = int(numbers["infer_img_size"]), int(numbers["infer_batch_size"])
    step_ms = numbers.get(_STEP)
    mode = {True: "compile", False: "eager", None: ""}[known.compiled]
    version = (known.software or "").partition(",")[0].removeprefix("torch ")
    parts = ("timm", known.device, known.precision, known.layout, mode, version, row["model"])
    fields = {
        "device": known.device,
        "model": row["model"],
        "value": numbers[RATE],
        "unit": "samples/s",
        "metric": "wall-synchronised",
        "metric_note": "host clock around each call of timm's benchmark.py",
        "status": "cited" if known.source_url else "reported",
        "confidence": "high" if known.source_url else "medium",
        "source_title": f"timm (pytorch-image-models), {name}",
        "source_url": known.source_url,
        "input": f"3x{size}x{size}",
        "precision": known.precision,
        "precision_note": known.precision_note,
        "batch": batch,
        "gpus": known.gpus,
        "dlas": 0,
        "software": known.software,
        "framework": known.framework if known.compiled is not None else "",
        "latency_s": step_ms / 1e3 if step_ms else None,
        "gmacs": numbers.get(_GMACS),
        "notes": f"memory format {known.layout.upper()}" if known.layout else "",
    }
    found.add(where, id_of(*parts, "" if row["model"].endswith(f"_{size}") else f"{size}"), fields)


def _number(text: object, column: str, where: str) -> float:
    try:
        value = float(str(text))
    except ValueError:
        value = math.nan
    if not 0 < value < 2**31:
        raise PublishedDataError(
            f"{where}: {column} is {described(str(text))}, and must be a number above 0",
            "correct that line",
        )
    return value
