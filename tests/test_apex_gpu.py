"""The real Apex on a real GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import precisionbench as pb
from precisionbench.errors import PreparationError
from precisionbench.torchtools.global_state import Functions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.apex,
    # whichever test imports Apex first compiles its docstrings with invalid escapes
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(64, 64, 3, padding=1)
        self.bn = nn.BatchNorm2d(64)
        self.head = nn.Linear(64, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    """Takes its input through a matmul, which O1 casts, into an LSTM, whose `_VF` O1 replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(16, 32)
        self.lstm = nn.LSTM(32, 32, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(self.embed(x))[0]


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval().cuda()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(4, 64, 8, 8, device="cuda")


@pytest.mark.parametrize("level", ["O0", "O1", "O2", "O3"])
def test_each_level_runs_and_puts_every_function_back(net, x, level):
    functions = Functions.now()
    own_attributes = set(vars(torch.Tensor))
    comparison = pb.compare(
        net, x, backends=[f"apex-amp:opt_level={level}"], launcher="inline", budget_s=3
    )
    name = "apex-amp" if level == "O1" else f"apex-amp:opt_level={level}"
    assert [row.backend for row in comparison.results] == ["eager", name]
    assert functions.changes() == []
    # Python's `copyreg` keeps its own note at a class of which an object is copied.
    assert set(vars(torch.Tensor)) - {"__slotnames__"} == own_attributes - {"__slotnames__"}
    patched = comparison[name].details["patched_functions"]
    assert patched > 100 if level == "O1" else patched == 0


def test_fp32_is_fp32_again_after_o1(net, x):
    comparison = pb.compare(
        net, x, backends=["apex-amp:opt_level=O1", "eager", "eager"], launcher="inline", budget_s=4
    )
    assert comparison["eager#2"].agreement.relative_l2 < 1e-6
    assert 1e-5 < comparison["apex-amp"].agreement.relative_l2 < 1e-2
    with torch.no_grad():
        assert net(x).dtype == torch.float32
        assert torch.nn.functional.conv2d(x, net.conv.weight).dtype == torch.float32


def test_an_lstm_is_float32_again_after_o1_whether_or_not_o1_could_run_it():
    """Apex 25.05 cannot run this one under torch 2.11, which checks the dtypes of RNN inputs."""
    functions = Functions.now()
    torch.manual_seed(0)
    comparison = pb.compare(
        Recurrent(),
        torch.rand(4, 8, 16),
        backends=["apex-amp", "eager", "eager"],
        launcher="inline",
        budget_s=4,
    )
    assert functions.changes() == []
    assert comparison["eager#2"].agreement.tensors[0].dtype == "float32"
    assert comparison["eager#2"].agreement.relative_l2 < 1e-6
    for failure in comparison.failures:
        assert "dtype" in failure.reason


def test_apex_itself_would_have_left_torch_patched(net, x):
    """The leak of the founding case is real; without this the tests above would prove nothing."""
    from apex import amp

    functions = Functions.now()
    try:
        with pytest.warns(Warning):
            amp.initialize(net, opt_level="O1", verbosity=0)
        amp._amp_state.handle._deactivate()
        left_behind = functions.changes()
        assert "torch.nn.modules.rnn._VF" in left_behind
        assert len(left_behind) > 50
    finally:
        functions.restore()
    assert functions.changes() == []


def test_a_patched_function_that_somebody_kept_works_and_casts_no_more(net, x):
    """A module that is imported while O1 is on may keep torch.cat as it was then."""
    seen = {}

    class Keeps(nn.Module):
        def forward(self, x):
            if torch.cat is not unpatched:
                seen.update(cat=torch.cat, relu=torch.relu, matmul=torch.matmul)
            return torch.matmul(x, x)

    unpatched = torch.cat
    x = torch.rand(4, 4, device="cuda")
    assert not pb.compare(Keeps(), x, backends=["apex-amp"], launcher="inline", budget_s=2).failures
    assert seen["cat"] is not torch.cat
    assert seen["cat"]([x, x.half()]).dtype == torch.float32
    assert seen["matmul"](x, x).dtype == torch.float32


def test_functions_that_the_user_registered_are_the_users_again(net, x):
    import types

    from apex import amp

    mine = types.ModuleType("mine")
    mine.double = original = lambda x: x + x

    class Uses(nn.Module):
        def forward(self, x):
            return mine.double(x)

    amp.register_half_function(mine, "double")
    try:
        comparison = pb.compare(
            Uses(), x, backends=["apex-amp", "apex-amp", "eager"], launcher="inline", budget_s=3
        )
    finally:
        amp.amp._USER_CAST_REGISTRY.clear()
    dtypes = [row.agreement.tensors[0].dtype for row in comparison]
    assert dtypes == ["float16", "float16", "float32"]
    assert mine.double is original


def test_keep_batchnorm_fp32_is_passed_on(net, x):
    spec = "apex-amp:opt_level=O3,keep_batchnorm_fp32=true"
    comparison = pb.compare(
        net, x, backends=[spec, "apex-amp:opt_level=O3"], launcher="inline", budget_s=3
    )
    assert comparison[spec].options["keep_batchnorm_fp32"] is True
    assert not comparison.failures


def test_a_model_in_half_is_refused_with_apexs_own_words(net, x):
    comparison = pb.compare(
        net.half(), x.half(), backends=["apex-amp:opt_level=O2"], launcher="inline", budget_s=3
    )
    assert comparison.failures[0].error == PreparationError.__name__
    assert "HalfTensor" in comparison.failures[0].reason


def test_what_a_patched_process_runs_is_seen_whole(net, x):
    """Apex makes `Tensor.cpu` cast to float32, also where we compare with float64."""
    comparison = pb.compare(net, x, backends=["apex-amp"], budget_s=30)
    evidence = comparison["apex-amp"].evidence
    assert evidence.unknown == {}
    assert evidence.errors
