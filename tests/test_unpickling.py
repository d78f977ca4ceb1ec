"""Functions of the user's script, read by a worker: torch.compile must find their globals."""

from __future__ import annotations

import subprocess
import sys
from types import FunctionType

import cloudpickle
import pytest
import torch

from precisionbench._internal.unpickling import loads
from precisionbench.torchtools.saving import load, save
from test_compile import needs_compiler

SCRIPT = """
import torch
from torch import nn
import precisionbench as pb

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 16)
    def forward(self, x):
        return nn.functional.silu(self.layer(x))  # `nn` is a global of this script

if __name__ == "__main__":
    model = nn.Sequential(Block(), Block())
    found = pb.compare(model, torch.rand(4, 16), backends=["compile"], device="cpu", budget_s=2)
    print([row.backend for row in found], *found.failures)
"""


def of_a_script(name: str = "__main__") -> FunctionType:
    """A function `pi` whose globals are those of a script that this process has not run."""
    namespace = {"__name__": name, "__package__": None, "torch": torch}
    exec("def pi():\n    return torch.pi + one()\ndef one():\n    return 1", namespace)
    found: FunctionType = namespace["pi"]
    return found


def test_functions_of_a_script_find_their_globals_without_its_name(tmp_path):
    save(of_a_script(), tmp_path / "pi", pickle_module=cloudpickle, pickle_protocol=5)
    for read in [loads(cloudpickle.dumps(of_a_script())), load(tmp_path / "pi")]:
        assert "__name__" not in read.__globals__
        assert read.__globals__ is read.__globals__["one"].__globals__
        assert read() == torch.pi + 1
        assert read.__module__ == "__main__"


def test_what_was_read_can_be_pickled_again():
    assert loads(cloudpickle.dumps(loads(cloudpickle.dumps(of_a_script()))))() == torch.pi + 1


def test_functions_by_value_of_a_module_keep_its_name():
    read = loads(cloudpickle.dumps(of_a_script("no_such_module")))
    assert read.__globals__["__name__"] == "no_such_module"


def test_functions_of_modules_are_those_of_their_module():
    assert loads(cloudpickle.dumps(of_a_script)) is of_a_script


@pytest.mark.slow
@needs_compiler
def test_blocks_of_a_script_are_compiled_in_a_worker(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT)
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert run.stdout.strip() == "['eager', 'compile']", run.stderr
