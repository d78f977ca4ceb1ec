"""The folder of a study: its definition, a file for each finished cell, and what is left."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from precisionbench._internal import files
from precisionbench._internal.paths import quoted, usable_path
from precisionbench.errors import ResultFormatError, SpecError
from precisionbench.results import ComparisonData, json_format
from precisionbench.results.checked import WrongValueError, checked
from precisionbench.results.json_values import parse_json
from precisionbench.results.study import Cell, CellResult, StudyRun
from precisionbench.studies import definition as definitions
from precisionbench.studies.cells import cells_of, name_of
from precisionbench.studies.definition import Definition

DEFINITION_FILE = "study.json"
FAILED_FORMAT = "precisionbench.failed_cell"
_FAILED, _RESULT = ".failed.json", ".json"
_HEAD = 64 * 1024  # characters of a result file in which its cell is


@attrs.frozen
class FinishedCell:
    """A cell that has a file, without its measurements.

    Attributes:
        run: the cell, and how long it took.
        failure: why it failed; empty where it did not.
    """

    run: StudyRun
    failure: str = ""


class Store:
    """The folder of a study.

    Args:
        folder: its path; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # The definition

    def define(self, definition: Definition) -> None:
        """Keep the definition; one that is there already is replaced where it differs.

        Raises:
            OutputError: it cannot be written.
        """
        text, file = definitions.to_json(definition), self.folder / DEFINITION_FILE
        if not file.exists() or file.read_text(encoding="utf-8", errors="replace") != text:
            files.write_text(file, text, overwrite=True)

    def definition(self) -> Definition:
        """The definition of the study.

        Raises:
            SpecError: the folder has none, or it is damaged.
        """
        file = self.folder / DEFINITION_FILE
        if not file.exists():
            raise SpecError(
                f"the folder {quoted(self.folder)} has no study",
                "give the folder that `precisionbench study run` wrote, or the TOML file",
            )
        text, source = json_format.read_text(file)
        return definitions.from_json(text, source)

    # Cells

    def names(self) -> dict[str, bool]:
        """Names of finished cells, and whether each of them failed."""
        found: dict[str, bool] = {}
        for file in sorted(self.folder.glob(f"*{_RESULT}")):
            failed = file.name.endswith(_FAILED)
            if file.name != DEFINITION_FILE:
                found.setdefault(file.name.removesuffix(_FAILED if failed else _RESULT), failed)
        return found

    def is_finished(self, name: str, retry_failed: bool = False) -> bool:
        """Whether a cell has a file.

        Args:
            name: of the cell.
            retry_failed: a file that says why the cell failed does not count.
        """
        if (self.folder / f"{name}{_RESULT}").exists():
            return True
        return not retry_failed and (self.folder / f"{name}{_FAILED}").exists()

    def save(self, name: str, data: ComparisonData) -> None:
        """Write the result of a cell; it takes the place of an earlier failure.

        Args:
            name: of the cell.
            data: of the cell, with its `study`.

        Raises:
            OutputError: it cannot be written; OutputExistsError where the cell has a result.
        """
        files.write_text(self.folder / f"{name}{_RESULT}", json_format.to_json(data))
        with contextlib.suppress(OSError):
            (self.folder / f"{name}{_FAILED}").unlink(missing_ok=True)

    def save_failure(self, name: str, run: StudyRun, failure: str) -> None:
        """Write why a cell failed.

        Args:
            name: of the cell.
            run: the cell, and how long it took to fail.
            failure: what is wrong, and what to do next.

        Raises:
            OutputError: it cannot be written.
        """
        document = {
            "format": FAILED_FORMAT,
            "version": 1,
            "study": json_format.unstructured(run),
            "failure": failure,
        }
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        files.write_text(self.folder / f"{name}{_FAILED}", text, overwrite=True)

    def finished(self, name: str, failed: bool) -> FinishedCell | None:
        """A finished cell without its measurements; None where the file is of no study.

        Args:
            name: as `names` gives it.
            failed: as `names` gives it.

        Raises:
            ResultFormatError: the file is damaged.
        """
        text, source = json_format.read_text(self._file(name, failed))
        if failed:
            return _failure(text, source)
        run = _head(text, source)
        return None if run is None else FinishedCell(run)

    def result(self, name: str, failed: bool) -> CellResult | None:
        """A finished cell with its measurements; None where the file is of no study.

        Args:
            name: as `names` gives it.
            failed: as `names` gives it.

        Raises:
            ResultFormatError: the file is damaged.
        """
        text, source = json_format.read_text(self._file(name, failed))
        if failed:
            found = _failure(text, source)
            return CellResult(found.run.cell, None, found.failure, found.run.wall_s)
        data = json_format.from_json(text, source)
        run = data.study
        return None if run is None else CellResult(run.cell, data, wall_s=run.wall_s)

    def _file(self, name: str, failed: bool) -> Path:
        return self.folder / f"{name}{_FAILED if failed else _RESULT}"


def _failure(text: str, source: str) -> FinishedCell:
    try:
        document = parse_json(text)
        if not isinstance(document, dict) or document.get("format") != FAILED_FORMAT:
            raise ValueError(f"its 'format' is not {FAILED_FORMAT!r}")
        run = checked(document.get("study"), StudyRun)
        return FinishedCell(run, str(document.get("failure") or "the reason is not recorded"))
    except (ValueError, WrongValueError) as exc:
        raise ResultFormatError(
            f"{source} does not say why a cell failed ({exc})", "delete it to measure the cell"
        ) from exc


def _head(text: str, source: str) -> StudyRun | None:
    """The cell at the start of a result file; the rest of it may be large."""
    key = '"study": '
    start = text.find(key, 0, _HEAD)
    if start < 0:
        return json_format.from_json(text, source).study
    try:
        document, _ = json.JSONDecoder().raw_decode(text, start + len(key))
        return checked(document, StudyRun)
    except (ValueError, RecursionError) as exc:
        raise ResultFormatError(
            f"{source} is a damaged precisionbench result ({exc})", "delete it to measure the cell"
        ) from exc


def open_store(folder: Any) -> Store:
    """The store in a folder that a study wrote.

    Args:
        folder: its path.

    Raises:
        SpecError: there is no such folder.
    """
    place = usable_path(folder, SpecError)
    if not place.is_dir():
        raise SpecError(f"there is no folder {quoted(place)}", "check the path, or run the study")
    return Store(place)


def load_cells(folder: Any) -> tuple[CellResult, ...]:
    """The finished cells of a study, with their measurements.

    Files that the folder's definition would not give, because it was changed since, are left out.

    Args:
        folder: of the study.

    Returns:
        Cells by device, and for each device in the order of the definition.

    Raises:
        SpecError: there is no such folder, or it has no definition.
        ResultFormatError: a file is damaged.
    """
    store = open_store(folder)
    definition = store.definition()
    found = (store.result(name, failed) for name, failed in _of(store, definition))
    return in_order([one for one in found if one is not None], definition)


def _of(store: Store, definition: Definition) -> Iterator[tuple[str, bool]]:
    """The files of this definition: a file's name has a hash of it."""
    for name, failed in store.names().items():
        known = store.finished(name, failed)
        if known is not None and name_of(known.run.cell, definition) == name:
            yield name, failed


def finished_cells(store: Store, definition: Definition) -> tuple[FinishedCell, ...]:
    """The finished cells of a study, without their measurements.

    Args:
        store: of the study.
        definition: of the study.

    Raises:
        ResultFormatError: a file is damaged.
    """
    found = (store.finished(name, failed) for name, failed in _of(store, definition))
    return tuple(one for one in found if one is not None)


def in_order(results: Sequence[CellResult], definition: Definition) -> tuple[CellResult, ...]:
    """Cells by device, and for each device in the order of the definition.

    Args:
        results: in any order.
        definition: of the study.
    """
    devices = sorted({one.cell.device for one in results})
    planned = [cell for device in devices for cell in cells_of(definition, device)]
    place = {cell: number for number, cell in enumerate(planned)}

    def key(one: CellResult) -> tuple[str, int, str]:
        return one.cell.device, place.get(one.cell, len(place)), _words(one.cell)

    return tuple(sorted(results, key=key))


def _words(cell: Cell) -> str:
    return repr(attrs.astuple(cell))
