"""`precisionbench show`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from precisionbench.cli.completion import ResultFile
from precisionbench.cli.exits import OWN_FAILURE, exit_codes
from precisionbench.cli.options import SPEC, html_option, json_option, overwrite_option, wide_option
from precisionbench.cli.output import (
    end_where_missed,
    fail_under_option,
    print_comparison,
    print_json,
    print_prose,
)

if TYPE_CHECKING:
    from precisionbench.comparison import Comparison


@click.command(
    short_help="Show a saved result, also as Markdown, CSV or HTML.",
    epilog=exit_codes(three=OWN_FAILURE),
)
@click.argument("file", type=ResultFile())
@json_option()
@click.option("--markdown", is_flag=True, help="Print it as Markdown.")
@click.option("--rules", is_flag=True, help="Show rows as trtexec, MLPerf, ... would state them.")
@click.option(
    "--backend",
    "-b",
    "backends",
    type=SPEC,
    multiple=True,
    metavar="SPEC",
    help="Of --rules: only this row.",
)
@click.option(
    "--engine",
    "engines",
    type=SPEC,
    multiple=True,
    metavar="SPEC",
    help="Of --rules: a row of another engine (a DLA) that jetson_benchmarks would add.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print its rows as CSV, in full precision.")
@html_option()
@overwrite_option("--html")
@wide_option()
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
    wide: bool,
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
    from precisionbench.comparison import load
    from precisionbench.testing import thresholds

    if as_json + markdown + as_csv > 1:
        raise click.UsageError("--json, --markdown and --csv exclude each other; give one of them")
    if rules and as_csv:
        raise click.UsageError(
            "--rules and --csv exclude each other; --rules --json is for machines"
        )
    if overwrite and html is None:
        raise click.UsageError("--overwrite belongs to --html; add it")
    if (backends or engines) and not rules:
        raise click.UsageError("--backend and --engine belong to --rules; add it")
    wanted = [thresholds.parse(text) for text in fail_under]
    comparison = load(file)
    thresholds.check_rows(wanted, thresholds.rows_of(comparison), comparison.data.reference)
    if html is not None:
        comparison.to_html(html, overwrite=overwrite)
    if rules:
        _show_rules(comparison, backends, engines, as_json, markdown)
    elif markdown:
        print(comparison.to_markdown())
    elif as_csv:
        print(comparison.to_csv(), end="")
    elif html is None or as_json:
        print_comparison(comparison, as_json, wide)
    end_where_missed(wanted, comparison)


def _show_rules(
    comparison: Comparison,
    backends: tuple[str, ...],
    engines: tuple[str, ...],
    as_json: bool,
    markdown: bool,
) -> None:
    """What others would say of these rows, or of all."""
    from precisionbench.report import rules
    from precisionbench.results import json_format

    rows = [comparison[name].backend for name in backends] or [row.backend for row in comparison]
    found = {name: comparison.under_rules(name, engines) for name in rows}
    if as_json:
        statements = {name: json_format.unstructured(said) for name, said in found.items()}
        print_json("precisionbench.statements", {"rows": statements})
    elif markdown:
        print(rules.to_markdown(found))
    else:
        print_prose(partial(rules.to_text, found))
