"""`precisionbench tune`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from precisionbench.cli.completion import AnyFile
from precisionbench.cli.early_start import start_fork_server
from precisionbench.cli.exit_codes import INTERRUPTED, exit_codes_text
from precisionbench.cli.options import (
    Number,
    device_option,
    json_option,
    quiet_option,
    result_file_options,
    seconds_option,
    seed_option,
    spec_option,
)
from precisionbench.cli.output import complain, print_json, print_prose, progress
from precisionbench.cli.result_files import ResultFiles, files_of
from precisionbench.cli.tuning_output import print_tuning
from precisionbench.cli.workload_options import (
    Shapes,
    batch_size_option,
    batch_sizes_option,
    input_shape_option,
    model_argument,
    random_inputs,
)

if TYPE_CHECKING:
    from precisionbench.workflows.tuning.tuned import Tuned


_FUNCTION = "MODULE:FUNCTION"


class _Wanted(NamedTuple):
    """How accurate the result has to be; the options of these names say it."""

    max_error: float | None
    metric: str | None
    data: str | None
    drop: float | None
    lower_is_better: bool

    def check(self) -> None:
        """Refuse options that do not belong together."""
        given = {"--metric": self.metric, "--data": self.data, "--drop": self.drop}
        missing = [name for name, value in given.items() if value is None]
        if len(missing) < len(given) and self.max_error is not None:
            raise click.UsageError("--max-error and --metric exclude each other; give one of them")
        if 0 < len(missing) < len(given):
            raise click.UsageError(
                f"--metric, --data and --drop belong together; add {' and '.join(missing)}"
            )
        if self.lower_is_better and missing:
            raise click.UsageError("--lower-is-better is of a --metric; add it")

    def as_arguments(self) -> dict[str, Any]:
        """The same as arguments of `tune`, with the functions that are named."""
        found: dict[str, Any] = {"max_error": self.max_error}
        if self.metric is None or self.data is None:
            return found
        from precisionbench.model.sources import named_function

        return {
            **found,
            "metric": named_function(self.metric, "metric"),
            "data": _batches(self.data, named_function(self.data, "data")),
            "drop": self.drop,
            "higher_is_better": not self.lower_is_better,
        }


def _batches(name: str, function: Callable[[], Any]) -> Any:
    """What the function of --data returns."""
    from precisionbench.errors import FOREIGN_ERRORS, WorkloadError, one_line

    try:
        return function()
    except FOREIGN_ERRORS as exc:
        raise WorkloadError(
            f"the data {name!r} cannot be made ({one_line(exc)})",
            "give a function without arguments that returns the batches",
        ) from exc


def _space_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What is tried, besides the workload."""
    include = "Try only this backend or configuration (repeatable)."
    exclude = "Do not try this backend or configuration (repeatable)."
    for option in (
        spec_option("--exclude", multiple=True, help=exclude),
        spec_option("--include", multiple=True, help=include),
        spec_option(
            "--reference",
            default="eager",
            show_default=True,
            help="What speed-ups and the drop are over.",
        ),
    ):
        command = option(command)
    return command


def _accuracy_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How accurate the result has to be."""
    for option in (
        click.option("--lower-is-better", is_flag=True, help="A lower metric is better."),
        click.option(
            "--drop",
            type=Number("a number", "0.005"),
            metavar="NUMBER",
            help="Largest drop of the metric.",
        ),
        click.option("--data", metavar=_FUNCTION, help="Returns the batches for --metric."),
        click.option(
            "--metric",
            metavar=_FUNCTION,
            help="Returns a number for (outputs, batch), such as accuracy.",
        ),
        click.option(
            "--max-error",
            type=Number("a number", "0.01"),
            metavar="NUMBER",
            help="Largest relative L2 error against float64.  [default: 0.01]",
        ),
    ):
        command = option(command)
    return command


def _journal_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where what was tried is kept for a later run."""
    text = "Keep what was tried in this file.  [default: in the cache folder]"
    journal = click.option("--journal", metavar="FILE", type=AnyFile(), help=text)
    none = click.option("--no-journal", is_flag=True, help="Keep nothing, and use nothing kept.")
    return journal(none(command))


@click.command(
    short_help="Find the fastest configuration that is accurate enough.",
    epilog=exit_codes_text(),
)
@model_argument()
@_accuracy_options
@_space_options
@batch_sizes_option()
@batch_size_option()
@input_shape_option()
@device_option()
@seed_option("0")
@seconds_option("--budget", "budget_s", help="Total time.  [default: 120]")
@_journal_options
@click.option(
    "--show-space", is_flag=True, help="Print what would be tried and what is left out, and exit."
)
@result_file_options("the result")
@json_option("the result")
@quiet_option()
def tune(
    model: str,
    files: ResultFiles,
    as_json: bool,
    quiet: bool,
    shapes: Shapes,
    journal: str | None,
    no_journal: bool,
    show_space: bool,
    **options: Any,
) -> None:
    """Find the fastest configuration of MODEL that is accurate enough.

    Precisions, layouts, compile modes, CUDA graphs and engines are tried. Each is judged by its
    outputs before it is timed. A run that was ended goes on where it was when it is started again.

    \b
    Example:
      precisionbench tune torchvision:resnet50 --max-error 1e-2 -o tuned.json
      precisionbench tune mine:make --metric mine:top1 --data mine:batches \\
        --drop 0.005
      precisionbench tune mine:make --show-space
    """
    wanted = _Wanted(**{name: options.pop(name) for name in _Wanted._fields})
    wanted.check()
    if journal is not None and no_journal:
        raise click.UsageError("--journal and --no-journal exclude each other; give one of them")
    files.check(files_of(model, wanted.metric, wanted.data))
    for name in ("include", "exclude"):
        options[name] = options[name] or None
    if shapes:
        batch_size = options.pop("batch_size")
        options["inputs"] = random_inputs(shapes, batch_size, options["device"])
    if show_space:
        if files.output is not None or files.html is not None:
            raise click.UsageError("--show-space measures nothing; leave out -o and --html")
        _print_space(model, options, as_json)
        return
    start_fork_server(model)

    from precisionbench.workflows.tuning.tune import tune as search

    options["journal"] = None if no_journal else journal or "auto"
    with progress(quiet) as on_progress:
        result = search(model, on_progress=on_progress, **wanted.as_arguments(), **options)
    _write(result, files, as_json)
    if result.data.ended_by == "interrupted":
        click.get_current_context().exit(INTERRUPTED)


def _write(result: Tuned, files: ResultFiles, as_json: bool) -> None:
    """Save and print the result."""
    try:
        if files.output is not None:
            result.save(files.output, overwrite=files.overwrite)
    finally:  # a full disk must not hide the figures, nor a closed pipe prevent the file
        print_tuning(result.data, as_json)
    if files.html is not None:
        result.to_html(files.html, overwrite=files.overwrite)
    if files.output is not None:
        if sys.stdout is not None:
            sys.stdout.flush()  # in a pipe, too, this comes after the table
        name = shlex.quote(files.output)
        step = "" if files.html else f"\nNext: precisionbench show {name} --html report.html"
        complain(f"\nSaved to {files.output}{step}")


def _print_space(model: str, options: dict[str, Any], as_json: bool) -> None:
    """Print what would be tried and what is left out."""
    from precisionbench.measure.options import check_budget
    from precisionbench.report.tuning import space_text
    from precisionbench.workflows.tuning.tune import (
        LEAST_BUDGET_S,
        checked_reference,
        planned,
    )

    check_budget(options["budget_s"], LEAST_BUDGET_S)
    reference = checked_reference(options["reference"])
    names = ("inputs", "device", "batch_size", "seed", "include", "exclude", "batch_sizes")
    space = planned(model, **{name: options[name] for name in names if name in options})
    tried = [reference, *(spec for one in space.families for spec in one.first)]
    tried = [*dict.fromkeys(tried)]
    further = {one.backend: one.further for one in space.families}
    if as_json:
        document = {
            "tried": tried,
            "further": further,
            "batch_sizes": list(space.batch_sizes),
            "left_out": space.left_out,
        }
        print_json("precisionbench.tuning-space", document)
    else:
        print_prose(partial(space_text, tried, further, space.left_out, space.batch_sizes))
