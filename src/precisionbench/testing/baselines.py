"""Baselines: comparisons saved for a test, with which its later runs are compared."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from precisionbench._internal import files
from precisionbench.analysis.variation import count_rounds, least_interval_rounds
from precisionbench.comparison import Comparison, load
from precisionbench.errors import IncomparableError
from precisionbench.testing.assertions import assert_not_slower, change_text

_MAX_NAME = 100  # bytes of a test's name in the name of its file
_REPLACE = "make a new one with --precisionbench-save --precisionbench-overwrite"


def file_name(test: str, number: int) -> str:
    """The file name of a test's baseline: readable and unique.

    Args:
        test: the test's id.
        number: of the comparison within the test, from 1.
    """
    words = re.sub(r"[^\w.-]+", "-", test).strip("-").encode()[-_MAX_NAME:]
    readable = words.decode(errors="ignore")  # without half a character
    digest = hashlib.sha256(test.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{readable}-{digest}{f'-{number}' if number > 1 else ''}.json"


def is_to_be_saved(file: Path, *, save: bool, overwrite: bool) -> bool:
    """Whether a comparison becomes the baseline, instead of being compared with it.

    Args:
        file: of the baseline.
        save: write the baseline if there is none.
        overwrite: with `save`, replace an existing baseline.
    """
    return save and (overwrite or not file.exists())


def check_baseline(comparison: Comparison, file: Path, *, save: bool, overwrite: bool) -> str:
    """Compare a comparison with its baseline, or save it as the baseline.

    Args:
        comparison: the new run.
        file: of the baseline.
        save: write the baseline if there is none.
        overwrite: with `save`, replace an existing baseline.

    Returns:
        The result in one sentence.

    Raises:
        AssertionError: a row became slower, or fails now.
        IncomparableError: the baseline was measured under other conditions; the reason names each.
            Or a run that is to become the baseline has too few rounds for a comparison with it.
        ResultFormatError: the file is not a result.
        OutputError: the baseline cannot be written.
    """
    if is_to_be_saved(file, save=save, overwrite=overwrite):
        _check_rounds(comparison)
        files.make_folder(file.parent)
        comparison.save(file, overwrite=overwrite)
        return f"saved as the baseline {file}"
    if not file.exists():
        return f"there is no baseline {file}; --precisionbench-save makes one"
    try:
        found = assert_not_slower(comparison, load(file))
    except IncomparableError as exc:
        raise IncomparableError(
            f"the baseline {file} was measured under other conditions: {exc.reason}", _REPLACE
        ) from exc
    rows = "; ".join(map(change_text, found.rows))
    return f"no row is significantly slower than the baseline of {found.old_created}: {rows}"


def _check_rounds(comparison: Comparison) -> None:
    """Refuse a baseline with which every later run would be inconclusive."""
    for row in comparison:
        blocks = row.measurement.blocks
        rounds, least = count_rounds(blocks), least_interval_rounds(blocks)
        if rounds < least:
            raise IncomparableError(
                f"this run cannot become the baseline: {row.backend} was measured in {rounds} "
                f"{'round' if rounds == 1 else 'rounds'}, and a comparison needs at least {least}",
                "give a larger budget, or fewer backends",
            )
