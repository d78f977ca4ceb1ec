"""Text of others (models, plugins, files) made harmless: one function for each kind of output.

Names, sentences and errors can hold anything. JSON keeps them as they are; wherever they are shown,
they pass one of these functions, so that they neither control a terminal, nor become markup, nor a
formula, nor change how the text around them is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import bidirectional, category, combining

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Letters without a shape, which Python calls printable: Hangul fillers.
_BLANK_LETTERS = "\u115f\u1160\u3164\uffa0"
_MARKS = ("Mn", "Me")  # categories of characters that are drawn over the one before them
_MOST_MARKS = 4  # on one character; more of them cover the lines above and below
_ZERO_WIDTH_NON_JOINER, _ZERO_WIDTH_JOINER = _JOINERS = "\u200c\u200d"
_EMOJI_STYLE = "\ufe0f"  # asks for the emoji of the character before it
_VIRAMA = 9  # combining class of the marks that join two consonants
_MOST = 20_000  # characters of a line; more of them hide what stands after it
_SLACK = 50  # for the words that say how much was cut
_OBJECT_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{4,}")  # in its `repr`

# Terminal, notebook and HTML


def lines(text: object) -> str:
    """Text of which everything is visible, in the lines that it has.

    Controls, escape sequences, marks of direction, characters without a width, lone surrogates and
    floods of combining marks are replaced by U+FFFD; white space other than a line feed by a space.
    Joiners stay where emoji, Indic and Arabic letters need them.
    Lines that are longer than any name or sentence are cut.

    Args:
        text: anything.
    """
    whole = str(text).replace("\r\n", "\n")
    return "\n".join(map(_visible, whole.split("\n")))


def line(text: object) -> str:
    """Text of which everything is visible, in one line: a name, a cell or a sentence.

    Args:
        text: as for `lines`.
    """
    return lines(text).replace("\n", " ")


def _visible(text: str) -> str:
    if len(text) > _MOST + _SLACK:
        return f"{_visible(text[:_MOST])}… ({len(text):,} characters)"
    is_plain = text.isascii() and text.isprintable()
    return text if is_plain else "".join(_characters(text))


def _characters(text: str) -> Iterator[str]:
    marks = _MOST_MARKS  # a mark at the start would change a character of ours
    for before, character, after in zip(f" {text}", text, f"{text[1:]} ", strict=False):
        marks = marks + 1 if category(character) in _MARKS else 0
        if marks <= _MOST_MARKS:
            yield character if _joins(before, character, after) else _shown(character)
        elif marks == _MOST_MARKS + 1:
            yield _REPLACEMENT


def _joins(before: str, joiner: str, after: str) -> bool:
    """Whether it is a joiner that changes how its neighbours are drawn (RFC 5892, emoji)."""
    if joiner not in _JOINERS or category(after) not in ("Lo", "So"):
        return False
    if combining(before) == _VIRAMA:
        return category(after) == "Lo"
    if joiner == _ZERO_WIDTH_NON_JOINER:
        return bidirectional(before) == bidirectional(after) == "AL"
    return category(after) == "So" and (category(before) in ("So", "Sk") or before == _EMOJI_STYLE)


def _shown(character: str) -> str:
    if character.isspace():
        return " "
    is_visible = character.isprintable() and character not in _BLANK_LETTERS
    return character if is_visible else _REPLACEMENT


# Markdown

_MARKUP = re.compile(r"[\\`*_|<>\[\]~&$]")  # $: GitHub shows formulas
# What makes a heading, a list, a rule or a fence of a line that begins with it.
_LINE_START = re.compile(r"^(\d*)(?=#+(?:\s|$)|[-+.)](?:\s|$)|--|=)")
# GitHub makes links of these without any markup, and notifies whoever is mentioned.
_BARE_LINK = re.compile(r":(?=//)|(?<=www)\.", re.IGNORECASE)
_MENTION = re.compile(r"@+")
_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
_AFTER_AN_ADDRESS = ".,;:!?'\"*"  # of the sentence that it stands in
_IN_ADDRESSES = "/:?#@!$&'()*+,;=%~"  # not to be encoded


def markdown(text: object) -> str:
    """Text that Markdown shows unchanged, in one line.

    Args:
        text: such as a model's name or an error.
    """
    return _LINE_START.sub(r"\1\\", _inline(" ".join(line(text).split())))


def _inline(text: str) -> str:
    escaped = _BARE_LINK.sub(r"\\\g<0>", _MARKUP.sub(r"\\\g<0>", text))
    return _MENTION.sub(r"`\g<0>`", escaped)


def markdown_code(name: object) -> str:
    """A name as code; as escaped text where code could not hold it.

    Args:
        name: such as that of a row.
    """
    whole = line(name)
    is_plain = whole.strip() and not set("`|\\") & set(whole)
    return f"`{whole}`" if is_plain else markdown(whole)


def markdown_link(address: str, title: str = "") -> str:
    """An address as a link; as text unless it begins with http:// or https://.

    Args:
        address: where it leads.
        title: what is shown; empty for the address itself.
    """
    from urllib.parse import quote

    if not _ADDRESS.fullmatch(line(address)):
        return markdown(f"{title} ({address})" if title else address)
    target = quote(line(address), safe=_IN_ADDRESSES)
    return f"[{markdown(title)}](<{target}>)" if title else f"<{target}>"


def markdown_with_links(text: object) -> str:
    """Text that Markdown shows unchanged, with its addresses as links to what they show.

    Args:
        text: a sentence.
    """
    return _LINE_START.sub(r"\1\\", " ".join(map(_word_with_link, line(text).split())))


def _word_with_link(word: str) -> str:
    found = _ADDRESS.search(word)
    if found is None:
        return _inline(word)
    address = found[0].rstrip(_AFTER_AN_ADDRESS)
    while address.endswith(")") and address.count("(") < address.count(")"):
        address = address[:-1].rstrip(_AFTER_AN_ADDRESS)
    before, after = word[: found.start()], word[found.start() + len(address) :]
    return _inline(before) + markdown_link(address) + _inline(after)


# Plots


def plot(text: object) -> str:
    """Text that matplotlib shows unchanged, in the lines that it has.

    Args:
        text: such as a row's name.
    """
    return lines(text).replace("$", r"\$")  # otherwise two of them enclose a formula


# CSV

# A spreadsheet reads text that starts with one of these as a formula, and runs it; some split cells
# at semicolons, too, with or without quotes.
_FORMULA = re.compile(r"(^|;[\s\"]*)(?=[=+\-@＝＋－＠])")


def csv_cell(value: object) -> object:
    """A cell that no spreadsheet runs; numbers stay numbers.

    Args:
        value: text or a number.
    """
    return _FORMULA.sub(r"\1'", line(value).strip()) if isinstance(value, str) else value


def without_addresses(text: str) -> str:
    """A text without the addresses of objects, which `repr` adds and which differ in each process.

    Args:
        text: such as `<function f at 0x7f766ef86340>`.
    """
    return _OBJECT_ADDRESS.sub("", text)
