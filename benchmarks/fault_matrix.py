"""Every kind of fault at every request of a real worker: what a comparison then keeps.

    python benchmarks/fault_matrix.py [--kind NAME ...] [--point NAME ...] [--limit SECONDS]

Some rows of a comparison fail, each in its own way, at the same point; the rows `eager` and `half`
beside them must be complete, and a row that has finished rounds must keep them and say what
happened. The table goes into docs/faults.md. It takes about half an hour, and needs no GPU; what
hangs is ended after the limit, which must be long enough for all else on this machine.

In the table, `F` is a failed row whose reason names the fault, `K` is one that keeps its rounds and
has a warning, `-` is one that is complete: the fault did no harm. `!` is a promise that was broken;
it is named below the table, and the command exits with 1.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

import precisionbench as pb
from precisionbench.backends import Backend
from precisionbench.errors import PrecisionBenchError
from precisionbench.measure.worker import protocol
from precisionbench.measure.worker.session import Session

_ROUNDS = 6
_BUDGET_S = 600.0  # enough for these rounds on any machine
_OTHERS = ("eager", "half:dtype=bfloat16")
_ROWS_AT_ONCE = 6
_GIVEN_UP_S = 600.0


# --- kinds of faults ------------------------------------------------------------------------------


class OddError(Exception):
    """An error of a class that only the worker knows."""

    def __init__(self, text: Any = "odd") -> None:
        super().__init__(text)
        self.lock = threading.Lock()  # it cannot be pickled

    def __str__(self) -> str:
        text: str = self.args[0]() if callable(self.args[0]) else self.args[0]
        return text


class NoReasonError(PrecisionBenchError):
    """An error of a plugin that has none of the attributes of its base class."""

    def __init__(self) -> None:
        Exception.__init__(self)


class NotAnException(BaseException):
    """What no handler of exceptions catches."""


def throw(error: Callable[[], BaseException]) -> Callable[[], None]:
    def thrown() -> None:
        raise error()

    return thrown


def send(name: str) -> Callable[[], None]:
    def sent() -> None:
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(1.0)  # it may take effect a moment later

    return sent


def spin() -> None:
    end_s = time.monotonic() + _GIVEN_UP_S
    while time.monotonic() < end_s:
        pass


def hold_the_gil() -> None:
    ctypes.PyDLL(None).sleep(int(_GIVEN_UP_S))


def wait_for_itself() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=_GIVEN_UP_S)


def wait_for_a_program() -> None:
    subprocess.run(["sleep", str(_GIVEN_UP_S)], check=False)


def end_in_a_thread() -> None:
    threading.Thread(target=os._exit, args=(4,)).start()
    time.sleep(_GIVEN_UP_S)


def recurse() -> None:
    recurse()


def become_another_program() -> None:
    os.execv("/bin/true", ["true"])


def write_to_every_descriptor() -> None:
    for file in [*Path("/proc/self/fd").iterdir()]:
        with contextlib.suppress(OSError):
            os.write(int(file.name), b'{"value": "junk"}\n')


def raise_in_text() -> str:
    raise RuntimeError("no text")


KINDS: dict[str, Callable[[], Any]] = {
    "exit code 0": lambda: os._exit(0),
    "exit code 3": lambda: os._exit(3),
    "exit in a thread": end_in_a_thread,
    "becomes another program": become_another_program,
    "invalid address": lambda: ctypes.string_at(1),
    "SIGKILL": send("SIGKILL"),
    "SIGABRT": send("SIGABRT"),
    "SIGTERM": send("SIGTERM"),
    "SIGINT": send("SIGINT"),
    "SIGSTOP": send("SIGSTOP"),
    "sleeps": lambda: time.sleep(_GIVEN_UP_S),
    "spins": spin,
    "holds the GIL": hold_the_gil,
    "deadlock": wait_for_itself,
    "waits for a program": wait_for_a_program,
    "ValueError": throw(lambda: ValueError("wrong")),
    "OSError": throw(lambda: FileNotFoundError(2, "gone", "/proc/0")),
    "MemoryError": throw(MemoryError),
    "torch out of memory": throw(lambda: torch.OutOfMemoryError("CUDA out of memory.")),
    "endless recursion": recurse,
    "StopIteration": throw(StopIteration),
    "SystemExit": throw(lambda: SystemExit(5)),
    "KeyboardInterrupt": throw(KeyboardInterrupt),
    "BaseException": throw(NotAnException),
    "cannot be pickled": throw(OddError),
    "text raises": throw(lambda: OddError(raise_in_text)),
    "text is not a string": throw(lambda: OddError(7)),
    "text of 10 MB": throw(lambda: OddError("x" * 10_000_000)),
    "lone surrogates": throw(lambda: OddError("\ud800\x1b[2J")),
    "broken error of ours": throw(NoReasonError),
    "junk to all descriptors": write_to_every_descriptor,
    "closes all descriptors": lambda: os.closerange(0, 1 << 16),
    "50 MB on stdout": lambda: print("x" * 50_000_000),
    "other folder": lambda: os.chdir("/"),
}

# --- points at which they strike ------------------------------------------------------------------

_BEFORE_ROUNDS = ("load", "prepare", "first call", "recalibrate")
_OF_SESSION = {
    "recalibrate": "recalibrated",
    "output": "write_output",
    "passes": "passes",
    "check_steady": "check_steady",
    "start_profiler": "start_profiler",
    "float64": "write_float64_reference",
    "evidence": "evidence",
}
_BLOCKS_BEFORE = 2  # of the rounds
POINTS = (
    "load", "prepare", "first call", "recalibrate", "block", "output", "passes", "check_steady",
    "start_profiler", "float64", "evidence", "close",
)  # fmt: skip


def strike(kind: str) -> None:
    KINDS[kind]()


def loaded(kind: str, point: str) -> Faulty:
    """What a worker makes of the backend's file."""
    if point == "load":
        strike(kind)
    return Faulty(kind, point)


@attrs.frozen
class Faulty(Backend):
    """Fails in one way at one point, in the worker only.

    Attributes:
        kind: in which way.
        point: where.
    """

    name = "faulty"
    kind: str = "ValueError"
    point: str = "prepare"

    def __reduce__(self) -> tuple[Any, ...]:
        return loaded, (self.kind, self.point)

    @contextlib.contextmanager
    def prepare(self, model: nn.Module, inputs: Any) -> Iterator[Callable[[], object]]:
        if self.point == "prepare":
            strike(self.kind)
        if self.point in _OF_SESSION:
            self._plant(_OF_SESSION[self.point])
        if self.point == "block":
            self._plant("block", _BLOCKS_BEFORE)
        call, calls = inputs.bind(model), itertools.count()

        def called() -> object:
            if self.point == "first call" and next(calls) == 0:
                strike(self.kind)
            return call()

        yield called
        if self.point == "close":
            strike(self.kind)

    def _plant(self, method: str, after: int = 0) -> None:
        """Let a method of the session fail, after a number of calls of it."""
        original, calls = getattr(Session, method), itertools.count()

        def failing(*arguments: Any, **known: Any) -> Any:
            is_in_warm_up = known.get("settle_calls") == 0
            if not is_in_warm_up and next(calls) == after:
                strike(self.kind)
            return original(*arguments, **known)

        setattr(Session, method, failing)


# --- comparisons ----------------------------------------------------------------------------------


class Tiny(nn.Module):
    """A model whose calls take about a millisecond, on one core."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.001)
        output: torch.Tensor = self.linear(x)
        return output


def compared(kinds: Sequence[str], point: str) -> pb.Comparison:
    """A comparison in which a row fails in each of these ways; these rows come first."""
    faulty = [Faulty(kind, point) for kind in kinds]
    return pb.compare(
        Tiny(), torch.rand(2, 8), backends=[*faulty, *_OTHERS], reference="eager", device="cpu",
        effort="quick", evidence=True, passes=True, budget_s=_BUDGET_S, seed=0, on_progress=None,
        replicas=2 if point == "float64" else 1, build_together=point == "recalibrate",
    )  # fmt: skip


@attrs.frozen
class Cell:
    """What came of a kind of fault at a point.

    Attributes:
        letter: as in the table.
        broken: the promises that were broken.
    """

    letter: str
    broken: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The letter, with a mark where a promise was broken."""
        return f"{self.letter}!" if self.broken else self.letter


def cell(found: pb.Comparison, kind: str, point: str, others: tuple[str, ...]) -> Cell:
    """What came of a row."""
    failed = [f for f in found.failures if _is_of(f, kind)]
    measured = [r for r in found.results if _is_of(r, kind)]
    if failed:
        late = () if point in _BEFORE_ROUNDS else ("it has lost its rounds",)
        return Cell("F", (*others, *late, *_budget_named((failed[0].reason, failed[0].remedy))))
    if not measured:
        return Cell("", (*others, "the row is missing"))
    row = measured[0]
    said = [w for w in row.warnings if "after the measurement" in w or "it failed after" in w]
    is_cut = row.measurement.ended_by == "failed"
    short = "it has lost rounds" if not is_cut and len(row.measurement.rounds) < _ROUNDS else ""
    silent = "it failed without a warning" if is_cut and not said else ""
    broken = (*others, *filter(None, (short, silent)), *_budget_named(said))
    return Cell("K" if said else "-", broken)


def _is_of(row: Any, kind: str) -> bool:
    return bool(row.name == "faulty" and row.options.get("kind", "ValueError") == kind)


def _budget_named(texts: Sequence[str]) -> tuple[str, ...]:
    return ("a budget is named",) if any("budget" in text for text in texts) else ()


def broken_promises(found: pb.Comparison) -> tuple[str, ...]:
    """What is missing of the rows that did nothing wrong."""
    rows = {row.backend: row for row in found.results}
    broken = [f"{name} is missing" for name in _OTHERS if name not in rows]
    for name in rows.keys() & {*_OTHERS}:
        row = rows[name]
        unknown = row.evidence.unknown if row.evidence else {}
        broken += [
            f"{name}: {text}"
            for text, is_wrong in (
                ("rounds are missing", len(row.measurement.rounds) != _ROUNDS),
                ("the profile is missing", row.evidence is None),
                ("the layers' errors are missing", "errors" in unknown),
                ("the agreement is missing", row.agreement is None),
                ("it has a warning", any("after the measurement" in text for text in row.warnings)),
            )
            if is_wrong
        ]
    notes = [note for note in found.data.notes if "budget" in note or "failed" in note]
    return (*broken, *notes)


def measured(kinds: Sequence[str], point: str) -> dict[str, Cell]:
    """What came of these kinds of faults at a point."""
    begun_s = time.monotonic()
    try:
        found = compared(kinds, point)
    except Exception as exc:
        text = f"the comparison is lost: {type(exc).__name__}: {str(exc)[:200]}"
        cells = {kind: Cell("", (text,)) for kind in kinds}
    else:
        others = broken_promises(found)
        cells = {kind: cell(found, kind, point, others) for kind in kinds}
    shown = ", ".join(f"{kind}: {one.shown}" for kind, one in cells.items())
    print(f"{point}: {time.monotonic() - begun_s:.1f} s: {shown}", file=sys.stderr, flush=True)
    return cells


def batches(kinds: Sequence[str], point: str) -> Iterator[Sequence[str]]:
    """Kinds that are measured together; only one row is asked for the model in float64."""
    size = 1 if point == "float64" else _ROWS_AT_ONCE
    for begin in range(0, len(kinds), size):
        yield kinds[begin : begin + size]


def table(cells: dict[tuple[str, str], Cell], kinds: Sequence[str], points: Sequence[str]) -> str:
    """The table in Markdown."""
    lines = [f"| fault | {' | '.join(points)} |", "|---" * (len(points) + 1) + "|"]
    lines += [
        f"| {kind} | {' | '.join(cells[kind, point].shown for point in points)} |" for kind in kinds
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--point", action="append", choices=POINTS)
    parser.add_argument("--limit", type=float, default=8.0, help="of each request, in seconds")
    given = parser.parse_args()
    kinds, points = given.kind or [*KINDS], given.point or [*POINTS]
    limit_s = given.limit
    protocol.LIMITS = protocol.TimeLimits(
        prepare_s=limit_s, block_s=limit_s, evidence_s=limit_s, close_s=limit_s
    )
    cells = {
        (kind, point): one
        for point in points
        for batch in batches(kinds, point)
        for kind, one in measured(batch, point).items()
    }
    print(table(cells, kinds, points))
    broken = [f"{k}, {p}: {text}" for (k, p), one in cells.items() for text in one.broken]
    print("\n".join(("", *broken)) if broken else "\nno promise was broken")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
