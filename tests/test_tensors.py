import dataclasses
from collections import OrderedDict, UserDict, namedtuple
from types import MappingProxyType

import attrs
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from precisionbench.backends.base import cast_model
from precisionbench.torchtools.tensors import Inputs, arrange, cast, map_tensors, walk


@dataclasses.dataclass(frozen=True)
class Output:
    logits: torch.Tensor
    name: str = "x"


@attrs.frozen
class AttrsOutput:
    boxes: list


Pair = namedtuple("Pair", "left right")


class ModelOutput(OrderedDict):
    """A mapping as transformers' outputs are: keys are set one at a time only."""

    def update(self, *args, **kwargs):
        raise Exception("You cannot use `update` on a ModelOutput instance.")

    __delitem__ = setdefault = pop = update


def test_walk_finds_every_tensor_with_its_path():
    one = torch.ones(1)
    tree = {"a": [one, (one, 3)], "b": Output(one), "c": AttrsOutput([one]), "d": Pair(one, None)}
    assert [path for path, _ in walk(tree)] == [
        "['a'][0]",
        "['a'][1][0]",
        "['b'].logits",
        "['c'].boxes[0]",
        "['d'][0]",
    ]


def test_map_keeps_every_type_and_changes_nothing_in_place():
    one = torch.ones(1)
    output = ModelOutput()
    output["c"] = one
    tree = (
        {"a": one},
        UserDict(b=one),
        output,
        [one, "text"],
        Pair(one, 5),
        Output(one),
        AttrsOutput([one]),
    )
    doubled = map_tensors(lambda tensor: tensor * 2, tree)
    assert [type(value) for value in doubled] == [type(value) for value in tree]
    assert all(tensor.item() == 2 for _, tensor in walk(doubled))
    assert all(tensor.item() == 1 for _, tensor in walk(tree))
    assert doubled[3][1] == "text"


def test_a_read_only_mapping_becomes_a_dict():
    mapped = map_tensors(lambda tensor: tensor + 1, MappingProxyType({"a": torch.zeros(1)}))
    assert mapped["a"].item() == 1


def test_a_packed_sequence_keeps_its_sizes_as_integers():
    packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    cast = map_tensors(lambda tensor: tensor.half(), packed)
    assert cast.data.dtype == torch.float16
    assert cast.batch_sizes.dtype == torch.int64


def test_leaves_that_are_not_tensors_can_be_mapped_too():
    tree = ([3, torch.ones(1)], {"a": "text"})
    assert map_tensors(lambda tensor: tensor, tree, leaf=str)[0][0] == "3"
    assert Inputs(([3],), {"b": 4}).map(lambda t: t, leaf=str) == Inputs((["3"],), {"b": "4"})


def test_casting_keeps_complex_tensors_complex():
    (cast,) = Inputs((torch.full((1,), 1j, dtype=torch.complex128),)).to(torch.float16).args
    assert cast.dtype == torch.complex64
    assert cast.item() == 1j


def test_a_class_is_a_leaf():
    assert list(walk(Output)) == []
    assert map_tensors(lambda tensor: tensor, Output) is Output


def test_casting_leaves_integers_and_booleans_unchanged():
    inputs = Inputs((torch.ones(2, dtype=torch.int64), torch.ones(2)), {"m": torch.ones(1) > 0})
    dtypes = [tensor.dtype for _, tensor in inputs.to(torch.float16).tensors()]
    assert dtypes == [torch.int64, torch.float16, torch.bool]


def test_casting_leaves_floating_point_of_8_bits_as_it_is():
    """torch does not compute in it: it is a format of storage, as integer codes are."""
    codes = torch.ones(4).to(torch.float8_e4m3fn)
    model = nn.Linear(2, 2)
    model.register_buffer("codes", codes)
    assert Inputs((codes,)).to(torch.float64).args[0].dtype == torch.float8_e4m3fn
    assert cast_model(model, torch.bfloat16).codes.dtype == torch.float8_e4m3fn
    assert model.weight.dtype == torch.bfloat16


def test_channels_last_applies_to_four_and_five_dimensions_only():
    inputs = Inputs((torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4, 4), torch.rand(2, 3)))
    image, video, flat = inputs.in_memory_format("channels_last").args
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert video.is_contiguous(memory_format=torch.channels_last_3d)
    assert flat.is_contiguous()
    assert inputs.in_memory_format("contiguous").args[0].is_contiguous()


def test_a_memory_format_sets_the_strides_even_where_both_formats_allow_them():
    weight = torch.rand(8, 3, 1, 1)
    assert arrange(weight, "channels_last").stride() == (3, 1, 3, 3)
    assert arrange(arrange(weight, "channels_last"), "contiguous").stride() == weight.stride()
    assert arrange(weight, "contiguous") is weight


def test_bind_passes_positional_and_keyword_arguments():
    assert Inputs((1, 2), {"c": 3}).bind(lambda a, b, c: (a, b, c))() == (1, 2, 3)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize(
    ("before", "dtype", "after"),
    [
        (torch.complex64, torch.float64, torch.complex128),
        (torch.complex128, torch.float32, torch.complex64),
        (torch.complex64, torch.float16, torch.complex64),
        (torch.complex32, torch.float16, torch.complex32),
        (torch.complex32, torch.bfloat16, torch.complex64),
        (torch.complex32, torch.float32, torch.complex64),
    ],
)
def test_complex_numbers_get_the_precision_of_the_dtype_where_torch_has_it(before, dtype, after):
    tensor = torch.tensor([1 + 2j]).to(before)
    assert cast(tensor, dtype).dtype == after
    assert cast(tensor, dtype).to(torch.complex64) == 1 + 2j
