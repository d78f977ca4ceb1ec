"""What is observed of a script while it runs: frozen data."""

from __future__ import annotations

import attrs

from precisionbench.display import Shown

LOADING = "DataLoader"  # the kind of work of the host, and of child processes, that loads data


@attrs.frozen(repr=False)
class Place(Shown):
    """A line of a file.

    Attributes:
        file: its path, relative to the working directory if it is below that.
        line: counted from 1.
    """

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@attrs.frozen
class LoopValue:
    """A variable of a loop, which may label what is timed in it.

    Attributes:
        name: of the variable.
        text: its value: a text, a dtype such as `float32`, or `True` or `False`.
    """

    name: str
    text: str


@attrs.frozen
class Reading:
    """One reading of a clock by the script.

    Attributes:
        clock: such as `time.perf_counter`; `torch.cuda.Event` for a recorded event.
        place: the line of the script.
        at_s: the value read, in seconds; 0 for an event.
        pending: whether the device had work pending; None if no device was used.
        thread: number of the thread that read it; 0 is the first that did anything.
        pending_s: how long the device still needed for it; None if unknown.
        callers: the lines of the script that led to it, the innermost first.
        loop_values: variables of the loops that these lines are in.
        torch_threads: CPU threads that torch was set to use; 0 if unknown.
        is_converted: whether the script made a plain whole number of it, which is not followed.
    """

    clock: str
    place: Place
    at_s: float
    pending: bool | None
    thread: int = 0
    pending_s: float | None = None
    callers: tuple[Place, ...] = ()
    loop_values: tuple[LoopValue, ...] = ()
    torch_threads: int = 0
    is_converted: bool = False


@attrs.frozen
class Calls:
    """Calls of one model between two readings that agree in all fields but counts and times.

    Attributes:
        model: index into `Observations.models`.
        place: the line of the script that called it.
        count: number of calls; 0 if unknown, as for operations in a loop of unknown length.
        total_s: host time of all calls; 0 for operations, which are not timed one by one.
        new_shape_count: number of calls with an input shape that was new to this model.
        new_shape_s: host time of those.
        training: whether the model was in training mode.
        gradients: whether the output requires gradients.
        autocast: whether torch's autocast was on.
        inputs: dtypes of the input tensors.
        outputs: dtypes of the output tensors.
        thread: number of the thread that made the calls.
        compile_count: number of calls in which `torch.compile` compiled a graph.
        compile_s: host time of those.
        error: what they raised, in one line; empty for calls that returned.
    """

    model: int
    place: Place
    count: int
    total_s: float
    new_shape_count: int
    new_shape_s: float
    training: bool
    gradients: bool
    autocast: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    thread: int = 0
    compile_count: int = 0
    compile_s: float = 0.0
    error: str = ""


@attrs.frozen
class HostWork:
    """Work of the host outside of models.

    Attributes:
        kind: such as `torch.tensor()`, `DataLoader` or `time.sleep()`.
        place: the line of the script.
        count: number of occurrences between two readings.
        total_s: time of all of them in which the device had nothing to do.
    """

    kind: str
    place: Place
    count: int
    total_s: float


@attrs.frozen
class Wait:
    """A copy between host and device, or a wait for the device.

    Attributes:
        kind: such as `.item()`.
        place: the line of the script.
        count: number of occurrences between two readings.
        inside: whether it happened inside a call of a model.
        thread: number of the thread.
    """

    kind: str
    place: Place
    count: int
    inside: bool
    thread: int = 0

    @property
    def uploads(self) -> bool:
        """Whether it copies to the device; the others copy to the host."""
        return "cuda" in self.kind


@attrs.frozen
class Span:
    """What happened between one reading and the next.

    Attributes:
        calls: calls of models.
        waits: copies and waits.
        backward_count: number of backward passes.
        overhead_s: time that the observation itself took.
        host_work: conversions, copies, data loading and pauses.
    """

    calls: tuple[Calls, ...] = ()
    waits: tuple[Wait, ...] = ()
    backward_count: int = 0
    overhead_s: float = 0.0
    host_work: tuple[HostWork, ...] = ()


@attrs.frozen
class Timing:
    """A difference of two readings that the script computed.

    Attributes:
        start: index of the first reading in `Observations.readings`.
        end: index of the second.
        read_s: the difference.
        device_s: time the device needed, from the first reading (or the end of the work pending
            then) to the end of the work; None if unknown.
        place: the line that computed the difference.
        is_result: whether it is a result, and no warm-up of a tool such as
            `torch.utils.benchmark`.
    """

    start: int
    end: int
    read_s: float
    device_s: float | None
    place: Place
    is_result: bool = True


@attrs.frozen
class ShownRate:
    """A rate that the script computed from timings of one model, and showed.

    Attributes:
        place: the line that showed it.
        formed: the line that divided by the time.
        model: index into `Observations.models`.
        calls: timed calls of the model.
        per_call: items for each of these calls, if the rate is one of items per second.
        batches: values that the script's variables for a batch size had at the division.
    """

    place: Place
    formed: Place
    model: int
    calls: int
    per_call: float
    batches: tuple[int, ...]


@attrs.frozen
class Model:
    """A model that was called, in one precision; or a function, or operations of torch.

    Attributes:
        class_name: its class, the name of the function, or the names of the operations.
        place: the line of its first call.
        parameters: number of elements by dtype.
        device: the device of its parameters.
        patched_names: some functions of torch that were patched when it first ran.
        patch_count: number of functions of torch that were patched then.
        patch_owner: index of the first model that ran with these patches; None without patches.
        patched_by_apex: whether it was given to Apex with an optimization level that patches torch.
        mode_dependent_layers: number of layers that compute differently in training mode, such as
            batch norm.
        tf32_operations: kinds of its operations that torch's settings and the device run in TF32
            if they run in float32 at all.
        tf32_requested: whether the script changed those settings itself.
        non_finite_share: share of infinite or NaN elements in its first output; None if unknown.
        constant_input: the value of all elements of its first input; None if they differ or are
            unknown.
        kind: `module`, `compiled function`, `scripted function`, `CUDA graph`, or `operations`.
        shape_dependent: what may be chosen, tuned or compiled anew for each input shape.
        denormal_share: largest share of denormal numbers in one of its first inputs on a CPU; 0
            where the script has them flushed to zero.
        input_shapes: shapes of the inputs that it was given, at most 8.
    """

    class_name: str
    place: Place
    parameters: dict[str, int]
    device: str
    patched_names: tuple[str, ...] = ()
    patch_count: int = 0
    patch_owner: int | None = None
    patched_by_apex: bool = False
    mode_dependent_layers: int = 0
    tf32_operations: tuple[str, ...] = ()
    tf32_requested: bool = False
    non_finite_share: float | None = None
    constant_input: float | None = None
    kind: str = "module"
    shape_dependent: tuple[str, ...] = ()
    denormal_share: float = 0.0
    input_shapes: tuple[str, ...] = ()

    @property
    def is_float32(self) -> bool:
        """Whether it has parameters and all of them are float32."""
        return set(self.parameters) == {"float32"}


@attrs.frozen(repr=False)
class Ending(Shown):
    """How the script ended.

    Attributes:
        kind: `finished`, `exited`, `raised`, `timeout`, `interrupted` or `killed`.
        code: its exit status; None if it has none.
        says: the error in one line, or the signal; empty if there is none.
        place: the line that raised.
    """

    kind: str
    code: int | None = None
    says: str = ""
    place: Place | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the script ended by itself, without an error."""
        return self.kind in ("finished", "exited")


@attrs.frozen
class ChildProcesses:
    """Processes that the script started in one way; what they do is not observed.

    Attributes:
        kind: `multiprocessing`, `DataLoader`, `subprocess` or `os.fork`.
        place: the line of the script that started the first.
        count: number of processes.
        at_once: the most that ran at the same time.
        threads_each: CPU threads that torch uses by default in each; None if unknown.
        fixed_threads: whether this number holds whatever the script sets in the child.
    """

    kind: str
    place: Place
    count: int
    at_once: int
    threads_each: int | None
    fixed_threads: bool = False


@attrs.frozen
class Observations:
    """Everything observed in one run of a script.

    Attributes:
        models: the models called, in the order of their first calls.
        readings: readings of clocks by the script.
        spans: what happened before each reading and after the last: one more than `readings`.
        timings: differences of readings that the script computed.
        ending: how the script ended.
        torch: torch's version; empty if the script never imported it.
        gpu: name of the GPU; empty if the script used none.
        dropped_readings: number of readings beyond the limit, which are not in `readings`.
        observer_error: the last error of the observation itself; empty if there was none.
        processes: processes that the script started.
        children_cpu_s: CPU time that those took which had ended, and those that they started.
        cores: number of CPU cores that the script may use; 0 if unknown.
        torch_threads: most threads that torch used in one operation on the CPU; 0 if unknown.
        shown_rates: rates that the script computed from its timings, and showed.
    """

    models: tuple[Model, ...]
    readings: tuple[Reading, ...]
    spans: tuple[Span, ...]
    timings: tuple[Timing, ...]
    ending: Ending
    torch: str = ""
    gpu: str = ""
    dropped_readings: int = 0
    observer_error: str = ""
    processes: tuple[ChildProcesses, ...] = ()
    children_cpu_s: float = 0.0
    cores: int = 0
    torch_threads: int = 0
    shown_rates: tuple[ShownRate, ...] = ()


NO_OBSERVATIONS = Observations((), (), (Span(),), (), Ending("killed"))
