"""What to expect of configurations that were not tried: their speed, and how long they build."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from statistics import median

import attrs

from precisionbench.backends import discovery
from precisionbench.backends.rungs import Stage
from precisionbench.results.tuning import INACCURATE, Trial
from precisionbench.spec_syntax import split_spec
from precisionbench.statistics import Interval
from precisionbench.workflows.tuning.race import AS_FAST
from precisionbench.workflows.tuning.space import Family, Space, has_tuned_kernels

# Kernels that are chosen by timing them are built in so many times the usual time: 1.6 to 2.8 times
# with AOTInductor on two CPU cores; more than 1.6 times for Swin-T on an H200, which was not built
# after 80 s, at 4 to 9 s for each shape of a GEMM.
_TUNED = 3.0
_EAGER_S = 1.0  # to prepare what needs no compiler
# A small network is built in this share of the usual time.
_LEAST_PACE = 0.25
# Configurations are built side by side if none of them takes this many times as long as the most
# promising one, and none has less than this share of its gain for each second.
_ALIKE = 2.0
# The share of the leader's speed from which a configuration is tried before further options.
_PROMISING = 0.8
# A build takes too long from this many times the expected seconds on. It is ended then, unless it
# is within this share of the time that is left.
TOO_LONG, _SHARE_OF_REST = 2.5, 0.5
# The speed to expect where rows of the same dtype were not accurate enough.
_UNLIKELY = 0.1
# Where their errors are at most this many times the bound, those of another backend may keep it:
# compiled and frozen, float16 has 0.75 to 1.2 times the error of half (ten models on an H200).
_NEARLY, _NEARLY_SHARE = 1.3, 0.5
# Speeds of dtypes by that of the fastest, until some were timed: ResNet-50 on an H200, and on a CPU
# with AVX-512 BF16, where float16 has no instructions. They decide what is tried first.
PRIORS: Mapping[str, Mapping[str, float]] = {
    "cuda": {"float32": 0.4, "tf32": 0.6},
    "cpu": {"float32": 0.5, "float16": 0.2},
}
_SAME_DTYPES: Mapping[str, str] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@attrs.frozen
class Estimates:
    """Expectations by what was tried so far.

    Attributes:
        space: what may be tried.
        trials: what became of configurations.
        speeds: speed-ups over the reference, of all that were timed.
        start_s: gives the seconds that starting a process takes here, besides building it.
        priors: speeds of dtypes by that of the fastest; 1 where there is none.
        limit: the largest error, or drop of the metric, of an accurate configuration.
        late: seconds after which builds were ended that took too long, by spec.
    """

    space: Space
    trials: Mapping[str, Trial]
    speeds: Mapping[str, Interval]
    start_s: Callable[[], float]
    priors: Mapping[str, float] = attrs.field(factory=dict)
    limit: float = 0.0
    late: dict[str, float] = attrs.field(factory=dict)

    def build_s(self, spec: str) -> float:
        """Seconds that preparing will take.

        By others of the backend, with tuned kernels or without; else by how long it usually takes,
        and how much faster or slower than usual the backend, or else others, were built.

        Args:
            spec: of the space, or further options on one of it.
        """
        return self._build_s(spec, 1.0)

    def least_build_s(self, spec: str) -> float:
        """Seconds that must be left to try a configuration.

        Until something was built here, the network may be a small one.

        Args:
            spec: as for `build_s`.
        """
        return self._build_s(spec, _LEAST_PACE)

    def _build_s(self, spec: str, unknown_pace: float) -> float:
        known = self._built | self.late
        if alike := [seconds for one, seconds in known.items() if _kind(one) == _kind(spec)]:
            return median(alike)
        family = self.space.family_of(spec)
        if family is None or is_cheap(family):
            return _EAGER_S
        late = {one: seconds for one, seconds in self.late.items() if not has_tuned_kernels(one)}
        pace = self._pace_of(family, self._built | late) or self.pace or unknown_pace
        return family.typical_build_s * _times(spec) * pace

    @property
    def _built(self) -> dict[str, float]:
        return {name: trial.build_s for name, trial in self.trials.items() if trial.build_s}

    def _pace_of(self, family: Family, known: Mapping[str, float]) -> float | None:
        found = [
            seconds / (family.typical_build_s * _times(spec))
            for spec, seconds in known.items()
            if self.space.family_of(spec) is family
        ]
        return median(found) if found else None

    @property
    def pace(self) -> float | None:
        """How long builds took here, by their usual time; None where nothing was built."""
        families = [family for family in self.space.families if not is_cheap(family)]
        found = [pace for family in families if (pace := self._pace_of(family, self._built))]
        return median(found) if found else None

    def limit_s(self, specs: Iterable[str], left_s: float) -> float:
        """Seconds after which building some configurations side by side is ended.

        Args:
            specs: the configurations.
            left_s: seconds that are left for all that is tried.
        """
        expected_s = max(self.build_s(spec) for spec in specs) + self.start_s()
        return min(left_s, max(TOO_LONG * expected_s, _SHARE_OF_REST * left_s))

    def is_promising(self, spec: str, leader: str) -> bool:
        """Whether a configuration could become the leader, by rows of its dtype and layout.

        Args:
            spec: the configuration.
            leader: the fastest accurate one.
        """
        fastest = self.speeds[leader].value if leader in self.speeds else 1.0
        return self.speed(spec) >= _PROMISING * fastest

    def is_unlikely(self, spec: str) -> bool:
        """Whether it is expected to lose: rows of its dtype were inaccurate, or extremely slow.

        Args:
            spec: of the space.
        """
        return self.speed(spec) <= _UNLIKELY

    def speed(self, spec: str) -> float:
        """The largest speed of tried rows that share the dtype and the layout.

        Mixed rows and autocast do not count for others. Where no such row was tried, it is that of
        the dtype in another layout, or else follows from what is usual for the dtype; and little
        where rows of the dtype were not accurate enough, or half of it where they are nearly, and
        none of the backend was tried.

        Args:
            spec: of the space.
        """
        dtype, layout = _traits(spec)
        same = [name for name in self.trials if _traits(name)[0] == dtype]
        timed = [name for name in same if name in self.speeds]
        timed = [name for name in timed if _keeps_float32(spec) or not _keeps_float32(name)]
        alike = [name for name in timed if _traits(name)[1] == layout]
        if timed:
            return max(self.speeds[name].value for name in alike or timed)
        inaccurate = [self.trials[n] for n in same if self.trials[n].outcome == INACCURATE]
        usual = self._fastest_dtype() * self._prior(dtype)
        if not inaccurate or _keeps_float32(spec):
            return usual
        may_keep_it = all(
            self._is_near(one) and not _is_alike(one.spec, spec) for one in inaccurate
        )
        return _NEARLY_SHARE * usual if may_keep_it else _UNLIKELY

    def _is_near(self, trial: Trial) -> bool:
        """Whether an inaccurate configuration nearly keeps the bound."""
        return trial.loss is not None and trial.loss.value <= _NEARLY * self.limit

    def _fastest_dtype(self) -> float:
        """The speed of the fastest dtype, by what was timed; of a float32 reference at first."""
        known = {name: speed.value for name, speed in self.speeds.items()}
        scaled = [speed / self._prior(_traits(name)[0]) for name, speed in known.items()]
        return max(scaled, default=1.0 / self._prior("float32"))

    def _prior(self, dtype: str) -> float:
        return self.priors.get(dtype, 1.0)

    def fastest(self, specs: Iterable[str]) -> str:
        """The first of some configurations that is expected to be about as fast as any of them.

        Backends name the more accurate dtype first; empty where there are none.

        Args:
            specs: of the space.
        """
        speeds = {spec: self.speed(spec) for spec in specs}
        most = max(speeds.values(), default=0.0)
        return next((spec for spec, speed in speeds.items() if speed >= AS_FAST * most), "")

    def _gain(self, spec: str) -> float:
        """The speed to expect for each second of preparing."""
        return self.speed(spec) / (self.build_s(spec) + self.start_s())

    def together(self, specs: Sequence[str], slots: int) -> list[str]:
        """What to try next, side by side: the largest gains for each second.

        Args:
            specs: at least one.
            slots: how many at most.
        """
        gains = {spec: self._gain(spec) for spec in specs}
        best, *others = sorted(specs, key=lambda spec: -gains[spec])
        longest_s = _ALIKE * self.build_s(best) + self.start_s()
        alike = [
            spec
            for spec in others
            if _ALIKE * gains[spec] >= gains[best] and self.build_s(spec) <= longest_s
        ]
        return [best, *alike][:slots]


def is_cheap(family: Family) -> bool:
    """Whether nothing is built.

    Args:
        family: of the space.
    """
    return family.stage < Stage.COMPILER


def _kind(spec: str) -> tuple[str, bool]:
    """Configurations of a kind build about as long."""
    return split_spec(spec)[0], has_tuned_kernels(spec)


def _is_alike(spec: str, other: str) -> bool:
    """Whether two configurations are of the same backend, and so round alike."""
    return split_spec(spec)[0] == split_spec(other)[0]


def _times(spec: str) -> float:
    """How many times as long as others of its backend a configuration builds."""
    return _TUNED if has_tuned_kernels(spec) else 1.0


def _keeps_float32(spec: str) -> bool:
    """Whether a row of a 16-bit dtype computes what needs more in float32."""
    name, options = split_spec(spec)
    return name == "autocast" or "fp32_layers" in options


@cache
def _traits(spec: str) -> tuple[str, str]:
    """The dtype and the layout of a configuration, by which its speed is foreseen."""
    backend = discovery.make(spec)
    dtype = getattr(backend, "dtype", None) or "float32"
    if dtype == "float32":  # else `precision` is of the weights, or of float32
        dtype = str(getattr(backend, "precision", dtype))
    return _SAME_DTYPES.get(dtype, dtype), backend.memory_format or "contiguous"
