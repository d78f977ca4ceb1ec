"""Which rows to measure so that each changes one thing; no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from precisionbench.spec_syntax import spec_text, split_spec

# Compute capability from which tensor cores take TF32.
_TF32_FROM = (8, 0)
_CHANNELS_LAST = {"memory_format": "channels_last"}
_TENSORRT = "torch2trt"
# In float32 a batch so many times as large as the user's own may leave no room for other rows.
_MOST_TIMES_LARGER = 8


@attrs.frozen
class Capabilities:
    """What the plan depends on.

    Attributes:
        device: `cuda`, `cpu`, ...
        capability: compute capability of a GPU.
        has_images: whether an input has four or five dimensions, so that layouts matter.
        batch_size: items of a call; None where it is not known.
        missing: backends that cannot run here, each with the reason.
        dlas: how many DLAs the device has.
    """

    device: str
    capability: tuple[int, ...] = (0, 0)
    has_images: bool = False
    batch_size: int | None = None
    missing: Mapping[str, str] = attrs.field(factory=dict)
    dlas: int = 0


def rungs(start: str, ground: Capabilities, batch_size: int | None = None) -> tuple[str, ...]:
    """Specs of the rows to measure, from the user's own on.

    Layouts are measured in float32, too: what a layout is worth depends on the precision. The
    published batch is measured as the first change as well as the last one; on GPUs only, because
    elsewhere a call could take minutes. Where it is more than eight times the user's own, it is
    measured as the last change only.

    Args:
        start: spec of the row to begin with.
        ground: what there is.
        batch_size: the published batch, where there is one.
    """
    rows = [start, *_eager(ground), *_compiled(ground)]
    if _climbs_to(batch_size, ground):
        at = {"batch_size": batch_size}
        first = [_with(start, at)] if _fits_as_first(batch_size, ground) else []
        rows += [*first, _with(rows[-1], at)]
    rows += _engines(ground)
    return tuple(dict.fromkeys(rows))


def _climbs_to(batch_size: int | None, ground: Capabilities) -> bool:
    known = batch_size is not None and ground.batch_size is not None
    return known and batch_size != ground.batch_size and ground.device == "cuda"


def _fits_as_first(batch_size: int | None, ground: Capabilities) -> bool:
    return (batch_size or 0) <= _MOST_TIMES_LARGER * (ground.batch_size or 0)


def _eager(ground: Capabilities) -> Iterator[str]:
    on_gpu = ground.device == "cuda"
    half = "half" if on_gpu else "half:dtype=bfloat16"
    yield "eager"
    if on_gpu and ground.capability >= _TF32_FROM:
        yield "eager:precision=tf32"
    yield half
    if ground.has_images:
        yield _with("eager", _CHANNELS_LAST)
        yield _with(half, _CHANNELS_LAST)


def _compiled(ground: Capabilities) -> Iterator[str]:
    if "compile" in ground.missing:
        return
    on_gpu = ground.device == "cuda"
    layout = _CHANNELS_LAST if ground.has_images else {}
    row = _with("compile", {"dtype": "float16" if on_gpu else "bfloat16", **layout})
    yield row
    row = _with(row, {"freezing": True})
    yield row
    if on_gpu:
        yield _with(row, {"mode": "reduce-overhead"})


def _engines(ground: Capabilities) -> Iterator[str]:
    if ground.device != "cuda" or _TENSORRT in ground.missing:
        return
    for precision in ("fp16", "int8"):
        yield _with(_TENSORRT, {"precision": precision})
    for core in range(ground.dlas):
        yield _with(_TENSORRT, {"precision": "int8", "dla_core": core})


def _with(spec: str, options: Mapping[str, object]) -> str:
    name, known = split_spec(spec)
    return spec_text(name, {**known, **options})


def stopped(start: str, ground: Capabilities, batch_size: int | None = None) -> tuple[str, ...]:
    """Where this machine cannot climb on, each in a sentence with the reason.

    Args:
        start: spec of the row to begin with.
        ground: what there is.
        batch_size: the published batch, where there is one.
    """
    reasons = []
    if batch_size not in (None, ground.batch_size) and not _climbs_to(batch_size, ground):
        reasons.append(
            f"the published batch of {batch_size} was left out: it is measured on a GPU only"
        )
    elif _climbs_to(batch_size, ground) and not _fits_as_first(batch_size, ground):
        reasons.append(
            f"{start} was not measured at the published batch of {batch_size}, only the last row "
            f"was: it is more than {_MOST_TIMES_LARGER} times the batch of {ground.batch_size}, "
            "and might leave the others no memory"
        )
    if "compile" in ground.missing:
        reasons.append(f"compiled rows were left out: {ground.missing['compile']}")
    if ground.device != "cuda":
        reasons.append("TensorRT, CUDA graphs and DLAs were left out: they need an NVIDIA GPU")
    elif _TENSORRT in ground.missing:
        reasons.append(
            f"TensorRT was left out, and with it INT8 and DLAs: {ground.missing[_TENSORRT]}"
        )
    return tuple(reasons)
