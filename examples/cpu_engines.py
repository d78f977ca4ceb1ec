"""ONNX Runtime and OpenVINO on a CPU, beside PyTorch, with INT8 calibrated on your own batches.

    pip install 'precisionbench[onnxruntime,openvino]'
    python examples/cpu_engines.py [BATCH_SIZE] [MODEL]

Without an engine its rows fail, with the command that installs it.
"""

import argparse

import torch

import precisionbench as pb
from precisionbench.backends.onnxruntime import OnnxRuntime
from precisionbench.backends.openvino import OpenVino

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("batch_size", nargs="?", type=int, default=8)
parser.add_argument("model", nargs="?", default="torchvision:resnet18")
given = parser.parse_args()
batch_size, model = given.batch_size, given.model

# Stand-ins for real, preprocessed images. Each batch has the shape that will be measured.
calibration = [torch.rand(batch_size, 3, 224, 224) for _ in range(4)]

comparison = pb.compare(
    model,
    batch_size=batch_size,
    device="cpu",
    backends=[
        OnnxRuntime(),
        OnnxRuntime("int8", calibration_data=calibration),
        OpenVino(),
        OpenVino("bf16"),
        OpenVino("int8", calibration_data=calibration),
    ],
)
print(comparison)

for row in comparison.results:
    print(row.backend, row.details.get("layer_precision", ""))
for label in pb.diagnose(comparison).labels:
    print(label.row, label.verdict, label.ran)
