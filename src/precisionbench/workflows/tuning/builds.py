"""Builds that go on while other configurations are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs

from precisionbench.backends.rungs import CHANNELS_LAST
from precisionbench.measure.worker.first_call_limit import WarmCallLimit
from precisionbench.spec_syntax import split_spec
from precisionbench.workflows.tuning.bench import Bench
from precisionbench.workflows.tuning.estimates import TOO_LONG, Estimates
from precisionbench.workflows.tuning.space import Family, canonical, has_tuned_kernels

# A build that nothing waits for may take this share of the time that is left.
_PATIENCE = 0.8
_OVERDUE = 2.0  # a build that takes so many times as long as expected may take forever
_WAIT_S = 1.0  # until the time that is left is checked again


@attrs.frozen
class _Build:
    """A build that has begun.

    Attributes:
        begun_s: when, by the clock of the search.
        expected_s: how long it was expected to take.
        limit_s: after how long it is ended.
    """

    begun_s: float
    expected_s: float
    limit_s: float


@attrs.define
class Builds:
    """The builds that go on.

    Attributes:
        bench: builds at most `bench.ahead` configurations at the same time; 0 where builds would
            disturb what is measured.
        estimates: of how long they take.
        now: a clock, in seconds.
    """

    bench: Bench
    estimates: Estimates
    now: Callable[[], float]
    _begun: dict[str, _Build] = attrs.field(factory=dict, init=False)
    _has_ended: bool = attrs.field(default=False, init=False)  # one of them, whatever came of it
    _unlikely: set[str] = attrs.field(factory=set, init=False)  # ended once, and not again

    def __contains__(self, spec: object) -> bool:
        return spec in self._begun

    @property
    def free(self) -> int:
        """How many more can begin: none beside the first, until these show how long builds take."""
        is_first = not self._has_ended and self.estimates.pace is None
        if is_first and self._begun and not any(map(self._is_too_long, self._begun.values())):
            return 0
        return self.bench.ahead - len(self._begun)

    def _is_too_long(self, build: _Build) -> bool:
        return self._passed_s(build) > TOO_LONG * build.expected_s

    def _passed_s(self, build: _Build) -> float:
        return self.now() - build.begun_s

    @property
    def ready(self) -> list[str]:
        """Those that are built, or have failed, and are not yet taken."""
        return [spec for spec in self._begun if self.bench.is_built(spec)]

    def due(self, within_s: float) -> list[str]:
        """Those that are expected to be built after some seconds, and do not take much longer.

        Args:
            within_s: the seconds from now.
        """
        found: list[str] = []
        for spec, build in self._begun.items():
            passed_s, expected_s = self._passed_s(build), self.estimates.build_s(spec)
            if expected_s - within_s <= passed_s <= _OVERDUE * expected_s:
                found.append(spec)
        return found

    @property
    def specs(self) -> list[str]:
        """The configurations that are being built, or are built and not yet taken."""
        return [*self._begun]

    def begin(
        self, specs: Sequence[str], limits: Mapping[str, WarmCallLimit], left_s: float
    ) -> None:
        """Begin to build configurations; what is unlikely to win is then built to its end.

        Args:
            specs: no more than `free`.
            limits: how long their warm calls may take.
            left_s: seconds that are left for all that is tried.
        """
        self._unlikely |= {*filter(self.estimates.is_unlikely, specs)}
        self.bench.build_ahead(specs, limits)
        for spec in specs:
            expected_s = self.estimates.build_s(spec)
            limit_s = max(_PATIENCE * left_s, self.estimates.limit_s([spec], left_s))
            self._begun[spec] = _Build(self.now(), expected_s, limit_s)

    def take_ready(self, most: int) -> list[str]:
        """Configurations that are built, or have failed; they are opened as others are.

        Args:
            most: how many at most; those that are expected to be the fastest.
        """
        ready = sorted(self.ready, key=lambda spec: -self.estimates.speed(spec))[:most]
        self._has_ended |= bool(ready)
        for spec in ready:
            del self._begun[spec]
        return ready

    def end_late(self, is_over: bool) -> Iterator[tuple[str, str]]:
        """End builds that take too long; gives each with the reason.

        Args:
            is_over: whether no time is left, so that all of them are too late.
        """
        for spec, build in [*self._begun.items()]:
            passed_s = self._passed_s(build)
            if self.bench.is_built(spec):
                if is_over:
                    yield self._ended(spec, "it was ready, or had failed, when no time was left")
            elif passed_s > build.limit_s:
                self._has_ended, self.estimates.late[spec] = True, passed_s
                usual = f"{build.expected_s:.0f} s were expected"
                yield self._ended(spec, f"it was not built after {passed_s:.0f} s; {usual}")
            elif is_over:
                yield self._ended(spec, f"the time was over after {passed_s:.0f} s of building it")

    def _ended(self, spec: str, reason: str) -> tuple[str, str]:
        self.end([spec])
        return spec, reason

    def end_unlikely(self) -> None:
        """End builds of a dtype that has turned out to be inaccurate.

        They may begin again later, where nothing else is left to build.
        """
        unlikely = {one for one in self._begun if self.estimates.is_unlikely(one)} - self._unlikely
        self._unlikely |= unlikely
        self.end(unlikely)

    def end(self, specs: Iterable[str]) -> None:
        """End builds.

        Args:
            specs: of `specs`.
        """
        ended = [*specs]
        for spec in ended:
            del self._begun[spec]
        self.bench.close(ended)

    def wait(self) -> None:
        """Wait until one is ready, for a second at most."""
        self.bench.wait_built(self.now() + _WAIT_S)


def likely(family: Family, is_decided: Callable[[str], bool], count: int) -> list[str]:
    """What to build before anything was tried: the first dtype, in the layout for images.

    With further options, or else all that is offered; but with tuned kernels only where all are.

    Args:
        family: whose configurations are built.
        is_decided: whether a configuration needs no try.
        count: how many at most.
    """
    first = [spec for spec in family.first if not has_tuned_kernels(spec)] or family.first
    base = _likely_base(first)
    found = (base, *(family.refined(base, with_tuned=False) or first))
    return [spec for spec in dict.fromkeys(found) if not is_decided(spec)][:count]


def _likely_base(first: Sequence[str]) -> str:
    """The first configuration, in the layout for images where that is among them."""
    name, options = split_spec(first[0])
    in_layout = canonical(name, {**options, **CHANNELS_LAST})
    return in_layout if in_layout in first else first[0]
