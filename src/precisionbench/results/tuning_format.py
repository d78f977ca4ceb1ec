"""Results of `tune` as versioned JSON: what `Tuned.save` writes and `load_tuned` reads.

Reading a file evaluates and unpickles nothing.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from precisionbench.errors import ResultFormatError
from precisionbench.results import json_format
from precisionbench.results.json_values import Json, described
from precisionbench.results.limits import Limit
from precisionbench.results.tuning import BEYOND, OUTCOMES, UNCLEAR, WITHIN, Trial, TuningData
from precisionbench.statistics import Interval

FORMAT = "precisionbench.tuning"
VERSION = 1
_OURS = "give a file that Tuned.save() or `precisionbench tune --output` wrote"
_BEGINNING = re.compile(rf'\s*\{{\s*"format"\s*:\s*"{re.escape(FORMAT)}"')
_LONGEST_BEGINNING = 200  # characters
_SPEEDUP = Limit(1e-100, 1e100, least=0.0)  # as `Interval.exp` limits it
_VERDICTS = (WITHIN, BEYOND, UNCLEAR)


def to_json(data: TuningData) -> str:
    """The result as JSON text.

    Args:
        data: the result.

    Returns:
        Indented JSON with its format name and version first.
    """
    return json.dumps(as_document(data), indent=1, allow_nan=False) + "\n"


def as_document(data: TuningData) -> dict[str, Any]:
    """The result as JSON values; its final rounds have a format name and version of their own.

    Args:
        data: the result.
    """
    final = json_format.as_document(data.final)
    return {
        "format": FORMAT,
        "version": VERSION,
        **json_format.unstructured(data),
        "final": final,
    }


def is_tuning(text: str) -> bool:
    """Whether the text of a file begins as `to_json` does."""
    return _BEGINNING.match(text) is not None


def is_tuning_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as `to_json` does; false where it cannot be read.

    Args:
        path: of any file.
    """
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return is_tuning(file.read(_LONGEST_BEGINNING))
    except (OSError, ValueError):
        return False


def load(path: str | os.PathLike[str]) -> TuningData:
    """The result in a file.

    Args:
        path: a file that `to_json` filled.

    Raises:
        ResultFormatError: it is missing, or as for `from_json`.
    """
    return from_json(*json_format.read_text(path, _OURS))


def from_json(text: str, source: str = "this text") -> TuningData:
    """The result in a JSON text.

    Args:
        text: the result of `to_json`.
        source: name of the file, for the error.

    Raises:
        ResultFormatError: the text is incomplete, another format, or of an unknown version.
    """
    document = json_format.parsed(text, source, _OURS)
    _check_header(document, source)
    if "final" in document:
        json_format.bring_up_to_date(document["final"], f"the final comparison in {source}")
    data = json_format.as_declared(document, TuningData, source)
    if wrong := problem_of(data):
        raise json_format.damaged(source, wrong)
    return data


def _check_header(document: Json, source: str) -> None:
    name = document.pop("format", None) if isinstance(document, dict) else None
    if name == json_format.FORMAT:
        raise ResultFormatError(
            f"{source} is a comparison, not a tuning result",
            "pb.load reads it, and `precisionbench show` shows it",
        )
    if name != FORMAT:
        raise ResultFormatError(
            f"{source} is not a tuning result of precisionbench (its 'format' is not {FORMAT!r})",
            _OURS,
        )
    version = document.pop("version", None)
    if type(version) is not int or version != VERSION:
        raise ResultFormatError(
            f"{source} has format version {described(version)}, and this precisionbench reads "
            f"version {VERSION}",
            "upgrade precisionbench, or tune again with this one",
        )


def problem_of(data: TuningData) -> str:
    """Why the parts of a result contradict each other; empty where they do not.

    Args:
        data: of which each value has the type of its field.
    """
    if data.reference != data.final.reference:
        return "reference is not that of the final comparison"
    if data.best not in {trial.spec for trial in data.trials}:
        return f"best is {described(data.best)}, which is none of the trials"
    if not data.bound.limit >= 0:
        return "bound.limit must be 0 or more"
    problems = ((n, problem_of_trial(trial)) for n, trial in enumerate(data.trials))
    return next((f"trials[{n}].{problem}" for n, problem in problems if problem), "")


def problem_of_trial(trial: Trial) -> str:
    """What is wrong in a trial; empty where nothing is.

    Args:
        trial: of which each value has the type of its field.
    """
    accuracy, speedup = trial.accuracy, trial.speedup
    if trial.outcome not in OUTCOMES:
        return f"outcome must be one of {', '.join(OUTCOMES)}, and is {described(trial.outcome)}"
    if accuracy and accuracy.verdict not in _VERDICTS:
        return f"accuracy.verdict must be one of {', '.join(_VERDICTS)}"
    if accuracy and accuracy.loss and not _is_ordered(accuracy.loss):
        return "accuracy.loss must be within its interval"
    if speedup and not (_is_ordered(speedup) and _is_ratio(speedup)):
        return f"speedup must be within its interval, {_SPEEDUP}"
    return ""


def _is_ratio(interval: Interval) -> bool:
    return _SPEEDUP.includes(interval.low) and _SPEEDUP.includes(interval.high)


def _is_ordered(interval: Interval) -> bool:
    return interval.low <= interval.value <= interval.high
