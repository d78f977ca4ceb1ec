"""TensorRT through torch2trt in three precisions, with INT8 calibrated on your own batches.

It needs a GPU, TensorRT 8 to 10 and torch2trt; without them the rows fail, with the reason.

    python examples/torch2trt_int8.py [BATCH_SIZE] [MODEL]
"""

import argparse

import torch

import precisionbench as pb
from precisionbench.backends.torch2trt import Torch2trt

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("batch_size", nargs="?", type=int, default=8)
parser.add_argument("model", nargs="?", default="torchvision:resnet50")
given = parser.parse_args()
batch_size, model = given.batch_size, given.model

# Stand-ins for real, preprocessed images. Each batch has the shape that will be measured.
calibration = [torch.rand(batch_size, 3, 224, 224) for _ in range(4)]

comparison = pb.compare(
    model,
    batch_size=batch_size,
    backends=[
        Torch2trt("fp32"),
        Torch2trt("fp16"),
        Torch2trt("int8", calibration_data=calibration, engine_cache="engines"),
    ],
)
print(comparison)

for row in comparison.results:
    print(row.backend, row.details.get("layer_precision", ""))
