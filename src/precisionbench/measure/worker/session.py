"""A backend that is prepared in this process and ready to be timed block by block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import nn

from precisionbench._internal.output_capture import OutputCapture, silence
from precisionbench.backends import Inputs
from precisionbench.errors import (
    FOREIGN_ERRORS,
    WorkloadError,
    one_line,
)
from precisionbench.measure.worker.first_calls import (
    event_timing_labels,
    suitable_timer,
    warm_up,
)
from precisionbench.measure.worker.guards import (
    checked_inputs,
    executing,
)
from precisionbench.measure.worker.protocol import Closing, Opening
from precisionbench.model.workload import Workload
from precisionbench.probes.float64_reference import (
    layer_errors,
    layer_outputs,
    layer_outputs_in_float64,
    needs_every_item,
)
from precisionbench.probes.overflow import overflows_of
from precisionbench.probes.profiler import collect_evidence, start_profiler
from precisionbench.probes.run_all import take_passes
from precisionbench.results import Passes
from precisionbench.results.evidence import Evidence, LayerError
from precisionbench.torchtools.agreement import compare_tensors, cpu_copies, differs
from precisionbench.torchtools.global_state import autocast_off
from precisionbench.torchtools.refill import refilled
from precisionbench.torchtools.saving import save
from precisionbench.torchtools.timer import Call, CudaEventClock, Timer

# Two calls of the same half-precision model on the same inputs differ by less than this, whatever
# order its sums are taken in; float16 rounds to 5e-4.
_STEADY_ERROR = 1e-2
# A block ends early where calls take this many times as long as they did before, as they can on a
# busy machine; but not before these seconds.
_MOST_TIMES, _SHORT_BLOCK_S = 4, 0.5


@attrs.frozen
class Session:
    """A prepared backend in this process.

    Attributes:
        opening: what is known of it since it was opened.
        timer: times its calls.
        call: one forward pass.
        output: the tensors of the first call's output by their paths, on the CPU.
        output_capture: warnings of the row, and what the plugin printed, its cleanup included.
        events: the clock of the passes that need CUDA events; None without a GPU.
        workload: what it was prepared from.
        flush: empties the L2 cache before each sample; None where it stays warm.
        driver_bytes: device memory taken while it was opened; None where that is not known.
        module: the model behind the call, where the plugin gave one.
        inputs: the tensors that the call reads, where the plugin gave them.
    """

    opening: Opening
    timer: Timer
    call: Call
    output: Mapping[str, torch.Tensor]
    output_capture: OutputCapture
    events: CudaEventClock | None
    workload: Workload
    flush: Call | None = None
    driver_bytes: int | None = None
    module: nn.Module | None = None
    inputs: Inputs | None = None

    def block(self, samples: int, calls_per_sample: int, settle_calls: int) -> tuple[float, ...]:
        """Time one block; see `Timer.block`.

        Raises:
            ExecutionError: a call failed.
            MeasurementError: the clock did not move forward.
        """
        planned_s = (settle_calls + samples * calls_per_sample) * self.opening.call_s
        with executing(), silence():
            return self.timer.block(
                self.call,
                samples,
                calls_per_sample,
                settle_calls,
                flush=self.flush,
                limit_s=max(_SHORT_BLOCK_S, _MOST_TIMES * planned_s),
            )

    def check_steady(self) -> None:
        """Call once more, and warn where the output differs from that of the first call.

        Raises:
            ExecutionError: the call failed.
        """
        with executing(), silence():
            last = cpu_copies(self.call())
        agreement = compare_tensors(last, self.output)
        if differs(agreement, _STEADY_ERROR):
            self.output_capture.warn(
                "the last call's output differs from the first's: the model is random, keeps "
                "state, or changes its inputs; the numerical error is that of the first call"
            )

    def passes(self, call_s: float, capture: bool, leave_out: Mapping[str, str]) -> Passes:
        """Measure everything about a call that is not its latency, each in a pass of its own.

        Args:
            call_s: about how long a call takes, in seconds.
            capture: also try a CUDA graph; a capture that fails can spoil the process.
            leave_out: why passes are not taken, by their names of `results.passes.PASSES`.

        Raises:
            ExecutionError: a call failed.
        """
        if self.events is None:
            return Passes()
        inputs = [tensor for _, tensor in self.workload.inputs.tensors()]
        labels = self.opening.labels
        with executing(), silence():
            passes = take_passes(self.events, self.call, call_s, labels, capture, inputs, leave_out)
        return attrs.evolve(passes, driver_bytes=self.driver_bytes)

    def recalibrated(self) -> Session:
        """The same session with its clock and the length of a call measured again.

        It serves sessions that were opened while others were, which disturbs both. The driver's
        memory is then unknown: it includes what the others took.

        Raises:
            ExecutionError: a call failed.
        """
        timer = Timer(self.events) if self.events else self.timer
        with executing(), silence():
            found = warm_up(self.call, timer)
            labels = event_timing_labels(timer, self.call)
        timer = suitable_timer(timer, labels)
        found = attrs.evolve(found, warmup_calls=self.opening.warmup_calls + found.warmup_calls)
        opening = attrs.evolve(
            self.opening,
            labels=labels,
            **clock_fields(timer, cold=self.flush is not None),
            **attrs.asdict(found),
        )
        return attrs.evolve(self, opening=opening, timer=timer, driver_bytes=None)

    def start_profiler(self) -> None:
        """Start torch's profiler once, which takes seconds, so that `evidence` need not wait."""
        start_profiler(self.workload.device)

    def write_output(self, path: str) -> None:
        """Write the first output's tensors to a file.

        Args:
            path: of the file.

        Raises:
            OutputError: they cannot be written.
        """
        _write(self.output, path)

    def outputs_of(self, inputs_path: str) -> Mapping[str, Any]:
        """Call once with other inputs of the same shapes; later calls have the earlier ones again.

        Args:
            inputs_path: of a file of `torch.save`: a list of tensors in the order of
                `Inputs.tensors()`.

        Returns:
            The output's tensors by their paths, on the CPU.

        Raises:
            PreparationError: the plugin does not say which tensors its call reads.
            WorkloadError: the file cannot be read, or the inputs have other shapes.
            ExecutionError: the call failed.
        """
        read = checked_inputs(self.inputs, self.workload.inputs)
        tensors = _tensors_of(inputs_path)
        with executing(), silence(), refilled(read, tensors):
            return cpu_copies(self.call())

    def write_outputs_of(self, inputs_path: str, path: str) -> None:
        """Write what `outputs_of` gives to a file.

        Args:
            inputs_path: as for `outputs_of`.
            path: of the file to write.

        Raises:
            PrecisionBenchError: as `outputs_of`.
            OutputError: they cannot be written.
        """
        _write(self.outputs_of(inputs_path), path)

    def write_float64_reference(self, path: str) -> None:
        """Write what the model's layers compute in float64, for `evidence` and `layer_errors`.

        Args:
            path: of the file.

        Raises:
            ExecutionError: the model does not run in float64.
            PreparationError: torch is patched in this process.
            OutputError: the file cannot be written.
        """
        device_type = self.workload.device.type
        with executing(), silence():
            own = layer_outputs(self.call, self.module, self.workload.info.batch_size)
            every_item = needs_every_item(own)
            with autocast_off(device_type):  # the row's own, too
                save(layer_outputs_in_float64(self.workload, every_item=every_item), path)

    def layer_errors(self, float64_path: str) -> tuple[LayerError, ...]:
        """The error of each layer's output against float64's, in the order of the call.

        Args:
            float64_path: what `write_float64_reference` wrote.

        Raises:
            ExecutionError: the call failed.
        """
        with executing(), silence():
            return self._layer_errors(float64_path)

    def _layer_errors(self, float64_path: str) -> tuple[LayerError, ...]:
        expected = torch.load(float64_path, weights_only=False)
        return layer_errors(self.call, self.module, self.workload.info.batch_size, expected)

    def evidence(self, call_s: float, float64_path: str | None) -> Evidence:
        """Profile a call, and compare each layer's output with float64's.

        Args:
            call_s: about how long a call takes, in seconds.
            float64_path: what `write_float64_reference` wrote; None leaves the comparison out.

        Raises:
            ExecutionError: a call failed.
        """
        with executing(), silence():
            found = collect_evidence(self.call, call_s, self.workload, self.module)
            if float64_path is None:
                return found
            try:
                found = attrs.evolve(found, errors=self._layer_errors(float64_path))
                return attrs.evolve(found, overflows=overflows_of(self.call, self.module, found))
            except FOREIGN_ERRORS as exc:
                missing = "overflows" if found.errors else "errors"
                return attrs.evolve(found, unknown={**found.unknown, missing: one_line(exc)})

    def closing(self) -> Closing:
        """The warnings and the log, which are complete once the session is closed."""
        return Closing(self.output_capture.warnings(), self.output_capture.log())


def _write(output: Mapping[str, torch.Tensor], path: str) -> None:
    save({name: one.as_subclass(torch.Tensor) for name, one in output.items()}, path)


def _tensors_of(path: str) -> list[torch.Tensor]:
    """The tensors of a file; they are mapped from it, and no code in it is run."""
    try:
        return list(torch.load(path, mmap=True, map_location="cpu", weights_only=True))
    except FOREIGN_ERRORS as exc:
        raise WorkloadError(
            f"the inputs could not be read ({one_line(exc)})",
            "write a list of tensors by torch.save",
        ) from exc


def clock_fields(timer: Timer, cold: bool) -> dict[str, Any]:
    """The fields of `Opening` about the clock; with a cold cache each sample is a single call.

    Args:
        timer: has the clock.
        cold: whether the L2 cache is emptied before each call.
    """
    clock = timer.clock
    return {
        "clock": clock.name,
        "resolution_s": clock.resolution_s,
        "min_sample_s": 0.0 if cold else clock.min_sample_s,
    }
