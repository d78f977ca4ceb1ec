"""The plugin for OpenVINO: what it refuses anywhere, and the real engine on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import attrs
import pytest
import torch

import precisionbench as pb
from engine_rows import Prepares, engine_label, prepared
from odd_model import odd_model
from precisionbench.backends.openvino import OpenVino
from precisionbench.errors import (
    BackendUnavailableError,
    PrecisionBenchWarning,
    PreparationError,
    SpecError,
)
from precisionbench.results.claims import Claims
from precisionbench.torchtools.global_state import Functions
from precisionbench.torchtools.tensors import walk
from small_transformer import small_transformer

real = pytest.mark.openvino
TOLERANCE = {"fp32": 1e-5, "bf16": 3e-2, "int8": 0.1}


def calibrated(precision: str, *batches: torch.Tensor) -> OpenVino:
    return OpenVino(precision, calibration_data=batches if precision == "int8" else None)


def cpu_follows(hint: str) -> bool:
    """Whether the CPU's plugin computes in the type of a hint, and does not fall back to float32.

    CPUs with AVX-512 compute in bfloat16 also where they have no instructions for it, and do not
    list it among the plugin's capabilities.
    """
    import openvino
    from openvino import opset13

    given = opset13.parameter([1], openvino.Type.f32)
    model = openvino.Model([opset13.relu(given)], [given])
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    return compiled.get_property("INFERENCE_PRECISION_HINT") == getattr(openvino.Type, hint)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"memory_format": "channels_last"}, "contiguous"),
        ({"calibration": "mine:batches"}, "only INT8"),
        ({"precision": "bf16", "calibration_data": ()}, "only INT8"),
        ({"precision": "tf32"}, "precision"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, reason):
    with pytest.raises(SpecError, match=reason):
        OpenVino(**options)


def test_without_the_engine_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'precisionbench\[openvino"):
        OpenVino().check_available()


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16"), ("int8", "int8")],
)
def test_a_row_claims_its_precision_hint(precision, dtype):
    assert OpenVino(precision).claims().dtype == dtype


@real
def test_float32_is_asked_for_and_never_left_to_the_plugin(cnn, images):
    """The CPU's plugin runs a float32 model in bfloat16 by default where the CPU has it."""
    found = prepared(OpenVino(), cnn.eval(), images)
    assert torch.allclose(found.output, cnn(images), atol=1e-5)
    assert found.details["inference_precision"] == "f32"
    assert set(found.details["layer_precision"]) == {"float32"}
    assert engine_label(OpenVino(), found).verdict == "true"


@real
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_transformer_with_keyword_arguments_and_a_mapping(precision):
    if precision == "bf16" and not cpu_follows("bf16"):
        pytest.skip("this CPU has no bfloat16")
    model, args, kwargs = small_transformer()
    data = [(*args, *kwargs.values())] if precision == "int8" else None
    backend = OpenVino(precision, calibration_data=data)
    found, expected = prepared(backend, model, *args, **kwargs), model(*args, **kwargs)
    assert set(found.output) == {"logits", "hidden"}
    for name, tensor in expected.items():
        error = (found.output[name] - tensor).norm() / tensor.norm()
        assert error < TOLERANCE[precision]
    assert engine_label(backend, found).verdict != "false"


@real
def test_int8_runs_in_int8(cnn, images):
    backend = calibrated("int8", images, images / 2)
    found = prepared(backend, cnn.eval(), images)
    assert engine_label(backend, found).verdict == "true"
    assert found.details["calibration_batches"] == 2
    assert (found.output - cnn(images)).norm() / cnn(images).norm() < TOLERANCE["int8"]


@real
@pytest.mark.parametrize(("precision", "hint"), [("bf16", "bf16"), ("fp16", "f16")])
def test_a_hint_that_the_cpu_cannot_follow_is_a_false_label(cnn, images, precision, hint):
    backend = OpenVino(precision)
    if cpu_follows(hint):
        found = prepared(backend, cnn.eval(), images)
        assert engine_label(backend, found).verdict == "true"
        return
    with pytest.warns(PrecisionBenchWarning, match="this row is not"):
        found = prepared(backend, cnn.eval(), images)
    assert engine_label(backend, found).verdict == "false"


@attrs.frozen
class Mislabelled(OpenVino):
    """Claims INT8 and runs the float32 model."""

    name: ClassVar[str] = "mislabelled"

    def claims(self):
        return Claims("int8", engine="OpenVINO")

    @contextmanager
    def prepare(self, model, inputs):
        with OpenVino().prepare(model, inputs) as found:
            yield found


@real
def test_a_row_that_claims_int8_and_runs_float32_is_a_false_label(cnn, images):
    found = prepared(Mislabelled(), cnn.eval(), images)
    label = engine_label(Mislabelled(), found)
    assert (label.verdict, label.ran) == ("false", "in float32")


@real
def test_int8_without_calibration_data_warns(cnn, images):
    with pytest.warns(PrecisionBenchWarning, match="calibrated on the benchmark's own inputs"):
        prepared(OpenVino("int8"), cnn.eval(), images)


@real
def test_calibration_data_of_other_shapes_is_refused(cnn, images):
    with pytest.raises(PreparationError, match="calibration batch 1"):
        prepared(calibrated("int8", images, images[:1]), cnn.eval(), images)


@real
def test_a_model_that_cannot_be_converted_says_so(images):
    class Branches(torch.nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(PreparationError, match="OpenVINO cannot convert the model"):
        prepared(OpenVino(), Branches(), images)


@real
def test_a_model_whose_output_gets_another_shape_is_refused():
    class Dropped(torch.nn.Module):
        """OpenVINO drops the dropout of training, and with it the shape of the output."""

        def forward(self, x):
            return torch.nn.functional.dropout(x, 0.5, training=True)

    with pytest.raises(PreparationError, match=r"shapes .* where the model's have"):
        prepared(OpenVino(), Dropped(), torch.rand(3, 4))


@real
def test_inputs_that_the_model_casts_at_once_are_found_by_name():
    class Doubled(torch.nn.Module):
        def forward(self, x, y):
            return y.double() @ x.double()

    x, y = torch.rand(4, 8), torch.rand(8, 4)
    found = prepared(OpenVino(), Doubled(), x, y)
    assert torch.allclose(found.output.double(), y.double() @ x.double(), rtol=1e-5)


@real
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_arguments_and_results_of_any_structure(precision):
    model, args = odd_model()
    tensors = tuple(tensor for _, tensor in walk(args))
    data = [tensors] if precision == "int8" else None
    expected = model(*args)
    found = prepared(OpenVino(precision, calibration_data=data), model, *args)
    assert type(found.output) is tuple
    assert list(found.output[2]) == ["again", "positive", "largest"]
    for (_, got), (_, want) in zip(walk(found.output), walk(expected), strict=True):
        assert got.dtype == want.dtype
        if want.is_floating_point() or precision == "fp32":
            assert (got.float() - want.float()).norm() <= TOLERANCE[precision] * want.float().norm()


@real
def test_nothing_is_left_behind(cnn, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)  # set while it converts, so that nothing is sent
    functions, environment = Functions.now(), dict(os.environ)
    prepared(calibrated("int8", images), cnn.eval(), images)
    assert functions.changes() == []
    assert dict(os.environ) == environment
    assert list(Path(tmp_path).iterdir()) == []


@real
def test_what_is_timed_reads_the_inputs_where_they_are(cnn, images):
    with Prepares(OpenVino(), cnn.eval(), images) as found:
        first = found.call()
        kept = first.clone()
        assert found.call() is first
        found.inputs.args[0].mul_(2)
        assert not torch.equal(found.call(), kept)


INTERRUPTED = """
    import gc
    import signal
    import threading
    import torch
    from engine_rows import Prepares
    from precisionbench.backends.openvino import OpenVino

    def prepared():
        found = Prepares(OpenVino(), torch.nn.Linear(8, 8).eval(), torch.ones(2, 8))
        return found.__enter__()

    rows = [prepared(), prepared()]
    for row in rows:
        row.__exit__(None, None, None)
    del row
    thread = threading.Thread(target=lambda: (rows.clear(), gc.collect()))
    thread.start()
    thread.join()
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        print("interrupted")
"""


@real
@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO sets a stack for signals on Linux")
def test_a_ctrl_c_after_rows_were_released_in_any_order_and_thread_ends_nothing_else():
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-X", "faulthandler", "-c", textwrap.dedent(INTERRUPTED)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


@real
@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.slow), "int8"])
def test_a_resnet(precision):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model, x = torchvision.models.resnet18(weights=None).eval(), torch.rand(1, 3, 32, 32)
    backend = calibrated(precision, x)
    found, expected = prepared(backend, model, x), model(x)
    assert (found.output - expected).norm() / expected.norm() < TOLERANCE[precision]
    assert engine_label(backend, found).verdict == "true"


@real
@pytest.mark.slow
def test_rows_in_workers_beside_eager(cnn, images):
    comparison = pb.compare(
        cnn,
        images,
        backends=[OpenVino(), Mislabelled()],
        device="cpu",
        budget_s=1,
        replicas=1,
        evidence=False,
    )
    assert comparison.failures == ()
    assert comparison["openvino"].agreement.relative_l2 < 1e-5
    labels = {label.row: label.verdict for label in pb.diagnose(comparison).labels}
    assert (labels["openvino"], labels["mislabelled"]) == ("true", "false")
