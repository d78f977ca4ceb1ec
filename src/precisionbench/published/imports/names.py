"""Names of devices and precisions in files of others, in the spelling of this library."""

from __future__ import annotations

import re
from functools import cache

from precisionbench import safe_text
from precisionbench.published.record import PRECISIONS
from precisionbench.reference_data.peaks import all_devices, name_key

# Names of boards with the ids of `data/devices.toml`, where their names differ in more than
# spelling. The first one that is found counts.
_BOARDS = {
    r"H200.SXM": "h200-sxm",
    r"H100.SXM": "h100-sxm",
    r"H100.PCIe": "h100-pcie",
    r"B200.SXM": "b200-hgx",
    r"A100.SXM\S*.80": "a100-sxm4-80gb",
    r"A100.SXM\S*.40": "a100-sxm4-40gb",
    r"A100.PCIe.80": "a100-pcie-80gb",
    r"A100.PCIe.40": "a100-pcie-40gb",
    r"\bL4\b": "l4",
    r"\bL40S\b": "l40s",
    r"\bT4\b": "t4",
    r"\bA30\b": "a30",
    r"(rtx[ _-]?)?4090$": "rtx-4090",
    r"(rtx[ _-]?)?3090$": "rtx-3090",
    r"(rtx[ _-]?)?5090$": "rtx-5090",
    r"i9[ _-]10940x$": "Intel Core i9-10940X",
    r"i7[ _-]12700h$": "Intel Core i7-12700H",
    r"Jetson AGX Thor": "Jetson AGX Thor",
    r"RTX PRO 6000\D*Server": "RTX PRO 6000 Server Edition",
    r"Instinct MI300X": "AMD Instinct MI300X",
    r"Instinct MI325X": "AMD Instinct MI325X",
    r"Instinct MI350X": "AMD Instinct MI350X",
    r"Instinct MI355X": "AMD Instinct MI355X",
    r"Arc Pro B60 Dual": "Intel Arc Pro B60 Dual",
    r"pro[ _-]?6000[ _-]?maxq$": "RTX PRO 6000 Max-Q",
}
# What is left out of all other names: marks, makers, generations, kinds of memory.
_NOISE = re.compile(
    r"\(.*?\)|\[.*?\]|\bNVIDIA\b|\bGeForce\b|\bMS-(?=Intel)|\bHBM\w*|"
    r"\b\d+th Gen\b|\b\d+-Core\b|\b(?:Processor|CPU)\b|^cpu-",
    re.IGNORECASE,
)
# Hyphens within the name of a board, where a space is usual.
_HYPHENS = re.compile(r"-(?=SXM|NVL|PCIe|Ada\b|\d+GB)|(?<=RTX)-")
_PRECISIONS = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "amp": "mixed",
    "amp_bf16": "mixed",
    "amp_fp16": "mixed",
    "float8": "fp8",
    "nvfp4": "fp4",
    "mxfp4": "fp4",
    "uint8": "int8",
    "uint4": "int4",
}
_MAX_NAME = 80  # characters


@cache
def device_name(text: str) -> str:
    """A device as records name it: its id where its peaks are known, else a short plain name.

    Args:
        text: the name in a file, such as `NVIDIA H200-SXM-141GB`; empty where that has none.
    """
    plain = safe_text.line(text).strip()
    for pattern, name in _BOARDS.items():
        if re.search(pattern, plain, re.IGNORECASE):
            return name
    key = name_key(plain)
    found = [d.id for d in all_devices() if key in map(name_key, (d.id, d.name, *d.aliases))]
    if len(found) == 1:
        return found[0]
    short = " ".join(_HYPHENS.sub(" ", _NOISE.sub(" ", plain)).replace("_", " ").split())
    short = short.replace("INTEL XEON", "Intel Xeon")
    return short[:_MAX_NAME].strip(" -:") or plain[:_MAX_NAME]


def precision_name(text: str) -> str | None:
    """A precision as records name it; None where the text is not the name of one.

    Args:
        text: such as `INT8`, `bfloat16` or `amp`.
    """
    name = text.strip().lower()
    name = _PRECISIONS.get(name, name)
    return name if name in PRECISIONS else None


def precisions_named(text: str) -> list[str]:
    """All precisions that a text names, each once, in its order.

    Args:
        text: such as `fp8,fp16,int8`, or a list by layers.
    """
    words = re.findall(r"[a-z]+_?[a-z]*\d+|\bamp\b", text.lower())
    return list(dict.fromkeys(filter(None, map(precision_name, words))))


def id_of(*parts: str) -> str:
    """An id: the parts in lower case, joined by hyphens.

    Args:
        parts: text.
    """
    words = re.findall(r"[a-z0-9.]+", "-".join(parts).lower())
    return "-".join(word.strip(".") for word in words if word.strip("."))
