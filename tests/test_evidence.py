"""What the probes record of a call on a CPU; on a GPU: test_gpu_evidence.py."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import precisionbench as pb
from full_disk import files_limited_to
from precisionbench.backends import Backend, Prepared
from precisionbench.backends.discovery import make
from precisionbench.errors import OutputError, PreparationError
from precisionbench.measure.worker.local import InlineLauncher
from precisionbench.model.workload import resolve
from precisionbench.probes import float64_reference, profiler
from precisionbench.probes.float64_reference import (
    layer_errors,
    layer_outputs,
    layer_outputs_in_float64,
    needs_every_item,
)
from precisionbench.probes.layers import eager_module, wrapped
from precisionbench.probes.profiler import counted, profiled
from precisionbench.results import json_format
from precisionbench.results.evidence import Evidence, Tensor
from precisionbench.torchtools.global_state import threads
from test_agreement import ThreadsOfOperations


class Two(nn.Module):
    """One layer used twice, and a product that is in no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(64, 64)
        self.weight = nn.Parameter(torch.randn(64, 64) / 8)

    def forward(self, x):
        return self.body(self.body(x).relu()) @ self.weight


def evidence_of(model: nn.Module, x: torch.Tensor, backend: str = "eager") -> Evidence:
    workload = resolve(model, x, device="cpu", seed=0)
    with InlineLauncher.on_device_of(workload).open(make(backend)) as prepared:
        return prepared.evidence(0.001, None)


def test_operations_have_their_layer_and_the_dtypes_that_ran():
    found = evidence_of(Two(), torch.randn(32, 64), "half:dtype=bfloat16")
    products = [o for o in found.operations if o.name in ("aten::addmm", "aten::mm")]
    assert {o.layer for o in products} == {"body", ""}
    assert {t.dtype for o in products for t in o.inputs} == {"bfloat16"}
    assert found.unknown == {}
    assert found.outputs == (Tensor((32, 64), "bfloat16"),)


def test_flops_are_counted_for_each_layer():
    found = evidence_of(Two(), torch.randn(32, 64))
    layers = {layer.path: layer for layer in found.layers}
    one = 2 * 32 * 64 * 64
    assert found.flops == 3 * one
    assert layers["body"].flops == 2 * one
    assert layers["body"].calls == 2
    assert layers[""].flops == one
    assert layers["body"].parameters[0] == Tensor((64, 64), "float32")


def test_buffers_and_tensors_that_are_attributes_are_recorded():
    model = nn.Linear(4, 4)
    model.register_buffer("codes", torch.zeros(4, 4, dtype=torch.int8))
    model.scale = torch.ones(4)
    (layer,) = evidence_of(model, torch.randn(2, 4)).layers
    assert layer.buffers == (Tensor((4, 4), "int8"), Tensor((4,), "float32"))


def test_no_large_library_is_imported_to_profile_a_call():
    """torch would import TorchDynamo for each dispatch mode, Triton to count FLOPs, and SymPy for
    tensor subclasses: seconds of the user's time."""
    code = """
        import sys, torch
        from precisionbench.model.workload import resolve
        from precisionbench.probes.float64_reference import layer_outputs_in_float64
        from precisionbench.probes.overflow import overflows_of
        from precisionbench.probes.profiler import collect_evidence, start_profiler
        start_profiler(torch.device("cpu"))
        model, x = torch.nn.Linear(512, 256), torch.rand(2, 512)
        workload = resolve(model, x, device="cpu", seed=0)
        found = collect_evidence(lambda: model(x), 1e-3, workload, model)
        assert found.flops == 2**19 and found.operations and not found.unknown, found
        assert layer_outputs_in_float64(workload)
        model, x = model.half(), x.half() * 6e4
        model.weight.data.fill_(1)  # so that each sum overflows, whatever the random numbers are
        found = collect_evidence(lambda: model(x), 1e-3, workload, model)
        assert overflows_of(lambda: model(x), model, found)
        assert not {"torch._dynamo", "triton", "sympy"} & {*sys.modules}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, stderr=subprocess.PIPE, text=True
    )
    assert "triton not found" not in done.stderr


def test_operations_that_flop_counter_does_not_know_are_not_listed_as_counted():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.LSTM(32, 32)

        def forward(self, x):
            return self.body(x)[0]

    found = evidence_of(Recurrent(), torch.randn(4, 2, 32))
    assert not found.flops or "aten.lstm" not in found.counted


def test_zeros_among_the_inputs_are_counted():
    assert evidence_of(nn.Linear(8, 8), torch.zeros(2, 8)).input_zero_share == 1
    assert evidence_of(nn.Linear(8, 8), torch.ones(2, 8)).input_zero_share == 0
    assert (
        evidence_of(nn.Embedding(8, 8), torch.zeros(2, dtype=torch.int64)).input_zero_share is None
    )


def test_a_patched_function_is_recorded(monkeypatch):
    plain = torch.nn.functional.linear

    def patched(*args):
        return plain(*args)

    monkeypatch.setattr(torch.nn.functional, "linear", patched)
    assert evidence_of(nn.Linear(8, 8), torch.ones(2, 8)).foreign_functions == (
        "torch.nn.functional.linear",
    )


def test_the_reference_asks_an_autocast_row_under_autocast_and_computes_without(tmp_path):
    seen = []

    class Noted(nn.Linear):
        def forward(self, x):
            seen.append((x.dtype, torch.is_autocast_enabled("cpu")))
            return super().forward(x)

    workload = resolve(Noted(8, 8), torch.rand(4, 8), device="cpu", seed=0)
    autocast = make("autocast:dtype=bfloat16")
    with InlineLauncher.on_device_of(workload).open(autocast) as session:
        seen.clear()
        session.write_float64_reference(str(tmp_path / "values.pt"))
    assert set(seen) == {(torch.float32, True), (torch.float64, False)}


def test_the_errors_of_layers_are_the_same_without_a_profile(tmp_path):
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    workload = resolve(model, torch.rand(8, 16), device="cpu", seed=0)
    path = str(tmp_path / "values.pt")
    with InlineLauncher.on_device_of(workload).open(make("half:dtype=bfloat16")) as session:
        session.write_float64_reference(path)
        errors = session.layer_errors(path)
        assert [error.path for error in errors] == ["0", "1", "2", ""]
        assert errors == session.evidence(0.001, path).errors


def test_on_a_full_disk_only_the_profile_and_the_layers_errors_are_missing(tmp_path):
    workload = resolve(nn.Linear(64, 64), torch.rand(8, 64), device="cpu", seed=0)
    full = files_limited_to(1000)
    with InlineLauncher.on_device_of(workload).open(make("eager")) as session, full:
        found = session.evidence(0.001, None)
        for write in (session.write_output, session.write_float64_reference):
            with pytest.raises(OutputError, match="could not be written .*; free space there"):
                write(str(tmp_path / "values.pt"))
    assert found.unknown.keys() == {"profile"}
    assert "is incomplete" in found.unknown["profile"]
    assert found.flops
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_recorded_is_unknown_with_the_reason(monkeypatch):
    def broken(*_: object) -> object:
        raise RuntimeError("no profiler here")

    monkeypatch.setattr(profiler, "profiled", broken)
    found = evidence_of(nn.Linear(8, 8), torch.ones(2, 8))
    assert found.unknown == {"profile": "RuntimeError: no profiler here"}
    assert found.flops


def test_profiling_does_not_change_what_runs():
    """Hooks would switch the fast path of this layer off."""
    layer = nn.TransformerEncoderLayer(32, 4, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    found = evidence_of(model, torch.randn(2, 8, 32))
    assert any("_transformer_encoder_layer_fwd" in name for o in found.operations
               for name in (o.name, *o.parents))  # fmt: skip


def test_wrapped_modules_are_restored():
    model = Two()
    own = model.body.forward
    model.weight_forward = None
    with wrapped(model, lambda _, __, forward: lambda *args: forward(*args)):
        assert "forward" in vars(model.body)
    assert "forward" not in vars(model.body)
    assert model.body.forward == own


def test_a_forward_set_on_the_instance_is_restored():
    model = nn.Linear(2, 2)

    def theirs(x):
        return x + 1

    model.forward = theirs
    with wrapped(model, lambda _, __, forward: lambda x: forward(x)):
        assert model(torch.zeros(1)) == 1
    assert model.forward is theirs


def test_scripted_models_are_profiled_as_one_layer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
        found = evidence_of(scripted, torch.ones(2, 8))
    assert {o.layer for o in found.operations} == {""}


def test_each_layers_error_is_computed_against_float64(cnn, images):
    workload = resolve(cnn, images, device="cpu", seed=0)
    expected = layer_outputs_in_float64(workload)
    model = workload.make_model()

    def call():
        with torch.inference_mode():
            return model(images)

    found = {e.path: e for e in layer_errors(call, model, images.shape[0], expected)}
    assert list(found)[-1] == ""
    assert all(0 <= error.relative_l2 < 1e-5 for error in found.values())
    half = model.to(torch.bfloat16)
    coarse = layer_errors(lambda: half(images.bfloat16()), half, images.shape[0], expected)
    assert all(e.relative_l2 > 1e-4 for e in coarse if e.relative_l2)


def test_one_thread_compares_layers_as_several_wait_for_each_other_on_a_busy_host(cnn, images):
    """In `tune` on an H200, 16 threads took more than 20 s for the 460 samples of BERT-base."""
    workload = resolve(cnn, images, device="cpu", seed=0)
    expected, model = layer_outputs_in_float64(workload), workload.make_model()
    with threads(3):
        with torch.no_grad(), ThreadsOfOperations() as operations:
            layer_errors(lambda: model(images), model, images.shape[0], expected)
        assert torch.get_num_threads() == 3
    assert operations.threads["convolution"] == {3}
    assert operations.threads["index"] == operations.threads["sub"] == {1}


def test_the_error_of_a_layers_input_is_that_of_the_code_before_it():
    class Summing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            y = self.first(x)
            for _ in range(40):
                y = y + 1e-3 * y  # each sum is rounded to what it was
            return self.last(y)

    model, x = Summing(), torch.randn(64, 8)
    expected = layer_outputs_in_float64(resolve(model, x, device="cpu", seed=0))
    half = model.to(torch.bfloat16)
    with torch.inference_mode():
        found = layer_errors(lambda: half(x.bfloat16()), half, 64, expected)
    first, last, whole = found
    assert (first.path, last.path, whole.path) == ("first", "last", "")
    assert first.input_relative_l2 < 5e-3
    assert last.input_relative_l2 > 2e-2
    assert whole.input_relative_l2 is None


def test_errors_are_right_where_tensor_cpu_is_patched_to_cast(cnn, images, monkeypatch):
    """Apex O1 does so with tensors of a GPU."""
    model = cnn.eval()
    double = copy.deepcopy(model).double()
    expected = layer_outputs(lambda: double(images.double()), double, images.shape[0])
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: self.float().mul(2))
    found = layer_errors(lambda: model(images), model, images.shape[0], expected)
    assert all(error.relative_l2 < 1e-5 for error in found)


def test_the_samples_of_all_layers_are_read_at_once(monkeypatch):
    """Each read from a GPU waits for the other processes that use it."""
    read, to = [], torch.Tensor.to

    def reading(self, *args, **options):
        read.extend(one for one in args if isinstance(one, torch.device))
        return to(self, *args, **options)

    monkeypatch.setattr(torch.Tensor, "to", reading)
    model, x = nn.Sequential(*[nn.Linear(8, 8) for _ in range(5)]), torch.rand(4, 8)
    with torch.no_grad():
        found = layer_outputs(lambda: model(x), model, 4)
        assert read == [torch.device("cpu")]
        assert torch.equal(found["4"].values.reshape(2, 8), model(x)[:2].double())
        assert found["4"].max_abs == float(model(x).abs().max())
    assert torch.equal(found["0 (input)"].first, x[0].double())


class Operations(TorchDispatchMode):
    """Counts the operations that compute something, as kernels of a GPU would."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        is_view = any(result.alias_info is not None for result in operation._schema.returns)
        is_read = operation is torch.ops.aten._local_scalar_dense.default  # of a copy on the host
        self.count += not is_read and (not is_view or operation._schema.name.endswith("_"))
        return operation(*args, **(kwargs or {}))


def test_a_sample_takes_few_operations():
    """Each is a kernel on a GPU, for each layer."""
    counts = []
    for layers in (2, 12):
        model = nn.Sequential(*[nn.Linear(8, 8).half() for _ in range(layers)])
        with torch.no_grad(), Operations() as own:
            model(torch.rand(4, 8).half())
        with torch.no_grad(), Operations() as sampled:
            layer_outputs(lambda model=model: model(torch.rand(4, 8).half()), model, 4)
        counts.append(sampled.count - own.count)
    inputs_and_outputs = 2 * 10
    assert (counts[1] - counts[0]) / inputs_and_outputs <= 10


def test_an_overflow_is_counted_in_the_layer_where_it_begins():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    for part in model:
        nn.init.constant_(part.weight, 100.0)
    x = torch.full((4, 8), 100.0)
    expected = layer_outputs_in_float64(resolve(model, x, device="cpu", seed=0))
    half = model.half()
    found = {e.path: e for e in layer_errors(lambda: half(x.half()), half, 4, expected)}
    assert found["0"].nonfinite_count == 4 * 8
    assert found["0"].reference_max_abs == pytest.approx(80_000)


def test_infinities_of_masks_are_not_counted_as_overflow():
    class Masked(nn.Module):
        def forward(self, x):
            return x.masked_fill(x < 0, float("-inf"))

    model, x = nn.Sequential(Masked(), nn.Softmax(1)), torch.randn(16, 8)
    expected = layer_outputs_in_float64(resolve(model, x, device="cpu", seed=0))
    assert {e.nonfinite_count for e in layer_errors(lambda: model(x), model, 16, expected)} == {0}


@pytest.mark.parametrize("by_name", [True, False])
def test_a_float32_mask_that_forward_makes_is_right_in_the_float64_attention(by_name):
    """The fused kernel of a CPU misreads a float32 mask beside a float64 query."""

    class Attention(nn.Module):
        def forward(self, x):
            mask = torch.zeros(64, 64)
            attention = nn.functional.scaled_dot_product_attention
            return attention(x, x, x, attn_mask=mask) if by_name else attention(x, x, x, mask)

    model, x = Attention(), torch.rand(2, 4, 64, 16)
    expected = layer_outputs_in_float64(resolve(model, x, device="cpu", seed=0))
    (error,) = layer_errors(lambda: model(x), model, 2, expected)
    assert error.relative_l2 < 1e-6


def test_an_overflow_in_an_item_that_is_not_sampled_is_counted():
    model, x = nn.Sequential(nn.Linear(8, 8, bias=False)), torch.ones(16, 8)
    nn.init.constant_(model[0].weight, 100.0)
    x[9] = 1000
    expected = layer_outputs_in_float64(resolve(model, x, device="cpu", seed=0))
    half = model.half()
    found = {e.path: e for e in layer_errors(lambda: half(x.half()), half, 16, expected)}
    assert found["0"].nonfinite_count == 8


def test_a_model_that_casts_to_16_bits_by_itself_is_not_rounded_in_float64():
    class Rounded(nn.Module):
        def forward(self, x):
            return (x.bfloat16() * 3).to(x.dtype)

    model, x = Rounded(), torch.rand(4, 64)
    expected = layer_outputs_in_float64(resolve(model, x, device="cpu", seed=0))
    (error,) = layer_errors(lambda: model(x), model, 4, expected)
    assert error.relative_l2 > 1e-3


class Weights(nn.Module):
    """Softmax over what a mask leaves; each item has a mask of its own."""

    def forward(self, x, mask):
        return x.masked_fill(mask, float("-inf")).softmax(-1)


class Across(nn.Module):
    """The same over products of items, so that all of them are compared."""

    def forward(self, x, mask):
        return (x @ x.mT).masked_fill(mask, float("-inf")).softmax(-1)


@pytest.mark.parametrize("model", [Weights(), Across()])
def test_an_item_of_which_a_mask_leaves_nothing_is_no_overflow(model):
    x, mask = torch.rand(8, 8), torch.zeros(8, 8, dtype=torch.bool)
    mask[5] = True
    workload = resolve(model, (x, mask), device="cpu", seed=0)
    own = layer_outputs(lambda: model(x, mask), model, 8)
    assert needs_every_item(own)
    expected = layer_outputs_in_float64(workload, every_item=True)
    (error,) = layer_errors(lambda: model(x, mask), model, 8, expected)
    assert error.nonfinite_count == 0


def test_flops_are_counted_where_a_module_is_given_a_parameter():
    model = nn.utils.parametrizations.weight_norm(nn.Linear(64, 64))
    x = torch.rand(8, 64)
    with torch.inference_mode():
        found = counted(lambda: model(x), model, ())
    assert found["flops"] == 2 * 8 * 64 * 64


def test_layers_within_vmap_are_left_out_and_the_output_is_compared():
    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.member = nn.Linear(8, 8)

        def forward(self, x):
            return torch.vmap(self.member)(x)

    model, x = Ensemble(), torch.rand(4, 8)
    assert not evidence_of(model, x).unknown
    expected = layer_outputs_in_float64(resolve(model, x, device="cpu", seed=0))
    assert list(expected) == [""]
    assert layer_errors(lambda: model(x), model, 4, expected)[0].relative_l2 < 1e-6


def test_zeros_in_smaller_inputs_are_not_counted():
    class Two(nn.Module):
        def forward(self, ids, mask):
            return ids + mask

    ids, mask = torch.ones(4, 8, dtype=torch.int64), torch.zeros(4, 8)
    assert evidence_of(Two(), (ids, mask)).input_zero_share is None


def test_layers_of_compiled_models_are_not_profiled():
    model = nn.Sequential(nn.Linear(8, 8))
    assert eager_module(model) is model
    model[0].compile(backend="eager")
    assert eager_module(model) is None


def test_a_process_in_which_torch_is_patched_computes_no_float64_reference(monkeypatch):
    monkeypatch.setattr(float64_reference, "foreign_functions", lambda: ("torch.conv2d",))
    workload = resolve(nn.Linear(2, 2), torch.ones(1, 2), device="cpu", seed=0)
    with pytest.raises(PreparationError, match="torch is patched in this process"):
        layer_outputs_in_float64(workload)


@pytest.mark.uncounted
@pytest.mark.parametrize("launcher", ["inline", "process"])
def test_every_row_has_evidence(cnn, images, launcher):
    found = pb.compare(
        cnn, images, backends=["half:dtype=bfloat16"], device="cpu", launcher=launcher, budget_s=6,
        effort="quick", evidence=True,
    )  # fmt: skip
    for row in found:
        assert row.evidence is not None
        assert row.evidence.operations
        assert [error.path for error in row.evidence.errors][-1] == ""
    assert json_format.from_json(found.to_json()) == found.data


def test_evidence_can_be_switched_off(cnn, images):
    found = pb.compare(
        cnn,
        images,
        backends=["eager"],
        device="cpu",
        launcher="inline",
        budget_s=0.1,
        evidence=False,
    )
    assert found["eager"].evidence is None


def test_a_module_that_fails_while_it_is_profiled_loses_only_its_layers(cnn, images):
    class WrongModule(Backend):
        name = "wrong-module"

        def prepare(self, model, inputs):
            import contextlib

            @contextlib.contextmanager
            def prepared():
                class Wrong(nn.Module):
                    def forward(self):
                        raise RuntimeError

                yield Prepared(inputs.bind(model), Wrong())

            return prepared()

    found = pb.compare(
        cnn,
        images,
        backends=[WrongModule()],
        reference=WrongModule(),
        device="cpu",
        launcher="inline",
        effort="quick",
        evidence=True,
        budget_s=6,
    )
    assert found["wrong-module"].evidence.operations


def test_items_that_depend_on_each_other_are_compared_as_a_whole_batch():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(8, 8)

        def forward(self, x):
            y = self.body(x)
            return y - y.mean(0, keepdim=True)

    model, x = Centred(), torch.randn(16, 8)
    expected = layer_outputs_in_float64(resolve(model, x, device="cpu", seed=0))
    found = {e.path: e for e in layer_errors(lambda: model(x), model, 16, expected)}
    assert found[""].relative_l2 < 1e-5


def test_a_model_with_indices_of_items_never_runs_with_fewer_items():
    """On a GPU, an index out of bounds would end the process's CUDA context."""
    batches = []

    class Gathered(nn.Module):
        def forward(self, x, index):
            batches.append(len(x))
            return torch.zeros_like(x).index_add(0, index, x)

    inputs = torch.randn(16, 8), torch.arange(16) % 7
    assert layer_outputs_in_float64(resolve(Gathered(), inputs, device="cpu", seed=0))
    assert set(batches) == {16}


def test_a_model_of_one_batch_size_is_compared_at_that():
    class Fixed(nn.Module):
        def forward(self, x):
            return x.view(16, 8) * 2

    model, x = Fixed(), torch.randn(16, 8)
    expected = layer_outputs_in_float64(resolve(model, x, device="cpu", seed=0))
    assert layer_errors(lambda: model(x), model, 16, expected)[-1].relative_l2 < 1e-6


def test_with_integer_outputs_only_layers_are_compared():
    class Classes(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(8, 8)

        def forward(self, x):
            return self.body(x).argmax(1)

    expected = layer_outputs_in_float64(
        resolve(Classes(), torch.randn(16, 8), device="cpu", seed=0)
    )
    assert list(expected) == ["body (input)", "body"]


class Filter(nn.Module):
    """A filter of complex weights, or of real ones that are seen as complex numbers."""

    def __init__(self, seen_as_complex=False, cast=None):
        super().__init__()
        weight = torch.randn(4, 4, 9, dtype=torch.cfloat)
        self.weight = nn.Parameter(torch.view_as_real(weight) if seen_as_complex else weight)
        self.cast = cast

    def forward(self, x):
        weight = self.weight if self.weight.is_complex() else torch.view_as_complex(self.weight)
        spectrum = torch.fft.rfft(x)
        spectrum = spectrum.to(self.cast) if self.cast else spectrum
        return torch.einsum("bcf,cdf->bdf", spectrum, weight)


class CastingInside(nn.Module):
    """Casts, makes tensors and holds tensors that are float32 whatever the model is cast to."""

    def __init__(self):
        super().__init__()
        self.scale, self.last = torch.ones(8), nn.Linear(8, 8)

    def forward(self, x):
        return self.last((x.to(torch.float32) * self.scale) @ torch.eye(8, dtype=torch.float32))


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (Filter(), torch.rand(4, 4, 16)),
        (Filter(seen_as_complex=True), torch.rand(4, 4, 16)),
        (Filter(cast=torch.complex64), torch.rand(4, 4, 16)),
        (CastingInside(), torch.rand(4, 8)),
    ],
    ids=["complex", "seen as complex", "cast to complex64", "cast to float32"],
)
def test_models_with_complex_numbers_or_own_casts_are_compared_with_float64(model, x):
    expected = layer_outputs_in_float64(resolve(model, x, device="cpu", seed=0))
    (*_, output) = layer_errors(lambda: model(x), model, 4, expected)
    assert 0 < output.relative_l2 < 1e-5
    assert torch.get_default_dtype() == torch.float32


def test_work_of_a_thread_that_the_call_starts_is_outside_of_operations():
    x = torch.rand(512, 512)
    with ThreadPoolExecutor(1) as pool:
        found = profiled(lambda: pool.submit(torch.mm, x, x).result(), 1e-3, x.device, None)
    assert found["outside_s"] > 0.9 * found["profiled_s"]
