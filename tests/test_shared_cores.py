"""All workers on the same few cores while they are measured, where a user asks for it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import ClassVar

import attrs
import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.backends import Backend
from precisionbench.errors import SpecError

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="only Linux tells processes where to run"
)


@attrs.frozen
class Telling(Backend):
    """Writes down on which cores it is prepared and called."""

    name: ClassVar[str] = "telling"
    file: str = ""

    @contextlib.contextmanager
    def prepare(self, model, inputs):
        call = inputs.bind(model)
        self.tell()

        def told():
            self.tell()
            return call()

        yield told

    def tell(self) -> None:
        with Path(self.file).open("a") as out:
            out.write(f"{os.getpid()} {sorted(os.sched_getaffinity(0))}\n")


def cores_of(file: Path) -> dict[str, list[str]]:
    """Where each process was, call by call."""
    found: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        pid, cores = line.split(" ", 1)
        found.setdefault(pid, []).append(cores)
    return found


@pytest.mark.parametrize("shared", [None, 1])
def test_workers_share_cores_once_they_are_prepared(tmp_path, shared):
    mine = sorted(os.sched_getaffinity(0))
    file = tmp_path / "cores"
    found = pb.compare(
        nn.Linear(8, 8),
        torch.rand(2, 8),
        backends=[Telling(str(file))],
        reference=Telling(str(file)),
        device="cpu",
        replicas=2,
        budget_s=1,
        shared_cores=shared,
    )
    assert found.data.shared_cores == shared
    told = cores_of(file)
    assert len(told) == 2
    for calls in told.values():
        assert calls[0] == str(mine)  # builds and tunes on all of them
        assert calls[-1] == str(mine[-shared:] if shared else mine)
    assert sorted(os.sched_getaffinity(0)) == mine


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"shared_cores": 0}, "shared_cores is 0"),
        ({"shared_cores": 10_000}, "give a whole number from 1 to"),
        ({"shared_cores": "2"}, "shared_cores is '2'"),
        ({"shared_cores": 1, "launcher": "inline"}, "for worker processes"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_anything_is_measured(arguments, sentence):
    with pytest.raises(SpecError, match=sentence):
        pb.compare(nn.Linear(8, 8), torch.rand(2, 8), device="cpu", **arguments)
