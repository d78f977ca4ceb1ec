"""Which rows the ladder measures, so that each changes one thing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import attrs

from precisionbench.backends import Backend, discovery
from precisionbench.backends.rungs import Capabilities, Rung, Stage
from precisionbench.errors import ENDS_OF_RUN, PrecisionBenchError, SpecError, one_line, text_of
from precisionbench.spec_syntax import spec_text, split_spec

__all__ = ["Capabilities", "rungs", "stopped"]

# In float32 a batch larger than the user's by more than this factor may use too much memory.
_MOST_TIMES_LARGER = 8
# A backend offers no more rows than these.
_MOST_RUNGS = 100


def rungs(start: str, capabilities: Capabilities, batch_size: int | None = None) -> tuple[str, ...]:
    """Specs of the rows to measure, starting with the user's row.

    Layouts are also measured in float32, because their effect depends on the precision. The
    published batch is measured as the first and as the last change; only on GPUs, because on CPUs a
    call could take minutes. If it is more than eight times the user's batch, it is measured only as
    the last change.

    Args:
        start: spec of the row to begin with.
        capabilities: of this machine and workload.
        batch_size: the published batch, where there is one.

    Returns:
        The specs, stage by stage.
    """
    offered = [offer for offer in _offers(capabilities) if not offer.missing]
    rows = [start, *_specs(offered, [Stage.PRECISION, Stage.LAYOUT, Stage.COMPILER])]
    if _reaches_batch(batch_size, capabilities):
        at = {"batch_size": batch_size}
        first = [_with(start, at)] if _fits_as_first(batch_size, capabilities) else []
        rows += [*first, _with(rows[-1], at)]
    rows += _specs(offered, [Stage.ENGINE])
    return tuple(dict.fromkeys(rows))


@attrs.frozen
class _Offer:
    """The rungs of one backend.

    Attributes:
        name: of the backend.
        rungs: in its own order.
        missing: why it cannot run here; empty where it can.
        left_out: the text for the case that it cannot.
    """

    name: str
    rungs: tuple[Rung, ...]
    missing: str
    left_out: str = ""

    @property
    def reason(self) -> str:
        """Why not all of its rungs are measured; empty where all are."""
        return self.missing or next(filter(None, (rung.left_out for rung in self.rungs)), "")


def _offers(capabilities: Capabilities) -> Iterator[_Offer]:
    """The installed backends with rungs; `precisionbench backends` reports broken plugins."""
    for name in discovery.installed():
        if name not in capabilities.broken and (offer := _offer(name, capabilities)):
            yield offer


def _offer(name: str, capabilities: Capabilities) -> _Offer | None:
    """The rungs of a backend, or why there are none; None where it has none."""
    try:
        backend = discovery.load(name)
    except PrecisionBenchError:
        return None
    try:
        found = _rungs_of(backend, capabilities)
        missing, left_out = capabilities.missing.get(name, ""), text_of(backend.left_out)
    except ENDS_OF_RUN:
        raise
    except BaseException as exc:  # the code of a plugin
        return _Offer(name, (), f"its ladder_rungs failed ({one_line(exc)})")
    return _Offer(name, found, missing, left_out) if found else None


def _rungs_of(backend: type[Backend], capabilities: Capabilities) -> tuple[Rung, ...]:
    """The rungs of a backend, each of which its options allow."""
    found = tuple(itertools.islice(backend.ladder_rungs(capabilities), _MOST_RUNGS + 1))
    if len(found) > _MOST_RUNGS:
        raise SpecError(f"it has more than {_MOST_RUNGS} rungs")
    for rung in found:
        discovery.make(spec_text(backend.name, rung.options))
    return found


def _specs(offers: list[_Offer], stages: list[Stage]) -> list[str]:
    return [
        spec_text(offer.name, rung.options)
        for stage in stages
        for offer in offers
        for rung in offer.rungs
        if rung.stage is stage and not rung.left_out
    ]


def _reaches_batch(batch_size: int | None, capabilities: Capabilities) -> bool:
    known = batch_size is not None and capabilities.batch_size is not None
    return known and batch_size != capabilities.batch_size and capabilities.device == "cuda"


def _fits_as_first(batch_size: int | None, capabilities: Capabilities) -> bool:
    return (batch_size or 0) <= _MOST_TIMES_LARGER * (capabilities.batch_size or 0)


def _with(spec: str, options: Mapping[str, object]) -> str:
    name, known = split_spec(spec)
    return spec_text(name, {**known, **options})


def stopped(
    start: str, capabilities: Capabilities, batch_size: int | None = None
) -> tuple[str, ...]:
    """Which rungs are left out on this machine, each in a sentence with the reason.

    Args:
        start: spec of the row to begin with.
        capabilities: of this machine and workload.
        batch_size: the published batch, where there is one.

    Returns:
        The sentences.
    """
    return (
        *_about_batch(start, capabilities, batch_size),
        *(
            f"{offer.left_out or f'{offer.name} was left out'}: {reason}"
            for offer in _offers(capabilities)
            if (reason := offer.reason)
        ),
        *_about_device(capabilities),
    )


def _about_batch(start: str, capabilities: Capabilities, batch_size: int | None) -> Iterator[str]:
    if batch_size in (None, capabilities.batch_size):
        return
    if not _reaches_batch(batch_size, capabilities):
        yield f"the published batch size {batch_size} was left out: it is measured only on a GPU"
    elif not _fits_as_first(batch_size, capabilities):
        yield (
            f"only the last row was measured at the published batch size {batch_size}, not "
            f"{start}: it is more than {_MOST_TIMES_LARGER}x the batch size "
            f"{capabilities.batch_size} and could use too much memory"
        )


def _about_device(capabilities: Capabilities) -> Iterator[str]:
    if capabilities.device != "cuda":
        yield "TensorRT, CUDA graphs and DLAs were left out: they require an NVIDIA GPU"
