"""Draw the map of the code: `python docs/draw_map.py`.

It writes docs/images/map.svg and the table of packages in CONTRIBUTING.md. Layers come from the
import contract in pyproject.toml, and what a package does is the first sentence of its docstring.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from xml.sax.saxutils import escape

import attrs
from importlinter.api import read_configuration

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "precisionbench"
PICTURE = ROOT / "docs/images/map.svg"
TABLE = ROOT / "CONTRIBUTING.md"
MARKS = ("<!-- packages: python docs/draw_map.py -->\n\n", "\n<!-- end of packages -->\n")
NOT_DRAWN = ("__main__", "_version")

# All lengths are in pixels.
WIDTH, MARGIN, GUTTER, GAP, PADDING = 1040, 20, 70, 10, 12
HEADER, FOOTER = 64, 56
NAME_SIZE, TEXT_SIZE, LINE = 15, 12.5, 17
CHARACTER = 6.9  # the average width in the widest of the usual fonts
INK, SOFT, PAPER = "#1f2933", "#52606d", "#ffffff"
WITHOUT_TORCH, WITH_TORCH = ("#e3f2ec", "#2f855a"), ("#fdeedd", "#c05621")
LEGEND = (
    (WITHOUT_TORCH, "never imports torch: saved results are read, explained and drawn anywhere"),
    (WITH_TORCH, "may import torch"),
)
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" \
height="{height}" font-family="system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif" role="img">
<title>The packages of precisionbench, in layers; imports run downwards</title>
<rect width="100%" height="100%" rx="10" fill="{paper}"/>
{body}
</svg>
"""


@attrs.frozen
class Box:
    """A package or top-level module of the map.

    Attributes:
        name: Its path below the top package, with dots.
        inside: Names of the packages in it.
        job: The first sentence of its docstring.
        is_torch_free: Whether the import contract keeps torch out of it.
    """

    name: str
    inside: tuple[str, ...]
    job: str
    is_torch_free: bool


@attrs.frozen
class Frame:
    """Where something is drawn."""

    x: float
    y: float
    width: float
    height: float


def contract(kind: str) -> dict[str, list[str]]:
    """Return the first import-linter contract of a type: `layers` or `forbidden`."""
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    return next(one for one in contracts if one["type"] == kind)


def layers() -> list[list[Box]]:
    """Return what is drawn, a list for each layer, from top to bottom."""
    torch_free = set(contract("forbidden")["source_modules"])
    rows = [
        [
            Box(name, inside(name), job_of(name), f"{PACKAGE}.{name}" in torch_free)
            for name in layer.replace(f"{PACKAGE}.", "").split(" | ")
            if name not in NOT_DRAWN
        ]
        for layer in contract("layers")["layers"]
    ]
    return [row for row in rows if row]


def source_of(name: str) -> Path:
    """Return the file that holds the docstring of a package or module."""
    path = ROOT / "src" / PACKAGE / name.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def job_of(name: str) -> str:
    """Return the first sentence of a docstring."""
    docstring = ast.get_docstring(ast.parse(source_of(name).read_text())) or ""
    return re.split(r"\.(?:\s|$)", docstring, maxsplit=1)[0].replace("\n", " ")


def inside(name: str) -> tuple[str, ...]:
    """Return the names of the packages in a package."""
    source = source_of(name)
    packages = source.parent.glob("*/__init__.py") if source.name == "__init__.py" else ()
    return tuple(sorted(package.parent.name for package in packages))


def frames(rows: list[list[Box]]) -> list[list[Frame]]:
    """Return where each box stands: those of a layer share the width, and are equally high."""
    found, y = [], float(HEADER)
    for row in rows:
        width = (WIDTH - GUTTER - MARGIN - GAP * (len(row) - 1)) / len(row)
        height = 2 * PADDING + NAME_SIZE + 4 + LINE * max(len(lines(b.job, width)) for b in row)
        xs = (GUTTER + (width + GAP) * number for number in range(len(row)))
        found.append([Frame(x, y, width, height) for x in xs])
        y += height + GAP
    return found


def lines(job: str, width: float) -> list[str]:
    """Break a sentence so that it fits into a box."""
    return textwrap.wrap(job.replace("`", ""), int((width - 2 * PADDING) / CHARACTER))


def box(drawn: Box, frame: Frame) -> str:
    """Return the SVG of a box: its name, the packages in it, and what it does."""
    fill, line = WITHOUT_TORCH if drawn.is_torch_free else WITH_TORCH
    x, y = frame.x + PADDING, frame.y + PADDING + NAME_SIZE - 2
    right = frame.x + frame.width - PADDING
    parts = [
        rectangle(frame, fill, line),
        text(x, y, drawn.name, NAME_SIZE, INK, weight="600"),
    ]
    if drawn.inside:
        packages = ", ".join(f"{name}/" for name in drawn.inside)
        parts.append(text(right, y, packages, TEXT_SIZE, line, anchor="end"))
    for number, sentence in enumerate(lines(drawn.job, frame.width), 1):
        parts.append(text(x, y + 3 + LINE * number, sentence, TEXT_SIZE, INK))
    return "\n".join(parts)


def rectangle(frame: Frame, fill: str, line: str) -> str:
    """Return the SVG of a box's outline."""
    return (
        f'<rect x="{frame.x:.1f}" y="{frame.y:.1f}" width="{frame.width:.1f}" '
        f'height="{frame.height:.1f}" rx="6" fill="{fill}" stroke="{line}"/>'
    )


def text(x: float, y: float, words: str, size: float, colour: str, **style: str) -> str:
    """Return the SVG of a line of text; `style` is its `weight` and its `anchor`."""
    attributes = {"weight": "font-weight", "anchor": "text-anchor"}
    more = "".join(f' {attributes[name]}="{value}"' for name, value in style.items())
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}"{more}>'
        f"{escape(words)}</text>"
    )


def arrow(top: float, bottom: float) -> str:
    """Return the SVG of the arrow that shows where imports go."""
    x, middle = GUTTER / 2, (top + bottom) / 2
    return (
        f'<path d="M{x} {top}V{bottom - 8}m-6 -2l6 10l6 -10z" fill="{SOFT}" stroke="{SOFT}"/>\n'
        f'<text transform="translate({x - 10} {middle:.1f}) rotate(-90)" text-anchor="middle" '
        f'font-size="{TEXT_SIZE}" fill="{SOFT}">imports run downwards only</text>'
    )


def legend(y: float) -> list[str]:
    """Return the SVG of what the colours say."""
    parts, x = [], float(GUTTER)
    for (fill, line), words in LEGEND:
        parts.append(rectangle(Frame(x, y, 16, 16), fill, line))
        parts.append(text(x + 24, y + 13, words, TEXT_SIZE, INK))
        x += 64 + CHARACTER * len(words)
    return parts


def picture() -> str:
    """Return the whole map as SVG."""
    rows = layers()
    places = frames(rows)
    bottom = places[-1][0].y + places[-1][0].height
    body = [
        text(GUTTER, 30, PACKAGE, 20, INK, weight="700"),
        text(GUTTER, 50, "One package, one job.", TEXT_SIZE, SOFT),
        arrow(HEADER, bottom),
        *(
            box(drawn, frame)
            for row, row_frames in zip(rows, places, strict=True)
            for drawn, frame in zip(row, row_frames, strict=True)
        ),
        *legend(bottom + 20),
    ]
    height = round(bottom) + FOOTER
    return SVG.format(width=WIDTH, height=height, paper=PAPER, body="\n".join(body))


def table() -> str:
    """Return the table of packages as Markdown, from top to bottom, with packages inside others."""
    rows = ["| package | its one job |", "|---|---|"]
    for drawn in (drawn for row in layers() for drawn in row):
        rows += [_row(drawn.name), *(_row(f"{drawn.name}.{name}") for name in drawn.inside)]
    return "\n".join(rows) + "\n"


def _row(name: str) -> str:
    path = source_of(name).relative_to(ROOT)
    is_package = path.stem == "__init__"
    shown = name.replace(".", "/") + ("/" if is_package else ".py")
    return f"| [`{shown}`]({path.parent if is_package else path}) | {job_of(name)} |"


def with_table(page: str) -> str:
    """Return CONTRIBUTING.md with the table of packages between its marks."""
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return before + MARKS[0] + table() + MARKS[1] + after


def main() -> None:
    """Write the picture and the table."""
    PICTURE.write_text(picture(), encoding="utf-8")
    TABLE.write_text(with_table(TABLE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
