"""`precisionbench study`."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from precisionbench.cli.completion import AnyFile
from precisionbench.cli.exit_codes import INTERNAL_ERROR, Interrupted, exit_codes_text
from precisionbench.cli.options import debug_option, json_option, quiet_option
from precisionbench.cli.output import complain, print_json, print_text
from precisionbench.cli.study_results import check, merge, show
from precisionbench.errors import Terminated

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from precisionbench.studies.job import Outcome
    from precisionbench.studies.run import Study, StudyProgress

_KEPT = "finished cells are kept; run the same command to go on"


@click.group(short_help="Measure models, batches, threads and devices into one folder.")
def study() -> None:
    """Measure models with several batches, shapes and threads, on one device or on many.

    Each combination is a cell: one comparison, whose result is a file in the study's folder. A
    cell that has a file is not measured again.

    \b
    Example:
      precisionbench study run resnet.toml
      precisionbench study status resnet.toml
    """


@study.command(
    short_help="Measure the cells that are left.",
    epilog=exit_codes_text(),
)
@click.argument("file", type=AnyFile(), metavar="FILE.toml")
@click.option(
    "--folder", type=AnyFile(), metavar="FOLDER", help="Of the results.  [default: as in FILE]"
)
@click.option(
    "--only-device",
    metavar="NAME",
    help="Only cells of this device, such as 'agx orin'; others are left.",
)
@click.option("--retry-failed", is_flag=True, help="Measure cells again that have failed.")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Worker processes, such as one for each GPU.  [default: measure in this process]",
)
@click.option(
    "--submitit",
    "use_submitit",
    is_flag=True,
    help="Submit each cell to Slurm by submitit, with the table [submitit] of FILE.",
)
@quiet_option()
def run(
    file: str,
    folder: str | None,
    only_device: str | None,
    retry_failed: bool,
    workers: int | None,
    use_submitit: bool,
    quiet: bool,
) -> None:
    """Measure the cells of the study in FILE.toml that have no result yet.

    After an interruption, run the same command again. Machines that share the folder share the
    work; each measures the cells of its own device.

    \b
    Example:
      precisionbench study run resnet.toml --workers 4
      precisionbench study run resnet.toml --only-device "agx orin"
    """
    from precisionbench.studies.definition import read_toml
    from precisionbench.studies.run import Study, Work

    if workers and use_submitit:
        raise click.UsageError("--workers and --submitit exclude each other")
    found = read_toml(file)
    place = Path(folder) if folder is not None else found.folder
    work = Work.of(found.definition)
    on_cell = None if quiet else _print_cell
    try:
        with _executor(workers, found.submitit if use_submitit else None, place) as executor:
            outcomes = work.run(place, executor, only_device, retry_failed, on_cell)
    except KeyboardInterrupt:
        raise Interrupted(_KEPT) from None
    made = Study(place)
    _print_status(made)
    _end(outcomes, made)


@contextlib.contextmanager
def _executor(
    workers: int | None, submitit: Mapping[str, Any] | None, folder: Path
) -> Iterator[Executor | None]:
    executor = _made_executor(workers, submitit, folder)
    is_terminated = False
    try:
        yield executor
    except Terminated as exc:  # its workers end with this process
        exc.kept = _KEPT
        is_terminated = True
        raise
    finally:
        if executor is not None:
            executor.shutdown(wait=not is_terminated, cancel_futures=True)


def _made_executor(
    workers: int | None, submitit: Mapping[str, Any] | None, folder: Path
) -> Executor | None:
    if submitit is not None:
        from precisionbench.studies.submitit_executor import submitit_executor

        return submitit_executor(folder, submitit)
    if workers is not None:
        from precisionbench.studies.executors import LocalProcesses

        return LocalProcesses(workers)
    return None


def _print_cell(progress: StudyProgress) -> None:
    """Print a line about a cell to stderr."""
    from precisionbench.report.progress_state import clock_text

    outcome = progress.outcome
    why = f" ({outcome.reason})" if outcome.reason else ""
    left = f", about {clock_text(progress.remaining_s)} left" if progress.remaining_s else ""
    cell = f"{outcome.cell.title} on {outcome.cell.device}"
    complain(f"[{progress.finished}/{progress.total}] {cell}: {outcome.state}{why}{left}")


def _end(outcomes: tuple[Outcome, ...], made: Study) -> None:
    """Print what to do next, and exit with 3 if cells failed and none was measured."""
    from precisionbench.cli.exit_codes import NOTHING_MEASURED

    failed = sum(one.failed for one in made.status())
    if failed:
        cells = "1 cell has" if failed == 1 else f"{failed} cells have"
        complain(f"\n{cells} failed; --retry-failed measures failed cells again")
    folder = shlex.quote(str(made.folder))
    complain(f"\nResults are in {made.folder}\nNext: precisionbench study show {folder}")
    states = {one.state for one in outcomes}
    if "failed" in states and "measured" not in states:
        click.get_current_context().exit(NOTHING_MEASURED)


@study.command(
    short_help="Show how many cells are measured, and the time left.",
    epilog=exit_codes_text(three=INTERNAL_ERROR),
)
@click.argument("study", type=AnyFile(), metavar="FILE_OR_FOLDER")
@json_option("the numbers")
def status(study: str, as_json: bool) -> None:
    """Show how many cells of a study are measured, failed and left, on each device.

    The time left is the median time of the device's measured cells for each cell that is left.

    \b
    Example:
      precisionbench study status resnet.toml
    """
    found = _opened(study)
    if as_json:
        print_json("precisionbench.study_status", {"devices": found.status()})
    else:
        _print_status(found)


def _print_status(found: Study) -> None:
    from precisionbench.report.study_text import show_status, status_text

    devices = found.status()
    print_text(partial(status_text, devices), partial(show_status, devices))


def _opened(name: str) -> Study:
    """The study of a folder, or of the TOML file that defines it."""
    from precisionbench.studies.definition import read_toml
    from precisionbench.studies.run import Study

    return Study(read_toml(name).folder if name.endswith(".toml") else name)


for _command in (run, status, show, merge, check):
    study.add_command(_command)
    _command.params.append(debug_option())
