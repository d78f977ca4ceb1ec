"""The command line's MODEL, `--input-shape` and `--batch-size`, with answers to usual mistakes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from precisionbench.model.random_inputs import RandomInputs

    ShapeType = click.ParamType[tuple[int, ...]]
    SizesType = click.ParamType[tuple[int, ...]]
else:
    ShapeType = SizesType = click.ParamType  # generic from click 8.4 on

Decorator = Callable[[Any], Any]
Shapes = tuple[tuple[int, ...], ...]
Sizes = tuple[int, ...]


class _Shape(ShapeType):
    """A shape as `3,224,224` or `3x224x224`."""

    name = "shape"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """The numbers of the text."""
        numbers = str(value).replace("x", ",").split(",")
        if not all(number.strip().isdecimal() and int(number) for number in numbers):
            self.fail(f"{value!r} is not a shape; write it as 3,224,224", param, ctx)
        return tuple(map(int, numbers))


class _BatchSizes(SizesType):
    """Whole numbers of 1 or more, as `1,8,32`, or a single one."""

    name = "sizes"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """The numbers of the text."""
        parts = [part.strip() for part in str(value).split(",")]
        for part in parts:
            if not part.isdecimal() or not part.strip("0"):
                what = "a whole number of 1 or more"
                self.fail(f"{part!r} is not {what}; write sizes as 8 or 1,8,32", param, ctx)
        return tuple(click.INT(part, param, ctx) for part in parts)


def _one_size(_: click.Context, __: click.Parameter, sizes: Sizes | None) -> int | None:
    if sizes and len(sizes) > 1:
        text = ",".join(map(str, sizes))
        raise click.BadParameter(
            f"'{text}' is more than one size; 'precisionbench compare' measures several"
        )
    return sizes[0] if sizes else None


def _one_or_more_sizes(
    _: click.Context, __: click.Parameter, sizes: Sizes | None
) -> int | Sizes | None:
    return sizes[0] if sizes and len(sizes) == 1 else sizes


def _one_model(ctx: click.Context, _: click.Parameter, models: tuple[str, ...]) -> str:
    if len(models) > 1:
        raise click.UsageError(
            f"{ctx.info_name} measures one MODEL; to compare several, use "
            f"precisionbench compare {' '.join(models)}"
        )
    return models[0]


def _models(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> str | dict[str, str]:
    """One model, or several by their labels or else by short names."""
    labelled = [_split_label(text) for text in given]
    if len(given) == 1 and not labelled[0][0]:
        return given[0]
    names = [label or name for (label, _), name in zip(labelled, _short_names(given), strict=True)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise click.UsageError(
            f"two models have the name {twice[0]!r}; give each a label: "
            f"old={labelled[0][1]} new={labelled[-1][1]}"
        )
    return {name: model for name, (_, model) in zip(names, labelled, strict=True)}


_LABEL = re.compile(r"([\w.-]+)=(.+)")


def _split_label(text: str) -> tuple[str, str]:
    """The label and the model of `label=model`; the label is empty where there is none."""
    found = _LABEL.fullmatch(text)
    return (found[1], found[2]) if found else ("", text)


def _short_names(models: Sequence[str]) -> list[str]:
    """What is behind the colon of each model, and its module or file where others have the same."""
    short = [model.rpartition(":")[2] for model in models]
    return [
        f"{PurePath(model.rpartition(':')[0]).stem}.{name}" if short.count(name) > 1 else name
        for model, name in zip(models, short, strict=True)
    ]


def model_argument() -> Decorator:
    """MODEL, of which there is one."""
    return click.argument("model", nargs=-1, required=True, metavar="MODEL", callback=_one_model)


def models_argument() -> Decorator:
    """MODEL, of which there may be several, each with a label."""
    return click.argument("model", nargs=-1, required=True, metavar="MODEL...", callback=_models)


_BATCH_SIZE = (
    "Items in one call (default: as MODEL returns them; torchvision: 100 on a GPU, else 4)"
)


def batch_size_option() -> Decorator:
    """`--batch-size`: items in one call."""
    return click.option(
        "--batch-size",
        type=_BatchSizes(),
        metavar="INTEGER",
        callback=_one_size,
        help=f"{_BATCH_SIZE}.",
    )


def one_or_more_batch_sizes_option() -> Decorator:
    """`--batch-size`: items in one call, or several numbers of them."""
    text = f"{_BATCH_SIZE}; several, such as 1,8,32, measure each backend at each of them."
    return click.option(
        "--batch-size",
        type=_BatchSizes(),
        metavar="N[,N...]",
        callback=_one_or_more_sizes,
        help=text,
    )


def batch_sizes_option() -> Decorator:
    """`--batch-sizes`: further sizes to try."""
    text = "Also try these batch sizes, such as 1,8,32; speeds are items per second."
    return click.option("--batch-sizes", type=_BatchSizes(), metavar="SIZES", help=text)


def input_shape_option() -> Decorator:
    """`--input-shape`, which may be repeated."""
    text = "Shape of one item of a random float32 input, such as 3,224,224 (repeatable)."
    return click.option(
        "--input-shape", "shapes", type=_Shape(), multiple=True, metavar="SHAPE", help=text
    )


def random_inputs(
    shapes: Shapes, batch_size: int | Sequence[int] | None, device: str | None
) -> RandomInputs | None:
    """The inputs of `--input-shape`; None without it.

    Args:
        shapes: of one item of each input.
        batch_size: as the user gave it; of several, the largest.
        device: as the user gave it; decides on the batch where the user does not say.
    """
    if not shapes:
        return None
    from precisionbench.model.random_inputs import RandomInputs
    from precisionbench.model.sources import default_batch_size
    from precisionbench.model.workload import usable_device

    largest = batch_size if isinstance(batch_size, int) else max(batch_size or [0])
    return RandomInputs(shapes, largest or default_batch_size(usable_device(device)))
