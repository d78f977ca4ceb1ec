"""`precisionbench compare`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from precisionbench.cli.early_start import start_fork_server
from precisionbench.cli.exit_codes import A_THRESHOLD, exit_codes_text
from precisionbench.cli.options import (
    Number,
    backends_option,
    budget_option,
    device_option,
    effort_options,
    evidence_option,
    experiments_option,
    json_option,
    quiet_option,
    replicas_option,
    result_file_options,
    seed_option,
    spec_option,
    wide_option,
)
from precisionbench.cli.output import (
    print_comparison,
    print_prose,
    print_tracebacks_of_rows,
    progress,
)
from precisionbench.cli.result_files import ResultFiles, files_of
from precisionbench.cli.saved import name_of, print_next, remember
from precisionbench.cli.thresholds import exit_if_missed, fail_under_option
from precisionbench.cli.workload_options import (
    Shapes,
    input_shape_option,
    models_argument,
    one_or_more_batch_sizes_option,
    random_inputs,
)

if TYPE_CHECKING:
    from precisionbench.comparison import Comparison
    from precisionbench.testing.thresholds import Threshold
    from precisionbench.workflows.diagnose import Diagnosis
    from precisionbench.workflows.experiment_runs import Experiments


@click.command(
    short_help="Measure MODEL, or several, under several backends.",
    epilog=exit_codes_text(A_THRESHOLD),
)
@models_argument()
@backends_option(
    "Backend as name:option=value,... or fp32, tf32, fp16, bf16, amp, tensorrt; LABEL=... "
    "gives the row a label (repeatable; default: those for the device)."
)
@spec_option(
    "--reference",
    default="eager",
    show_default=True,
    help="The row that all others are compared with.",
)
@one_or_more_batch_sizes_option()
@input_shape_option()
@device_option()
@click.option(
    "--launcher",
    type=click.Choice(["process", "inline"]),
    default="process",
    show_default=True,
    help="Worker processes in interleaved rounds, or one backend after another in this process.",
)
@replicas_option("backend")
@click.option(
    "--sessions",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Complete repetitions, each with new processes.",
)
@seed_option()
@effort_options()
@budget_option()
@click.option(
    "--noise-floor",
    type=Number("a share", "0.0025"),
    metavar="SHARE",
    help="Run-to-run variance of this machine, as `examine` reports it.",
)
@click.option(
    "--shared-cores",
    type=click.IntRange(min=0),
    help="CPU cores that all workers share; 0: all cores.  [default: 2 on a GPU]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads in which rows compute.  [default: PyTorch's]",
)
@evidence_option(
    None,
    "Profile each row after it is measured.  [default: evidence, unless quick]",
)
@result_file_options("the result")
@json_option("the result")
@wide_option()
@quiet_option()
@click.option("--explain", is_flag=True, help="Also diagnose why the rows are as fast as they are.")
@experiments_option(
    "With --explain: auto, none, or names (repeatable).  [default: auto; none of several models]"
)
@fail_under_option
def compare(
    model: str | dict[str, str],
    files: ResultFiles,
    as_json: bool,
    wide: bool,
    quiet: bool,
    explain: bool,
    experiments: tuple[str, ...],
    fail_under: tuple[str, ...],
    shapes: Shapes,
    **options: Any,
) -> None:
    """Measure MODEL, or several models, under several backends and show the table.

    MODEL is torchvision:NAME, package.module:function or path/to/file.py:function where the
    function returns a model and its inputs, or a class of models with --input-shape. The working
    directory is on the import path. Each of several models is measured under each backend, all in
    the same rounds; LABEL= gives it a name for the table.

    \b
    Example:
      precisionbench compare torchvision:resnet50 -b fp16 -b amp -o r.json
      precisionbench compare mine.py:Net --input-shape 3,224,224 --batch-size 1,8
      precisionbench compare old=v1.py:make new=v2.py:make -b fp16 --reference old
    """
    if explain and options["evidence"] is False:
        raise click.UsageError("--explain requires profiling; omit --no-evidence")
    if explain:
        options["evidence"] = True  # of a quick comparison, too
    if options["launcher"] == "process":
        start_fork_server(*([model] if isinstance(model, str) else model.values()))

    from precisionbench.measure.compare import compare as measure

    options["backends"] = options["backends"] or None
    thresholds = _thresholds(fail_under, model, options) if fail_under else []
    has_experiments = explain and (isinstance(model, str) or bool(experiments))
    options["experiments"] = _experiments(has_experiments, experiments)
    files.check(files_of(model))
    if shapes:
        batch_size = options.pop("batch_size")
        options["inputs"] = random_inputs(shapes, batch_size, options["device"])
        if not isinstance(batch_size, int):
            options["batch_size"] = batch_size  # rows of other sizes take their first items
    with files.journal() as journal, progress(quiet) as on_progress:
        comparison = measure(model, on_progress=on_progress, journal=journal, **options)
    saved = remember(comparison)
    try:
        files.save(comparison, journal)
    finally:  # a full disk must not hide the figures, nor a closed pipe prevent the file
        print_tracebacks_of_rows(comparison)
        file = files.output or saved
        print_comparison(comparison, as_json, wide, name_of(file) if file else None)
        diagnosis = _explained(comparison) if explain else None
    files.write_report(comparison, journal, diagnosis)
    print_next(comparison, files.output, saved, done=explain)
    exit_if_missed(thresholds, comparison, were_planned=True)


def _explained(comparison: Comparison) -> Diagnosis:
    """Diagnose a comparison with the experiments that were made, and print that."""
    from precisionbench.report.diagnosis import to_text
    from precisionbench.workflows.diagnose import explain

    diagnosis = explain(comparison)
    print()
    print_prose(partial(to_text, diagnosis))
    return diagnosis


def _experiments(explain: bool, names: tuple[str, ...]) -> Experiments | None:
    """The experiments of --explain, which are made while the workers of the rows still run."""
    from precisionbench.workflows.experiment_runs import Experiments

    return Experiments(names or "auto") if explain else None


def _thresholds(
    fail_under: tuple[str, ...], model: str | dict[str, str], options: Mapping[str, Any]
) -> list[Threshold]:
    """Thresholds of rows that will be measured, unless a default row is left out."""
    from precisionbench.measure.matrix import Matrix
    from precisionbench.measure.planning import batch_sizes_of, planned_rows
    from precisionbench.measure.rows import default_backends
    from precisionbench.model.workload import usable_device
    from precisionbench.testing.thresholds import check_rows, parse

    thresholds = [parse(text) for text in fail_under]
    backends = options["backends"] or default_backends(usable_device(options["device"]).type)
    models = () if isinstance(model, str) else tuple(model)
    matrix = Matrix(models, batch_sizes_of(options["batch_size"]))
    planned = planned_rows(backends, options["reference"], matrix)
    names = [(name, row) for row in planned.rows for name in (row.name, row.label) if name]
    known = [(name, row.identity["options"]) for name, row in names]
    check_rows(thresholds, known, planned.all_references)
    return thresholds
