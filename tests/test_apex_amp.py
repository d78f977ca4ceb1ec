"""The apex-amp plugin with a stand-in for Apex; test_apex_gpu.py runs the real one."""

from __future__ import annotations

import sys
import textwrap
import types
from pathlib import Path

import pytest
import torch

import precisionbench as pb
from precisionbench.backends import apex_amp
from precisionbench.backends.apex_amp import ApexAmp
from precisionbench.errors import BackendUnavailableError, SpecError
from precisionbench.torchtools.global_state import Functions
from precisionbench.torchtools.refill import refill
from precisionbench.torchtools.tensors import Inputs

# Under O1 it patches one function in each place where Apex 25.05 patches its 219.
STAND_IN = {
    "__init__.py": "",
    "amp/amp.py": """
        _DECORATOR_HANDLE = None
        _USER_CAST_REGISTRY, _USER_PROMOTE_REGISTRY = set(), set()
    """,
    "amp/__init__.py": """
        import warnings
        import torch
        from . import amp as core

        class AmpState:
            def __init__(self):
                self.verbosity = 1

        class Handle:
            def __init__(self):
                self._is_active = True
                self.cache = {"weight": 1}
            def _clear_cache(self):
                self.cache.clear()

        _amp_state = AmpState()

        def initialize(models, optimizers=None, enabled=True, opt_level="O1", *,
                       keep_batchnorm_fp32=None, verbosity=1):
            warnings.warn("apex.amp is deprecated", FutureWarning)
            _amp_state.verbosity = verbosity
            _amp_state.asked = (opt_level, keep_batchnorm_fp32)
            if opt_level == "O1":
                _amp_state.handle = core._DECORATOR_HANDLE = Handle()
                relu = torch.nn.functional.relu
                torch.nn.functional.relu = lambda *a, **k: relu(*a, **k)
                torch.relu = lambda x: x
                torch.Tensor.__matmul__ = lambda a, b: a
                torch.nn.modules.rnn._VF = object()
                for registry in (core._USER_CAST_REGISTRY, core._USER_PROMOTE_REGISTRY):
                    for place in registry:
                        setattr(*place[:2], "patched")
                    registry.clear()
            return models
    """,
}


def install(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = folder / "apex" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder in front of the path, and no apex imported before or after."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "apex"]:
            del sys.modules[name]

    forget()
    yield tmp_path
    forget()


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(apex_amp, "require_cuda", lambda _: None)
    monkeypatch.setattr(ApexAmp, "check_available", lambda _: None)


def test_everything_that_o1_patches_is_put_back(site, on_cpu, cnn, images):
    install(site, STAND_IN)
    functions = Functions.now()
    comparison = pb.compare(
        cnn,
        images,
        backends=["apex-amp", "eager", "eager"],
        device="cpu",
        launcher="inline",
        budget_s=0.05,
    )
    assert functions.changes() == []
    assert comparison["apex-amp"].details["patched_functions"] == 4
    assert comparison["eager#2"].agreement.relative_l2 == 0
    assert any("apex.amp is deprecated" in line for line in comparison["apex-amp"].log)


@pytest.mark.filterwarnings("ignore:apex.amp is deprecated")
def test_apex_state_is_restored_and_its_casts_are_off(site, on_cpu, cnn, images):
    install(site, STAND_IN)
    with ApexAmp().prepare(cnn, Inputs((images,))) as prepared:
        amp = sys.modules["apex.amp"]
        handle = amp._amp_state.handle
        assert amp._amp_state.asked == ("O1", None)
        assert amp._amp_state.verbosity == 0
        assert prepared.call().shape == (4, 5)
    assert amp._amp_state.handle is handle, "a wrapper that somebody kept asks for it"
    assert not handle._is_active, "and must not cast any more"
    assert amp._amp_state.verbosity == 1
    assert handle.cache == {}
    assert sys.modules["apex.amp.amp"]._DECORATOR_HANDLE is None


@pytest.mark.filterwarnings("ignore:apex.amp is deprecated")
def test_functions_that_the_user_registered_are_patched_for_one_row_each(site, on_cpu, cnn, images):
    install(site, STAND_IN)
    import apex.amp.amp as core

    mine = types.ModuleType("mine")
    mine.attend, mine.mix = len, max
    core._USER_CAST_REGISTRY.add((mine, "attend", "half"))
    core._USER_PROMOTE_REGISTRY.add((mine, "mix"))
    for _ in range(2):
        with ApexAmp().prepare(cnn, Inputs((images,))):
            assert (mine.attend, mine.mix) == ("patched", "patched")
        assert (mine.attend, mine.mix) == (len, max)


@pytest.mark.filterwarnings("ignore:apex.amp is deprecated")
def test_options_reach_apex(site, on_cpu, cnn, images):
    install(site, STAND_IN)
    backend = ApexAmp("O3", keep_batchnorm_fp32=True)
    with backend.prepare(cnn, Inputs((images,))) as prepared:
        assert sys.modules["apex.amp"]._amp_state.asked == ("O3", True)
        assert prepared.details["patched_functions"] == 0


@pytest.mark.filterwarnings("ignore:apex.amp is deprecated")
def test_a_call_computes_with_what_is_copied_into_its_inputs(site, on_cpu, cnn, images):
    install(site, STAND_IN)
    with ApexAmp("O2").prepare(cnn.eval(), Inputs((images.clone(),))) as prepared:
        refill(prepared.inputs, [images + 1])
        assert torch.equal(prepared.call(), cnn(images + 1))


def test_o1_takes_no_keep_batchnorm_fp32():
    with pytest.raises(SpecError, match="O1 does not support keep_batchnorm_fp32"):
        ApexAmp("O1", keep_batchnorm_fp32=True)


def test_apex_that_is_not_installed_is_reported(site, monkeypatch):
    monkeypatch.setattr(apex_amp.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BackendUnavailableError, match="requires NVIDIA Apex .not installed"):
        ApexAmp().check_available()


def test_the_unrelated_apex_of_pypi_is_recognised(site):
    install(site, {"__init__.py": "", "models.py": "", "views.py": ""})
    with pytest.raises(BackendUnavailableError) as caught:
        ApexAmp().check_available()
    assert "is the unrelated project 'apex' of PyPI); pip uninstall apex" in str(caught.value)


def test_an_unrelated_single_file_is_recognised(site):
    (site / "apex.py").write_text("")
    with pytest.raises(BackendUnavailableError, match=r"apex\.py is the unrelated project"):
        ApexAmp().check_available()


def test_an_apex_without_amp_is_recognised(site):
    install(site, {"__init__.py": "", "normalization/__init__.py": ""})
    with pytest.raises(BackendUnavailableError, match="is 25.07 or newer, without amp"):
        ApexAmp().check_available()


def test_an_apex_that_does_not_import_says_why(site, on_cpu, cnn, images):
    install(site, {"__init__.py": "", "amp/__init__.py": "raise RuntimeError('broken build')"})
    with (
        pytest.raises(BackendUnavailableError, match="broken build") as caught,
        ApexAmp().prepare(cnn, Inputs((images,))),
    ):
        pass
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_apex_needs_cuda(site, cnn, images):
    install(site, STAND_IN)
    with pytest.raises(BackendUnavailableError, match="a CUDA GPU"):
        ApexAmp().check_available()


def test_a_workload_on_the_cpu_is_refused(site, cnn, images):
    install(site, STAND_IN)
    with (
        pytest.raises(BackendUnavailableError, match="a CUDA device .the inputs are on cpu"),
        ApexAmp().prepare(cnn, Inputs((images,))),
    ):
        pass
