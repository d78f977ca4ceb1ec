"""What measuring needs of a prepared backend, and every request that a worker process answers.

A request has one entry in `REQUESTS` and one method that answers it: of `session.Session`, or of
`server.Server` where it changes which session there is. Requests and answers travel as lines of
JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import attrs

from precisionbench.errors import WorkerError, one_line
from precisionbench.results import Passes, json_format
from precisionbench.results.evidence import Evidence, LayerError, Operation
from precisionbench.results.json_values import Json

# The remedy where something else than an answer has come from a worker.
STRAY_WRITES = (
    "the model, the backend or one of its libraries writes to a file descriptor that it did not "
    "open; use the launcher 'inline' to see where"
)
# The step of preparing in which the backend is called for the first time.
FIRST_CALL = "first call"


@attrs.frozen
class Opening:
    """What is known of a prepared backend once it is ready.

    Attributes:
        clock: name of the clock that times it.
        resolution_s: the smallest step of that clock.
        min_sample_s: the shortest sample that it times well.
        build_s: time that `prepare` took.
        first_call_s: time of the first call.
        warmup_calls: calls made after it, until no call compiled or allocated any more.
        call_s: about how long a call takes.
        flags: torch's settings while it runs.
        details: what the engine chose.
        labels: what keeps CUDA events from timing it.
        cores_busy: CPU seconds of this process for each second of a call; 0 where not known.
        batch_size: items that one call serves; None where it is not known.
        engine_operations: the layers of a call, where an engine reports them.
    """

    clock: str
    resolution_s: float
    min_sample_s: float
    build_s: float
    first_call_s: float
    warmup_calls: int
    call_s: float
    flags: Mapping[str, Json]
    details: Mapping[str, Json]
    labels: tuple[str, ...] = ()
    cores_busy: float = 0.0
    batch_size: int | None = None
    engine_operations: tuple[Operation, ...] = ()


@attrs.frozen
class KnownCalls:
    """What the first replica of a row has shown of its calls, which are those of each replica.

    A replica that is prepared while others are takes it over: its own calls are disturbed.

    Attributes:
        call_s: about how long a call takes.
        cores_busy: as in `Opening`.
        labels: as in `Opening`.
    """

    call_s: float
    cores_busy: float
    labels: Sequence[str]

    @classmethod
    def of(cls, opening: Opening) -> KnownCalls:
        """What an opened replica has shown."""
        return cls(opening.call_s, opening.cores_busy, opening.labels)


@attrs.frozen
class Closing:
    """What is known of a prepared backend once it has been closed.

    Attributes:
        warnings: what qualifies the row's result.
        log: what the plugin, the model and their libraries printed.
    """

    warnings: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


class PreparedBackend(Protocol):
    """A prepared backend that is timed block by block, in this process or in a worker.

    Attributes:
        opening: what is known of it since it is ready.
    """

    @property
    def opening(self) -> Opening:
        """What is known of it since it is ready."""
        ...

    @property
    def output(self) -> Mapping[str, Any]:
        """The tensors of the first call's output by their paths, on the CPU."""
        ...

    def outputs_of(self, inputs_path: str) -> Mapping[str, Any]:
        """Call once with other inputs of the same shapes; later calls have the earlier ones again.

        Args:
            inputs_path: of a file of `torch.save`: a list of tensors in the order of
                `Inputs.tensors()`.

        Returns:
            The output's tensors by their paths, on the CPU.
        """
        ...

    def block(self, samples: int, calls_per_sample: int, settle_calls: int) -> tuple[float, ...]:
        """Time one block; see `Timer.block`."""
        ...

    def check_steady(self) -> None:
        """Call once more, and warn where the output differs from that of the first call."""
        ...

    def passes(self, call_s: float, capture: bool, leave_out: Mapping[str, str]) -> Passes:
        """Measure everything about a call that is not its latency; see `results.passes.PASSES`."""
        ...

    def write_float64_reference(self, path: str) -> None:
        """Write what the model's layers compute in float64 to a file."""
        ...

    def layer_errors(self, float64_path: str) -> tuple[LayerError, ...]:
        """The error of each layer's output against float64's, in the order of the call."""
        ...

    def evidence(self, call_s: float, float64_path: str | None) -> Evidence:
        """Profile a call, and compare each layer's output with float64's."""
        ...

    def closing(self) -> Closing:
        """The warnings and the log, which are complete once it is closed."""
        ...


@attrs.frozen
class TimeLimits:
    """Seconds that a worker may take to answer, in addition to the calls that a request makes.

    Building an engine can take an hour; a block cannot.
    """

    start_s: float = 300.0
    prepare_s: float = 3600.0
    block_s: float = 60.0
    evidence_s: float = 60.0
    close_s: float = 10.0
    check_s: float = 60.0
    call_factor: float = 20.0  # a call may take this many times its estimated duration


LIMITS = TimeLimits()


@attrs.frozen
class Request:
    """A request that a worker process answers.

    Attributes:
        name: of the method that answers it; its parameters are JSON values.
        result: what the method returns.
        limit: the field of `TimeLimits` that applies.
        calls: calls of the model that answering takes at most, or computes them from the arguments.
        shown_as: its name in error messages, where it differs.
        answered_by_session: by a method of the session, else of the server.
    """

    name: str
    result: Any
    limit: str
    calls: int | Callable[..., int] = 0
    shown_as: str = ""
    answered_by_session: bool = True

    @property
    def title(self) -> str:
        """Its name in error messages."""
        return self.shown_as or self.name

    def limit_s(
        self,
        call_s: float = 0.0,
        arguments: Mapping[str, Any] = MappingProxyType({}),
        most_s: float = math.inf,
    ) -> float:
        """Seconds to wait for the answer; a worker that takes longer hangs.

        Args:
            call_s: about how long a call takes.
            arguments: of the request; its own `call_s` is the better one.
            most_s: the most that it may take in addition to its calls, where that is less.
        """
        calls = self.calls(**arguments) if callable(self.calls) else self.calls
        calls_s: float = calls * arguments.get("call_s", call_s)
        limit_s: float = min(getattr(LIMITS, self.limit), most_s)
        return limit_s + LIMITS.call_factor * calls_s

    def decoded(self, answer: Any) -> Any:
        """The result of which an answer is the JSON value.

        Args:
            answer: what `json_format.unstructured` made of the result.

        Raises:
            WorkerError: it is not, so something else than this library has answered.
        """
        if self.result is None:
            return None
        try:
            return json_format.structured(answer, self.result)
        except Exception as exc:  # cattrs raises groups and the constructors' own errors
            raise WorkerError(
                f"its worker process sent an invalid answer ({self.title}: {one_line(exc)})",
                STRAY_WRITES,
            ) from exc


def _calls_of_block(samples: int, calls_per_sample: int, settle_calls: int) -> int:
    return samples * calls_per_sample + settle_calls


REQUESTS: Mapping[str, Request] = {
    request.name: request
    for request in (
        Request("start", int, "start_s", answered_by_session=False),
        Request("describe", dict[str, Any], "check_s", answered_by_session=False),
        Request("check_available", None, "check_s", answered_by_session=False),
        Request("load", None, "prepare_s", answered_by_session=False),
        Request("open", Opening, "prepare_s", answered_by_session=False),
        Request("recalibrate", Opening, "prepare_s", answered_by_session=False),
        Request("close", Closing, "close_s", answered_by_session=False),
        Request("block", tuple[float, ...], "block_s", calls=_calls_of_block),
        Request("check_steady", None, "block_s", calls=1),
        Request("write_output", None, "block_s", shown_as="output"),
        Request("write_outputs_of", None, "block_s", calls=1, shown_as="outputs of other inputs"),
        Request("passes", Passes, "block_s", calls=100),
        Request("start_profiler", None, "evidence_s", shown_as="starting the profiler"),
        Request(
            "write_float64_reference", None, "evidence_s", calls=10, shown_as="float64 reference"
        ),
        Request(
            "layer_errors", tuple[LayerError, ...], "evidence_s", calls=1, shown_as="layer errors"
        ),
        Request("evidence", Evidence, "evidence_s", calls=10),
    )
}
