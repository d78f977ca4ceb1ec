"""Whatever the code of a plugin does where nothing is measured, it costs its own backend only."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import torch

import precisionbench as pb
from precisionbench.backends import Backend, Prepared, discovery
from precisionbench.backends.apex_amp import ApexAmp
from precisionbench.backends.base import unrecorded
from precisionbench.backends.discovery import GROUP
from precisionbench.backends.eager import Eager
from precisionbench.backends.half import Half
from precisionbench.errors import WorkerError
from precisionbench.measure import availability
from precisionbench.measure.worker import protocol
from precisionbench.measure.worker.process import Worker

PLUGIN = """
    import os, signal, sys, time, warnings
    from contextlib import contextmanager
    from typing import ClassVar, Literal
    import attrs
    from precisionbench.backends import Backend
    from precisionbench.errors import BackendUnavailableError, PrecisionBenchWarning

    class Speechless(Exception):
        def __str__(self):
            raise ZeroDivisionError

    class Stop(BaseException):
        pass

    class OwnError(BackendUnavailableError):
        def __init__(self):
            pass
        def __str__(self):
            return b"no text"

    def raised(error):
        raise error

    def make_noise():
        print("x" * 10_000_000)
        os.write(1, b"y" * 10_000_000 + b"\\n")
        for number in range(1000):
            warnings.warn(f"library {number}")
            warnings.warn(f"plugin {number}", PrecisionBenchWarning)

    FAULTS = {
        "none": lambda: None,
        "exit": lambda: sys.exit("no licence"),
        "os_exit": lambda: os._exit(3),
        "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "hang": lambda: time.sleep(600),
        "speechless": lambda: raised(Speechless()),
        "stop": lambda: raised(Stop("enough")),
        "own_error": lambda: raised(OwnError()),
        "huge": lambda: raised(ValueError("x" * 10_000_000)),
        "surrogate": lambda: raised(BackendUnavailableError("a \\udc80 licence", "buy it")),
        "loud": make_noise,
    }

    @attrs.frozen
    class Plain(Backend):
        "A plugin of ours."
        name: ClassVar[str] = "plain"
        @contextmanager
        def prepare(self, model, inputs):
            yield inputs.bind(model)

    @attrs.frozen
    class Faulty(Plain):
        name: ClassVar[str] = "faulty"
        fault: str = "none"
        def check_available(self):
            FAULTS[self.fault]()

    def faulty(fault):
        return attrs.frozen(type(fault, (Faulty,), {
            "name": fault.replace("_", "-"), "fault": fault, "__module__": __name__,
            "__annotations__": {"name": ClassVar[str], "fault": str},
        }))

    for fault in FAULTS:
        globals()[fault] = faulty(fault)
"""
SENTENCES = {
    "exit": "its check_available failed (SystemExit: no licence)",
    "os-exit": "its worker process ended with exit code 3 (check_available)",
    "crash": "its worker process was ended by signal 11 (check_available)",
    "speechless": "(Speechless: its text cannot be made, because of ZeroDivisionError)",
    "stop": "its check_available failed (Stop: enough)",
    "own-error": "OwnError: its text cannot be made, because of TypeError",
    "huge": "its check_available failed (ValueError: xxx",
    "surrogate": "a \\udc80 licence",
}
AVAILABLE = ("loud", "plain")
COMPARED = ("exit", "os-exit", "surrogate")  # as workers are asked in the same way, a few of them


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A package with a backend for each fault, and one whose import ends the process."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "faults.py").write_text(textwrap.dedent(PLUGIN))
    (folder / "fatal.py").write_text("import os\nos._exit(5)\n")
    metadata = folder / "faults-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: faults\nVersion: 1\n")
    names = [f"{name} = faults:{name.replace('-', '_')}" for name in SENTENCES]
    lines = [f"[{GROUP}]", "fatal = fatal:Backend", "loud = faults:loud", "plain = faults:Plain"]
    (metadata / "entry_points.txt").write_text("\n".join([*lines, *names]))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield
    sys.modules.pop("faults", None)


@pytest.fixture(scope="module")
def listed(plugins: None) -> dict[str, discovery.BackendInfo]:
    found = {info.name: info for info in pb.list_backends()}
    assert not {"faults", "fatal"} & sys.modules.keys()  # no plugin is imported in this process
    return found


@pytest.mark.parametrize("name", SENTENCES)
def test_a_plugin_whose_check_fails_is_listed_with_the_reason(listed, name):
    info = listed[name]
    assert not info.available
    assert info.options["fault"] == "text"
    assert SENTENCES[name] in info.requirement
    assert len(info.requirement) < 1000
    info.requirement.encode()


@pytest.mark.parametrize("name", AVAILABLE)
def test_the_plugins_that_are_asked_between_them_are_available(listed, name):
    assert listed[name].available
    assert listed[name].distribution == "faults"
    assert listed["half"].available


def test_a_plugin_whose_import_ends_the_process_is_listed(listed):
    assert "ended with exit code 5 (describe)" in listed["fatal"].requirement
    assert not listed["fatal"].options


@pytest.fixture(scope="module")
def compared(plugins: None) -> pb.Comparison:
    return pb.compare(
        torch.nn.Linear(4, 4),
        torch.rand(2, 4),
        backends=[*COMPARED, *AVAILABLE, "fatal"],
        device="cpu",
        replicas=1,
        budget_s=0.2,
        evidence=False,
    )


@pytest.mark.parametrize("name", COMPARED)
def test_a_plugin_whose_check_fails_is_a_failed_row(compared, name):
    failure = next(row for row in compared.failures if row.backend == name)
    assert SENTENCES[name] in failure.reason
    assert len(failure.reason) < 1000


def test_a_plugin_whose_import_ends_the_process_is_a_failed_row(compared):
    failure = next(row for row in compared.failures if row.backend == "fatal")
    assert failure.error == "BackendUnavailableError"
    assert failure.reason.startswith(
        "requires a plugin 'fatal' that can be imported (its worker process ended"
    )


def test_the_other_rows_are_measured(compared):
    assert [row.backend for row in compared.results] == ["eager", *AVAILABLE]
    assert all(row.measurement.rounds for row in compared.results)
    compared.to_json().encode()


def test_what_a_plugin_prints_and_warns_is_kept_in_part(compared):
    row = compared["loud"]
    assert sum(map(len, row.log)) < 150_000
    assert "... 9.9 MB left out ..." in row.log  # of what it printed
    assert "... 10.0 MB left out ..." in row.log  # of what came from native code
    assert "... 800 warnings left out ..." in row.log
    assert {"UserWarning: library 0", "UserWarning: library 999"} <= {*row.log}
    assert "... 800 warnings left out ..." in row.warnings
    assert {"plugin 0", "plugin 999"} <= {*row.warnings}


@pytest.mark.parametrize("name", ["exit", "speechless", "stop", "own-error", "huge", "surrogate"])
def test_inline_the_same_exceptions_are_failed_rows(plugins, name):
    found = pb.compare(
        torch.nn.Linear(4, 4),
        torch.rand(2, 4),
        backends=[name],
        device="cpu",
        launcher="inline",
        budget_s=0.1,
        evidence=False,
    )
    assert SENTENCES[name] in found.failures[0].reason
    assert found["eager"].measurement.blocks


@attrs.frozen
class Plain(Backend):
    name: ClassVar[str] = "mine"
    held: object = unrecorded()

    @contextlib.contextmanager
    def prepare(self, model, inputs):
        yield inputs.bind(model)


def reason_against(*backends: Backend) -> list[str]:
    """Why they cannot run here, as it is found without starting a process."""
    return [str(error) for error in availability.reasons_against(backends, no_pool)]


def no_pool() -> Any:
    raise AssertionError("no worker is needed")


def test_no_worker_is_started_for_backends_without_a_check_or_of_this_library():
    assert reason_against(Plain(), Half(), Eager()) == ["None"] * 3


def test_a_backend_that_cannot_be_pickled_is_its_own_failure():
    (reason, _) = reason_against(Plain(held=threading.Lock()), Plain())
    assert reason.startswith("it cannot be sent to a worker process (TypeError: cannot pickle")
    assert "the launcher 'inline'" in reason


@pytest.fixture
def apex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that `import apex` would run code of."""
    (tmp_path / "apex" / "amp").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_an_engine_that_is_installed_is_imported_in_a_worker_only(apex):
    def pool() -> Any:
        raise WorkerError("a worker is asked")

    (error,) = availability.reasons_against([ApexAmp()], pool)
    assert error is not None
    assert error.reason == "a worker is asked"


@attrs.frozen
class Talkative(Plain):
    name: ClassVar[str] = "talkative"

    @contextlib.contextmanager
    def prepare(self, model, inputs):
        yield Prepared(inputs.bind(model), model, {"engine": "x" * 2_000_000})


def test_details_of_megabytes_are_left_out_with_a_warning():
    found = pb.compare(
        torch.nn.Linear(4, 4),
        torch.rand(2, 4),
        backends=[Talkative()],
        device="cpu",
        launcher="inline",
        budget_s=0.1,
        evidence=False,
    )
    assert found["talkative"].details == {}
    assert found["talkative"].warnings[0].startswith("its details were not recorded: 2.0 MB")


class Exited:
    """The process of a worker that has ended at once."""

    pid, returncode = 0, 1

    def __init__(self, log: Path) -> None:
        self.stdin, self.stdout = io.BytesIO(), io.BytesIO()

    def wait_until_exited(self, limit_s: float) -> bool:
        """It has exited."""
        return True

    def begin_kill(self) -> None:
        """It has ended."""

    def kill(self) -> None:
        """It has ended."""


def test_of_a_file_of_gigabytes_that_a_worker_wrote_the_end_is_read(tmp_path):
    log = tmp_path / "worker.log"
    with log.open("wb") as file:
        file.truncate(8_000_000_000)  # takes no room on the disk
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast but one\n" + b"z" * 10_000)
    worker = Worker(log, Exited)
    assert worker.tail()[0] == "... 8000.0 MB left out ..."
    assert worker.tail()[-2] == "last but one"
    with pytest.raises(WorkerError, match="last output: zzz") as caught:
        worker.answer()
    assert len(caught.value.reason) < 500


@pytest.mark.slow
def test_a_check_that_hangs_costs_its_own_backend_only(plugins, monkeypatch):
    monkeypatch.setattr(protocol, "LIMITS", attrs.evolve(protocol.LIMITS, check_s=5.0))
    backends = [discovery.make(f"exit:fault={fault}") for fault in ("none", "hang", "none")]
    before, hangs, after = availability.reasons_against(backends)
    assert before is after is None
    assert "did not answer within 5 s (check_available) and was ended" in str(hangs)
