"""Result files and files of published numbers, and damaged copies of them; see `fuzz_files.py`."""

from __future__ import annotations

import gzip
import json
import random
import re
from pathlib import Path
from typing import Any, NamedTuple

from precisionbench.results import journal, json_format

ROOT = Path(__file__).parents[1]


class Base(NamedTuple):
    """A file to mutate.

    Attributes:
        name: what it is made from.
        kind: `result`, `ladder`, `journal` or `published`.
        text: its content.
    """

    name: str
    kind: str
    text: str


# --- the files that are mutated


def bases(small: bool) -> list[Base]:
    """The files to mutate.

    Args:
        small: results with few samples only, which are quickly shown.
    """
    results = [_record(name) for name in ("xavier-2020-reported", "h100-channels-50")]
    results += [_recorded(name) for name in ("mislabelled", "apex", "overflow")]
    ladders = [_record("h100-ladder-256"), _record("cpu-ladder-segmentation")]
    if not small:
        results += [_record("h200-resnet50-batch100"), _record("cpu-first-comparison")]
        results += [_recorded(name) for name in ("lstm", "recast", "small-launches")]
    if small:
        results = [(name, _short(content)) for name, content in results]
        ladders = [(name, _short(content)) for name, content in ladders]
    return [
        *(Base(name, "result", content) for name, content in results),
        *(Base(name, "ladder", content) for name, content in ladders),
        *(Base(name, "journal", journal_text(content)) for name, content in results),
        *(Base(f"published {n}", "published", one) for n, one in enumerate(_sources())),
    ]


def _record(name: str) -> tuple[str, str]:
    return name, (ROOT / "docs" / "records" / f"{name}.json").read_text()


def _recorded(name: str) -> tuple[str, str]:
    packed = (ROOT / "tests" / "recorded" / f"{name}.json.gz").read_bytes()
    return name, gzip.decompress(packed).decode()


def _short(content: str) -> str:
    """The same comparison with its first rows, blocks, operations and layers only."""
    document = json_format.unstructured(json_format.from_json(content))
    for row in document["results"]:
        row["measurement"]["blocks"] = row["measurement"]["blocks"][:6]
        for name in ("operations", "layers", "errors") if row["evidence"] else ():
            row["evidence"][name] = row["evidence"][name][:6]
    kept = {row["backend"] for row in document["results"][:2]} | {document["reference"]}
    document["results"] = [row for row in document["results"] if row["backend"] in kept]
    return json.dumps({"format": json_format.FORMAT, "version": 3, **document})


def journal_text(content: str) -> str:
    """A journal of the run that made a result.

    Args:
        content: text of the result.
    """
    data = json_format.from_json(content)
    document = json_format.unstructured(data)
    rows, failures = document.pop("results"), document.pop("failures")
    names = ("backend", "name", "options")
    planned = [{name: row[name] for name in names} for row in (*rows, *failures)]
    header = {"format": journal.FORMAT, "version": json_format.VERSION, "rows": planned}
    blocks = [(row["backend"], row["measurement"].pop("blocks")) for row in rows]
    for row in rows:
        row["measurement"]["blocks"] = []
    lines = [{**header, **document}, *({"row": row} for row in rows)]
    lines += [{"block": block, "of": name} for name, some in blocks for block in some]
    lines += [{"failure": failure} for failure in failures]
    return "".join(json.dumps(line) + "\n" for line in lines)


def _sources() -> list[str]:
    """A few sources of the published numbers, each with its records as a file of its own."""
    bundled = (ROOT / "src" / "precisionbench" / "data" / "published.toml").read_text()
    parts = re.split(r"(?m)^(?=\[source\.[\w-]+\]|\[\[record\]\])", bundled)
    sources = [part for part in parts if re.match(r"\[source\.[\w-]+\]", part)]
    found = []
    for source in sources:
        name = re.match(r"\[source\.([\w-]+)\]", source)
        assert name
        own = [part for part in parts if re.search(rf'(?m)^source = "{name[1]}"', part)]
        found.append("".join([source, *own[:4]]))
    return found[:6]


# --- mutations

_Document = Any
_DEEP, _LONG_NUMBER = "@deep@", "@number@"
_HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 300, -300, 0.5, 1e-300, 2e-12, 1e-11, -1e-3, 1e9, 1e12),
    *(2**31, 2**63, 2**64, 10**30, -(10**30), 10**300, 1e308, -1e308),
    *(float("nan"), float("inf"), -float("inf"), "Infinity", "NaN", "1e999", _LONG_NUMBER, _DEEP),
    *("", "eager", "cuda:0", "\x1b[2J\x1b]0;owned\x07", "a\nb\r\n\0", "\u202eevil", "\ud800"),
    *("=1+1|cmd", "<img src=x onerror=1>", "[x](y)`|", "x" * 10_000, "word " * 2_000, "%s{0}{{1}}"),
    *([], {}, [[]], [0], [[0, [1, {}]]], {"": {}}, [0] * 10_000, ["x"] * 1_000),
)
_TOML_HOSTILE = (
    *("0", "-1", "1e400", "nan", "inf", "-inf", "true", '""', "[]", "{}", "[[]]", "1979-05-27"),
    *("9" * 5000, "0x" + "f" * 5000, "1" + "0" * 400, "[" * 500, '"\\u001b[2J"', '"\\u0000"'),
    *(f'"{"x" * 10_000}"', "{a = {b = 1}}", "'''a\nb'''", '["x", 3]', "2**63", '"<img src=x>"'),
)


def mutated(base: Base, draw: random.Random) -> tuple[bytes, str]:
    """A damaged copy of a file, and what was done to it."""
    if base.kind == "published":
        how = draw.choice([_other_value, _other_value, _other_lines, _other_bytes])
        return how(base.text, draw)
    how = draw.choice([_other_json] * 7 + [_other_lines, _other_bytes])
    return how(base.text, draw)


def _other_json(content: str, draw: random.Random) -> tuple[bytes, str]:
    lines = content.splitlines() if content.startswith(f'{{"format": "{journal.FORMAT}') else None
    if lines is None:
        changed, what = _changed(content, draw)
        return changed.encode(errors="surrogatepass"), what
    done = []
    for _ in range(draw.choice((1, 1, 2))):
        number = min(int(draw.expovariate(0.3)), len(lines) - 1)
        lines[number], what = _changed(lines[number], draw)
        done.append(f"line {number + 1}: {what}")
    return "\n".join(lines).encode(errors="surrogatepass"), ", ".join(done)


def _changed(content: str, draw: random.Random) -> tuple[str, str]:
    """JSON text with one to three of its values changed."""
    try:
        document = json.loads(content)
    except ValueError:
        return content, "unchanged"
    done = [_change(document, draw) for _ in range(draw.choice((1, 1, 1, 2, 3)))]
    written = json.dumps(document)
    written = written.replace(f'"{_DEEP}"', "[" * 300 + "]" * 300)
    written = written.replace(f'"{_LONG_NUMBER}"', "7" * 5000)
    return written, ", ".join(done)


def _change(document: _Document, draw: random.Random) -> str:
    """Change a value in place."""
    place, path = _place(document, draw)
    if not place:
        return "nothing"
    key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
    how = draw.random()
    if how < 0.15:
        del place[key]
        return f"{path}[{key!r:.40}] dropped"
    if how < 0.25:  # elsewhere in the document
        other, _ = _place(document, draw)
        copied = json.dumps(other)
        place[key] = json.loads(copied)
        return f"{path}[{key!r:.40}] = a copy of another value"
    if how < 0.3 and isinstance(place, dict):
        place[str(draw.choice(_HOSTILE))] = place.pop(key)
        return f"{path}[{key!r:.40}] renamed"
    place[key] = draw.choice(_HOSTILE) if how < 0.65 else _similar(place[key], draw)
    return f"{path}[{key!r:.40}] = {place[key]!r:.40}"


def _similar(value: _Document, draw: random.Random) -> _Document:
    """Another value of the same type, which the field may allow."""
    if isinstance(value, str):
        return draw.choice([text for text in _HOSTILE if isinstance(text, str)])
    if isinstance(value, float):
        return draw.choice((0.0, -value, value * 10.0 ** draw.randint(-30, 30)))
    if type(value) is int:
        return draw.choice((0, 1, value + 1, value * 10 ** draw.randint(1, 15)))
    if isinstance(value, list):
        return value * draw.choice((0, 2, 50)) if len(value) < 100 else value[:1]
    return not value if isinstance(value, bool) else {}


def _place(document: _Document, draw: random.Random) -> tuple[_Document, str]:
    """An object or a list somewhere in the document."""
    place, path = document, "$"
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        inner = [key for key in keys if isinstance(place[key], (dict, list)) and place[key]]
        if not inner or draw.random() < 0.2:
            return place, path
        key = draw.choice(inner)
        place, path = place[key], f"{path}[{key!r:.40}]"


def _other_value(content: str, draw: random.Random) -> tuple[bytes, str]:
    """A line of TOML with another value or another name."""
    lines = content.splitlines()
    for _ in range(draw.choice((1, 1, 2))):
        number = draw.choice([n for n, line in enumerate(lines) if "=" in line])
        name, _, value = lines[number].partition("=")
        other = draw.choice(_TOML_HOSTILE)
        lines[number] = f"{name}= {other}" if draw.random() < 0.8 else f"{other} ={value}"
    return "\n".join(lines).encode(), f"line {number + 1}: {lines[number]:.60}"


def _other_lines(content: str, draw: random.Random) -> tuple[bytes, str]:
    """Lines dropped, repeated or moved."""
    lines = content.splitlines(keepends=True)
    first, second = sorted(draw.randrange(len(lines) + 1) for _ in range(2))
    second = min(second, first + draw.choice((1, 1, 5, 50)))
    taken, how = lines[first:second], draw.choice(("dropped", "repeated", "moved"))
    if how != "repeated":
        del lines[first:second]
    if how != "dropped":
        at = draw.randrange(len(lines) + 1)
        lines[at:at] = taken
    return "".join(lines).encode(), f"lines {first + 1} to {second} {how}"


def _other_bytes(content: str, draw: random.Random) -> tuple[bytes, str]:
    """Cut off, with flipped bits, in another encoding, or with something in front of it."""
    found = bytearray(content.encode())
    how = draw.choice(("cut", "flipped", "flipped", "encoded", "put in front"))
    if how == "cut":
        del found[draw.randrange(len(found)) :]
    elif how == "flipped":
        for _ in range(draw.choice((1, 3, 30))):
            found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
    elif how == "encoded":
        return content.encode(draw.choice(("utf-16", "utf-8-sig", "utf-32"))), "another encoding"
    else:
        found[:0] = draw.choice((b"\xff\xfe", b"\0" * 99, b"[" * 100_000, b"\x1f\x8b", b"{}\n"))
    return bytes(found), f"bytes {how}"
