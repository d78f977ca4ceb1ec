"""One call of a function, two functions side by side, a region, and the calls of a program.

python examples/time_a_call.py [SECONDS]
"""

import argparse
import time

import torch

import precisionbench as pb

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("budget_s", nargs="?", type=float, metavar="SECONDS")
budget_s = parser.parse_args().budget_s
device = "cuda" if torch.cuda.is_available() else "cpu"
images = torch.rand(16, 3, 128, 128, device=device)
weights = torch.rand(8, 3, 3, 3, device=device)

# One call, with its interval and percentiles.
print(pb.time(torch.conv2d, images, weights, budget_s=budget_s))

# Two functions in common rounds, each in two fresh processes.
calls = {
    "contiguous": lambda: torch.conv2d(images, weights),
    "channels_last": lambda: torch.conv2d(
        images.contiguous(memory_format=torch.channels_last), weights
    ),
}
print(pb.compare_calls(calls, replicas=2, budget_s=budget_s))

# A region, once: the GPU is idle before it and at its end.
with pb.time(name="copy") as region:
    copy = images.to("cpu", copy=True)
print(f"copy: {region.seconds * 1e3:.3f} ms")


# The calls of a program, each once, without waiting for the GPU.
@pb.time()
def preprocess(batch: torch.Tensor) -> torch.Tensor:
    return (batch - batch.mean()) / batch.std()


for _ in range(30):
    preprocess(images)
    time.sleep(0.001)
print(preprocess.times)
