from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import precisionbench as pb
from full_disk import files_limited_to
from made_up_results import comparison_data
from precisionbench import published
from precisionbench._internal import files, paths
from precisionbench._internal.temporary_folder import TemporaryFolder
from precisionbench.cli.main import main
from precisionbench.errors import (
    OutputError,
    OutputExistsError,
    PublishedDataError,
    ResultFormatError,
    SpecError,
    WorkloadError,
)
from precisionbench.measure.worker.pool import WorkerPool
from precisionbench.results.journal import Journal, claim_file
from precisionbench.scriptcheck.check import check
from precisionbench.torchtools.saving import save

COMPARISON = pb.Comparison(comparison_data())
IS_ROOT = os.geteuid() == 0


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# Names


WRITERS: dict[str, Callable[[object], object]] = {
    "save": COMPARISON.save,
    "to_html": COMPARISON.to_html,
    "journal": lambda path: Journal(path, {}, []),  # type: ignore[arg-type]
}
READERS: dict[str, tuple[Callable[[object], object], type[Exception]]] = {
    "load": (pb.load, ResultFormatError),
    "published": (lambda path: published.find(file=path), PublishedDataError),  # type: ignore
    "check": (check, SpecError),  # type: ignore[dict-item]
}
IMPOSSIBLE = {
    "long": ("a" * 300, "too long for a file name"),
    "long in all": ("a/" * 3000, "too long for a file name"),
    "a lone surrogate": ("a\ud800", "a character that no file name can have"),
    "a null character": ("a\0b", "a character that no file name can have"),
    "empty": ("", "the name of the file is empty"),
    "no path": (3, "3 is not a path"),
}
UNWRITABLE = {
    **IMPOSSIBLE,
    "a folder": ("folder", "is a folder; give the name of a file in it"),
    "named as a folder": ("new/", "is a folder; give the name of a file in it"),
    "no folder": ("missing/r", "there is no folder 'missing'; create it"),
    "a file for a folder": ("file/r", "there is no folder 'file'; create it"),
    "a circle of links": ("circle", "leads nowhere"),
    "a pipe": ("pipe", "is a device or a pipe; give the name of a file"),
    "a device": ("/dev/null", "is a device or a pipe; give the name of a file"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    Path("circle").symlink_to("circle")
    os.mkfifo("pipe")
    return tmp_path


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("case", UNWRITABLE)
def test_a_file_that_cannot_be_written_is_one_sentence(here, writer, case):
    path, message = UNWRITABLE[case]
    before = names(here)
    with pytest.raises(OutputError, match=message) as caught:
        WRITERS[writer](path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 350
    assert names(here) == before


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_a_file_that_cannot_exist_is_not_read(reader, case):
    read, refusal = READERS[reader]
    path, message = IMPOSSIBLE[case]
    with pytest.raises(refusal, match=message):
        read(path)


@pytest.mark.parametrize("path", ["a" * 300, "a\ud800", "a\0b", ""])
@pytest.mark.parametrize(
    "command", ["show", "explain", "check", "published --file", "show r.json --html", "diff r.json"]
)
def test_a_name_on_the_command_line_that_no_file_has_is_bad_usage(here, command, path):
    COMPARISON.save("r.json")
    done = CliRunner().invoke(main, [*command.split(), path])
    assert done.exit_code == 2, done.output
    assert "file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_name_in_any_bytes_is_written_and_read(tmp_path):
    if os.fsencode("\udcff") != b"\xff":
        pytest.skip("names are text here")
    name = os.fsencode(tmp_path) + b"/\xff.json"
    COMPARISON.save(name)  # type: ignore[arg-type]
    assert pb.load(name) == COMPARISON  # type: ignore[arg-type]


def test_an_error_shows_both_ends_of_a_long_path():
    shown = paths.quoted("/home/" + "a" * 1000 + "/r.json")
    assert shown.startswith("'/home/aaa")
    assert shown.endswith("aaa/r.json'")
    assert len(shown) < 250


# Writing


def test_a_file_created_meanwhile_is_not_overwritten(tmp_path):
    file = tmp_path / "r.json"
    file.write_text("somebody else's")
    with pytest.raises(FileExistsError):  # `write_text` has looked before
        files.write_whole(file, b"ours", overwrite=False)
    assert file.read_text() == "somebody else's"
    assert names(tmp_path) == ["r.json"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_one_of_many_that_write_a_file_at_once_wins(tmp_path, overwrite):
    file, texts = tmp_path / "r.json", [str(number) * 10_000 for number in range(8)]
    refused: list[OutputExistsError] = []

    def write(text: str) -> None:
        try:
            files.write_text(file, text, overwrite=overwrite)
        except OutputExistsError as exc:
            refused.append(exc)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read_text() in texts
    assert len(refused) == (0 if overwrite else 7)
    assert names(tmp_path) == ["r.json"]


@pytest.mark.parametrize("existing", [None, "old"])
def test_a_write_to_a_full_disk_leaves_what_was_there(tmp_path, existing):
    file = tmp_path / "r.json"
    if existing:
        file.write_text(existing)
    full = pytest.raises(OutputError, match="r.json' could not be written .*; free space there")
    with files_limited_to(1000), full:
        files.write_text(file, "new" * 1000, overwrite=True)
    assert names(tmp_path) == (["r.json"] if existing else [])
    assert existing is None or file.read_text() == existing


def test_a_file_system_without_hard_links_is_supported(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    files.write_text(tmp_path / "r.json", "text")
    assert (tmp_path / "r.json").read_text() == "text"
    with pytest.raises(FileExistsError):
        files.write_whole(tmp_path / "r.json", b"new", overwrite=False)
    assert (tmp_path / "r.json").read_text() == "text"
    assert names(tmp_path) == ["r.json"]


def test_other_errors_of_a_link_are_reported(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", broken)
    with pytest.raises(OutputError, match="Input/output error"):
        files.write_text(tmp_path / "r.json", "text")
    assert names(tmp_path) == []


def test_text_that_is_no_unicode_is_written_escaped(tmp_path):
    files.write_text(tmp_path / "r.html", "a model of the name \ud800")
    assert (tmp_path / "r.html").read_text() == "a model of the name \\ud800"


@pytest.mark.skipif(IS_ROOT, reason="root may write everywhere")
def test_a_folder_without_permission_is_an_error_before_measuring(tmp_path):
    for mode in (0o500, 0o000):
        tmp_path.chmod(mode)
        with pytest.raises(OutputError, match="r.json' could not be written .Permission denied"):
            files.check_writable(tmp_path / "r.json", overwrite=False)
    tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no folder that takes no file")
def test_a_folder_that_takes_no_file_is_an_error_before_measuring():
    with pytest.raises(OutputError, match="'/proc/self/r.json' could not be written"):
        files.check_writable("/proc/self/r.json", overwrite=False)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="the folder '.*file/engines' cannot be made"):
        files.make_folder(tmp_path / "file/engines")
    assert files.make_folder(tmp_path / "cache/engines").is_dir()


# Permissions


def test_a_new_file_has_the_permissions_that_any_new_file_has(tmp_path):
    (tmp_path / "any").touch()
    COMPARISON.save(tmp_path / "r.json")
    assert (tmp_path / "r.json").stat().st_mode == (tmp_path / "any").stat().st_mode


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o444])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path, mode):
    file = tmp_path / "r.json"
    COMPARISON.save(file)
    file.chmod(mode)
    COMPARISON.save(file, overwrite=True)
    assert stat.S_IMODE(file.stat().st_mode) == mode


def test_files_that_threads_create_meanwhile_keep_to_the_umask(tmp_path):
    ended = threading.Event()

    def create_files() -> None:
        number = 0
        while not ended.is_set():
            (tmp_path / f"theirs-{number}").touch()
            number += 1

    thread = threading.Thread(target=create_files)
    thread.start()
    for number in range(100):
        files.write_text(tmp_path / f"ours-{number}", "text")
    ended.set()
    thread.join()
    assert len({file.stat().st_mode for file in tmp_path.iterdir()}) == 1


def test_the_umask_is_never_set(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("it belongs to the whole process"))
    COMPARISON.save(tmp_path / "r.json")
    COMPARISON.save(tmp_path / "r.json", overwrite=True)
    COMPARISON.to_html(tmp_path / "r.html")
    Journal(tmp_path / "journal", {}, []).close()


# Links


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "target.json").write_text("old")
    (tmp_path / "link.json").symlink_to("target.json")
    (tmp_path / "folder").symlink_to(".")
    files.write_text(tmp_path / "folder/link.json", "new", overwrite=True)
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "target.json").read_text() == "new"


def test_a_path_without_links_is_where_the_system_would_write(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/b")
    (tmp_path / "absolute").symlink_to(tmp_path / "link")
    for path in ("link/../x", "absolute/x", "a/./b/x", "a/new/x"):
        found = paths.without_links(tmp_path / path)
        assert str(found) == os.path.realpath(tmp_path / path)


def status(mode: int, user: int) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, user, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("folder", "owner_of_link", "follow"),
    [
        (status(0o755, user=0), 7, True),  # nobody else can have put it there
        (status(0o1777, user=0), 1000, True),  # the user's own
        (status(0o1777, user=0), 0, True),
        (status(0o1777, user=0), 7, False),
        (status(0o777, user=1000), 7, False),
        (status(0o775, user=1000), 7, False),
        (status(0o2775, user=7), 7, True),  # whoever owns the folder can do worse
    ],
)
def test_links_of_others_in_folders_that_they_can_write_to_are_not_followed(
    folder, owner_of_link, follow
):
    link = status(stat.S_IFLNK | 0o777, user=owner_of_link)
    assert paths.may_follow(link, folder, user=1000) == follow


@pytest.mark.skipif(not IS_ROOT, reason="only root can make a link of another user")
@pytest.mark.parametrize("target", ["existing", "new"])
@pytest.mark.parametrize("place", ["r.json", "folder/r.json"])
def test_nothing_is_written_through_the_link_of_another_user(tmp_path, target, place):
    shared, mine = tmp_path / "shared", tmp_path / "mine"
    shared.mkdir()
    shared.chmod(0o1777)
    (mine / "existing").mkdir(parents=True)
    link = shared / Path(place).parts[0]
    link.symlink_to(mine / target)
    os.lchown(link, 12345, 12345)
    for write in (*WRITERS.values(), lambda path: COMPARISON.save(path, overwrite=True)):
        with pytest.raises(OutputError):
            write(shared / place)
    assert names(mine) == ["existing"]
    assert names(mine / "existing") == []


def test_a_journal_does_not_follow_a_link_in_its_own_place(tmp_path):
    (tmp_path / "r.json.journal").symlink_to("target")
    assert claim_file(tmp_path / "r.json").name == "r.json.2.journal"
    with pytest.raises(OutputExistsError):
        Journal(tmp_path / "r.json.journal", {}, [])
    assert names(tmp_path) == ["r.json.2.journal", "r.json.journal"]


# Journals


def test_two_comparisons_of_one_result_have_two_journals(tmp_path):
    first, second = claim_file(tmp_path / "r.json"), claim_file(tmp_path / "r.json")
    assert [first.name, second.name] == ["r.json.journal", "r.json.2.journal"]
    Journal(first, {}, []).close()
    with pytest.raises(OutputExistsError, match="the journal .* exists; choose another name"):
        Journal(first, {}, [])


@pytest.mark.parametrize("letter", ["a", "é"])
def test_the_longest_name_of_a_result_leaves_room_for_its_journal(tmp_path, letter):
    output = tmp_path / (letter * (255 // len(letter.encode())))
    first, second = claim_file(output), claim_file(output)
    assert first.name.endswith(f"{letter}.journal")
    assert second.name.endswith(f"{letter}.2.journal")


def test_a_disk_that_is_full_before_the_measurement_is_an_error_then(tmp_path):
    full = pytest.raises(OutputError, match="the journal .* could not be written .*; free space")
    with files_limited_to(1000), full:
        Journal(tmp_path / "journal", {"notes": "n" * 2000}, [])
    assert names(tmp_path) == []


# Temporary folders


def test_without_a_folder_for_temporary_files_the_error_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    message = "missing/precisionbench-.*; set TMPDIR to a folder"
    with pytest.raises(OutputError, match=message):
        TemporaryFolder()


def test_a_model_that_the_disk_cannot_hold_for_the_workers_is_no_fault_of_the_model():
    message = "the temporary file '.*model.pt' could not be written .*; free space there"
    with WorkerPool() as pool:
        with files_limited_to(1000), pytest.raises(OutputError, match=message):
            pool.write("model.pt", torch.nn.Linear(100, 100))
        assert names(pool.folder) == ["owner.lock"]
        assert pool.write("model.pt", torch.nn.Linear(100, 100)).exists()


class Unpicklable:
    """Fails with the class of error that torch raises on a full disk."""

    def __reduce__(self):
        raise RuntimeError("not for you")


def test_a_model_that_cannot_be_pickled_is_no_fault_of_the_disk():
    message = "cannot be sent to a worker process .RuntimeError: not for you"
    with WorkerPool() as pool, pytest.raises(WorkloadError, match=message):
        pool.write("model.pt", Unpicklable())


def test_a_device_is_not_removed_where_writing_to_it_fails():
    master, slave = os.openpty()
    name = os.ttyname(slave)
    with pytest.raises(RuntimeError, match="not for you"):
        save(Unpicklable(), name)
    assert Path(name).is_char_device()
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_tensors_are_read_as_they_were_saved(tmp_path, size):
    values = {"": torch.rand(size), "empty": torch.empty(0)}
    save(values, tmp_path / "values.pt")
    for options in ({}, {"mmap": True}):
        found = torch.load(tmp_path / "values.pt", **options)
        assert all(torch.equal(found[name], value) for name, value in values.items())
