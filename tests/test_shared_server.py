"""One server forks the workers of all comparisons of a process, and imports what models need."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from precisionbench.measure.worker.clean_imports import imports_cleanly
from precisionbench.measure.worker.fork_client import ForkServer, can_fork
from precisionbench.measure.worker.process import Worker
from precisionbench.measure.worker.shared_server import SharedServer
from precisionbench.model.libraries import library_modules

pytestmark = pytest.mark.skipif(not can_fork(), reason="workers are forked on Linux only")


@pytest.fixture
def shared() -> Iterator[SharedServer]:
    shared = SharedServer()
    yield shared
    shared.close()


def test_the_server_is_kept_for_the_next_comparison(shared):
    with shared.in_use() as first:
        pass
    with shared.in_use() as second, shared.in_use() as nested:
        assert first is second is nested
        assert first.is_usable


def test_a_changed_environment_gives_a_new_server(shared, monkeypatch):
    with shared.in_use() as first:
        pass
    monkeypatch.setenv("PRECISIONBENCH_TEST_VALUE", "1")
    with shared.in_use() as second:
        assert second is not first
        assert not first.is_usable
        monkeypatch.setenv("PRECISIONBENCH_TEST_VALUE", "2")
        with shared.in_use() as nested:  # its workers are still needed
            assert nested is second


@pytest.mark.parametrize("change", ["folder", "import path"])
def test_another_folder_or_import_path_gives_a_new_server(shared, tmp_path, monkeypatch, change):
    with shared.in_use() as first:
        pass
    if change == "folder":
        monkeypatch.chdir(tmp_path)
    else:
        monkeypatch.syspath_prepend(str(tmp_path))
    with shared.in_use() as second:
        assert second is not first


def test_a_server_that_has_died_is_replaced(shared):
    with shared.in_use() as first:
        first.close()
    with shared.in_use() as second:
        assert second is not first
        assert second.is_usable


def test_an_unused_server_is_ended_after_some_time():
    shared = SharedServer(idle_limit_s=0.05)
    with shared.in_use() as server:
        time.sleep(0.2)
        assert server.is_usable
    deadline_s = time.monotonic() + 30
    while server.is_usable and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not server.is_usable


def test_where_no_server_can_be_started_there_is_none():
    def refuse() -> ForkServer:
        raise OSError("not allowed")

    with SharedServer(refuse).in_use() as server:
        assert server is None


def run_program(text: str) -> str:
    program = textwrap.dedent(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_it_ends_with_its_process_and_starts_without_importing_torch():
    printed = run_program("""
        import sys
        from precisionbench.measure.worker.shared_server import SHARED_SERVER
        SHARED_SERVER.begin()
        with SHARED_SERVER.in_use() as server:
            print(server.pid)
        assert "torch" not in sys.modules
    """)
    assert not exists(int(printed))


def test_a_process_that_the_user_forks_neither_uses_nor_ends_it():
    printed = run_program("""
        import os, pathlib, sys, tempfile
        from precisionbench.measure.worker.process import Worker
        from precisionbench.measure.worker.shared_server import SHARED_SERVER
        with SHARED_SERVER.in_use() as server:
            worker = Worker(pathlib.Path(tempfile.mkdtemp()) / "log", server.fork)
            worker.wait_until_imported()
            if not os.fork():
                worker.kill()
                server.close()
                with SHARED_SERVER.in_use() as own:
                    os.write(1, f"{own is not server}\\n".encode())
                sys.exit()  # what is registered for the exit runs, too
            os.wait()
            assert server.is_usable
            assert os.path.exists(f"/proc/{worker.pid}/cwd")
            worker.kill()
    """)
    assert printed == "True\n"


def imported_in_a_worker(server: ForkServer, tmp_path: Path, module: str) -> bool:
    """Whether a forked worker has a library's shared objects mapped before it loads anything."""
    worker = Worker(tmp_path / "worker.log", server.fork)
    worker.wait_until_imported()
    try:
        return module in Path(f"/proc/{worker.pid}/maps").read_text()
    finally:
        worker.kill()


@pytest.mark.slow  # imports large libraries
def test_a_well_known_library_is_imported_once_for_all_workers(tmp_path):
    pytest.importorskip("torchvision")
    with ForkServer() as server:
        server.import_libraries(library_modules("torchvision:resnet18"))
        assert imported_in_a_worker(server, tmp_path, "/torchvision/")


@pytest.fixture
def install_timm(tmp_path, monkeypatch):
    """Installs a double of a well-known library that does something when it is imported."""

    def install(code: str, folder: str = "site-packages") -> None:
        package = tmp_path / folder / "timm"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(textwrap.dedent(code))
        monkeypatch.syspath_prepend(str(package.parent))

    return install


SAYS_SO = "import pathlib; pathlib.Path({file!r}).write_text('imported')\n"


@pytest.mark.slow  # imports large libraries
def test_a_library_that_does_more_than_define_is_in_no_worker(install_timm, tmp_path):
    imported = tmp_path / "imported"
    install_timm(SAYS_SO.format(file=str(imported)) + "import torch; torch.relu = lambda x: x")
    with ForkServer() as server:
        server.import_libraries(["timm"])
        worker = Worker(tmp_path / "worker.log", server.fork)
        worker.wait_until_imported()
        assert imported.exists()  # it was tried
        assert has_begun_anew_without(server, "timm")
        imported.unlink()
        server.import_libraries(["timm"])  # it is not tried again
        again = Worker(tmp_path / "again.log", server.fork)
        again.wait_until_imported()
        assert not imported.exists()
        worker.kill()
        again.kill()


@pytest.mark.slow
def test_an_import_that_patches_sets_starts_fails_or_hangs_does_more_than_define(tmp_path):
    effects = {
        "defines": "class Model: pass",
        "patches": "import torch; torch.relu = lambda x: x",
        "sets": "import torch; torch.set_default_dtype(torch.float64)",
        "starts": (
            "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
        ),
        "fails": "raise ImportError('one of its own is missing')",
        "allocates": (  # as PyArrow, whose allocator handles forks
            "import pathlib, threading, time\n"
            "def run():\n"
            "    pathlib.Path('/proc/thread-self/comm').write_text('jemalloc_bg_thd')\n"
            "    ready.set()\n"
            "    time.sleep(100)\n"
            "ready = threading.Event()\n"
            "threading.Thread(target=run, daemon=True).start()\n"
            "ready.wait()"
        ),
        "hangs": (  # in forked processes, which wait for a thread that they do not have
            "import os, threading; lock = threading.Lock(); lock.acquire(); "
            "os.register_at_fork(after_in_child=lock.acquire)"
        ),
    }
    for name, code in effects.items():
        (tmp_path / f"{name}.py").write_text(code)
    printed = run_program(f"""
        import sys
        from precisionbench.measure.worker.clean_imports import imports_cleanly
        sys.path.insert(0, {str(tmp_path)!r})
        print(*(name for name in {[*effects]} if imports_cleanly(name)))
    """)
    assert printed == "defines allocates\n"


def test_where_no_process_can_be_forked_no_library_is_imported_for_all(monkeypatch):
    def refuse():
        raise OSError("Resource temporarily unavailable")

    monkeypatch.setattr("os.fork", refuse)
    assert not imports_cleanly("json")


@pytest.mark.slow
def test_threads_of_openblas_end_before_a_fork_so_libraries_may_start_them(tmp_path):
    """Else models of transformers, which imports SciPy, were imported in every worker anew."""
    pytest.importorskip("scipy")
    printed = run_program("""
        import os
        import numpy as np
        from precisionbench.measure.worker.clean_imports import imports_cleanly
        clean = imports_cleanly("scipy.linalg.blas")
        from scipy.linalg.blas import dgemm
        square = np.ones((600, 600))
        if not (child := os.fork()):
            os._exit(int(dgemm(1.0, square, square)[0, 0] != 600))
        print(clean, os.waitpid(child, 0)[1])
    """)
    assert printed == "True 0\n"


def has_begun_anew_without(server: ForkServer, library: str) -> bool:
    """Whether the server's program was executed again: with it all that the import did is gone."""
    variables = Path(f"/proc/{server.pid}/environ").read_text().split("\0")
    return f"PRECISIONBENCH_FORK_SERVER_WITHOUT={library}" in variables


def test_a_library_that_its_user_works_on_is_not_imported(install_timm, tmp_path):
    imported = tmp_path / "imported"
    install_timm(SAYS_SO.format(file=str(imported)), folder="work")
    with ForkServer() as server:
        server.import_libraries(["timm", "code_of_mine"])
        worker = Worker(tmp_path / "worker.log", server.fork)
        worker.wait_until_imported()
        worker.kill()
    assert not imported.exists()


def test_the_libraries_of_a_model_are_found(cnn):
    assert library_modules("torchvision:resnet50") == ("torchvision",)
    assert library_modules("timm.models:create_model") == ("timm.models",)
    assert library_modules("my_models:build") == ()
    assert library_modules(cnn) == ()
    assert library_modules(lambda: cnn) == ()
    torchvision = pytest.importorskip("torchvision")
    found = library_modules(torchvision.models.resnet18())
    assert "torchvision.models.resnet" in found
