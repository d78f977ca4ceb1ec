"""The gain of CUDA graphs and operator fusion, in addition to a smaller dtype.

Each row adds one change: the dtype, the layout, a CUDA graph, and finally torch.compile with frozen
weights. Compiling takes some time, which is not part of the latency. Without a GPU the row with a
CUDA graph fails, with the reason.

    python examples/compile_and_graphs.py [BATCH_SIZE] [MODEL]
"""

import argparse

import precisionbench as pb

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("batch_size", nargs="?", type=int, default=1)
parser.add_argument("model", nargs="?", default="torchvision:resnet50")
given = parser.parse_args()
batch_size, model = given.batch_size, given.model

COMPILED = "compile:dtype=float16,freezing=true,memory_format=channels_last"
comparison = pb.compare(
    model,
    batch_size=batch_size,
    backends=[
        "eager",
        "autocast",  # float32 weights, each cast once
        "half",
        "half:memory_format=channels_last",
        "half:memory_format=channels_last,cuda_graph=true",
        COMPILED,
    ],
)
print(comparison)

speedup = comparison.speedup(COMPILED)
print(f"compiled: {speedup.low:.2f}x to {speedup.high:.2f}x the speed of float32 (95 % CI)")
details = comparison[COMPILED].details
print(f"{details['graphs']} graphs, {details['graph_breaks']} graph breaks")
