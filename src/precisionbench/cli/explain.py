"""`precisionbench explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from precisionbench.cli.output import print_json

if TYPE_CHECKING:
    from precisionbench.comparison import Comparison
    from precisionbench.explaining import Diagnosis


@click.command()
@click.argument("file")
@click.argument("model", required=False)
@click.option(
    "--experiments",
    multiple=True,
    metavar="NAME",
    help="auto, none, or names (again for each); they need MODEL.  [default: auto with MODEL]",
)
@click.option("--to", metavar="ID", help="Explain the gap to a published number instead.")
@click.option("--backend", "-b", metavar="SPEC", help="Of --to: the row to begin with.")
@click.option("--through", metavar="SPEC", help="Of --to: the row at which measuring ends.")
@click.option("--markdown", is_flag=True, help="Of --to: print it as Markdown.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def explain(
    file: str,
    model: str | None,
    experiments: tuple[str, ...],
    to: str | None,
    backend: str | None,
    through: str | None,
    markdown: bool,
    as_json: bool,
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
    from precisionbench.explaining import diagnose

    comparison = load(file)
    if to is not None:
        if model or experiments:
            raise click.UsageError("--to runs nothing; leave MODEL and --experiments out")
        _print_gap(comparison, to, backend, through, markdown, as_json)
        return
    if backend or through or markdown:
        raise click.UsageError("--backend, --through and --markdown belong to --to; add it")
    found = diagnose(comparison, model, experiments or ("auto" if model else "none",))
    if as_json:
        print_json("precisionbench.diagnosis", found)
    else:
        click.echo(str(found))


def _print_gap(
    comparison: Comparison,
    to: str,
    backend: str | None,
    through: str | None,
    markdown: bool,
    as_json: bool,
) -> None:
    from precisionbench.explaining import explain_gap

    gap = explain_gap(comparison, backend or comparison.data.reference, to, through=through)
    if as_json:
        print_json("precisionbench.gap", gap.as_data())
    else:
        click.echo(gap.to_markdown() if markdown else str(gap))


def print_diagnosis(
    comparison: Comparison, model: str | None, experiments: tuple[str, ...], to_stderr: bool = False
) -> Diagnosis:
    """Diagnose a comparison, and print what was found below its table."""
    from precisionbench.explaining import diagnose

    found = diagnose(comparison, model, experiments)
    click.echo(err=to_stderr)
    click.echo(str(found), err=to_stderr)
    return found
