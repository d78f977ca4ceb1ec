"""INT8 configurations of `tune` are calibrated with the user's data, in deployment too."""

from __future__ import annotations

import attrs
import pytest
import torch
from torch import nn

import precisionbench as pb
from made_up_tuning import tuning_data
from precisionbench.backends.onnxruntime import OnnxRuntime
from precisionbench.backends.openvino import OpenVino
from precisionbench.backends.pt2e import Pt2e
from precisionbench.backends.torch2trt import Torch2trt
from precisionbench.errors import IncomparableError, WorkloadError
from precisionbench.results.tuning import Target
from precisionbench.system import environment
from precisionbench.workflows.tuning.calibration import CalibrationBatches
from precisionbench.workflows.tuning.target import target_of

DATA = [torch.full((4, 8), float(number)) for number in range(3)]
BATCHES = CalibrationBatches.first_of([[batch] for batch in DATA], 4)


@pytest.mark.parametrize(
    "backend",
    [
        OnnxRuntime(precision="int8"),
        OpenVino(precision="int8"),
        Pt2e(),
        Torch2trt(precision="int8"),
    ],
    ids=lambda backend: backend.name,
)
def test_every_backend_that_calibrates_int8_takes_the_batches(backend):
    given = BATCHES.given_to(backend).calibration_data
    assert [float(batch[0].mean()) for batch in given] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    "backend",
    [
        OnnxRuntime(),
        OpenVino(precision="fp32"),
        OnnxRuntime(precision="int8", calibration="mine:batches"),
    ],
    ids=str,
)
def test_other_rows_and_those_with_batches_of_their_own_stay_as_they_are(backend):
    assert BATCHES.given_to(backend) is backend


def test_at_another_batch_size_the_items_are_repeated():
    given = BATCHES.given_to(OpenVino(precision="int8", batch_size=6)).calibration_data
    assert [tuple(batch[0].shape) for batch in given] == [(6, 8)] * 3


def test_few_batches_are_used_of_large_data():
    assert len(CalibrationBatches.first_of([[DATA[0]]] * 100, 4).batches) == 8


# A result, when it is prepared

PLANTED = """
    import contextlib
    from typing import ClassVar

    import attrs

    from precisionbench.backends import Backend, Prepared


    @attrs.frozen
    class Scaled(Backend):
        name: ClassVar[str] = "scaled"
        calibration_data = attrs.field(
            default=None, kw_only=True, eq=False, metadata={"recorded": False}
        )

        @contextlib.contextmanager
        def prepare(self, model, inputs):
            call = inputs.bind(model)
            scale = sum(float(batch[0].mean()) for batch in self.calibration_data or ())
            yield Prepared(lambda: call() * scale, inputs=inputs)
"""
ONES = torch.ones(4, 8)
RESULT = tuning_data(best="scaled", reference="scaled", calibration=BATCHES.record)
pytestmark = pytest.mark.filterwarnings("ignore:the model:UserWarning")


@pytest.fixture(autouse=True)
def scaled(install) -> None:
    """A backend that multiplies the output by the sum of the means of its calibration batches."""
    install("planted", PLANTED, scaled="Scaled")


def target_here() -> Target:
    return target_of(environment.capture(torch.device("cpu"), []), nn.Identity(), {})


def prepared(result: pb.Tuned, inputs: torch.Tensor = ONES, **options: object) -> float:
    with result.prepare(nn.Identity(), inputs, device="cpu", **options) as fast:
        return float(fast(inputs).mean())


def test_the_result_of_tune_is_calibrated_with_the_same_data():
    tuned = pb.Tuned(RESULT, calibration=BATCHES)
    assert prepared(tuned, force=True) == 3.0
    assert prepared(tuned, ONES[:2], force=True) == 3.0


def test_a_result_that_was_loaded_needs_the_data():
    with pytest.raises(IncomparableError, match="the model's tensors or code differ"):
        prepared(pb.Tuned(RESULT))
    here = attrs.evolve(RESULT, target=target_here())
    with pytest.raises(IncomparableError, match="calibrated with 3 batches of data, which are not"):
        prepared(pb.Tuned(here))
    assert prepared(pb.Tuned(here), data=DATA) == 3.0
    assert prepared(pb.Tuned(here), force=True) == 0.0


def test_other_data_is_a_warning():
    with pytest.warns(UserWarning, match="the data is not that of the tuning"):
        assert prepared(pb.Tuned(RESULT), data=[ONES], force=True) == 1.0


def test_endless_data_is_read_no_further_than_is_needed():
    def data():
        yield from [ONES] * 8
        raise AssertionError("a ninth batch was asked for")

    with pytest.warns(UserWarning, match="the data is not that of the tuning"):
        assert prepared(pb.Tuned(RESULT), data=data(), force=True) == 8.0


def test_data_of_another_shape_is_refused():
    with pytest.raises(WorkloadError, match="batch 0 of data has inputs of shape"):
        prepared(pb.Tuned(RESULT), data=[torch.ones(5, 8)], force=True)


def test_data_that_is_no_list_of_batches_is_refused():
    with pytest.raises(WorkloadError, match="data is an int, and no iterable of batches"):
        prepared(pb.Tuned(RESULT), data=5, force=True)


def test_what_it_was_calibrated_with_is_in_the_file(tmp_path):
    pb.Tuned(tuning_data(calibration=BATCHES.record)).save(tmp_path / "tuned.json")
    loaded = pb.load_tuned(tmp_path / "tuned.json")
    assert loaded.data.calibration == BATCHES.record
    assert loaded.data.calibration != CalibrationBatches.first_of([[ONES]], 4).record


@pytest.mark.openvino
@pytest.mark.slow  # a whole search
def test_openvino_is_calibrated_with_the_data_of_the_metric():
    model, data = nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval(), [torch.rand(4, 8)] * 3
    found = pb.tune(
        model,
        data[0],
        metric=lambda outputs, _: float(outputs.mean()),
        data=data,
        drop=1.0,
        include=["openvino:precision=int8"],
        budget_s=30,
        device="cpu",
        journal=None,
    )
    note = "openvino:precision=int8 was calibrated with the inputs of 3 batches of data"
    assert note in found.data.notes
    assert found.data.calibration.batches == 3


class Held(nn.Module):
    def __init__(self, held: int) -> None:
        super().__init__()
        self.held = held

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * self.held


def heads(count: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(8, count, 8, batch_first=True).eval()


def tuned_for(model: nn.Module) -> pb.Tuned:
    target = target_of(environment.capture(torch.device("cpu"), []), model, {})
    return pb.Tuned(tuning_data(best="eager", reference="eager", target=target))


def test_a_model_whose_layers_have_other_options_is_refused():
    inputs = torch.ones(2, 3, 8)
    refused = pytest.raises(IncomparableError, match="or the options of its layers")
    with refused, tuned_for(heads(2)).prepare(heads(4), inputs, device="cpu"):
        pass
    with tuned_for(heads(2)).prepare(heads(2), inputs, device="cpu") as fast:
        assert fast(inputs).shape == inputs.shape


@pytest.mark.filterwarnings("error")
def test_other_values_of_attributes_are_a_warning():
    warned = pytest.warns(UserWarning, match="other values that it holds or reads")
    with warned, tuned_for(Held(2)).prepare(Held(3), ONES, device="cpu") as fast:
        assert float(fast(ONES).mean()) == 3.0
    with tuned_for(Held(2)).prepare(Held(2), ONES, device="cpu") as fast:
        assert float(fast(ONES).mean()) == 2.0
