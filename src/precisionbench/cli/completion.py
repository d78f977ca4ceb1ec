"""Shell completion of backends with their options, published ids, and result files.

Completion must be fast. Therefore plugins are found by their entry points and their options are
read from their source; neither plugins nor torch are imported.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from precisionbench.spec_syntax import ALIASES

if TYPE_CHECKING:
    ParamType = click.ParamType[str]  # generic from click 8.4 on
else:
    ParamType = click.ParamType

_GROUP = "precisionbench.backends"
_BASE = EntryPoint("", "precisionbench.backends.base:Backend", _GROUP)
_RESULTS = (".json", ".journal")


class BackendSpec(ParamType):
    """A backend as `name:option=value,...`."""

    name = "spec"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete names, then options, then their values."""
        return _items(specs(incomplete), incomplete)


class RecordId(ParamType):
    """The id of a published number."""

    name = "id"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete ids."""
        from precisionbench.published import everything

        return _items((record.id for record in everything()), incomplete)


class ResultFile(ParamType):
    """A result file or a journal; `last` is the newest comparison."""

    name = "file"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The file of `last`; other names stay as they are."""
        from precisionbench.cli.saved import resolved

        return resolved(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete result files and journals, or any file if there are none."""
        head = incomplete[: incomplete.rfind("/") + 1]
        found = sorted(
            f"{head}{path.name}"
            for path in (Path(head) if head else Path()).glob("*")
            if path.suffix in _RESULTS
        )
        found += ["last"] * bool(incomplete and not head)
        return _items(found, incomplete) or [CompletionItem(incomplete, type="file")]


class AnyFile(ParamType):
    """A file, whose name is checked where it is used: `click.Path` raises Python's own errors."""

    name = "file"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Let the shell complete the names of files."""
        return [CompletionItem(incomplete, type="file")]


def _items(values: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(value) for value in values if value.startswith(incomplete)]


def specs(incomplete: str) -> Iterator[str]:
    """The possible continuations of a spec.

    Args:
        incomplete: its beginning.
    """
    name, colon, given = incomplete.partition(":")
    entries = {entry.name: entry for entry in entry_points(group=_GROUP)}
    if not colon:
        yield from sorted({*entries, *ALIASES})
    elif name in entries:
        own, common = _options(entries[name]), _options(_BASE)
        options = {**own, **{o: values for o, values in common.items() if not own.get(o)}}
        done, _, last = given.rpartition(",")
        head = f"{name}:{done}," if done else f"{name}:"
        option, equals, _ = last.partition("=")
        if equals:
            yield from (f"{head}{option}={value}" for value in options.get(option, ()))
        else:
            taken = {one.partition("=")[0] for one in done.split(",")}
            left = ((other, values) for other, values in options.items() if other not in taken)
            yield from (f"{head}{other}={value}" for other, vs in left for value in vs or ("",))


def _options(entry: EntryPoint) -> Mapping[str, tuple[str, ...]]:
    """A backend's own options with the values in its source; empty if that cannot be read."""
    with contextlib.suppress(OSError, SyntaxError, ValueError, ImportError):
        body = ast.parse(_source(entry.module)).body
        aliases = {
            ast.unparse(line.targets[0]): line.value
            for line in body
            if isinstance(line, ast.Assign)
        }
        for node in body:
            if isinstance(node, ast.ClassDef) and node.name == entry.attr:
                return dict(_fields(node, aliases))
    return {}


def _source(module: str) -> str:
    """The source of a module, without importing its packages."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return ""
    if not rest:
        return Path(spec.origin).read_text(encoding="utf-8")
    path = Path(spec.origin).parent.joinpath(*rest)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.read_text(encoding="utf-8")


def _fields(
    node: ast.ClassDef, aliases: Mapping[str, ast.expr]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            text = ast.unparse(line.annotation)
            hidden = line.target.id.startswith("_") or "unrecorded(" in ast.unparse(line)
            if not text.startswith("ClassVar") and not hidden:
                yield line.target.id, tuple(_values(aliases.get(text, line.annotation), text))


def _values(annotation: ast.expr, text: str) -> Iterator[str]:
    if "bool" in text.split(" | "):
        yield from ("true", "false")
    for node in ast.walk(annotation):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
