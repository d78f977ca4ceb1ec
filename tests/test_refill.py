"""A prepared backend is given other inputs of the same shapes, in a session and in a worker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import torch
from torch import nn

from engine_rows import Prepares
from odd_model import odd_model
from precisionbench.backends import Backend, Inputs, Prepared
from precisionbench.backends.discovery import make
from precisionbench.errors import PreparationError, WorkerError, WorkloadError
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.measure.worker.local import InlineLauncher
from precisionbench.measure.worker.server import Server
from precisionbench.model.workload import resolve
from precisionbench.torchtools.refill import refill, refilled
from precisionbench.torchtools.tensors import walk
from small_transformer import small_transformer

# Backends that run on a CPU, with the largest error of each.
ON_A_CPU = [
    ("eager", 1e-6),
    ("half:dtype=bfloat16", 3e-2),
    ("autocast:dtype=bfloat16", 3e-2),
    pytest.param("compile:dtype=bfloat16,freezing=true", 3e-2, marks=pytest.mark.slow),
    pytest.param("onnxruntime:exporter=torchscript", 1e-5, marks=pytest.mark.onnxruntime),
    pytest.param(
        "onnxruntime:exporter=dynamo", 1e-5, marks=[pytest.mark.onnxruntime, pytest.mark.slow]
    ),
    pytest.param("openvino", 1e-5, marks=pytest.mark.openvino),
    pytest.param("torchao", 5e-2, marks=pytest.mark.torchao),
    pytest.param("pt2e", 5e-2, marks=[pytest.mark.torchao, pytest.mark.slow]),
    pytest.param("aot-inductor", 1e-5, marks=pytest.mark.slow),
]


def others(inputs: Inputs) -> Inputs:
    """Other values of the same shapes, in ranges that the models take."""

    def other(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.flip(-1) * 0.5 + 1 if tensor.is_floating_point() else (tensor + 7) % 40

    return inputs.map(other)


def tensors(inputs: Inputs) -> list[torch.Tensor]:
    return [tensor for _, tensor in inputs.tensors()]


def error(output: object, expected: object) -> float:
    """The largest relative error of the floating-point tensors."""
    pairs = zip(dict(walk(output)).items(), dict(walk(expected)).items(), strict=True)
    found = []
    for (path, got), (want_path, want) in pairs:
        assert path == want_path
        if want.is_floating_point():
            found.append(((got.float() - want).norm() / want.norm()).item())
    return max(found)


@contextlib.contextmanager
def opened(model: nn.Module, inputs: Any, backend: Backend) -> Iterator[Any]:
    launcher = InlineLauncher.on_device_of(resolve(model, inputs, device="cpu", seed=0))
    with launcher.open(backend) as session:
        yield session


def written(tmp_path: Path, values: object) -> str:
    file = tmp_path / "inputs.pt"
    torch.save(values, file)
    return str(file)


# The tensors that a call reads.


@pytest.mark.filterwarnings("ignore:INT8 was calibrated")
@pytest.mark.parametrize(("spec", "tolerance"), ON_A_CPU)
def test_new_values_give_the_models_output_for_them(spec, tolerance):
    model, args, kwargs = small_transformer()
    new = others(Inputs(args, kwargs))
    with torch.no_grad():
        expected, before = new.bind(model)(), model(*args, **kwargs)
    assert error(expected, before) > 0.1
    with Prepares(make(spec), model, *args, **kwargs) as found, torch.no_grad():
        refill(found.prepared.inputs, tensors(new))
        assert error(found.call(), expected) < tolerance


@pytest.mark.parametrize(
    "spec",
    [
        "eager",
        pytest.param("onnxruntime:exporter=torchscript", marks=pytest.mark.onnxruntime),
        pytest.param("openvino", marks=pytest.mark.openvino),
    ],
)
def test_nested_unused_and_returned_inputs_keep_their_places(spec):
    model, args = odd_model()
    new = others(Inputs(args))
    with torch.no_grad(), Prepares(make(spec), model, *args) as found:
        refill(found.prepared.inputs, tensors(new))
        assert error(found.call(), new.bind(model)()) < 1e-5


@pytest.mark.parametrize("option", ["memory_format=channels_last", "fold_batch_norm=true"])
def test_common_options_keep_the_tensors_that_are_read(cnn, images, option, tmp_path):
    new = images.flip(0) + 1
    with opened(cnn, images, make(f"eager:{option}")) as session:
        (output,) = session.outputs_of(written(tmp_path, [new])).values()
    assert torch.allclose(output, cnn.eval()(new), atol=1e-5)


def test_values_are_cast_and_copied_into_any_kind_of_tensor():
    with torch.inference_mode():
        inference = torch.zeros(2, dtype=torch.float16)
    leaf = torch.zeros(2, requires_grad=True)
    refill(Inputs((inference, leaf)), [torch.tensor([1.0, 1e9]), torch.tensor([3, 4])])
    assert inference.tolist() == [1.0, float("inf")]
    assert leaf.tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([torch.ones(7, 3)], r"inputs\[0\] has shape 7x3 where the prepared call reads 8x3;"),
        ([torch.ones(8, 3).int(), torch.ones(1)], "hold 2 tensors where the prepared call reads 1"),
        ([], "hold 0 tensors"),
        ([torch.ones(8, 3)], r"inputs\[0\] is float32 where the prepared call reads int32"),
    ],
)
def test_other_inputs_than_a_call_reads_are_refused_and_nothing_is_copied(given, message):
    read = torch.zeros(8, 3, dtype=torch.int32)
    with pytest.raises(WorkloadError, match=message):
        refill(Inputs((read,)), given)
    assert not read.any()


def test_the_error_says_what_to_do_with_the_last_batch():
    with pytest.raises(WorkloadError, match="drop the last, smaller batch"):
        refill(Inputs((torch.zeros(8, 3),)), [torch.ones(5, 3)])


def test_earlier_values_come_back_even_after_an_error():
    read = torch.zeros(2)
    with contextlib.suppress(KeyError), refilled(Inputs((read,)), [torch.ones(2)]):
        assert read.all()
        raise KeyError
    assert not read.any()


# A session and its worker.


@attrs.frozen
class KeepsOutput(Backend):
    """Writes each output into the same tensor, as engines do."""

    name: ClassVar[str] = "keeps-output"

    @contextmanager
    def prepare(self, model, inputs):
        kept = torch.zeros(4, 5)
        yield Prepared(lambda: kept.copy_(inputs.bind(model)()), inputs=inputs)


@attrs.frozen
class SaysNothing(Backend):
    """Does not say what its call reads."""

    name: ClassVar[str] = "says-nothing"

    @contextmanager
    def prepare(self, model, inputs):
        yield inputs.bind(model)


@attrs.frozen
class SaysWrong(Backend):
    """Names other tensors than it was given."""

    name: ClassVar[str] = "says-wrong"

    @contextmanager
    def prepare(self, model, inputs):
        yield Prepared(inputs.bind(model), inputs=Inputs())


def test_a_session_gives_copies_and_its_later_calls_compute_with_its_own_inputs(
    cnn, images, tmp_path
):
    batches = [images.flip(0) + number for number in (1, 2)]
    with opened(cnn, images, KeepsOutput()) as session:
        found = [session.outputs_of(written(tmp_path, [batch]))[""] for batch in batches]
        session.check_steady()
        assert not session.closing().warnings
    for output, batch in zip(found, batches, strict=True):
        assert torch.allclose(output, cnn.eval()(batch), atol=1e-6)


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (SaysNothing(), "does not say which tensors they read; yield a Prepared"),
        (SaysWrong(), "are not those that it was given; yield a Prepared"),
    ],
)
def test_a_plugin_that_does_not_name_its_inputs_is_measured_and_cannot_be_given_others(
    cnn, images, tmp_path, backend, message
):
    with opened(cnn, images, backend) as session:
        assert session.output
        with pytest.raises(PreparationError, match=message):
            session.outputs_of(written(tmp_path, [images]))


class InThisProcess:
    """The server of a worker process, without the process."""

    is_opening = False

    def __init__(self, server: Server, log: Path) -> None:
        self.server, self.log = server, log

    def ask(self, request: str, limit_s: float | None = None, **arguments: Any) -> Any:
        return self.server.answer(request, arguments)


@pytest.fixture
def worker(cnn, images, tmp_path) -> Iterator[WorkerBackend]:
    with contextlib.ExitStack() as stack:
        server = Server(stack)
        server.launcher = InlineLauncher.on_device_of(resolve(cnn, images, device="cpu", seed=0))
        server.backend = make("eager")
        yield WorkerBackend(InThisProcess(server, tmp_path / "worker.log"))


def test_a_worker_writes_the_output_for_other_inputs(worker, cnn, images, tmp_path):
    new = images + 1
    output = worker.outputs_of(written(tmp_path, [new]))
    assert torch.allclose(output[""], cnn.eval()(new), atol=1e-6)
    assert torch.allclose(worker.output[""], cnn(images), atol=1e-6)
    assert [file.name for file in tmp_path.iterdir()] == ["inputs.pt"]


def test_inputs_that_cannot_be_read_or_have_other_shapes_are_an_error(worker, images, tmp_path):
    with pytest.raises(WorkloadError, match="4x3x16x16"):
        worker.outputs_of(written(tmp_path, [images[:3]]))
    with pytest.raises(WorkloadError, match="inputs could not be read"):
        worker.outputs_of(str(tmp_path / "missing.pt"))
    (tmp_path / "inputs.pt").write_bytes(b"junk")
    with pytest.raises(WorkloadError, match=r"could not be read .*; write a list of tensors"):
        worker.outputs_of(str(tmp_path / "inputs.pt"))


def test_an_answer_without_an_output_is_an_error(worker, images, tmp_path):
    worker.worker.ask = lambda *_, **__: None
    with pytest.raises(WorkerError, match="its output could not be read"):
        worker.outputs_of(written(tmp_path, [images]))
