"""The search: try what is cheap first, drop what cannot win, measure the finalists to the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from precisionbench.results import ComparisonData
from precisionbench.results.tuning import NOT_FINISHED, LeftOut, Trial
from precisionbench.spec_syntax import spec_text, split_spec
from precisionbench.workflows.tuning.bench import Bench
from precisionbench.workflows.tuning.builds import Builds, likely
from precisionbench.workflows.tuning.estimates import Estimates, is_cheap
from precisionbench.workflows.tuning.finals import Finals
from precisionbench.workflows.tuning.race import AS_FAST, Memory, Race
from precisionbench.workflows.tuning.screening import Screening, mixed
from precisionbench.workflows.tuning.space import Family, Space
from precisionbench.workflows.tuning.status import Status

# Further options are tried on a family whose fastest member is at least this fast, by the leader's.
_WORTH_REFINING = 0.8
_CHEAP_SLOTS = 6
# Launches may limit a model whose fastest row without a compiler has less than this many times the
# reference's speed. Rows are alike then within this factor: noise of the host is of that size.
_LAUNCH_BOUND, _ALIKE = 1.5, 1.5
_MOST_GRAPHS = 4  # of a family
# How many of the fastest configurations are tried at other batch sizes, and the share of the budget
# that is kept for it.
_AT_OTHER_BATCHES, _BATCHES_SHARE = 2, 0.2
# What may win is waited for when the end should begin, for this share of the budget at most.
_WAIT_SHARE = 0.1
_REPLACED = "half with the same options is accurate enough, and converts less"


@attrs.define
class Search:
    """One search.

    Attributes:
        space: what may be tried.
        bench: prepares, judges and times.
        memory: of earlier runs.
        reference: spec of the row that speed-ups are over; prepared before it runs.
        end_s: when it has to end, by `now`.
        budget_s: seconds that it has in all.
        final_passes: measure memory and energy at the end.
        tell: called with a `Status` at each step.
        now: a clock, in seconds.
        priors: as for `Estimates`.
        left_out: what was not tried because it could not win.
        ended_by: `finished`, `budget` or `interrupted`.
    """

    space: Space
    bench: Bench
    memory: Memory
    reference: str
    end_s: float
    budget_s: float
    final_passes: bool = False
    tell: Callable[[Status], object] = lambda _: None
    now: Callable[[], float] = time.monotonic
    priors: Mapping[str, float] = attrs.field(factory=dict)
    left_out: list[LeftOut] = attrs.field(factory=list, init=False)
    ended_by: str = attrs.field(default="finished", init=False)
    _race: Race = attrs.field(init=False)
    _estimates: Estimates = attrs.field(init=False)
    _screening: Screening = attrs.field(init=False)
    _builds: Builds = attrs.field(init=False)
    _finals: Finals = attrs.field(init=False)
    _kept_s: float = attrs.field(init=False)
    _known: set[str] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._race = race = Race(self.reference, self.memory, self.bench.close, self.space.holds)
        known = self.space, race.trials, race.speeds
        self._estimates = Estimates(*known, self._start_s, self.priors, self.bench.limit)
        self._builds = Builds(self.bench, self._estimates, self.now)
        tried_by = self.bench, race, self._estimates, self._builds
        self._screening = Screening(*tried_by, now=self.now, tell=self._tell)
        times = self.end_s, self.budget_s, self.now
        self._finals = Finals(self.bench, race, self._screening, *times, self.final_passes)
        self._kept_s = _BATCHES_SHARE * self.budget_s if self.space.batch_sizes else 0.0
        self._known |= {self.reference, *(s for f in self.space.families for s in f.first)}

    @property
    def trials(self) -> dict[str, Trial]:
        """What became of each configuration, in the order in which they were tried."""
        return self._race.trials

    @property
    def choice(self) -> tuple[str, str]:
        """The configuration that it chooses, and why."""
        return self._race.choice

    @property
    def notes(self) -> list[str]:
        """What qualifies the result."""
        return self._finals.notes

    @property
    def data(self) -> ComparisonData | None:
        """The last rounds in which the leader and the reference were measured."""
        return self._race.data

    def begin_builds(self) -> None:
        """Begin the builds that are most likely to win, which take longest, without the reference.

        It need not be prepared yet, so there is no limit to how long their calls take.
        """
        left_s, start_s = self._left_s(), self.bench.start_s
        build_s = self._estimates.least_build_s
        if able := [spec for spec in self._likely() if build_s(spec) + start_s <= left_s]:
            self._known |= {*able}
            self._builds.begin(able, {}, left_s)

    def _likely(self) -> list[str]:
        family = next(iter(self._built), None)
        if family is None:
            return []
        is_decided = self._race.is_known
        return likely(family, lambda s: s == self.reference or is_decided(s), self.bench.ahead)

    def end_builds(self) -> bool:
        """End all builds, so that something else has their memory; whether there were any."""
        ended = self._builds.specs
        self._builds.end(ended)
        return bool(ended)

    def run(self) -> None:
        """Search until everything is decided, or the time or the user ends it.

        Raises:
            KeyboardInterrupt: a Ctrl-C before anything was measured.
            PrecisionBenchError: the reference could not be measured.
        """
        try:
            self._screening.judge_reference()
            if not self._builds.specs:
                self._begin(self._able(self._likely()))
            while self._try_cheap() and not self._builds.ready:
                self._replace_unlikely()
            self._search(self._built)
            self._search(self._cheap)
            for family in self.space.families:
                self._explain_unrefined(family)
            self._try_batch_sizes()
            self._finish()
        except KeyboardInterrupt:
            self.ended_by = "interrupted"
            if self.data is None:
                raise
            for spec in sorted(self._known - self.trials.keys()):
                self._race.give_up(spec, "the search was interrupted before it was tried")

    def _start_s(self) -> float:
        return self.bench.start_s

    # --- what to try --------------------------------------------------------------------------

    @property
    def _cheap(self) -> list[Family]:
        return [family for family in self.space.families if is_cheap(family)]

    @property
    def _built(self) -> list[Family]:
        return [family for family in self.space.families if not is_cheap(family)]

    def _try_cheap(self) -> bool:
        """Try what is promising and needs no build; false where there is nothing, or no time."""
        undecided = [spec for spec in self._undecided(self._cheap) if spec not in self._builds]
        graphs = {spec for family in self._cheap for spec in self._graphs(family)}
        todo = [spec for spec in undecided if spec in graphs or self._is_promising(spec)]
        return bool(todo) and self._try_some(todo)

    def _search(self, families: Sequence[Family]) -> None:
        """Try what families offer, and further options of those that are fast."""
        while todo := self._undecided(families):
            if not self._try_some(todo, self._last_builds(families)):
                return

    def _is_promising(self, spec: str) -> bool:
        return self._estimates.is_promising(spec, self._race.leader)

    def _undecided(self, families: Sequence[Family]) -> list[str]:
        """What can be tried now; further options once nothing else of the backend is promising."""
        todo: list[str] = []
        for family in families:
            basic = [spec for spec in self._basic(family) if not self._race.is_decided(spec)]
            is_waiting = any(map(self._is_promising, basic))
            todo += basic if is_waiting else [*basic, *self._refined(family)]
            todo += [spec for spec in self._builds.specs if self.space.family_of(spec) is family]
        undecided = [spec for spec in dict.fromkeys(todo) if not self._race.is_decided(spec)]
        return [spec for spec in undecided if not self._is_replaced(spec)]

    def _is_replaced(self, spec: str) -> bool:
        """Whether autocast needs no try, because half with the same options does as well."""
        name, options = split_spec(spec)
        twin = spec_text("half", options)
        family = self.space.family_of(twin)
        if name != "autocast" or family is None or twin not in family.first:
            return False
        is_decided = self._race.is_decided(twin)
        is_accurate = is_decided and self.trials[twin].is_accurate
        if is_accurate and spec not in (one.what for one in self.left_out):
            self.left_out.append(LeftOut(spec, _REPLACED))
        return is_accurate or not is_decided

    def _last_builds(self, families: Sequence[Family]) -> list[str]:
        """What to build where there is time for one round of builds only.

        Further options are then built beside the most promising configuration, not after it.
        """
        family = families[0] if families else None
        if family is None or is_cheap(family) or any(s in self._race.speeds for s in family.first):
            return []
        first = [spec for spec in family.first if not self._race.is_decided(spec)]
        base = self._estimates.fastest(first)
        if not base or self._left_s() >= self._two_builds_s(base):
            return []
        specs = (base, *family.refined(base, with_tuned=False))
        return [spec for spec in specs if not self._race.is_decided(spec)]

    def _two_builds_s(self, spec: str) -> float:
        """Seconds to build configurations like this one, further options of it, and finalists."""
        build_s = self._estimates.build_s(spec)
        builds_s = 2 * build_s + self._finals.again_s(build_s)
        return builds_s + 2 * (self.bench.start_s + self._screening.needed_s(self._slots(spec)))

    def _basic(self, family: Family) -> list[str]:
        """The configurations of a family without further options, mixed ones among them."""
        decided = [spec for spec in family.first if self._race.is_decided(spec)]
        found = family.allowed(mixed(decided, self.trials))
        return list(dict.fromkeys([*family.first, *found]))

    def _refined(self, family: Family) -> Sequence[str]:
        """The fastest accurate configuration of a fast family with each further option."""
        fastest = self._race.fastest_of(self._basic(family))
        is_fast = fastest and self._share(fastest) >= _WORTH_REFINING
        refined = family.refined(fastest) if is_fast else ()
        return list(dict.fromkeys([*refined, *self._graphs(family)]))

    def _graphs(self, family: Family) -> list[str]:
        """CUDA graphs of configurations that may be the fastest of a family in a graph.

        Where launches limit a model, precision and layout change little, and which of them is the
        fastest shows only in a graph. Elsewhere those that may still be the fastest of all, or are
        about as fast as the fastest of the family. Where 16 bits are accurate, float32 is left out.
        """
        accurate = [spec for spec in self._basic(family) if self._is_accurate(spec)]
        if not is_cheap(family) or not accurate or self._is_outdone(family):
            return []
        fastest = sorted(accurate, key=lambda spec: -self._race.speed(spec).value)
        most = self._race.speed(fastest[0]).value
        is_bound = most <= _LAUNCH_BOUND
        if not is_bound and self._share(fastest[0]) < _WORTH_REFINING:
            return []
        least = most / _ALIKE if is_bound else most * AS_FAST
        can_win = {*self._race.racing}
        alike = [s for s in fastest if s in can_win or self._race.speed(s).value >= least]
        refined = [one for spec in alike[:_MOST_GRAPHS] for one in family.refined(spec)]
        return [one for one in refined if "cuda_graph" in split_spec(one)[1]]

    def _is_accurate(self, spec: str) -> bool:
        """Whether a configuration was timed, which only accurate ones are."""
        return spec in self._race.speeds and self.trials[spec].is_accurate

    def _is_outdone(self, family: Family) -> bool:
        """Whether it is that of the reference, and another one without a compiler is accurate."""
        if family is not self.space.family_of(self.reference):
            return False
        others = [one for one in self._cheap if one is not family]
        return any(self._is_accurate(spec) for one in others for spec in one.first)

    def _share(self, spec: str) -> float:
        """The speed of a configuration by that of the leader."""
        return self._race.speed(spec).value / self._race.speed(self._race.leader).value

    def _explain_unrefined(self, family: Family) -> None:
        """Say why further options of a family were not tried, where none of them was."""
        fastest = self._race.fastest_of(self._basic(family))
        if any(spec in self.trials for spec in family.refined(fastest or family.first[0])):
            return
        if fastest and family.then and (share := self._share(fastest)) < _WORTH_REFINING:
            reason = f"its fastest configuration has {share:.2f}x the speed of {self._race.leader}"
            self.left_out.append(
                LeftOut(f"{family.backend} with {', '.join(family.further)}", reason)
            )

    def _try_batch_sizes(self) -> None:
        """Try the fastest configurations at other batch sizes, where these are asked for."""
        self._kept_s = 0.0
        fastest = list(dict.fromkeys([self._race.leader, *self._race.others]))[:_AT_OTHER_BATCHES]
        specs = [s for spec in fastest for s in self.space.at_batches(spec)]
        while todo := [spec for spec in specs if not self._race.is_decided(spec)]:
            if not self._try_some(todo):
                return

    # --- trying -------------------------------------------------------------------------------

    def _try_some(self, todo: Sequence[str], preferred: Sequence[str] = ()) -> bool:
        """Try the most promising configurations for which there is time; false where none is.

        Args:
            todo: all that can be tried now.
            preferred: what is tried before others.
        """
        todo = list(dict.fromkeys([*preferred, *todo]))
        self._known |= {*todo}
        if self.bench.ahead and any(map(self._needs_building, todo)):
            return self._try_built(todo, preferred)
        if able := self._able(todo):
            slots = min(self._slots(able[0]), self._most(able[0]))
            self._screening.run(self._chosen(able, preferred, slots), self._left_s())
            return True
        self._give_up(todo)
        return False

    def _able(self, specs: Iterable[str]) -> list[str]:
        """Those of some configurations for which there is time."""
        return [spec for spec in specs if self._needed_s(spec) <= self._left_s()]

    def _chosen(self, able: Sequence[str], preferred: Iterable[str], slots: int) -> list[str]:
        """What to prepare side by side: what is preferred, then what is most promising."""
        others = self._estimates.together(able, slots)
        some = dict.fromkeys([*(spec for spec in preferred if spec in able), *others])
        return list(some)[:slots]

    def _try_built(self, todo: Sequence[str], preferred: Sequence[str]) -> bool:
        """Try what is built by now, and go on building; false where there is time for neither."""
        self._builds.end_unlikely()
        most, left_s = self._most_ready()
        ready = self._builds.take_ready(self._most_judged(most, left_s))
        for spec, reason in self._builds.end_late(is_over=left_s <= self._judging_s()):
            self._race.give_up(spec, reason)
        if ready:  # before further builds begin: these show how long builds take here
            self._screening.run(ready, left_s)
            return True
        undecided = [spec for spec in todo if not self._race.is_decided(spec)]
        self._begin_more(undecided, preferred)
        if not self._builds.specs:
            self._give_up(undecided)
            return False
        if not self._try_cheap():
            self._tell("building " + ", ".join(self._builds.specs))
            self._builds.wait()
        return True

    def _replace_unlikely(self) -> None:
        """Begin others, beside what is tried, where those begun are of an inaccurate dtype."""
        self._builds.end_unlikely()
        if not self._builds.specs:
            preferred = self._last_builds(self._built)
            self._begin_more([*preferred, *self._undecided(self._built)], preferred)

    def _begin_more(self, specs: Iterable[str], preferred: Sequence[str]) -> None:
        """Begin to build the most promising configurations for which there are time and room."""
        able = self._able(spec for spec in dict.fromkeys(specs) if spec not in self._builds)
        if able and (free := self._builds.free) > 0:
            self._begin(self._chosen(able, preferred, free))

    def _most_ready(self) -> tuple[int, float]:
        """How many that are built can be tried, and seconds that are left for them.

        For what may win, less time is kept for the rounds of the end, and none for further
        processes of the finalists: a wider interval is better than a slower winner. What may win
        and is built soon is waited for.
        """
        left_s = self._left_s()
        if left_s > self._judging_s():
            return self.bench.ahead, left_s
        least_s = self._finals.left_s(finalists=1, again=False) - self._kept_s
        if promising := [*filter(self._is_promising, self._builds.ready)]:
            return len(promising), least_s
        wait_s = min(least_s, left_s + _WAIT_SHARE * self.budget_s)
        due = self._builds.due(wait_s - self._judging_s())
        return self.bench.ahead, wait_s if any(map(self._is_promising, due)) else left_s

    def _begin(self, specs: Sequence[str]) -> None:
        """Begin to build configurations, no more than there is room for."""
        if specs:
            self._known |= {*specs}
            limits = self._screening.call_limits(specs, len(specs))
            self._builds.begin(specs, limits, self._left_s())

    def _needs_building(self, spec: str) -> bool:
        """Whether preparing it takes long enough to do something else meanwhile."""
        family = self.space.family_of(spec)
        return family is not None and not is_cheap(family)

    def _give_up(self, specs: Sequence[str]) -> None:
        left_s = max(0.0, self._left_s())
        for spec in specs:
            needed = math.ceil(self._needed_s(spec))  # rounded apart, so that they differ
            reason = f"it takes about {needed} s, and {math.floor(left_s)} s were left for it"
            self._race.give_up(spec, reason)

    def _needed_s(self, spec: str) -> float:
        return self._estimates.least_build_s(spec) + self.bench.start_s + self._judging_s()

    def _judging_s(self) -> float:
        """Seconds to judge and time one configuration that is prepared."""
        return self._screening.needed_s(1)

    def _most(self, spec: str) -> int:
        """How many configurations like this one can be built, judged and timed in what is left."""
        spare_s = self._left_s() - self._estimates.least_build_s(spec) - self.bench.start_s
        if building := len(self._builds.specs):  # these are judged and timed, too
            spare_s -= self._screening.needed_s(building)
        return max(1, self._most_judged(_CHEAP_SLOTS, spare_s))

    def _most_judged(self, most: int, spare_s: float) -> int:
        """How many configurations, built already, can be judged and timed in some seconds."""
        count = 0
        while count < most and self._screening.needed_s(count + 1) <= spare_s:
            count += 1
        return count

    def _slots(self, spec: str) -> int:
        """How many configurations like this one are prepared side by side."""
        family = self.space.family_of(spec)
        return _CHEAP_SLOTS if family and is_cheap(family) else self.bench.slots

    # --- the end ------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Measure the finalists, with nothing else going on."""
        self.end_builds()
        is_cut = any(trial.outcome == NOT_FINISHED for trial in self.trials.values())
        if self._screening.still_lacks_layers() or is_cut:
            self.ended_by = "budget"
        self._finals.run()
        if self._finals.has_dropped_best:  # the next run tries what had lost to it
            self.ended_by = "budget"

    def _left_s(self) -> float:
        """Seconds that are left to try further configurations."""
        return self._finals.left_s() - self._kept_s

    def _tell(self, step: str) -> None:
        leader = self._race.leader
        speed = self._race.speeds.get(leader)
        left_s = max(0.0, self.end_s - self.now())
        total = len({*self._known, *self.trials})
        self.tell(Status(step, len(self.trials), total, leader, speed, left_s))
