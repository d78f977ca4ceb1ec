"""What a measuring command leaves on the disk, however it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

import precisionbench as pb
from full_disk import files_limited_to
from made_up_results import comparison_data
from precisionbench.cli.exit_codes import Interrupted
from precisionbench.cli.result_files import ResultFiles
from precisionbench.errors import OutputError, OutputExistsError, WorkloadError
from test_faults import lines_of

RESULT = pb.Comparison(comparison_data())
SAVED = ResultFiles("r.json", None, overwrite=False)
REPORT = ResultFiles(None, "r.html", overwrite=False)
BOTH = ResultFiles("r.json", "r.html", overwrite=False)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names() -> list[str]:
    return sorted(entry.name for entry in Path().iterdir())


def measured(files: ResultFiles) -> Path:
    """The journal after a measurement."""
    with files.journal() as journal:
        assert journal is not None
        journal.write_text(lines_of())
    return journal


@pytest.mark.parametrize("files", [SAVED, REPORT, BOTH])
def test_nothing_but_the_files_asked_for_is_left(files):
    journal = measured(files)
    files.save(RESULT, journal)
    files.write_report(RESULT, journal)
    assert names() == sorted(filter(None, (files.output, files.html)))


def test_a_name_taken_meanwhile_costs_nothing():
    journal = measured(SAVED)
    Path("r.json").write_text("somebody else's")
    with pytest.raises(
        OutputExistsError, match="'r.json' exists; the result is in 'r.json.journal' instead"
    ):
        SAVED.save(RESULT, journal)
    assert Path("r.json").read_text() == "somebody else's"
    assert pb.load("r.json.journal") == RESULT


def test_on_a_full_disk_the_error_names_the_journal():
    journal = measured(SAVED)
    full = pytest.raises(
        OutputError,
        match="'r.json' could not be written .*; those rounds that could be written are kept; "
        "precisionbench show 'r.json.journal' has them",
    )
    with files_limited_to(1000), full:
        SAVED.save(RESULT, journal)
    assert names() == ["r.json.journal"]
    assert len(pb.load("r.json.journal"))


def test_a_report_that_cannot_be_written_leaves_the_result():
    journal = measured(REPORT)
    Path("r.html").touch()
    with pytest.raises(OutputError, match="the result is in 'r.html.journal' instead"):
        REPORT.write_report(RESULT, journal)
    assert pb.load("r.html.journal") == RESULT


def test_a_report_that_cannot_be_written_beside_its_result_says_where_that_is():
    journal = measured(BOTH)
    BOTH.save(RESULT, journal)
    Path("r.html").touch()
    with pytest.raises(OutputError, match="the result is in 'r.json'"):
        BOTH.write_report(RESULT, journal)
    assert names() == ["r.html", "r.json"]


def end(error: BaseException, journal_text: str) -> None:
    """Let a measurement end with an error."""
    with SAVED.journal() as journal:
        assert journal is not None
        journal.write_text(journal_text)
        raise error


def test_an_error_before_any_round_leaves_nothing(capsys):
    with pytest.raises(WorkloadError):
        end(WorkloadError("there is no such model"), "")
    assert names() == []
    assert capsys.readouterr().err == ""


def test_an_error_after_some_rounds_says_that_they_are_kept(capsys):
    with pytest.raises(RuntimeError):
        end(RuntimeError("a bug"), lines_of())
    assert "precisionbench show 'r.json.journal' has them" in capsys.readouterr().err
    assert names() == ["r.json.journal"]


def test_rounds_before_a_change_of_the_schedule_are_none():
    with pytest.raises(Interrupted, match="no round was finished"):
        end(KeyboardInterrupt(), lines_of({"schedule": "restarts"}))
    assert names() == []


def test_ctrl_c_leaves_the_journal_of_another_run_of_the_same_result():
    with SAVED.journal() as other:
        with pytest.raises(Interrupted, match="no round was finished"):
            end(KeyboardInterrupt(), "")
        with pytest.raises(Interrupted, match="'r.json.2.journal' has them"):
            end(KeyboardInterrupt(), lines_of())
        assert other is not None
        assert names() == ["r.json.2.journal", other.name]
