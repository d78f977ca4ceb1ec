"""Objects among the inputs: their tensors are cast, moved and copied, and growth is reported."""

from __future__ import annotations

import dataclasses
import threading
from collections import namedtuple

import attrs
import pytest
import torch
from torch import nn

from precisionbench.errors import WorkloadError
from precisionbench.model.workload import resolve
from precisionbench.probes.growth import growth_warning, state_bytes
from precisionbench.probes.profiler import zero_share
from precisionbench.torchtools.tensors import Inputs, walk


class Cache:
    def __init__(self, *keys):
        self.keys = keys[0]
        self.more = list(keys[1:])
        self.step = 3


class Slotted:
    __slots__ = ("keys", "unset")

    def __init__(self, keys):
        self.keys = keys


class Layered:
    """As transformers' DynamicCache: a list of layers, each with its keys and values."""

    def __init__(self, keys):
        self.layers = [Cache(keys, keys.clone()) for _ in range(2)]


class Circular:
    def __init__(self, keys):
        self.keys = keys
        self.owner = Layered(keys)
        self.owner.cache = self


class ModuleCache(nn.Module):
    def __init__(self, keys):
        super().__init__()
        self.register_buffer("keys", keys)


@dataclasses.dataclass
class State:
    cache: Cache


@attrs.define
class AttrsState:
    cache: dict


Pair = namedtuple("Pair", "left right")
MAKERS = {
    "object": Cache,
    "slots": Slotted,
    "list of layers": Layered,
    "circle": Circular,
    "module": ModuleCache,
    "dataclass": lambda keys: State(Cache(keys)),
    "attrs": lambda keys: AttrsState({"a": Cache(keys)}),
    "named tuple": lambda keys: Pair(Cache(keys), 1),
    "list in a dict": lambda keys: {"layers": [Cache(keys)]},
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_tensors_in_objects_are_cast_and_the_users_stay_as_they_are(make):
    given = make(torch.ones(4, 8))
    inputs = Inputs((torch.rand(4, 8), given))
    cast = inputs.to(torch.bfloat16)
    assert {tensor.dtype for _, tensor in cast.tensors()} == {torch.bfloat16}
    assert {tensor.dtype for _, tensor in inputs.tensors()} == {torch.float32}
    assert type(cast.args[1]) is type(given)
    assert len(cast.tensors()) == len(inputs.tensors()) > 1


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_each_backend_gets_its_own_objects(make):
    workload = resolve(nn.Identity(), (torch.rand(4, 8), make(torch.ones(4, 8))), device="cpu")
    for _, tensor in workload.make_inputs().tensors():
        tensor.zero_()
    assert all(tensor.any() for _, tensor in workload.make_inputs().tensors())


def test_paths_name_the_attribute():
    paths = [path for path, _ in Inputs((1, Layered(torch.ones(1)))).tensors()]
    assert paths[:2] == ["[1].layers[0].keys", "[1].layers[0].more[0]"]


def test_tensors_that_attributes_share_are_shared_in_the_copy():
    keys = torch.ones(2)
    (copy,) = Inputs((Cache(keys, keys),)).to(torch.float16).args
    assert copy.keys is copy.more[0]
    assert copy.step == 3


def test_a_smaller_batch_is_one_of_the_cache_too():
    inputs = (torch.rand(4, 8), Cache(torch.ones(4, 2, 8), torch.ones(3)))
    smaller = resolve(nn.Identity(), inputs, device="cpu").with_batch(2).inputs
    assert [tuple(tensor.shape) for _, tensor in smaller.tensors()] == [(2, 8), (2, 2, 8), (3,)]


def test_a_cache_keeps_its_memory_format():
    keys = torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last)
    given = Inputs((Cache(keys),)).in_memory_format("contiguous")
    assert given.args[0].keys.stride() == keys.stride()


def test_outputs_are_not_searched_for_objects():
    assert list(walk(Cache(torch.ones(1)))) == []


def test_a_cache_of_zeros_is_not_a_constant_input():
    assert zero_share(Inputs((torch.ones(2), Cache(torch.zeros(100))))) == 0.0


def test_an_attribute_that_cannot_be_copied_is_named():
    cache = Cache(torch.ones(4, 8))
    cache.lock = threading.Lock()
    with pytest.raises(WorkloadError, match="copied, because of its attribute 'lock', a lock"):
        resolve(nn.Identity(), (torch.rand(4, 8), cache), device="cpu")


class Attend(nn.Module):
    def forward(self, x, cache):
        cache.keys = torch.cat([cache.keys, x])
        return x @ cache.keys.T


class Remembering(nn.Module):
    """What it remembers is in a list, a buffer, or a dict of one of its modules."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.seen, self.named = kind, [], {}
        self.register_buffer("state", torch.zeros(1, 8))

    def forward(self, x):
        if self.kind == "list":
            self.seen.append(x.clone())
        if self.kind == "buffer":
            self.state = torch.cat([self.state, x])
        if self.kind == "dict":
            self.named[len(self.named)] = x.clone()
        if self.kind == "once" and not self.seen:
            self.seen.append(x.clone())
        return x


def warning(call, module) -> str:
    call()
    before = state_bytes(call, module)
    for _ in range(3):
        call()
    return growth_warning(before, state_bytes(call, module), 3)


def test_a_cache_that_grows_is_reported_with_its_sizes():
    model, cache = Attend(), Cache(torch.ones(4, 8))
    call = Inputs((torch.rand(4, 8),), {"cache": cache}).bind(model)
    assert warning(call, model).startswith(
        "inputs['cache'].keys grows with each call: from 256 B to 640 B in 3 warm-up calls"
    )


def test_a_list_among_the_inputs_that_grows_is_reported_as_a_whole():
    class Appending(nn.Module):
        def forward(self, x, seen):
            seen.append(x + 1)
            return x

    call = Inputs((torch.rand(4, 8), [])).bind(model := Appending())
    assert warning(call, model).startswith("inputs[1] grows with each call: from 128 B to 512 B")


@pytest.mark.parametrize(
    ("kind", "path"),
    [("list", "model.0.seen"), ("buffer", "model.0.state"), ("dict", "model.0.named")],
)
def test_a_model_that_grows_is_reported(kind, path):
    model = nn.Sequential(Remembering(kind))
    call = Inputs((torch.rand(4, 8),)).bind(model)
    assert warning(call, model).startswith(f"{path} grows with each call: ")


@pytest.mark.parametrize("kind", ["nothing", "once"])
def test_what_only_the_first_call_creates_does_not_grow(kind):
    model = nn.Sequential(Remembering(kind))
    assert warning(Inputs((torch.rand(4, 8),)).bind(model), model) == ""


def test_a_cache_of_fixed_size_does_not_grow():
    class Static(nn.Module):
        def forward(self, x, cache):
            cache.keys[:4] = x
            return x @ cache.keys.T

    call = Inputs((torch.rand(4, 8), Cache(torch.ones(64, 8)))).bind(model := Static())
    assert warning(call, model) == ""
