"""What a backend offers to `ladder` and to `tune`: rungs, and options to try."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import IntEnum
from typing import Any

import attrs

CHANNELS_LAST = {"memory_format": "channels_last"}


@attrs.frozen
class Capabilities:
    """What the rungs depend on.

    Attributes:
        device: `cuda`, `cpu`, ...
        capability: compute capability of a GPU.
        has_images: whether an input has four or five dimensions, so that layouts matter.
        batch_size: items of a call; None where it is not known.
        missing: backends that cannot run here, each with the reason.
        dlas: how many DLAs the device has.
        broken: installed backends that could not be imported.
    """

    device: str
    capability: tuple[int, ...] = (0, 0)
    has_images: bool = False
    batch_size: int | None = None
    missing: Mapping[str, str] = attrs.field(factory=dict)
    dlas: int = 0
    broken: Collection[str] = ()


class Stage(IntEnum):
    """Where a rung stands on the ladder; rungs of one stage are in the order of backends' names.

    `PRECISION`: another dtype in eager PyTorch. `LAYOUT`: another memory format. `COMPILER`: a
    compiler. `ENGINE`: an engine of its own. Of the rungs before `ENGINE` the last one is also
    measured at the published batch size.
    """

    PRECISION = 1
    LAYOUT = 2
    COMPILER = 3
    ENGINE = 4


@attrs.frozen
class Rung:
    """A row of the ladder.

    Attributes:
        stage: where it stands.
        options: of the backend; the others have their defaults.
        left_out: why the ladder does not measure it here; empty where it does.
    """

    stage: Stage
    options: Mapping[str, Any] = attrs.field(factory=dict)
    left_out: str = ""


@attrs.frozen
class TuningOptions:
    """The options of a backend that `tune` tries.

    `tune` adds the common ones where they can have an effect: `memory_format` for images,
    `cuda_graph` on a GPU, `fold_batch_norm` where the model has batch norms.

    Attributes:
        stage: how dear it is to prepare: `PRECISION` where nothing is built, `COMPILER` where code
            is compiled, `ENGINE` where an engine is built. What is cheaper is tried first.
        first: options that are tried, all of them.
        then: further options, each tried alone on the fastest accurate one of the first.
        typical_build_s: about how many seconds preparing takes, for a network of usual size; by it
            and the expected gain `tune` chooses the order within a stage. Where kernels are chosen
            by timing them (`Claims.autotuned`), several times as long is expected.
    """

    stage: Stage
    first: Sequence[Mapping[str, Any]] = ({},)
    then: Sequence[Mapping[str, Any]] = ()
    typical_build_s: float = 10.0
