"""What `tune` tries: the options that backends offer, without those that cannot have an effect."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import attrs

from precisionbench.analysis.tuning import simplicity
from precisionbench.backends import Backend, discovery
from precisionbench.backends.rungs import CHANNELS_LAST, Capabilities, Stage, TuningOptions
from precisionbench.backends.specs import canonical_spec
from precisionbench.errors import (
    ENDS_OF_RUN,
    FOREIGN_ERRORS,
    PrecisionBenchError,
    SpecError,
    one_line,
    some,
)
from precisionbench.results.tuning import LeftOut
from precisionbench.spec_syntax import spec_text, split_spec
from precisionbench.workflows.tuning.arguments import checked_specs

_GRAPH = {"cuda_graph": True}
_FOLDED = {"fold_batch_norm": True}


@attrs.frozen
class Facts:
    """What the space depends on.

    Attributes:
        capabilities: of the machine and the workload.
        has_batch_norm: whether the model has batch norms, which can be folded.
        batch_sizes: at which the fastest configurations are tried, too; empty for none.
    """

    capabilities: Capabilities
    has_batch_norm: bool
    batch_sizes: Sequence[int] = ()


@attrs.frozen
class Family:
    """The configurations of one backend.

    Attributes:
        backend: its name.
        stage: how dear they are to prepare.
        first: specs that are tried, all of them.
        then: further options, each of which is tried alone on the fastest accurate spec.
        typical_build_s: about how many seconds preparing one takes.
        excluded: specs of the backend whose configurations are not tried.
    """

    backend: str
    stage: Stage
    first: tuple[str, ...]
    then: tuple[Mapping[str, Any], ...] = ()
    typical_build_s: float = 10.0
    excluded: tuple[str, ...] = ()

    def allowed(self, specs: Iterable[str]) -> list[str]:
        """Those of the configurations that are not excluded.

        Args:
            specs: of this family.
        """
        return [s for s in specs if not any(matches(s, one) for one in self.excluded)]

    @property
    def further(self) -> tuple[str, ...]:
        """The further options as texts, such as `cuda_graph=true`."""
        return tuple(spec_text("", options).lstrip(":") for options in self.then)

    def refined(self, spec: str, with_tuned: bool = True) -> tuple[str, ...]:
        """A spec with each of the further options alone.

        Args:
            spec: of this family.
            with_tuned: also with options that tune kernels.
        """
        name, known = split_spec(spec)
        specs = [canonical(name, {**known, **options}) for options in self.then]
        found = self.allowed(dict.fromkeys(one for one in specs if one and one != spec))
        return tuple(one for one in found if with_tuned or not has_tuned_kernels(one))


@attrs.frozen
class Space:
    """All configurations that a search may try.

    Attributes:
        families: by backend, those that are cheap to prepare first.
        left_out: what is not tried, with the reason.
        batch_sizes: other batch sizes at which the fastest configurations are tried.
    """

    families: tuple[Family, ...]
    left_out: tuple[LeftOut, ...] = ()
    batch_sizes: tuple[int, ...] = ()

    def at_batches(self, spec: str) -> list[str]:
        """A configuration at each of the other batch sizes.

        Args:
            spec: a canonical spec; one with a batch size of its own stays alone.
        """
        name, options = split_spec(spec)
        if "batch_size" in options:
            return []
        specs = (canonical(name, {**options, "batch_size": size}) for size in self.batch_sizes)
        found, family = [one for one in specs if one], self.family_of(spec)
        return family.allowed(found) if family else found

    def holds(self, spec: str) -> bool:
        """Whether a search may try a configuration: at first, with a further option, or mixed.

        Args:
            spec: a canonical spec.
        """
        family, (name, options) = self.family_of(spec), split_spec(spec)
        size = options.pop("batch_size", None)
        if family is None or not family.allowed([spec]):
            return False
        if size is not None and int(size) not in self.batch_sizes:
            return False
        base = {key: value for key, value in options.items() if key != "fp32_layers"}
        specs = {spec_text(name, options), spec_text(name, base)}
        return any(specs & {one, *family.refined(one)} for one in family.first)

    def family_of(self, spec: str) -> Family | None:
        """The family that a spec belongs to; None where it is the reference only.

        Args:
            spec: a canonical spec.
        """
        name = split_spec(spec)[0]
        return next((family for family in self.families if family.backend == name), None)


def space(
    facts: Facts, include: Iterable[str] | None = None, exclude: Iterable[str] | None = None
) -> Space:
    """The configurations to try.

    Args:
        facts: of the machine and the workload.
        include: backends or specs such as `half:dtype=bfloat16`. Backends and specs of the space
            are tried alone then; a spec that is not in the space is added. None is all.
        exclude: backends, or specs whose configurations are not tried.

    Raises:
        SpecError: one of `include` or `exclude` cannot be understood, or nothing is left.
    """
    chosen, unwanted = checked_specs("include", include), checked_specs("exclude", exclude)
    if include is not None and not chosen:
        raise SpecError(
            "include is empty, so nothing is left to try",
            "name backends or specs, or leave it out to try all",
        )
    left_out = [*_common_left_out(facts)]
    families: list[Family] = []
    names = dict.fromkeys([*discovery.installed(), *(split_spec(one)[0] for one in chosen)])
    for name in names:
        found = _family(name, facts, chosen, left_out)
        family = _without(found, unwanted) if found else None
        if family and family.first:
            families.append(family)
    left_out += [LeftOut(spec, "it is excluded") for spec in unwanted]
    if not families:
        reasons = [f"{one.what}: {one.reason}" for one in left_out if one.what in names]
        raise SpecError(
            f"nothing is left to try{f' ({some(reasons)})' if chosen and reasons else ''}",
            "leave include out, or exclude fewer configurations",
        )
    sizes = [size for size in facts.batch_sizes if size != facts.capabilities.batch_size]
    families.sort(key=lambda one: (one.stage, simplicity(one.backend)))
    return Space(tuple(families), tuple(left_out), tuple(sizes))


def _family(
    name: str, facts: Facts, chosen: Sequence[str], left_out: list[LeftOut]
) -> Family | None:
    """The configurations of one backend; None where there are none to try."""
    wanted = [spec for spec in chosen if split_spec(spec)[0] == name]
    if chosen and not wanted:
        return None
    if name in facts.capabilities.missing:
        left_out.append(LeftOut(name, facts.capabilities.missing[name]))
        return None
    try:
        offered = discovery.load(name).tuning_options(facts.capabilities)
    except ENDS_OF_RUN:
        raise
    except BaseException as exc:  # the code of a plugin
        left_out.append(LeftOut(name, f"its tuning_options failed ({one_line(exc)})"))
        return None
    if offered is None and not wanted:
        return None
    return _expanded(name, offered or TuningOptions(Stage.ENGINE), facts, wanted, left_out)


def _expanded(
    name: str,
    offered: TuningOptions,
    facts: Facts,
    wanted: Sequence[str],
    left_out: list[LeftOut],
) -> Family:
    """The offered options with the common ones, and specs that the user has asked for."""
    layouts: list[Mapping[str, Any]] = [{}]
    if facts.capabilities.has_images and _spec(name, CHANNELS_LAST, left_out):
        layouts.append(CHANNELS_LAST)
    tried = [{**options, **layout} for options in offered.first for layout in layouts]
    specs = [spec for options in tried if (spec := _spec(name, options, left_out))]
    then = [*_common(offered.stage, facts), *offered.then]
    if wanted and name not in wanted:
        exact = [canonical_spec(discovery.make(spec)) for spec in wanted]
        specs = [*(s for s in specs if any(matches(s, w) for w in wanted)), *exact]
        then = []
    first = tuple(dict.fromkeys(specs))
    return Family(name, offered.stage, first, tuple(then), offered.typical_build_s)


def _spec(name: str, options: Mapping[str, Any], left_out: list[LeftOut]) -> str:
    """The canonical spec; empty, with a reason, where the backend refuses the options."""
    try:
        return canonical_spec(discovery.make(spec_text(name, options)))
    except PrecisionBenchError as exc:
        left_out.append(LeftOut(spec_text(name, options), exc.reason))
        return ""


def canonical(name: str, options: Mapping[str, Any]) -> str:
    """The canonical spec; empty where the backend refuses the options.

    Args:
        name: of the backend.
        options: of the spec.
    """
    try:
        return canonical_spec(discovery.make(spec_text(name, options)))
    except PrecisionBenchError:
        return ""


def _common(stage: Stage, facts: Facts) -> Iterator[Mapping[str, Any]]:
    """Common options that can have an effect on the backends of a stage."""
    if stage is Stage.PRECISION and facts.has_batch_norm:
        yield _FOLDED
    if stage is not Stage.ENGINE and facts.capabilities.device == "cuda":
        yield _GRAPH


def _common_left_out(facts: Facts) -> Iterator[LeftOut]:
    if not facts.capabilities.has_images:
        yield LeftOut("memory_format=channels_last", "no input has 4 or 5 dimensions")
    if not facts.has_batch_norm:
        yield LeftOut("fold_batch_norm=true", "the model has no batch norm")
    if facts.capabilities.device != "cuda":
        yield LeftOut("cuda_graph=true", "it requires an NVIDIA GPU")


def _without(family: Family, unwanted: Iterable[str]) -> Family:
    """The family without what is excluded."""
    unwanted = [spec for spec in unwanted if split_spec(spec)[0] == family.backend]
    family = attrs.evolve(family, excluded=tuple(unwanted))
    then = [one for one in family.then if family.allowed([spec_text(family.backend, one)])]
    return attrs.evolve(family, first=tuple(family.allowed(family.first)), then=tuple(then))


def matches(spec: str, pattern: str) -> bool:
    """Whether a configuration has the backend and all options of a pattern.

    Args:
        spec: a spec.
        pattern: a spec; its backend alone fits all of the backend's configurations.
    """
    name, options = split_spec(pattern)
    own_name, _ = split_spec(spec)
    if name != own_name:
        return False
    own, wanted = (discovery.make(one) for one in (spec, pattern))
    return all(_value(own, option) == _value(wanted, option) for option in options)


def _value(backend: Backend, option: str) -> object:
    return getattr(backend, option, None)


@cache
def has_tuned_kernels(spec: str) -> bool:
    """Whether kernels are chosen by timing them, which makes building several times as long.

    Args:
        spec: of a configuration.
    """
    with contextlib.suppress(*FOREIGN_ERRORS):  # the code of a plugin
        return bool(discovery.make(spec).claims().autotuned)
    return False
