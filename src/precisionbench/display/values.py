"""Records and values as short text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import accumulate
from typing import Any

import attrs

from precisionbench import safe_text

MAX_LINES, MAX_COLUMNS = 10, 100
_MAX_TEXT = 90  # characters of a text in a `repr`
_MAX_CELL_TEXT = 300  # of a text in a notebook
_MAX_NESTED = 100  # of a record within another one
_MAX_COLLECTION = 60
_MAX_CELL = 56  # of a table
_MAX_ITEMS = 4  # of a sequence or a mapping that is shown
_INDENT = "  "


def short(record: Any) -> str:
    """A record as `Name(field=value, ...)` in at most ten lines; defaults are left out.

    Args:
        record: an attrs object. Its class may name the attributes to show in `_shown`.
    """
    name, pieces = type(record).__name__, list(_pieces(record))
    line = f"{name}({', '.join(pieces)})"
    if len(line) <= MAX_COLUMNS:
        return line
    filled = [f"{_INDENT}{text}" for text in _filled(pieces)]
    most = MAX_LINES - 2
    if len(filled) > most:
        filled = [*filled[: most - 1], f"{_INDENT}..."]
    return "\n".join([f"{name}(", *filled, ")"])


def one_line(record: Any) -> str:
    """A record as `short` shows it, in one line that is cut at 100 columns.

    Args:
        record: an attrs object.
    """
    line = f"{type(record).__name__}({', '.join(_pieces(record))})"
    return line if len(line) <= MAX_COLUMNS else f"{line[: MAX_COLUMNS - 4]}...)"


def full(record: Any) -> str:
    """All fields of a record, one a line, with whole texts and one line for each nested record.

    Args:
        record: an attrs object.
    """
    lines = [type(record).__name__]
    for name in names_of(record):
        lines += _field_lines(name, getattr(record, name))
    return "\n".join(lines)


def names_of(record: Any) -> list[str]:
    """The names of all that a record shows: the attributes of its `repr`, then all fields.

    Args:
        record: an attrs object.
    """
    fields = [field.name for field in attrs.fields(type(record)) if field.repr]
    return list(dict.fromkeys([*getattr(record, "_shown", ()), *fields]))


def text_of(value: object) -> str:
    """A value in one short line, for a cell.

    Args:
        value: of a field.
    """
    if "__str__" in vars(type(value)) and attrs.has(type(value)):
        value = str(value)  # a sentence of its own, such as an interval's
    elif isinstance(value, Mapping):
        value = ", ".join(f"{text_of(name)}: {text_of(one)}" for name, one in value.items())
    elif isinstance(value, (tuple, list)) and all(isinstance(one, str) for one in value):
        value = "; ".join(value)
    is_text = isinstance(value, str) and not isinstance(value, Enum)
    return _cut(safe_text.line(value), _MAX_CELL_TEXT) if is_text else _value(value)


def table(records: Sequence[Any]) -> list[str]:
    """Records of one class in aligned columns: as many as there is room for.

    Args:
        records: attrs objects, at least one.
    """
    found = [
        [name, *(_cut(text, _MAX_CELL) for text in texts)]
        for name, texts in columns(records).items()
    ]
    widths = [max(map(len, column)) for column in found]
    edges = accumulate(width + len(_INDENT) for width in widths)
    shown = found[: max(1, sum(edge <= MAX_COLUMNS for edge in edges))]
    lines = zip(*shown, strict=True)
    return [_INDENT + _INDENT.join(map(str.ljust, line, widths)).rstrip() for line in lines]


def columns(records: Sequence[Any]) -> dict[str, list[str]]:
    """The texts of records by column, without columns that are empty.

    Args:
        records: attrs objects, at least one.
    """
    names = getattr(records[0], "_shown", None) or names_of(records[0])
    found = {name: [_cell(getattr(one, name)) for one in records] for name in names}
    return {name: texts for name, texts in found.items() if any(texts)}


def _cell(value: object) -> str:
    return "" if value is None or value == () else text_of(getattr(value, "value", value))


def bounded(lines: Iterable[str]) -> str:
    """Lines wrapped to 100 columns, at most ten; the last one says how many more there are.

    Args:
        lines: any number of them.
    """
    found = [part for line in lines for part in _wrapped(safe_text.line(line))]
    if len(found) > MAX_LINES:
        more = len(found) - MAX_LINES + 1
        found = [*found[: MAX_LINES - 1], f"{_INDENT}... {more} more lines; print() shows all"]
    return "\n".join(found)


def _wrapped(line: str) -> list[str]:
    indent = 2 * _INDENT if line.startswith(_INDENT) else _INDENT
    if len(line) <= MAX_COLUMNS:
        return [line]
    return textwrap.wrap(line, MAX_COLUMNS, subsequent_indent=indent, break_on_hyphens=False)


def _pieces(record: Any) -> Iterator[str]:
    names = getattr(record, "_shown", None)
    if names is None:
        names = [
            f.name for f in attrs.fields(type(record)) if f.repr and not _is_default(record, f)
        ]
    for name in names:
        yield f"{name}={_value(getattr(record, name))}"


def _is_default(record: Any, field: attrs.Attribute[Any]) -> bool:
    default: Any = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = default.factory()
    return default is not attrs.NOTHING and bool(getattr(record, field.name) == default)


def _filled(pieces: Iterable[str]) -> list[str]:
    """Pieces joined to lines that are not too wide."""
    lines = [""]
    for piece in pieces:
        joined = f"{lines[-1]}{piece}, "
        if lines[-1] and len(joined) > MAX_COLUMNS - len(_INDENT):
            lines.append(f"{piece}, ")
        else:
            lines[-1] = joined
    return [line.rstrip() for line in lines]


def _value(value: object) -> str:
    if isinstance(value, Enum):
        return repr(value.value)
    if isinstance(value, str):
        return repr(_cut(safe_text.line(value), _MAX_TEXT))
    if isinstance(value, float):
        return f"{value:.6g}"
    if attrs.has(type(value)):
        return _nested(value)
    if isinstance(value, Mapping):
        return _collection([f"{_value(k)}: {_value(v)}" for k, v in _first(value.items())], value)
    if isinstance(value, (tuple, list, set, frozenset)):
        return _collection([_value(item) for item in _first(value)], value)
    if value is None or isinstance(value, (bool, int)):
        return repr(value)
    return f"<{type(value).__name__}>"


def _first(items: Iterable[Any]) -> list[Any]:
    return [item for _, item in zip(range(_MAX_ITEMS), items, strict=False)]


def _collection(items: list[str], value: Any) -> str:
    """All items where there are few and short ones, otherwise their number."""
    begin, end = ("{", "}") if isinstance(value, Mapping) else ("(", ")")
    text = f"{begin}{', '.join(items)}{',' * (begin == '(' and len(items) == 1)}{end}"
    if len(value) <= _MAX_ITEMS and len(text) <= _MAX_COLLECTION:
        return text
    kinds = {type(item).__name__ for item in value}
    return f"<{len(value)} {kinds.pop() if len(kinds) == 1 else 'items'}>"


def _nested(record: Any) -> str:
    """A record within another one: its fields where they are few, otherwise its name."""
    text = f"{type(record).__name__}({', '.join(_pieces(record))})"
    return text if len(text) <= _MAX_NESTED else f"<{type(record).__name__}>"


def _field_lines(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, str) and not isinstance(value, Enum):
        yield f"{_INDENT}{name}: {safe_text.line(value)}"
    elif isinstance(value, tuple) and value and not all(isinstance(x, (int, float)) for x in value):
        yield f"{_INDENT}{name}:"
        for item in value:
            text = safe_text.line(item) if isinstance(item, str) else _item(item)
            yield f"{2 * _INDENT}{text}"
    elif isinstance(value, Mapping) and value:
        yield f"{_INDENT}{name}:"
        yield from (f"{2 * _INDENT}{text_of(k)}: {text_of(v)}" for k, v in value.items())
    else:
        yield f"{_INDENT}{name}: {_item(value)}"


def _item(value: object) -> str:
    has_sentence = "__str__" in vars(type(value))
    return one_line(value) if attrs.has(type(value)) and not has_sentence else text_of(value)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
