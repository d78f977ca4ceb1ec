"""The syntax of backend specs and row names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum

from precisionbench.errors import SpecError

# Words that are often typed, and the specs that they stand for; rows have the specs as names.
ALIASES: Mapping[str, str] = {
    "fp32": "eager",
    "tf32": "eager:precision=tf32",
    "fp16": "half",
    "bf16": "half:dtype=bfloat16",
    "amp": "autocast",
    "tensorrt": "torch2trt:precision=fp16",
}


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Split `name:option=value,option=value` into the name and the options' texts.

    Args:
        spec: the spec.

    Raises:
        SpecError: an option without `=`, or one that is given twice.
    """
    name, _, rest = spec.strip().partition(":")
    options: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        option, equals, value = part.partition("=")
        if not equals:
            raise SpecError(
                f"{spec!r} has {part!r} in the place of an option",
                f"write '{name}:option=value,option=value'",
            )
        if option in options:
            raise SpecError(f"{spec!r} gives {option!r} twice", "give it once")
        options[option] = value
    return name, options


def split_label(text: str) -> tuple[str, str]:
    """Split `label=spec` into both; the label is empty where there is none.

    Args:
        text: such as `fast=half:dtype=bfloat16`, or a spec.
    """
    label, equals, spec = text.partition("=")
    is_label = equals and label.strip() and not set(":,") & set(label)
    return (label.strip(), spec.strip()) if is_label else ("", text)


def split_model(name: str) -> tuple[str, str]:
    """Split `model/row` into both; the model is empty where there is none.

    Names of backends have no `/`; options may.

    Args:
        name: of a row, or a spec.
    """
    model, slash, rest = name.partition("/")
    return (model, rest) if slash and ":" not in model else ("", name)


def row_of_model(model: str, name: str) -> str:
    """The name of a row of a model: `model/row`; without a model, the row's own.

    Args:
        model: name of the model; may be empty.
        name: of the row within the model; may be empty.
    """
    return f"{model}/{name}" if model and name else name


def without_alias(spec: str) -> str:
    """The spec with an alias replaced, such as `half:dtype=bfloat16` for `bf16`.

    Args:
        spec: the spec; its further options are kept.
    """
    name, colon, rest = spec.strip().partition(":")
    if name not in ALIASES:
        return spec
    return ALIASES[name] + (("," if ":" in ALIASES[name] else ":") + rest if colon else "")


def value_text(value: object) -> str:
    """The text of an option's value in a spec."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return value_text(value.value)
    return str(value)


def spec_text(name: str, options: Mapping[str, object]) -> str:
    """The spec of a name with these options, in their order."""
    parts = ",".join(f"{option}={value_text(value)}" for option, value in options.items())
    return f"{name}:{parts}" if parts else name


def row_names(specs: Iterable[str]) -> list[str]:
    """Names of rows with these specs: the spec, with `#2`, `#3` for repeated ones."""
    seen: Counter[str] = Counter()
    names = []
    for spec in specs:
        seen[spec] += 1
        names.append(spec if seen[spec] == 1 else f"{spec}#{seen[spec]}")
    return names


def without_batch(name: str) -> str:
    """The name of a row without the option `batch_size`; a name that is not a spec is given back.

    Args:
        name: such as `new/half:batch_size=8#2`.
    """
    model, own = split_model(name)
    spec, number = _split_number(own)
    try:
        backend, options = split_spec(spec)
    except SpecError:
        return name
    if options.pop("batch_size", None) is None:
        return name
    suffix = own[len(spec) :] if number > 1 else ""
    return row_of_model(model, spec_text(backend, options) + suffix)


def _split_number(name: str) -> tuple[str, int]:
    spec, _, number = name.rpartition("#")
    return (spec, int(number)) if spec and number.isdecimal() else (name, 1)


def same_row(query: str, row: str, options: Mapping[str, object]) -> bool:
    """Whether a query names a row; it may be an alias, or spell out options' defaults.

    Args:
        query: a spec as the user wrote it, such as `half:dtype=float16`, or `new/half`.
        row: name of the row, a canonical spec with or without `#2`, behind the name of its model
            where there are several.
        options: all options of the row, defaults included.
    """
    (query_model, query), (row_model, row) = split_model(query), split_model(row)
    if query_model != row_model:
        return False
    query_spec, query_number = _split_number(query)
    specs = dict.fromkeys((query_spec, without_alias(query_spec)))
    return any(_same_row(spec, query_number, row, options) for spec in specs)


def _same_row(query_spec: str, query_number: int, row: str, options: Mapping[str, object]) -> bool:
    row_spec, row_number = _split_number(row)
    try:
        name, asked = split_spec(query_spec)
    except SpecError:
        return False
    row_name, written = split_spec(row_spec)
    texts = {option: value_text(value) for option, value in options.items()}
    return (
        (name, query_number) == (row_name, row_number)
        and written.keys() <= asked.keys()
        and all(texts.get(option) == value for option, value in asked.items())
    )
