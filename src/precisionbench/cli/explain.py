"""`precisionbench explain`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from precisionbench.cli.completion import ResultFile
from precisionbench.cli.early_start import start_fork_server
from precisionbench.cli.exit_codes import exit_codes_text
from precisionbench.cli.options import (
    experiments_option,
    html_option,
    json_option,
    overwrite_option,
    quiet_option,
    record_option,
    spec_option,
)
from precisionbench.cli.output import print_json, print_lines, print_prose, progress
from precisionbench.cli.result_files import files_of, spare_read_files
from precisionbench.cli.workload_options import Shapes, input_shape_option, random_inputs

if TYPE_CHECKING:
    from precisionbench.comparison import Comparison
    from precisionbench.workflows.diagnose import Diagnosis, GapLedger


_WITH_MODEL = "give MODEL after FILE, as in `precisionbench explain result.json my_code:build`"


class _GapOptions(NamedTuple):
    """How to explain the gap to a published number; the options of these names ask for it."""

    to: str | None
    backend: str | None
    through: str | None
    markdown: bool


class _Report(NamedTuple):
    """The report to write, besides what is printed."""

    html: str | None
    overwrite: bool

    def check(self, *read: str) -> None:
        """Refuse a file that could not be written after the experiments, or is read."""
        from precisionbench._internal.files import check_writable

        if self.overwrite and self.html is None:
            raise click.UsageError("--overwrite requires --html; add it")
        if self.html is not None:
            check_writable(self.html, self.overwrite)
            spare_read_files(self.html, read)

    def write(self, comparison: Comparison, **explained: Any) -> None:
        """Write it, with the ledger or the diagnosis."""
        if self.html is not None:
            comparison.to_html(self.html, overwrite=self.overwrite, **explained)


@click.command(
    short_help="Diagnose a saved result: causes and remedies.",
    epilog=exit_codes_text(),
)
@click.argument("file", type=ResultFile())
@click.argument("model", required=False)
@input_shape_option()
@experiments_option(
    "auto, none, or names (repeatable); requires MODEL.  [default: auto with MODEL]"
)
@record_option("--to", "Explain the gap to a published number instead.")
@spec_option("--backend", "-b", help="With --to: the row to start from.")
@spec_option("--through", help="With --to: the last row of the measured factors.")
@click.option("--markdown", is_flag=True, help="With --to: print Markdown.")
@click.option(
    "--trust",
    is_flag=True,
    help="Let experiments use the plugins, code and folders that FILE names.",
)
@html_option()
@overwrite_option("--html")
@json_option()
@quiet_option()
def explain(
    file: str,
    model: str | None,
    experiments: tuple[str, ...],
    trust: bool,
    as_json: bool,
    quiet: bool,
    html: str | None,
    overwrite: bool,
    shapes: Shapes,
    **gap_options: Any,
) -> None:
    """Diagnose a saved result: the cause of each row's speed, or of the gap to a published number.

    Without MODEL nothing is run, and neither a GPU nor torch is needed. With MODEL, experiments
    confirm causes or rule them out. A row of FILE that names a plugin, code or a folder is left out
    of the experiments unless you give --trust.

    \b
    Example:
      precisionbench explain last
      precisionbench explain result.json torchvision:resnet50
      precisionbench explain result.json --to mlperf-v5.0-h200-resnet50-offline \\
        --html gap.html
    """
    from precisionbench.comparison import load
    from precisionbench.workflows.diagnose import explain as explain_rows

    comparison = load(file)
    gap = _GapOptions(**gap_options)
    _check_usage(gap, model, experiments)
    if (trust or shapes) and model is None:
        option = "--trust" if trust else "--input-shape"
        raise click.UsageError(
            f"{option} is for experiments, which require the model: {_WITH_MODEL}"
        )
    report = _Report(html, overwrite)
    report.check(file, *files_of(model))
    if gap.to is not None:
        ledger = _gap_ledger(comparison, gap)
        _print_gap(ledger, gap.markdown, as_json)
        report.write(comparison, ledger=ledger)
        return
    experiments = experiments or ("auto" if model else "none",)
    if model is not None and experiments != ("none",):
        start_fork_server(model)
    inputs = random_inputs(shapes, comparison.data.workload.batch_size, None)
    workload = (model, inputs) if inputs else model
    with progress(quiet or model is None) as on_progress:
        diagnosis = explain_rows(
            comparison, workload, experiments, trust=trust, on_progress=on_progress
        )
    if as_json:
        print_json("precisionbench.diagnosis", diagnosis)
    else:
        print_prose(partial(_text, comparison, diagnosis))
    report.write(comparison, diagnosis=diagnosis)


def _text(comparison: Comparison, diagnosis: Diagnosis, width: int) -> str:
    """The result in a sentence, and why it is so."""
    from precisionbench.report.diagnosis import to_text
    from precisionbench.report.headline import headline

    return to_text(diagnosis, width, headline(comparison.data, diagnosis=diagnosis))


def _check_usage(gap: _GapOptions, model: str | None, experiments: tuple[str, ...]) -> None:
    if gap.to is not None:
        if model or experiments:
            raise click.UsageError("--to runs nothing; omit MODEL and --experiments")
        return
    if gap.backend or gap.through or gap.markdown:
        raise click.UsageError("--backend, --through and --markdown require --to; add it")
    if model is None and experiments not in ((), ("none",)):
        raise click.UsageError(f"experiments require the model: {_WITH_MODEL}")


def _gap_ledger(comparison: Comparison, gap: _GapOptions) -> GapLedger:
    from precisionbench.workflows.diagnose import explain_gap

    assert gap.to is not None
    start = gap.backend or comparison.data.reference
    return explain_gap(comparison, start, gap.to, through=gap.through)


def _print_gap(ledger: GapLedger, markdown: bool, as_json: bool) -> None:
    from precisionbench.report.ledger import to_text

    if as_json:
        print_json("precisionbench.gap", ledger.as_data())
    elif markdown:
        print_lines(ledger.to_markdown())
    else:
        print_prose(partial(to_text, ledger))
