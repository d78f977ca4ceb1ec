"""The fastest configuration that is accurate enough, and how to use it.

python examples/tune.py [--budget SECONDS]
"""

import argparse

import torch
from torch import nn

import precisionbench as pb

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--budget", type=float, default=60.0)
given = parser.parse_args()

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10)
).eval()
images = torch.randn(8, 3, 32, 32)
model(images)  # so that the last layer knows its shape

best = pb.tune(model, images, max_error=1e-2, budget_s=given.budget)
print(best)

with best.prepare(model) as fast:
    other = torch.randn(8, 3, 32, 32)
    print(f"{best.spec}: {tuple(fast(other).shape)}")
