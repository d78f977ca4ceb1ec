"""Which process computes the model in float64, and what is recorded where none can."""

from __future__ import annotations

import pytest

from precisionbench.errors import ExecutionError, PreparationError
from precisionbench.measure.finish import Float64Reference
from precisionbench.results.evidence import Evidence


class PreparedBackend:
    """A row's process that can compute in float64, or cannot."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked, self.given = error, 0, ""

    def write_float64_reference(self, path: str) -> None:
        self.asked += 1
        if self.error:
            raise self.error

    def evidence(self, call_s: float, truth_path: str | None) -> Evidence:
        self.given = truth_path
        return Evidence()


PATCHED = PreparationError("torch is patched in this process (torch.conv2d and others)")


def test_the_first_process_in_which_torch_is_not_patched_writes_the_reference(tmp_path):
    replicas = [PreparedBackend(PATCHED), PreparedBackend(), PreparedBackend()]
    reference = Float64Reference(tmp_path)
    reference.write(replicas)
    assert [prepared.asked for prepared in replicas] == [1, 1, 0]
    assert reference.evidence(replicas[0], 1.0).unknown == {}
    assert replicas[0].given == str(tmp_path / "float64-0.pt")


@pytest.mark.parametrize(
    ("replicas", "reason"),
    [
        ([], "the model could not be computed in float64"),
        ([PreparedBackend(ExecutionError("no float64 here"))], "in float64: no float64 here"),
    ],
)
def test_without_a_reference_the_errors_are_unknown_with_the_reason(tmp_path, replicas, reason):
    reference = Float64Reference(tmp_path)
    reference.write(replicas)
    prepared = PreparedBackend()
    assert reference.evidence(prepared, 1.0).unknown["errors"].endswith(reason)
    assert prepared.given is None
