"""The options of a comparison, checked when they are made."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Any

import attrs

from precisionbench._internal.numbers import is_number, whole_number
from precisionbench.errors import SpecError
from precisionbench.measure.schedule import MAX_ROUNDS, MIN_ROUNDS
from precisionbench.results.json_values import Json, as_json
from precisionbench.results.latency import known_noise_floor
from precisionbench.results.passes import PASSES
from precisionbench.system import cpu_affinity

# Seconds of one backend, from warm-up to profile; building is not counted. On a GPU most
# comparisons end far earlier (measure/stopping.py). On a CPU a row must not take all day.
_ROW_BUDGET_S = {"cuda": 60.0}
_ROW_BUDGET_ELSEWHERE_S = 10.0
_MAX_BUDGET_S = 900.0  # for all rows, unless the user gives a budget
MOST_REPLICAS = 64
MOST_THREADS = 1024
# Run-to-run variance is large on a GPU; from three processes on it can be estimated
# (docs/between-processes.md).
_REPLICAS = {"cuda": 3}
_REPLICAS_ELSEWHERE = 2


@attrs.frozen
class _Effort:
    """What an effort sets where the user does not.

    Attributes:
        replicas: worker processes of each row; None depends on the device.
        evidence: whether rows are profiled.
        passes: whether memory, energy and device times are measured.
        budget_factor: how many times the usual budget.
        rounds: fields of `Schedule`.
    """

    replicas: int | None = None
    evidence: bool = True
    passes: bool = True
    budget_factor: float = 1.0
    rounds: Mapping[str, Any] = attrs.field(factory=dict)


_QUICK_ROUNDS = 6  # as many as an interval of one process each needs
EFFORTS: Mapping[str, _Effort] = {
    "quick": _Effort(
        replicas=1,
        evidence=False,
        passes=False,
        budget_factor=0.25,
        rounds={"min_rounds": _QUICK_ROUNDS, "max_rounds": _QUICK_ROUNDS},
    ),
    "normal": _Effort(),
    "thorough": _Effort(
        replicas=6, budget_factor=4.0, rounds={"min_rounds": MIN_ROUNDS, "until_clear": False}
    ),
}


def _check_launcher(_: object, __: object, launcher: object) -> None:
    if launcher not in ("process", "inline"):
        raise SpecError(f"there is no launcher {launcher!r}", "known: 'inline', 'process'")


def _check_effort(_: object, __: object, effort: object) -> None:
    if effort not in EFFORTS:
        known = ", ".join(map(repr, EFFORTS))
        raise SpecError(f"there is no effort {effort!r}", f"known: {known}")


def _check_seed(_: object, __: object, seed: Any) -> None:
    check_seed(seed)


def check_seed(seed: Any) -> None:
    """Raise unless a seed is None or a whole number.

    Args:
        seed: what the user gives.

    Raises:
        SpecError: it is neither.
    """
    if seed is not None and whole_number(seed, 0) is None:
        raise SpecError(f"seed is {seed!r}", "give a whole number from 0 to 2**63 - 1")


def _check_budget(_: object, __: object, budget_s: Any) -> None:
    check_budget(budget_s)


def check_budget(budget_s: Any, least_s: float = 0.0) -> None:
    """Raise unless a budget is None, or seconds that are enough.

    Args:
        budget_s: what the user gives.
        least_s: the smallest that is enough; 0 is any above 0.

    Raises:
        SpecError: it is something else.
    """
    if budget_s is None or (is_number(budget_s, least_s, math.inf) and budget_s > 0):
        return
    enough = f"from {least_s:g}" if least_s else "above 0"
    raise SpecError(f"budget_s is {budget_s!r}", f"give a number of seconds {enough}")


def _check_count(_: object, attribute: attrs.Attribute[Any], count: Any) -> None:
    number = whole_number(count, 1)
    if count is not None and (number is None or number > MOST_REPLICAS):
        raise SpecError(
            f"{attribute.name} is {count!r}", f"give a whole number up to {MOST_REPLICAS}"
        )


def _check_threads(_: object, __: object, count: Any) -> None:
    number = whole_number(count, 1)
    if count is not None and (number is None or number > MOST_THREADS):
        raise SpecError(f"threads is {count!r}", f"give a whole number from 1 to {MOST_THREADS}")


def _check_inline(options: Options, _: object, sessions: int) -> None:
    if options.launcher == "inline" and (sessions != 1 or options.replicas not in (None, 1)):
        raise SpecError(
            "the launcher 'inline' measures each backend once, in this process",
            "leave replicas and sessions out, or use the launcher 'process'",
        )


def _check_passes(_: object, __: object, passes: Any) -> None:
    if isinstance(passes, bool) or (
        isinstance(passes, tuple) and all(name in PASSES for name in passes)
    ):
        return
    raise SpecError(f"passes is {passes!r}", f"give True, False, or a tuple of {', '.join(PASSES)}")


def _check_noise_floor(_: object, __: object, value: Any) -> None:
    if value is not None and not is_number(value, 0, 1):
        raise SpecError(f"noise_floor is {value!r}", "give a standard deviation such as 0.0025")


def _check_shared_cores(options: Options, _: object, count: Any) -> None:
    if count is None or (whole_number(count, 0) == 0):
        return
    most = len(cpu_affinity.usable_cores())
    if options.launcher != "process" or not most:
        raise SpecError(
            "shared_cores requires worker processes on Linux", "leave it out, or use taskset"
        )
    if (number := whole_number(count, 1)) is None or number > most:
        raise SpecError(
            f"shared_cores is {count!r}", f"give a whole number from 0 to {most}, as there are here"
        )


@attrs.frozen(kw_only=True)
class Options:
    """How to measure the rows of a comparison; see `compare` for what each option does.

    Attributes:
        launcher: `process` or `inline`.
        seed: of weights, inputs and the order of blocks; None draws one.
        budget_s: seconds for all that is done with prepared rows, in all sessions; None depends on
            the device, the number of rows and the effort.
        replicas: worker processes of each row; None depends on the device and its memory.
        sessions: number of repetitions of the whole comparison, each with new processes.
        noise_floor: known run-to-run standard deviation of the log; None depends on the device.
        shared_cores: how many CPU cores all workers share while they are measured; 0 does not pin
            them; None depends on the device and on how many cores calls keep busy.
        evidence: profile each row's calls once all rows are measured.
        build_together: prepare all rows at the same time.
        passes: measure device, enqueue and wall time, transfers, memory, energy and a graph's
            replay after the rounds, on a GPU; or memory and the passes of these names alone.
        threads: of torch's operations on the CPU while rows are built and measured, and of engines
            that have threads of their own; None is what torch has.
        ranked: clear verdicts end the rounds only where those over the fastest row are clear, too.
        effort: `quick`, `normal` or `thorough`: how many rounds there are, and how long the budget
            is where it is not given. `Options.of` also sets `replicas`, `passes` and `evidence` by
            it.

    Raises:
        SpecError: an option has a value that cannot be used.
    """

    launcher: str = attrs.field(default="process", validator=_check_launcher)
    seed: int | None = attrs.field(default=None, validator=_check_seed)
    budget_s: float | None = attrs.field(default=None, validator=_check_budget)
    replicas: int | None = attrs.field(default=None, validator=_check_count)
    sessions: int = attrs.field(default=1, validator=[_check_count, _check_inline])
    noise_floor: float | None = attrs.field(default=None, validator=_check_noise_floor)
    shared_cores: int | None = attrs.field(default=None, validator=_check_shared_cores)
    evidence: bool = True
    build_together: bool = False
    passes: bool | tuple[str, ...] = attrs.field(default=True, validator=_check_passes)
    threads: int | None = attrs.field(default=None, validator=_check_threads)
    ranked: bool = False
    effort: str = attrs.field(default="normal", validator=_check_effort)

    @classmethod
    def of(
        cls,
        effort: str,
        *,
        evidence: bool | None = None,
        passes: bool | tuple[str, ...] | None = None,
        replicas: int | None = None,
        **given: Any,
    ) -> Options:
        """The options of an effort; given options override it.

        Args:
            effort: `quick`, `normal` or `thorough`.
            evidence: None is as the effort has it, as are the next two.
            passes: as for `Options`.
            replicas: as for `Options`.
            given: further options.

        Raises:
            SpecError: an option has a value that cannot be used.
        """
        _check_effort(None, None, effort)
        known, is_process = EFFORTS[effort], given.get("launcher", "process") == "process"
        return cls(
            effort=effort,
            evidence=known.evidence if evidence is None else evidence,
            passes=known.passes if passes is None else passes,
            replicas=known.replicas if replicas is None and is_process else replicas,
            **given,
        )

    @property
    def pass_names(self) -> tuple[str, ...]:
        """The passes that are wanted; names of `results.passes.PASSES`."""
        if isinstance(self.passes, tuple):
            return self.passes
        return PASSES if self.passes else ()

    @property
    def rounds(self) -> Mapping[str, Any]:
        """The fields of `Schedule` that depend on the effort."""
        return EFFORTS[self.effort].rounds

    @property
    def max_rounds(self) -> int:
        """The most rounds that there can be."""
        most: int = self.rounds.get("max_rounds", MAX_ROUNDS)
        return most

    def seed_or_random(self) -> int:
        """The seed, or a new random one where none was given."""
        return secrets.randbits(32) if self.seed is None else int(self.seed)

    def total_budget_s(self, device_type: str, rows: int) -> float:
        """Seconds for all that is done with prepared rows, in all sessions.

        Args:
            device_type: such as `cuda`.
            rows: how many there are.
        """
        if self.budget_s is not None:
            return self.budget_s
        usual_s = rows * _ROW_BUDGET_S.get(device_type, _ROW_BUDGET_ELSEWHERE_S)
        return min(_MAX_BUDGET_S, EFFORTS[self.effort].budget_factor * usual_s)

    def replicas_on(self, device_type: str) -> int:
        """Worker processes of each row, where nothing forbids so many.

        Args:
            device_type: such as `cuda`.
        """
        return self.replicas or _REPLICAS.get(device_type, _REPLICAS_ELSEWHERE)

    def noise_floor_on(self, device_type: str) -> float:
        """The known run-to-run standard deviation of the log; no interval is narrower.

        Args:
            device_type: such as `cuda`.
        """
        if self.noise_floor is not None:
            return float(self.noise_floor)
        return known_noise_floor(device_type)

    def as_record(self) -> dict[str, Json]:
        """The options as JSON values, for the result; some only where they are not the default."""
        known = {name: _plain(value) for name, value in attrs.asdict(self).items()}
        left_out = {"effort"} if self.effort == "normal" else set()
        left_out |= {"threads"} if self.threads is None else set()
        left_out |= set() if self.ranked else {"ranked"}
        return {name: value for name, value in known.items() if name not in left_out}

    def note(self) -> str:
        """What qualifies all rows of a quick comparison; empty for any other effort."""
        if self.effort != "quick":
            return ""
        left_out = [
            *([] if self.passes else ["memory, energy and device times"]),
            *([] if self.evidence else ["profiling"]),
        ]
        without = f", without {' or '.join(left_out)}" if left_out else ""
        return (
            f"the effort 'quick' gives a first estimate from at most {_QUICK_ROUNDS} rounds"
            f"{without}; "
            "use the effort 'normal' for reliable results"
        )


def _plain(value: object) -> Json:
    """Whole numbers of numpy become plain ones."""
    if isinstance(value, bool):
        return value
    number = whole_number(value, 0)
    return as_json(value) if number is None else number


@attrs.frozen
class Outcome:
    """How the rows were measured in the end.

    Attributes:
        schedule: `rounds`, or `restarts` where not all rows fit at once.
        shared_cores: how many cores all workers shared; None: all.
    """

    schedule: str
    shared_cores: int | None
