"""What was seen of a script while it ran: frozen data."""

from __future__ import annotations

import attrs


@attrs.frozen
class Place:
    """A line of a file, as a reader would open it.

    Attributes:
        file: its path, from the working directory where it lies below that.
        line: counted from 1.
    """

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@attrs.frozen
class Reading:
    """A clock was read by the script.

    Attributes:
        clock: such as `time.perf_counter`; `torch.cuda.Event` where an event was recorded.
        place: where.
        at_s: what it said; 0 for an event.
        pending: whether the device had work left; None where there was no device to ask.
    """

    clock: str
    place: Place
    at_s: float
    pending: bool | None


@attrs.frozen
class Calls:
    """Calls of one model, alike in everything told here, between two readings.

    Attributes:
        model: its place in `Observations.models`.
        place: where it was called.
        count: how many.
        total_s: what they took on the host.
        fresh: how many had inputs of a shape that this model had not had before.
        fresh_s: what those took on the host.
        training: whether the model was in training mode.
        gradients: whether the output kept what gradients need.
        autocast: whether torch's autocast was on.
        inputs: dtypes of the input tensors.
        outputs: dtypes of the output tensors.
    """

    model: int
    place: Place
    count: int
    total_s: float
    fresh: int
    fresh_s: float
    training: bool
    gradients: bool
    autocast: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@attrs.frozen
class Wait:
    """Something that copies between the host and the device, or waits for it.

    Attributes:
        kind: such as `.item()`.
        place: where.
        count: how often between two readings.
        inside: whether it was within the call of a model.
    """

    kind: str
    place: Place
    count: int
    inside: bool

    @property
    def uploads(self) -> bool:
        """Whether it brings something to the device; the others fetch something."""
        return "cuda" in self.kind


@attrs.frozen
class Segment:
    """What happened between one reading and the next.

    Attributes:
        calls: of models.
        waits: copies and waits.
        backwards: how often gradients were computed.
        own_s: what the observation itself took.
    """

    calls: tuple[Calls, ...] = ()
    waits: tuple[Wait, ...] = ()
    backwards: int = 0
    own_s: float = 0.0


@attrs.frozen
class Timing:
    """The script took the difference of two readings.

    Attributes:
        start: the first reading, by its place in `Observations.readings`.
        end: the second.
        read_s: the difference.
        device_s: how long the device was really busy with it, from the first reading (or the end
            of what was pending then) to the end of the work; None where not known.
        place: where the difference was taken.
    """

    start: int
    end: int
    read_s: float
    device_s: float | None
    place: Place


@attrs.frozen
class Model:
    """A model that was called, in one precision.

    Attributes:
        kind: its class.
        place: of its first call.
        parameters: elements by dtype.
        device: where its parameters are.
        patched: some functions of torch that were not torch's own when it first ran.
        patches: how many there were.
        patched_for: the first model that ran with these patches; None without patches.
        by_design: whether it was given to Apex with an optimization level that patches torch.
        mode_layers: layers that compute otherwise in training mode, such as batch norm.
        tf32: the kinds of operations in it that ran in TF32 by torch's settings and on this
            device, if they ran in float32 at all.
        tf32_asked: whether the script changed those settings itself.
        non_finite: share of infinite or NaN elements in its first output; None where not looked.
        constant_input: the value that all elements of its first input have; None where they
            differ or were not looked at.
    """

    kind: str
    place: Place
    parameters: dict[str, int]
    device: str
    patched: tuple[str, ...] = ()
    patches: int = 0
    patched_for: int | None = None
    by_design: bool = False
    mode_layers: int = 0
    tf32: tuple[str, ...] = ()
    tf32_asked: bool = False
    non_finite: float | None = None
    constant_input: float | None = None

    @property
    def is_float32(self) -> bool:
        """Whether all its floating-point parameters are float32, and it has some."""
        return set(self.parameters) == {"float32"}

    @property
    def on_gpu(self) -> bool:
        """Whether its parameters are on an NVIDIA GPU."""
        return self.device.startswith("cuda")


@attrs.frozen
class Ending:
    """How the script ended.

    Attributes:
        kind: `finished`, `exited`, `raised`, `timeout`, `interrupted` or `killed`.
        code: its exit status; None where it had none.
        says: the error in one line, or the signal; empty where there is none.
        place: where it raised.
    """

    kind: str
    code: int | None = None
    says: str = ""
    place: Place | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the script came to an end of its own choice."""
        return self.kind in ("finished", "exited")


@attrs.frozen
class Observations:
    """All that was seen.

    Attributes:
        models: that were called, in the order of their first calls.
        readings: of clocks by the script.
        segments: what happened before each reading, and after the last: one more than readings.
        timings: differences of readings that the script took.
        ending: how it ended.
        torch: its version; empty where the script never imported it.
        gpu: its name; empty where the script used none.
        left_out: readings that were no longer noted down, because there were too many.
        fault: the last error of the observation itself; empty where there was none.
    """

    models: tuple[Model, ...]
    readings: tuple[Reading, ...]
    segments: tuple[Segment, ...]
    timings: tuple[Timing, ...]
    ending: Ending
    torch: str = ""
    gpu: str = ""
    left_out: int = 0
    fault: str = ""


NOTHING = Observations((), (), (Segment(),), (), Ending("killed"))
