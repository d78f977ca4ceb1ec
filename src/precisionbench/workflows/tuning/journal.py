"""The journal of searches: what became of each configuration, so that nothing is tried twice.

A journal is a file of JSON lines. Each line has a key of everything that it depends on: where the
model, the inputs, the device, a version or the bound changes, the key changes, and the
configuration is tried again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from precisionbench._internal.cache_folder import FOLDER_VARIABLE, cache_folder, make_private
from precisionbench._internal.files import make_folder
from precisionbench._internal.paths import quoted, usable_path
from precisionbench.errors import OutputError, ResultFormatError, one_line
from precisionbench.results import json_format
from precisionbench.results.checked import WrongValueError, checked
from precisionbench.results.json_values import parse_json
from precisionbench.results.tuning import NOT_FINISHED, Trial, TuningData
from precisionbench.results.tuning_format import problem_of, problem_of_trial

_FORMAT = "precisionbench.tuning-journal"
_VERSION = 1
_DIGITS = 16


def default_journal(architecture: str, device: str) -> Path | None:
    """The journal of a model on a device; None where the user wants no cache.

    Args:
        architecture: identifies the model.
        device: name of the device.
    """
    place = cache_folder("tune")
    if place is None:
        return None
    with contextlib.suppress(OSError):  # which `Journal.opened` explains
        make_private(place)
    return place / f"{key_of(architecture, device)}.jsonl"


def key_of(*parts: Any) -> str:
    """A short text that is the same for the same JSON values.

    Args:
        parts: JSON values.
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


@attrs.frozen
class _Line:
    """A line of the file: a key, with a trial or a result."""

    key: str
    trial: Trial | None = None
    result: TuningData | None = None


@attrs.define
class Journal:
    """Trials of earlier runs by their keys, and the file that takes those of this one.

    Attributes:
        key: gives the key of a configuration.
        path: of the file; None keeps nothing.
        trials: of earlier runs by key.
        results: finished results of earlier runs by key.
        damaged: lines of the file that cannot be read.
        notes: what qualifies a result.
    """

    key: Callable[[str], str]
    path: Path | None = None
    trials: dict[str, Trial] = attrs.field(factory=dict)
    results: dict[str, TuningData] = attrs.field(factory=dict)
    damaged: int = 0
    notes: list[str] = attrs.field(factory=list)

    @classmethod
    def default(cls, path: Path | None, key: Callable[[str], str]) -> Journal:
        """The journal in a file that the user has not named; notes say why it cannot be used.

        Args:
            path: of the file; None keeps nothing.
            key: gives the key of a configuration.
        """
        try:
            return cls.opened(path, key)
        except ResultFormatError as exc:
            assert path is not None
            aside = path.with_name(f"{path.name}.unreadable")
            with contextlib.suppress(OSError):
                os.replace(path, aside)
                journal = cls.opened(path, key)
                journal.notes.append(f"{exc.reason}; it was renamed to {aside.name}")
                return journal
            return cls(key, notes=[f"nothing is kept for a later run: {exc.reason}"])
        except OutputError as exc:
            return cls(key, notes=[f"nothing is kept for a later run: {exc}"])

    @classmethod
    def opened(cls, path: str | os.PathLike[str] | None, key: Callable[[str], str]) -> Journal:
        """The journal in a file, which is made where it does not exist.

        Args:
            path: of the file; None keeps nothing.
            key: gives the key of a configuration.

        Raises:
            OutputError: the file cannot be read or written.
            ResultFormatError: it is not a journal of `tune`.
        """
        if path is None:
            return cls(key)
        file = usable_path(path, OutputError)
        journal = cls(key, file)
        journal._read(file)
        return journal

    def _read(self, path: Path) -> None:
        try:
            if not path.exists() or not path.stat().st_size:
                make_folder(path.parent)
                self._write({"format": _FORMAT, "version": _VERSION})
                return
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as exc:
            raise _unusable(path, exc) from exc
        lines = text.splitlines()
        _check_header(path, lines)
        if not text.endswith("\n"):  # the run ended while it was written
            self._append("\n")
        for line in lines[1:]:
            try:
                self._add(checked(parse_json(line), _Line))
            except ValueError:
                self.damaged += 1  # what it was of is tried again

    def _add(self, line: _Line) -> None:
        """Add what a line holds, unless it is something that a saved result could not hold."""
        if line.trial is not None and not problem_of_trial(line.trial):
            self.trials[line.key] = line.trial
        elif line.result is not None and not problem_of(line.result):
            self.results[line.key] = line.result
        else:
            raise WrongValueError("must hold a trial or a result")

    def known(self, spec: str) -> Trial | None:
        """What became of a configuration in an earlier run; None where it has to be tried.

        Args:
            spec: its canonical spec.
        """
        return self.trials.get(self.key(spec))

    def keep(self, trial: Trial) -> None:
        """Write what became of a configuration; what is not finished, or failed in a way that may
        pass, is tried again later.

        Args:
            trial: of this run, or of an earlier one, which is in the file already.
        """
        is_kept = trial.outcome != NOT_FINISHED and not trial.may_pass
        if is_kept and not trial.from_journal:
            self._write({"key": self.key(trial.spec), "trial": json_format.unstructured(trial)})

    def keep_result(self, key: str, result: TuningData) -> None:
        """Write a finished result.

        Args:
            key: of everything that it depends on.
            result: of this run.
        """
        self._write({"key": key, "result": json_format.unstructured(result)})

    def _write(self, line: dict[str, Any]) -> None:
        self._append(json.dumps(line) + "\n")

    def _append(self, text: str) -> None:
        if self.path is None:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as exc:
            raise _unusable(self.path, exc) from exc


def _unusable(path: Path, exc: OSError) -> OutputError:
    return OutputError(
        f"the journal {quoted(path)} cannot be used ({one_line(exc)})",
        f"give another file, set {FOLDER_VARIABLE}, or use journal=None",
    )


def _check_header(path: Path, lines: list[str]) -> None:
    try:
        header = parse_json(lines[0]) if lines else {}
    except ValueError:
        header = {}
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise ResultFormatError(
            f"{quoted(path)} is not a journal of tune",
            "give another name, or one of a file that tune has written",
        )
    if header.get("version") != _VERSION:
        raise ResultFormatError(
            f"{quoted(path)} is a journal of another version of precisionbench",
            "give another name",
        )
