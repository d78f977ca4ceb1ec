"""`precisionbench compare`."""

from __future__ import annotations

import click

from precisionbench.cli.exits import exit_codes
from precisionbench.cli.explain import print_diagnosis
from precisionbench.cli.options import (
    SPEC,
    device_option,
    html_option,
    json_option,
    output_option,
    overwrite_option,
    quiet_option,
    wide_option,
)
from precisionbench.cli.output import (
    end_where_missed,
    fail_under_option,
    print_chains,
    print_comparison,
    progress,
)
from precisionbench.cli.saving import check_outputs, journal_beside


@click.command(
    short_help="Measure MODEL under several backends.",
    epilog=exit_codes(),
)
@click.argument("model")
@click.option(
    "--backend",
    "-b",
    "backends",
    type=SPEC,
    multiple=True,
    metavar="SPEC",
    help="Backend as name:option=value,... (again for each; default: all that make sense).",
)
@click.option(
    "--reference",
    type=SPEC,
    default="eager",
    show_default=True,
    metavar="SPEC",
    help="The row that the others are compared with.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Items in one call.")
@device_option()
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
@output_option("the result")
@html_option()
@overwrite_option("--output and --html")
@json_option("the result")
@wide_option()
@quiet_option()
@click.option("--explain", is_flag=True, help="Say why the rows are as fast as they are, too.")
@click.option(
    "--experiments",
    multiple=True,
    metavar="NAME",
    help="Of --explain: auto, none, or names (again for each).  [default: auto]",
)
@fail_under_option
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
    wide: bool,
    quiet: bool,
    explain: bool,
    experiments: tuple[str, ...],
    fail_under: tuple[str, ...],
) -> None:
    """Measure MODEL under several backends and show the table.

    MODEL is torchvision:NAME, or package.module:function where the function gives a model and its
    inputs; the working directory is on the path.

    \b
    Example:
      precisionbench compare torchvision:resnet50 -b half -b autocast -o r.json
    """
    from precisionbench.measure import compare
    from precisionbench.testing import thresholds

    if explain and not evidence:
        raise click.UsageError("--explain needs the evidence; leave --no-evidence out")
    wanted = [thresholds.parse(text) for text in fail_under]
    if wanted:
        rows, reference_name = compare.plan(backends or compare.DEFAULT_BACKENDS, reference)
        known = [(row.name, row.identity["options"]) for row in rows]
        thresholds.check_rows(wanted, known, reference_name)
    check_outputs(output, html, overwrite)
    with journal_beside(output) as journal, progress(quiet) as on_progress:
        comparison = compare.compare(
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
    print_chains(comparison)
    print_comparison(comparison, as_json, wide)
    if output is not None:
        comparison.save(output, overwrite=overwrite)
        if journal is not None:  # it has done its duty
            journal.unlink(missing_ok=True)
    diagnosis = None
    if explain:
        diagnosis = print_diagnosis(comparison, model, experiments or ("auto",), quiet)
    if html is not None:
        comparison.to_html(html, overwrite=overwrite, diagnosis=diagnosis)
    end_where_missed(wanted, comparison)
