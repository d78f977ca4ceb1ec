"""What identifies a model, a metric and the data, so that `tune` knows whether they changed."""

from __future__ import annotations

import copy
import functools
import io
import os
import re
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from precisionbench.backends.model_key import model_key
from precisionbench.model import fingerprint


def constant(value):
    def metric(outputs, batch):
        return value

    return metric


class Metric:
    def __init__(self, value):
        self.value = value

    def __call__(self, outputs, batch):
        return self.value


def with_helper(helper):
    """A metric of a module in which it calls a function of this name."""
    namespace = {"__name__": "metrics"}
    exec(f"def helper(x): return {helper}\ndef metric(o, b): return helper(o)", namespace)
    return namespace["metric"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda o, b: 1.0, lambda o, b: 2.0),
        (lambda o, b: o.mean(), lambda o, b: o.sum()),
        (constant(1.0), constant(2.0)),
        (constant(torch.ones(2)), constant(torch.zeros(2))),
        (functools.partial(max, 1), functools.partial(max, 2)),
        (functools.partial(constant(1), 1), functools.partial(constant(2), 1)),
        (Metric(1.0), Metric(2.0)),
        (Metric(1.0).__call__, Metric(2.0).__call__),
        (with_helper("x"), with_helper("x + 1")),
        (constant(threading.Lock()), constant(threading.Lock())),  # what it holds is not known
    ],
)
def test_metrics_that_do_something_else_differ(one, other):
    assert fingerprint.code(one) != fingerprint.code(other)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lambda o, b: b in {"a", "b", "c"},
        lambda: constant(torch.ones(2)),
        lambda: Metric(1.0),
        lambda: with_helper("x"),
        lambda: functools.partial(max, 1),
        lambda: len,
    ],
)
def test_a_metric_that_is_defined_again_is_the_same(make):
    assert fingerprint.code(make()) == fingerprint.code(make())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((torch.ones(2), torch.zeros(2)), (torch.ones(2), torch.ones(2))),
        ((torch.ones(2), ["a"]), (torch.ones(2), ["b"])),
        ({"x": torch.ones(2), "y": 1}, {"x": torch.ones(2), "y": 2}),
    ],
)
def test_batches_with_other_labels_differ(one, other):
    assert fingerprint.batch(one) != fingerprint.batch(other)
    assert fingerprint.batch(one) == fingerprint.batch(one)


# Models


class Scaled(nn.Module):
    """A model that reads attributes of many kinds."""

    def __init__(self, held=1):
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.held = held

    def forward(self, features):
        return helper(self.body(features)) * self.held


class Other(Scaled):
    def forward(self, features):
        return helper(self.body(features)) - self.held


class Settings:
    def __init__(self, count):
        self.count = count
        self.names = {"alpha", "beta", "gamma", "delta", "epsilon"}
        self.itself = self


def helper(x):
    return second_helper(x)


def second_helper(x):
    return x * FACTOR


FACTOR = 2.0


def seeded(make):
    torch.manual_seed(0)
    return make().eval()


def whole(model):
    return fingerprint.architecture(model) + fingerprint.weights(model)


def hooked(hook):
    model = Scaled()
    model.body.register_forward_hook(hook)
    return model


def before(hook):
    model = Scaled()
    model.body.register_forward_pre_hook(hook)
    return model


def adds(value):
    return lambda module, args, output: output + value


def layer(**options):
    return nn.TransformerEncoderLayer(8, 2, 8, **options)


class Repeated(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.count = count

    def forward(self, features):
        for _ in range(self.count):
            features = features * 2
        return features


OTHER_LAYERS = [
    (lambda: nn.MultiheadAttention(64, 8), lambda: nn.MultiheadAttention(64, 2)),
    (lambda: layer(activation="relu"), lambda: layer(activation="gelu")),
    (lambda: layer(norm_first=True), lambda: layer(norm_first=False)),
    (lambda: layer(batch_first=True), lambda: layer(batch_first=False)),
    (lambda: nn.Dropout(0.1), lambda: nn.Dropout(0.2)),
    (Scaled, Other),
    (Scaled, lambda: hooked(adds(1))),
    (lambda: hooked(lambda m, a, o: o + 1), lambda: hooked(lambda m, a, o: o - 1)),
    (lambda: before(lambda m, a: a), lambda: before(lambda m, a: None)),
    (lambda: torch.jit.script(nn.ReLU()), lambda: torch.jit.script(nn.GELU())),
    (
        lambda: torch.fx.symbolic_trace(Repeated(2)),
        lambda: torch.fx.symbolic_trace(Repeated(3)),
    ),
]


@pytest.mark.filterwarnings("ignore:.*is deprecated")
@pytest.mark.parametrize(("one", "other"), OTHER_LAYERS)
def test_other_code_or_other_options_of_layers_are_another_architecture(one, other):
    one, other = seeded(one), seeded(other)
    assert fingerprint.architecture(one) != fingerprint.architecture(other)


OTHER_VALUES = [
    (6, 3),
    (1.0, 2.0),
    (torch.ones(8), torch.zeros(8)),
    ([torch.ones(8)], [torch.zeros(8)]),
    ({"a": (1, [2])}, {"a": (1, [3])}),
    (Settings(1), Settings(2)),
    (np.ones(3), np.zeros(3)),
    ({"a", "b"}, {"a", "c"}),
    (nn.functional.relu, nn.functional.gelu),
    (torch.relu, torch.tanh),
    (functools.partial(torch.add, alpha=1), functools.partial(torch.add, alpha=2)),
    (Metric(1.0).__call__, Metric(2.0).__call__),
    (torch.float16, torch.bfloat16),
    (torch.eye(3).to_sparse(), (2 * torch.eye(3)).to_sparse()),
    ([nn.Dropout(0.1)], [nn.Dropout(0.2)]),  # not registered
]


@pytest.mark.parametrize(("one", "other"), OTHER_VALUES)
def test_models_that_hold_other_values_differ(one, other):
    one, other = seeded(lambda: Scaled(one)), seeded(lambda: Scaled(other))
    assert fingerprint.weights(one) != fingerprint.weights(other)
    assert fingerprint.architecture(one) == fingerprint.architecture(other)  # a call may change it


@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_attributes_of_torchscript_are_seen():
    one, other = torch.jit.script(Repeated(2)), torch.jit.script(Repeated(3))
    assert fingerprint.weights(one) != fingerprint.weights(other)
    assert whole(one) == whole(torch.jit.script(Repeated(2))) == whole(copy.deepcopy(one))


def test_what_hooks_hold_is_seen():
    assert whole(seeded(lambda: hooked(adds(1)))) != whole(seeded(lambda: hooked(adds(2))))


def test_functions_that_forward_calls_through_others_are_seen(monkeypatch):
    found = fingerprint.architecture(seeded(Scaled))
    monkeypatch.setitem(globals(), "second_helper", lambda x: x + 1)
    assert fingerprint.architecture(seeded(Scaled)) != found


def test_globals_that_forward_reads_through_others_are_seen(monkeypatch):
    found = fingerprint.weights(seeded(Scaled))
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert fingerprint.weights(seeded(Scaled)) != found


def test_a_function_that_forward_calls_in_another_module_is_seen(monkeypatch):
    mine = types.ModuleType("mine")
    exec("def helper(x): return x", vars(mine))
    monkeypatch.setitem(globals(), "mine", mine)

    class Calls(nn.Module):
        @torch.no_grad()  # whose wrapper is of torch
        def forward(self, features):
            return [mine.helper(one) for one in features]

    found = fingerprint.architecture(Calls())
    exec("def helper(x): return x + 1", vars(mine))
    assert fingerprint.architecture(Calls()) != found


CLEAN = re.compile("[^a-z]", re.IGNORECASE)
LOOSE = re.compile("[^a-z]")


def test_a_metric_that_reads_a_regular_expression_is_the_same_each_time():
    def strict(outputs, batch):
        return CLEAN.sub("", batch)

    def loose(outputs, batch):
        return LOOSE.sub("", batch)

    assert fingerprint.code(strict) == fingerprint.code(strict)
    other = types.FunctionType(strict.__code__, {**strict.__globals__, "CLEAN": LOOSE})
    assert fingerprint.code(strict) != fingerprint.code(other)
    assert fingerprint.code(loose) == fingerprint.code(loose)


def test_a_global_with_the_name_of_an_attribute_is_no_part_of_a_model(monkeypatch):
    class Wrap(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x):
            return self.inner(x).log()

    model = Wrap()
    before = fingerprint.architecture(model), fingerprint.weights(model)
    monkeypatch.setitem(globals(), "inner", 5)
    monkeypatch.setitem(globals(), "log", lambda x: x)
    assert (fingerprint.architecture(model), fingerprint.weights(model)) == before


def test_a_kept_engine_is_not_that_of_a_model_with_other_options():
    """Its weights and its text are the same."""
    one, other = nn.MultiheadAttention(8, 4), nn.MultiheadAttention(8, 2)
    other.load_state_dict(one.state_dict())
    assert repr(one) == repr(other)
    assert model_key({}, one) == model_key({}, copy.deepcopy(one))
    assert model_key({}, one) != model_key({}, other)


def test_the_mode_of_a_model_is_no_part_of_it():
    assert whole(seeded(Scaled)) == whole(seeded(Scaled).train())


STABLE = {
    "settings": lambda: Scaled(Settings(1)),
    "tensors": lambda: Scaled([torch.ones(3), {"a": torch.zeros(2)}]),
    "object": lambda: Scaled(object()),
    "functions": lambda: Scaled([nn.functional.gelu, helper, Metric(1.0).__call__, Settings]),
    "lstm": lambda: nn.LSTM(4, 4),
    "transformer": lambda: nn.TransformerEncoder(layer(batch_first=True), 2),
    "hooks": lambda: hooked(keep),
}


def keep(module, args, output):
    return output


def saved_and_loaded(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("name", STABLE)
def test_a_copy_or_a_second_model_is_the_same(name):
    model = seeded(STABLE[name])
    found = whole(model)
    assert whole(seeded(STABLE[name])) == found
    assert whole(copy.deepcopy(model)) == found
    assert whole(saved_and_loaded(model)) == found
    assert fingerprint.unread(model) == ""


def test_a_model_whose_tensors_were_called_is_the_same():
    model = seeded(Scaled)
    found = whole(model)
    model(torch.ones(1, 4))
    assert whole(model) == found


@pytest.mark.slow  # it imports torch in a process
def test_a_model_is_the_same_in_another_process():
    script = (
        "import test_fingerprint as t\n"
        "print(*(t.whole(t.seeded(make)) for make in t.STABLE.values()))\n"
        "print(t.fingerprint.code(t.Metric(t.Settings(1))))"
    )
    other = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    found = [whole(seeded(make)) for make in STABLE.values()]
    assert other.stdout.split() == [*found, fingerprint.code(Metric(Settings(1)))]


def test_what_cannot_be_read_is_another_model_in_the_journal_only():
    one, other = seeded(lambda: Scaled(threading.Lock())), seeded(lambda: Scaled(threading.Lock()))
    assert whole(one) == whole(other)
    assert fingerprint.unread(one) != fingerprint.unread(other) != ""


def test_objects_without_end_are_given_up():
    deep: list[object] = []
    for _ in range(500):
        deep = [deep]
    assert fingerprint.unread(Scaled(deep)) != ""


# What metrics read


TENSOR, TABLE, LIST = torch.ones(3), {"a": 1}, [1, 2]


class Bounds:
    least = 1


class WithMethod:
    def __call__(self, outputs, batch):
        return self.method()

    def method(self):
        return 1


@pytest.mark.parametrize(
    ("metric", "change"),
    [
        (lambda o, b: TENSOR.sum(), lambda m: m.setitem(globals(), "TENSOR", torch.zeros(3))),
        (lambda o, b: TABLE["a"], lambda m: m.setitem(TABLE, "a", 2)),
        (lambda o, b: [LIST[0] for _ in o], lambda m: m.setitem(globals(), "LIST", [9])),
        (lambda o, b: Bounds.least, lambda m: m.setattr(Bounds, "least", 2)),
        (lambda o, b: helper(o), lambda m: m.setitem(globals(), "FACTOR", 5.0)),
        (lambda o, b: helpers.one(o), lambda m: m.setattr(helpers, "one", lambda o: 2)),
        (WithMethod(), lambda m: m.setattr(WithMethod, "method", lambda self: 2)),
    ],
)
def test_what_a_metric_reads_and_calls_is_part_of_it(monkeypatch, metric, change):
    found = fingerprint.code(metric)
    assert fingerprint.code(metric) == found
    change(monkeypatch)
    assert fingerprint.code(metric) != found


helpers = types.ModuleType("helpers")
exec("def one(o): return 1", vars(helpers))


# Inputs


@pytest.mark.parametrize("other", [True, False, None, "a", 1, 1.0, [1, 2], [1, 3], {"a": 1}])
def test_inputs_that_are_no_tensors_are_part_of_them(other):
    found = {fingerprint.batch((torch.ones(2), one)) for one in (other, "other")}
    assert len(found) == 2
