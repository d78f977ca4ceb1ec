"""Text that is not ours (models, layers, kernels, errors) made fit for a page.

The template escapes whatever it shows; here is what escaping alone does not settle: characters
that no page may hold or that turn the text around them, endless names, and JSON in a script.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

NAME_LENGTH = 64
_TITLE_LENGTH = 400
_ELLIPSIS = "…"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Controls, and what overrides the direction of the text that follows (U+202A to E, U+2066 to 9).
_UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_SEPARATOR = re.compile(r"[.:=,_/]")
_LONG_WORD = re.compile(rf"\S{{{2 * NAME_LENGTH},}}")


def clean(text: object) -> str:
    """Text without characters that a page may not hold or that reorder what follows them.

    Args:
        text: anything.
    """
    fit = _UNFIT.sub(_REPLACEMENT, str(text))
    return fit.encode("utf-8", "replace").decode()  # lone surrogates


def shortened(text: object, length: int = NAME_LENGTH) -> str:
    """Text of so many characters at most, cut in its middle: paths differ at their ends.

    Args:
        text: a name.
        length: characters at most.
    """
    whole = clean(text)
    if len(whole) <= length:
        return whole
    head = (length - 1) // 2
    start, end = whole[:head], whole[head + 1 - length :]
    while end and unicodedata.combining(end[0]):
        end = end[1:]
    return f"{start}{_ELLIPSIS}{end}"


def breakable(text: str) -> Markup:
    """A name as markup, that a line may end in after each of its separators.

    Args:
        text: a name, not yet escaped.
    """
    from markupsafe import Markup, escape  # Jinja's own

    # None of the separators occurs in what escaping writes, such as `&#39;`.
    return Markup(_SEPARATOR.sub(r"\g<0><wbr>", str(escape(text))))


def in_full(text: object) -> str:
    """What a name's tooltip says: all of it, unless it is endless.

    Args:
        text: a name.
    """
    whole = clean(text)
    if len(whole) <= _TITLE_LENGTH:
        return whole
    return f"{whole[:_TITLE_LENGTH]}{_ELLIPSIS} ({len(whole):,} characters, all in the data)"


def said(text: object) -> str:
    """A sentence whose endless words, such as names in it, are cut.

    Args:
        text: a sentence.
    """
    return _LONG_WORD.sub(lambda word: shortened(word.group()), clean(text))


def script_json(document: object) -> str:
    """JSON in ASCII that can stand in a script element: nothing in it ends the element.

    Args:
        document: what JSON holds.
    """
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def packed(text: str) -> str:
    """Text as base64 of its gzip: a tenth of the size, where it would make a page heavy.

    Args:
        text: in ASCII.
    """
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
