"""The command line's MODEL, `--input-shape` and `--batch-size`, with answers to usual mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from precisionbench.model.random_inputs import RandomInputs

    ShapeType = click.ParamType[tuple[int, ...]]
    SizesType = click.ParamType[tuple[int, ...]]
    IntType = click.ParamType[int]
else:
    ShapeType = SizesType = IntType = click.ParamType  # generic from click 8.4 on

Decorator = Callable[[Any], Any]
Shapes = tuple[tuple[int, ...], ...]


class _Shape(ShapeType):
    """A shape as `3,224,224` or `3x224x224`."""

    name = "shape"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """The numbers of the text."""
        numbers = str(value).replace("x", ",").split(",")
        if not all(number.strip().isdecimal() and int(number) for number in numbers):
            self.fail(f"{value!r} is not a shape; write it as 3,224,224", param, ctx)
        return tuple(map(int, numbers))


class _BatchSize(IntType):
    """A whole number of 1 or more."""

    name = "integer"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """The number of the text."""
        parts = [part.strip() for part in str(value).split(",")]
        if len(parts) > 1 and all(part.isdecimal() for part in parts):
            rows = " ".join(f"-b half:batch_size={part}" for part in parts)
            self.fail(f"{value!r} is more than one size; measure a row of each: {rows}", param, ctx)
        size: int = click.IntRange(min=1).convert(value, param, ctx)
        return size


class _BatchSizes(SizesType):
    """Whole numbers of 1 or more, as `1,8,32`."""

    name = "sizes"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """The numbers of the text."""
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and int(part) for part in parts):
            self.fail(f"{value!r} is not a list of sizes; write it as 1,8,32", param, ctx)
        return tuple(map(int, parts))


def _one_model(ctx: click.Context, _: click.Parameter, models: tuple[str, ...]) -> str:
    if len(models) > 1:
        raise click.UsageError(
            f"{ctx.info_name} measures one MODEL; to compare two, measure each and compare the "
            f"files: precisionbench compare {models[0]} -o a.json; "
            f"precisionbench compare {models[1]} -o b.json; "
            "precisionbench diff --force a.json b.json"
        )
    return models[0]


def model_argument() -> Decorator:
    """MODEL, of which there is one."""
    return click.argument("model", nargs=-1, required=True, metavar="MODEL", callback=_one_model)


def batch_size_option() -> Decorator:
    """`--batch-size`: items in one call."""
    text = "Items in one call (default: as MODEL returns them; torchvision: 100 on a GPU, else 4)."
    return click.option("--batch-size", type=_BatchSize(), help=text)


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
    shapes: Shapes, batch_size: int | None, device: str | None
) -> RandomInputs | None:
    """The inputs of `--input-shape`; None without it.

    Args:
        shapes: of one item of each input.
        batch_size: as the user gave it.
        device: as the user gave it; decides on the batch where the user does not say.
    """
    if not shapes:
        return None
    from precisionbench.model.random_inputs import RandomInputs
    from precisionbench.model.sources import default_batch_size
    from precisionbench.model.workload import usable_device

    return RandomInputs(shapes, batch_size or default_batch_size(usable_device(device)))
