"""The command line: a thin face over the library.

Results go to standard output, everything for people beside them to standard error. Heavy modules
are imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from precisionbench._version import __version__
from precisionbench.errors import (
    BackendUnavailableError,
    DeviceError,
    ExecutionError,
    MeasurementError,
    PrecisionBenchError,
    PreparationError,
    StateLeakError,
    one_line,
)

if TYPE_CHECKING:
    from rich.console import Console

    from precisionbench.comparison import Comparison
    from precisionbench.differences import Difference
    from precisionbench.explaining import Diagnosis
    from precisionbench.runner import Progress
    from precisionbench.thresholds import Threshold

_NOTHING_MEASURED = (
    BackendUnavailableError,
    DeviceError,
    ExecutionError,
    MeasurementError,
    PreparationError,
    StateLeakError,
)


# What stands for our few signs on a terminal that cannot show them.
_PLAIN_SIGNS = str.maketrans({"─": "-", "±": "+-", "µ": "u", "…": "...", "°": " deg "})


def _plainly(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_PLAIN_SIGNS)
    return text.encode("ascii", "replace").decode(), error.end


def _write_plainly_where_needed() -> None:
    """Let no sign that the terminal's encoding lacks end the program."""
    codecs.register_error("precisionbench.plain", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="precisionbench.plain")


class _Group(click.Group):
    """Turns the library's errors into one sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        _write_plainly_where_needed()
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
        except PrecisionBenchError as exc:
            failed = isinstance(exc, _NOTHING_MEASURED)
            raise (_NothingMeasured if failed else _BadUsage)(str(exc)) from exc
        except BrokenPipeError:  # whoever reads us has seen enough; click ends quietly
            raise
        except OSError as exc:
            _abandon_stdout()
            raise _BadUsage(f"the output could not be written ({one_line(exc)})") from exc
        return result


def _abandon_stdout() -> None:
    """Let Python not try again, and fail again, when it exits."""
    with contextlib.suppress(OSError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


_THRESHOLD_MISSED = 1
_fail_under = click.option(
    "--fail-under",
    multiple=True,
    metavar="THRESHOLD",
    help="End with 1 unless it holds: 'half>=1.5' (the lower end of the speed-up's interval) or "
    "'half error<=0.01' (again for each).",
)


class _BadUsage(click.ClickException):
    exit_code = 2


class _NothingMeasured(click.ClickException):
    exit_code = 3


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Measure a PyTorch model under every precision backend, side by side.

    \b
    Example:
      precisionbench compare torchvision:resnet50 --backend half --backend eager

    Exit codes: 0 fine, 1 a threshold missed or interrupted, 2 bad usage, 3 nothing measured.
    """


@main.command()
@click.argument("model")
@click.option(
    "--backend",
    "-b",
    "backends",
    multiple=True,
    metavar="SPEC",
    help="Backend as name:option=value,... (again for each; default: all that make sense).",
)
@click.option("--reference", default="eager", show_default=True, metavar="SPEC")
@click.option("--batch-size", type=click.IntRange(min=1), help="Items in one call.")
@click.option("--device", help="cpu, cuda, cuda:1, ... (default: the GPU where there is one).")
@click.option(
    "--launcher",
    type=click.Choice(["process", "inline"]),
    default="process",
    show_default=True,
    help="Worker processes in interleaved rounds, or this process, one backend after another.",
)
@click.option("--replicas", type=click.IntRange(1, 64), help="Fresh processes of each backend.")
@click.option(
    "--sessions",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Repeat the whole with new processes.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Of weights and inputs (default: drawn).")
@click.option("--budget", "budget_s", type=float, metavar="SECONDS", help="To measure in, in all.")
@click.option("--noise-floor", type=float, metavar="SHARE", help="As `doctor` measured it.")
@click.option(
    "--shared-cores",
    type=click.IntRange(min=0),
    help="Let all workers share so many CPU cores, or 0: all. [default: 2 on a GPU]",
)
@click.option(
    "--evidence/--no-evidence",
    default=True,
    help="See what runs in each row's calls once they are measured.  [default: evidence]",
)
@click.option("--output", "-o", metavar="FILE", help="Save the result as JSON.")
@click.option("--html", metavar="FILE", help="Write the report: one file for a browser.")
@click.option("--overwrite", is_flag=True, help="Let --output and --html replace a file.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead.")
@click.option("--explain", is_flag=True, help="Say why the rows are as fast as they are, too.")
@click.option(
    "--experiments",
    multiple=True,
    metavar="NAME",
    help="Of --explain: auto, none, or names (again for each).  [default: auto]",
)
@_fail_under
def compare(
    model: str,
    backends: tuple[str, ...],
    reference: str,
    batch_size: int | None,
    device: str | None,
    launcher: str,
    replicas: int | None,
    sessions: int,
    seed: int | None,
    budget_s: float | None,
    noise_floor: float | None,
    shared_cores: int | None,
    evidence: bool,
    output: str | None,
    html: str | None,
    overwrite: bool,
    as_json: bool,
    explain: bool,
    experiments: tuple[str, ...],
    fail_under: tuple[str, ...],
) -> None:
    """Measure MODEL under several backends and show the table.

    MODEL is torchvision:NAME, or package.module:function where the function gives a model and its
    inputs; the working directory is on the path.

    \b
    Example:
      precisionbench compare torchvision:resnet50 -b half -b half:memory_format=channels_last
    """
    from precisionbench import runner, thresholds

    if explain and not evidence:
        raise click.UsageError("--explain needs the evidence; leave --no-evidence out")
    wanted = [thresholds.parse(text) for text in fail_under]
    if wanted:
        rows, reference_name = runner.plan(backends or runner.DEFAULT_BACKENDS, reference)
        known = [(row.name, row.identity["options"]) for row in rows]
        thresholds.check_rows(wanted, known, reference_name)
    _check_outputs(output, html, overwrite)
    with _journal_beside(output) as journal, _progress() as on_progress:
        comparison = runner.compare(
            model,
            backends=backends or None,
            reference=reference,
            batch_size=batch_size,
            device=device,
            launcher=launcher,
            replicas=replicas,
            sessions=sessions,
            seed=seed,
            budget_s=budget_s,
            noise_floor=noise_floor,
            shared_cores=shared_cores,
            evidence=evidence,
            on_progress=on_progress,
            journal=journal,
        )
    # before saving: a full disk must not take the figures with it
    _print_comparison(comparison, as_json)
    if output is not None:
        comparison.save(output, overwrite=overwrite)
        if journal is not None:  # it has done its duty
            journal.unlink(missing_ok=True)
    diagnosis = None
    if explain:
        diagnosis = _explain(comparison, model, experiments or ("auto",), to_stderr=as_json)
    if html is not None:
        comparison.to_html(html, overwrite=overwrite, diagnosis=diagnosis)
    _end_where_missed(wanted, comparison)


def _end_where_missed(wanted: Sequence[Threshold], comparison: Comparison) -> None:
    """One sentence for each threshold that is missed, and the exit code that says so."""
    from precisionbench import thresholds

    found = thresholds.missed(wanted, comparison)
    for sentence in found:
        click.echo(sentence, err=True)
    if found:
        sys.exit(_THRESHOLD_MISSED)


def _check_outputs(output: str | None, html: str | None, overwrite: bool) -> None:
    """Refuse now what could not be written after minutes of measuring."""
    from precisionbench import storage

    named = [path for path in (output, html) if path is not None]
    for path in named:
        storage.check_writable(path, overwrite)
    if len({os.path.realpath(path) for path in named}) < len(named):
        raise click.UsageError("--output and --html name the same file; give two")


@contextmanager
def _journal_beside(output: str | None) -> Iterator[Path | None]:
    """Where blocks are written as they are finished; after an interrupt, say where they are."""
    from precisionbench.journal import free_name

    journal = None if output is None else free_name(Path(output))
    try:
        yield journal
    except KeyboardInterrupt:
        if journal is not None and journal.exists():
            click.echo(f"finished rounds are kept: precisionbench show {str(journal)!r}", err=True)
        raise


@main.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option("--markdown", is_flag=True, help="Print it as Markdown.")
@click.option("--rules", is_flag=True, help="Show rows as trtexec, MLPerf, ... would state them.")
@click.option(
    "--backend", "-b", "backends", multiple=True, metavar="SPEC", help="Of --rules: only this row."
)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="SPEC",
    help="Of --rules: a row of another engine (a DLA) that jetson_benchmarks would add.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print its rows as CSV, in full precision.")
@click.option("--html", metavar="FILE", help="Write the report: one file for a browser.")
@click.option("--overwrite", is_flag=True, help="Let --html replace a file.")
@_fail_under
def show(
    file: str,
    as_json: bool,
    markdown: bool,
    rules: bool,
    backends: tuple[str, ...],
    engines: tuple[str, ...],
    as_csv: bool,
    html: str | None,
    overwrite: bool,
    fail_under: tuple[str, ...],
) -> None:
    """Show a result that was saved; this needs no GPU and no torch.

    \b
    Example:
      precisionbench show result.json --markdown
      precisionbench show result.json --rules --backend half
      precisionbench show result.json --html report.html
      precisionbench show result.json --fail-under "half>=1.5"
    """
    from precisionbench import thresholds
    from precisionbench.comparison import load

    if as_json + markdown + as_csv > 1:
        raise click.UsageError("--json, --markdown and --csv exclude each other; give one of them")
    if (backends or engines) and not rules:
        raise click.UsageError("--backend and --engine belong to --rules; add it")
    wanted = [thresholds.parse(text) for text in fail_under]
    comparison = load(file)
    thresholds.check_rows(wanted, thresholds.rows_of(comparison), comparison.data.reference)
    if html is not None:
        comparison.to_html(html, overwrite=overwrite)
    if rules:
        click.echo(_under_rules(comparison, backends, engines, as_json, markdown))
    elif markdown:
        click.echo(comparison.to_markdown())
    elif as_csv:
        click.echo(comparison.to_csv(), nl=False)
    elif html is None or as_json:
        _print_comparison(comparison, as_json)
    _end_where_missed(wanted, comparison)


def _under_rules(
    comparison: Comparison,
    backends: tuple[str, ...],
    engines: tuple[str, ...],
    as_json: bool,
    markdown: bool,
) -> str:
    """What others would say of these rows, or of all."""
    from precisionbench import storage
    from precisionbench.report import rules

    rows = [comparison[name].backend for name in backends] or [row.backend for row in comparison]
    found = {name: comparison.under_rules(name, engines) for name in rows}
    if as_json:
        document = {"format": "precisionbench.statements", "version": 1}
        statements = {name: storage.unstructured(said) for name, said in found.items()}
        return json.dumps({**document, "rows": statements}, indent=1, allow_nan=False)
    return rules.to_markdown(found) if markdown else rules.to_text(found)


def _explain(
    comparison: Comparison, model: str | None, experiments: tuple[str, ...], to_stderr: bool = False
) -> Diagnosis:
    from precisionbench.explaining import diagnose

    found = diagnose(comparison, model, experiments)
    click.echo(err=to_stderr)
    click.echo(str(found), err=to_stderr)
    return found


@main.command()
@click.argument("file")
@click.argument("model", required=False)
@click.option(
    "--experiments",
    multiple=True,
    metavar="NAME",
    help="auto, none, or names (again for each); they need MODEL.  [default: auto with MODEL]",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def explain(file: str, model: str | None, experiments: tuple[str, ...], as_json: bool) -> None:
    """Say why the rows of a saved result are as fast as they are.

    Without MODEL nothing is run, and neither a GPU nor torch is needed; with it, experiments are
    made that prove causes or rule them out.

    \b
    Example:
      precisionbench explain result.json torchvision:resnet50
    """
    from precisionbench import storage
    from precisionbench.comparison import load
    from precisionbench.explaining import diagnose

    found = diagnose(load(file), model, experiments or ("auto" if model else "none",))
    if as_json:
        document = {"format": "precisionbench.diagnosis", "version": 1}
        text = json.dumps({**document, **storage.unstructured(found)}, indent=1, allow_nan=False)
        click.echo(text)
    else:
        click.echo(str(found))


@main.command()
@click.argument("old")
@click.argument("new")
@click.option("--force", is_flag=True, help="Compare runs that are not alike, and say in what.")
@click.option(
    "--fail-if-slower",
    is_flag=True,
    help="End with 1 where a row became slower, fails now, or nothing could be compared.",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def diff(old: str, new: str, force: bool, fail_if_slower: bool, as_json: bool) -> None:
    """Hold the result NEW against the result OLD, row by row; this needs no GPU and no torch.

    Runs that differ in something else that changes times (the GPU, its power mode or driver, the
    batch, torch, ...) are refused with what differs.

    \b
    Example:
      precisionbench diff main.json branch.json --fail-if-slower
    """
    from precisionbench import storage
    from precisionbench.comparison import load
    from precisionbench.report.changes import show as show_changes
    from precisionbench.report.changes import to_text

    found = load(new).against(load(old), force=force)
    if as_json:
        document = {"format": "precisionbench.difference", "version": 1}
        text = json.dumps({**document, **storage.unstructured(found)}, indent=1, allow_nan=False)
        click.echo(text)
    else:
        _print(to_text(found), lambda console: show_changes(found, console))
    if fail_if_slower and (missed := _missed(found)):
        click.echo(missed, err=True)
        sys.exit(_THRESHOLD_MISSED)


def _missed(found: Difference) -> str:
    """Why a newer run does not pass; empty where it does. What is not told apart passes."""
    if found.slower:
        return f"slower than before: {', '.join(row.backend for row in found.slower)}"
    if found.broken:
        return f"measured before and failing now: {', '.join(found.broken)}"
    return "" if found.rows else "no row was measured in both runs"


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def backends(as_json: bool) -> None:
    """List installed backends, their options, and what is missing.

    \b
    Example:
      precisionbench backends
    """
    import attrs

    from precisionbench.backends.discovery import list_backends

    found = list_backends()
    if as_json:
        click.echo(json.dumps([attrs.asdict(info) for info in found], indent=1))
        return
    for info in found:
        state = "ready" if info.available else f"not here: needs {info.requirement}; {info.remedy}"
        click.echo(f"{click.style(info.name, bold=True)}  {info.summary}")
        click.echo(f"  {state}")
        for option, allowed in info.options.items():
            click.echo(f"    {option}={allowed.replace(' or ', '|').replace(chr(39), '')}")


@main.command()
@click.option("--device", metavar="NAME", help="Such as 'agx xavier', h200, a100.")
@click.option("--model", metavar="NAME", help="Such as resnet50, or 'ResNet-50 v1.5'.")
@click.option("--precision", metavar="NAME", help="Such as int8 or fp16.")
@click.option("--id", metavar="ID", help="Show all of one, with what the device's peaks say of it.")
@click.option("--file", metavar="FILE", help="A TOML file with more of them.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def published(
    device: str | None,
    model: str | None,
    precision: str | None,
    id: str | None,
    file: str | None,
    as_json: bool,
) -> None:
    """List numbers that others published, with their conditions; this needs no GPU and no torch.

    None of them was measured here, and each says how far it can be trusted.

    \b
    Example:
      precisionbench published --device "agx xavier" --model resnet50
    """
    from precisionbench.published import find, get
    from precisionbench.published.searching import what_exists
    from precisionbench.report import published as report

    if id is not None and (device or model or precision):
        raise click.UsageError("--id names one record; leave --device, --model, --precision out")
    found = (get(id, file=file),) if id else find(device, model, precision, file=file)
    if as_json:
        click.echo(report.to_json(found), nl=False)
    elif id:
        _print(report.card_text(found[0]), lambda console: report.show_card(found[0], console))
    elif found:
        _print(report.to_text(found), lambda console: report.show(found, console))
    else:
        click.echo(what_exists(device, model, precision, file=file))


@main.command()
@click.option("--device", help="cpu, cuda, cuda:1, ... (default: the GPU where there is one).")
@click.option("--quick", is_flag=True, help="Leave out the trials of noise (about a minute).")
@click.option(
    "--replicas",
    type=click.IntRange(2, 32),
    default=3,
    show_default=True,
    help="Processes on each side of a trial.",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def doctor(device: str | None, quick: bool, replicas: int, as_json: bool) -> None:
    """Measure this machine: what it can do, how well it can be measured, what stands in the way.

    It compares small models with themselves in fresh processes, so that you know which speed-up
    is too small to be told here, and holds matmuls and copies against the device's peaks.

    \b
    Example:
      precisionbench doctor
    """
    from precisionbench.doctor.examining import examine
    from precisionbench.doctor.text import show

    with _progress() as on_progress:
        found = examine(device, quick=quick, replicas=replicas, on_progress=on_progress)
    if as_json:
        click.echo(found.to_json(), nl=False)
    else:
        _print(str(found), lambda console: show(found.checks, found.readings.noise_floor, console))


def _print_comparison(comparison: Comparison, as_json: bool) -> None:
    if as_json:
        click.echo(comparison.to_json(), nl=False)
        return
    from precisionbench.report.text import show as show_table

    _print(str(comparison), lambda console: show_table(comparison.data, console))


def _print(plain: str, show_on: Callable[[Console], None]) -> None:
    """In colour on a terminal; a pipe or a file gets plain text, 80 columns wide."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    if console.is_terminal:
        show_on(console)
    else:
        click.echo(plain)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


@contextmanager
def _progress() -> Iterator[Any]:
    """Say on standard error what is being measured: a live line on a terminal, else one a row."""
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    if not _is_terminal(sys.stderr):
        yield _log
        return
    console = Console(stderr=True, highlight=False, emoji=False)
    spinner = Spinner("dots", "looking at the model")
    with Live(spinner, console=console, transient=True) as live:

        def tell(progress: Progress) -> None:
            if progress.stage == "failed":
                console.print(
                    f"{progress.backend}: {progress.message}", markup=False, style="yellow"
                )
            spinner.update(text=Text(_progress_text(progress)))
            live.refresh()

        yield tell


def _progress_text(progress: Progress) -> str:
    if progress.backend:
        where = f"[{progress.position}/{progress.total}]"
        return f"{where} {progress.backend}: {progress.stage}"
    left = "" if progress.remaining_s is None else f", about {progress.remaining_s:.0f} s left"
    return f"round {progress.position}{left}"


def _log(progress: Progress) -> None:
    if progress.stage in ("done", "failed"):
        reason = f": {progress.message}" if progress.message else ""
        where = f"[{progress.position}/{progress.total}]"
        print(f"{where} {progress.backend} {progress.stage}{reason}", file=sys.stderr)
