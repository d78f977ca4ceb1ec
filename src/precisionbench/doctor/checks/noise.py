"""Checks of noise: run-to-run variance, and the differences that can be detected."""

from __future__ import annotations

from collections.abc import Iterator

from precisionbench.doctor.checks.base import MachineCheck, State
from precisionbench.doctor.readings import NoiseTrial, Readings
from precisionbench.report.formatting import significant
from precisionbench.statistics import Verdict
from precisionbench.statistics.verdicts import MARGIN

_WRONG_VERDICTS = (Verdict.FASTER, Verdict.SLOWER)
_SUBJECTS = {"device_bound": "noise, device-bound", "host_bound": "noise, host-bound"}
_NOISY = {
    "device_bound": "stop other programs, check the clocks, or measure with more replicas or "
    "sessions",
    "host_bound": "small batches are noisy on every host: compare device times, use larger "
    "batches or CUDA graphs, or measure with more replicas",
}


def check_noise(readings: Readings) -> Iterator[MachineCheck]:
    """Check which differences the noise trials would detect.

    Args:
        readings: what was measured.
    """
    for trial in readings.trials:
        yield _trial(trial, readings.known_spread)
    if readings.trouble:
        yield MachineCheck("noise", State.UNKNOWN, readings.trouble)


def _trial(trial: NoiseTrial, floor: float) -> MachineCheck:
    subject = _SUBJECTS.get(trial.name, trial.name)
    if not trial.is_conclusive:
        text = (
            f"inconclusive: only {trial.rounds} rounds of {trial.processes} processes "
            f"({trial.schedule})"
        )
        remedy = "free memory, or stop other programs"
        return MachineCheck(subject, State.UNKNOWN, text, remedy)
    smallest = trial.smallest_effect(floor)
    text = (
        f"run-to-run standard deviation {trial.between:.2%} ({trial.processes} processes), "
        f"{trial.within:.2%} within a process; 19 of 20 runs detect a difference of "
        f"{significant(100 * smallest, 2)} %"
    )
    if trial.speedup.verdict in _WRONG_VERDICTS:
        wrong = f"{text}; wrong verdict: identical code was {trial.speedup.verdict.value}"
        remedy = "expected in 1 of 20 runs; if it happens again, measure with 3 sessions"
        return MachineCheck(subject, State.ATTENTION, wrong, remedy)
    if smallest > 2 * MARGIN:
        return MachineCheck(subject, State.ATTENTION, text, _NOISY.get(trial.name, ""))
    return MachineCheck(subject, State.GOOD, text)
