"""`precisionbench explain`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from precisionbench.cli.completion import ResultFile
from precisionbench.cli.exits import exit_codes
from precisionbench.cli.options import RECORD_ID, SPEC, json_option, quiet_option
from precisionbench.cli.output import print_json, print_prose, progress

if TYPE_CHECKING:
    from precisionbench.comparison import Comparison
    from precisionbench.workflows.diagnose import Diagnosis


_WITH_MODEL = "give MODEL after FILE, as in `precisionbench explain result.json my_code:build`"


@click.command(
    short_help="Say why a saved result is what it is.",
    epilog=exit_codes(),
)
@click.argument("file", type=ResultFile())
@click.argument("model", required=False)
@click.option(
    "--experiments",
    multiple=True,
    metavar="NAME",
    help="auto, none, or names (again for each); they need MODEL.  [default: auto with MODEL]",
)
@click.option(
    "--to", type=RECORD_ID, metavar="ID", help="Explain the gap to a published number instead."
)
@click.option("--backend", "-b", type=SPEC, metavar="SPEC", help="Of --to: the row to begin with.")
@click.option(
    "--through", type=SPEC, metavar="SPEC", help="Of --to: the row at which measuring ends."
)
@click.option("--markdown", is_flag=True, help="Of --to: print it as Markdown.")
@json_option()
@quiet_option()
def explain(
    file: str,
    model: str | None,
    experiments: tuple[str, ...],
    to: str | None,
    backend: str | None,
    through: str | None,
    markdown: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say why the rows of a saved result are as fast as they are, or not as a published number.

    Without MODEL nothing is run, and neither a GPU nor torch is needed; with it, experiments are
    made that prove causes or rule them out.

    \b
    Example:
      precisionbench explain result.json torchvision:resnet50
      precisionbench explain result.json --to mlperf-v4.1-h200-resnet50-offline
    """
    from precisionbench.comparison import load
    from precisionbench.report.diagnosis import to_text
    from precisionbench.workflows.diagnose import diagnose

    comparison = load(file)
    if to is not None:
        if model or experiments:
            raise click.UsageError("--to runs nothing; leave MODEL and --experiments out")
        _print_gap(comparison, to, backend, through, markdown, as_json)
        return
    if backend or through or markdown:
        raise click.UsageError("--backend, --through and --markdown belong to --to; add it")
    if model is None and experiments not in ((), ("none",)):
        raise click.UsageError(f"experiments need the model: {_WITH_MODEL}")
    with progress(quiet or model is None) as on_progress:
        wanted = experiments or ("auto" if model else "none",)
        found = diagnose(comparison, model, wanted, on_progress=on_progress)
    if as_json:
        print_json("precisionbench.diagnosis", found)
    else:
        print_prose(partial(to_text, found))


def _print_gap(
    comparison: Comparison,
    to: str,
    backend: str | None,
    through: str | None,
    markdown: bool,
    as_json: bool,
) -> None:
    from precisionbench.report.ledger import to_text
    from precisionbench.workflows.diagnose import explain_gap

    gap = explain_gap(comparison, backend or comparison.data.reference, to, through=through)
    if as_json:
        print_json("precisionbench.gap", gap.as_data())
    elif markdown:
        print(gap.to_markdown())
    else:
        print_prose(partial(to_text, gap))


def print_diagnosis(
    comparison: Comparison, model: str, experiments: tuple[str, ...], quiet: bool
) -> Diagnosis:
    """Diagnose a comparison, and print what was found below its table."""
    from precisionbench.report.diagnosis import to_text
    from precisionbench.workflows.diagnose import diagnose

    with progress(quiet) as on_progress:
        found = diagnose(comparison, model, experiments, on_progress=on_progress)
    print()
    print_prose(partial(to_text, found))
    return found
