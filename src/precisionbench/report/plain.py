"""What a console would show, as plain text."""

from __future__ import annotations

import io
import random
import textwrap
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 80
# On narrower terminals a table whose lines wrap tells more than one without its figures.
MIN_WIDTH = 60


def plain_text(show: Callable[[Console], None], width: int = WIDTH) -> str:
    """What is shown, without colours and whatever the environment asks of terminals.

    Args:
        show: writes to a console.
        width: columns to fill at most.
    """
    from rich.console import Console

    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=False, no_color=True, highlight=False, emoji=False
    )
    state = random.getstate()  # rich draws a number for each style
    show(console)
    random.setstate(state)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def widen(console: Console) -> None:
    """Let a narrow console wrap lines, where it would cut figures otherwise."""
    console.width = max(console.width, MIN_WIDTH)


def print_list(lines: Iterable[str], console: Console) -> None:
    """Print sentences, each wrapped with its later lines indented; addresses are not cut.

    Args:
        lines: one sentence each.
        console: where to.
    """
    from rich.text import Text

    for line in lines:
        wrapped = textwrap.wrap(
            line,
            console.width,
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        console.print(Text("\n".join(wrapped)), soft_wrap=True)
