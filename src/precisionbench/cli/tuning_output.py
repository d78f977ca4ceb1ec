"""How commands print a tuning result."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from precisionbench.cli.output import print_lines, print_text, write_json

if TYPE_CHECKING:
    from precisionbench.results.tuning import TuningData


def print_tuning(data: TuningData, as_json: bool = False, markdown: bool = False) -> None:
    """Print the text, or everything as JSON, or Markdown.

    Args:
        data: the result.
        as_json: print all of it as JSON.
        markdown: print Markdown.
    """
    from precisionbench.report import tuning as report
    from precisionbench.results import tuning_format

    if as_json:
        write_json(tuning_format.to_json(data))
    elif markdown:
        print_lines(report.to_markdown(data))
    else:
        print_text(partial(report.to_text, data), partial(report.show, data))
