"""`precisionbench show`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from precisionbench.cli.completion import ResultFile
from precisionbench.cli.exit_codes import A_THRESHOLD, INTERNAL_ERROR, exit_codes_text
from precisionbench.cli.options import (
    backends_option,
    html_option,
    json_option,
    overwrite_option,
    spec_option,
    wide_option,
)
from precisionbench.cli.output import (
    print_comparison,
    print_json,
    print_lines,
    print_prose,
    say_saved,
)
from precisionbench.cli.result_files import spare_read_files
from precisionbench.cli.saved import name_of
from precisionbench.cli.thresholds import exit_if_missed, fail_under_option
from precisionbench.cli.tuning_output import print_tuning

if TYPE_CHECKING:
    from precisionbench.comparison import Comparison


class _Form(NamedTuple):
    """What to print of a result; the options of these names ask for it."""

    as_json: bool
    markdown: bool
    as_csv: bool
    rules: bool
    backends: tuple[str, ...]
    engines: tuple[str, ...]


@click.command(
    short_help="Show a saved result, also as Markdown, CSV or HTML.",
    epilog=exit_codes_text(A_THRESHOLD, INTERNAL_ERROR),
)
@click.argument("file", type=ResultFile())
@json_option()
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option("--rules", is_flag=True, help="Use the reporting conventions of trtexec, MLPerf, ...")
@backends_option("With --rules: only this row (repeatable).")
@spec_option(
    "--engine",
    "engines",
    multiple=True,
    help="With --rules: a row of another engine (a DLA) that jetson_benchmarks would add.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print the rows as CSV, with all digits.")
@html_option()
@overwrite_option("--html")
@wide_option()
@click.option("--all", "all_notes", is_flag=True, help="Show all notes, not the first few.")
@fail_under_option
def show(
    file: str,
    html: str | None,
    overwrite: bool,
    wide: bool,
    all_notes: bool,
    fail_under: tuple[str, ...],
    **form_options: Any,
) -> None:
    """Show a saved result, without GPU and torch.

    FILE is a result file of compare, ladder or tune, or `last`: the command line saves every
    comparison, and `last~1` is the one before the last.

    \b
    Example:
      precisionbench show last
      precisionbench show result.json --markdown
      precisionbench show result.json --rules --backend half
      precisionbench show result.json --html report.html
      precisionbench show result.json --fail-under "half>=1.5"
    """
    from precisionbench.comparison import load
    from precisionbench.results.tuning_format import is_tuning_file
    from precisionbench.testing import thresholds

    form = _Form(**form_options)
    _check_usage(form, file, html, overwrite)
    if is_tuning_file(file):
        _check_tuning_usage(form, bool(wide or all_notes or fail_under))
        _show_tuning(file, form, html, overwrite)
        return
    wanted = [thresholds.parse(text) for text in fail_under]
    comparison = load(file)
    thresholds.check_rows(
        wanted, thresholds.rows_of(comparison), thresholds.references_of(comparison)
    )
    if html is not None:
        comparison.to_html(html, overwrite=overwrite)
        say_saved(html)
    if form.rules:
        _print_statements(comparison, form)
    elif form.markdown:
        print_lines(comparison.to_markdown())
    elif form.as_csv:
        print(comparison.to_csv(), end="")
    elif html is None or form.as_json:
        named = None if all_notes else name_of(file)
        print_comparison(comparison, form.as_json, wide, named)
    exit_if_missed(wanted, comparison)


def _check_usage(form: _Form, file: str, html: str | None, overwrite: bool) -> None:
    if html is not None:
        spare_read_files(html, [file])
    if form.as_json + form.markdown + form.as_csv > 1:
        raise click.UsageError("--json, --markdown and --csv exclude each other; give one of them")
    if form.rules and form.as_csv:
        raise click.UsageError("--rules and --csv exclude each other; use --rules --json")
    if overwrite and html is None:
        raise click.UsageError("--overwrite requires --html; add it")
    if (form.backends or form.engines) and not form.rules:
        raise click.UsageError("--backend and --engine require --rules; add it")


def _check_tuning_usage(form: _Form, others: bool) -> None:
    if form.rules or form.as_csv or others:
        raise click.UsageError(
            "this is a tuning result; it is shown as text, or with --json, --markdown or --html"
        )


def _show_tuning(file: str, form: _Form, html: str | None, overwrite: bool) -> None:
    """Print a tuning result, and write its report."""
    from precisionbench._internal import files
    from precisionbench.results import tuning_format

    data = tuning_format.load(file)
    if html is not None:
        from precisionbench.report.html.tuning_page import to_html

        files.write_report(html, lambda: to_html(data), overwrite=overwrite)
        say_saved(html)
    if html is None or form.as_json or form.markdown:
        print_tuning(data, form.as_json, form.markdown)


def _print_statements(comparison: Comparison, form: _Form) -> None:
    """Print the rows that were asked for, or all, under each reporting convention."""
    from precisionbench.report import rules
    from precisionbench.results import json_format

    rows = [comparison[name].backend for name in form.backends] or [
        row.backend for row in comparison
    ]
    statements = {name: comparison.under_rules(name, form.engines) for name in rows}
    if form.as_json:
        document = {name: json_format.unstructured(found) for name, found in statements.items()}
        print_json("precisionbench.statements", {"rows": document})
    elif form.markdown:
        print_lines(rules.to_markdown(statements))
    else:
        print_prose(partial(rules.to_text, statements))
