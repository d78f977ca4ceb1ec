"""Hostile text in every field of a record, and what must be true of an output with such text."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pages import Page

# Words that the library itself gives and understands; findings depend on them.
KNOWN = {
    *("float32", "float16", "cuda_events", "process", "inline", "rounds", "sequential", "target"),
    *(
        "eager",
        "half",
        "9.0",
        "cuda:0",
        "fp32",
        "contiguous",
        "dtype",
        "precision",
        "Conv2d",
        "raised",
    ),
}
PIECES = (
    *(
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x9b8m",
        "\x1b[8m",
        "\x00",
        "\x7f",
        "\x08",
        "\r",
        "\r\n",
        "\n",
    ),
    *(
        "\t",
        "\v",
        "\f",
        "\x85",
        "\u2028",
        "\u2029",
        "\u202e",
        "\u2066",
        "\u200f",
        "\u061c",
        "\u200b",
    ),
    *("\u2060", "\ufeff", "\U000e0041", "\ud800", "\u0338", "a" + "\u0301" * 50, "\u3164", "\xa0"),
    *(
        "<img src=x onerror=alert(1)>",
        "</script>",
        "<!--",
        '" onload="x',
        "' x='",
        "&lt;",
        "&#106;",
    ),
    *(
        "\n\n# heading",
        "\n\n- item",
        "\n\n---\n",
        "\n===",
        "```",
        "~~~",
        "`",
        "``",
        "|",
        "\\",
        "\\|",
    ),
    *(
        "![x](http://evil/x.png)",
        ")![",
        "[x](javascript:x)",
        "<http://evil>",
        "https://evil/)![y](z",
    ),
    *(
        "www.evil.com",
        "@somebody",
        "a@evil.com",
        "**",
        "_",
        "*",
        "~~",
        "[x]: http://evil",
        "1. ",
        "> ",
    ),
    *("=1+1", "+1", "-1", "@SUM(1)", "\t=1", ";=1", '"', ",", "{{ 7*7 }}", "[bold]", ":smile:"),
    *("𝓍", "שלום", "مرحبا", "日本語", "é", "±", "x" * 90, "half", " "),
)
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), min_size=1, max_size=6).map("".join)


def replaced(tree: Any, change: Callable[[str], str]) -> Any:
    """A record with each of its texts changed; equal texts stay equal, and so do KNOWN ones."""
    if type(tree) is str:
        return tree if tree in KNOWN or tree.startswith("aten::") else change(tree)
    if attrs.has(type(tree)):
        fields = [field.name for field in attrs.fields(type(tree)) if field.init]
        return type(tree)(**{name: replaced(getattr(tree, name), change) for name in fields})
    if isinstance(tree, Mapping):
        return {replaced(key, change): replaced(value, change) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(replaced(value, change) for value in tree)
    return tree


# Joiners that change how their neighbours look: in emoji, and in Indic and Arabic letters.
_JOINED = re.compile(
    "(?<=[\u2190-\u2bff\ufe0f\U0001f000-\U0001faff])\u200d(?=[\u2190-\u2bff\U0001f000-\U0001faff])"
    "|(?<=[\u094d\u0acd\u0dca\u0e3a])[\u200c\u200d](?=[\u0900-\u0eff])"
    "|(?<=[\u0620-\u08ff])\u200c(?=[\u0620-\u08ff])"
)


def assert_visible(output: str) -> None:
    """No character controls a terminal, is invisible, or changes the text around it."""
    for character in set(_JOINED.sub("", output)) - {"\n"}:
        category = unicodedata.category(character)
        assert category not in ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"), ascii(character)
    marks = "".join("m" if unicodedata.category(c) in ("Mn", "Me") else "-" for c in output)
    assert "m" * 5 not in marks
    output.encode()


_MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
_OURS = {
    *("text", "softbreak", "code_inline", "text_special"),
    *("strong_open", "strong_close", "link_open", "link_close"),
}


def assert_markdown(output: str, harmless: str) -> None:
    """The same blocks as those of harmless text; within them no markup but code and addresses."""
    assert_visible(output)
    assert _blocks(output) == _blocks(harmless)
    for token in _MARKDOWN.parse(output):
        kinds = {child.type for child in token.children or ()}
        assert kinds <= _OURS, kinds - _OURS
        for place, child in enumerate(token.children or ()):
            if child.type == "link_open":
                assert str(child.attrs["href"]).startswith(("http://", "https://"))
                assert token.children[place + 2].type == "link_close", "only text in it"
    without = re.sub(r"<https?://[^<>]*>|(`+).*?\1", "", output)
    assert not re.search(r"(?<!\\)://|www(?<!\\)\.|@", without), "GitHub makes a link of it"


def _blocks(text: str) -> list[tuple[str, int]]:
    return [(token.type, token.level) for token in _MARKDOWN.parse(text)]


def assert_csv(output: str, harmless: str) -> None:
    """The same rows and columns as those of harmless text; no cell is a formula."""
    assert_visible(output)
    rows, others = (list(csv.reader(io.StringIO(text, newline=""))) for text in (output, harmless))
    assert [len(row) for row in rows] == [len(row) for row in others]
    for cell in (cell for row in rows for cell in row):
        is_number = re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", cell)
        assert is_number or not re.match(r"\s*[=+\-@＝＋－＠]", cell), cell
        assert is_number or not re.search(r";\s*[=+\-@]", cell), cell


# Attributes and elements that depend on the length of a name.
_OF_LONG_NAMES = {("bdi", "title"), ("wbr", "")}


def assert_html(output: str, harmless: str) -> None:
    """Well-formed, and no element or attribute that a page with harmless text does not have."""
    assert_visible(output)
    page, other = Page(output), Page(harmless)
    assert page.faults == []
    assert _attributes(page) <= _attributes(other) | _OF_LONG_NAMES
    assert len(page.all("script")) == len(other.all("script"))


def _attributes(page: Page) -> set[tuple[str, str]]:
    return {(tag, name) for tag, attributes in page.elements for name in ("", *attributes)}
