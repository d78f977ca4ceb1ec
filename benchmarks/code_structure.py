"""How the source is divided: modules, packages, lines of files, functions and classes, imports.

    python benchmarks/code_structure.py --rev bee55e4

The figures of the working tree stand beside those of each revision that `--rev` names. It exits
with 1 where the working tree misses a limit, and prints the place. It needs git and import-linter.

A function's lines are those of its signature and its body, without its docstring. A function that
is longer only because of its signature and decorators is a declaration, such as `compare` with its
documented arguments or a command with its options.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import grimp
from importlinter.api import read_configuration

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "precisionbench"
MODULES_LIMIT = 8
FILE_LINES = 450
FUNCTION_LINES = 40


@attrs.frozen
class Part:
    """A file, class or function, with its length.

    Attributes:
        name: Its path, with the name of the class or function after a colon.
        lines: Its lines; a function's are counted without its docstring.
        is_declaration: Whether a function's decorators and signature are longer than its body.
    """

    name: str
    lines: int
    is_declaration: bool = False

    def __str__(self) -> str:
        return f"{self.lines} ({self.name})"


@attrs.frozen
class Structure:
    """What was counted in one source tree.

    Attributes:
        modules: Names of the top-level modules, without those that start with `_`.
        packages: Paths of all packages, without the top one.
        files: Every source file.
        classes: Every class.
        functions: Every function and method.
        layers: Layers of the import contract, from top to bottom; each is a set of packages.
        upward_imports: Imports that go up or sideways in these layers.
    """

    modules: tuple[str, ...]
    packages: tuple[str, ...]
    files: tuple[Part, ...]
    classes: tuple[Part, ...]
    functions: tuple[Part, ...]
    layers: tuple[frozenset[str], ...]
    upward_imports: tuple[str, ...]

    @property
    def long_files(self) -> tuple[Part, ...]:
        """Files of more than 450 lines."""
        return tuple(part for part in self.files if part.lines > FILE_LINES)

    @property
    def long_functions(self) -> tuple[Part, ...]:
        """Functions of more than 40 lines that are not declarations."""
        long = (part for part in self.functions if part.lines > FUNCTION_LINES)
        return tuple(part for part in long if not part.is_declaration)


@attrs.frozen
class Limit:
    """What the working tree must keep.

    Attributes:
        what: What is counted, in words.
        at_most: How many are allowed.
        found: What was found.
    """

    what: str
    at_most: int
    found: tuple[str, ...]

    @property
    def is_kept(self) -> bool:
        """Whether no more were found than are allowed."""
        return len(self.found) <= self.at_most


def limits(tree: Structure) -> list[Limit]:
    """Return what is asked of the working tree, and what it has."""
    return [
        Limit("modules at the top level", MODULES_LIMIT, tree.modules),
        Limit(f"files over {FILE_LINES} lines", 0, tuple(map(str, tree.long_files))),
        Limit(f"functions over {FUNCTION_LINES} lines", 0, tuple(map(str, tree.long_functions))),
        Limit("imports that run upwards", 0, tree.upward_imports),
    ]


def structure_of(root: Path) -> Structure:
    """Count the source tree below `root`, which holds `src` and `pyproject.toml`."""
    source = root / "src" / PACKAGE
    texts = {
        path.relative_to(source).as_posix(): path.read_text()
        for path in sorted(source.rglob("*.py"))
    }
    nodes = [(path, node) for path, text in texts.items() for node in ast.walk(ast.parse(text))]
    folders = [Path(path).parent for path in texts if path.endswith("__init__.py")]
    layers = layers_of(root)
    return Structure(
        modules=tuple(p.stem for p in sorted(source.glob("*.py")) if not p.stem.startswith("_")),
        packages=tuple(folder.as_posix() for folder in folders if folder != Path()),
        files=tuple(Part(path, len(text.splitlines())) for path, text in texts.items()),
        classes=tuple(_class(path, n) for path, n in nodes if isinstance(n, ast.ClassDef)),
        functions=tuple(
            _function(path, node)
            for path, node in nodes
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ),
        layers=layers,
        upward_imports=tuple(upward_imports(root / "src", layers)),
    )


def _class(path: str, node: ast.ClassDef) -> Part:
    return Part(f"{path}:{node.name}", _lines(node))


def _function(path: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Part:
    has_docstring = ast.get_docstring(node) is not None
    code = node.body[has_docstring:]
    body = (code[-1].end_lineno or 0) - code[0].lineno + 1 if code else 0
    total = _lines(node) - (_lines(node.body[0]) if has_docstring else 0)
    return Part(f"{path}:{node.name}", total, is_declaration=total - body > body)


def _lines(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    first = decorators[0].lineno if decorators else node.lineno
    return (node.end_lineno or first) - first + 1


def layers_of(root: Path) -> tuple[frozenset[str], ...]:
    """Return the layers that `pyproject.toml` gives to import-linter, from top to bottom."""
    contracts = read_configuration(str(root / "pyproject.toml"))["contracts_options"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return tuple(frozenset(layer.split(" | ")) for layer in layers)


def upward_imports(source: Path, layers: tuple[frozenset[str], ...]) -> Iterator[str]:
    """Yield each chain of imports that goes up, or between two packages of one layer."""
    sys.path.insert(0, str(source))
    try:
        graph = grimp.build_graph(PACKAGE, cache_dir=None)
    finally:
        sys.path.remove(str(source))
    for dependency in graph.find_illegal_dependencies_for_layers([set(layer) for layer in layers]):
        for route in dependency.routes:
            yield " -> ".join([min(route.heads), *route.middle, min(route.tails)])


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """Yield a temporary folder with `src` and `pyproject.toml` of a git revision."""
    command = ["git", "archive", revision, "src", "pyproject.toml"]
    archive = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder)


def figures(tree: Structure) -> dict[str, str]:
    """Return what is printed of a source tree, by the name of the figure."""
    by_kind: dict[bool, list[Part]] = {False: [], True: []}
    for part in tree.functions:
        by_kind[part.is_declaration].append(part)
    return {
        **{limit.what: str(len(limit.found)) for limit in limits(tree)},
        "packages at the top level": str(sum("/" not in package for package in tree.packages)),
        "packages in all": str(len(tree.packages)),
        "files": str(len(tree.files)),
        "lines in all": f"{sum(part.lines for part in tree.files):,}",
        "longest file": _longest(tree.files),
        "longest function": _longest(by_kind[False]),
        "longest declaration": _longest(by_kind[True]),
        "largest class": _longest(tree.classes),
        "layers of the import contract": str(len(tree.layers)),
    }


def _longest(parts: Iterable[Part]) -> str:
    return str(max(parts, key=lambda part: part.lines))


def print_table(trees: dict[str, Structure]) -> None:
    """Print the figures, a line for each, with a column for each source tree."""
    columns = {name: figures(tree) for name, tree in trees.items()}
    rows = [["", *columns]]
    rows += [[key, *(c[key] for c in columns.values())] for key in next(iter(columns.values()))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rev", action="append", default=[], help="a git revision; repeatable")
    trees = {}
    for revision in parser.parse_args().rev:
        with checked_out(revision) as folder:
            trees[revision] = structure_of(folder)
    trees["working tree"] = structure_of(ROOT)
    print_table(trees)
    missed = [limit for limit in limits(trees["working tree"]) if not limit.is_kept]
    for limit in missed:
        print(f"\n{limit.what}: {len(limit.found)} found, at most {limit.at_most} allowed")
        print(*(f"  {found}" for found in limit.found), sep="\n")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
