"""Checks of noise: how much processes of the same code differ."""

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
    "device_bound": "close what else runs, see the lines on clocks, and give more replicas= or "
    "sessions=",
    "host_bound": "small batches are noisy on every host: trust the device time beside the "
    "latency, use larger batches or CUDA graphs, or give more replicas=",
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
            f"{trial.rounds} rounds of {trial.processes} processes ({trial.schedule}) fitted in, "
            "too few to tell"
        )
        remedy = "free memory, or end what slows the machine"
        return MachineCheck(subject, State.UNKNOWN, text, remedy)
    smallest = trial.smallest_effect(floor)
    text = (
        f"{trial.processes} processes of the same code differ by {trial.between:.2%} (sd), blocks "
        f"within one by {trial.within:.2%}; 19 of 20 runs tell a difference of "
        f"{significant(100 * smallest, 2)} %"
    )
    if trial.speedup.verdict in _WRONG_VERDICTS:
        wrong = f"{text}; the same code was called {trial.speedup.verdict.value} than itself"
        remedy = "one run in twenty may; if it happens again, give sessions=3"
        return MachineCheck(subject, State.ATTENTION, wrong, remedy)
    if smallest > 2 * MARGIN:
        return MachineCheck(subject, State.ATTENTION, text, _NOISY.get(trial.name, ""))
    return MachineCheck(subject, State.GOOD, text)
