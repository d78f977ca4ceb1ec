"""`precisionbench study show`, `merge` and `check`: what the results of studies show."""

from __future__ import annotations

import re
import sys
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import click

from precisionbench.cli.completion import AnyFile
from precisionbench.cli.exit_codes import INTERNAL_ERROR, THRESHOLD_MISSED, exit_codes_text
from precisionbench.cli.options import html_option, json_option, overwrite_option
from precisionbench.cli.output import (
    complain,
    print_json,
    print_lines,
    print_long_text,
    print_prose,
    print_text,
    say_saved,
)
from precisionbench.cli.result_files import spare_read_files
from precisionbench.cli.thresholds import fail_under_option, why_missed

if TYPE_CHECKING:
    from precisionbench.analysis.study_check import StudyCheck
    from precisionbench.studies.results import StudyResults
    from precisionbench.testing.thresholds import Threshold

    ParamType = click.ParamType[float]
else:
    ParamType = click.ParamType

_SHARE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*%")
_THREE = exit_codes_text(three=INTERNAL_ERROR)


class _Percent(ParamType):
    """A share in percent, such as `3%`."""

    name = "percent"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The share, such as 0.03."""
        if isinstance(value, float):
            return value
        match = _SHARE.fullmatch(str(value).strip())
        if match is None or not float(match[1]) < 100:
            self.fail(f"{value!r} is not a percentage below 100; write 3%", param, ctx)
        return float(match[1]) / 100


def _form_options(command: click.decorators.FC) -> click.decorators.FC:
    for option in (
        overwrite_option("--html"),
        html_option(),
        click.option("--markdown", is_flag=True, help="Print Markdown."),
        json_option(),
    ):
        command = option(command)
    return command


@click.command("show", short_help="Show sweeps, crossovers and all cells.", epilog=_THREE)
@click.argument("study", type=AnyFile(), metavar="FILE_OR_FOLDER")
@_form_options
def show(study: str, as_json: bool, markdown: bool, html: str | None, overwrite: bool) -> None:
    """Show the finished cells of a study, without GPU and torch.

    Cells that differ in the batch size only are a sweep: the batch size from which on each row is
    faster than the reference, and where throughput stops growing. Cells that differ in the number
    of threads only show how rows scale.

    \b
    Example:
      precisionbench study show resnet.toml
      precisionbench study show resnet --html report.html
    """
    _check_together(as_json, markdown, html, overwrite, study)
    found = _loaded(study) if as_json or markdown or html else _with_status(study)
    if found is not None:
        _show(found, as_json, markdown, html, overwrite)


def _with_status(study: str) -> StudyResults | None:
    """Print how far a study is; gives its results, or None where no cell is finished."""
    from precisionbench.report.study_text import show_status, status_text
    from precisionbench.studies.results import load_study, opened

    folder = opened(study)
    if folder is None:
        return load_study(study)
    devices = folder.status()
    print_text(partial(status_text, devices), partial(show_status, devices))
    if not any(one.measured + one.failed for one in devices):
        return None
    print()
    return load_study(study)


@click.command("merge", short_help="Put results of several studies together.", epilog=_THREE)
@click.argument("sources", nargs=-1, required=True, type=AnyFile(), metavar="FILE_OR_FOLDER...")
@click.option("--strict", is_flag=True, help="Refuse results that are not all comparable.")
@_form_options
def merge(
    sources: tuple[str, ...],
    strict: bool,
    as_json: bool,
    markdown: bool,
    html: str | None,
    overwrite: bool,
) -> None:
    """Put results of several devices, versions or dates together, without GPU and torch.

    Only comparable results are in one group: the same kind of device, versions and models. Each
    further group names what sets it apart. A cell that was measured at several dates has a history,
    which names the dates at which a row changed. Sources are folders of studies and result files.

    \b
    Example:
      precisionbench study merge h200/ orin/ --html boards.html
      precisionbench study merge runs/2026-11-*/
    """
    _check_together(as_json, markdown, html, overwrite, *sources)
    _show(_loaded(*sources, strict=strict), as_json, markdown, html, overwrite)


def _loaded(*sources: str, strict: bool = False) -> StudyResults:
    from precisionbench.studies.results import load_study

    return load_study(*sources, strict=strict)


def _show(
    found: StudyResults, as_json: bool, markdown: bool, html: str | None, overwrite: bool
) -> None:
    from precisionbench.report.study_report import show, to_text
    from precisionbench.report.study_words import headline

    if html is not None:
        found.to_html(html, overwrite=overwrite)
        say_saved(html)
    if as_json:
        print_json("precisionbench.study_results", found.summary)
    elif markdown:
        print_lines(found.to_markdown())
    elif html is None:
        summary = found.summary
        text, show_on = partial(to_text, summary), partial(show, summary)
        print_long_text(text, show_on, partial(headline, summary))


def _check_together(
    as_json: bool, markdown: bool, html: str | None = None, overwrite: bool = False, *read: str
) -> None:
    """Refuse options that exclude each other, before anything is read."""
    if as_json and markdown:
        raise click.UsageError("--json and --markdown exclude each other; give one of them")
    if overwrite and html is None:
        raise click.UsageError("--overwrite requires --html; add it")
    if html is not None:
        spare_read_files(html, read)


_MEASURES = {"both": ("latency", "speed-up over the reference"), "latency": ("latency",)}
_MEASURES["speedup"] = ("speed-up over the reference",)


@click.command(
    "check",
    short_help="Compare a study with an older one, and exit with 1 if it is slower.",
    epilog=exit_codes_text("a row is slower than allowed, or fails now", INTERNAL_ERROR),
)
@click.argument("study", type=AnyFile(), metavar="FILE_OR_FOLDER")
@click.option(
    "--against",
    required=True,
    type=AnyFile(),
    metavar="FILE_OR_FOLDER",
    help="The older study.",
)
@click.option(
    "--fail-above",
    type=_Percent(),
    default="3%",
    show_default=True,
    metavar="PERCENT",
    help="The slow-down that is allowed.",
)
@click.option(
    "--of",
    "measures",
    type=click.Choice([*_MEASURES]),
    default="both",
    show_default=True,
    help="What is compared. With speedup, a slower machine is not reported.",
)
@fail_under_option
@click.option(
    "--force", is_flag=True, help="Compare although conditions differ, and list the differences."
)
@click.option("--markdown", is_flag=True, help="Print Markdown, with all rows.")
@json_option()
def check(
    study: str,
    against: str,
    fail_above: float,
    measures: str,
    fail_under: tuple[str, ...],
    force: bool,
    markdown: bool,
    as_json: bool,
) -> None:
    """Compare the finished cells of a study with those of an older one, for CI.

    A row fails if the whole 95 % CI of its change is beyond the limit. The intervals are
    simultaneous over all rows of all cells: if nothing became slower by more than the limit, at
    most 5 % of checks fail.

    \b
    Example:
      precisionbench study check now --against main --fail-above 3%
      precisionbench study check now --against main --markdown >> "$GITHUB_STEP_SUMMARY"
    """
    from precisionbench.analysis.study_check import check_study
    from precisionbench.report.study_diff import check_markdown, check_text
    from precisionbench.testing import thresholds

    _check_together(as_json, markdown)
    wanted = [thresholds.parse(text) for text in fail_under]
    new = _loaded(study)
    found = new.diff(_loaded(against), force)
    result = check_study(found, fail_above, _MEASURES[measures])
    missed = _missed(new, wanted)
    if as_json:
        print_json("precisionbench.study_check", result)
    elif markdown:
        print_lines(check_markdown(result, found, missed))
    else:
        print_prose(partial(check_text, result))
    _end(result, missed)


def _missed(found: StudyResults, wanted: list[Threshold]) -> list[str]:
    """A sentence for each threshold that a cell misses."""
    from precisionbench.comparison import Comparison

    return [
        f"{one.cell.title}: {sentence}"
        for one in found.results
        if one.data is not None
        for threshold in wanted
        if (sentence := why_missed(threshold, Comparison(one.data), was_planned=True))
    ]


def _end(result: StudyCheck, missed: list[str]) -> NoReturn:
    for sentence in missed:
        complain(sentence)
    sys.exit(0 if result.passes and not missed else THRESHOLD_MISSED)
