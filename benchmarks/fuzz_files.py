"""Whether any untrusted file is shown, or refused in one sentence.

    python benchmarks/fuzz_files.py [--files 10000] [--first 0] [--seed 1] [--small]

Mutates results, journals, ladders and files of published numbers, by the seed: keys that are
dropped or stand twice, hostile values, cut and flipped bytes, lines in another order. Each file is
loaded, printed, written as Markdown, CSV, HTML and JSON, compared with the file that it was made
from, explained, and put under each reporting convention. It may be refused with an error of
`precisionbench.errors`; everything else is a failure: another exception or a warning, more than 10
seconds, more than 1 GB of memory. Files are tried in child processes, 100 in each.

    python benchmarks/fuzz_files.py --seed 1 --only 4711 --keep file.json

tries one file again, in this process and with its traceback. `--small` takes base files with few
samples only. It needs no GPU and no torch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import file_mutations as mutations

import precisionbench as pb
from precisionbench import published
from precisionbench.diagnosis.gap.measured import fastest, measured_factors
from precisionbench.errors import PrecisionBenchError
from precisionbench.published.record import Record
from precisionbench.report import diagnosis, ladder, ledger, rules, run_diff, text
from precisionbench.report import published as published_report
from precisionbench.results import json_format

LIMIT_S, LIMIT_BYTES = 10.0, 2**30
_BATCH, _BATCH_LIMIT_S = 100, 600.0
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # threads reserve memory
_RECORD = "mlperf-v4.1-h200-resnet50-offline"
_SHARES = {"result": 40, "journal": 25, "ladder": 20, "published": 15}
_WIDTHS = (40, 120)


# --- what is done with each file


def attempt(function: Callable[..., Any], *args: Any) -> None:
    """Call a function, which may refuse a file in one sentence."""
    with contextlib.suppress(PrecisionBenchError):
        function(*args)


def use(kind: str, file: Path, base: Path) -> None:
    """Do with a file what anybody could.

    Args:
        kind: of the file.
        file: to read.
        base: what it was made from.
    """
    if kind == "published":
        _use_records(published.read(file), file)
        return
    found, old = pb.load(file), pb.load(base)
    _print(found)
    found.to_html(file.with_suffix(".html"), overwrite=True)
    _save_and_load(found, file.with_suffix(".saved"))
    for force in (False, True):
        attempt(_diff, found, old, force)
        attempt(_diff, old, found, force)
    attempt(_explain, found)
    attempt(_climb, found)
    attempt(_use_rows, found)
    attempt(_gap, found, found.results[-1].backend, _RECORD)


def _print(found: pb.Comparison) -> None:
    for width in _WIDTHS:
        text.to_text(found.data, width)
        text.to_text(found.data, width, wide=True)
    found.to_markdown()
    found.to_csv()
    found._repr_html_()
    repr(found)


def _save_and_load(found: pb.Comparison, file: Path) -> None:
    found.save(file, overwrite=True)
    assert pb.load(file) == found


def _diff(new: pb.Comparison, old: pb.Comparison, force: bool) -> None:
    found = new.against(old, force=force)
    run_diff.to_text(found)
    _as_json(found)


def _as_json(value: object) -> None:
    json.dumps(json_format.unstructured(value), allow_nan=False)


def _explain(found: pb.Comparison) -> None:
    seen = pb.diagnose(found)
    diagnosis.to_text(seen)
    _as_json(seen)


def _climb(found: pb.Comparison) -> None:
    ends = found.data.reference, fastest(found.data)
    factors = measured_factors(found.data, *ends)
    off = tuple(row.backend for row in found if row.backend not in ends)
    ladder.to_text(found.data, ends, factors, off, ("a row; it needs a GPU",))


def _use_rows(found: pb.Comparison) -> None:
    statements = {row.backend: found.under_rules(row.backend) for row in found}
    rules.to_text(statements)
    rules.to_markdown(statements)
    _as_json(statements)
    for row in found:
        found.observations(row.backend)
        attempt(found.speedup, row.backend)


def _gap(found: pb.Comparison, row: str, record: str | Record) -> None:
    gap = pb.explain_gap(found, row, record)
    ledger.to_text(gap)
    ledger.to_markdown(gap)
    _as_json(gap.as_data())


def _use_records(records: tuple[Record, ...], file: Path) -> None:
    for width in _WIDTHS:
        published_report.to_text(records, width)
    json.loads(published_report.to_json(records))
    attempt(lambda: published.find(model="resnet50", file=file))
    for record in records:
        published_report.card_text(record)
        attempt(_gap, _measured(), _measured().results[0].backend, record)


@cache
def _measured() -> pb.Comparison:
    return pb.load(mutations.ROOT / "docs" / "records" / "xavier-2020-reported.json")


# --- one process of many files


class TooLong(BaseException):
    """A file took longer than the limit."""


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """End what computes for too long with an exception that nothing catches.

    The time of the CPU counts, as other programs may keep it busy; a wait ends with the batch.
    """

    def end(_: int, __: FrameType | None) -> None:
        raise TooLong(f"more than {LIMIT_S:.0f} s")

    signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def try_files(seed: int, small: bool, first: int, last: int) -> None:
    """Try files in this process, and print a line of JSON before and after each.

    Args:
        seed: of all mutations.
        small: as for `bases`.
        first: number of the first file.
        last: number after the last one.
    """
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    warnings.simplefilter("error")
    bases = mutations.bases(small)
    for number in range(first, last):
        print(json.dumps({"number": number}), flush=True)
        what, outcome, where = try_file(bases, seed, number)
        print(json.dumps({"what": what, "outcome": outcome, "where": where}), flush=True)


def try_file(bases: list[mutations.Base], seed: int, number: int) -> tuple[str, str, str]:
    """Try one file.

    Returns:
        What it is, the outcome (`shown`, `refused` or the exception), and the exception's place.
    """
    base, content, what = damaged(bases, seed, number)
    with tempfile.TemporaryDirectory() as folder:
        file, whole = Path(folder, "file"), Path(folder, "base")
        file.write_bytes(content)
        whole.write_text(base.text)
        what = f"{base.kind} {base.name}: {what}"
        try:
            with time_limit():
                use(base.kind, file, whole)
        except PrecisionBenchError as exc:
            return what, "refused", _too_long(str(exc))
        except BaseException as exc:
            return what, f"{type(exc).__name__}: {exc!s:.100}", _place(exc)
        return what, "shown", ""


def _too_long(sentence: str) -> str:
    return "a sentence of many lines" if len(sentence) > 2000 or "\n" in sentence else ""


def damaged(
    bases: list[mutations.Base], seed: int, number: int
) -> tuple[mutations.Base, bytes, str]:
    """The file of a number: what it is made from, its content, and how it was changed."""
    draw = random.Random(f"{seed} {number}")
    (kind,) = draw.choices([*_SHARES], [*_SHARES.values()])
    base = draw.choice([base for base in bases if base.kind == kind])
    content, what = mutations.mutated(base, draw)
    return base, content, what


def _place(error: BaseException) -> str:
    """Where an exception was raised: the innermost line of this library."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "precisionbench" in frame.filename]
    last = (ours or frames)[-1]
    return f"{Path(last.filename).parent.name}/{Path(last.filename).name}:{last.lineno} {last.name}"


# --- all files


class Failure(NamedTuple):
    """A file that was neither shown nor refused.

    Attributes:
        number: of the file.
        what: it is.
        outcome: the exception, or how the process ended.
        where: the exception was raised.
    """

    number: int
    what: str
    outcome: str
    where: str


class Run:
    """Tries files in child processes.

    Args:
        seed: of all mutations.
        small: as for `bases`.
    """

    def __init__(self, seed: int, small: bool) -> None:
        self._seed, self._small = seed, small
        self.outcomes: Counter[str] = Counter()
        self.failures: list[Failure] = []

    def try_all(self, first: int, last: int) -> None:
        """Try the files of some numbers, each batch in a process of its own."""
        while first < last:
            first = self._batch(first, min(first + _BATCH, last))

    def _batch(self, first: int, last: int) -> int:
        """Try some files, and return the number of the next one."""
        lines, ending = self._output(first, last)
        started = [line["number"] for line in lines if "number" in line]
        finished = [line for line in lines if "outcome" in line]
        for number, line in zip(started, finished, strict=False):
            self._add(Failure(number, line["what"], line["outcome"], line["where"]))
        if len(finished) == last - first:
            return last
        number = started[-1] if started else first
        self._add(Failure(number, "", ending, ""))
        return number + 1

    def _output(self, first: int, last: int) -> tuple[list[Any], str]:
        command = [sys.executable, __file__, "--seed", str(self._seed)]
        command += ["--small"] * self._small + ["--between", str(first), str(last)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=_BATCH_LIMIT_S,
                check=False,
                env={**os.environ, **_ONE_THREAD},
            )
            out, ending = done.stdout, f"ended with {done.returncode}: {done.stderr[-300:]}"
        except subprocess.TimeoutExpired as exc:
            out, ending = (exc.stdout or b"").decode(), "a hang that no signal ends"
        return [json.loads(line) for line in out.splitlines()], ending

    def _add(self, found: Failure) -> None:
        outcome = found.outcome if found.outcome in ("shown", "refused") else "failed"
        self.outcomes[outcome] += 1
        if outcome == "failed" or found.where:
            self.failures.append(found)


def _report(run: Run, took_s: float) -> None:
    """Print the failures, those of one place together, and the figures."""
    places: dict[str, list[Failure]] = {}
    for failure in run.failures:
        kind = failure.outcome.partition(":")[0]
        places.setdefault(f"{kind} at {failure.where}", []).append(failure)
    for place, failures in sorted(places.items(), key=lambda pair: -len(pair[1])):
        first = failures[0]
        print(f"{len(failures)} x {place}\n    file {first.number}, {first.what}: {first.outcome}")
    figures = ", ".join(f"{count} {name}" for name, count in sorted(run.outcomes.items()))
    print(f"{run.outcomes.total()} files in {took_s:.0f} s: {figures}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="base files with few samples only")
    parser.add_argument("--between", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--only", type=int, help="the number of a file to try again")
    parser.add_argument("--keep", type=Path, help="write that file here")
    args = parser.parse_args()
    if args.between is not None:
        try_files(args.seed, args.small, *args.between)
        return
    if args.only is not None:
        _try_again(args.seed, args.small, args.only, args.keep)
        return
    begun_s = time.perf_counter()
    run = Run(args.seed, args.small)
    run.try_all(args.first, args.first + args.files)
    _report(run, time.perf_counter() - begun_s)
    sys.exit(bool(run.failures))


def _try_again(seed: int, small: bool, number: int, keep: Path | None) -> None:
    """Try one file in this process, with its traceback."""
    base, content, what = damaged(mutations.bases(small), seed, number)
    print(f"{base.kind} {base.name}: {what}")
    with tempfile.TemporaryDirectory() as folder:
        file, whole = keep or Path(folder, "file"), Path(folder, "base")
        file.write_bytes(content)
        whole.write_text(base.text)
        warnings.simplefilter("error")
        use(base.kind, file, whole)


if __name__ == "__main__":
    main()
