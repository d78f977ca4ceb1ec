from __future__ import annotations

import subprocess
import sys
from collections import UserDict
from pathlib import Path

import attrs
import cloudpickle
import numpy as np
import pytest
import torch
from torch import nn

from precisionbench.errors import WorkloadError
from precisionbench.measure.worker.pool import WorkerPool
from precisionbench.model import workload
from precisionbench.model.random_inputs import RandomInputs
from precisionbench.model.workload import resolve
from precisionbench.torchtools.saving import load
from precisionbench.torchtools.tensors import Inputs


@pytest.fixture
def module_file(tmp_path, monkeypatch):
    """Write a module into the working directory, which is what users import from."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        Path(f"{name}.py").write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_model_is_copied_and_put_into_eval_mode(cnn, images):
    cnn.train()
    copy = resolve(cnn, images, device="cpu").make_model()
    assert copy is not cnn
    assert not copy.training
    assert cnn.training
    copy.head.weight.data.zero_()
    assert cnn.head.weight.abs().sum() > 0


def test_a_worker_reads_its_own_model_each_time_it_builds_one():
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256))
    model[2].weight = model[0].weight  # tied
    with WorkerPool() as pool:
        file = pool.write_workload("workload.pt", resolve(model, torch.rand(1, 256), device="cpu"))
        read = load(file, mapped=True)
        first, second = read.built(), read.built()
        assert file.stat().st_size < 1e5  # the weights are in the other file
    first[0].weight.data.zero_()
    assert first[2].weight.data_ptr() == first[0].weight.data_ptr()
    assert second[0].weight.equal(model[0].weight)


def test_inputs_that_cannot_be_copied_are_named(cnn, images):
    class Handle:
        def __deepcopy__(self, memo):
            raise TypeError("a handle is one of its kind")

    with pytest.raises(WorkloadError, match=r"hold a Handle that cannot be copied \(TypeError: a "):
        resolve(cnn, (images, Handle()), device="cpu").make_inputs()


def test_inputs_are_copied(cnn, images):
    workload = resolve(cnn, images, device="cpu")
    workload.make_inputs().args[0].zero_()
    assert images.sum() > 0
    assert workload.make_inputs().args[0].sum() > 0


def test_a_factory_builds_the_same_model_in_any_random_state(images):
    workload = resolve(lambda: nn.Linear(4, 4), torch.rand(2, 4), device="cpu", seed=3)
    first = workload.make_model()
    torch.rand(10)
    assert torch.equal(first.weight, workload.make_model().weight)
    other = resolve(lambda: nn.Linear(4, 4), torch.rand(2, 4), device="cpu", seed=4)
    assert not torch.equal(first.weight, other.make_model().weight)


def test_a_factory_may_return_the_inputs_too():
    workload = resolve(lambda: (nn.Linear(4, 4), torch.rand(2, 4)), device="cpu")
    assert workload.info.batch_size == 2
    assert workload.info.parameters == 20


def test_inputs_may_come_from_a_factory_which_is_called_once(cnn):
    calls = []
    workload = resolve(cnn, lambda: calls.append(1) or torch.rand(2, 3, 8, 8), device="cpu")
    workload.make_inputs()
    workload.make_inputs()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("inputs", "args", "kwargs"),
    [
        (torch.rand(2, 4), 1, []),
        ((torch.rand(2, 4), 3), 2, []),
        ({"x": torch.rand(2, 4)}, 0, ["x"]),
        (UserDict(x=torch.rand(2, 4)), 0, ["x"]),  # what transformers' tokenizers give
        (Inputs((torch.rand(2, 4),), {"y": 1}), 1, ["y"]),
    ],
    ids=["tensor", "tuple", "dict", "mapping", "Inputs"],
)
def test_inputs_of_every_form(inputs, args, kwargs):
    workload = resolve(nn.Identity(), inputs, device="cpu")
    assert len(workload.inputs.args) == args
    assert list(workload.inputs.kwargs) == kwargs
    assert workload.info.batch_size == 2


def test_the_batch_of_a_list_of_images_is_its_length(cnn):
    images = ([torch.rand(3, 8, 8), torch.rand(3, 9, 9)],)
    assert resolve(cnn, images, device="cpu").info.batch_size == 2


def test_a_given_batch_size_takes_precedence():
    sequence_first = torch.rand(7, 2, 4)
    assert resolve(nn.LSTM(4, 4), sequence_first, device="cpu", batch_size=2).info.batch_size == 2


def test_a_given_batch_size_may_be_smaller_than_the_first_dimension():
    """Graphs are batched as rows of nodes."""
    nodes = torch.rand(100, 4)
    assert resolve(nn.Linear(4, 4), nodes, device="cpu", batch_size=8).info.batch_size == 8


def test_the_batch_of_a_list_given_by_name_is_its_length():
    inputs = {"images": [torch.rand(3, 8, 8)] * 5, "scale": torch.rand(3)}
    workload = resolve(nn.Identity(), inputs, device="cpu")
    assert workload.info.batch_size == 5
    assert len(workload.with_batch(2).inputs.kwargs["images"]) == 2


def test_a_numpy_integer_is_a_batch_size():
    workload = resolve(nn.Identity(), torch.rand(4, 2), device="cpu", batch_size=np.int32(2))
    assert (workload.info.batch_size, type(workload.info.batch_size)) == (2, int)


def test_inputs_without_a_batch_have_no_smaller_batch():
    nodes = torch.rand(100, 4)
    with pytest.raises(WorkloadError, match="holds 8 items, so there is no batch"):
        resolve(nn.Identity(), nodes, device="cpu", batch_size=8).with_batch(4)


def test_a_tuple_as_first_argument_is_not_a_batch():
    pair = (torch.rand(5, 3), torch.rand(5, 3))
    assert resolve(nn.Identity(), (pair,), device="cpu").info.batch_size == 5


def test_a_tensor_without_dimensions_has_no_batch(cnn):
    assert resolve(nn.Identity(), torch.tensor(1.0), device="cpu").info.batch_size is None


def test_a_packed_sequence_is_one_argument():
    packed = nn.utils.rnn.pack_sequence([torch.rand(3, 4), torch.rand(2, 4)])
    workload = resolve(nn.LSTM(4, 4), packed, device="cpu")
    assert len(workload.inputs.args) == 1
    assert workload.info.batch_size == 2


def test_a_smaller_batch_slices_batched_tensors_only():
    inputs = Inputs((torch.rand(8, 3), [1, 2, 3, 4, 5, 6, 7, 8]), {"bias": torch.rand(3)})
    smaller = resolve(nn.Identity(), inputs, device="cpu").with_batch(2)
    assert smaller.inputs.args[0].shape == (2, 3)
    assert len(smaller.inputs.args[1]) == 2
    assert smaller.inputs.kwargs["bias"].shape == (3,)
    assert smaller.info.batch_size == 2


def test_a_function_is_found_by_module_and_name(module_file):
    module_file(
        "my_models",
        "import torch\n"
        "def make(): return torch.nn.Linear(3, 3), torch.rand(5, 3)\n"
        "def sized(batch_size=1): return torch.nn.Linear(3, 3), torch.rand(batch_size, 3)\n"
        "ready = torch.nn.Linear(3, 3)\n",
    )
    path = list(sys.path)
    assert resolve("my_models:make", device="cpu").info.batch_size == 5
    assert resolve("my_models:sized", device="cpu", batch_size=7).info.inputs[0].shape == (7, 3)
    assert resolve("my_models:ready", torch.rand(2, 3), device="cpu").info.parameters == 12
    assert sys.path == path
    with pytest.raises(WorkloadError, match="'my_models:make' has no parameter batch_size; add a"):
        resolve("my_models:make", device="cpu", batch_size=7)


@pytest.mark.parametrize("default", ["8", "None"])
def test_the_default_of_a_functions_batch_size_is_kept(module_file, default):
    module_file(
        "with_a_default",
        "import torch\n"
        f"def make(batch_size={default}):\n"
        "    return torch.nn.Linear(3, 3), torch.rand(batch_size or 8, 3)\n"
        "def needs(batch_size):\n"
        "    return torch.nn.Linear(3, 3), torch.rand(batch_size, 3)\n",
    )
    assert resolve("with_a_default:make", device="cpu").info.batch_size == 8
    assert resolve("with_a_default:make", device="cpu", batch_size=3).info.batch_size == 3
    assert resolve("with_a_default:needs", device="cpu").info.batch_size == 4
    from with_a_default import make, needs

    assert resolve(make, device="cpu").info.batch_size == 8
    assert resolve(make, device="cpu", batch_size=3).info.batch_size == 3
    assert resolve(needs, device="cpu", batch_size=3).info.batch_size == 3


MODELS_OF_A_FILE = """
import torch
from a_neighbour import WIDTH

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, 2)

    def forward(self, x):
        import another_neighbour
        return self.layer(x)

def make(batch_size=8):
    return Net(), torch.rand(batch_size, WIDTH)

ready = Net()
"""


@pytest.fixture
def model_file(tmp_path, module_file) -> str:
    """A file of models in a folder that is not on the import path, with neighbours."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "json.py").write_text(MODELS_OF_A_FILE)  # the name of a module of Python
    (folder / "a_neighbour.py").write_text("WIDTH = 3\n")
    (folder / "another_neighbour.py").write_text("")
    return "a folder/json.py"


def test_a_model_is_found_in_a_file_by_its_path(model_file):
    path, modules = list(sys.path), sys.modules["json"]
    made = resolve(f"{model_file}:make", device="cpu")
    assert (made.info.model, made.info.batch_size) == (f"{model_file}:make", 8)
    assert resolve(f"{model_file}:make", device="cpu", batch_size=2).info.batch_size == 2
    inputs = RandomInputs(((3,),), 5)
    for name in ("Net", "ready"):
        found = resolve(f"{model_file}:{name}", inputs, device="cpu")
        assert found.info.inputs[0].shape == (5, 3)
        assert found.make_model() is not found.make_model()
    assert (sys.path, sys.modules["json"]) == (path, modules)


@pytest.mark.slow  # a process of its own
def test_another_process_builds_the_model_of_a_file(model_file, tmp_path):
    build = resolve(f"{model_file}:make", device="cpu").build
    code = "import pickle, sys; print(type(pickle.load(sys.stdin.buffer)()[0]).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], input=cloudpickle.dumps(build), capture_output=True, cwd="/"
    )
    assert done.stdout == b"Net\n", done.stderr.decode()


def test_random_inputs_depend_on_the_seed_alone(model_file):
    first, second, other = (
        resolve(f"{model_file}:Net", RandomInputs(((3,),), 2), device="cpu", seed=seed).inputs
        for seed in (1, 1, 2)
    )
    assert torch.equal(first.args[0], second.args[0])
    assert not torch.equal(first.args[0], other.args[0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/file.py:make", "there is no file '"),
        ("broken.py:make", "broken.py' cannot be imported (ZeroDivisionError: division by zero)"),
        ("broken.py:make", "; correct the module; python "),
        ("missing.py:make", "install the package that has 'no_such_package'"),
        ("part.py:make", "name a module of a package as 'package.module:function', not by its"),
        ("a folder/json.py:mkae", "has no function 'mkae'; did you mean 'make'?"),
        ("mine.py", "'mine.py' has no ':'; write 'mine.py:function' or 'mine.py:Class'"),
        ("a folder/json.py:Net", "give inputs (--input-shape on the command line)"),
    ],
)
def test_a_mistake_in_the_name_of_a_file_is_a_sentence(model_file, name, message):
    Path("broken.py").write_text("1 / 0\n")
    Path("missing.py").write_text("import no_such_package\n")
    Path("part.py").write_text("from . import other\n")
    with pytest.raises(WorkloadError) as caught:
        resolve(name, device="cpu")
    assert message in str(caught.value)


def test_a_function_may_import_from_the_working_directory_when_it_is_called(module_file):
    module_file("late_part", "import torch\nmodel = torch.nn.Linear(3, 3)\n")
    module_file(
        "late_models",
        "import torch\ndef make():\n    import late_part\n"
        "    return late_part.model, torch.rand(5, 3)\n",
    )
    assert resolve("late_models:make", device="cpu").info.batch_size == 5


def test_a_module_that_exits_the_program_is_an_error(module_file):
    module_file("ends", "import sys\nsys.exit('usage: ends')\n")
    with pytest.raises(WorkloadError, match=r"'ends' cannot be imported \(SystemExit: usage: ends"):
        resolve("ends:make", device="cpu")


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_scripted_and_exported_models_through_a_factory(images):
    class Plain(nn.Module):
        def forward(self, x):
            return torch.relu(x)

    scripted = resolve(lambda: torch.jit.trace(Plain(), images), images, device="cpu")
    assert scripted.make_model()(images).shape == images.shape
    exported = resolve(lambda: torch.export.export(Plain(), (images,)), images, device="cpu")
    assert exported.make_model()(images).shape == images.shape


class Uncopyable(nn.Linear):
    def __deepcopy__(self, memo):
        raise TypeError("no copies")


class NoCopy(nn.Linear):
    def __deepcopy__(self, memo):
        return self


def compiled_in_place() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].compile(backend="eager")
    return model


async def coroutine() -> nn.Module:
    return nn.Linear(2, 2)


# Arguments whose making imports torch.compile, which takes seconds, are made by a function.
BAD = {
    "no colon": (
        ("resnet50",),
        {},
        "the model 'resnet50' has no ':'; write 'torchvision:resnet50'",
    ),
    "unknown torchvision model": (
        ("torchvision:resnet51",),
        {},
        "torchvision has no model 'resnet51'; did you mean 'resnet50'?",
    ),
    "unknown module": (
        ("no_such_module:f",),
        {},
        "the module 'no_such_module' cannot be imported (ModuleNotFoundError: No module named",
    ),
    "unknown function": (
        ("math:cosh2",),
        {},
        "the module 'math' has no function 'cosh2'; did you mean 'cosh'?",
    ),
    "two models": (
        ([nn.Linear(2, 2), nn.Linear(2, 2)], torch.rand(2, 2)),
        {},
        "the model is a list; give several models in a mapping, such as {'old': model, 'new': ",
    ),
    "several batch sizes": (
        ("torchvision:resnet18",),
        {"batch_size": [1, 2]},
        "batch_size is [1, 2]; give a whole number from 1 to 2**63 - 1, or a row of each, such as",
    ),
    "not a model": ((3,), {}, "the model is an int; give an nn.Module, a function"),
    "nothing after the colon": (
        ("mine.py:",),
        {},
        "the model 'mine.py:' has nothing after the ':'; write 'mine.py:function' or",
    ),
    "no name of torchvision": (
        ("torchvision:",),
        {},
        "the model 'torchvision:' has nothing after the ':'; write 'torchvision:resnet50'",
    ),
    "nothing before the colon": (
        (":make",),
        {},
        "the model ':make' has nothing before the ':'; write 'torchvision:make'",
    ),
    "two colons": (
        ("torchvision:resnet50:extra",),
        {},
        "'torchvision:resnet50' is neither a module nor a Python file; write 'torchvision:NAME'",
    ),
    "a file of another kind": (
        ("tests/tensorrt-rtx.txt:make",),
        {},
        "'tests/tensorrt-rtx.txt' is neither a module nor a Python file; write",
    ),
    "a file without its ending": (
        ("tests/small_model:make",),
        {},
        "write 'tests/small_model.py:function'",
    ),
    "a missing package": (
        ("no_such_package:f",),
        {},
        "check the name, or install the package that has 'no_such_package'",
    ),
    "factory of no model": (
        (lambda: 3, 3),
        {},
        "the function that builds the model returned an int; return",
    ),
    "factory of nothing": ((lambda: None, 3), {}, "that builds the model returned None; return"),
    "factory of too much": ((lambda: (1, 2, 3),), {}, "returned a tuple of 3 items; return"),
    "factory that is asynchronous": ((coroutine, 3), {}, "returned a coroutine; return"),
    "factory with arguments": (
        (lambda size: nn.Linear(size, size), 3),
        {},
        "missing 1 required positional argument: 'size'); give a function without arguments",
    ),
    "too much memory": (
        (nn.Linear(2, 2), lambda: torch.empty(10**14, 16)),
        {},
        "use a smaller model or smaller inputs",
    ),
    "factory that fails": (
        (lambda: 1 / 0, 3),
        {},
        "the model '<lambda>' cannot be built or copied (ZeroDivisionError: division by zero); "
        "correct the function that builds it; call it alone to see the traceback",
    ),
    "uncopyable": (
        (Uncopyable(2, 2), torch.rand(2, 2)),
        {},
        "cannot be built or copied (TypeError: no copies); give a function without arguments",
    ),
    "no inputs": ((nn.Linear(2, 2),), {}, "has no inputs; give inputs"),
    "a list": (
        (nn.Linear(2, 2), [torch.rand(2, 2)]),
        {},
        "did you mean the tuple `([...],)`",
    ),
    "inputs of no kind": ((nn.Linear(2, 2), 3.5), {}, "inputs is a float; give a tensor, a tuple"),
    "inputs without tensor": ((nn.Linear(2, 2), (1, 2)), {}, "inputs holds no tensor"),
    "inputs factory that fails": (
        (nn.Linear(2, 2), lambda: 1 / 0),
        {},
        "inputs cannot be built or copied (ZeroDivisionError",
    ),
    "meta inputs": (
        (nn.Linear(2, 2), torch.rand(2, 2, device="meta")),
        {},
        "is on 'meta' and holds no data",
    ),
    "meta device": ((nn.Linear(2, 2), torch.rand(2, 2)), {"device": "meta"}, "computes nothing"),
    "meta model": (
        (nn.Linear(2, 2, device="meta"), torch.rand(2, 2)),
        {"device": "cpu"},
        "the model's weight is on 'meta' and holds no data; load its weights first",
    ),
    "keys that are no names": (
        (nn.Linear(2, 2), {1: torch.rand(2, 2)}),
        {},
        "inputs has the key 1, and names of keyword arguments must be text",
    ),
    "nested": (
        lambda: (
            nn.Linear(2, 2),
            torch.nested.nested_tensor([torch.rand(2, 2)], layout=torch.jagged),
        ),
        {},
        "inputs[0] is a nested tensor, which has no single shape; give a padded tensor",
    ),
    "copy that is none": (
        (NoCopy(2, 2), torch.rand(2, 2)),
        {},
        "copy.deepcopy of the model shares weights with the original; pass a function",
    ),
    "compiled in place": (
        lambda: (compiled_in_place(), torch.rand(2, 2)),
        {},
        "model.compile() is lost in the copy that each backend gets; pass torch.compile(",
    ),
    "factory that ends the program": (
        (lambda: sys.exit("bye"), 3),
        {},
        "the model '<lambda>' cannot be built or copied (SystemExit: bye)",
    ),
    "unknown device": (
        (nn.Linear(2, 2), torch.rand(2, 2)),
        {"device": "gpu"},
        "the device 'gpu' cannot be used",
    ),
    "batch of none": (
        ("torchvision:resnet18",),
        {"batch_size": 0},
        "batch_size is 0; give a whole number from 1 to 2**63 - 1",
    ),
    "more items than there are": (
        (nn.Linear(2, 2), torch.rand(4, 2)),
        {"batch_size": 64},
        "batch_size is 64, but the inputs hold 4 items; make the inputs of that size",
    ),
    "no items": ((nn.Linear(2, 2), torch.rand(0, 2)), {}, "a batch of 0 items; give at least one"),
    "lazy": (
        (nn.LazyLinear(2), torch.rand(4, 2)),
        {},
        "the model's weight is lazy and has no shape yet; call the model once",
    ),
    "batch of a half": (("torchvision:resnet18",), {"batch_size": 1.5}, "batch_size is 1.5"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_invalid_workload_raises_with_reason_and_remedy(case):
    args, kwargs, message = BAD[case]
    args = args() if callable(args) else args
    with pytest.raises(WorkloadError) as caught:
        resolve(*args, **{"device": "cpu", **kwargs}).make_model()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_error_of_a_module_that_fails_to_import_is_chained(module_file):
    module_file("broken_module", "raise RuntimeError('on purpose')")
    with pytest.raises(WorkloadError, match="on purpose") as caught:
        resolve("broken_module:f", device="cpu")
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(cnn, images):
    with pytest.raises(WorkloadError, match="the device 'cuda' cannot be used"):
        resolve(cnn, images, device="cuda")


def test_without_torchvision_its_models_are_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(WorkloadError, match=r"pip install torchvision torch==\d+\.\d+\.\d+ \("):
        resolve("torchvision:resnet18", device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "squeezenet1_1",
        "inception_v3",
        "vit_b_16",
        "ssdlite320_mobilenet_v3_large",
        "lraspp_mobilenet_v3_large",
        "mc3_18",
        "raft_small",
    ],
)
def test_torchvision_models_of_every_family_run_on_the_inputs_made_for_them(name):
    workload = resolve(f"torchvision:{name}", device="cpu", batch_size=2)
    with torch.inference_mode():
        workload.make_inputs().bind(workload.make_model())()
    assert workload.info.batch_size == 2


class Masked(nn.Module):
    """Keeps a tensor that is neither a parameter nor a buffer."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.inner.mask = torch.ones(2, device=device)


def test_plain_tensor_attributes_stay_on_the_users_device():
    """A worker gets the model on the CPU; `model.to` passes over such tensors."""
    device = torch.device("meta")
    assert workload._attached(Masked("meta"), device) == (("inner", "mask"),)
    assert workload._attached(Masked("cpu"), device) == ()
    assert workload._attached(Masked("cpu"), torch.device("cpu")) == ()
    resolved = resolve(Masked("cpu"), torch.rand(1, 2), device="cpu", seed=0)
    elsewhere = attrs.evolve(resolved, device=device, attached=(("inner", "mask"),))
    assert elsewhere.make_model().inner.mask.device == device
