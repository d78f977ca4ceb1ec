"""Benchmark scripts to check, and helpers of the tests that check them."""

from __future__ import annotations

import precisionbench as pb

# Violates no rule: warm-up, eval mode, no gradients, random inputs, enough calls.
CLEAN = """
import time
import torch
from torch import nn

class Loading(nn.ReLU):
    loaded = False

    def forward(self, x):
        if not self.loaded:
            time.sleep(0.2)
        self.loaded = True
        return super().forward(x)

def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Loading(), nn.Conv2d(8, 8, 3))

torch.manual_seed(0)
torch.set_num_threads(1)
x = torch.rand(8, 3, 48, 48)
results = []
for name in ["first", "second"]:
    model = net().eval()
    with torch.no_grad():
        for _ in range(5):
            model(x)
        tic = time.perf_counter()
        for _ in range(40):
            output = model(x)
        toc = time.perf_counter()
    results.append(toc - tic)
    print(name, f"{results[-1]:.3f} s")
"""
CONSTANT_INPUTS = CLEAN.replace("torch.rand(", "torch.zeros(")

# Patches torch as Apex O1 does: for the whole process, never undone.
PATCHER = """
import torch.nn.functional as F

def initialize(model, level):
    if level == "O1":
        for name in ("conv2d", "linear", "relu"):
            setattr(F, name, casting(getattr(F, name)))
    return model

def casting(function):
    def cast(*args, **kwargs):
        low = lambda v: v.bfloat16() if isinstance(v, torch.Tensor) else v
        return function(*map(low, args), **{key: low(v) for key, v in kwargs.items()})
    return cast

def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
"""
FOUNDING = CLEAN.replace("\ntorch.manual", PATCHER + "\ntorch.manual").replace(
    'for name in ["first", "second"]:\n    model = net().eval()',
    'for name in ["O3", "O1", "O0", "Float32"]:\n    model = initialize(net().eval(), name)',
)


def confirmed(check: pb.Check) -> list[str]:
    """Names of the rules that are violated for sure."""
    return [violation.gate for violation in check.broken]
