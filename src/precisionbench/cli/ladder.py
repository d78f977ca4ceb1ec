"""`precisionbench ladder`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from precisionbench.cli.early_start import start_fork_server
from precisionbench.cli.exit_codes import exit_codes_text
from precisionbench.cli.options import (
    budget_option,
    device_option,
    effort_options,
    evidence_option,
    json_option,
    quiet_option,
    record_option,
    replicas_option,
    result_file_options,
    seed_option,
    spec_option,
)
from precisionbench.cli.output import (
    print_json,
    print_prose,
    print_tracebacks_of_rows,
    progress,
)
from precisionbench.cli.result_files import ResultFiles, files_of
from precisionbench.cli.saved import print_next, remember
from precisionbench.cli.workload_options import (
    Shapes,
    batch_size_option,
    input_shape_option,
    model_argument,
    random_inputs,
)

if TYPE_CHECKING:
    from precisionbench.workflows.ladder import Ladder


@click.command(
    short_help="Measure one change at a time, up to the fastest row.",
    epilog=exit_codes_text(),
)
@model_argument()
@record_option("--to", "Continue to a published number; see `published`.")
@spec_option("--start", default="eager", show_default=True, help="The row to start from.")
@batch_size_option()
@input_shape_option()
@device_option()
@replicas_option("row")
@seed_option()
@effort_options()
@budget_option()
@evidence_option(False, "Also profile each row.")
@result_file_options("the measured rows")
@json_option("the rungs and the gap")
@quiet_option()
def ladder(
    model: str, files: ResultFiles, as_json: bool, quiet: bool, shapes: Shapes, **options: Any
) -> None:
    """Measure MODEL one change at a time, from the start row to the fastest row.

    Each change gets its own factor. With --to, the gap from the fastest row to a published number
    is explained, too.

    \b
    Example:
      precisionbench ladder torchvision:resnet50 --batch-size 100 \\
        --to mlperf-v5.0-h200-resnet50-offline
    """
    start_fork_server(model)

    from precisionbench.workflows.ladder import ladder as measure

    files.check(files_of(model))
    if shapes:
        batch_size = options.pop("batch_size")
        options["inputs"] = random_inputs(shapes, batch_size, options["device"])
    with files.journal() as journal, progress(quiet) as on_progress:
        result = measure(model, on_progress=on_progress, journal=journal, **options)
    saved = remember(result.comparison)
    try:
        files.save(result, journal)
    finally:  # a full disk must not hide the figures, nor a closed pipe prevent the file
        _print(result, as_json)
    files.write_report(result, journal)
    print_next(result.comparison, files.output, saved, done=False)


def _print(result: Ladder, as_json: bool) -> None:
    print_tracebacks_of_rows(result.comparison)
    if as_json:
        print_json("precisionbench.ladder", result.as_data())
    else:
        print_prose(result.to_text)
