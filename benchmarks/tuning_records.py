"""The record of `benchmarks/tuning.py`: written after each step, and merged from several runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs


@attrs.define
class Record:
    """What a run has found so far, in a file.

    Attributes:
        path: of the file.
        environment: where it runs.
        cases: of each model.
        left_out: models that were not tuned, with the reason.
    """

    path: Path
    environment: Mapping[str, Any]
    cases: list[dict[str, Any]] = attrs.field(factory=list)
    left_out: dict[str, str] = attrs.field(factory=dict)

    def begin(self, **case: Any) -> dict[str, Any]:
        """A new case, to be filled; `write` writes it as far as it is."""
        self.cases.append(case)
        return case

    def write(self) -> None:
        """Replace the file by what is known now; a run that is killed leaves a whole file."""
        found = {
            "environment": dict(self.environment),
            "cases": self.cases,
            "left_out": self.left_out,
        }
        part = self.path.with_name(f"{self.path.name}.part")
        part.write_text(json.dumps(found, indent=1, default=str))
        os.replace(part, self.path)


def merged(paths: Iterable[Path], path: Path, order: Iterable[str]) -> Record:
    """One record of several runs; of a model in several, the one that got furthest.

    Args:
        paths: files of runs on the same kind of device, with the same versions.
        path: of the merged file, which is not written yet.
        order: names of the models.

    Raises:
        SystemExit: the runs differ in their device or versions.
    """
    files = {one: json.loads(one.read_text()) for one in paths}
    first, *others = files
    for other in others:
        if differing := different(files[first]["environment"], files[other]["environment"]):
            raise SystemExit(f"{first} and {other} differ in {', '.join(differing)}")
    found: dict[str, dict[str, Any]] = {}
    for case in (case for file in files.values() for case in file["cases"]):
        known = found.get(case["model"])
        if known is None or _steps(case) >= _steps(known):
            found[case["model"]] = case
    left_out = {name: why for file in files.values() for name, why in file["left_out"].items()}
    record = Record(path, files[first]["environment"])
    record.cases = [found[name] for name in order if name in found]
    record.left_out = {name: why for name, why in left_out.items() if name not in found}
    return record


def different(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What is not the same of two environments, of what figures depend on.

    Args:
        one: of a record.
        other: of another one.
    """
    names = ("torch", "cuda", "cudnn", "cpu", "packages")
    differing = [name for name in names if one.get(name) != other.get(name)]
    gpus = [(found.get("gpu") or {}).get("name") for found in (one, other)]
    return [*differing, *(["gpu"] if gpus[0] != gpus[1] else [])]


def _steps(case: Mapping[str, Any]) -> int:
    """How far a model got: tuned, tried on fresh inputs, compared with what is done by hand."""
    return sum(name in case for name in ("best", "fresh_errors", "best_by_hand"))
