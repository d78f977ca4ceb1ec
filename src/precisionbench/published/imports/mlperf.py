"""Reads `summary_results.json`, in which MLPerf Inference lists all results of a round."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from precisionbench import safe_text
from precisionbench.errors import PublishedDataError
from precisionbench.published.imports.names import (
    device_name,
    id_of,
    precision_name,
    precisions_named,
)
from precisionbench.published.imports.parsed import Parsed, Rows
from precisionbench.published.record import MS
from precisionbench.results.json_values import described

# Fields of a row that are read, with their types; the file has others, too.
_TEXTS = (
    "Submitter",
    "Category",
    "Suite",
    "System",
    "Platform",
    "UsedModel",
    "Scenario",
    "Accuracy",
    "Processor",
    "Accelerator",
    "Software",
    "version",
    "weight_data_types",
    "Details",
    "Performance_Units",
)
_NUMBERS = ("a#", "Nodes", "host_processors_per_node", "Performance_Result")
REQUIRED = ("Submitter", "Platform", "UsedModel", "Scenario", "Performance_Result")
_METRICS = {
    "offline": "offline",
    "server": "server",
    "interactive": "interactive",
    "singlestream": "single-stream",
    "multistream": "multi-stream",
}
# Samples of one query, by MLPerf's rules.
_QUERY_SAMPLES = {"single-stream": 1, "multi-stream": 8}
_UNITS = {
    "samples/s": "samples/s",
    "queries/s": "samples/s",  # a query of Server has one sample
    "tokens/s": "tokens/s",
    "latency (ms)": MS,
}
# Other names that records use, and inputs that MLPerf's rules fix.
_MODELS = {
    "resnet": "resnet50",
    "retinanet": "retinanet-resnext50",
    "bert-99": "bert-large-squad-99",
    "bert-99.9": "bert-large-squad-99.9",
}
_INPUTS = {
    "resnet50": "3x224x224",
    "retinanet-resnext50": "3x800x800",
    "bert-large-squad-99": "sequence 384",
    "bert-large-squad-99.9": "sequence 384",
}
_WITH_DLAS = re.compile(r"orin|xavier", re.IGNORECASE)
_OFFICIAL = re.compile(r"https?://github\.com/mlcommons/inference_results_")
_ADDRESS = re.compile(r"https?://[^\s/]+/\S*")

Row = Mapping[str, Any]


def parse(rows: object, name: str) -> Parsed:
    """The numbers of a round.

    Rows of several nodes, and rows whose unit or scenario is not known, are left out.

    Args:
        rows: the parsed file.
        name: name of the file, for errors.

    Raises:
        PublishedDataError: it is not such a file, or a row has a wrong value.
    """
    if not isinstance(rows, list) or not rows:
        raise PublishedDataError(
            f"{name} is not a list of MLPerf's results", "give the summary_results.json of a round"
        )
    checked = [_checked(row, f"row {i}", name) for i, row in enumerate(rows, 1)]
    in_tokens = {row["UsedModel"] for row in checked if _unit(row) == "tokens/s"}
    found = Rows(name)
    for i, row in enumerate(checked, 1):
        reason = _why_left_out(row)
        if reason:
            found.leave_out(reason)
        else:
            found.add(f"row {i}", _id(row), _fields(row, row["UsedModel"] in in_tokens))
    return found.parsed()


def _checked(row: object, where: str, name: str) -> Row:
    """The fields of a row that are read; missing ones are empty or None."""
    if not isinstance(row, dict):
        raise PublishedDataError(
            f"{name}, {where}: it is {described(row)}, and must be an object",
            "give the summary_results.json of a round",
        )
    for field in REQUIRED:
        if field not in row:
            raise PublishedDataError(
                f"{name}, {where}: {field} is missing", "give the summary_results.json of a round"
            )
    texts = {field: row.get(field) or "" for field in _TEXTS}
    numbers = {field: row.get(field) or None for field in _NUMBERS}
    for field, value in texts.items():
        # Some rows have a table of the precision of each part.
        texts[field] = safe_text.line(_flat(value)).strip()
    for field, value in numbers.items():
        if value is not None and type(value) not in (int, float):
            raise PublishedDataError(
                f"{name}, {where}: {field} is {described(value)}, and must be a number",
                "correct that row",
            )
    return {**texts, **numbers}


def _flat(value: object) -> str:
    """Text, or the parts of an object as text."""
    if isinstance(value, dict):
        return ", ".join(f"{part}: {_flat(one)}" for part, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_flat, value))
    return str(value)


def _unit(row: Row) -> str | None:
    return _UNITS.get(row["Performance_Units"].lower())


def _metric(row: Row) -> str | None:
    return _METRICS.get(row["Scenario"].lower())


def _why_left_out(row: Row) -> str:
    """Why a row has no record; empty where it has one."""
    if row["Performance_Result"] is None:
        return "no result"
    if _unit(row) is None:
        return f"unit {described(row['Performance_Units'])}"
    if _metric(row) is None:
        return f"scenario {described(row['Scenario'])}"
    if (row["Nodes"] or 1) != 1:
        return "a result of several nodes"
    return "" if row["Accelerator"] or row["Processor"] else "no device"


def _id(row: Row) -> str:
    version = row["version"] if row["version"].startswith("v") else f"v{row['version']}"
    division = "" if row["Category"] in ("closed", "") else row["Category"]
    engines = _engines(row)
    count = f"x{engines['gpus']}" if engines["gpus"] > 1 else ""
    device = re.sub(r"^(intel|amd)-(core-)?", "", id_of(engines["device"])) + count
    model, scenario = _model(row), _metric(row) or ""
    return id_of("mlperf", version, division, row["Submitter"], device, model, scenario)


def _model(row: Row) -> str:
    stated: str = row["UsedModel"].lower()
    return _MODELS.get(stated, stated)


def _fields(row: Row, in_tokens: bool) -> dict[str, Any]:
    model, metric = _model(row), _metric(row) or ""
    precision, note = _precision(row["weight_data_types"])
    unit, doubt = _unit_and_doubt(row, in_tokens)
    is_official = _OFFICIAL.match(row["Details"]) is not None
    return {
        **_engines(row),
        "model": model,
        "variant": "v1.5" if model == "resnet50" else "",
        "input": _INPUTS.get(model),
        "precision": precision,
        "precision_note": note,
        "batch": _QUERY_SAMPLES.get(metric),
        "value": float(row["Performance_Result"]),
        "unit": unit,
        "metric": metric,
        "status": "cited" if is_official else "reported",
        "confidence": "high" if is_official else "medium",
        "software": row["Software"] or None,
        "framework": _framework(row["Software"]),
        "accuracy": row["Accuracy"],
        "doubt": doubt,
        "notes": _notes(row),
        "source_title": _title(row),
        "source_url": row["Details"] if _ADDRESS.fullmatch(row["Details"]) else "",
    }


def _precision(text: str) -> tuple[str | None, str]:
    """The precision and a note; several precisions are mixed."""
    whole = precision_name(text)
    names = [whole] if whole else precisions_named(text)
    if not names:
        return None, f"weights, as stated: {text}" if text else ""
    return (names[0] if len(names) == 1 else "mixed"), f"of the weights, as stated: {text}"


def _unit_and_doubt(row: Row, in_tokens: bool) -> tuple[str | None, str]:
    """The unit; one of a language model in queries is doubtful if others are in tokens."""
    if row["Performance_Units"].lower() == "queries/s" and in_tokens:
        return "tokens/s", (
            "the file states Queries/s, and Tokens/s for other results of this model; the value is "
            "taken as tokens/s"
        )
    return _unit(row), ""


def _engines(row: Row) -> dict[str, Any]:
    """The device and its engines; a system without accelerators is one device."""
    count = int(row["a#"] or 0)
    if row["Accelerator"] and count:
        has_dlas = _WITH_DLAS.search(row["Accelerator"])
        name = device_name(row["Accelerator"])
        return {"device": name, "gpus": count, "dlas": None if has_dlas else 0}
    sockets = int(row["host_processors_per_node"] or 1)
    name = device_name(row["Processor"] or row["Accelerator"])
    name = re.sub(r"^\d+x ?", "", name)
    return {"device": f"{sockets}x {name}" if sockets > 1 else name, "gpus": 0, "dlas": 0}


def _framework(software: str) -> str:
    """The name of the software that ran the model, without its version."""
    first = re.match(r"[A-Za-z][\w.-]*", software)
    return first[0].rstrip(".,") if first else ""


def _title(row: Row) -> str:
    division = f", {row['Category']} division" if row["Category"] else ""
    version = row["version"] or "(version not stated)"
    return f"MLPerf Inference {version}{division}, {row['Submitter']}, {row['Platform']}"


def _notes(row: Row) -> str:
    parts = {
        "system": row["System"],
        "accelerator": row["Accelerator"],
        "processor": row["Processor"],
        "suite": row["Suite"],
    }
    return "; ".join(f"{name} {text}" for name, text in parts.items() if text)
