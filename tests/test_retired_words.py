"""Words that were replaced by the field's own stay out of all that a user reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import pytest

from precisionbench.cli.main import main

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.uncounted,
    pytest.mark.skipif(
        not (ROOT / "CONTRIBUTING.md").exists(),
        reason="the tests stand alone, without the repository",
    ),
]
# "is no longer" and comparisons are plain English, and so is "there is no".
_COMPARISON = r"(longer|more|less|faster|slower|wider|worse|better|need|way|\w+ than)\b"
# Expression -> what to write instead.
RETIRED = {
    # No personification, no riddles.
    r"\b(tells?|telling|told)\b": "say, state, report; not stated; distinguish",
    r"\b(lie|lies|lying)\b": "is, is between; outlier",
    r"\blooks\b": "appears, is",
    r"\blook(ed|ing) (at|into|over)\b": "checked, inspected, profiled",
    r"\b(first|quick|worth a|the) look\b": "a first estimate, the check",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bmerely\b": "only",
    r"(?<!there )\b(is|are) no (?!" + _COMPARISON + ")": "is not a, has no",
    r"\bso many (?!\w+ that)": "this many, this number of",
    r"\b(held|holds?|holding) (\w+ ){0,4}against\b": "compare with",
    r"\b(seats?|crews?|lanes?|worlds?)\b": "prepared backend, replica, worker pool, row state",
    # Verdicts and intervals.
    r"\bno verdicts?\b": "inconclusive (reason)",
    r"\b(hold at 95|(within )?this session)\b": "95 % CI of this run, or with run-to-run variance",
    r"\bprocesses of the same code\b": "run-to-run variance",
    r"\breads? \S+ times as fast\b": "measured 1.20x",
    r"\bfitted in(to)? the time\b": "budget ended after 3 of at least 12 rounds",
    r"\bto and fro\b": "throughput fluctuated",
    r"\bfar out\b|\btimes the median\b": "outlier",
    r"\binto two groups\b": "bimodal: modes 4.08x apart",
    r"\bin logarithms\b": "(log scale)",
    # What ran, and how near it came.
    r"\b(close|near) enough\b|\bhow (near|close)\b": "within tolerance, numerical error",
    r"\bwhat (its|their) names? says?\b": "label verified, false, not verified",
    r"\bmatrix (time|products?)\b": "GEMM/conv time",
    r"\broofs?\b": "roofline, % of roofline",
    r"\bFLOPs? (for each|per) byte moved\b": "arithmetic intensity (FLOP/byte)",
    r"\bnot forbid\b": "below peak: plausible",
    r"\b16 bits (slower|faster)\b": "FP16/BF16 slower",
    r"\banother number of items\b": "wrong output batch size",
    r"\bmemory from the driver\b": "cudaMalloc in every call",
    r"\bturn(s|ing)? layouts\b": "layout-conversion kernels",
    r"\bprepared for and never\b": "autograd was on; no backward ran",
    r"\b(witness|witnesses)\b": "indicator",
    # The machine.
    r"\b(the|a) device waits\b|\boutside of kernels\b": "GPU idle",
    r"\bhost holds\b|\bholds? it up\b": "launch-bound",
    r"\bfor one small operation\b": "launch overhead 1.6 µs",
    r"\bprocesses for each core\b": "load average 6.45 per core",
    r"\bas it was found\b": "current clocks",
    r"\bstrangers?\b": "other processes",
    r"\bwants? attention\b": "needs attention",
    r"\bhere: needs\b": "not available: requires X",
    # Reports and the command line.
    r"\bbeside the way\b": "also tried",
    r"\bnot like with like\b": "conditions differ",
    r"\breader must know\b": "warning, note",
    r"\bwhose rules\b": "reporting conventions",
    r"\bMOST OF THIS IS NOT KNOWN\b": "mostly assumed",
    r"\bother passes\b": "measuring memory and energy",
    r"\bto measure in, in all\b": "total measuring time",
    r"\bcame about\b": "show the traceback",
    r"\bend with 1\b": "exit with 1 if not met",
    r"\ball else goes to\b|\bstandard (error(?! of)|output)\b": "stderr, stdout",
    r"\bnothing of the progress\b": "no progress output",
    r"\b(validity )?gates?\b": "rule, problem found",
    r"\bbreach(es)?\b": "problem found",
    # The documentation.
    r"\b(in|of) the catalogue\b": "not detected; the name of the cause",
    r"(?<![\w.-])C([1-9]|[12][0-9]|30)\b(?!\+)": "the name of the cause",
    r"\bWhy a number is what it is\b": "Diagnosis",
    r"\bWhat breaks, and what is kept\b": "Failure handling",
}
# A message is read at a prompt and on the command line, so it names options as both understand.
OPTIONS = (
    r"(?<![:,.\w])(budget_s|replicas|sessions|launcher|noise_floor|effort|shared_cores|evidence"
    r"|device|inputs|batch_size)=(?!=)|\bgive (a |the |more |larger )*(budget_s|noise_floor"
    r"|shared_cores)\b"
)


PATTERNS = {re.compile(text, re.IGNORECASE): instead for text, instead in RETIRED.items()}
WORDS = re.compile("|".join(f"(?:{text})" for text in RETIRED), re.IGNORECASE)
OPTION_NAMES = re.compile(OPTIONS)
# Names in code are not words of a text: spans of code, arguments, keys, attributes.
CODE = re.compile(
    r"`[^`\s]+`|(?m:^ +\w+:(?=\s))|\b\w+=|[\"']\w+[\"']:|(?<=\w)\.[a-z_]\w*", re.ASCII
)
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/**/*.*"))
    if path.suffix in {".md", ".py"} and path.name != "CHANGELOG.md" and "records" not in path.parts
)
TEMPLATES = sorted((ROOT / "src").rglob("*.html"))


def retired(text: str) -> list[str]:
    """Each retired word of a text, with what stands around it and what to write instead."""
    words = " ".join(CODE.sub("", text).split())
    return [
        f"{words[max(0, hit.start() - 40) : hit.end() + 40]!r}: {_instead(hit[0], hit)}"
        for hit in WORDS.finditer(words)
    ]


def _instead(word: str, hit: re.Match[str]) -> str:
    fitting = (
        instead for pattern, instead in PATTERNS.items() if pattern.match(hit.string, hit.start())
    )
    return f"{word!r} -> {next(fitting)}"


def literals(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """The strings of a module; those that are formatted have `{}` for each value."""
    formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    yield from ((node, "".join(map(_part, node.values))) for node in formatted)
    inner = {id(part) for node in formatted for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node, node.value


def _part(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else "{}"


def docstrings(tree: ast.AST) -> set[int]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = (node.body for node in ast.walk(tree) if isinstance(node, kinds))
    firsts = (body[0] for body in bodies if body)
    return {id(first.value) for first in firsts if isinstance(first, ast.Expr)}


def shown(template: str) -> str:
    """The text of a template: what stands between its tags, and in the attributes that are read."""
    text = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}|<style.*?</style>", "{}", template, flags=re.S)
    spoken = re.findall(r"(?:aria-label|title|placeholder)=\"([^\"]*)\"", text)
    return " ".join([*spoken, re.sub(r"<[^>]*>", " ", text)])


def commands(group: click.Group = main) -> Iterable[tuple[str, click.Command]]:
    return [("precisionbench", group), *group.commands.items()]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the machine tells", ["tells"]),
        ("The interval lies within 1 %.", ["lies"]),
        ("it is no path", ["is no "]),
        ("it is no longer open, and there is no other; no row is no slower than x", []),
        ("C10 layout conversions", ["C10"]),
        ("a C10-like name, C++ and C40", ["C10"]),
        ("see `roofs` and found.gate with gate=3", []),
        ("reads {value} times as fast as eager", ["reads {value} times as fast"]),
        ("MOST OF THIS IS NOT KNOWN", ["MOST OF THIS IS NOT KNOWN"]),
    ],
)
def test_words_are_found_in_texts_and_not_in_code(text, words):
    assert len(retired(text)) == len(words)
    assert all(word in " ".join(retired(text)) for word in words)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_text_of_a_module_has_a_retired_word(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = [text for _, text in literals(tree) if " " in text]  # a single word is a name
    found = [one for text in texts for one in retired(text)]
    assert not found


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_messages_name_options_without_the_syntax_of_python(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = docstrings(tree)
    messages = [text for node, text in literals(tree) if id(node) not in documented]
    found = [text for text in messages if " " in text and OPTION_NAMES.search(text)]
    assert not found


@pytest.mark.parametrize("path", TEMPLATES, ids=name)
def test_no_text_of_the_report_has_a_retired_word(path):
    found = retired(shown(path.read_text(encoding="utf-8")))
    assert not found


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_no_page_has_a_retired_word(path):
    found = retired(path.read_text(encoding="utf-8"))
    assert not found


@pytest.mark.parametrize(("name", "command"), commands())
def test_no_help_has_a_retired_word(name, command):
    context = click.Context(command, info_name=name, terminal_width=80)
    assert not retired(command.get_help(context))
