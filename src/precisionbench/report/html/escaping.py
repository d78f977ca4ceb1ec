"""Text of users and libraries (models, layers, kernels, errors), made safe for a page.

The template escapes what it shows. This module handles what escaping does not: characters that are
invisible in a page or change the text around them, long names, JSON in a script.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import unicodedata
from typing import TYPE_CHECKING

from precisionbench import safe_text

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_NAME = 64
_MAX_TOOLTIP = 400
_ELLIPSIS = "…"
_SEPARATOR = re.compile(r"[.:=,_/]")
_LONG_WORD = re.compile(rf"\S{{{2 * MAX_NAME},}}")


def finished(value: object) -> object:
    """What the template shows of a value: its text, of which everything is visible.

    Args:
        value: of an expression; markup of the template's own is left as it is.
    """
    from markupsafe import Markup

    return value if isinstance(value, Markup) else safe_text.lines(value)


def shortened(text: object, length: int = MAX_NAME) -> str:
    """Text cut in its middle to a maximum length, because paths differ at their ends.

    Args:
        text: a name.
        length: maximum number of characters.
    """
    whole = safe_text.lines(text)
    if len(whole) <= length:
        return whole
    head = (length - 1) // 2
    start, end = whole[:head], whole[head + 1 - length :]
    while end and unicodedata.combining(end[0]):
        end = end[1:]
    return f"{start}{_ELLIPSIS}{end}"


def breakable(text: str) -> Markup:
    """A name as markup in which a line may break after each separator.

    Args:
        text: a name, not yet escaped.
    """
    from markupsafe import Markup, escape  # Jinja's own

    # Escape sequences such as `&#39;` contain none of the separators.
    return Markup(_SEPARATOR.sub(r"\g<0><wbr>", str(escape(text))))


def tooltip(text: object) -> str:
    """The tooltip of a name: all of it, unless it is very long.

    Args:
        text: a name.
    """
    whole = safe_text.lines(text)
    if len(whole) <= _MAX_TOOLTIP:
        return whole
    return f"{whole[:_MAX_TOOLTIP]}{_ELLIPSIS} ({len(str(text)):,} characters, all in the data)"


def sentence(text: object) -> str:
    """A sentence whose very long words, such as names, are cut.

    Args:
        text: a sentence.
    """
    return _LONG_WORD.sub(lambda word: shortened(word.group()), safe_text.lines(text))


def script_json(document: object) -> str:
    """JSON in ASCII that is safe in a script element: nothing in it ends the element.

    Args:
        document: JSON values.
    """
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def packed(text: str) -> str:
    """Text as base64 of its gzip, about a tenth of the size.

    Args:
        text: in ASCII.
    """
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
