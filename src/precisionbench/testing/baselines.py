"""A comparison held against the one that was saved for the same test."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from precisionbench.comparison import Comparison, load
from precisionbench.errors import IncomparableError
from precisionbench.testing.assertions import assert_not_slower, change_text

_MOST_NAME = 100  # of the letters in a file's name, which a test's name may exceed
_REPLACE = "make a new one with --precisionbench-save --precisionbench-overwrite"


def file_name(test: str, number: int) -> str:
    """The name of a test's file: readable, and its own even where two tests read alike.

    Args:
        test: the test's id.
        number: which of its comparisons, from 1.
    """
    readable = re.sub(r"[^\w.-]+", "-", test).strip("-")[-_MOST_NAME:]
    digest = hashlib.sha256(test.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{readable}-{digest}{f'-{number}' if number > 1 else ''}.json"


def hold(comparison: Comparison, file: Path, *, save: bool, overwrite: bool) -> str:
    """Hold a comparison against its baseline, or make it the baseline.

    Args:
        comparison: the run to judge.
        file: of the baseline.
        save: write the baseline where there is none.
        overwrite: with `save`, replace the baseline that there is.

    Returns:
        What came of it, in a sentence.

    Raises:
        AssertionError: a row became slower, or fails now.
        IncomparableError: the baseline was made under other conditions; the reason names each.
        ResultFormatError: the file is no result.
        OutputError: the baseline cannot be written.
    """
    if save and (overwrite or not file.exists()):
        comparison.save(file, overwrite=overwrite)
        return f"saved as the baseline {file}"
    if not file.exists():
        return f"there is no baseline {file}; --precisionbench-save makes one"
    try:
        found = assert_not_slower(comparison, load(file))
    except IncomparableError as exc:
        raise IncomparableError(
            f"the baseline {file} is not like this run: {exc.reason}", _REPLACE
        ) from exc
    rows = "; ".join(map(change_text, found.rows))
    return f"no row is told to be slower than the baseline of {found.old_created}: {rows}"
