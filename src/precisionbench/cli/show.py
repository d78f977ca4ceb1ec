"""`precisionbench show`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from precisionbench.cli.output import end_where_missed, fail_under_option, print_comparison

if TYPE_CHECKING:
    from precisionbench.comparison import Comparison


@click.command()
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
@fail_under_option
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
        print_comparison(comparison, as_json)
    end_where_missed(wanted, comparison)


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
