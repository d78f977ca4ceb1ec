from __future__ import annotations

import sys
import types
from enum import Enum
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from precisionbench.backends import Backend, discovery
from precisionbench.backends.apex_amp import ApexAmp
from precisionbench.backends.base import allowed_values, options_of, unrecorded
from precisionbench.backends.discovery import make
from precisionbench.backends.eager import Eager
from precisionbench.backends.half import Half
from precisionbench.backends.specs import canonical_spec, from_options
from precisionbench.backends.torch2trt import Torch2trt
from precisionbench.errors import BackendNotFoundError, SpecError
from precisionbench.spec_syntax import ALIASES, row_names, same_row, split_spec

SCRIPT = """
from __future__ import annotations

from typing import ClassVar, Literal

import attrs
import cloudpickle
import the_script

from precisionbench.backends import Backend

@attrs.frozen
class OfAScript(Backend):
    name: ClassVar[str] = "of-a-script"
    level: Literal["low", "high"] = "low"

    def prepare(self, model, inputs):
        yield

cloudpickle.register_pickle_by_value(the_script)
"""


class Mode(Enum):
    QUICK = "quick"
    THOROUGH = "thorough"


@attrs.frozen
class Everything(Backend):
    """One option of each type."""

    name: ClassVar[str] = "everything"
    choice: Literal["a", "b"] = "a"
    level: Literal[1, 2] = 1
    count: int = 3
    rate: float = 0.5
    folder: Path | None = None
    label: str = "x"
    flag: bool = False
    mode: Mode = Mode.QUICK
    name_or_none: str | None = "y"
    extras: list[str] = attrs.field(factory=list, metadata={"recorded": False})
    secret: object = unrecorded()

    def prepare(self, model, inputs):
        raise AssertionError


def test_a_spec_sets_options_of_every_type():
    made = from_options(
        Everything,
        {
            "choice": "b",
            "level": "2",
            "count": "7",
            "rate": "1e-3",
            "folder": "/tmp",
            "label": "text",
            "flag": "true",
            "mode": "thorough",
            "name_or_none": "none",
            "memory_format": "channels_last",
        },
    )
    assert made == Everything(
        "b",
        2,
        7,
        1e-3,
        Path("/tmp"),
        "text",
        True,
        Mode.THOROUGH,
        None,
        memory_format="channels_last",
    )
    assert canonical_spec(made).endswith(
        ",flag=true,mode=thorough,name_or_none=none,memory_format=channels_last"
    )
    assert options_of(made)["mode"] == "thorough"


def test_an_option_that_no_spec_can_express_is_given_in_an_object():
    @attrs.frozen
    class Lists(Everything):
        sizes: list[int] = attrs.field(factory=list)
        anything: Any = None

    assert Lists(sizes=[1, 2], anything=open).sizes == [1, 2]
    with pytest.raises(SpecError, match="sizes cannot be 3"):
        Lists(sizes=3)


def test_a_number_is_written_one_way():
    assert canonical_spec(Everything(rate=2)) == canonical_spec(Everything(rate=2.0))


@given(
    st.builds(
        Everything,
        choice=st.sampled_from("ab"),
        level=st.sampled_from([1, 2]),
        count=st.integers(),
        rate=st.floats(allow_nan=False),
        folder=st.sampled_from([None, Path("a/b")]),
        label=st.text("abc:.#/ ", min_size=1).filter(lambda text: text == text.strip()),
        flag=st.booleans(),
        cudnn_benchmark=st.booleans(),
    )
)
def test_a_canonical_spec_gives_an_equal_backend_back(backend):
    name, options = split_spec(canonical_spec(backend))
    assert name == "everything"
    assert from_options(Everything, options) == backend


def test_a_canonical_spec_leaves_defaults_out():
    assert canonical_spec(make("half:dtype=float16,memory_format=contiguous")) == "half"
    assert canonical_spec(Half("bfloat16", cudnn_benchmark=True)) == (
        "half:dtype=bfloat16,cudnn_benchmark=true"
    )
    assert canonical_spec(ApexAmp("O3", keep_batchnorm_fp32=False)) == (
        "apex-amp:opt_level=O3,keep_batchnorm_fp32=false"
    )


def test_unrecorded_fields_are_no_options():
    backend = Torch2trt("int8", calibration_data=[1])
    assert canonical_spec(backend) == "torch2trt:precision=int8"
    assert "calibration_data" not in options_of(backend)
    with pytest.raises(SpecError, match="no option 'calibration_data'"):
        make("torch2trt:calibration_data=x")


def test_an_unknown_backend_is_answered_with_the_nearest_and_all():
    with pytest.raises(BackendNotFoundError) as caught:
        make("eagre")
    question, _, known = str(caught.value).partition("known: ")
    assert question == "there is no backend 'eagre'; did you mean 'eager'? "
    names = known.split(", ")
    assert names == sorted(names)
    assert {"amp", "apex-amp", "eager", "half", "tensorrt", "torch2trt"} <= set(names)


@pytest.mark.parametrize(
    ("alias", "spec"),
    [
        ("fp32", "eager"),
        ("tf32", "eager:precision=tf32"),
        ("fp16", "half"),
        ("bf16", "half:dtype=bfloat16"),
        ("amp", "autocast"),
        ("tensorrt", "torch2trt:precision=fp16"),
        ("amp:dtype=bfloat16", "autocast:dtype=bfloat16"),
        ("bf16:memory_format=channels_last", "half:dtype=bfloat16,memory_format=channels_last"),
    ],
)
def test_an_alias_is_its_spec_in_a_row_and_in_a_query(alias, spec):
    backend = make(alias)
    assert canonical_spec(backend) == spec
    assert same_row(alias, spec, options_of(backend))
    assert not same_row(alias, f"{spec}#2", options_of(backend))


def test_an_option_that_an_alias_sets_is_not_given_again():
    with pytest.raises(SpecError, match="gives 'dtype' twice"):
        make("bf16:dtype=float16")


def test_a_plugin_whose_name_is_an_alias_comes_first(monkeypatch):
    plugin = EntryPoint("fp16", "precisionbench.backends.half:Half", discovery.GROUP)
    monkeypatch.setattr(discovery, "installed", lambda: {"fp16": [plugin]})
    with pytest.raises(SpecError, match="'fp16' of .* has the name 'half'"):
        make("fp16")


def test_an_unknown_option_is_answered_with_the_nearest_and_all():
    with pytest.raises(SpecError) as caught:
        make("half:dtpye=float16")
    assert str(caught.value) == (
        "the backend 'half' has no option 'dtpye'; did you mean 'dtype'? "
        "known: batch_size, cuda_graph, cudnn_benchmark, dtype, fold_batch_norm, fp32_layers, "
        "grad_mode, l2_cache, memory_format, threads"
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("half:dtype=float8", "half: dtype cannot be 'float8'; use 'float16' or 'bfloat16'"),
        ("half:cudnn_benchmark=yes", "cudnn_benchmark cannot be 'yes'; use true or false"),
        ("torch2trt:dla_core=x", "dla_core cannot be 'x'; use a whole number or none"),
        ("torch2trt:engine_cache=", "engine_cache cannot be ''"),
        ("half:bfloat16", "has 'bfloat16' in the place of an option; write 'half:option=value"),
        ("half:dtype=float16,dtype=bfloat16", "gives 'dtype' twice; give it once"),
    ],
)
def test_a_wrong_spec_says_what_is_allowed(spec, message):
    with pytest.raises(SpecError) as caught:
        make(spec)
    assert message in str(caught.value)


def test_a_wrong_value_in_an_object_is_refused_like_one_in_a_spec():
    with pytest.raises(SpecError, match="dtype cannot be 'float8'; use 'float16' or 'bfloat16'"):
        Half("float8")
    with pytest.raises(SpecError, match="workspace_bytes cannot be True; use a whole number"):
        Torch2trt(workspace_bytes=True)


@pytest.mark.parametrize("text", ["a,b", " a", ""])
def test_a_text_that_no_spec_can_express_is_refused(text):
    with pytest.raises(SpecError, match="label cannot be .*because a spec cannot contain it"):
        Everything(label=text)


def test_something_that_is_no_backend_is_refused():
    with pytest.raises(SpecError, match="the class Half; give a spec .* or a Backend object"):
        make(Half)
    with pytest.raises(SpecError, match="a backend is given as an int"):
        make(3)


def test_an_object_is_taken_as_it_is():
    backend = Eager("tf32")
    assert make(backend) is backend


def test_a_mandatory_option_that_is_missing_is_named():
    @attrs.frozen
    class Needy(Backend):
        name: ClassVar[str] = "needy"
        path: str = attrs.field(kw_only=True)

        def prepare(self, model, inputs):
            raise AssertionError

    with pytest.raises(SpecError, match="path"):
        from_options(Needy, {})
    assert canonical_spec(Needy(path="x")) == "needy:path=x"


def test_allowed_values_in_words():
    assert allowed_values(bool) == "true or false"
    assert allowed_values(float) == "a number"
    assert allowed_values(Path | None) == "path or none"


def test_equal_rows_are_numbered():
    assert row_names(["half", "eager", "half", "half"]) == ["half", "eager", "half#2", "half#3"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("half", True),
        ("half:dtype=float16", True),
        ("half:dtype=float16,cudnn_benchmark=false", True),
        ("half:dtype=bfloat16", False),
        ("half#1", True),
        ("half#2", False),
        ("fp16", True),
        ("fp16#2", False),
        ("bf16", False),
        ("half:nonsense", False),
        ("eager", False),
    ],
)
def test_a_row_is_found_with_its_defaults_spelled_out(query, found):
    assert same_row(query, "half", options_of(Half())) is found


def test_the_second_of_equal_rows_is_found_by_its_number():
    assert same_row("half:dtype=float16#2", "half#2", options_of(Half()))
    assert not same_row("half:dtype=float16", "half#2", options_of(Half()))


def test_a_backend_of_a_script_keeps_its_options_in_a_worker_where_its_imports_are_unknown():
    script = types.ModuleType("the_script")
    sys.modules["the_script"] = script
    try:
        exec(SCRIPT, vars(script))
        backend = script.OfAScript(level="high")
        sent = cloudpickle.dumps(backend)
    finally:
        del sys.modules["the_script"]
    worker = cloudpickle.loads(sent)
    assert options_of(worker)["level"] == "high"
    assert attrs.evolve(worker, level="low").level == "low"


def test_the_page_of_backends_lists_every_alias():
    page = (Path(__file__).parents[1] / "docs/backends.md").read_text()
    table = page.partition("| alias | spec |\n")[2].partition("\n\n")[0]
    assert [f"| `{alias}` | `{spec}` |" for alias, spec in ALIASES.items()] == [
        line for line in table.splitlines() if line.startswith("| `")
    ]


@attrs.frozen
class WithThreads(Eager):
    """Has an option of the name of a common one, with a meaning of its own."""

    name: ClassVar[str] = "with-threads"
    threads: int = 0


def test_an_option_threads_of_a_plugin_is_its_own():
    assert WithThreads().torch_threads is None
    assert WithThreads(threads=3).torch_threads is None
    assert Eager(threads=3).torch_threads == 3
    with pytest.raises(SpecError, match="threads cannot be 0"):
        Eager(threads=0)
