"""What a comparison leaves behind that a signal ends, for each of its phases (Linux).

    python benchmarks/signals.py                        # the whole matrix
    python benchmarks/signals.py --phase closing --signal SIGTERM

A process measures a small model whose worker waits in one phase; then the signal comes. The backend
has also started a program, a daemon, a semaphore and shared memory. The table says how the process
ended, after how many seconds, and what is left: processes, files in TMPDIR, shared memory, and the
blocks in the journal. What SIGKILL leaves in TMPDIR is counted after the next run has begun. It
exits with 1 where anything is left, or one Ctrl-C after the rounds has taken longer than 2 s.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import multiprocessing.shared_memory
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

import precisionbench as pb
from precisionbench._internal.temporary_folder import TemporaryFolder
from precisionbench.backends import Backend
from precisionbench.backends.half import Half
from precisionbench.diagnosis.findings import MadeExperiments
from precisionbench.errors import PrecisionBenchError
from precisionbench.measure.compare import plan
from precisionbench.measure.options import Options
from precisionbench.measure.worker import shared_server
from precisionbench.results.progress import Progress

LIMIT_S = 2.0
REACHED_WITHIN_S = 120.0
ENDED_WITHIN_S = 60.0
LEFT_AFTER_S = 5.0
LONG_S, SHORT_S = 20.0, 0.3
NOT_ENDED = "it did not end"
MARK = "PRECISIONBENCH_SIGNALS"
SHARED_MEMORY = Path("/dev/shm")


@attrs.frozen
class Phase:
    """A phase of a comparison, and where a worker waits in it.

    Attributes:
        place: in the worker: `load`, `prepare`, `call`, `float64` or `close`; in the parent: `end`
            or `script`.
        stage: of the progress from which on it waits; empty: always.
        wait_s: how long it waits.
        keeps_rounds: whether rounds are finished by then.
        is_late: whether one Ctrl-C is to end it within `LIMIT_S`.
    """

    place: str
    stage: str = ""
    wait_s: float = LONG_S
    keeps_rounds: bool = True
    is_late: bool = True


def early(place: str, stage: str = "") -> Phase:
    return Phase(place, stage, keeps_rounds=False, is_late=False)


PHASES: Mapping[str, Phase] = {
    "loading": early("load"),
    "building": early("prepare"),
    "warm-up": attrs.evolve(early("call", "warming_up"), wait_s=SHORT_S),
    "rounds": Phase("call", "measuring", SHORT_S),
    "passes": Phase("call", "finishing"),
    "float64 reference": Phase("float64"),
    "profile": Phase("call", "examining"),
    "experiments, building": Phase("prepare", "experiments"),
    "experiments, rounds": Phase("call", "experiments"),
    "closing": Phase("close"),
    "after it": Phase("end", is_late=False),
    "checked script": early("script"),
}
SIGNALS = ("SIGINT", "SIGINT twice", "SIGTERM", "SIGKILL")


# --- the process that gets the signal -------------------------------------------------------------


@attrs.frozen
class Waits:
    """Waits at the place of a phase once its stage has come, and says that it is there."""

    folder: Path
    phase: Phase

    def at(self, place: str) -> None:
        if place != self.phase.place or (self.folder / "reached").exists():
            return
        if not self.phase.stage or (self.folder / self.phase.stage).exists():
            (self.folder / "reached").touch()
            time.sleep(self.phase.wait_s)

    def on_progress(self, progress: Progress) -> None:
        if progress.stage != "measuring" or progress.position >= 2:
            (self.folder / progress.stage).touch()

    def on_progress_of_experiments(self, begun: str, progress: Progress) -> None:
        if progress.stage == begun:
            (self.folder / "experiments").touch()


class Model(nn.Module):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.linear, self.waits, self.made_in = nn.Linear(64, 64), waits, os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if os.getpid() != self.made_in:
            self.waits.at("load")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.waits.at("float64" if x.dtype == torch.float64 else "call")
        found: torch.Tensor = self.linear(x)
        return found


@attrs.frozen
class Leaves(Backend):
    """Starts a program and a daemon, and takes a semaphore and shared memory."""

    name = "leaves"
    waits: Any = attrs.field(default=None, repr=False)

    @contextlib.contextmanager
    def prepare(self, model: nn.Module, inputs: Any) -> Iterator[Callable[[], Any]]:
        take()
        self.waits.at("prepare")
        yield inputs.bind(model)
        self.waits.at("close")


def take() -> None:
    """Start what a crash would leave behind; it is held by the process that calls this."""
    daemon = "setsid sleep 600 >/dev/null 2>&1 &"
    taken = [
        subprocess.Popen(["sleep", "600"]),
        subprocess.run(["sh", "-c", daemon], check=True),
        multiprocessing.get_context("spawn").Semaphore(),
        multiprocessing.shared_memory.SharedMemory(create=True, size=1024),
    ]
    globals()["_taken"] = taken


def measure(folder: Path, phase: Phase) -> None:
    waits = Waits(folder, phase)
    backend = Leaves(waits)

    def experimenter(_: Any, __: Any, measure: Any, ___: Any) -> MadeExperiments:
        if phase.stage == "experiments":
            in_rounds = phase.place == "call"
            begun = "warming_up" if in_rounds else "starting"
            changed = Half(dtype="bfloat16") if in_rounds else Leaves(waits, batch_size=4)
            rows, _ = plan([backend, changed], backend)
            tell = partial(waits.on_progress_of_experiments, begun)
            measure(rows, Options(replicas=2, budget_s=5.0), tell)
        return MadeExperiments()

    found = pb.compare(
        Model(waits), torch.rand(8, 64), backends=[backend], reference=backend, replicas=2,
        budget_s=60.0, effort="quick", evidence=True, passes=True, on_progress=waits.on_progress,
        journal=folder / "journal", experiments=experimenter,
    )  # fmt: skip
    (folder / "returned").write_text(str(time.time()))
    print(found.results[0].measurement.ended_by)
    waits.at("end")


SCRIPT = """
import ctypes, pathlib, subprocess, sys
subprocess.run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 &"])
pathlib.Path(sys.argv[1], "reached").touch()
ctypes.PyDLL(None).sleep(60)  # which holds the interpreter
"""


def check(folder: Path) -> None:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    pb.check(script, [str(folder)], timeout_s=60.0)


# --- the process that sends it --------------------------------------------------------------------


@attrs.frozen
class Outcome:
    """How the process ended, and what it has left."""

    status: int | None
    seconds: float
    processes: tuple[str, ...]
    files: tuple[str, ...]
    shared: tuple[str, ...]
    blocks: int | None
    said: str
    reached: bool

    def faults(self, phase: Phase, signal_name: str, limit_s: float = LIMIT_S) -> list[str]:
        faults = [f"{what} left: {', '.join(left)}" for what, left in self.left() if left]
        if not self.reached:
            faults.append("the phase was not reached")
        if self.said == NOT_ENDED:
            faults.append(NOT_ENDED)
        if signal_name in ("SIGTERM", "SIGKILL") and self.status != -getattr(signal, signal_name):
            faults.append(f"its status is {self.status}")
        if phase.keeps_rounds and not self.blocks:
            faults.append("the journal has no blocks")
        if phase.is_late and signal_name == "SIGINT" and self.seconds > limit_s:
            faults.append(f"it took more than {limit_s:.0f} s")
        if phase.is_late and signal_name == "SIGINT" and self.status != 0:
            faults.append("it gave no result")
        return faults

    def left(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return ("processes", self.processes), ("files", self.files), ("memory", self.shared)


def cell(phase_name: str, signal_name: str, *, spawn: bool = False) -> Outcome:
    """Run one comparison, end it in a phase, and look for what is left."""
    token = secrets.token_hex(8)
    shared = names_in(SHARED_MEMORY)
    with tempfile.TemporaryDirectory() as top:
        folder, temporary = Path(top, "run"), Path(top, "tmp")
        folder.mkdir()
        temporary.mkdir()
        with started(phase_name, folder, temporary, token, spawn) as process:
            reached = (folder / "reached").exists
            wait_until(lambda: reached() or process.poll() is not None, REACHED_WITHIN_S)
            is_there = reached() and process.poll() is None
            seconds, said = ended_by(process, signal_name, folder / "returned")
        wait_until(lambda: not marked(token), LEFT_AFTER_S)
        wait_until(lambda: not names_in(SHARED_MEMORY) - shared, LEFT_AFTER_S)
        if signal_name == "SIGKILL":
            begin_next_run(temporary)
        return Outcome(
            process.returncode, seconds, marked(token), tuple(sorted(names_in(temporary))),
            tuple(sorted(names_in(SHARED_MEMORY) - shared)), blocks_in(folder / "journal"),
            said, is_there,
        )  # fmt: skip


@contextlib.contextmanager
def started(
    phase_name: str, folder: Path, temporary: Path, token: str, spawn: bool
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, __file__, "--run", phase_name, "--folder", str(folder)]
    with subprocess.Popen(
        [*command, *(["--spawn"] if spawn else [])],
        env={**os.environ, MARK: token, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def ended_by(
    process: subprocess.Popen[bytes], signal_name: str, returned: Path
) -> tuple[float, str]:
    """Send the signal; the seconds until the result or the end, and what was printed."""
    name, *twice = signal_name.split()
    begun_s = time.time()
    process.send_signal(getattr(signal, name))
    if twice:
        time.sleep(0.2)
        process.send_signal(getattr(signal, name))
    try:
        process.wait(ENDED_WITHIN_S)
    except subprocess.TimeoutExpired:
        return time.time() - begun_s, NOT_ENDED
    ended_s = time.time()
    returned_s = float(returned.read_text()) if returned.exists() else 0.0
    return (returned_s if returned_s > begun_s else ended_s) - begun_s, printed(process)


def printed(process: subprocess.Popen[bytes]) -> str:
    """What it has printed; a process that is left may still hold the pipe."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    return (process.stdout.read() or b"").decode()


def begin_next_run(temporary: Path) -> None:
    tempfile.tempdir = str(temporary)
    try:
        TemporaryFolder().remove()
    finally:
        tempfile.tempdir = None


def names_in(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def marked(token: str) -> tuple[str, ...]:
    """The command lines of processes that descend from the one with a token."""
    found, mark = [], f"{MARK}={token}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:60])
    return tuple(found)


def blocks_in(journal: Path) -> int | None:
    try:
        return sum(len(row.measurement.blocks) for row in pb.load(journal).results)
    except PrecisionBenchError:
        return None


def wait_until(condition: Callable[[], object], limit_s: float) -> None:
    end_s = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phase", choices=PHASES)
    parser.add_argument("--signal", choices=SIGNALS)
    parser.add_argument("--spawn", action="store_true", help="workers are fresh interpreters")
    parser.add_argument("--run", choices=PHASES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.run:
        run(wanted.folder, PHASES[wanted.run], wanted.spawn)
    else:
        sys.exit(print_matrix(wanted))


def run(folder: Path, phase: Phase, spawn: bool) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    if spawn:
        setattr(shared_server, "can_fork", lambda: False)  # noqa: B010
    check(folder) if phase.place == "script" else measure(folder, phase)


def print_matrix(wanted: argparse.Namespace) -> bool:
    print("| phase | signal | status | after | processes | files | shared memory | blocks |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    failed = False
    for phase in [wanted.phase] if wanted.phase else PHASES:
        for name in [wanted.signal] if wanted.signal else SIGNALS:
            found = cell(phase, name, spawn=wanted.spawn)
            counts = " | ".join(str(len(left)) for _, left in found.left())
            blocks = "-" if found.blocks is None else found.blocks
            how = f"{found.status} | {found.seconds:.1f} s"
            print(f"| {phase} | {name} | {how} | {counts} | {blocks} |")
            if faults := found.faults(PHASES[phase], name):
                failed = True
                print(f"  {'; '.join(faults)}\n  {found.said[-2000:]}")
            sys.stdout.flush()
    return failed


if __name__ == "__main__":
    main()
