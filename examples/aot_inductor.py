"""AOTInductor beside torch.compile, and a package of what was measured, ready to deploy.

    python examples/aot_inductor.py [BATCH_SIZE] [MODEL] [PACKAGE]

PACKAGE is a new file whose name ends with .pt2. Without a C++ compiler the row fails, with the
command that installs one.
"""

import argparse

import torch

import precisionbench as pb
from precisionbench.backends.aot_inductor import AotInductor

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("batch_size", nargs="?", type=int, default=8)
parser.add_argument("model", nargs="?", default="torchvision:resnet50")
parser.add_argument("package", nargs="?", default="model.pt2")
given = parser.parse_args()

on_gpu = torch.cuda.is_available()
comparison = pb.compare(
    given.model,
    batch_size=given.batch_size,
    backends={
        "compiled": f"compile:dtype={'float16' if on_gpu else 'bfloat16'},freezing=true",
        "packaged": AotInductor(
            "fp16" if on_gpu else "bf16", freezing=True, package_path=given.package
        ),
    },
)
print(comparison)

for label in pb.diagnose(comparison).labels:
    print(label.row, label.verdict, label.ran)
if not comparison.failures:
    details = comparison["packaged"].details
    print(f"{given.package}: {details['package_bytes'] / 1e6:.1f} MB")
    print(f"deploy it: torch._inductor.aoti_load_package({given.package!r})")
