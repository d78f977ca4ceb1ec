"""Temporary folders are removed at the end, or by the next run where their owner was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from precisionbench._internal import temporary_folder
from precisionbench._internal.temporary_folder import TemporaryFolder

fcntl = pytest.importorskip("fcntl", reason="where files cannot be locked, none is removed")

OWNER = """
import sys, time
from precisionbench._internal.temporary_folder import TemporaryFolder
folder = TemporaryFolder()
(folder.path / "weights.pt").write_bytes(b"w" * 1000)
print(folder.path, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The system's folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def owner(temporary):
    """A process that has a folder; the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_is_removed_on_leaving_with_all_that_it_holds(temporary):
    with TemporaryFolder() as folder:
        (folder / "a").mkdir()
        (folder / "a" / "file").touch()
        (folder / "file").touch()
        assert folder.parent == temporary
    assert not list(temporary.iterdir())


def test_what_a_killed_owner_has_left_is_removed_by_the_next(owner, temporary):
    process, folder = owner
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / "weights.pt").exists()
    with TemporaryFolder() as ours:
        assert list(temporary.iterdir()) == [ours]


def test_the_folder_of_an_owner_that_lives_stays(owner):
    _, folder = owner
    TemporaryFolder().remove()
    assert (folder / "weights.pt").exists()


def test_a_folder_whose_owner_was_killed_while_it_removed_it_is_removed(temporary):
    left = temporary / "precisionbench-half"
    left.mkdir()
    (left / "owner.lock").touch()
    TemporaryFolder().remove()
    assert not left.exists()


def test_an_empty_folder_is_removed_only_when_it_is_old(temporary):
    new, old = temporary / "precisionbench-new", temporary / "precisionbench-old"
    for folder in (new, old):
        folder.mkdir()
    os.utime(old, (0, time.time() - 7 * 86400))
    TemporaryFolder().remove()
    assert new.exists()
    assert not old.exists()


def test_links_are_not_followed(tmp_path_factory, temporary):
    others = tmp_path_factory.mktemp("others")
    (others / "owner.lock").touch()
    (others / "file").touch()
    (temporary / "precisionbench-link").symlink_to(others)
    abandoned = temporary / "precisionbench-left"
    abandoned.mkdir()
    (abandoned / "owner.lock").touch()
    (abandoned / "link").symlink_to(others)
    linked_lock = temporary / "precisionbench-linked-lock"
    linked_lock.mkdir()
    (linked_lock / "owner.lock").symlink_to(others / "owner.lock")
    TemporaryFolder().remove()
    assert (others / "file").exists()
    assert not abandoned.exists()
    assert linked_lock.exists()


def test_folders_of_other_programs_and_users_stay(temporary, monkeypatch):
    other = temporary / "somebody-else"
    other.mkdir()
    (other / "owner.lock").touch()
    ours = temporary / "precisionbench-left"
    ours.mkdir()
    (ours / "owner.lock").touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        TemporaryFolder().remove()
    assert other.exists()
    assert ours.exists()


def test_a_process_that_was_forked_from_the_owner_does_not_remove_its_folder():
    with TemporaryFolder() as folder:
        if not (child := os.fork()):
            TemporaryFolder.remove(made := TemporaryFolder())
            os._exit(int(made.path.exists()))
        assert os.waitpid(child, 0)[1] == 0
        assert folder.exists()


def test_folders_of_a_worker_are_made_in_that_of_its_run(temporary, monkeypatch):
    monkeypatch.setattr(temporary_folder, "_parent", None)
    with TemporaryFolder() as run:
        temporary_folder.make_in(run)
        with TemporaryFolder() as folder:
            assert folder.parent == run
        monkeypatch.setattr(temporary_folder, "_parent", None)
    assert not list(temporary.iterdir())
